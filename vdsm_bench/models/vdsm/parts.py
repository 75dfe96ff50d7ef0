"""The small networks of VDSM: heads, gated transition, combiner, sequence encoder and roll-out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from vdsm_bench.contracts import Batch, FrameDecoder, FrameEncoder
from vdsm_bench.errors import ContractError
from vdsm_bench.initialisation import keep_signal

T = TypeVar("T")
#: a normal's scale never falls below it: prior roll-outs underflow to 0 within 10-20 steps else
LEAST_SCALE = 1e-4


@dataclass(frozen=True)
class Seen:
    """A clip, and what stage ``pretrain`` reads off its frames.

    Attributes:
        clip: ``[B, T, C, H, W]``.
        features: the frame encoder's ``[B, T, F]``.
        pose_loc: of q(z_t | x_t) ``[B, T, pose_dim]``.
        pose_scale: the same.
    """

    clip: Tensor
    features: Tensor
    pose_loc: Tensor
    pose_scale: Tensor


def full(tensor: Tensor) -> Tensor:
    """Returns float32 where products left a shorter type."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def unpaired(batch: Batch) -> Batch:
    """Returns the clips of pairs one below the other, ``[2 B, T / 2, ...]``; others as they are."""
    if not batch.pairs:
        return batch
    clip = torch.cat(batch.clip.chunk(2, dim=1))
    known = None if batch.features is None else torch.cat(batch.features.chunk(2, dim=1))
    return Batch(clip, pairs=True, features=known)


def read_frames(encoder: FrameEncoder, frames: Tensor) -> Tensor:
    """Returns an encoder's features of frames ``[N, C, H, W]``: ``[N, feature_dim]``.

    Raises:
        ContractError: they have another shape, or the frames were written into.
    """
    where = f"{type(encoder).__name__}.forward"
    written = _times_written(frames)
    features: Tensor = encoder(frames)
    if _times_written(frames) != written:
        raise ContractError(
            f"{where}: it writes into its frames, with which the loss compares.",
            hint="make new tensors of them: (frames - 0.5) / 0.25, not frames.sub_(0.5).div_(0.25)",
        )
    hint = "return a row for each of the frames [N, C, H, W], as wide as the encoder's feature_dim"
    return _shaped(features, (len(frames), encoder.feature_dim), where, hint)


def features_of(encoder: FrameEncoder, clip: Tensor) -> Tensor:
    """Returns the features of a clip's frames ``[B, T, F]``; raises as :func:`read_frames`."""
    return read_frames(encoder, clip.flatten(0, 1)).view(*clip.shape[:2], -1)


def draw_frames(
    decoder: FrameDecoder, pose: Tensor, weights: Tensor, frame_shape: tuple[int, int, int]
) -> Tensor:
    """Returns a decoder's pixel logits ``[B, T, C, H, W]`` of poses ``[B, T, pose_dim]``.

    Args:
        decoder: whose logits.
        pose: see above.
        weights: of the identities ``[B, identity_dim]``.
        frame_shape: C, H and W.

    Raises:
        ContractError: they have another shape.
    """
    hint = "return logits [B, T, C, H, W]: B and T are those of the pose, the others the clip's"
    where = f"{type(decoder).__name__}.logits"
    return _shaped(decoder.logits(pose, weights), (*pose.shape[:2], *frame_shape), where, hint)


def _times_written(tensor: Tensor) -> int:
    """Returns torch's count of what was written into a tensor or a view of it."""
    return 0 if tensor.is_inference() else tensor._version  # inference tensors have no count


def _shaped(found: Tensor, shape: Sequence[int], where: str, hint: str) -> Tensor:
    """Returns a component's tensor, whose shape is checked: torch would spread or reshuffle it."""
    if not isinstance(found, Tensor) or found.shape != torch.Size(shape):
        got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ContractError(f"{where}: expected {list(shape)}, got {got}.", hint=hint)
    return found


def latent(method: Callable[..., T]) -> Callable[..., T]:
    """Lets a method of a network of the latents compute in float32 also under autocast.

    These are small, what they return is added up over the frames, and an exponential follows.
    """

    @functools.wraps(method)
    def computed(self: nn.Module, first: Tensor, *others: Any) -> T:
        with torch.autocast(first.device.type, enabled=False):
            return method(self, full(first), *others)

    return computed


