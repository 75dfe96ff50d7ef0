"""A score of one's own."""

import numpy as np

from vdsm_bench.contracts import (
    EvaluationRequest,
    Evaluator,
    Findings,
    Judge,
    MetricInfo,
    Outputs,
    Score,
)


class Brightness(Evaluator):
    """Mean brightness of regenerated clips."""

    metrics = (MetricInfo("toy_brightness", "none", 0.0, 1.0, "share", 1, "Mean pixel value."),)

    def evaluate(
        self, outputs: Outputs, request: EvaluationRequest, judge: Judge | None
    ) -> Findings:
        reason = outputs.missing("reconstructions")
        if reason is not None:
            return Findings({"toy_brightness": Score(None, reason=reason)})
        rows = np.arange(min(8, len(request.test)))
        value = outputs.reconstructions(rows).mean().item()
        return Findings({"toy_brightness": Score(value, n=len(rows))})
