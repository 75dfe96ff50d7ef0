import gzip
import shutil

import numpy as np
import pytest

from tests.data.conftest import VARIABLE, real_files
from vdsm_bench.data import mmnist
from vdsm_bench.data.clips import evaluation_clips
from vdsm_bench.data.digits import MNIST_FILES, MNIST_SHA256, read_mnist, small_digits
from vdsm_bench.data.locate import DataRoot, dataset_to_use
from vdsm_bench.data.mmnist import DIRECTIONS, HEADINGS, ROOM, SPEEDS, Mmnist, MmnistSynthetic
from vdsm_bench.data.splits import check_disjoint, make_splits
from vdsm_bench.data.store import ClipStore, sha256_of
from vdsm_bench.errors import DataError
from vdsm_bench.registry import registry

FRAMES = np.arange(16)


def test_real_files_are_found_or_skipped_or_where_they_were_named_missed(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match=str(tmp_path / "mnist")):
        real_files("mnist")
    (tmp_path / "mnist").mkdir()
    assert real_files("mnist") == tmp_path / "mnist"
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(pytest.skip.Exception, match=VARIABLE):
        real_files("nothing")


@pytest.fixture(scope="session")
def files():
    """Folder of the four original files."""
    return real_files("mnist")


@pytest.fixture(scope="module")
def ones():
    return MmnistSynthetic(identities=200, takes=3)


