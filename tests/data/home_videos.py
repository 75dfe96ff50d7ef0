"""Clips as people have them: written here, with real codecs, so that what they show is known."""

import csv

import numpy as np
import pytest
from PIL import Image

from vdsm_bench.data.folder import FolderDataset
from vdsm_bench.data.store import ClipStore
from vdsm_bench.errors import DataError

CODECS = {"mp4": ("libx264", "yuv420p"), "avi": ("mpeg4", "yuv420p"), "webm": ("libvpx", "yuv420p")}
COLOURS = {"anna": (220, 30, 30), "ben": (30, 220, 30)}
STEPS = {"walk": 1, "run": 3}


def pictures(who, what, *, frames=8, take=0, width=40, height=32):
    """A bar of the person's colour that moves at the action's speed from the take's place."""
    clip = np.full((frames, height, width, 3), 20, np.uint8)
    for t in range(frames):
        place = (4 + 5 * take + STEPS[what] * t) % (width - 8)
        clip[t, 6:26, place : place + 8] = COLOURS[who]
    return clip


def write_video(path, clip, *, rate=25, codec=None, pixels=None):
    av = pytest.importorskip("av", reason="PyAV needs Python 3.11")
    usual = CODECS.get(path.suffix[1:], (codec, pixels))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec or usual[0], rate=rate)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = pixels or usual[1]
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_clip(path, clip):
    kind = path.suffix
    if kind in (".mp4", ".avi", ".webm"):
        write_video(path, clip)
    elif kind == ".gif":
        first, *rest = [Image.fromarray(frame) for frame in clip]
        first.save(path, save_all=True, append_images=rest, duration=40)
    elif kind == ".png":
        Image.fromarray(np.concatenate(list(clip[:, :, :32]), axis=1)).save(path)
    elif kind == ".npz":
        np.savez(path, clip=clip)
    else:
        path.mkdir()
        for t, frame in enumerate(clip):
            Image.fromarray(frame).save(path / f"{t}.png")


def write_labels(folder, rows, header=("file", "person", "action"), separator=","):
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows([header, *rows])


def write_folder(folder, kinds=(".npz",), takes=4, frames=8):
    """Two people x two actions x takes, the kinds of file by turns; returns the table's rows."""
    folder.mkdir(parents=True)
    rows = []
    for who in COLOURS:
        for what in STEPS:
            for take in range(takes):
                kind = kinds[len(rows) % len(kinds)]
                name = f"{who}_{what}_{take}{kind}"
                write_clip(folder / name, pictures(who, what, take=take, frames=frames + take))
                rows.append((name, who, what))
    write_labels(folder, rows)
    return rows


def imported(source, destination, **options):
    """Imports a folder; returns its store."""
    name = destination.name
    settings = {"static": ("person",), "dynamic": ("action",), "size": 32, **options}
    FolderDataset(name=name, **settings).prepare(destination, source=source)
    return ClipStore.open(destination)


def refused(source, tmp_path, **options):
    """Returns what is said of a folder that is refused, and proves that nothing was left of it."""
    destination = tmp_path / "data" / "mine"
    with pytest.raises(DataError) as caught:
        imported(source, destination, **options)
    left = list(destination.parent.iterdir()) if destination.parent.exists() else []
    assert [path.name for path in left if path.suffix != ".lock"] == []
    return str(caught.value)