def positive(raw: Tensor) -> Tensor:
    """Returns ``softplus(raw)``, floored: a standard deviation."""
    return functional.softplus(raw) + LEAST_SCALE


def _start_scale_at(layer: nn.Linear, rows: slice, scale: float) -> None:
    """Makes the rows of a layer that feed a softplus start at one standard deviation."""
    with torch.no_grad():
        layer.weight[rows] *= 0.1
        layer.bias[rows] = scale + math.log(-math.expm1(-scale))  # softplus' inverse


class PoseHead(nn.Module):
    """q(z_t | x_t): features ``[..., F]`` to loc and scale ``[..., pose_dim]``.

    Its scale starts at ``scale``, also without ``kept``, or where torch starts it if None.
    """

    def __init__(
        self, feature_dim: int, pose_dim: int, scale: float | None, *, kept: bool = True
    ) -> None:
        super().__init__()
        self.layer = nn.Linear(feature_dim, 2 * pose_dim)
        if kept:
            keep_signal(self.layer)
        if scale is not None:
            _start_scale_at(self.layer, slice(pose_dim, None), scale)

    @latent
    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns loc and scale."""
        loc, raw = self.layer(features).chunk(2, dim=-1)
        return loc, positive(raw)


class IdentityHead(nn.Module):
    """q(s | x_1..x_T): features ``[B, T, F]`` to loc and scale ``[B, identity_dim]``.

    FC(F, 128), LeakyReLU, FC(128, 2 K_s) per frame; one more linear layer each on loc
    (LeakyReLU) and scale (softplus); then the mean over the frames.

    Deviation:
        The scale starts at the prior's 1 / K_s. Left at softplus(0) = 0.7 it would be many
        times the prior's, and the mixing weights mostly noise until it had shrunk: the
        decoder learns to ignore them meanwhile. Without ``kept`` everything starts where torch
        starts it.

    Args:
        feature_dim: F.
        identity_dim: K_s.
        slope: of the LeakyReLU on loc, below zero.
        kept: see above.
    """

    def __init__(
        self, feature_dim: int, identity_dim: int, slope: float = 0.01, *, kept: bool = True
    ) -> None:
        super().__init__()
        self.slope = slope
        self.hidden = nn.Linear(feature_dim, 128)
        self.output = nn.Linear(128, 2 * identity_dim)
        self.loc_layer = nn.Linear(identity_dim, identity_dim)
        self.scale_layer = nn.Linear(identity_dim, identity_dim)
        if kept:
            keep_signal(self)
            _start_scale_at(self.scale_layer, slice(None), 1 / identity_dim)

    @latent
    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns loc and scale."""
        loc, raw = self.output(functional.leaky_relu(self.hidden(features))).chunk(2, dim=-1)
        loc = functional.leaky_relu(self.loc_layer(loc), self.slope)
        scale = positive(self.scale_layer(functional.softplus(raw)))
        return loc.mean(1), scale.mean(1)


