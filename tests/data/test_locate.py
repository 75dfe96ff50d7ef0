import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vdsm_bench.contracts import Factor, VideoDataset
from vdsm_bench.data import locate
from vdsm_bench.data.locate import (
    DataRoot,
    build_dataset,
    data_root,
    dataset_to_use,
    open_dataset,
    prepare_dataset,
    with_own_datasets,
)
from vdsm_bench.data.store_writer import StoreWriter
from vdsm_bench.errors import ContractError, DataError, UsageError
from vdsm_bench.registry import Entry, Registry, registry
from vdsm_bench.runs.datasets import table_for

from .conftest import card, write_toy
from .home_videos import write_folder


class Dots(VideoDataset):
    """One clip, drawn in no time."""

    card = card("dots")
    fail = False

    def prepare(self, destination, *, source=None, progress=None):
        with StoreWriter(
            destination,
            card=self.card,
            factors=[Factor("who", "static", ("a",))],
            image_shape=(8, 8, 3),
            total_frames=2,
        ) as writer:
            if self.fail:
                raise DataError("the pen broke")
            writer.add(np.zeros((2, 8, 8, 3), np.uint8), {"who": 0})


@pytest.fixture
def table():
    table = Registry()
    table.register("datasets", "dots")(Dots)
    for name, target, settings in (
        ("mug", "vdsm_bench.data.mug:Mug", {"stand_in": "mug-synthetic"}),
        ("mug-synthetic", "vdsm_bench.data.mug_synthetic:MugSynthetic", {}),
        ("sprites", "vdsm_bench.data.sprites:Sprites", {}),
    ):
        defaults = {"sprites": {"variant": "vdsm-840"}, "mug-synthetic": {"takes": 1}}
        table.add(
            Entry("datasets", name, "", target, defaults=defaults.get(name, {}), settings=settings)
        )
    return table


def test_the_catalogue_knows_what_needs_no_files():
    known = registry()
    for name in known.names("datasets"):
        embedded = build_dataset(known, name).card.access == "embedded"
        assert embedded == bool(known.get("datasets", name).settings.get("embedded")), name


def test_the_option_wins_over_the_variable_over_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("VDSM_BENCH_DATA", raising=False)
    own = data_root()
    assert not own.named
    assert own.path.name == "data"
    assert "vdsm-bench" in str(own.path)
    monkeypatch.setenv("VDSM_BENCH_DATA", str(tmp_path / "env"))
    assert data_root() == DataRoot(tmp_path / "env", named=True)
    assert data_root(tmp_path / "option") == DataRoot(tmp_path / "option", named=True)
    monkeypatch.setenv("VDSM_BENCH_DATA", "")
    assert not data_root().named


def test_an_embedded_dataset_is_made_on_first_use_only(table, tmp_path):
    said = []
    root = DataRoot(tmp_path, named=True)
    assert open_dataset(table, "dots", root, log=said.append).name == "dots"
    assert open_dataset(table, "dots", root, log=said.append).name == "dots"
    assert len(said) == 1
    assert "Making dots" in said[0]


def test_mug_has_a_stand_in_where_nothing_was_configured(table, tmp_path, faces_store):
    root = DataRoot(faces_store.folder.parent, named=False)
    said = []
    store = open_dataset(table, "mug", root, log=said.append)
    assert store.name == "mug-synthetic"
    assert dataset_to_use(table, "mug", root) == "mug-synthetic"
    assert "stand-in mug-synthetic; its rows say mug-synthetic" in said[0]
    assert "vdsm-bench data prepare mug --from FOLDER" in said[0]


def test_there_is_no_stand_in_where_the_user_named_a_folder(table, faces_store):
    root = DataRoot(faces_store.folder.parent, named=True)
    with pytest.raises(DataError, match="mug is not in") as caught:
        open_dataset(table, "mug", root)
    assert caught.value.exit_code == 3
    assert caught.value.hint.startswith("vdsm-bench data prepare mug --from FOLDER")


