"""Several judges of one protocol: how they agree, and scores as means over them with a spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vdsm_bench.config import JudgeSettings, content_key
from vdsm_bench.contracts import (
    EvaluationRequest,
    Evaluator,
    Factor,
    FactorScore,
    Findings,
    Floats,
    Integers,
    Judge,
    LabelledClips,
    MetricInfo,
    Outputs,
    Predictions,
    Score,
)
from vdsm_bench.errors import DataError
from vdsm_bench.evaluators import suite
from vdsm_bench.evaluators.accuracies import ALL, judged
from vdsm_bench.evaluators.accuracy import Said
from vdsm_bench.evaluators.judge_card import JudgeCard, JudgeClips, load_card, obtain_judge
from vdsm_bench.evaluators.judge_gates import FLOORS, ask_gates
from vdsm_bench.evaluators.outputs import Subject, SubjectOutputs
from vdsm_bench.files import read_json, write_json

_BATCH = 64


@dataclass(frozen=True)
class Panel:
    """The judges of one protocol; evaluators are shown them one after the other.

    Attributes:
        members: at least one judge; all judge the same factors.
    """

    members: tuple[Judge, ...]

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The factors they judge."""
        return self.members[0].factors


@dataclass(frozen=True)
class PanelCard:
    """What is known about the judges of one protocol.

    Attributes:
        cards: one per judge, by its name (``cnn-gru seed 0``).
        agreement: per factor, how the judges agree on the real test clips; empty for one judge.
            ``pairs`` is the share of clips on which two judges give the same answer, a mean over
            pairs of judges; ``all`` the share on which every judge does.
    """

    cards: Mapping[str, JudgeCard]
    agreement: Mapping[str, Mapping[str, float]]

    def summary(self) -> dict[str, Any]:
        """Returns what a row says of its judges: accuracies on real clips they never saw.

        ``accuracy`` is a mean over the judges, ``lowest_accuracy`` that of the worst judge in its
        worst factor on the test clips. ``weights`` tells judges apart that were trained alike, for
        instance on two machines; ``not_asked`` names gates for which the split has no clips.
        """
        cards = list(self.cards.values())
        lowest = {
            name: min(card.examinations["test"].accuracy.values())
            for name, card in self.cards.items()
        }
        return {
            "accuracy": {
                examination: {
                    factor: statistics.fmean(
                        card.examinations[examination].accuracy[factor] for card in cards
                    )
                    for factor in found.accuracy
                }
                for examination, found in cards[0].examinations.items()
            },
            "lowest_accuracy": min(lowest.values()),
            "judges": lowest,
            "agreement": {factor: dict(shares) for factor, shares in self.agreement.items()},
            "unscorable": dict(cards[0].unscorable),
            "weights": _weights(cards),
            "not_asked": [name for name in FLOORS if name not in cards[0].examinations],
        }


def panel_weights(folders: Sequence[Path]) -> str | None:
    """Returns ``weights`` of the judges that lie in these folders; None where one is not there."""
    try:
        return _weights([load_card(folder) for folder in folders])
    except DataError:
        return None


def _weights(cards: Sequence[JudgeCard]) -> str:
    return content_key([card.weights_sha256 for card in cards])


