"""The catalogue: what it refuses, what it suggests, and that it tells the truth about the code."""

import inspect
import json
import re
import sys
from importlib.metadata import EntryPoint, packages_distributions, requires

import pytest

from vdsm_bench.contracts import FrameEncoder
from vdsm_bench.errors import ContractError, MissingDependencyError, UsageError
from vdsm_bench.registry import (
    CONTEXT_ARGUMENTS,
    DISTRIBUTIONS,
    KINDS,
    Entry,
    Registry,
    _load_entry_point,
    import_target,
    load_registry,
    registry_path,
    split_part,
)
from vdsm_bench.signatures import (
    annotations_in_source,
    annotations_of,
    checked_value,
    meanings_in_source,
)

BUILT_IN = load_registry()
TARGETS = [
    (kind, name)
    for kind in KINDS
    for name in BUILT_IN.names(kind)
    if BUILT_IN.peek(kind, name).target and BUILT_IN.peek(kind, name).origin == "registry.yaml"
]


def write(tmp_path, text):
    path = tmp_path / "registry.yaml"
    path.write_text(text)
    return path


def test_reading_the_catalogue_imports_no_component(run_python):
    run_python(
        "import sys; from vdsm_bench.registry import load_registry; table = load_registry();"
        "table.get('models', 'vdsm'); bad = {'torch', 'pyro', 'vdsm_bench.contracts'};"
        "sys.exit(bool(bad & set(sys.modules)))"
    )


def test_a_duplicate_names_both_places():
    table = Registry()
    table.add(Entry("models", "toy", "One.", origin="registry.yaml"))
    with pytest.raises(UsageError, match="registry.yaml.*my-package") as error:
        table.add(Entry("models", "toy", "Two.", origin="my-package (m:Toy)"))
    assert "models/toy" in error.value.message
    table.add(Entry("encoders", "toy", "The same name in another kind is no duplicate."))


@pytest.mark.parametrize("name", ["Toy", "toy_model", "toy model", "-toy", "toy-", "", "tøy"])
def test_names_are_lower_kebab(name):
    with pytest.raises(UsageError, match="lower-kebab"):
        Registry().add(Entry("models", name, "A model."))


def test_an_unknown_kind_is_suggested():
    with pytest.raises(UsageError, match="did you mean 'models'"):
        Registry().add(Entry("model", "toy", "A model."))


def test_a_wrong_name_is_suggested_with_the_list_command():
    with pytest.raises(UsageError, match="did you mean 'vdsm'") as error:
        BUILT_IN.get("models", "vsdm")
    assert "vdsm-bench list models" in error.value.hint
    assert "vdsm_bench.models" in error.value.hint


def test_a_wrong_base_class_is_refused_when_loaded():
    table = Registry()
    table.add(Entry("encoders", "wrong", "No encoder.", "pathlib:Path"))
    with pytest.raises(ContractError, match="encoders/wrong.*not a FrameEncoder"):
        table.factory("encoders", "wrong")


def test_every_requirement_is_installed_by_the_name_that_is_said():
    """What is said to be installed for a missing module is the requirement that brings it."""
    brought = packages_distributions()
    said = {DISTRIBUTIONS.get(module, module).replace("_", "-").lower() for module in brought}
    required = [line for line in requires("vdsm-bench") if "extra ==" not in line]
    assert len(required) > 10
    for line in required:
        assert re.match(r"[\w-]+", line)[0].lower() in said


def test_a_missing_module_and_a_missing_class_say_what_to_do(monkeypatch):
    table = Registry()
    table.add(Entry("encoders", "gone", "Not installed.", "no_such_module_here:X"))
    table.add(Entry("encoders", "empty", "No such class.", "pathlib:NoSuchClass"))
    with pytest.raises(MissingDependencyError) as error:
        table.factory("encoders", "gone")
    assert error.value.hint == "pip install no_such_module_here"
    monkeypatch.setitem(sys.modules, "pyro", None)
    with pytest.raises(MissingDependencyError) as error:
        import_target("pyro:distributions", "models/vdsm")
    assert error.value.hint == "pip install pyro-ppl"
    with pytest.raises(ContractError, match="pathlib:NoSuchClass does not exist"):
        table.factory("encoders", "empty")


