"""Components of other packages: what they declare is checked, and what fails names them."""

import enum
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from torch import nn

from tests.plugin.toy_zoo.encoder import ToyLinear
from tests.plugin.toy_zoo.model import ToyAutoencoder
from tests.toys import toy_table
from vdsm_bench import registry
from vdsm_bench.cli.show_command import describe
from vdsm_bench.config import resolve
from vdsm_bench.contracts import ClipShape, FrameDecoder, FrameEncoder
from vdsm_bench.errors import ContractError, UsageError
from vdsm_bench.registry import split_part

CLIP = ClipShape(2, 1, 4, 4)


@pytest.fixture
def table():
    return toy_table()


class Mode(str, enum.Enum):
    FAST = "fast"


class Enumerated(ToyLinear):
    def __init__(self, *, clip, mode: Mode = Mode.FAST):
        super().__init__(clip)


class Located(ToyLinear):
    def __init__(self, *, clip, mode=Path("weights")):
        super().__init__(clip)


class Activated(ToyLinear):
    def __init__(self, *, clip, mode={"act": [nn.ReLU]}):  # noqa: B006
        super().__init__(clip)


class Endless(ToyLinear):
    def __init__(self, *, clip, mode: float = float("inf")):
        super().__init__(clip)


@pytest.mark.parametrize("cls", [Enumerated, Located, Activated, Endless])
def test_a_default_that_json_cannot_say_is_refused_by_name(table, cls):
    with pytest.raises(ContractError, match="encoders/mine .*argument 'mode' is .*JSON"):
        table.register("encoders", "mine")(cls)


def test_tuples_lists_and_mappings_are_defaults(table):
    class Mine(ToyLinear):
        def __init__(self, *args, clip, a=(1, 2.5), b=None, c={"x": [True]}, **more):  # noqa: B006
            super().__init__(clip)

    table.register("encoders", "mine")(Mine)
    defaults = {"a": (1, 2.5), "b": None, "c": {"x": [True]}}
    assert table.get("encoders", "mine").defaults == defaults


class Renamed(ToyAutoencoder):
    parts = {"encodr": "encoders"}


class OfNoKind(ToyAutoencoder):
    parts = {"encoder": "encoder"}


class Listed(ToyAutoencoder):
    parts = ["encoder"]


class Partless(ToyAutoencoder):
    """Inherits ``parts`` and has another constructor."""

    def __init__(self, *, clip, code: int = 3):
        super().__init__(clip, code=code)


class Unnamed(ToyAutoencoder):
    def __init__(self, *, clip, encoder=None):
        super().__init__(clip, encoder=encoder)


class Epochs(ToyAutoencoder):
    default_stages = {"fit": 3}


class Staged(ToyAutoencoder):
    default_stages = ["fit"]


@pytest.mark.parametrize(
    ("cls", "match"),
    [
        (Renamed, "names 'encodr', .*did you mean 'encoder'"),
        (OfNoKind, "of the kind 'encoder' .did you mean 'encoders'"),
        (Listed, "'parts' is no mapping"),
        (Partless, "names 'encoder', which its constructor does not take"),
        (Unnamed, "part 'encoder' is None; it has to be a registry name among the encoders"),
        (Epochs, "'default_stages' is no mapping"),
        (Staged, "'default_stages' is no mapping"),
    ],
)
def test_faulty_parts_and_stages_are_refused(table, cls, match):
    with pytest.raises(ContractError, match=f"models/mine .*{match}") as error:
        table.register("models", "mine")(cls)
    assert error.value.hint


def test_a_mapping_is_written_as_it_is_read(table):
    @table.register("encoders", "mine")
    class Mine(ToyLinear):
        def __init__(self, *, clip, options={"a": 1}):  # noqa: B006
            super().__init__(clip)

    given = "vdsm[encoder=mine[options={a: 2, b: [3, 4]}]]"
    config = resolve(table, model=given, dataset="toy-squares", preset="smoke")
    instance = config.instance(table)
    assert config.model.arguments["encoder"]["options"] == {"a": 2, "b": [3, 4]}
    assert resolve(table, model=instance, dataset="toy-squares", preset="smoke") == config


def test_an_argument_without_a_default_must_be_given(table):
    @table.register("models", "mine")
    class Mine(ToyAutoencoder):
        def __init__(self, *, clip, encoder, code):
            super().__init__(clip, encoder=encoder, code=code)

    @table.register("encoders", "wide")
    class Wide(ToyLinear):
        def __init__(self, *, clip, width):
            super().__init__(clip, features=width)

    def refused(model, match):
        with pytest.raises(UsageError, match=match):
            resolve(table, model=model, dataset="toy-squares", preset="smoke")

    refused("mine[encoder=toy-linear]", "models/mine has no default for its argument 'code'")
    refused("mine[code=3]", "models/mine has no default for its argument 'encoder'")
    refused("mine[code=3,encoder=wide]", "encoders/wide has no default for its argument 'width'")
    refused("mine[code=3,encoder=4]", "models/mine: its argument 'encoder' is a name")
    chosen = "mine[code=3,encoder=wide[width=5]]"
    config = resolve(table, model=chosen, dataset="toy-squares", preset="smoke")
    assert config.instance(table) == chosen
    assert describe(table, "models/mine")["must be given"] == ["code", "encoder"]
    model = table.factory("models", "mine", config.model.arguments)(clip=CLIP)
    assert (model.encoder.feature_dim, model.identity.out_features) == (5, 3)


