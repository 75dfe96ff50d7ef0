"""``vdsm-bench doctor``: whether this machine is fit to run."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

import click

from vdsm_bench.cli.context import Session, json_option, pass_session, print_json
from vdsm_bench.devices import prepare_environment

_PACKAGES = ("vdsm-bench", "torch", "numpy", "pyro-ppl", "timm", "lightning-fabric", "pillow")


@click.command("doctor")
@json_option
@pass_session
def command(session: Session, as_json: bool) -> int:
    """Check versions, device, disk and data; exit code 4 if a dependency does not work."""
    from vdsm_bench.data.locate import data_root

    prepare_environment()
    root = data_root(session.data_dir).path
    found: dict[str, str] = {"python": platform.python_version()}
    found.update({name: _version(name) for name in _PACKAGES})
    found["timm imports"] = _try_timm()
    found["device"] = _device()
    found["cpu cores"] = str(os.cpu_count())
    found.update(_arithmetic())
    found["runs"] = _place(session.runs_dir.absolute())
    found["data"] = _place(root.absolute())
    if as_json:
        print_json(found)
    else:
        width = max(map(len, found))
        for key, value in found.items():
            click.echo(f"{key.ljust(width)}  {value}")
    broken = any(value.startswith(("missing", "broken")) for value in found.values())
    return 4 if broken else 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return f"missing: pip install {package}"


def _try_timm() -> str:
    from vdsm_bench.errors import MissingDependencyError
    from vdsm_bench.optional import import_timm

    try:
        import_timm()
    except MissingDependencyError as error:
        return f"broken: {error.message}"
    return "yes"


def _device() -> str:
    from vdsm_bench.devices import choose_device

    return str(choose_device("auto"))


def _arithmetic() -> dict[str, str]:
    import torch

    from vdsm_bench.devices import has_bf16, matmul_rate, prepare_process

    prepare_process()
    rates = [round(matmul_rate(dtype)) for dtype in ("float32", "bfloat16")]
    return {
        "threads": str(torch.get_num_threads()),
        "waiting": os.environ.get("OMP_WAIT_POLICY", "as the threads' library does"),
        "bf16 instructions": "yes" if has_bf16("cpu") else "no",
        "matrix products": f"{rates[0]} GFLOP/s in 32, {rates[1]} in bf16, on the CPU just now",
    }


def _place(path: os.PathLike[str]) -> str:
    existing = os.path.abspath(path)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    free = shutil.disk_usage(existing).free / 1e9
    writable = "" if os.access(existing, os.W_OK) else ", not writable"
    return f"{os.fspath(path)} ({free:.1f} GB free{writable})"