def test_an_entry_point_that_does_not_load_breaks_only_itself():
    def broken():
        raise MissingDependencyError("it does not load")

    table = Registry()
    table.add(Entry("models", "broken", "from a package", loader=broken))
    assert table.names("models") == ["broken"]
    with pytest.raises(MissingDependencyError):
        table.get("models", "broken")


def test_a_class_of_the_running_program_is_registered_with_its_signature():
    table = Registry()

    @table.register("encoders", "mine")
    class Mine(FrameEncoder):
        """My encoder."""

        def __init__(self, clip, *, width: int = 3) -> None:
            super().__init__()
            self.feature_dim = width

        def forward(self, frames):
            return frames.flatten(1)[:, : self.feature_dim]

    entry = table.get("encoders", "mine")
    assert (entry.summary, dict(entry.defaults)) == ("My encoder.", {"width": 3})
    assert table.factory("encoders", "mine", {"width": 5})(clip=None).feature_dim == 5
    with pytest.raises(UsageError, match="did you mean 'width'"):
        table.factory("encoders", "mine", {"widht": 5})
    with pytest.raises(UsageError, match="'width' is 'wide'"):
        table.factory("encoders", "mine", {"width": "wide"})


@pytest.mark.parametrize("value", [3, None, {}, {"width": 3}, {"name": 3}])
def test_a_part_needs_a_name(value):
    with pytest.raises(UsageError, match="a mapping with 'name'"):
        split_part(value)


