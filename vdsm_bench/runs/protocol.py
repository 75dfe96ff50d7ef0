"""Judge, request and scores of one bench: the same for every model that stands on it.

What scores lives under ``evaluators/``; it is reached through the registry's entry
``evaluators/protocol``, so the frame imports no evaluator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vdsm_bench.config import CellConfig, JudgeSettings, content_key
from vdsm_bench.contracts import EvaluationRequest, Evaluator, Integers, MetricInfo
from vdsm_bench.errors import ContractError, VdsmBenchError
from vdsm_bench.registry import Registry, import_target, split_part
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.reporting import Reporter

#: what is known of an evaluator's numbers where a row says nothing
_BARE: dict[str, Any] = {"arguments": {}, "facts": {}}


@dataclass(frozen=True)
class GatedJudge:
    """The judges of a protocol, who passed their gates.

    Attributes:
        judge: who predicts: one or more judges.
        card: what is known about them.
        key: hash that names the folder.
        folder: where the controls' scores lie; with one judge, beside its weights and card.
    """

    judge: Any
    card: Any
    key: str
    folder: Path

    def summary(self) -> dict[str, Any]:
        """Returns what a row says of its judges: accuracies on real clips they never saw."""
        return {"key": self.key, **self.card.summary()}


def tool(table: Registry, name: str) -> Any:
    """Returns a function of the protocol, see the registry's entry ``evaluators/protocol``."""
    entry = table.get("evaluators", "protocol")
    return import_target(entry.settings["functions"][name], f"evaluators/protocol ({name})")


