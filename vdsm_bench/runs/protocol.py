"""Judge, request and scores of one bench: the same for every model that stands on it.

What scores lives under ``evaluators/``; it is reached through the registry's entry
``evaluators/protocol``, so the frame imports no evaluator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vdsm_bench.config import CellConfig, JudgeSettings
from vdsm_bench.contracts import EvaluationRequest, Evaluator, Integers, Judge
from vdsm_bench.errors import VdsmBenchError
from vdsm_bench.registry import Registry, import_target, split_part
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.reporting import Reporter


@dataclass(frozen=True)
class GatedJudge:
    """A judge that passed its gates.

    Attributes:
        judge: what predicts.
        card: its card.
        key: hash that names its folder.
        folder: where weights, card and the controls' scores lie.
    """

    judge: Judge
    card: Any
    key: str
    folder: Path

    def summary(self) -> dict[str, Any]:
        """Returns what a row says of its judge: accuracies on real clips it never saw."""
        accuracy = {
            name: dict(examination.accuracy) for name, examination in self.card.examinations.items()
        }
        return {
            "key": self.key,
            "accuracy": accuracy,
            "lowest_accuracy": min(accuracy["test"].values()),
            "unscorable": dict(self.card.unscorable),
        }


def tool(table: Registry, name: str) -> Any:
    """Returns a function of the protocol, see the registry's entry ``evaluators/protocol``."""
    entry = table.get("evaluators", "protocol")
    return import_target(entry.settings["functions"][name], f"evaluators/protocol ({name})")


class ScoringProtocol:
    """How models on one bench are scored.

    Args:
        table: the catalogue.
        bench: the clips.
        config: whose judge and evaluation settings count.
        device: where judge and subjects run.
    """

    def __init__(self, table: Registry, bench: Bench, config: CellConfig, device: str) -> None:
        self.table, self.bench, self.device = table, bench, device
        self.judge_settings: JudgeSettings = config.judge
        self.evaluation = config.evaluation
        self._left_out: list[str] = []

    @cached_property
    def evaluators(self) -> dict[str, Evaluator]:
        """What scores every subject: all evaluators but those one has to ask for.

        Those of other packages are taken as far as they load.
        """
        found: dict[str, Evaluator] = {}
        for name in self.table.names("evaluators"):
            entry = self.table.peek("evaluators", name)
            if not (entry.target or entry.loader) or entry.settings.get("asked"):
                continue
            try:
                found[name] = self.table.factory("evaluators", name)()
            except VdsmBenchError as error:
                if entry.loader is None:
                    raise
                self._left_out.append(f"evaluators/{name} is left out: {error}")
        return found

    @cached_property
    def asked(self) -> dict[str, Evaluator]:
        """The dear evaluators that the settings ask for (``evaluation.scores``)."""
        parts = dict(split_part(value) for value in self.evaluation.scores)
        return {
            name: self.table.factory("evaluators", name, arguments)()
            for name, arguments in parts.items()
        }

    @property
    def asked_facts(self) -> dict[str, Any]:
        """What the numbers of the dear evaluators depend on: their arguments and versions."""
        parts = dict(split_part(value) for value in self.evaluation.scores)
        return {
            name: {
                "arguments": parts[name],
                "versions": {metric.name: metric.version for metric in evaluator.metrics},
            }
            for name, evaluator in self.asked.items()
        }

    @cached_property
    def judge_hash(self) -> str:
        """Hash of the judge: its settings and the clips it learns from."""
        data = self.bench.data
        facts = {
            **self.bench.key,
            "image_size": data.image_size,
            "frames": data.frames,
            "stride": data.stride,
        }
        return str(tool(self.table, "judge_key")(self.judge_settings, facts))

    @property
    def key(self) -> dict[str, Any]:
        """What a row's numbers depend on beside the model: judge, pairs, versions of scores."""
        versions = {
            metric.name: metric.version
            for evaluator in self.evaluators.values()
            for metric in evaluator.metrics
        }
        return {
            "judge": self.judge_hash,
            "pairs": tool(self.table, "pairs_version"),
            "metrics": dict(sorted(versions.items())),
        }

    @property
    def unscorable(self) -> dict[str, str]:
        """Factors that no judge can score, with the reason."""
        reason = f"the split by {self.bench.splits.rule} tests classes that training never shows"
        return dict.fromkeys(self.bench.splits.unscorable, reason)

    @cached_property
    def request(self) -> EvaluationRequest:
        """What every subject is asked: test clips, pair list, settings."""
        request: EvaluationRequest = tool(self.table, "build_request")(
            self.bench.test,
            factors=self.bench.store.factors,
            settings=self.evaluation,
            unscorable=self.unscorable,
            train=self.bench.train,
            device=self.device,
        )
        return request

    @property
    def test_indices(self) -> Integers:
        """Numbers in the clip store of the request's test clips, by row."""
        test = self.bench.splits.test
        rows: Integers = tool(self.table, "choose_clips")(len(test), self.evaluation.clips)
        return test[rows]

    def judge_folder(self, runs_dir: Path) -> Path:
        """Returns ``<runs>/judges/<dataset>/<protocol>-<hash8>``."""
        data, rule = self.bench.data, self.bench.splits.rule
        name = f"{rule}-{data.image_size}px-{data.frames}f-{self.judge_hash}"
        return runs_dir / "judges" / self.bench.store.name / name

    def obtain_judge(self, runs_dir: Path, reporter: Reporter) -> GatedJudge:
        """Loads the judge, or trains it; made once, shared by all cells.

        Raises:
            ProtocolError: it failed a gate; nothing is scored.
            DataError: its folder is damaged.
        """
        folder = self.judge_folder(runs_dir)
        for text in dict.fromkeys(self._left_out):
            reporter.say(text)
        name = f"judge {self.bench.store.name}"
        if not folder.exists():
            reporter.say(f"{name}: training it on real training clips (once)")

        def progress(done: int, total: int, figures: Mapping[str, float]) -> None:
            reporter.progress(
                name, done, total, " ".join(f"{key} {value:.3f}" for key, value in figures.items())
            )

        bench = self.bench
        judge, card = tool(self.table, "obtain_judge")(
            folder,
            train=bench.train,
            validation=bench.validation,
            test=bench.test,
            cells=bench.cells if len(bench.splits.cells) else None,
            factors=bench.store.factors,
            unscorable=self.unscorable,
            settings=self.judge_settings,
            device=self.device,
            progress=progress,
        )
        return GatedJudge(judge, card, self.judge_hash, folder)

    def evaluate(self, subject: Any, judge: GatedJudge, evaluators: Mapping[str, Evaluator]) -> Any:
        """Scores a model, a control or rendered outputs; see ``evaluators.suite.Evaluation``."""
        return tool(self.table, "evaluate")(subject, judge.judge, self.request, evaluators)

    def score(
        self, subject: Any, judge: GatedJudge, evaluators: Mapping[str, Evaluator]
    ) -> dict[str, Any]:
        """The same, JSON-able."""
        found: dict[str, Any] = self.evaluate(subject, judge, evaluators).as_json()
        return found
