"""VDSM's loss as the presets train it, written out: clips, frames and pairs one by one, no Pyro.

The weights are the program's own, so gradients need no translation.
"""

import math

import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from benchmarks.naive import FLOOR, SLOPE, NaiveVDSM
from vdsm_bench.optional import import_optional

WIDTHS = (0.1, 0.3, 1.0)


class PlainVDSM(NaiveVDSM):
    """Gaussian pixels, an encoder per head, s from the partner, matching, likeness and reward.

    Args:
        vdsm: the model, whose pose head has an encoder of its own.
        arguments: that it was built with.
        clip_frames: how many frames pay the whole KL of s.
        noise: the standard normals behind ``s``, ``d`` and ``z``, a row per clip or half clip.
    """

    def __init__(self, vdsm, arguments, clip_frames, noise):
        nn.Module.__init__(self)
        self.arguments, self.clip_frames, self.noise = arguments, clip_frames, noise
        self.dims = vdsm.pose_dim, vdsm.identity_dim, vdsm.motion_dim
        self.encoder, self.pose_encoder = vdsm.encoder, vdsm.pose_encoder
        self.pose_head, self.identity_head = vdsm.pose_head, vdsm.identity_head
        self.motion_encoder, self.roll_out = vdsm.motion_encoder, vdsm.roll_out
        self.combiner, self.transition = vdsm.combiner, vdsm.transition
        self.first_pose = vdsm.first_pose
        self.weights = [bank.permute(4, 0, 3, 1, 2) for bank in vdsm.decoder.weights]
        self.biases = [bias.t() for bias in vdsm.decoder.biases]

    def pretrain(self, clip, annealing):
        """Returns the loss of a batch of identity pairs, and its terms before they are weighed."""
        t = clip.shape[1] // 2
        halves = [*(pair[:t] for pair in clip), *(pair[t:] for pair in clip)]
        n, terms, poses, told = len(halves), {}, [], []
        for i, frames in enumerate(halves):
            q_s = self.identity_of(halves[(i + n // 2) % n])
            s = self.drawn(q_s, self.noise["s"][i])
            _add(terms, "kl_s", kl_divergence(q_s, self.narrow(1)))
            told.append(q_s)
            z = [torch.zeros(self.dims[0]) for _ in frames]
            if annealing.pose is not None:
                q_z = [self.pose_of(frame) for frame in frames]
                z = [self.drawn(q, self.noise["z"][i][k]) for k, q in enumerate(q_z)]
                for q in q_z:
                    _add(terms, "kl_z", kl_divergence(q, self.standard()))
                poses.append(z)
            _add(terms, "nll", self.pixels(frames, z, s, annealing))
        share = min(1.0, t / self.clip_frames)
        loss = (terms["nll"] + annealing.identity * share * terms["kl_s"]) / n
        if poses:
            alike = likeness(poses)
            loss = loss + annealing.pose * terms["kl_z"] / n
            loss = loss + self.arguments["pose_likeness"] * t * alike
            terms["pose_likeness"] = n * alike
        if self.arguments["identity_reward"]:
            terms["identity_nats"] = n * nats(told)
            loss = loss - self.arguments["identity_reward"] * terms["identity_nats"] / n
        return loss, {name: value / n for name, value in terms.items()}

    def sequence(self, clip, annealing):
        """Returns the loss of a batch of clips, and its terms before they are weighed."""
        n, terms = len(clip), {}
        for i, frames in enumerate(clip):
            q_s, seen = self.identity_of(frames), [self.pose_of(frame) for frame in frames]
            q_d = self.motion_of(seen)
            s, d = self.drawn(q_s, self.noise["s"][i]), self.drawn(q_d, self.noise["d"][i])
            _add(terms, "kl_s", kl_divergence(q_s, self.narrow(1)))
            _add(terms, "kl_d", kl_divergence(q_d, self.narrow(2)))
            before, path = self.first_pose, []
            for t, state in enumerate(self.states(d, len(frames))):
                q_z = _one(self.step_of_posterior(before[None], state, d[None]))
                p_z = _one(self.step_of_prior(before[None], d[None])) if t else self.standard()
                _add(terms, "kl_z", kl_divergence(q_z, p_z))
                before = self.drawn(q_z, self.noise["z"][i][t])
                path.append(before)
                shown = Normal(before, seen[t].stddev).log_prob(seen[t].mean)
                _add(terms, "pose_nll", -shown)
            _add(terms, "nll", self.pixels(frames, path, s, annealing))
        share = min(1.0, clip.shape[1] / self.clip_frames)
        weights = {
            "nll": 1.0, "kl_s": annealing.identity * share, "kl_d": annealing.motion * share,
            "kl_z": annealing.pose, "pose_nll": annealing.match,
        }  # fmt: skip
        if annealing.match is None:
            del terms["pose_nll"]
        loss = sum(weights[name] * value for name, value in terms.items()) / n
        return loss, {name: value / n for name, value in terms.items()}

    def standard(self):
        return Normal(torch.zeros(self.dims[0]), 1.0)

    def narrow(self, code):
        """The prior of s (1) and of d (2): as wide as one over the size of the code."""
        size = self.dims[code]
        return Normal(torch.zeros(size), 1 / size)

    def drawn(self, density, noise):
        return density.mean + density.stddev * noise

    def features(self, encoder, frame):
        blur_pool = import_optional("antialiased_cnns", package="antialiased-cnns").BlurPool
        x = frame[None]
        for index, layer in enumerate(m for m in encoder.modules() if isinstance(m, nn.Conv2d)):
            if index:
                x = blur_pool(x.shape[1], filt_size=4, stride=1)(x)
            x = functional.leaky_relu(layer(x), SLOPE)
        return x.flatten(1)

    def identity_of(self, frames):
        """q(s): loc and scale of every frame by itself, and their means."""
        head, k_s, locs, scales = self.identity_head, self.dims[1], [], []
        for frame in frames:
            hidden = functional.leaky_relu(head.hidden(self.features(self.encoder, frame)), SLOPE)
            out = head.output(hidden)[0]
            slope = self.arguments["identity_slope"]
            locs.append(functional.leaky_relu(head.loc_layer(out[:k_s]), slope))
            raw = head.scale_layer(functional.softplus(out[k_s:]))
            scales.append(functional.softplus(raw) + FLOOR)
        return Normal(sum(locs) / len(frames), sum(scales) / len(frames))

    def pose_of(self, frame):
        out = self.pose_head.layer(self.features(self.pose_encoder, frame))[0]
        return Normal(out[: self.dims[0]], functional.softplus(out[self.dims[0] :]) + FLOOR)

    def motion_of(self, seen):
        locs = torch.stack([each.mean for each in seen])[None]
        out = self.motion_encoder.output(self.motion_encoder.rnn(locs).flatten())
        return Normal(out[: self.dims[2]], functional.softplus(out[self.dims[2] :]) + FLOOR)

    def states(self, d, n_frames):
        """The LSTM of one layer, started by d and fed with what it puts out."""
        (cell,) = self.roll_out.cells
        hidden, memory = self.roll_out.hidden(d)[None], self.roll_out.cell(d)[None]
        states = [self.roll_out.first_input[None]]
        for _ in range(n_frames):
            hidden, memory = cell(states[-1], (hidden, memory))
            states.append(hidden)
        return states[1:]

    def pixels(self, frames, z, s, annealing):
        """-log p(x | z, s) of one clip, frame by frame."""
        w, width = torch.softmax(annealing.temperature * s, dim=-1), self.arguments["pixel_scale"]
        cost = 0.0
        for frame, pose in zip(frames, z, strict=True):
            error = (frame - torch.sigmoid(self.decode(pose[None], w)[0])) / width
            cost = cost + (0.5 * error.square() + math.log(width * math.sqrt(2 * math.pi))).sum()
        return cost


def likeness(poses):
    """The share of the poses' variance between identities, from its definition.

    Args:
        poses: of every half clip, of every frame; clips i and N + i are of one identity.
    """
    clips, frames = len(poses), len(poses[0])
    if clips == 2:
        return torch.zeros(())

    def far(i, j, a, b):
        return (poses[i][a] - poses[j][b]).square().sum()

    def mean(values):
        return sum(values) / len(values)

    rows, times = range(clips), range(frames)
    typical = mean([far(i, j, a, b) for i in rows for j in rows for a in times for b in times])

    def near(i, j):
        return mean([
            torch.exp(-far(i, j, a, b) / typical / width)
            for a in times for b in times for width in WIDTHS
        ])  # fmt: skip

    pairs = mean([near(i, (i + clips // 2) % clips) for i in rows])
    others = mean([near(i, j) for i in rows for j in rows if (i - j) % (clips // 2)])
    return (pairs - others) / (mean([near(i, i) for i in rows]) - others)


def nats(told):
    """How many nats normal codes tell of the identity, pair by pair and in float64.

    Args:
        told: q(s) of every half clip; clips i and N + i are of one identity.
    """
    n = len(told) // 2
    if n == 1:
        return torch.zeros(())
    noise = torch.diag(sum(q.variance for q in told).double().detach() / (2 * n))
    pairs = [(told[i].mean.double(), told[n + i].mean.double()) for i in range(n)]
    middles = [(one + other) / 2 for one, other in pairs]
    centre = sum(middles) / n
    between = sum(torch.outer(m - centre, m - centre) for m in middles) / (n - 1)
    clips = sum(torch.outer(one - other, one - other) for one, other in pairs) / (2 * n)
    total, within = between + clips / 2 + noise, clips + noise
    return (torch.logdet(total) - torch.logdet(within)).float() / 2


def _one(loc_and_scale):
    loc, scale = loc_and_scale
    return Normal(loc[0], scale[0])


def _add(terms, name, value):
    terms[name] = terms.get(name, 0.0) + value.sum()
