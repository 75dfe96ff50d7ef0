import pytest
import torch


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
