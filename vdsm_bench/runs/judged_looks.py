"""What the judge says while a model trains (``--judge-looks``); it decides nothing."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vdsm_bench.config import EvaluationSettings
from vdsm_bench.contracts import EvaluationRequest, Integers, LabelledClips
from vdsm_bench.runs.protocol import GatedJudge, ScoringProtocol, tool

#: pairs that are judged at a look
PAIRS = 128
#: no interval is shown: as few resamples as can be
_RESAMPLES = 10


class JudgedLooks:
    """Scores a model's transfers among the clips that are looked at, as a row's are scored.

    Args:
        protocol: what the scores mean.
        judge: who judges.
        clips: that are looked at; the pair list is drawn from them, at most :data:`PAIRS` long.

    Raises:
        ProtocolError: no two of the clips differ in identity and in action.
    """

    def __init__(self, protocol: ScoringProtocol, judge: GatedJudge, clips: LabelledClips) -> None:
        self._table, self._judge = protocol.table, judge.judge
        self._score = {"accuracies": protocol.evaluators["accuracies"]}
        self._request: EvaluationRequest = tool(self._table, "build_request")(
            clips,
            factors=protocol.bench.store.factors,
            settings=EvaluationSettings(
                clips=len(clips),
                pairs=PAIRS,
                bootstrap=_RESAMPLES,
                batch_size=protocol.evaluation.batch_size,
            ),
            unscorable=protocol.unscorable,
        )

    def __call__(self, exchange: Callable[[Integers, Integers], Tensor]) -> dict[str, float]:
        """Returns consistent, dynamic, identity and transfer accuracy and the leaks, as far as any.

        Args:
            exchange: makes clips with the identity of the first rows and the motion of the second;
                of a row with itself, the clip regenerated.
        """
        pairs = self._request.pairs
        made = tool(self._table, "rendered")(
            reconstructions=lambda rows: exchange(rows, rows),
            transfers=lambda rows: exchange(pairs[rows, 0], pairs[rows, 1]),
            name="the model in training",
        )
        found = tool(self._table, "evaluate")(made, self._judge, self._request, self._score)
        return {
            name: round(score.value, 4)
            for name, score in found.scores.items()
            if score.value is not None
        }
