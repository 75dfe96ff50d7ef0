"""Ranks on the board: ties are ties, and only what answered the same pairs is compared."""

import io

import numpy as np
import pytest
from rich.console import Console

from tests.runs.cells import PROTOCOL, make_cell
from vdsm_bench.boards.leaderboard import COLUMNS, leaderboard, to_csv
from vdsm_bench.boards.table import render

PAIRS = 200


def cell(
    runs, model, share, *, seed=0, flip=False, pairs=PAIRS, people=20, protocol=None, weights=None
):
    """A finished cell that is right on this share of the pairs: the first, or the last ones."""
    folder = make_cell(
        runs,
        model=model,
        seed=seed,
        protocol=protocol or PROTOCOL,
        group=model,
        judge={"lowest_accuracy": 0.97, "weights": weights},
        scores={"transfer_accuracy": {"value": share, "low": 0.0, "high": 1.0, "n": pairs}},
    )
    right = np.arange(pairs) < round(share * pairs)
    lines = ["pair_id,identity_of_a,identity_of_b,transfer_accuracy"]
    order = np.random.default_rng(1 + flip).permutation(pairs)
    lines += [f"{i},{i % people},{(i + 1) % people},{int(right[order[i]])}" for i in range(pairs)]
    (folder.path / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder


def ranks(runs):
    return {row["model"]: row["rank"] for row in leaderboard(runs)}


WIDE, DEEP, SINGLE = "toy[pose_dim=9]", "toy[motion_dim=9]", "toy[decoder=single]"


def test_clear_winners_are_first_and_what_cannot_be_told_apart_is_tied(tmp_path):
    cell(tmp_path, "toy", 0.90)
    cell(tmp_path, WIDE, 0.50)
    cell(tmp_path, DEEP, 0.52, flip=True)
    cell(tmp_path, SINGLE, 0.05)
    assert ranks(tmp_path) == {"toy": "1", WIDE: "2=", DEEP: "2=", SINGLE: "4"}


def test_a_small_difference_on_the_very_same_pairs_counts(tmp_path):
    # eleven pairs more, and none lost: unpaired, .50 against .555 could not be told apart
    cell(tmp_path, "toy", 0.50)
    cell(tmp_path, WIDE, 0.555)
    assert ranks(tmp_path) == {"toy": "2", WIDE: "1"}


def test_seeds_that_differ_more_than_the_models_do_tie_them(tmp_path):
    for seed, share in enumerate((0.30, 0.60, 0.90)):
        cell(tmp_path, "toy", share, seed=seed)
    cell(tmp_path, WIDE, 0.50)
    assert ranks(tmp_path) == {"toy": "1=", WIDE: "1="}


def test_what_two_seeds_leave_open_is_tied(tmp_path):
    # twice two seeds say little: Welch's p of their means alone is .09
    for seed, low in enumerate((0.41, 0.45)):
        cell(tmp_path, "toy", low + 0.09, seed=seed)
        cell(tmp_path, WIDE, low, seed=seed)
    assert ranks(tmp_path) == {"toy": "1=", WIDE: "1="}


@pytest.mark.parametrize(("people", "given"), [(4, ("1", "2")), (3, (None, None))])
def test_pairs_of_fewer_than_four_identities_give_no_rank(people, given, tmp_path):
    cell(tmp_path, "toy", 1.0, people=people)
    cell(tmp_path, WIDE, 0.0, people=people)
    assert ranks(tmp_path) == dict(zip(("toy", WIDE), given, strict=True))


@pytest.mark.parametrize(
    "other",
    [{"pairs": 100}, {"weights": "trained0apart"}, {"protocol": {**PROTOCOL, "judge": "another0"}},
     {"protocol": {**PROTOCOL, "metrics": {"transfer_accuracy": 2}}}],
)  # fmt: skip
def test_other_pairs_judges_and_versions_are_not_compared(other, tmp_path):
    cell(tmp_path, "toy", 0.9)
    cell(tmp_path, WIDE, 0.1, **other)
    assert ranks(tmp_path) == {"toy": None, WIDE: None}


@pytest.mark.parametrize("row", ["0,0,1,1", "0,0,1,nan", "0,0,1,1\n1,1,0,nan"])
def test_pairs_that_nothing_can_be_told_from_give_no_rank_and_harm_no_other(row, tmp_path):
    cell(tmp_path, "toy", 0.9)
    cell(tmp_path, WIDE, 0.1)
    header = "pair_id,identity_of_a,identity_of_b,transfer_accuracy\n"
    for model in (DEEP, SINGLE):
        (cell(tmp_path, model, 0.5).path / "pairs.csv").write_text(f"{header}{row}\n")
    assert ranks(tmp_path) == {"toy": "1", WIDE: "2", DEEP: None, SINGLE: None}


@pytest.mark.parametrize("damage", ["", "pair_id\n", "{", "pair_id,identity_of_a,identity_of_b\n"])
def test_a_row_without_its_pairs_keeps_its_scores_and_has_no_rank(damage, tmp_path):
    cell(tmp_path, "toy", 0.9)
    cell(tmp_path, WIDE, 0.1)
    (cell(tmp_path, DEEP, 0.5).path / "pairs.csv").write_text(damage)
    assert ranks(tmp_path) == {"toy": "1", WIDE: "2", DEEP: None}
    (row,) = [row for row in leaderboard(tmp_path) if row["model"] == DEEP]
    assert (row["status"], row["transfer_accuracy"]) == ("done", 0.5)


def printed(runs):
    console = Console(width=300, file=io.StringIO())
    console.print(render(leaderboard(runs)))
    return console.file.getvalue()


def test_the_table_shows_ties_as_ties_and_the_csv_stays_as_it_is(tmp_path):
    cell(tmp_path, "toy", 0.50)
    cell(tmp_path, WIDE, 0.52, flip=True)
    text = printed(tmp_path)
    assert text.count(" 1=") == 2
    assert "Holm" in text
    assert "letter" not in text
    assert to_csv(leaderboard(tmp_path)).splitlines()[0] == ",".join(COLUMNS)


def test_ranks_of_two_contests_in_one_table_have_letters(tmp_path):
    cell(tmp_path, "toy", 0.9)
    cell(tmp_path, WIDE, 0.3)
    cell(tmp_path, SINGLE, 0.8, pairs=100)
    cell(tmp_path, DEEP, 0.2, pairs=100)
    assert ranks(tmp_path) == {"toy": "1", SINGLE: "1", WIDE: "2", DEEP: "2"}
    models = ("toy", WIDE, SINGLE, DEEP)
    begins = [line.split()[:2] for line in printed(tmp_path).splitlines()]
    told = [begin for begin in begins if begin[1:] and begin[1] in models]
    assert told == [["a1", "toy"], ["b1", SINGLE], ["a2", WIDE], ["b2", DEEP]]
    assert "ranks of two letters have not been compared" in printed(tmp_path)


def test_versions_of_any_score_are_versions_of_the_protocol(tmp_path):
    for model, share, version in (
        ("toy", 0.9, 1),
        (WIDE, 0.3, 1),
        (SINGLE, 0.8, 2),
        (DEEP, 0.2, 2),
    ):
        protocol = {**PROTOCOL, "metrics": {"transfer_accuracy": 2, "mse": version}}
        cell(tmp_path, model, share, protocol=protocol)
    assert ranks(tmp_path) == {"toy": "1", WIDE: "2", SINGLE: "1", DEEP: "2"}


def test_a_single_model_has_no_rank(tmp_path):
    cell(tmp_path, "toy", 0.9)
    assert ranks(tmp_path) == {"toy": None}
    assert "rank" not in printed(tmp_path)