@pytest.mark.parametrize(("kind", "name"), TARGETS)
def test_registry_defaults_are_the_constructor_s(kind, name):
    entry = BUILT_IN.get(kind, name)
    target = entry.load()
    if not inspect.isclass(target):
        pytest.skip("no class, nothing to construct")
    signature = {
        key: parameter
        for key, parameter in inspect.signature(target).parameters.items()
        if key not in CONTEXT_ARGUMENTS.get(kind, frozenset())
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    assert set(entry.defaults) == set(signature)
    for key, parameter in signature.items():
        if parameter.default is not parameter.empty and key not in entry.parts:
            shared = [
                other
                for other_kind, other in TARGETS
                if other_kind == kind and BUILT_IN.peek(kind, other).target == entry.target
            ]
            # classes listed under several names differ in exactly the arguments that name them
            stated = [BUILT_IN.peek(kind, other).defaults[key] for other in shared]
            default = parameter.default  # YAML has lists where Python has tuples
            assert (list(default) if isinstance(default, tuple) else default) in stated, key


def test_every_built_in_part_default_exists():
    for kind, name in TARGETS:
        entry = BUILT_IN.get(kind, name)
        BUILT_IN.check_arguments(kind, name, {key: entry.defaults[key] for key in entry.parts})


def test_every_summary_is_one_line_that_ends():
    for kind in KINDS:
        for name in BUILT_IN.names(kind):
            assert re.fullmatch(r".+\.", BUILT_IN.peek(kind, name).summary), f"{kind}/{name}"


def test_an_unknown_kind_in_the_file_names_the_file(tmp_path):
    with pytest.raises(UsageError, match="registry.yaml: unknown kind 'modles'"):
        load_registry(write(tmp_path, "modles:\n  toy: {summary: x}\n"))


def test_the_catalogue_is_found_in_a_checkout():
    assert registry_path().name == "registry.yaml"
    assert registry_path().is_file()


def test_an_entry_point_that_exits_while_it_is_imported_breaks_only_itself(tmp_path, monkeypatch):
    (tmp_path / "exiting_script.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependencyError, match="does not load: SystemExit"):
        _load_entry_point(EntryPoint("x", "exiting_script:X", "vdsm_bench.models"))


@pytest.mark.parametrize(("kind", "name"), TARGETS)
def test_the_annotations_read_from_the_source_are_the_class_s(kind, name):
    """A built-in's arguments must be checked without an import: annotate them with light names."""
    entry = BUILT_IN.get(kind, name)
    target = entry.load()
    if not inspect.isclass(target):
        pytest.skip("no class, nothing to construct")
    known, read = annotations_of(target, name), entry.annotations()
    for key in set(entry.defaults) - set(entry.parts):
        assert repr(read[key]) == repr(known[key]), key


@pytest.mark.parametrize(("kind", "name"), TARGETS)
def test_every_argument_says_what_it_means(kind, name):
    entry = BUILT_IN.get(kind, name)
    meanings = meanings_in_source(entry.target)
    assert [key for key in entry.defaults if not meanings.get(key)] == []


def test_meanings_are_read_to_their_end_without_markup(tmp_path, monkeypatch):
    (tmp_path / "explained.py").write_text(
        'class Other:\n    """Args:\n        wide: of another class.\n    """\n'
        'class Mine:\n    """Does it.\n\n    Args:\n        wide: ``narrow`` or\n'
        "            wide: as :func:`~torch.nn.Linear` is.\n        deep: layers.\n\n"
        '    Raises:\n        ValueError: too wide.\n    """\n'
        'class Bare:\n    """Says nothing."""\nclass Silent:\n    pass\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert meanings_in_source("explained:Mine") == {
        "wide": "`narrow` or wide: as `torch.nn.Linear` is.",
        "deep": "layers.",
    }
    for target in ("explained:Bare", "explained:Silent", "explained:None", "math:Class"):
        assert meanings_in_source(target) == {}


def test_a_module_without_source_or_of_another_kind_has_no_annotations():
    assert annotations_in_source("math:Class") == {}
    assert annotations_in_source("vdsm_bench.nowhere:Class") == {}
    assert annotations_in_source("no_such_package.model:Class") == {}


def test_annotations_that_do_not_evaluate_are_a_broken_contract():
    class Mine(FrameEncoder):
        def __init__(self, *, width: "Unknown") -> None:  # noqa: F821
            super().__init__()

    with pytest.raises(ContractError, match=r"encoders/mine: .*Unknown.* not defined"):
        annotations_of(Mine, "encoders/mine")


@pytest.mark.parametrize("value", ["30", True, 2.5, None, [1]])
def test_a_value_of_another_type_is_refused(value):
    with pytest.raises(UsageError, match="encoders/wide: argument 'width'"):
        checked_value(int, "width", value, "encoders/wide")


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("argument", ["pose_scale", "pixel_scale", "pose_likeness", "pose_kl"])
def test_a_number_that_is_not_finite_is_refused(argument, value):
    given = 4 * [value] if argument == "pose_kl" else value
    with pytest.raises(UsageError, match=f"models/vdsm: argument '{argument}'"):
        BUILT_IN.check_arguments("models", "vdsm", {argument: given})


@pytest.mark.parametrize(
    ("annotation", "value", "written"),
    [
        (tuple[int, ...], [1, 2], "[1, 2]"),
        (float, 2, "2.0"),
        (float, 2.0, "2.0"),
        (tuple[float, float], [1, 2.5], "[1.0, 2.5]"),
        (int | None, None, "null"),
    ],
)
def test_a_list_is_a_tuple_and_a_whole_number_a_float(annotation, value, written):
    assert json.dumps(checked_value(annotation, "width", value, "encoders/wide")) == written


@pytest.mark.parametrize("name", BUILT_IN.names("suites"))
def test_every_suite_of_the_catalogue_resolves_to_cells_that_differ(name):
    from vdsm_bench.runs.suites import load_suite, plan_suite

    suite = load_suite(BUILT_IN, name)
    cells = plan_suite(BUILT_IN, suite)
    found = [cell.config.model_dump_json() for cell in cells]
    assert len(set(found)) == len(found), "two variants are the same"
    assert all(variant.summary for variant in suite.variants.values())


def test_a_version_stands_in_the_entry_or_in_the_class(tmp_path):
    text = "models:\n  old: {summary: x, version: 3}\n  first: {summary: y}\n"
    table = load_registry(write(tmp_path, text))
    assert (table.get("models", "old").version, table.get("models", "first").version) == (3, 1)

    @table.register("encoders", "mine")
    class Mine(FrameEncoder):
        version = 2

        def forward(self, frames):
            return frames

    assert table.get("encoders", "mine").version == 2


@pytest.mark.parametrize("version", [0, "1.2", True, property(lambda self: 1)])
def test_a_version_is_a_whole_number(version):
    with pytest.raises(ContractError, match="whole number"):
        Entry("models", "toy", "A model.", version=version)
