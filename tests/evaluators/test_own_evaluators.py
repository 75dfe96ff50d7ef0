"""Evaluators of other packages: what they found is checked, what they break is named."""

import json

import numpy as np
import pytest
import torch

from vdsm_bench.contracts import Evaluator, FactorScore, Findings, MetricInfo, Score
from vdsm_bench.errors import ContractError
from vdsm_bench.evaluators import judge_panel
from vdsm_bench.evaluators.accuracies import Accuracies
from vdsm_bench.evaluators.controls import make_controls
from vdsm_bench.evaluators.judge_panel import Panel
from vdsm_bench.evaluators.pixels import Pixels
from vdsm_bench.evaluators.suite import evaluate


@pytest.fixture(scope="module")
def controls(train):
    return make_controls(train)


class Brightness(Evaluator):
    metrics = (MetricInfo("brightness", "none", 0.0, 1.0, "share", 1, "Mean pixel."),)

    def evaluate(self, outputs, request, judge):
        rows = np.arange(len(request.test))
        return Findings({"brightness": Score(float(outputs.reconstructions(rows).mean()))})


def test_an_evaluator_of_another_package_joins_in(controls, judge, request_):
    subject = controls["mean-clip"]
    result = evaluate(
        subject, judge, request_, {"accuracies": Accuracies(), "brightness": Brightness()}
    )
    assert result.scores["brightness"].value == pytest.approx(float(subject.mean.mean()), rel=1e-4)


@pytest.mark.parametrize(
    "found",
    [
        Findings({"brightness": Score(float("nan"))}),
        Findings({"brightness": Score(0.5, 0.4, float("inf"))}),
        Findings({"brightness": Score(0.5, by_identity=(0.4, float("nan")))}),
        Findings({"brightness": Score(0.5)}, long=[FactorScore("it", "hue", Score(-np.inf))]),
        Findings({"brightness": Score(0.5)}, chance={"brightness": {"uniform": float("nan")}}),
    ],
)
def test_a_figure_that_is_no_number_is_refused_before_the_row_is_written(
    controls, judge, request_, found
):
    class Careless(Brightness):
        def evaluate(self, outputs, request, judge):
            return found

    with pytest.raises(ContractError, match="evaluators/careless: '.*' has .* = -?(nan|inf)"):
        evaluate(controls["frozen-frame"], judge, request_, {"careless": Careless()})


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "it returns NoneType, not Findings"),
        ({"brightness": 0.5}, "it returns dict, not Findings"),
        (Findings({"brightness": 0.5}), "'brightness' is a float, not a Score"),
        (Findings({"brightness": Score("high")}), "'brightness' has value = 'high'"),
        (Findings({"brightness": Score(torch.tensor(0.5))}), r"has value = tensor\(0.5"),
        (
            Findings({"brightness": Score(0.5)}, per_pair={"brightness": np.ones(3)}),
            r"of the shape \[3\]",
        ),
        (
            Findings({"brightness": Score(0.5)}, per_pair={"transfer_accuracy": np.ones(3)}),
            "found and declared differ in: transfer_accuracy",
        ),
        (
            Findings({"brightness": Score(0.5)}, per_pair={"brightness": [np.nan, *[1.0] * 59]}),
            "'brightness' has 1 of 60 values per pair NaN or infinite",
        ),
        (
            Findings({"brightness": Score(0.5)}, chance={"dynamic_accuracy": {"majority": 0.0}}),
            "found and declared differ in: dynamic_accuracy",
        ),
        (Findings({"brightness": Score(0.5)}, long=[Score(0.5)]), "fails: AttributeError"),
    ],
)
def test_findings_of_another_form_are_refused_by_the_name_of_their_evaluator(
    controls, judge, request_, found, message
):
    class Careless(Brightness):
        def evaluate(self, outputs, request, judge):
            return found

    for judges in (judge, Panel((judge, judge))):
        with pytest.raises(ContractError, match=f"evaluators/careless.*{message}"):
            judge_panel.evaluate(
                controls["frozen-frame"], judges, request_, {"careless": Careless()}
            )


def test_figures_of_numpy_become_plain_ones(controls, judge, request_):
    class Brief(Brightness):
        def evaluate(self, outputs, request, judge):
            score = Score(np.float32(0.5), np.float32(0.25), 1, n=np.int64(3))
            return Findings(
                {"brightness": score},
                long=[FactorScore("hue", "colour", score)],
                chance={"brightness": {"uniform": np.float16(0.5)}},
                histogram={"real": {"colour": np.arange(2)}},
            )

    found = evaluate(controls["frozen-frame"], judge, request_, {"brief": Brief()}).as_json()
    assert json.loads(json.dumps(found)) == found
    assert found["scores"]["brightness"] == {"value": 0.5, "low": 0.25, "high": 1.0, "n": 3}
    assert found["histogram"] == {"real": {"colour": [0, 1]}}


def test_an_evaluator_of_another_package_that_fails_is_named_and_a_built_in_one_is_a_bug(
    controls, judge, request_, monkeypatch
):
    def fail(self, outputs, request, judge):
        raise ZeroDivisionError("of its own")

    class Failing(Brightness):
        evaluate = fail

    for judges in (judge, Panel((judge, judge))):
        with pytest.raises(ContractError, match="evaluators/failing fails.*own.*test_own") as told:
            judge_panel.evaluate(controls["frozen-frame"], judges, request_, {"failing": Failing()})
        assert "type the command again" in told.value.hint
    monkeypatch.setattr(Pixels, "evaluate", fail)
    with pytest.raises(ZeroDivisionError):
        evaluate(controls["frozen-frame"], judge, request_, {"pixels": Pixels()})


def test_undeclared_and_taken_columns_are_refused(controls, judge, request_):
    class Liar(Brightness):
        metrics = ()

    class Thief(Brightness):
        metrics = Pixels.metrics

        def evaluate(self, outputs, request, judge):
            return Findings({m.name: Score(0.0) for m in self.metrics})

    subject = controls["frozen-frame"]
    with pytest.raises(ContractError, match="evaluators/liar.*brightness"):
        evaluate(subject, judge, request_, {"liar": Liar()})
    with pytest.raises(ContractError, match="evaluators/thief.*another"):
        evaluate(subject, judge, request_, {"pixels": Pixels(), "thief": Thief()})


def test_a_histogram_of_another_evaluator_is_not_overwritten(controls, judge, request_):
    class Painter(Brightness):
        name = "hues"

        def evaluate(self, outputs, request, judge):
            histogram = {self.name: {"colour": [0, 0, 0]}}
            return Findings({"brightness": Score(0.5)}, histogram=histogram)

    class Forger(Painter):
        name = "transferred"

    subject = controls["frozen-frame"]
    found = evaluate(subject, judge, request_, {"accuracies": Accuracies(), "painter": Painter()})
    assert set(found.histogram) == {"real", "regenerated", "transferred", "hues"}
    for judges in (judge, Panel((judge, judge))):
        with pytest.raises(ContractError, match="forger: the histogram 'transferred' is another"):
            judge_panel.evaluate(
                subject, judges, request_, {"accuracies": Accuracies(), "forger": Forger()}
            )
