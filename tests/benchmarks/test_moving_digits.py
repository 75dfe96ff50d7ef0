import csv

import numpy as np
import pytest

from benchmarks import moving_digits
from benchmarks.moving_digits import draw_take, draw_takes, main
from tests.data.conftest import real_files

WHITE = np.ones(3)


def _blot():
    """A digit that is a bar left of the middle, from top to bottom."""
    picture = np.zeros((28, 28), dtype=np.uint8)
    picture[6:22, 9:12] = 255
    return picture


def _middle(frame):
    ink = frame[..., 0].astype(float)
    rows, columns = np.indices(ink.shape)
    return (ink * rows).sum() / ink.sum(), (ink * columns).sum() / ink.sum()


def _take(movement):
    return draw_take(_blot(), WHITE, movement, np.random.default_rng(0))


def _ink(frame):
    return frame[..., 0].sum(dtype=float)


def test_a_digit_does_what_its_movement_says():
    grown, shrunk = _take("grow"), _take("shrink")
    assert _ink(grown[-1]) > 2 * _ink(grown[0])
    assert _ink(shrunk[-1]) < 0.6 * _ink(shrunk[0])
    hop = [_middle(frame)[0] for frame in _take("hop")]
    assert min(hop) < hop[0] - 5
    assert max(hop) < hop[0] + 1.5
    sway = [_middle(frame)[1] for frame in _take("sway")]
    assert max(sway) > sway[0] + 4
    assert min(sway) < sway[0] - 4


def test_turns_are_opposite():
    left, right = _middle(_take("turn_left")[-1]), _middle(_take("turn_right")[-1])
    upright = _middle(_take("grow")[7])
    assert (left[0] - upright[0]) * (right[0] - upright[0]) < 0


def test_colour_and_shape_stay_and_takes_differ():
    pictures = np.stack([np.roll(_blot(), shift, 1) for shift in range(-6, 6)] * 5)
    first = [take for _, take in zip(range(60), draw_takes(pictures), strict=False)]
    again = next(iter(draw_takes(pictures)))
    assert np.array_equal(first[0][2], again[2])
    assert not np.array_equal(first[0][2], first[1][2])
    brightest = {
        digit: frames.reshape(-1, 3)[frames.sum(-1).argmax()] for digit, _, frames in first
    }
    assert set(brightest) == {"d00", "d01"}
    assert np.abs(brightest["d00"].astype(int) - brightest["d01"]).max() > 5
    assert {movement for _, movement, _ in first} == set(moving_digits.MOVEMENTS)


def test_a_missing_file_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "nowhere"), str(tmp_path / "clips")])
    assert stopped.value.code == 3
    assert "train-images-idx3-ubyte" in capsys.readouterr().err


def test_clips_of_the_real_files_come_with_their_labels(tmp_path, capsys):
    files = real_files("mnist")
    folder = tmp_path / "clips"
    main([str(files), str(folder)])
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60 * 6 * 5
    assert sorted(path.name for path in folder.glob("*.npz")) == sorted(row["file"] for row in rows)
    for row in rows[::300]:
        assert row["file"].startswith(f"{row['digit_image']}_{row['movement']}_")
    with np.load(folder / rows[0]["file"]) as clip:
        assert clip["arr_0"].shape == (14, 48, 48, 3)
    for place, said in ((folder, "not empty"), (folder / "labels.csv", "The disk refused")):
        with pytest.raises(SystemExit) as stopped:
            main([str(files), str(place)])
        assert stopped.value.code == 3
        assert said in capsys.readouterr().err