class GatedTransition(nn.Module):
    """p(z_t | z_{t-1}, d): a gate between a linear map, the identity at first, and a proposal.

    With u = [z_{t-1}, d]: gate = sigmoid(A2 relu(A1 u)), proposed = B2 relu(B1 u),
    loc = (1 - gate) L z_{t-1} + gate proposed, scale = softplus(S relu(proposed)).
    """

    def __init__(self, pose_dim: int, motion_dim: int, width: int) -> None:
        super().__init__()
        inputs = pose_dim + motion_dim
        self.gate = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, pose_dim))
        self.proposal = nn.Sequential(
            nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, pose_dim)
        )
        self.linear = nn.Linear(pose_dim, pose_dim)
        self.scale = nn.Linear(pose_dim, pose_dim)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(pose_dim))
            self.linear.bias.zero_()

    @latent
    def forward(self, previous: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Returns loc and scale of z_t ``[..., pose_dim]``."""
        inputs = torch.cat([previous, motion], dim=-1)
        gate = torch.sigmoid(self.gate(inputs))
        proposed = self.proposal(inputs)
        loc = (1 - gate) * self.linear(previous) + gate * proposed
        return loc, positive(self.scale(functional.relu(proposed)))


class Combiner(nn.Module):
    """q(z_t | z_{t-1}, x, d): joins the roll-out's state, d and z_{t-1}.

    m = LeakyReLU(W [rnn_t, d]), c = (tanh(V z_{t-1}) + m) / 2, loc = P c, scale = softplus(Q c).
    """

    def __init__(self, pose_dim: int, motion_dim: int, width: int) -> None:
        super().__init__()
        self.from_state = nn.Linear(width + motion_dim, width)
        self.from_previous = nn.Linear(pose_dim, width)
        self.loc = nn.Linear(width, pose_dim)
        self.scale = nn.Linear(width, pose_dim)

    @latent
    def messages(self, states: Tensor, motion: Tensor) -> Tensor:
        """Returns m of all steps ``[B, T, width]``; none waits for z, so it is one product."""
        motion = motion.unsqueeze(1).expand(-1, states.shape[1], -1)
        return functional.leaky_relu(self.from_state(torch.cat([states, motion], dim=-1)))

    @latent
    def forward(self, previous: Tensor, message: Tensor) -> tuple[Tensor, Tensor]:
        """Returns loc and scale of z_t ``[..., pose_dim]``."""
        combined = 0.5 * (torch.tanh(self.from_previous(previous)) + message)
        return self.loc(combined), positive(self.scale(combined))


class StackedLSTM(nn.Module):
    """A bidirectional LSTM of several layers, dropout between them; batch first.

    As ``nn.LSTM``, whose dropout however has a generator of its own on CUDA: its noise would be no
    function of the seed, and each seeding would make its state anew.
    """

    def __init__(self, inputs: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(
            nn.LSTM(2 * width if index else inputs, width, batch_first=True, bidirectional=True)
            for index in range(layers)
        )

    def forward(self, sequence: Tensor) -> Tensor:
        """Returns the final hidden states ``[2 layers, B, width]`` of ``[B, T, inputs]``."""
        last = []
        for index, layer in enumerate(self.layers):
            if index:
                sequence = functional.dropout(sequence, self.dropout, self.training)
            sequence, (hidden, _) = layer(sequence)
            last.append(hidden)
        return torch.cat(last)


class MotionEncoder(nn.Module):
    """q(d | x): pose locs ``[B, T, pose_dim]`` to loc and scale ``[B, motion_dim]``.

    A bidirectional LSTM's final hidden states of all layers and directions, then one
    linear layer. The scale starts at the prior's 1 / K_d, for the reason given at IdentityHead,
    or, without ``kept``, where torch starts it.
    """

    def __init__(
        self,
        pose_dim: int,
        motion_dim: int,
        width: int,
        layers: int,
        dropout: float,
        *,
        kept: bool = True,
    ) -> None:
        super().__init__()
        self.rnn = StackedLSTM(pose_dim, width, layers, dropout)
        self.output = nn.Linear(2 * layers * width, 2 * motion_dim)
        if kept:
            _start_scale_at(self.output, slice(motion_dim, None), 1 / motion_dim)

    @latent
    def forward(self, pose: Tensor) -> tuple[Tensor, Tensor]:
        """Returns loc and scale."""
        hidden = self.rnn(pose)
        loc, raw = self.output(hidden.transpose(0, 1).flatten(1)).chunk(2, dim=-1)
        return loc, positive(raw)


class RollOut(nn.Module):
    """The state path: an LSTM started by d and fed with its own output.

    It never sees z, so the whole path is made before the first pose is drawn.
    """

    def __init__(self, motion_dim: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.width, self.layers, self.dropout = width, layers, dropout
        self.hidden = nn.Linear(motion_dim, layers * width)
        self.cell = nn.Linear(motion_dim, layers * width)
        self.cells = nn.ModuleList(nn.LSTMCell(width, width) for _ in range(layers))
        self.first_input = nn.Parameter(torch.zeros(width))

    @latent
    def forward(self, motion: Tensor, n_frames: int) -> Tensor:
        """Returns the states ``[B, n_frames, width]`` of motion codes ``[B, motion_dim]``."""
        b = motion.shape[0]
        hidden = list(self.hidden(motion).view(b, self.layers, self.width).unbind(1))
        cell = list(self.cell(motion).view(b, self.layers, self.width).unbind(1))
        current = self.first_input.expand(b, -1)
        states = []
        for _ in range(n_frames):
            for index, step in enumerate(self.cells):
                hidden[index], cell[index] = step(current, (hidden[index], cell[index]))
                current = hidden[index]
                if index < self.layers - 1:
                    current = functional.dropout(current, self.dropout, self.training)
            states.append(current)
        return torch.stack(states, dim=1)
