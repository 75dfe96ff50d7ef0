"""Which latent dimension serves which factor, and how tidily: pure functions on codes.

The map from factors to dimensions is fitted on codes of training clips, never on what is scored.
Definitions: MSD-Benchmark (protocol notes 4) and Eastwood & Williams, ICLR 2018.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vdsm_bench.contracts import Floats, Integers
from vdsm_bench.seeding import derive_seed, generator

#: trees of a forest; Deviation: MSD boosts shallow trees, 52 classes of which take minutes
_TREES, _LEAST_LEAF = 50, 2


@dataclass(frozen=True)
class Explored:
    """What forests on codes of training clips say of the latent dimensions.

    Attributes:
        importance: ``[D, F]``, columns sum to 1; or to 0 where the codes tell a factor no better
            than its most frequent class does (two standard errors, training clips out of bag).
        accuracy: of each factor's forest on test codes, 1 where right, ``[M, F]``.
    """

    importance: Floats
    accuracy: Floats


def explore(
    train: Floats,
    train_labels: Sequence[Integers],
    test: Floats,
    test_labels: Sequence[Integers],
    seed: int = 0,
) -> Explored:
    """Fits one random forest per factor on codes of training clips.

    Args:
        train: codes ``[N, D]`` of training clips.
        train_labels: ``[N]`` per factor.
        test: codes ``[M, D]`` of test clips.
        test_labels: ``[M]`` per factor.
        seed: of the forests.
    """
    from sklearn.ensemble import RandomForestClassifier

    importance, right = [], []
    for number, (known, wanted) in enumerate(zip(train_labels, test_labels, strict=True)):
        forest = RandomForestClassifier(
            _TREES,
            min_samples_leaf=_LEAST_LEAF,
            max_features=None,  # a choice among few dimensions forces splits on idle ones
            oob_score=True,
            random_state=derive_seed(seed, "forest", number) % 2**32,
        ).fit(train, known)
        usual = float(np.bincount(known).max() / len(known))
        told = forest.oob_score_ > usual + 2 * math.sqrt(usual * (1 - usual) / len(known))
        importance.append(forest.feature_importances_ * told)
        right.append((forest.predict(test) == wanted).astype(np.float64))
    return Explored(np.stack(importance, axis=1), np.stack(right, axis=1))


def determined(labels: Mapping[str, Integers]) -> dict[str, str]:
    """Names the factors that another one determines, as who it is does the colour of the hair.

    Args:
        labels: ``[N]`` per factor.

    Returns:
        Factor to one that determines it; of two that determine each other the later is named.
    """
    left = list(labels)
    found: dict[str, str] = {}
    for name in reversed(list(labels)):
        for other in left:
            both = np.stack([labels[other], labels[name]])
            alone = len(np.unique(labels[other]))
            if other != name and np.unique(both, axis=1).shape[1] == alone:
                found[name] = other
                left.remove(name)
                break
    return found


def assign(importance: Floats) -> Integers:
    """Gives every dimension to the factor it matters most to, ``[D]``; -1 where to none."""
    return np.where(importance.max(1) > 0, importance.argmax(1), -1).astype(np.int64)


def modularity(importance: Floats) -> float:
    """Computes how far every dimension serves one factor alone, in [0, 1].

    sum_k rho_k (1 + sum_f p_kf log_F p_kf) with p_kf the shares of dimension k's importance and
    rho_k its share of all.
    """
    total = importance.sum()
    if total <= 0 or importance.shape[1] < 2:
        return math.nan
    rows = importance.sum(1, keepdims=True)
    p = importance / np.where(rows > 0, rows, 1.0)
    own = 1 + _plogp(p).sum(1) / math.log(importance.shape[1])
    return float((rows[:, 0] / total * own).sum())


def compactness(importance: Floats) -> Floats:
    """Computes per factor how few dimensions serve it, ``[F]`` in [0, 1]; NaN where none does.

    1 + sum_k p_k log_D p_k over the D dimensions.
    """
    size = len(importance)
    columns = importance.sum(0)
    p = importance / np.where(columns > 0, columns, 1.0)
    found = 1 + _plogp(p).sum(0) / math.log(size) if size > 1 else np.ones(len(columns))
    return np.asarray(np.where(columns > 0, found, np.nan), dtype=np.float64)


def partners(n: int, seed: int, purpose: str) -> Integers:
    """Deals every clip another one, ``[n]``: a permutation without fixed points (n > 1)."""
    order = generator(seed, "partners", purpose, n).permutation(n)
    found = np.empty(n, dtype=np.int64)
    found[order] = np.roll(order, 1)  # one cycle through all clips
    return found


def intervention_score(
    matrix: Floats, floor: Floats, served: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Computes MSD's score of intervention matrices.

    Args:
        matrix: ``[..., K, F]`` with K = F: accuracy for the original label of factor f when only
            the dimensions of factor k are kept.
        floor: ``[..., F]``: share of swapped pairs whose labels of f are equal anyway; a perfect
            model has A[k, k] = 1 and A[k, f] = floor[f], if no factor determines another.
        served: ``[F]``: whether the factor won any dimension; where not, its row counts as the
            worst: 0 on target, an error of 1 off target.

    Returns:
        1 - (mean |A[k, k] - 1| + mean |A[k, f] - floor[f]|) / 2, ``[...]``.
    """
    size = matrix.shape[-1]
    on = np.abs(np.einsum("...kk->...k", matrix) - 1)
    off = np.abs(matrix - floor[..., None, :])
    on = np.where(served, on, 1.0)
    off = np.where(served[:, None], off, 1.0)
    outside = ~np.eye(size, dtype=bool)
    off_mean = off[..., outside].mean(-1) if size > 1 else np.zeros(matrix.shape[:-2])
    return np.asarray(1 - 0.5 * (on.mean(-1) + off_mean), dtype=np.float64)


def frame_consistency(said: Mapping[str, Integers]) -> tuple[Floats, Floats]:
    """Computes how steadily single frames of a clip are judged.

    Args:
        said: classes ``[N, T]`` per static factor.

    Returns:
        Share of frames that are judged as most frames of their clip, and share of neighbouring
        frames that are judged alike; ``[N]`` each, means over factors.
    """
    modal, neighbours = [], []
    for classes in said.values():
        most = np.stack([np.bincount(clip).max() for clip in classes])
        modal.append(most / classes.shape[1])
        alike = classes[:, 1:] == classes[:, :-1]
        neighbours.append(alike.mean(1) if classes.shape[1] > 1 else np.ones(len(classes)))
    return np.mean(modal, axis=0), np.mean(neighbours, axis=0)


def _plogp(p: Floats) -> Floats:
    return np.asarray(p * np.log(np.where(p > 0, p, 1.0)), dtype=np.float64)
