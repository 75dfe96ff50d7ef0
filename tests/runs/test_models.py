"""What a model has to say of itself, and what becomes of one that does not."""

import dataclasses

import pytest
import torch
from torch import nn

from tests.plugin.toy_zoo.model import ToyAutoencoder
from tests.toys import toy_table
from vdsm_bench.contracts import ClipShape, Codes, Losses, Stage, check_codes, check_losses
from vdsm_bench.errors import ContractError
from vdsm_bench.runs.models import check_model

SETTINGS = ToyAutoencoder.default_stages


def player(model, **changes):
    (made,) = ToyAutoencoder.stages(model)[0].players
    return dataclasses.replace(made, **changes)


def fit(*players):
    return Stage("fit", players)


FAULTY_STAGES = {
    "no list of stages": lambda model: [],
    "gives no list": lambda model: iter([fit(player(model))]),
    "two of its stages have one name": lambda model: 2 * [fit(player(model))],
    "has no players": lambda model: [fit()],
    "two players of stage 'fit' have one name": lambda model: [fit(player(model), player(model))],
    "'autoencoder' of stage 'fit' are a generator": lambda model: [
        fit(player(model, parameters=model.parameters()))
    ],
    "are none": lambda model: [fit(player(model, parameters=[]))],
    "not all of the model's own": lambda model: [
        fit(player(model, parameters=[nn.Parameter(torch.zeros(1))]))
    ],
    "no training settings for its stage 'more'": lambda model: [
        fit(player(model)), Stage("more", (player(model),))
    ],
    "settings for a stage 'fit'; its stages: more": lambda model: [
        Stage("more", (player(model),))
    ],
}  # fmt: skip


@pytest.fixture
def model():
    table = toy_table()
    return table.factory("models", "toy")(clip=ClipShape(2, 1, 4, 4))


def refused(model, settings, match):
    with pytest.raises(ContractError, match=f"models/mine: .*{match}") as error:
        check_model(model, settings, "models/mine")
    assert error.value.hint


def test_a_sound_model_passes(model):
    check_model(model, SETTINGS, "models/mine")


@pytest.mark.parametrize("fault", FAULTY_STAGES)
def test_faulty_stages_and_players_are_refused(model, fault):
    model.stages = lambda: FAULTY_STAGES[fault](model)
    settings = {"fit": {}, "more": {}} if "for a stage" in fault else SETTINGS
    refused(model, settings, fault)


def test_settings_of_a_stage_that_is_none_are_refused(model):
    """With ``pairs`` among them the row would claim a supervision that nothing had."""
    refused(model, {**SETTINGS, "other": {"pairs": True}}, "stage 'other'; its stages: fit")


@pytest.mark.parametrize("able", [["encode", "generate"], {"encode", "genrate"}, "encode", None])
def test_unknown_capabilities_are_refused(model, able):
    model.capabilities = able
    refused(model, SETTINGS, "its capabilities are")


@pytest.mark.parametrize("told", [None, "", ["action-labels"]])
def test_a_supervision_that_is_no_text_is_refused(model, told):
    model.supervision = told
    refused(model, SETTINGS, "its supervision is")


def test_a_cell_of_a_faulty_model_is_a_broken_contract_before_it_has_a_folder(
    bench, monkeypatch, tmp_path
):
    monkeypatch.setattr(ToyAutoencoder, "supervision", None)
    (outcome,), _ = bench("toy", runs_dir=tmp_path)
    assert (outcome.exit_code, outcome.folder) == (5, None)
    assert "models/toy: its supervision is None" in outcome.error
    assert "next:" in outcome.error


@pytest.mark.parametrize(
    ("method", "made", "match"),
    [
        ("encode", (1, 2), "encode: expected Codes, got tuple"),
        ("_loss", torch.zeros(2), "player 'autoencoder' of 'fit': expected Losses, got Tensor"),
    ],
)
def test_a_cell_whose_codes_or_losses_are_none_is_a_broken_contract(
    bench, monkeypatch, tmp_path, method, made, match
):
    if method == "encode":  # else its own loss meets them first
        loss = Losses(torch.zeros((), requires_grad=True))
        monkeypatch.setattr(ToyAutoencoder, "_loss", lambda *arguments: loss)
    monkeypatch.setattr(ToyAutoencoder, method, lambda *arguments: made)
    (outcome,), _ = bench("toy", runs_dir=tmp_path)
    assert outcome.exit_code == 5
    assert match in outcome.error


CODE = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("codes", "match"),
    [
        ((CODE, CODE), "expected Codes, got tuple"),
        (None, "expected Codes, got NoneType"),
        (Codes(CODE, None), "motion code must be a tensor, got NoneType"),
        (Codes(CODE.numpy(), CODE), "identity code must be a tensor, got ndarray"),
        (Codes(CODE[:, None], CODE), r"identity code .* \[B, K\], got \[3, 1, 2\] for 3 clips"),
        (Codes(CODE[:1], CODE), r"got \[1, 2\] for 3 clips"),
        (Codes(CODE, CODE, CODE), r"pose code .* \[B, T, K\], got \[3, 2\]"),
        (Codes(CODE, CODE / 0), "must be finite"),
    ],
)
def test_codes_are_checked_where_they_are_handed_over(codes, match):
    with pytest.raises(ContractError, match=f"M.encode: .*{match}"):
        check_codes(codes, 3, "M.encode")


@pytest.mark.parametrize(
    ("losses", "match"),
    [
        (CODE.mean(), "expected Losses, got Tensor"),
        (Losses(CODE.mean(1)), r"'total' must be a scalar, got \[3\]"),
        (Losses(CODE.mean(), {"error": 0.5}), "'error' must be a scalar, got float"),
    ],
)
def test_a_loss_is_checked_where_it_is_handed_over(losses, match):
    with pytest.raises(ContractError, match=f"M, player 'p': {match}"):
        check_losses(losses, "M, player 'p'")
