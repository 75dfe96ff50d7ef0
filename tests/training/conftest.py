import pytest
import torch

from tests.models.tiny import build
from tests.training.toys import SETTINGS, Noise
from vdsm_bench.training.trainer import Trainer


@pytest.fixture(autouse=True, scope="module")
def plain_arithmetic():
    """One thread and torch's own precision: the same numbers here and in a process of its own.

    Other tests run whole commands in this process, which set both as training wants them.
    """
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Folder and weights of a training that ran to its end."""
    folder = tmp_path_factory.mktemp("whole")
    model = build()
    Trainer(model, SETTINGS, Noise(), folder=folder, seed=1).train()
    return folder, model.state_dict()
