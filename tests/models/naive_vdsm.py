"""VDSM written as plainly as possible: one clip at a time, one Pyro site per step.

The reference for the vectorised model. It shares the weights and nothing else: every
density is written out from its equation, the decoder blends by hand and uses torch's own
transposed convolution.
"""

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from pyro.poutine import Trace
from torch import Tensor

from vdsm_bench.models.vdsm.annealing import Annealing
from vdsm_bench.models.vdsm.model import VDSM

FLOOR = 1e-4


class NaiveVDSM:
    def __init__(self, vdsm: VDSM, annealing: Annealing) -> None:
        self.v, self.a = vdsm, annealing

    def decode(self, z_t: Tensor, w: Tensor) -> Tensor:
        x = torch.cat([z_t, w])[None, :, None, None]
        for layer, (bank, biases) in enumerate(
            zip(self.v.decoder.weights, self.v.decoder.biases, strict=True)
        ):
            weight = sum(w[k] * bank[k] for k in range(len(w))).permute(0, 3, 1, 2)
            bias = sum(w[k] * biases[k] for k in range(len(w)))
            if layer:
                x = F.conv_transpose2d(F.leaky_relu(x, 0.01), weight, bias, stride=2, padding=1)
            else:
                x = F.conv_transpose2d(x, weight, bias)
        return x[0]

    def normal(self, name: str, loc: Tensor, scale: Tensor, weight: float) -> Tensor:
        with poutine.scale(scale=weight):
            return pyro.sample(name, dist.Normal(loc, scale, validate_args=False).to_event(1))

    def identity(self, features: Tensor) -> tuple[Tensor, Tensor]:
        head, locs, scales = self.v.identity_head, [], []
        for f in features:
            out = head.output(F.leaky_relu(head.hidden(f), 0.01))
            loc, raw = out[: self.v.identity_dim], out[self.v.identity_dim :]
            locs.append(F.leaky_relu(head.loc_layer(loc), 0.01))
            scales.append(F.softplus(head.scale_layer(F.softplus(raw))) + FLOOR)
        return sum(locs) / len(locs), sum(scales) / len(scales)

    def pose(self, f: Tensor) -> tuple[Tensor, Tensor]:
        out = self.v.pose_head.layer(f)
        return out[: self.v.pose_dim], F.softplus(out[self.v.pose_dim :]) + FLOOR

    def prior_step(self, z: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        t, u = self.v.transition, torch.cat([z, d])
        a1, a2, b1, b2 = t.gate[0], t.gate[2], t.proposal[0], t.proposal[2]
        gate = torch.sigmoid(a2.weight @ torch.relu(a1.weight @ u + a1.bias) + a2.bias)
        proposed = b2.weight @ torch.relu(b1.weight @ u + b1.bias) + b2.bias
        loc = (1 - gate) * (t.linear.weight @ z + t.linear.bias) + gate * proposed
        return loc, F.softplus(t.scale.weight @ torch.relu(proposed) + t.scale.bias) + FLOOR

    def posterior_steps(self, d: Tensor, n: int):
        r, c = self.v.roll_out, self.v.combiner
        h = [r.hidden(d).view(r.layers, r.width)[k] for k in range(r.layers)]
        m = [r.cell(d).view(r.layers, r.width)[k] for k in range(r.layers)]
        x, z = r.first_input, self.v.first_pose
        for _ in range(n):
            for k in range(r.layers):
                pre = r.cells[k].weight_ih @ x + r.cells[k].bias_ih
                pre = pre + r.cells[k].weight_hh @ h[k] + r.cells[k].bias_hh
                i, f, g, o = pre.chunk(4)
                m[k] = torch.sigmoid(f) * m[k] + torch.sigmoid(i) * torch.tanh(g)
                x = h[k] = torch.sigmoid(o) * torch.tanh(m[k])
            message = F.leaky_relu(c.from_state(torch.cat([x, d])), 0.01)
            combined = 0.5 * (torch.tanh(c.from_previous(z)) + message)
            z = yield c.loc(combined), F.softplus(c.scale(combined)) + FLOOR

    def model(self, clip: Tensor, stage: str) -> None:
        v, a = self.v, self.a
        sd = torch.full((v.identity_dim,), 1 / v.identity_dim)
        s = self.normal("s", torch.zeros(v.identity_dim), sd, a.identity)
        w = torch.softmax(a.temperature * s, -1)
        loc, scale = torch.zeros(v.pose_dim), torch.ones(v.pose_dim)
        if stage == "sequence":
            sd = torch.full((v.motion_dim,), 1 / v.motion_dim)
            d = self.normal("d", torch.zeros(v.motion_dim), sd, a.motion)
        for t in range(len(clip)):
            if stage == "sequence" and t:
                loc, scale = self.prior_step(z, d)  # noqa: F821
            z = self.normal(f"z_{t + 1}", loc, scale, a.pose)
            pixels = dist.Bernoulli(logits=self.decode(z, w), validate_args=False).to_event(3)
            pyro.sample(f"x_{t + 1}", pixels, obs=clip[t])

    def guide(self, clip: Tensor, stage: str) -> None:
        v, a = self.v, self.a
        features = [v.encoder(frame[None])[0] for frame in clip]
        self.normal("s", *self.identity(features), a.identity)
        if stage == "pretrain":
            for t, f in enumerate(features):
                self.normal(f"z_{t + 1}", *self.pose(f), a.pose)
            return
        locs = torch.stack([self.pose(f)[0] for f in features]).detach()
        _, (hidden, _) = v.motion_encoder.rnn(locs[None])
        out = v.motion_encoder.output(torch.cat([h[0] for h in hidden]))
        scale = F.softplus(out[v.motion_dim :]) + FLOOR
        d = self.normal("d", out[: v.motion_dim], scale, a.motion)
        steps = self.posterior_steps(d, len(clip))
        loc, scale = next(steps)
        for t in range(len(clip)):
            z = self.normal(f"z_{t + 1}", loc, scale, a.pose)
            if t + 1 < len(clip):
                loc, scale = steps.send(z)

    def loss(self, clip: Tensor, stage: str, noise: list[dict[str, Tensor]]) -> Tensor:
        """Sums the loss over clips; ``noise`` gives each clip's latent values by site."""
        total = torch.zeros(())
        for one, values in zip(clip, noise, strict=True):
            drawn = Trace()
            for name, value in values.items():
                drawn.add_node(
                    name, name=name, type="sample", is_observed=False, value=value, infer={}
                )
            guide = poutine.replay(self.guide, trace=drawn)
            elbo = TraceMeanField_ELBO()
            total = total + elbo.differentiable_loss(self.model, guide, one, stage)
        return total