def obtain_panel(
    folders: Sequence[Path],
    clips: JudgeClips,
    *,
    panel_file: Path,
    factors: Sequence[Factor],
    settings: JudgeSettings,
    unscorable: Mapping[str, str] | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[str, int, int, Mapping[str, float]], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[Panel, PanelCard]:
    """Loads or trains every judge of the settings, then asks all of them every gate.

    A judge that fails is kept with its card, so that it can be looked at and the refusal costs
    nothing the second time.

    Args:
        folders: one per judge, in the order of ``settings.choices``.
        clips: what they learn from and are examined on.
        panel_file: where the agreement of several judges is kept.
        factors: the dataset's factors.
        settings: which judges, how they are trained, and the floors.
        unscorable: factors that cannot be judged, with the reason.
        device: where they run.
        progress: called after every epoch with the judge, epochs done, epochs in all, figures.
        say: told whom it waits for, where another process trains a judge.

    Raises:
        DataError: a damaged judge folder, or labels that do not fit the clips.
        ProtocolError: a judge failed a gate.
    """
    judges, cards = [], {}
    for choice, folder in zip(settings.choices, folders, strict=True):
        judge, card = obtain_judge(
            folder,
            clips,
            factors=factors,
            settings=settings,
            choice=choice,
            unscorable=unscorable,
            device=device,
            progress=_named(progress, choice.label),
            say=say,
        )
        judges.append(judge)
        cards[choice.label] = card
    ask_gates({name: card.examinations for name, card in cards.items()}, settings)
    weights = _weights(list(cards.values()))
    agreement = _agreement(judges, weights, clips.test, panel_file)
    return Panel(tuple(judges)), PanelCard(cards, agreement)


def _named(
    progress: Callable[[str, int, int, Mapping[str, float]], None] | None, name: str
) -> Callable[[int, int, Mapping[str, float]], None] | None:
    if progress is None:
        return None
    return lambda done, total, figures: progress(name, done, total, figures)


def agree(answers: Sequence[Said]) -> dict[str, dict[str, float]]:
    """Computes how judges agree: ``pairs`` and ``all`` per factor, see :class:`PanelCard`.

    Args:
        answers: the classes ``[N]`` per factor of each judge, at least two.
    """
    found = {}
    for name in answers[0]:
        table = np.stack([said[name] for said in answers])
        pairs = [float((a == b).mean()) for a, b in combinations(table, 2)]
        found[name] = {
            "pairs": statistics.fmean(pairs),
            "all": float((table == table[0]).all(axis=0).mean()),
        }
    return found


def _agreement(
    judges: Sequence[Judge], weights: str, test: LabelledClips, file: Path
) -> Mapping[str, Mapping[str, float]]:
    """Returns the agreement on the test clips; computed once, then read from the file."""
    if len(judges) == 1:
        return {}
    try:
        content = read_json(file)
        if content["weights"] != weights:
            raise DataError(f"{file} is of other judges.")
        known: dict[str, dict[str, float]] = content["agreement"]
    except (DataError, KeyError):
        known = agree([judged(judge, test.clips, len(test), _BATCH) for judge in judges])
        count = {"judges": len(judges), "clips": len(test)}
        write_json(file, {**count, "weights": weights, "agreement": known})
    return known


# --- scores over several judges -----------------------------------------------------------------


def evaluate(
    subject: Subject | Outputs,
    judge: Panel | Judge | None,
    request: EvaluationRequest,
    evaluators: Mapping[str, Evaluator],
) -> suite.Evaluation:
    """Scores one subject by every judge; see :func:`vdsm_bench.evaluators.suite.evaluate`.

    With several judges a score is the mean over them, and so is either end of its interval; the
    long table has its standard deviation over the judges (``<metric>_judge_spread``) and, per
    evaluator, the share of all clips shown to the judges, real ones included, on which every
    judge gives the same answer (``<evaluator>_judge_agreement``).
    """
    members = _members(judge)
    if len(members) < 2:
        return suite.evaluate(subject, members[0] if members else None, request, evaluators)
    outputs = subject if isinstance(subject, Outputs) else SubjectOutputs(subject, request)
    by_all = {name: _ByEveryJudge(name, each, members) for name, each in evaluators.items()}
    return suite.evaluate(outputs, members[0], request, by_all)


def evaluate_ceiling(judge: Panel | Judge, request: EvaluationRequest) -> suite.Evaluation:
    """Scores the real clips themselves by every judge, see the suite's function of this name."""
    found = [suite.evaluate_ceiling(member, request) for member in _members(judge)]
    if len(found) == 1:
        return found[0]
    whole = combine(
        [Findings(f.scores, f.long, f.chance, f.histogram, f.notes, f.per_pair) for f in found]
    )
    result = suite.Evaluation()
    result.add(whole, list(found[0].metrics.values()), "real-test ceiling")
    return result


def _members(judge: Panel | Judge | None) -> tuple[Judge, ...]:
    if judge is None:
        return ()
    return judge.members if isinstance(judge, Panel) else (judge,)


def combine(found: Sequence[Findings]) -> Findings:
    """Puts the findings of several judges about one subject together.

    Scores, interval ends, chance levels and values per pair are means over the judges, histograms
    sums. A
    score that one judge could not give nobody gives, with that judge's reason.
    """
    first = found[0]
    columns = {name: [each.scores[name] for each in found] for name in first.scores}
    tables = [{(row.metric, row.factor): row.score for row in each.long} for each in found]
    nothing = Score(None, reason="not every judge gave it")
    rows = {key: [table.get(key, nothing) for table in tables] for key in tables[0]}
    spreads = {(_spread_of(name), ALL): _spread(scores) for name, scores in columns.items()}
    spreads |= {(_spread_of(metric), f): _spread(scores) for (metric, f), scores in rows.items()}
    long = {key: _mean(scores) for key, scores in rows.items()}
    long |= {key: score for key, score in spreads.items() if score.value is not None}
    return Findings(
        scores={name: _mean(scores) for name, scores in columns.items()},
        long=[FactorScore(metric, factor, score) for (metric, factor), score in long.items()],
        chance={
            name: {kind: _average([each.chance[name][kind] for each in having]) for kind in levels}
            for name, levels in first.chance.items()
            if (having := [each for each in found if name in each.chance])
        },
        histogram={
            name: {
                factor: np.sum([each.histogram[name][factor] for each in found], axis=0).tolist()
                for factor in counts
            }
            for name, counts in first.histogram.items()
        },
        notes=list(dict.fromkeys(note for each in found for note in each.notes)),
        per_pair={
            name: np.mean([each.per_pair[name] for each in found], axis=0)
            for name in first.per_pair
            if all(name in each.per_pair for each in found)
        },
    )


def _spread_of(metric: str) -> str:
    return f"{metric}_judge_spread"


def _mean(scores: Sequence[Score]) -> Score:
    empty = next((score for score in scores if score.value is None), None)
    if empty is not None:
        return empty
    ends = [[s.low for s in scores], [s.high for s in scores]]
    low, high = (_average(end) if None not in end else None for end in ends)
    value, n = _average([score.value for score in scores]), scores[0].n
    groups = [score.by_identity for score in scores if score.by_identity is not None]
    if len(groups) < len(scores):
        return Score(value, low, high, n)
    by_identity = (_average([group[0] for group in groups]), _average([g[1] for g in groups]))
    return Score(value, low, high, n, by_identity=by_identity)


def _average(values: Sequence[float | None]) -> float:
    return statistics.fmean(value for value in values if value is not None)


def _spread(scores: Sequence[Score]) -> Score:
    """Returns the standard deviation over the judges; its n is the number of judges."""
    known = [score.value for score in scores if score.value is not None]
    if len(known) < 2:
        return Score(None, reason="fewer than two judges gave it")
    return Score(statistics.stdev(known), n=len(known))


class _Heard:
    """A judge whose answers are kept."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.answers: list[Mapping[str, Integers]] = []

    @property
    def factors(self) -> tuple[Factor, ...]:
        return self._judge.factors

    @property
    def features(self) -> Callable[[Tensor], Floats]:
        """Those of a judge that has some; to be asked for them is to be asked."""
        judge: Any = self._judge
        inner: Callable[[Tensor], Floats] = judge.features

        def heard(clips: Tensor) -> Floats:
            self.predict(clips)
            return inner(clips)

        return heard

    def predict(self, clips: Tensor) -> Predictions:
        found = self._judge.predict(clips)
        self.answers.append({name: values.argmax(1) for name, values in found.items()})
        return found

    def said(self) -> Said:
        return {
            factor.name: np.concatenate([answer[factor.name] for answer in self.answers])
            for factor in self.factors
        }


class _ByEveryJudge(Evaluator):
    """An evaluator asked once per judge; one that never asks its judge is asked only once."""

    metrics: ClassVar[tuple[MetricInfo, ...]] = ()

    def __init__(self, name: str, inner: Evaluator, judges: Sequence[Judge]) -> None:
        self._name, self._inner, self._judges = name, inner, judges
        self.__dict__["metrics"] = inner.metrics  # each instance has those of what is inside

    def evaluate(
        self, outputs: Outputs, request: EvaluationRequest, judge: Judge | None
    ) -> Findings:
        heard: list[_Heard] = []
        found: list[Findings] = []
        for member in self._judges:
            heard.append(_Heard(member))
            found.append(suite.ask(self._name, self._inner, outputs, request, heard[-1]))
            if not heard[-1].answers:
                return found[0]
        whole = combine(found)
        n = len(heard[0].said()[self._judges[0].factors[0].name])
        agreement = [
            FactorScore(f"{self._name}_judge_agreement", factor, Score(shares["all"], n=n))
            for factor, shares in agree([each.said() for each in heard]).items()
        ]
        return replace(whole, long=[*whole.long, *agreement])
