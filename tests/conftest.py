import os
import subprocess
import sys

import pytest


def pytest_collection_modifyitems(items):
    """Skips what needs a GPU where there is none; torch is imported only if something does."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _a_plain_terminal():
    """Whatever the shell asks of colours: what is printed is compared with bare text."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _products_as_the_program_has_them():
    """Also where no test before has called a command that sets them."""
    from vdsm_bench.devices import prepare_process

    prepare_process()


@pytest.fixture
def exact_products():
    """Products and convolutions of a GPU in float32, and in one order of adding up."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def run_python(tmp_path):
    """Runs a line of Python in a process of its own; fails with its output where it fails."""

    def run(code, *arguments, expect=0, **environment):
        process = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            timeout=120,
            check=False,
        )
        assert process.returncode == expect, process.stdout + process.stderr
        return process

    return run


@pytest.fixture(scope="session")
def table():
    from tests.toys import toy_table

    return toy_table()


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    from tests.plugin.toy_zoo.squares import ToySquares

    folder = tmp_path_factory.mktemp("data")
    ToySquares().prepare(folder / "toy-squares")
    return folder
