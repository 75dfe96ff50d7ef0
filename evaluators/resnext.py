"""ResNeXt-101 over space and time (Hara et al., CVPR 2018), the network behind VDSM's FID.

Bottleneck blocks of 3, 4, 23, 3, cardinality 32, 2048 features after the last average; weights
under the names of the published Kinetics files (``conv1``, ``bn1``, ``layer1.0.conv1`` ...).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from vdsm_bench.errors import DataError

#: what the network is shown: 16 frames of 112 x 112, RGB in 0..255 minus the mean of Kinetics
FRAMES, SIZE = 16, 112
_MEAN = (114.7748, 107.7354, 99.4750)
_BLOCKS, _PLANES = (3, 4, 23, 3), (128, 256, 512, 1024)
_CARDINALITY, _EXPANSION = 32, 2
_HINT = (
    "give the file of ResNeXt-101 trained on Kinetics (3D-ResNets-PyTorch: "
    "resnext-101-kinetics.pth) or its state dict as .safetensors"
)


class Bottleneck(nn.Module):
    """1x1x1, grouped 3x3x3, 1x1x1, and a projection where the shape changes."""

    def __init__(self, before: int, planes: int, stride: int) -> None:
        super().__init__()
        after = planes * _EXPANSION
        self.conv1 = nn.Conv3d(before, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = nn.Conv3d(
            planes, planes, 3, stride, padding=1, groups=_CARDINALITY, bias=False
        )
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = nn.Conv3d(planes, after, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(after)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv3d(before, after, 1, stride, bias=False), nn.BatchNorm3d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``[B, 2 planes, T', H', W']``."""
        found = functional.relu(self.bn1(self.conv1(x)))
        found = functional.relu(self.bn2(self.conv2(found)))
        found = self.bn3(self.conv3(found))
        kept = x if self.downsample is None else self.downsample(x)
        return functional.relu(found + kept)


class ResNeXt(nn.Module):
    """Clips ``[B, 3, 16, 112, 112]``, normalised, to features ``[B, 2048]``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 64, 7, (1, 2, 2), padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        before = 64
        for number, (blocks, planes) in enumerate(zip(_BLOCKS, _PLANES, strict=True), start=1):
            layer = []
            for block in range(blocks):
                layer.append(Bottleneck(before, planes, 2 if block == 0 and number > 1 else 1))
                before = planes * _EXPANSION
            self.add_module(f"layer{number}", nn.Sequential(*layer))

    def forward(self, clip: Tensor) -> Tensor:
        """Returns the features."""
        x = functional.relu(self.bn1(self.conv1(clip)))
        x = functional.max_pool3d(x, 3, stride=2, padding=1)
        for number in range(1, len(_BLOCKS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean((2, 3, 4))


def prepare(clips: Tensor) -> Tensor:
    """Turns clips ``[B, T, C, H, W]`` in [0, 1] into what the network was trained on.

    The 16 central frames (a shorter clip is repeated from its start), the short side scaled to
    112 (bilinear, anti-aliased), centre crop, RGB in 0..255 minus the mean; ``[B, 3, 16, 112,
    112]``. Grey clips are shown as RGB.
    """
    time = clips.shape[1]
    start = max(0, (time - FRAMES) // 2)
    clips = clips[:, (torch.arange(FRAMES) + start) % time]
    frames = clips.flatten(0, 1)
    frames = frames.expand(-1, 3, -1, -1) if frames.shape[1] == 1 else frames
    height, width = frames.shape[2:]
    scale = SIZE / min(height, width)
    size = [round(height * scale), round(width * scale)]
    frames = functional.interpolate(frames, size, mode="bilinear", antialias=True)
    top, left = (size[0] - SIZE) // 2, (size[1] - SIZE) // 2
    frames = 255 * frames[:, :, top : top + SIZE, left : left + SIZE]
    frames = frames - torch.tensor(_MEAN, device=frames.device).view(3, 1, 1)
    return frames.reshape(-1, FRAMES, *frames.shape[1:]).transpose(1, 2)


def load_resnext(path: Path) -> ResNeXt:
    """Reads the network's weights; tensors only, nothing in the file is run.

    Args:
        path: ``.safetensors``, or a file of ``torch.save`` whose content is tensors and plain
            values (read by torch's weights-only reader), with or without ``module.`` before the
            names and with or without the classifier ``fc``.

    Raises:
        DataError: missing, unreadable, not these names and shapes, or not finite.
    """
    weights = {
        name.removeprefix("module."): value
        for name, value in _tensors(path).items()
        if not name.removeprefix("module.").startswith("fc.")
    }
    with torch.device("meta"):
        network = ResNeXt()
    expected = network.state_dict()
    for name, value in expected.items():
        if name.endswith("num_batches_tracked"):
            weights.setdefault(name, torch.zeros(value.shape, dtype=value.dtype))
    odd = sorted(set(expected) ^ set(weights))
    if odd:
        raise DataError(
            f"{path} holds no ResNeXt-101: {len(odd)} names are missing or too many, the first "
            f"'{odd[0]}'.",
            hint=_HINT,
        )
    for name, value in weights.items():
        if value.shape != expected[name].shape or not value.isfinite().all():
            raise DataError(
                f"{path}: '{name}' must be finite {list(expected[name].shape)}, got "
                f"{list(value.shape)}.",
                hint=_HINT,
            )
    typed = {name: value.to(expected[name].dtype) for name, value in weights.items()}
    network.load_state_dict(typed, assign=True)
    return network.eval().requires_grad_(False)


def _tensors(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise DataError(f"There is no file {path}.", hint=_HINT)
    try:
        if path.suffix == ".safetensors":
            return load_file(str(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise what they like on damaged files
        first = str(error).partition("\n")[0]
        raise DataError(f"{path} does not read as weights: {first}", hint=_HINT) from error
    content = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    if not (content and all(isinstance(value, Tensor) for value in content.values())):
        raise DataError(f"{path} holds no state dict.", hint=_HINT)
    return OrderedDict(content)
