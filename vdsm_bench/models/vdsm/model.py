"""VDSM: a deep state-space model of identity, motion and pose (Vowels et al., CVPR 2021)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import pyro
import pyro.poutine as poutine
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from vdsm_bench.contracts import (
    Batch,
    ClipShape,
    Codes,
    FrameDecoder,
    FrameEncoder,
    Losses,
    Player,
    Progress,
    Stage,
    VideoModel,
)
from vdsm_bench.models.vdsm import objective, parts
from vdsm_bench.models.vdsm.annealing import Annealing, AnnealingPlan, Weight
from vdsm_bench.models.vdsm.pairs import idle_arguments, pair_terms
from vdsm_bench.models.vdsm.parts import Seen, draw_frames, features_of, full, unpaired
from vdsm_bench.models.vdsm.path import PosteriorPath, PriorPath

Likelihood = Literal["bernoulli", "continuous-bernoulli", "gaussian"]
Knots = tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat]


class VDSM(VideoModel):
    """Variational disentangling state-space model.

    Identity s ~ N(0, 1/K_s^2) mixes the decoder's experts with w = softmax(temperature s);
    motion d ~ N(0, 1/K_d^2) drives the poses z_t through a gated transition; frames are
    p(x_t | z_t, w). Stage ``pretrain`` trains encoder, heads and decoder with independent
    poses z_t ~ N(0, I) and no d; stage ``sequence`` freezes encoder, decoder and pose head and
    trains the dynamics, the identity head staying trainable. Loss: eq. 4, mean over clips.

    Args:
        clip: shape of the clips.
        encoder: builds the frame encoder.
        decoder: builds the frame decoder.
        pose_dim: K_z, width of the pose of a frame.
        identity_dim: K_s, width of s and the number of experts.
        motion_dim: K_d, width of d.
        rnn_width: width of both LSTMs and of the combiner.
        rnn_layers: layers of both LSTMs.
        rnn_dropout: dropout between their layers.
        transition_width: hidden width of the gated transition.
        start: ``kept-signal``, heads that keep the signal and codes that start as wide as their
            priors; ``torch``, as torch starts linear layers, but for what ``pose_scale`` says.
        likelihood: of the pixels. ``bernoulli`` is the paper's, a continuous relaxation on
            grey values; ``continuous-bernoulli`` and ``gaussian`` are proper.
        pixel_scale: standard deviation of the ``gaussian`` likelihood.
        temperature: start and end of the temperature in ``pretrain`` (half-cosine over half of
            it); ``sequence`` has the end.
        pose_kl: weight of the pose KL in ``pretrain`` at four times.
        pose_kl_shape: ``spline``, the paper's quadratic through 0, 1/2, 4/5 and the end, clipped
            to [0.005, 80]; or ``geometric``, straight lines through the same times on a
            logarithmic scale.
        pose_shut: share of ``pretrain`` in which the decoder is shown z = 0 and there is no
            pose KL; ``pose_kl`` runs over the rest.
        pose_encoder: ``shared``, one frame encoder for both heads as in the paper; or ``own``, a
            second one like it for the pose head alone.
        pose_scale: standard deviation at which q(z_t | x_t) starts; softplus(0) = 0.7 if None.
        identity_kl: weight of the identity KL as ``pretrain`` begins, and from a third of it on
            and in ``sequence``.
        identity_from: where q(s) of a clip looks in ``pretrain`` when clips come in identity
            pairs: at the frames of both (``clip``), or at its partner's alone (``partner``).
        identity_slope: slope below zero of the LeakyReLU on the loc of q(s); 1 is none.
        identity_frozen: whether ``sequence`` leaves the identity head as ``pretrain`` made it.
        sequence_pose_kl: weight of the pose KL in ``sequence`` (spline, clipped likewise).
        pose_match: start and end of the weight, in ``sequence``, of a second thing that the path
            has to explain: the poses which ``pretrain`` reads off the frames (half-cosine over
            half of it).
        pose_likeness: weight per frame, in ``pretrain`` where clips come in identity pairs, of the
            share of the pose's variance that lies between identities
            (:func:`~vdsm_bench.models.vdsm.pairs.pair_likeness`); 0 where each has one clip.
        identity_reward: weight, in ``pretrain`` where clips come in identity pairs and with
            ``identity_from="partner"``, of the nats that a clip's s tells of the identity
            (:func:`~vdsm_bench.models.vdsm.pairs.pair_information`).

    Deviation:
        ``sequence`` freezes the pose head too. The paper does not say so; in the release the head
        is part of the frozen encoder. d is inferred from the poses that ``pretrain`` reads off the
        frames. ``pose_shut`` keeps the pose code out until s has been learnt, so that it cannot
        take what s has yet to learn. A large KL weight instead may shut the pose for good where the
        motion is small, if the decoder learns that z is noise.
        ``identity_from="partner"`` infers s of each of two clips of one identity from the other
        one. It is the same ELBO with another posterior, and s cannot carry the action of the frames
        it helps to draw, because it has not seen them. ``identity_frozen`` keeps that so in
        ``sequence``, where s is inferred from the clip itself. ``identity_slope=1`` keeps every
        dimension of s alive: below zero the paper's LeakyReLU lets a hundredth of the gradient
        through, and the KL, which pulls loc to zero, leaves most dimensions there for good.
        ``pose_match`` observes the mean of q(z_t | x_t) under N(z_t, its scale) beside the frames:
        through the frozen decoder alone every small change of a path that shows the wrong gesture
        makes the pixels worse. Two heads on one encoder share features made for telling people
        apart; a second one (``pose_encoder="own"``) starts afresh. ``pose_likeness`` takes out of
        the pose what is a person's; ``identity_reward`` wakes in s what few pixels tell. What each
        is worth differs with the data (docs/recipe.md). ``likelihood``, ``temperature``,
        ``identity_kl``, ``pose_kl`` with its shape, and ``pose_scale`` have other values in presets
        than the paper's, the defaults here; ``start`` is not the paper's
        (:mod:`~vdsm_bench.models.vdsm.parts`). A part of a clip pays that part of the KLs of s, d.
    """

    def __init__(
        self,
        *,
        clip: ClipShape,
        encoder: Callable[..., FrameEncoder],
        decoder: Callable[..., FrameDecoder],
        pose_dim: PositiveInt = 30,
        identity_dim: PositiveInt = 15,
        motion_dim: PositiveInt = 50,
        rnn_width: PositiveInt = 512,
        rnn_layers: PositiveInt = 3,
        rnn_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        transition_width: PositiveInt = 64,
        start: Literal["kept-signal", "torch"] = "kept-signal",
        likelihood: Likelihood = "bernoulli",
        pixel_scale: PositiveFloat = 0.1,
        temperature: tuple[PositiveFloat, PositiveFloat] = (1.0, 10.0),
        pose_kl: Knots = (30.0, 0.2, 0.4, 1.0),
        pose_kl_shape: Literal["spline", "geometric"] = "spline",
        pose_shut: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        pose_encoder: Literal["shared", "own"] = "shared",
        pose_scale: PositiveFloat | None = None,
        identity_kl: tuple[PositiveFloat, PositiveFloat] = (0.1, 1.0),
        identity_from: Literal["clip", "partner"] = "clip",
        identity_slope: Annotated[float, Field(gt=0, le=1)] = 0.01,
        identity_frozen: bool = False,
        sequence_pose_kl: Knots = (0.1, 0.4, 0.4, 1.0),
        pose_match: tuple[NonNegativeFloat, NonNegativeFloat] = (0.0, 0.0),
        pose_likeness: NonNegativeFloat = 0.0,
        identity_reward: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__()
        self.pose_dim, self.identity_dim, self.motion_dim = pose_dim, identity_dim, motion_dim
        self.likelihood, self.pixel_scale = likelihood, pixel_scale
        self.n_frames, self.temperature = clip.frames, temperature
        self.frame_shape = (clip.channels, clip.height, clip.width)
        self._latest: Annealing | None = None  # `pretrain`'s last step's, while that stage lasts
        self.settles, self.pair_weights = (1 + pose_shut) / 2, (pose_likeness, identity_reward)
        self.plan = AnnealingPlan(
            temperature=temperature,
            identity_kl=identity_kl,
            pose_kl=pose_kl,
            pose_kl_shape=pose_kl_shape,
            pose_shut=pose_shut,
            sequence_pose_kl=sequence_pose_kl,
            pose_match=pose_match,
        )
        self.identity_from, self.identity_frozen = identity_from, identity_frozen
        self.encoder = encoder(clip=clip)
        self.pose_encoder = encoder(clip=clip) if pose_encoder == "own" else None
        self.decoder = decoder(clip=clip, pose_dim=pose_dim, identity_dim=identity_dim)
        features, kept = self.encoder.feature_dim, start == "kept-signal"
        self.pose_head = parts.PoseHead(features, pose_dim, pose_scale, kept=kept)
        self.identity_head = parts.IdentityHead(features, identity_dim, identity_slope, kept=kept)
        rnn = rnn_width, rnn_layers, rnn_dropout
        self.motion_encoder = parts.MotionEncoder(pose_dim, motion_dim, *rnn, kept=kept)
        self.roll_out = parts.RollOut(motion_dim, *rnn)
        self.combiner = parts.Combiner(pose_dim, motion_dim, rnn_width)
        self.transition = parts.GatedTransition(pose_dim, motion_dim, transition_width)
        self.first_pose = nn.Parameter(torch.zeros(pose_dim))  # z_0 of q

    def stages(self) -> Sequence[Stage]:
        """Returns ``pretrain`` and ``sequence``, one player each."""
        frames = [self.encoder, self.decoder, self.pose_head, self.identity_head, self.pose_encoder]
        dynamics = [self.motion_encoder, self.roll_out, self.combiner, self.transition]
        if not self.identity_frozen:
            dynamics.append(self.identity_head)
        pretrain = [p for module in frames if module is not None for p in module.parameters()]
        sequence = [p for module in dynamics for p in module.parameters()]
        return (
            Stage(
                "pretrain",
                (Player("vdsm", pretrain, self._pretrain_loss),),
                lambda progress: asdict(self.annealing("pretrain", progress)),
                moving="pose",
            ),
            Stage(
                "sequence",
                (Player("vdsm", [*sequence, self.first_pose], self._sequence_loss),),
                lambda progress: asdict(self.annealing("sequence", progress)),
                features=self.frame_features,
            ),
        )

    def idle_arguments(self, paired: Collection[str]) -> Sequence[str]:
        """Returns those that are for identity pairs where they can do nothing, with the reason."""
        return idle_arguments(*self.pair_weights, self.identity_from, paired="pretrain" in paired)

    def annealing(self, stage: str, progress: Progress) -> Annealing:
        """Returns the temperature and the KL weights of an epoch (supplement, figures 1 and 2)."""
        if progress.scheduled:
            return Annealing(**progress.scheduled)  # type: ignore[arg-type]
        at = self.plan.pretrain if stage == "pretrain" else self.plan.sequence
        return at(progress.epoch, progress.n_epochs)

    def _pretrain_loss(self, batch: Batch, progress: Progress) -> Losses:
        guide = self.frame_guide
        if batch.pairs and self.identity_from == "partner":
            batch, guide = unpaired(batch), self.partner_guide
        return self._loss("pretrain", self.frame_model, guide, batch, progress)

    def _sequence_loss(self, batch: Batch, progress: Progress) -> Losses:
        batch = unpaired(batch)  # each of two clips moves in its own way
        seen = self.see(batch.clip, batch.features)
        return self._loss("sequence", self.clip_model, self.clip_guide, batch, progress, seen)

    def _loss(
        self,
        stage: str,
        model: Callable[[Any, Annealing], None],
        guide: Callable[[Any, Annealing], None],
        batch: Batch,
        progress: Progress,
        seen: Seen | None = None,
    ) -> Losses:
        """The loss of a stage; ``seen`` is what model and guide are given instead of the clip."""
        annealing = self.annealing(stage, progress)
        self._latest = annealing if stage == "pretrain" else None
        annealing = annealing.of_a_part(min(1.0, batch.clip.shape[1] / self.n_frames))
        with pyro.validation_enabled(False):  # it would look at the weights, and so wait for them
            scaled, plain, drawn = objective.elbo_terms(model, guide, seen or batch.clip, annealing)
        n = batch.clip.shape[0]
        terms = {"nll": plain.pop("x") / n}
        if "pose" in plain:
            terms["pose_nll"] = plain.pop("pose") / n
        if stage == "pretrain" and batch.pairs:
            paid, told = pair_terms(drawn, *self.pair_weights, joined=self.identity_from == "clip")
            scaled, terms = scaled | paid, terms | told
        terms |= {f"kl_{name}": value / n for name, value in plain.items()}
        constants = {k: batch.clip.new_zeros(()) + v for k, v in annealing.figures().items()}
        return Losses(total=objective.total(scaled) / n, terms={**terms, **constants})

    def frame_model(self, clip: Tensor, annealing: Annealing) -> None:
        """The model of ``pretrain``: s, independent z_t ~ N(0, I), and the frames."""
        b, t = clip.shape[:2]
        with pyro.plate("clips", b):
            s = self._sample_identity_prior(clip, annealing)
            z = clip.new_zeros(b, t, self.pose_dim)
            if annealing.pose is not None:
                with poutine.scale(scale=annealing.pose):
                    z = pyro.sample("z", objective.normal(z, 1.0, 2))
            weights = self.mixing_weights(s, annealing.temperature)
            pyro.sample("x", self._pixels(z, weights).to_event(4), obs=clip)

    def frame_guide(self, clip: Tensor, annealing: Annealing) -> None:
        """The guide of ``pretrain``: s from all frames, z_t from its own frame."""
        features = features_of(self.encoder, clip)
        self._frame_guide(clip, features, features, annealing)

    def partner_guide(self, clip: Tensor, annealing: Annealing) -> None:
        """The guide of ``pretrain`` with s of a clip from its partner's frames alone."""
        features = features_of(self.encoder, clip)
        partners = features.roll(clip.shape[0] // 2, dims=0)
        self._frame_guide(clip, features, partners, annealing)

    def _frame_guide(
        self, clip: Tensor, features: Tensor, identity_from: Tensor, annealing: Annealing
    ) -> None:
        with pyro.plate("clips", clip.shape[0]):
            self._sample_identity(identity_from, annealing)
            if annealing.pose is not None:
                loc, scale = self._read_pose(clip, features)
                with poutine.scale(scale=annealing.pose):
                    pyro.sample("z", objective.normal(loc, scale, 2))

    def frame_features(self, frames: Tensor) -> Tensor:
        """Returns what the encoders make of frames ``[N, C, H, W]``, side by side ``[N, F]``."""
        both = self.encoder, self.pose_encoder
        found = [parts.read_frames(one, frames) for one in both if one is not None]
        return torch.cat(found, dim=1)

    def see(self, clip: Tensor, features: Tensor | None = None) -> Seen:
        """Reads off a clip's frames what ``sequence`` takes as given from ``pretrain``."""
        with torch.no_grad():
            if features is None:
                features = self.frame_features(clip.flatten(0, 1)).view(*clip.shape[:2], -1)
            shares = torch.split(features, int(self.encoder.feature_dim), dim=-1)
            return Seen(clip, shares[0], *self.pose_head(shares[-1]))

    def clip_model(self, seen: Seen, annealing: Annealing) -> None:
        """The model of ``sequence``: s, d, the pose path z_1 .. z_T, and the frames."""
        clip = seen.clip
        b, t = clip.shape[:2]
        with pyro.plate("clips", b):
            s = self._sample_identity_prior(clip, annealing)
            with poutine.scale(scale=annealing.motion):
                zero = clip.new_zeros(b, self.motion_dim)
                d = pyro.sample("d", objective.normal(zero, 1 / self.motion_dim, 1))
            with poutine.scale(scale=annealing.open_pose):
                poses = pyro.sample("z", PriorPath(self.transition, d, t, self.pose_dim))
            weights = self.mixing_weights(s, annealing.temperature)
            if annealing.match is not None:
                with poutine.scale(scale=annealing.match):
                    pyro.sample(
                        "pose", objective.normal(poses, seen.pose_scale, 2), obs=seen.pose_loc
                    )
            pyro.sample("x", self._pixels(poses, weights).to_event(4), obs=clip)

    def clip_guide(self, seen: Seen, annealing: Annealing) -> None:
        """The guide of ``sequence``: d from the pose locs, then z_t given z_{t-1} and d."""
        b, t = seen.clip.shape[:2]
        with pyro.plate("clips", b):
            self._sample_identity(seen.features, annealing)
            with poutine.scale(scale=annealing.motion):
                loc, scale = self.motion_encoder(seen.pose_loc)
                d = pyro.sample("d", objective.normal(loc, scale, 1))
            with poutine.scale(scale=annealing.open_pose):
                pyro.sample("z", self._path(d, t))

    def _sample_identity_prior(self, clip: Tensor, annealing: Annealing) -> Tensor:
        zero = clip.new_zeros(clip.shape[0], self.identity_dim)
        with poutine.scale(scale=annealing.identity):
            s: Tensor = pyro.sample("s", objective.normal(zero, 1 / self.identity_dim, 1))
        return s

    def _sample_identity(self, features: Tensor, annealing: Annealing) -> None:
        with poutine.scale(scale=annealing.identity):
            loc, scale = self.identity_head(features)
            pyro.sample("s", objective.normal(loc, scale, 1))

    def _pixels(self, pose: Tensor, weights: Tensor) -> Any:
        logits = full(draw_frames(self.decoder, pose, weights, self.frame_shape))
        return objective.pixel_density(self.likelihood, logits, self.pixel_scale)

    def _read_pose(self, clip: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns loc and scale of q(z_t | x_t); ``features`` are those of the identity."""
        own = self.pose_encoder
        loc, scale = self.pose_head(features if own is None else features_of(own, clip))
        return loc, scale

    def mixing_weights(self, identity: Tensor, temperature: Weight | None = None) -> Tensor:
        """Returns w = softmax(temperature s) ``[B, K_s]``; by default the final temperature.

        While ``pretrain`` lasts, that is the one of its last step: the decoder knows no other yet.
        """
        usual = self.temperature[1] if self._latest is None else self._latest.temperature
        scale = usual if temperature is None else temperature
        return torch.softmax(scale * identity, dim=-1)

    def encode(self, clip: Tensor) -> Codes:
        """Returns the posterior means: s ``[B, K_s]``, d ``[B, K_d]`` and z_t ``[B, T, K_z]``."""
        return self.posteriors(clip)[0]

    def posteriors(self, clip: Tensor) -> tuple[Codes, Codes]:
        """Returns loc and scale of q(s), of q(d) and of ``pretrain``'s q(z_t | x_t)."""
        features = features_of(self.encoder, clip)
        pose, identity = self._read_pose(clip, features), self.identity_head(features)
        pairs = zip(identity, self.motion_encoder(pose[0]), pose, strict=True)
        loc, scale = (Codes(*each) for each in pairs)
        return loc, scale

    def generate(self, codes: Codes, n_frames: int) -> Tensor:
        """Returns the clip of s and d; the LSTM and the combiner are rolled forward on means."""
        return self._draw(self._path(codes.motion, n_frames).follow_means(), codes.identity)

    def regenerate(self, codes: Codes, n_frames: int, stage: str) -> Tensor:
        """Returns clips of s and d; in ``pretrain`` of s and z_t, 0 while the pose is shut."""
        if stage != "pretrain" or codes.pose is None:
            return self.generate(codes, n_frames)
        shut = self._latest is not None and self._latest.pose is None
        pose = codes.pose[:, :n_frames]
        return self._draw(torch.zeros_like(pose) if shut else pose, codes.identity)

    def sample(
        self, n: int, n_frames: int, *, identity: Tensor | None = None, motion: Tensor | None = None
    ) -> Tensor:
        """Returns clips of codes from the priors, z_t by the transition; see the contract."""
        if identity is None:
            identity = torch.randn(n, self.identity_dim).to(self.first_pose) / self.identity_dim
        if motion is not None:  # a path of the prior begins anywhere, as p(z_1) knows nothing of d
            return self.generate(Codes(identity, motion), n_frames)
        motion = torch.randn(n, self.motion_dim).to(self.first_pose) / self.motion_dim
        path = PriorPath(self.transition, motion, n_frames, self.pose_dim).sample()
        return self._draw(path, identity)

    def _path(self, d: Tensor, n_frames: int) -> PosteriorPath:
        messages = self.combiner.messages(self.roll_out(d, n_frames), d)
        return PosteriorPath(self.first_pose, self.combiner, messages)

    def _draw(self, pose: Tensor, identity: Tensor) -> Tensor:
        clip: Tensor = self._pixels(pose, self.mixing_weights(identity)).mean
        return clip