def test_there_is_no_stand_in_where_mug_is(table, tmp_path):
    write_toy(tmp_path / "mug", name="mug")
    store = open_dataset(table, "mug", DataRoot(tmp_path, named=False))
    assert store.name == "mug"


def test_damaged_mug_is_an_error_not_a_stand_in(table, tmp_path):
    write_toy(tmp_path / "mug", name="mug")
    (tmp_path / "mug" / "frames.npy").write_bytes(b"")
    with pytest.raises(DataError, match="damaged"):
        open_dataset(table, "mug", DataRoot(tmp_path, named=False))


def test_an_imported_dataset_names_the_command(table, tmp_path):
    with pytest.raises(DataError) as caught:
        open_dataset(table, "sprites", DataRoot(tmp_path, named=False))
    assert "vdsm-bench data prepare sprites --from FOLDER" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_dataset_is_a_usage_error(table, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'sprites'"):
        open_dataset(table, "sprite", DataRoot(tmp_path, named=False))


def test_a_source_that_is_no_folder_is_refused(table, tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        prepare_dataset(table, "mug", DataRoot(tmp_path, True), source=tmp_path / "nowhere")


def test_replacing_keeps_the_old_store_until_the_new_one_is_whole(table, tmp_path, monkeypatch):
    root = DataRoot(tmp_path, named=True)
    write_toy(tmp_path / "dots", name="dots")
    monkeypatch.setattr(Dots, "fail", True)
    with pytest.raises(DataError, match="the pen broke"):
        prepare_dataset(table, "dots", root, replace=True)
    assert len(prepare_dataset(table, "dots", root)) == 72
    monkeypatch.setattr(Dots, "fail", False)
    assert len(prepare_dataset(table, "dots", root, replace=True)) == 1
    left = {path.name for path in tmp_path.iterdir()} - {".dots.lock"}  # stays with some filelocks
    assert left == {"dots"}


def test_a_replacement_that_was_killed_gives_the_old_store_back(table, tmp_path):
    write_toy(tmp_path / "dots", name="dots")
    (tmp_path / "dots").rename(locate._aside(tmp_path / "dots"))
    assert len(prepare_dataset(table, "dots", DataRoot(tmp_path, named=True))) == 72


def test_what_is_put_back_takes_no_place_of_what_is_no_store(table, tmp_path):
    write_toy(tmp_path / "dots", name="dots")
    (tmp_path / "dots").rename(locate._aside(tmp_path / "dots"))
    (tmp_path / "dots").mkdir()
    (tmp_path / "dots" / "holiday.mp4").write_bytes(b"the only copy")
    with pytest.raises(DataError, match=r"lies something else: holiday\.mp4"):
        prepare_dataset(table, "dots", DataRoot(tmp_path, named=True))
    assert (tmp_path / "dots" / "holiday.mp4").read_bytes() == b"the only copy"


def test_checking_a_store_that_is_being_replaced_does_not_stand_in_the_way(tmp_path, monkeypatch):
    """A reader that is through when the old store has been set aside must not make its folder."""
    old = write_toy(tmp_path / "dots", name="dots")

    def set_aside(path, progress=None):
        path.parent.rename(locate._aside(path.parent))
        return old.card["sha256"]["frames.npy"]

    monkeypatch.setattr("vdsm_bench.data.store.sha256_of", set_aside)
    old.verify_once()
    assert not (tmp_path / "dots").exists()
    assert not (locate._aside(tmp_path / "dots") / ".passed.json").exists()


def test_a_folder_without_a_card_does_not_cost_the_store_set_aside(table, tmp_path, monkeypatch):
    root = DataRoot(tmp_path, named=True)
    write_toy(tmp_path / "dots", name="dots")
    (tmp_path / "dots").rename(locate._aside(tmp_path / "dots"))
    (tmp_path / "dots").mkdir()
    (tmp_path / "dots" / ".passed.json").write_text("{}")
    monkeypatch.setattr(Dots, "fail", True)
    with pytest.raises(DataError, match="the pen broke"):
        prepare_dataset(table, "dots", root, replace=True)
    assert len(prepare_dataset(table, "dots", root)) == 72


def test_what_is_left_of_an_old_store_takes_nobodys_place(table, tmp_path):
    """A store whose card was lost may be mended; half of an older one cannot stand in for it."""
    write_toy(tmp_path / "dots", name="dots")
    (tmp_path / "dots" / "card.json").unlink()
    locate._aside(tmp_path / "dots").mkdir()
    with pytest.raises(DataError, match=r"damaged: there is no card.json"):
        prepare_dataset(table, "dots", DataRoot(tmp_path, named=True))
    assert (tmp_path / "dots" / "frames.npy").exists()


def test_what_a_killed_replacement_set_aside_is_there_for_every_command(table, tmp_path):
    """Also for those that find the user's own sets by their cards."""
    clips, root = tmp_path / "clips", DataRoot(tmp_path / "data", named=False)
    write_folder(clips, takes=6)
    own = {"static": ("person",), "dynamic": ("action",), "size": 16, "split": "identities"}
    made = table_for(table, "mine", own, root, replace=False)
    prepare_dataset(made, "mine", root, source=clips)
    mug = root.path / "mug"
    write_toy(mug, name="mug")
    for folder in (root.store("mine"), mug):
        folder.rename(locate._aside(folder))
    found = with_own_datasets(table, root)
    assert found.get("datasets", "mine").settings["split"] == "identities"
    assert dataset_to_use(found, "mug", root) == "mug"
    said = []
    assert len(open_dataset(found, "mine", root, log=said.append)) == 24
    assert len(open_dataset(found, "mug", root, log=said.append)) == 72
    assert said == []  # it is put back, not made
    root.store("mine").rename(locate._aside(root.store("mine")))
    again = table_for(with_own_datasets(table, root), "mine", {}, root, replace=True)
    store = prepare_dataset(again, "mine", root, source=clips, replace=True)
    assert (store.image_shape[0], store.card["split"]) == (16, "identities")
    assert {path.name for path in root.path.iterdir() if path.is_dir()} == {"mine", "mug"}


def test_options_for_a_catalogues_set_that_is_there_are_refused(table, tmp_path):
    root = DataRoot(tmp_path, named=True)
    given = {"variant": "li-mandt-1296"}
    assert table_for(table, "sprites", given, root, replace=False) is not table
    write_toy(tmp_path / "sprites", name="sprites")
    with pytest.raises(UsageError, match="--variant would change nothing"):
        table_for(table, "sprites", given, root, replace=False)
    table_for(table, "sprites", given, root, replace=True)


PREPARE = """
import sys, time
from pathlib import Path
import numpy as np
from vdsm_bench.contracts import DatasetCard, Factor, VideoDataset
from vdsm_bench.data.locate import DataRoot, prepare_dataset
from vdsm_bench.data.store_writer import StoreWriter
from vdsm_bench.registry import Registry

class Slow(VideoDataset):
    "Slow to draw."
    card = DatasetCard(name="slow", summary="", licence="", access="embedded", source="",
                       split="clips")
    def prepare(self, destination, *, source=None, progress=None):
        with StoreWriter(destination, card=self.card, factors=[Factor("a", "static", ("x",))],
                         image_shape=(8, 8, 3), total_frames=2) as writer:
            print("drawing", flush=True)
            time.sleep(1.5)
            writer.add(np.zeros((2, 8, 8, 3), np.uint8), {"a": 0})

table = Registry()
table.register("datasets", "slow")(Slow)
store = prepare_dataset(table, "slow", DataRoot(Path(sys.argv[1]), True),
                        log=lambda line: print(line, flush=True))
print("clips", len(store))
"""


def test_two_that_prepare_at_once_take_turns(tmp_path):
    command = [sys.executable, "-c", PREPARE, str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert first.stdout.readline() == "drawing\n"
    second = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    rest, _ = first.communicate(timeout=60)
    assert rest == "clips 1\n"
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines()[-1] == "clips 1"
    # drawn once: whoever came second found the store ready, waiting for it if it came in time
    assert "drawing" not in second.stdout


def test_finding_the_root_imports_no_torch():
    code = (
        "import sys; from vdsm_bench.data.locate import data_root; data_root(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path.cwd(), check=False).returncode == 0


def test_a_store_under_another_name_is_refused(table, tmp_path):
    """A row must not say mug because a folder is called so."""
    root = DataRoot(tmp_path, named=True)
    prepare_dataset(table, "dots", root).folder.rename(root.store("mug"))
    with pytest.raises(DataError, match="holds dots, not mug"):
        open_dataset(table, "mug", root)


def test_a_card_of_another_name_breaks_the_contract(table, tmp_path):
    table.register("datasets", "points")(Dots)
    with pytest.raises(ContractError, match="card of datasets/points says 'dots'"):
        prepare_dataset(table, "points", DataRoot(tmp_path, named=True))


def test_a_damaged_source_says_what_to_do_when_it_is_mended(table, tmp_path):
    with pytest.raises(DataError) as caught:
        prepare_dataset(table, "mug", DataRoot(tmp_path / "d", named=True), source=tmp_path)
    assert caught.value.hint == "mend it, then the same command again"


def test_a_file_in_the_place_of_a_store_is_damage(table, tmp_path):
    (tmp_path / "dots").write_text("x")
    root = DataRoot(tmp_path, named=True)
    with pytest.raises(DataError, match="In the place of the clip store .* lies something else"):
        open_dataset(table, "dots", root)
    with pytest.raises(DataError, match="lies something else: dots"):
        prepare_dataset(table, "dots", root, replace=True)
    assert (tmp_path / "dots").read_text() == "x"


def test_what_is_no_store_is_never_replaced(table, tmp_path):
    """A folder of the user's, in a data folder that the user named, with a set's name."""
    root, folder = DataRoot(tmp_path, named=True), tmp_path / "dots"
    folder.mkdir()
    (folder / "holiday.mp4").write_bytes(b"the only copy")
    for replace in (False, True):
        with pytest.raises(DataError, match=r"lies something else: holiday\.mp4") as refused:
            prepare_dataset(table, "dots", root, replace=replace)
        assert "--replace" not in refused.value.hint
    write_toy(tmp_path / "other", name="dots")
    for path in (tmp_path / "other").iterdir():  # beside a store, too
        path.rename(folder / path.name)
    with pytest.raises(DataError, match=r"lies something else: holiday\.mp4"):
        prepare_dataset(table, "dots", root, replace=True)
    assert (folder / "holiday.mp4").read_bytes() == b"the only copy"
    (folder / "holiday.mp4").rename(folder / ".clips")  # hidden, and no clutter
    with pytest.raises(DataError, match=r"lies something else: \.clips"):
        prepare_dataset(table, "dots", root, replace=True)
    (folder / ".clips").unlink()
    (folder / ".DS_Store").touch()
    (folder / ".card.json.x1.part").touch()
    assert len(prepare_dataset(table, "dots", root, replace=True)) == 1


def test_frames_that_changed_on_disk_are_refused_where_clips_are_used(table, tmp_path):
    root = DataRoot(tmp_path, named=True)
    open_dataset(table, "dots", root)
    frames = tmp_path / "dots" / "frames.npy"
    content = bytearray(frames.read_bytes())
    content[-1] ^= 1
    (tmp_path / "new").write_bytes(content)
    (tmp_path / "new").replace(frames)
    with pytest.raises(DataError, match="frames.npy does not match its checksum") as caught:
        open_dataset(table, "dots", root)
    assert "vdsm-bench data prepare dots --replace" in caught.value.hint
