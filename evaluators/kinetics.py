"""Frechet and kernel distance on Kinetics features, as VDSM's FID had them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor

from vdsm_bench.contracts import (
    EvaluationRequest,
    Evaluator,
    Findings,
    Floats,
    Judge,
    MetricInfo,
    Outputs,
)
from vdsm_bench.errors import DataError
from vdsm_bench.evaluators.frechet import Distances, distance_columns
from vdsm_bench.evaluators.resnext import ResNeXt, load_resnext, prepare

_AT_ONCE = 4


class KineticsDistances(Evaluator):
    """Distances on the 2048 features of ResNeXt-101 trained on Kinetics; weights are the user's.

    Args:
        weights: path of the weight file, see :func:`vdsm_bench.evaluators.resnext.load_resnext`;
            without one the columns are empty.
        clips: largest number of clips on either side.

    Raises:
        DataError: there is no such file; what it holds is seen when it is needed.
    """

    metrics: ClassVar[tuple[MetricInfo, ...]] = distance_columns(
        "kinetics", "ResNeXt-101 Kinetics features of 16 frames at 112 px"
    )

    def __init__(self, *, weights: str | None = None, clips: PositiveInt = 2000) -> None:
        if weights is not None and not Path(weights).is_file():
            raise DataError(
                f"kinetics: there is no weight file {weights}.",
                hint="--set 'evaluation.scores=[{name: kinetics, weights: FILE}]'",
            )
        self.weights = weights
        self._distances = Distances("kinetics", clips)

    @property
    def facts(self) -> Mapping[str, str]:
        """The digest of the weight file: another file at the same place gives other numbers."""
        return {} if self.weights is None else {"weights_sha256": self._digest}

    def evaluate(
        self, outputs: Outputs, request: EvaluationRequest, judge: Judge | None
    ) -> Findings:
        """Measures regenerated and transferred clips, and the floor; no judge is asked.

        Raises:
            DataError: the weight file is missing, damaged or another network's.
        """
        if self.weights is None:
            return self._distances.empty(
                "no weight file was given "
                "(--set 'evaluation.scores=[{name: kinetics, weights: FILE}]')"
            )
        network = self._network.to(request.device)

        def extract(clips: Tensor) -> Floats:
            with torch.inference_mode():
                parts = [
                    network(prepare(part.to(request.device)))
                    for part in torch.split(clips, _AT_ONCE)
                ]
            return np.asarray(torch.cat(parts).cpu().double().numpy())

        found = self._distances.findings(outputs, request, extract, network)
        notes = [*found.notes, f"fvd_kinetics: weights SHA-256 {self._digest[:16]}"]
        return Findings(found.scores, notes=notes)

    @cached_property
    def _network(self) -> ResNeXt:
        return load_resnext(Path(str(self.weights)))

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        with Path(str(self.weights)).open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
        return digest.hexdigest()
