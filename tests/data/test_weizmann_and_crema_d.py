import numpy as np
import pytest
from PIL import Image

from vdsm_bench.data.crema_d import CremaD
from vdsm_bench.data.store import ClipStore
from vdsm_bench.data.weizmann import ACTIONS, Weizmann
from vdsm_bench.errors import DataError

from .home_videos import pictures, write_video


def strips(folder, people=9):
    """As MoCoGAN ships them: 8 numbers per person, two per action."""
    for number in range(8 * people):
        place = folder / {0: "1", 1: "0", 2: "3", 3: "4"}[number % 8 // 2]
        place.mkdir(parents=True, exist_ok=True)
        frames = 3 + number % 3
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64 * frames, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number:08d}.jpg")


def test_weizmann_strips(tmp_path):
    strips(tmp_path / "mocogan" / "data" / "actions")
    Weizmann().prepare(tmp_path / "data" / "weizmann", source=tmp_path / "mocogan")
    store = ClipStore.open(tmp_path / "data" / "weizmann")
    assert len(store) == 72
    assert store.factors[0].classes == tuple(f"person-{i}" for i in range(9))
    assert store.factors[1].classes == ("folder-0", "folder-1", "folder-3", "folder-4")
    assert np.bincount(store.identities * 4 + store.motions).tolist() == [2] * 36
    shown = np.asarray(Image.open(tmp_path / "mocogan" / "data" / "actions" / "0" / "00000002.jpg"))
    assert (np.concatenate(list(store.frames(0)), axis=1) == shown).all()


def test_weizmann_videos_keep_the_whole_picture(tmp_path):
    source = tmp_path / "clips"
    source.mkdir()
    for take, name in enumerate(("lena_run1", "lena_run2", "ido_wave2")):
        write_video(source / f"{name}.avi", pictures("ben", "run", take=take, width=48))
    (source / "ido_wave2.avi").rename(source / "ido_wave2.AVI")
    (source / "._ido_wave2.avi").write_bytes(b"what a Mac leaves")
    Weizmann(size=48).prepare(tmp_path / "weizmann", source=source)
    store = ClipStore.open(tmp_path / "weizmann")
    assert store.card["recordings"] == ["ido_wave2.AVI", "lena_run1.avi", "lena_run2.avi"]
    assert store.factors[1].classes == ("run", "wave2")
    assert set(store.factors[1].classes) <= set(ACTIONS)
    assert store.frames(0)[:, :6].max() == 0
    assert store.frames(0)[:, 16].max() > 100


def test_crema_d_is_labelled_by_its_names(tmp_path):
    source = tmp_path / "CREMA-D" / "VideoFlash"
    source.mkdir(parents=True)
    for name, who in (("1001_DFA_ANG_XX", "anna"), ("1002_IEO_HAP_HI", "ben")):
        clip = pictures(who, "run", frames=12)
        write_video(source / f"{name}.flv", clip, rate=30, codec="flv", pixels="yuv420p")
    (source / "._1001_DFA_ANG_XX.flv").write_bytes(b"what a Mac leaves")
    CremaD(size=32).prepare(tmp_path / "crema-d", source=source.parent)
    store = ClipStore.open(tmp_path / "crema-d")
    assert store.factors[0].classes == ("1001", "1002")
    assert store.factors[1].classes == ("anger", "happiness")
    assert store.lengths.tolist() == [4, 4]  # 12 frames at 30 per second, brought to 10
    assert "2 of 91 actors; anger 1 of 1271" in store.card["notes"][0]
    (source / "1003_DFA_ANG_XX.flv").write_text("version https://git-lfs.github.com/spec/v1\n")
    write_video(source / "holiday.mp4", pictures("ben", "walk"))
    with pytest.raises(DataError) as caught:
        CremaD(size=32).prepare(tmp_path / "again", source=source)
    assert "1003_DFA_ANG_XX.flv: is a Git LFS pointer" in caught.value.message
    assert "holiday.mp4: is not called ACTOR_SENTENCE" in caught.value.message
    assert not (tmp_path / "again").exists()
    CremaD(size=32, leave_out_odd=True).prepare(tmp_path / "crema", source=source)
    assert len(ClipStore.open(tmp_path / "crema")) == 2


@pytest.mark.parametrize("kind", [Weizmann, CremaD])
def test_without_files_the_card_says_where_they_are_and_that_nothing_is_downloaded(tmp_path, kind):
    (tmp_path / "empty").mkdir()
    for source in (None, tmp_path / "empty"):
        with pytest.raises(DataError) as caught:
            kind().prepare(tmp_path / "x", source=source)
        assert "Not downloaded" in caught.value.hint
        assert "https://github.com" in caught.value.hint
    assert kind().downloads == ()