@pytest.fixture(scope="module")
def store(ones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "mmnist-synthetic"
    ones.prepare(folder)
    return ClipStore.open(folder)


def compass(step):
    return max(HEADINGS, key=lambda name: float(np.dot(HEADINGS[name], step)))


@pytest.mark.parametrize(
    ("name", "digits", "motions"),
    [
        ("mmnist", 1, 32),
        ("mmnist-2", 2, 40),
        ("mmnist-synthetic", 1, 32),
        ("mmnist-2-synthetic", 2, 40),
    ],
)
def test_factors_and_cards(name, digits, motions):
    dataset = registry().factory("datasets", name)()
    assert dataset.card.name == name
    assert dataset.card.split == "identities"
    assert "CC BY" in dataset.card.licence
    assert dataset.image_shape == (64, 64, 1)
    kinds = {factor.name: (factor.kind, len(factor.classes)) for factor in dataset.factors}
    static = {1: {"digit": 10}, 2: {"smaller-digit": 9, "larger-digit": 9}}[digits]
    assert kinds["glyph"][0] == "static"
    assert {key: kinds[key] for key in static} == {key: ("static", n) for key, n in static.items()}
    dynamic = [kind for kind in kinds.values() if kind[0] == "dynamic"]
    assert np.prod([size for _, size in dynamic]) == motions
    labels = [dataset.labels(index) for index in range(len(dataset))]
    joint = [(one["direction"], one["speed"], one["bounce"]) for one in labels]
    _, counts = np.unique(joint, axis=0, return_counts=True)
    assert len(counts) == motions
    assert counts.max() < 1.35 * counts.min()


@pytest.mark.parametrize("place", range(32))
def test_one_digit_moves_as_its_labels_say(ones, place):
    """The way of the ink's centre, read off the pixels, has the heading, speed and bounce."""
    index = place * 18
    labels = ones.labels(index)
    ink = ones.draw(index, index, FRAMES)[..., 0].astype(float)
    rows, columns = np.mgrid[:64, :64]
    total = ink.sum((1, 2))
    assert len(set(total.tolist())) == 1  # no ink is lost at the sides
    way = np.stack([(ink * columns).sum((1, 2)), (ink * rows).sum((1, 2))], 1) / total[:, None]
    assert compass(way[4] - way[0]) == DIRECTIONS[1][labels["direction"]][0]
    low, high = list(SPEEDS.values())[labels["speed"]]
    # positions are whole pixels: four steps are known to a pixel along either axis
    assert low - 0.36 <= np.hypot(*(way[4] - way[0])) / 4 <= high + 0.36
    first, last = way[4] - way[0], way[15] - way[11]
    turned = first.round() * last.round() < 0
    assert turned.sum() == labels["bounce"]


def test_a_bounce_touches_a_side_and_a_free_way_none(ones):
    for index in range(0, len(ones), 7):
        (path,) = ones.paths(index)
        way = np.array(path.start) + FRAMES[:, None] * np.array(path.velocity)
        outside = ((way < -1e-9) | (way > ROOM + 1e-9)).any(0)
        assert outside.sum() == ones.labels(index)["bounce"]
        places = path.places(np.arange(300))
        assert places.min() >= 0
        assert places.max() <= ROOM


def test_two_digits_go_where_their_labels_say():
    twos, in_turn = MmnistSynthetic(digits=2, identities=90, takes=2), set()
    for index in range(0, len(twos), 11):
        labels, paths = twos.labels(index), twos.paths(index)
        names = [compass(path.velocity) for path in paths]
        wanted = DIRECTIONS[2][labels["direction"]]
        assert sorted(names) == sorted(wanted)
        in_turn.add(tuple(names) == wanted)
        places = [path.places(FRAMES) for path in paths]
        assert (np.abs(places[0] - places[1]).max(1) >= 18).mean() >= 0.6
        assert labels["smaller-digit"] < labels["larger-digit"] + 1
        # where they are apart, the pixels are those of both pictures
        frame = int(np.abs(places[0] - places[1]).max(1).argmax())
        if np.abs(places[0] - places[1])[frame].max() >= 28:
            (clip,) = twos.draw(index, index, np.array([frame]))
            for glyph, place in zip(twos._glyphs[index // 2], places, strict=True):
                left, top = place[frame]
                assert (clip[top : top + 28, left : left + 28, 0] == glyph).all()
    assert in_turn == {True, False}  # either digit may go either way


def test_the_label_of_a_digit_is_that_of_its_picture(ones):
    source = small_digits()
    known = {
        picture.tobytes(): int(digit) for picture, digit in zip(*vars(source).values(), strict=True)
    }
    assert len(known) == 1797
    for index in range(0, len(ones), 13):
        (path,) = ones.paths(index)
        left, top = path.places(FRAMES)[0]
        (frame,) = ones.draw(index, index, FRAMES[:1])
        picture = np.ascontiguousarray(frame[top : top + 28, left : left + 28, 0])
        assert known[picture.tobytes()] == ones.labels(index)["digit"]


def pictures_in(dataset, store, rows):
    """Cuts the pictures of one-digit clips out of the stored pixels."""
    found = set()
    for row in rows.tolist():
        left, top = dataset.paths(row)[0].places(FRAMES)[0]
        found.add(store.frames(row)[0, top : top + 28, left : left + 28].tobytes())
    return found


def test_held_out_digits_are_other_images(ones, store):
    splits = make_splits(store, "identities")
    check_disjoint(store, splits)
    train = pictures_in(ones, store, np.concatenate([splits.train, splits.cells]))
    for part in (splits.validation, splits.test):
        assert not train & pictures_in(ones, store, part)
    assert splits.unscorable == ("glyph",)
    assert set(store.labels["digit"][splits.test]) <= set(store.labels["digit"][splits.train])


@pytest.fixture(scope="module", params=["mmnist-2-synthetic", "mmnist-2"])
def twos(request, tmp_path_factory):
    """A set of two digits, its store, and the pictures of every identity as its clips show them."""
    name = request.param
    source = request.getfixturevalue("files") if name == "mmnist-2" else None
    dataset = registry().factory("datasets", name, {"identities": 90, "takes": 4})()
    folder = tmp_path_factory.mktemp("data") / name
    dataset.prepare(folder, source=source)
    store = ClipStore.open(folder)
    return dataset, store, [two_pictures(dataset, store, who) for who in range(90)]


def two_pictures(dataset, store, who):
    """Cuts two pictures out of the stored pixels: what stays on a way while the other passes."""
    found = ([], [])
    for row in np.flatnonzero(store.identities == who).tolist():
        for seen, path in zip(found, dataset.paths(row), strict=True):
            for frame, (left, top) in zip(store.frames(row), path.places(FRAMES), strict=True):
                seen.append(frame[top : top + 28, left : left + 28])
    return [np.min(seen, axis=0).tobytes() for seen in found]


def test_two_digits_are_called_by_their_pictures(twos):
    dataset, store, pictures = twos
    source = dataset.source_digits()
    known = {
        image.tobytes(): str(digit)
        for image, digit in zip(source.images, source.classes, strict=True)
    }
    classes = {factor.name: factor.classes for factor in store.factors}
    for row in range(len(store)):
        labels = {name: classes[name][labels[row]] for name, labels in store.labels.items()}
        shown = [known[picture] for picture in pictures[store.identities[row]]]
        assert shown == [labels["smaller-digit"], labels["larger-digit"]]
        assert shown[0] < shown[1]
        assert labels["glyph"] == f"glyph-{store.identities[row]:04d}"
    pairs = np.stack([store.labels["smaller-digit"], store.labels["larger-digit"]])
    assert np.unique(pairs, axis=1, return_counts=True)[1].tolist() == [8] * 45


def test_no_picture_of_two_held_out_digits_is_trained_on(twos):
    _, store, pictures = twos
    assert len({one for both in pictures for one in both}) == 180  # nobody shares one
    splits = make_splits(store, "identities")
    check_disjoint(store, splits)
    shown = {
        part: {one for who in store.identities[rows] for one in pictures[who]}
        for part, rows in splits.parts().items()
    }
    assert not (shown["train"] | shown["cells"]) & (shown["validation"] | shown["test"])
    assert not shown["validation"] & shown["test"]
    assert splits.unscorable == ("glyph",)


def test_transfers_and_continuations_agree_with_the_store(ones, store):
    chosen = [0, 100, 599]
    stored = evaluation_clips(store, chosen, frames=8, stride=2, image_size=32)
    pixels = stored.mul(255).round().byte().permute(0, 1, 3, 4, 2).numpy()
    same = ones.render_transfer(chosen, chosen, frames=8, stride=2, image_size=32)
    assert (same == pixels).all()
    long = ones.render_continuation(chosen, window=8, frames=30, stride=2, image_size=32)
    assert (long[:, :8] == pixels).all()
    (mixed,) = ones.render_transfer([0], [100], frames=16, stride=1, image_size=64)
    (own,), (other,) = ones._glyphs[0], ones._glyphs[33]
    assert mixed.sum() == 16 * int(own.sum())
    assert own.sum() != other.sum()


def test_a_seed_gives_the_same_bytes_and_another_seed_others(ones, store):
    again = MmnistSynthetic(identities=200, takes=3)
    other = MmnistSynthetic(identities=200, takes=3, seed=1)
    for index in (0, 299, 599):
        assert (again.draw(index, index, FRAMES) == store.frames(index)).all()
        assert (other.draw(index, index, FRAMES) != store.frames(index)).any()


def test_more_identities_than_pictures_are_refused():
    with pytest.raises(DataError, match="too few pictures of the digit 8 for 1750 identities"):
        MmnistSynthetic(identities=1750).draw(0, 0, FRAMES)


def test_the_four_files_are_the_published_ones(files):
    for file in MNIST_FILES:
        assert (files / file.name).stat().st_size == file.size
        assert f"sha256:{sha256_of(files / file.name)}" == file.checksum
        assert len(file.urls) == 3
    assert {f"{name}.gz" for name in MNIST_SHA256} == {file.name for file in MNIST_FILES}


def test_real_digits_are_read_and_moved(files, tmp_path):
    train, test = read_mnist(files, "train"), read_mnist(files, "t10k")
    assert (train.images.shape, test.images.shape) == ((60000, 28, 28), (10000, 28, 28))
    assert np.bincount(test.classes).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    assert train.classes[:5].tolist() == [5, 0, 4, 1, 9]
    dataset = Mmnist(identities=60)
    dataset.prepare(tmp_path / "mmnist", source=files)
    store = ClipStore.open(tmp_path / "mmnist")
    known = {
        image.tobytes(): digit
        for part in (train, test)
        for image, digit in zip(part.images, part.classes.tolist(), strict=True)
    }
    assert len(known) == 70000  # no picture occurs twice
    for row in range(0, 120, 7):
        (picture,) = pictures_in(dataset, store, np.array([row]))
        assert known[picture] == store.labels["digit"][row]


def test_files_may_be_unpacked_but_not_other_ones(files, tmp_path):
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        with gzip.open(files / f"{name}.gz") as packed:
            (tmp_path / name).write_bytes(packed.read())
    assert (read_mnist(tmp_path, "t10k").images == read_mnist(files, "t10k").images).all()
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[8] = 9  # the first label, which is a 7
    labels.write_bytes(content)
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is damaged or of another version"):
        read_mnist(tmp_path, "t10k")
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is missing"):
        read_mnist(tmp_path, "train")
    shutil.copy(files / "t10k-labels-idx1-ubyte.gz", tmp_path)
    packed = tmp_path / "t10k-labels-idx1-ubyte.gz"
    packed.chmod(0o644)
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte.gz does not read"):
        read_mnist(tmp_path, "t10k")


def test_a_missing_file_leaves_nothing_behind(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is missing; the four original files"):
        Mmnist().prepare(tmp_path / "data" / "mmnist", source=tmp_path / "empty")
    assert not (tmp_path / "data" / "mmnist").exists()


def test_without_files_there_is_a_stand_in_and_no_oracle(tmp_path):
    table = registry()
    assert dataset_to_use(table, "mmnist", DataRoot(tmp_path, named=False)) == "mmnist-synthetic"
    assert (
        dataset_to_use(table, "mmnist-2", DataRoot(tmp_path, named=False)) == "mmnist-2-synthetic"
    )
    assert dataset_to_use(table, "mmnist", DataRoot(tmp_path, named=True)) == "mmnist"
    assert Mmnist().render_transfer([0], [1], frames=8, stride=1, image_size=32) is None
    assert mmnist.Mmnist.downloads_of == "mmnist"