def _beside(others: Mapping[str, Evaluator], name: str, evaluator: Evaluator) -> Evaluator:
    """Returns an evaluator whose columns are not those of others.

    Raises:
        ContractError: one is, and in a row that is there it would take the other's place.
    """
    for other, known in others.items():
        taken = sorted({m.name for m in known.metrics} & {m.name for m in evaluator.metrics})
        if taken:
            raise ContractError(
                f"evaluators/{name}: the column '{taken[0]}' is that of evaluators/{other}.",
                hint="give it another name, with your package's in front",
            )
    return evaluator


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
        self._own_facts: dict[str, Any] = {}

    @cached_property
    def evaluators(self) -> dict[str, Evaluator]:
        """What scores every subject: all evaluators but those one has to ask for.

        Those of other packages are taken as far as they load, can be built and have columns of
        their own.
        """
        found: dict[str, Evaluator] = {}
        entries = {n: self.table.peek("evaluators", n) for n in self.table.names("evaluators")}
        own_last = sorted(entries.items(), key=lambda item: item[1].loader is not None)
        for name, entry in own_last:
            if not (entry.target or entry.loader):
                continue
            try:
                if not self.table.get("evaluators", name).settings.get("asked"):
                    found[name] = _beside(found, name, self._build(name, {}))
            except VdsmBenchError as error:
                if entry.loader is None:
                    raise
                self._left_out.append(f"evaluators/{name} is left out: {error}")
        return found

    @cached_property
    def asked(self) -> dict[str, Evaluator]:
        """The dear evaluators that the settings ask for (``evaluation.scores``)."""
        parts = dict(split_part(value) for value in self.evaluation.scores)
        found: dict[str, Evaluator] = {}
        for name, arguments in parts.items():
            others = {**self.evaluators, **found}
            found[name] = _beside(others, name, self._build(name, arguments))
        return found

    def _build(self, name: str, arguments: Mapping[str, Any]) -> Evaluator:
        """Builds an evaluator; one of another package is checked, and its facts are kept.

        Raises:
            ContractError: one of another package fails, or declares no metrics.
        """
        entry = self.table.get("evaluators", name)
        factory = self.table.factory("evaluators", name, arguments)
        if entry.loader is None:
            return factory()  # type: ignore[no-any-return]
        where = f"evaluators/{name} ({entry.origin})"
        try:
            evaluator: Evaluator = factory()
            metrics = getattr(evaluator, "metrics", None)
            facts = {"arguments": {**entry.defaults, **arguments}, "facts": dict(evaluator.facts)}
            self._own_facts[name] = json.loads(json.dumps(facts))  # as a row gives it back
        except VdsmBenchError:
            raise
        except Exception as error:
            raise ContractError(
                f"{where} cannot be built: {type(error).__name__}: {error}.",
                hint="mend it, or uninstall its package",
            ) from error
        if not (
            isinstance(metrics, tuple | list) and all(isinstance(m, MetricInfo) for m in metrics)
        ):
            raise ContractError(
                f"{where}: its metrics are {metrics!r}; they have to be a tuple of MetricInfo.",
                hint="metrics = (MetricInfo(...),)",
            )
        return evaluator

    @property
    def own_facts(self) -> dict[str, Any]:
        """Arguments and facts of the evaluators of other packages, dear or not, by name."""
        _ = self.evaluators, self.asked
        return self._own_facts

    def of_other_facts(self, known: Mapping[str, Any]) -> set[str]:
        """Returns the evaluators of other packages whose :attr:`own_facts` are not the known."""
        return {name for name, own in self.own_facts.items() if known.get(name, _BARE) != own}

    @property
    def asked_facts(self) -> dict[str, Any]:
        """What the numbers of the dear evaluators depend on: arguments, versions, their facts."""
        parts = dict(split_part(value) for value in self.evaluation.scores)
        return {
            name: {
                "arguments": parts[name],
                "versions": {metric.name: metric.version for metric in evaluator.metrics},
                **({"facts": dict(evaluator.facts)} if evaluator.facts else {}),
            }
            for name, evaluator in self.asked.items()
        }

    @cached_property
    def judge_keys(self) -> list[str]:
        """Hash of every judge: how it is trained and the clips it learns from."""
        data, settings = self.bench.data, self.judge_settings
        facts = {
            **self.bench.key,
            "image_size": data.image_size,
            "frames": data.frames,
            "stride": data.stride,
            **self._left_out_of_key,
        }
        judge_key = tool(self.table, "judge_key")
        return [judge_key(settings, facts, choice) for choice in settings.choices]

    @property
    def judge_hash(self) -> str:
        """Hash of the judges together: the judge's own where there is one."""
        keys = self.judge_keys
        return keys[0] if len(keys) == 1 else content_key(keys)

    @cached_property
    def judge_clips(self) -> Any:
        """What judges learn from and are examined on."""
        bench = self.bench
        return tool(self.table, "judge_clips")(
            train=bench.train,
            validation=bench.validation,
            test=bench.test,
            cells=bench.cells if len(bench.splits.cells) else None,
        )

    @property
    def key(self) -> dict[str, Any]:
        """What a row's numbers depend on beside the model: judge, clips, versions of scores."""
        versions = {
            metric.name: metric.version
            for evaluator in self.evaluators.values()
            for metric in evaluator.metrics
        }
        return {
            "judge": self.judge_hash,
            "part": self.bench.part,
            "pairs": tool(self.table, "pairs_version"),
            "metrics": dict(sorted(versions.items())),
            **self._left_out_of_key,
        }

    def said_in_row(self) -> dict[str, Any]:
        """Returns what a row says of how it was scored."""
        return {"protocol": self.key, "asked": self.asked_facts, "own": self.own_facts}

    @property
    def _left_out_of_key(self) -> dict[str, Any]:
        """Factors of one class, which were judged and scored once: such judges and rows differ."""
        constant = self.bench.splits.constant
        return {"left_out": list(constant)} if constant else {}

    @property
    def unscorable(self) -> dict[str, str]:
        """Factors that no judge can score, with the reason."""
        splits = self.bench.splits
        unseen = f"the split by {splits.rule} holds out classes that training never shows"
        return {
            **dict.fromkeys(splits.unscorable, unseen),
            **dict.fromkeys(splits.constant, "all clips show one class of it"),
        }

    @cached_property
    def request(self) -> EvaluationRequest:
        """What every subject is asked: held-out clips, pair list, settings."""
        request: EvaluationRequest = tool(self.table, "build_request")(
            self.bench.scored,
            factors=self.bench.store.factors,
            settings=self.evaluation,
            unscorable=self.unscorable,
            train=self.bench.train,
            device=self.device,
        )
        return request

    @property
    def scored_indices(self) -> Integers:
        """Numbers in the clip store of the request's clips, by row."""
        held_out = self.bench.scored_indices
        rows: Integers = tool(self.table, "choose_clips")(len(held_out), self.evaluation.clips)
        return held_out[rows]

    def judge_folder(self, runs_dir: Path, key: str | None = None) -> Path:
        """Returns ``<runs>/judges/<dataset>/<protocol>-<hash8>``, of all judges or of one key."""
        data, rule = self.bench.data, self.bench.splits.rule
        name = f"{rule}-{data.image_size}px-{data.frames}f-{key or self.judge_hash}"
        return runs_dir / "judges" / self.bench.store.name / name

    def judge_weights(self, runs_dir: Path) -> str | None:
        """Returns what tells these judges from others trained alike; None where one is missing."""
        folders = [self.judge_folder(runs_dir, key) for key in self.judge_keys]
        weights: str | None = tool(self.table, "panel_weights")(folders)
        return weights

    def obtain_judge(self, runs_dir: Path, reporter: Reporter) -> GatedJudge:
        """Loads the judges, or trains them; made once, shared by all cells.

        Raises:
            ProtocolError: one failed a gate; nothing is scored.
            DataError: a folder is damaged.
        """
        for text in dict.fromkeys(self._left_out):
            reporter.say(text)
        name = f"judge {self.bench.store.name}"
        folders = [self.judge_folder(runs_dir, key) for key in self.judge_keys]
        new = sum(not folder.exists() for folder in folders)
        if new:
            who = "it" if len(folders) == 1 else f"{new} of {len(folders)}"
            reporter.say(f"{name}: training {who} on real training clips (once)")

        def progress(who: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            task = name if len(folders) == 1 else f"{name}, {who}"
            reporter.progress(
                task, done, total, " ".join(f"{key} {value:.3f}" for key, value in figures.items())
            )

        folder = self.judge_folder(runs_dir)
        panel, card = tool(self.table, "obtain_panel")(
            folders,
            self.judge_clips,
            panel_file=folder / "panel.json",
            factors=self.bench.store.factors,
            unscorable=self.unscorable,
            settings=self.judge_settings,
            device=self.device,
            progress=progress,
            say=reporter.say,
        )
        if self.judge_clips.cells is None:
            reporter.say(
                f"{name}: this split leaves no combination of identity and action unseen, so that "
                "the gate on such clips was not asked"
            )
        return GatedJudge(panel, card, self.judge_hash, folder)

    def evaluate(self, subject: Any, judge: GatedJudge, evaluators: Mapping[str, Evaluator]) -> Any:
        """Scores a model, a control or rendered outputs; see ``evaluators.suite.Evaluation``."""
        return tool(self.table, "evaluate")(subject, judge.judge, self.request, evaluators)

    def score(
        self, subject: Any, judge: GatedJudge, evaluators: Mapping[str, Evaluator]
    ) -> dict[str, Any]:
        """The same, JSON-able."""
        found: dict[str, Any] = self.evaluate(subject, judge, evaluators).as_json()
        return found
