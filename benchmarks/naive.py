"""VDSM in plain loops: the yardstick of the program's speed, and its reference in tests.

The mathematics and the weights are the program's; the structure is that of the authors' release:

* one Pyro trace for the batch, with sites of their own for every clip and every time step;
* the decoder is called once per clip, with weights blended for it by ``(w * bank).sum(0)``
  over all experts, and runs torch's ``conv_transpose2d`` on ``[T, C, H, W]``;
* the LSTM that is fed with its own output, the combiner and the gated transition go one clip and
  one step at a time;
* the encoder sees all frames of the batch at once, channels first, through torch's
  convolutions and the BlurPool package; so does the bidirectional LSTM, all clips at once;
* stage ``sequence`` does not train encoder, pose head and decoder, but their gradients are formed
  and added up all the same, because nothing says that they are not wanted; and it is trained by
  Adam as torch gives it, without further settings (:func:`stock_adam`).

What is not the release's is cheap and makes the two comparable: KL terms are analytic instead of
sampled, pixels are scored by their logits, Pyro's validation is off, and every time step has an
observed site of its own. Nothing is slowed down on purpose: layouts are those that torch's
functions want, and no operand is copied for them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.nn import functional

from vdsm_bench.encoders.blurpool import BlurPoolEncoder
from vdsm_bench.errors import UsageError
from vdsm_bench.models.vdsm.annealing import Annealing
from vdsm_bench.models.vdsm.model import VDSM
from vdsm_bench.optional import import_optional

FLOOR = 1e-4
SLOPE = 0.01


def check_plain(vdsm: VDSM) -> None:
    """Refuses a model that there is no plain form of.

    Raises:
        UsageError: its encoder is another than the paper's, or it has two.
    """
    if isinstance(vdsm.encoder, BlurPoolEncoder) and vdsm.pose_encoder is None:
        return
    raise UsageError(
        "There is no plain form of this model: it has one encoder, the paper's.",
        hint="--preset paper, or --no-naive to time the program alone",
    )


class NaiveVDSM(nn.Module):
    """The plain form of a :class:`VDSM` with the paper's encoder and decoder; copies its weights.

    Args:
        vdsm: the model whose weights it starts with; Bernoulli pixels, mixture of experts.
    """

    def __init__(self, vdsm: VDSM) -> None:
        super().__init__()
        check_plain(vdsm)
        self.dims = vdsm.pose_dim, vdsm.identity_dim, vdsm.motion_dim
        convolutions = [m for m in vdsm.encoder.modules() if isinstance(m, nn.Conv2d)]
        self.convolutions = nn.ModuleList(copy.deepcopy(c) for c in convolutions)
        blur_pool = import_optional("antialiased_cnns", package="antialiased-cnns").BlurPool
        self.blurs = nn.ModuleList(
            blur_pool(c.out_channels, filt_size=4, stride=1) for c in convolutions[:-1]
        )
        decoder: Any = vdsm.decoder
        # as conv_transpose2d has them: [K_s, C_in, C_out, 4, 4]
        self.weights = nn.ParameterList(
            nn.Parameter(bank.detach().permute(4, 0, 3, 1, 2).contiguous())
            for bank in decoder.weights
        )
        self.biases = nn.ParameterList(
            nn.Parameter(bias.detach().t().contiguous()) for bias in decoder.biases
        )
        self.pose_head = copy.deepcopy(vdsm.pose_head)
        self.identity_head = copy.deepcopy(vdsm.identity_head)
        self.motion_encoder = copy.deepcopy(vdsm.motion_encoder)
        self.roll_out = copy.deepcopy(vdsm.roll_out)
        self.combiner = copy.deepcopy(vdsm.combiner)
        self.transition = copy.deepcopy(vdsm.transition)
        self.first_pose = copy.deepcopy(vdsm.first_pose)
        self.rnn = _as_lstm(vdsm.roll_out)
        del self.roll_out.cells

    def counterparts(self, vdsm: VDSM) -> dict[nn.Parameter, nn.Parameter]:
        """Returns the program's parameter of each parameter of the plain form."""
        decoder: Any = vdsm.decoder
        convolutions = [m for m in vdsm.encoder.modules() if isinstance(m, nn.Conv2d)]
        pairs = dict(zip(self.weights, decoder.weights, strict=True))
        pairs |= dict(zip(self.biases, decoder.biases, strict=True))
        pairs |= dict(zip(self.convolutions.parameters(),
                          nn.ModuleList(convolutions).parameters(), strict=True))  # fmt: skip
        for index, cell in enumerate(vdsm.roll_out.cells):
            for name, theirs in cell.named_parameters():
                pairs[self.rnn.get_parameter(f"{name}_l{index}")] = theirs
        for name, mine in self.named_parameters():
            if mine not in pairs:
                pairs[mine] = vdsm.get_parameter(name)
        return pairs

    def gradients(self, vdsm: VDSM) -> dict[nn.Parameter, Tensor | None]:
        """Returns its gradients by the program's parameters, in their layout."""
        found: dict[nn.Parameter, Tensor | None] = {}
        biases = set(self.biases)
        for mine, theirs in self.counterparts(vdsm).items():
            gradient = mine.grad
            if gradient is not None and gradient.ndim == 5:
                gradient = gradient.permute(1, 3, 4, 2, 0)
            elif gradient is not None and mine in biases:
                gradient = gradient.t()
            found[theirs] = gradient
        return found

    def loss(
        self,
        clip: Tensor,
        stage: str,
        annealing: Annealing,
        noise: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Returns the mean over clips of the negative ELBO (eq. 4) from one draw.

        Args:
            clip: ``[B, T, C, H, W]``.
            stage: ``pretrain`` or ``sequence``.
            annealing: temperature and weights; the pose is not shut, there is no matching.
            noise: the standard normal behind the latent sites ``s_n``, ``d_n`` and ``z_n_t``, n
                and t from 0, each ``[1, K]``; drawn here if None.
        """
        guide = self.guide if noise is None else _WithNoise(noise)(self.guide)
        with pyro.validation_enabled(False):
            elbo = TraceMeanField_ELBO()
            loss = elbo.differentiable_loss(self.model, guide, clip, stage, annealing)
        mean: Tensor = loss / len(clip)
        return mean

    def model(self, clip: Tensor, stage: str, annealing: Annealing) -> None:
        """p: s, d and z_t of every clip in turn, and its frames."""
        k_z, k_s, k_d = self.dims
        for n, frames in enumerate(clip):
            s = _normal(f"s_{n}", clip.new_zeros(1, k_s), 1 / k_s, annealing.identity)
            w = torch.softmax(annealing.temperature * s[0], dim=-1)
            d = None
            if stage == "sequence":
                d = _normal(f"d_{n}", clip.new_zeros(1, k_d), 1 / k_d, annealing.motion)
            loc, scale = clip.new_zeros(1, k_z), clip.new_ones(1, k_z)
            path: list[Tensor] = []
            for t in range(len(frames)):
                if d is not None and path:
                    loc, scale = self.step_of_prior(path[-1], d)
                path.append(_normal(f"z_{n}_{t}", loc, scale, annealing.open_pose))
            logits = self.decode(torch.cat(path), w)
            for t, frame in enumerate(frames):
                pixels = dist.Bernoulli(logits=logits[t : t + 1]).to_event(3)
                pyro.sample(f"x_{n}_{t}", pixels, obs=frame[None])

    def guide(self, clip: Tensor, stage: str, annealing: Annealing) -> None:
        """q: s and d of every clip, then its z_t."""
        features = self.encode(clip)
        out = self.pose_head.layer(features)
        locs, scales = out[..., : self.dims[0]], _positive(out[..., self.dims[0] :])
        if stage == "sequence":
            hidden = self.motion_encoder.rnn(locs)
            out = self.motion_encoder.output(hidden.transpose(0, 1).flatten(1))
            d_loc, d_scale = out[:, : self.dims[2]], _positive(out[:, self.dims[2] :])
        for n in range(len(clip)):
            _normal(f"s_{n}", *self.identity(features[n]), annealing.identity)
            if stage == "pretrain":
                for t in range(clip.shape[1]):
                    loc, scale = locs[n, t : t + 1], scales[n, t : t + 1]
                    _normal(f"z_{n}_{t}", loc, scale, annealing.open_pose)
                continue
            d = _normal(f"d_{n}", d_loc[n : n + 1], d_scale[n : n + 1], annealing.motion)
            hidden, cell = (
                layer(d).view(self.rnn.num_layers, 1, self.rnn.hidden_size)
                for layer in (self.roll_out.hidden, self.roll_out.cell)
            )
            state = self.roll_out.first_input[None]
            z = self.first_pose[None]
            for t in range(clip.shape[1]):
                outputs, (hidden, cell) = self.rnn(state[None], (hidden, cell))
                state = outputs[0]
                loc, scale = self.step_of_posterior(z, state, d)
                z = _normal(f"z_{n}_{t}", loc, scale, annealing.open_pose)

    def encode(self, clip: Tensor) -> Tensor:
        """Frames to features ``[B, T, F]``: all frames at once, channels first."""
        x = clip.flatten(0, 1)
        for index, convolution in enumerate(self.convolutions):
            x = functional.leaky_relu(convolution(x), SLOPE)
            if index < len(self.blurs):
                x = self.blurs[index](x)
        return x.flatten(1).view(*clip.shape[:2], -1)

    def identity(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """q(s | x) of one clip: the mean over its frames of a loc and a scale per frame."""
        head, k_s = self.identity_head, self.dims[1]
        out = head.output(functional.leaky_relu(head.hidden(features), SLOPE))
        loc = functional.leaky_relu(head.loc_layer(out[:, :k_s]), head.slope)
        scale = _positive(head.scale_layer(functional.softplus(out[:, k_s:])))
        return loc.mean(0, keepdim=True), scale.mean(0, keepdim=True)

    def step_of_prior(self, z: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """p(z_t | z_{t-1}, d), the gated transition."""
        part, u = self.transition, torch.cat([z, d], dim=-1)
        gate = torch.sigmoid(part.gate[2](torch.relu(part.gate[0](u))))
        proposed = part.proposal[2](torch.relu(part.proposal[0](u)))
        loc = (1 - gate) * part.linear(z) + gate * proposed
        return loc, _positive(part.scale(torch.relu(proposed)))

    def step_of_posterior(self, z: Tensor, state: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """q(z_t | z_{t-1}, x, d), the combiner."""
        part = self.combiner
        message = functional.leaky_relu(part.from_state(torch.cat([state, d], dim=-1)), SLOPE)
        combined = 0.5 * (torch.tanh(part.from_previous(z)) + message)
        return part.loc(combined), _positive(part.scale(combined))

    def decode(self, z: Tensor, w: Tensor) -> Tensor:
        """Logits ``[T, C, H, W]`` of one clip: poses ``[T, K_z]``, mixing weights ``[K_s]``."""
        x = torch.cat([z, w.expand(len(z), -1)], dim=-1)[:, :, None, None]
        for index, (bank, biases) in enumerate(zip(self.weights, self.biases, strict=True)):
            weight = (w.view(-1, 1, 1, 1, 1) * bank).sum(0)
            bias = (w.view(-1, 1) * biases).sum(0)
            if index:
                x = functional.leaky_relu(x, SLOPE)
                x = functional.conv_transpose2d(x, weight, bias, stride=2, padding=1)
            else:
                x = functional.conv_transpose2d(x, weight, bias)
        return x


def stock_adam(naive: NaiveVDSM, vdsm: VDSM, stage: str, rate: float) -> torch.optim.Adam:
    """Returns torch's Adam with its defaults on what a stage trains."""
    (player,) = next(s for s in vdsm.stages() if s.name == stage).players
    trained = set(player.parameters)
    mine = [m for m, theirs in naive.counterparts(vdsm).items() if theirs in trained]
    return torch.optim.Adam(mine, lr=rate)


def _as_lstm(roll_out: Any) -> nn.LSTM:
    """Returns the LSTM whose cells the program rolls out."""
    lstm = nn.LSTM(roll_out.width, roll_out.width, roll_out.layers,
                   dropout=roll_out.dropout if roll_out.layers > 1 else 0.0)  # fmt: skip
    with torch.no_grad():
        for index, cell in enumerate(roll_out.cells):
            for name, value in cell.named_parameters():
                lstm.get_parameter(f"{name}_l{index}").copy_(value)
    return lstm


def _positive(raw: Tensor) -> Tensor:
    return functional.softplus(raw) + FLOOR


def _normal(name: str, loc: Tensor, scale: Tensor | float, weight: float) -> Tensor:
    with poutine.scale(scale=weight):
        value: Tensor = pyro.sample(name, dist.Normal(loc, scale).to_event(1))
    return value


class _WithNoise(Messenger):
    """Makes every normal site from noise that is given: loc + scale noise."""

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.noise = noise

    def _pyro_sample(self, message: Any) -> None:
        normal = message["fn"].base_dist
        message["value"] = normal.loc + normal.scale * self.noise[message["name"]]