def test_a_default_part_that_lacks_an_argument_is_refused_before_anything_is_built(table):
    @table.register("encoders", "wide")
    class Wide(ToyLinear):
        def __init__(self, *, clip, width):
            super().__init__(clip, features=width)

    @table.register("models", "mine")
    class Mine(ToyAutoencoder):
        def __init__(self, *, clip, encoder="wide"):
            super().__init__(clip, encoder=encoder)

    with pytest.raises(UsageError, match="encoders/wide has no default for its argument 'width'"):
        resolve(table, model="mine", dataset="toy-squares", preset="smoke")


class Abstract(FrameEncoder):
    def __init__(self, *, clip):
        super().__init__()


class Narrow(ToyLinear):
    def __init__(self, frames):
        super().__init__(frames)


class Dimensionless(FrameEncoder):
    def __init__(self, *, clip):
        super().__init__()

    def forward(self, frames):
        return frames


class Stillborn(ToyLinear):
    def __init__(self, *, clip):
        self.feature_dim = 3


class Wrong(ToyLinear):
    def __init__(self, *, clip):
        super().__init__(clip.no_such_size)


class Logitless(FrameDecoder):
    def __init__(self, *, clip, pose_dim, identity_dim):
        super().__init__()


@pytest.mark.parametrize(
    ("kind", "cls", "match"),
    [
        ("encoders", Abstract, "abstract"),
        ("encoders", Narrow, "clip"),
        ("encoders", Dimensionless, "feature_dim is None"),
        ("encoders", Stillborn, "AttributeError"),
        ("encoders", Wrong, r"no_such_size.*line \d+ of .*test_declaration.py"),
        ("decoders", Logitless, "abstract"),
    ],
)
def test_a_component_that_cannot_be_built_is_a_broken_contract(table, kind, cls, match):
    table.register(kind, "mine")(cls)
    given = {} if cls is not Narrow else {"frames": 3}
    with pytest.raises(ContractError, match=f"(?s)^{kind}/mine .*{match}") as error:
        table.factory(kind, "mine", given)(
            clip=CLIP, **({"pose_dim": 2, "identity_dim": 2} if kind == "decoders" else {})
        )
    assert error.value.hint


def test_a_preset_s_sizes_are_for_arguments_that_are_annotated(table):
    @table.register("encoders", "plain")
    class Plain(ToyLinear):
        def __init__(self, *, clip, channels=32):
            super().__init__(clip)

    @table.register("encoders", "alike")
    class Alike(ToyLinear):
        def __init__(self, *, clip, channels: tuple[int, ...] = (32,)):
            super().__init__(clip)

    def chosen(model):
        config = resolve(table, model=model, dataset="toy-squares", preset="smoke")
        return split_part(config.model.arguments["encoder"])[1].get("channels")

    assert chosen("vdsm") is not None
    assert chosen("vdsm[encoder=alike]") == chosen("vdsm")
    assert chosen("vdsm[encoder=plain]") is None


def installed(monkeypatch, *points):
    """Returns the catalogue as it is with entry points of other packages."""

    def find(group):
        return [EntryPoint(name, "toy:X", group) for kind, name in points if group.endswith(kind)]

    monkeypatch.setattr(registry, "entry_points", find)
    return registry.load_registry()


def test_a_name_that_is_none_breaks_only_itself(monkeypatch):
    table = installed(monkeypatch, ("encoders", "my_encoder"))
    assert "lower-kebab" in table.peek("encoders", "my_encoder").summary
    resolve(table, model="vdsm", dataset="moving-shapes", preset="smoke")
    with pytest.raises(UsageError, match="'my_encoder' is no registry name") as error:
        resolve(table, model="vdsm[encoder=my_encoder]", dataset="moving-shapes", preset="smoke")
    assert error.value.hint


def test_a_name_that_is_taken_is_refused_where_it_is_asked_for(monkeypatch):
    """Neither of the two silently stands in for the other."""
    table = installed(monkeypatch, ("encoders", "timm"))
    assert table.peek("encoders", "timm").origin == "registry.yaml"
    resolve(table, model="vdsm", dataset="moving-shapes", preset="smoke")
    with pytest.raises(UsageError, match="encoders/timm is declared twice: in registry.yaml"):
        table.factory("encoders", "timm")
    own = registry.Entry("encoders", "timm", "Mine.")
    assert table.extended([own]).get("encoders", "timm") is own
