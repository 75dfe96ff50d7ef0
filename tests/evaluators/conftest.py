"""One really trained judge on the toy set, shared by the tests of the evaluators."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.evaluators import toy
from vdsm_bench.config import EvaluationSettings, JudgeSettings
from vdsm_bench.contracts import EvaluationRequest, LabelledClips
from vdsm_bench.evaluators.judge import NeuralJudge
from vdsm_bench.evaluators.judge_training import train_judge
from vdsm_bench.evaluators.suite import build_request


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Before any judge is trained, so that all of them add up alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def settings() -> JudgeSettings:
    return JudgeSettings(epochs=8, width=8, batch_size=16, learning_rate=5e-3)


@pytest.fixture(scope="session")
def train() -> LabelledClips:
    return toy.make(240, seed=1)


@pytest.fixture(scope="session")
def validation() -> LabelledClips:
    return toy.make(60, seed=2)


@pytest.fixture(scope="session")
def test_clips() -> LabelledClips:
    return toy.make(90, seed=3)


@pytest.fixture(scope="session")
def judge(train: LabelledClips, validation: LabelledClips, settings: JudgeSettings) -> NeuralJudge:
    return train_judge(train, validation, factors=toy.FACTORS, settings=settings).judge


@pytest.fixture(scope="session")
def request_(test_clips: LabelledClips, train: LabelledClips) -> EvaluationRequest:
    return build_request(
        test_clips,
        factors=toy.FACTORS,
        settings=EvaluationSettings(clips=80, pairs=60, bootstrap=50, batch_size=16),
        train=train,
    )
