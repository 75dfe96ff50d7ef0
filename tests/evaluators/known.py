"""Models whose scores are known: their codes are the labels, or what they are told to leak."""

import numpy as np
import torch

from tests.evaluators import toy
from vdsm_bench.contracts import Codes, VideoModel

SIZES = [len(factor.classes) for factor in toy.FACTORS]
STATIC = SIZES[0] + SIZES[1]
_EVERY = np.unravel_index(np.arange(np.prod(SIZES)), SIZES)
#: one clip of every combination of labels
PROTOTYPES = toy.draw({f.name: v for f, v in zip(toy.FACTORS, _EVERY, strict=True)}, seed=0)


def one_hot(labels):
    parts = [np.eye(len(f.classes))[labels[f.name]] for f in toy.FACTORS]
    return torch.as_tensor(np.concatenate(parts, axis=1), dtype=torch.float32)


class Oracle(VideoModel):
    """Knows the labels of the clips it is shown, and shows a clip of the labels in its codes.

    Codes are one-hot labels: identity has colour and shape, motion has the action. ``leak`` copies
    the whole code into ``identity``, ``motion`` or both; generation then follows what leaked.
    """

    def __init__(self, *sources, leak=(), prior=True):
        super().__init__()
        self.leak = leak
        if not prior:
            self.capabilities = frozenset({"encode", "generate"})
        clips = [source.clips(np.arange(len(source))) for source in sources]
        self.shown = torch.cat(clips).flatten(1)
        self.known = torch.cat([one_hot(source.labels) for source in sources])

    def stages(self):
        return ()

    def encode(self, clip):
        rows = torch.cdist(clip.flatten(1), self.shown).argmin(1)
        whole = self.known[rows]
        own = {"identity": whole[:, :STATIC], "motion": whole[:, STATIC:]}
        return Codes(**{name: whole if name in self.leak else own[name] for name in own})

    def generate(self, codes, n_frames):
        # what leaked into the other code wins over the code it belongs to
        static = codes.motion[:, :STATIC] if "motion" in self.leak else codes.identity[:, :STATIC]
        action = codes.identity[:, STATIC:] if "identity" in self.leak else codes.motion[:, -3:]
        labels = {
            "colour": static[:, : SIZES[0]].argmax(1).numpy(),
            "shape": static[:, SIZES[0] :].argmax(1).numpy(),
            "action": action.argmax(1).numpy(),
        }
        return PROTOTYPES[np.ravel_multi_index([labels[f.name] for f in toy.FACTORS], SIZES)]

    def sample(self, n, n_frames, *, identity=None, motion=None):
        drawn = {f.name: torch.randint(len(f.classes), (n,)).numpy() for f in toy.FACTORS}
        whole = one_hot(drawn)
        own = Codes(
            whole if "identity" in self.leak else whole[:, :STATIC],
            whole if "motion" in self.leak else whole[:, STATIC:],
        )
        return self.generate(
            Codes(
                own.identity if identity is None else identity,
                own.motion if motion is None else motion,
            ),
            n_frames,
        )
