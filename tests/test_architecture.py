"""The arrows of the house: who may import whom, and how early torch may be imported."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: lower may not import higher; the first prefix that fits counts
TIERS = {
    "vdsm_bench.errors": 0,
    "vdsm_bench.seeding": 0,
    "vdsm_bench.files": 1,
    "vdsm_bench.optional": 1,
    "vdsm_bench.initialisation": 1,
    "vdsm_bench.kernels": 1,
    "vdsm_bench.significance": 1,
    "vdsm_bench.contracts": 1,
    "vdsm_bench.declaration": 1,
    "vdsm_bench.signatures": 1,
    "vdsm_bench.registry": 2,
    "vdsm_bench.layers": 2,
    "vdsm_bench.config": 2,
    "vdsm_bench.devices": 2,
    "vdsm_bench.encoders": 3,
    "vdsm_bench.decoders": 3,
    "vdsm_bench.models": 3,
    "vdsm_bench.data": 3,
    "vdsm_bench.training": 3,
    "vdsm_bench.evaluators": 3,
    "vdsm_bench.baselines": 3,
    "vdsm_bench.runs": 4,
    "vdsm_bench.boards": 4,
    "vdsm_bench.cli": 5,
    "vdsm_bench.__main__": 6,
    "vdsm_bench": 0,
}
#: modules without any knowledge of the frame, which components may use too
LEAVES = (
    "errors", "seeding", "config", "optional", "files", "initialisation", "kernels", "significance",
)  # fmt: skip
COMPONENTS = ("encoders", "decoders", "models", "evaluators", "baselines")


def modules():
    """Yields (dotted name, path) of every module of the project."""
    for folder, package in (
        ("vdsm_bench", "vdsm_bench"),
        ("evaluators", "vdsm_bench.evaluators"),
        ("baselines", "vdsm_bench.baselines"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            yield ".".join([package, *parts]), path


MODULES = dict(modules())


def imports(path, *, top_only=False):
    """Returns the modules a file imports; ``from a import b`` counts as a.b where that is one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.dump(test.test)
        for node in ast.walk(test)
    }
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    found = set()
    for node in ast.walk(tree):
        if top_only and (id(node) in guarded or id(node) in inside):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else node.module)
    return found


def tier(module):
    prefix = max((p for p in TIERS if module == p or module.startswith(p + ".")), key=len)
    return TIERS[prefix]


def package(module):
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_one_way(module):
    for other in imports(MODULES[module]):
        if other == "vdsm_bench" or not other.startswith("vdsm_bench."):
            continue
        assert tier(other) <= tier(module), f"{module} imports {other}"


@pytest.mark.parametrize("module", [m for m in MODULES if package(m) in COMPONENTS])
def test_components_import_contracts_and_their_own_folder_only(module):
    allowed = {"contracts", *LEAVES, package(module)}
    for other in imports(MODULES[module]):
        if other.startswith("vdsm_bench."):
            assert package(other) in allowed, f"{module} imports {other}"
    assert "vdsm_bench.registry" not in imports(MODULES[module])


@pytest.mark.parametrize(
    "module", [m for m in MODULES if package(m) not in ("evaluators", "baselines")]
)
def test_the_frame_reaches_components_through_the_registry_alone(module):
    own = package(module)
    for other in imports(MODULES[module]):
        if other.startswith("vdsm_bench."):
            reached = package(other)
            assert reached not in COMPONENTS or reached == own, f"{module} imports {other}"


def test_modules_import_each_other_in_no_circle():
    graph = {
        name: {m for m in imports(path, top_only=True) if m in MODULES and m != name}
        for name, path in MODULES.items()
    }
    graph = {name: {m for m in others if m != "vdsm_bench"} for name, others in graph.items()}
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for other in sorted(graph[name]):
            visit(other)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)


HEAVY = {"torch", "numpy", "pandas", "pyro", "PIL", "lightning_fabric", "sklearn", "scipy"}
LIGHT = [
    name
    for name in MODULES
    if package(name) == "cli"
    or name
    in {
        "vdsm_bench",
        "vdsm_bench.config",
        "vdsm_bench.registry",
        "vdsm_bench.errors",
        "vdsm_bench.files",
        "vdsm_bench.boards.leaderboard",
        "vdsm_bench.boards.table",
        "vdsm_bench.runs.cell",
        "vdsm_bench.runs.folder",
        "vdsm_bench.runs.pick",
        "vdsm_bench.data.locate",
        "vdsm_bench.runs.plan",
        "vdsm_bench.runs.reporting",
    }
]


def closure(module):
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        todo += [other for other in imports(MODULES[name], top_only=True) if other in MODULES]
    return seen


@pytest.mark.parametrize("module", LIGHT)
def test_the_command_line_imports_nothing_heavy_above_function_level(module):
    for name in closure(module):
        for other in imports(MODULES[name], top_only=True):
            assert other.partition(".")[0] not in HEAVY, f"{module} reaches {name}: {other}"


def test_every_command_has_its_file():
    from vdsm_bench.cli.main import COMMANDS

    files = {path.name for path in (ROOT / "vdsm_bench" / "cli").glob("*_command.py")}
    assert files == {f"{name}_command.py" for name in COMMANDS}


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_stay_readable(module):
    text = MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400
    imported = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    assert not any(node.level for node in imported)  # relative: the tests here would not see it
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < 60, f"{module}.{node.name}"


@pytest.mark.parametrize("module", MODULES)
def test_input_is_never_checked_by_assert(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
