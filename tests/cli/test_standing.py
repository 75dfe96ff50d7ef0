"""What ``status`` and ``leaderboard --all`` print of cells in every state, made up and not run."""

import pytest

from tests.runs.cells import make_cell
from vdsm_bench.boards.leaderboard import SCORES
from vdsm_bench.cli.main import run_cli
from vdsm_bench.files import read_json, write_json

DEAD = 2**22 + 1  # more than a Linux machine gives


@pytest.fixture
def printed(tmp_path, capsys):
    def call(*words):
        assert run_cli(["--runs-dir", str(tmp_path), *words]) == 0
        return capsys.readouterr()

    return call


@pytest.fixture
def cells(tmp_path):
    """Two seeds that are done, a collapsed cell, and cells that were left in other states."""
    made = {"done": make_cell(tmp_path), "done too": make_cell(tmp_path, seed=1)}
    made["collapsed"] = make_cell(
        tmp_path, model="toy[decoder=single]", collapsed=True, note="the identity code says nothing"
    )
    made["diverged"] = make_cell(tmp_path, seed=2)
    made["diverged"].write_status("diverged", stage="pretrain", epoch=4, note="the loss is nan")
    made["interrupted"] = make_cell(tmp_path, seed=3)
    made["interrupted"].write_status("interrupted", stage="sequence", epoch=2)
    made["killed"] = make_cell(tmp_path, seed=4)
    made["killed"].write_status("training", stage="pretrain", epoch=1)
    status = made["killed"].path / "status.json"
    write_json(status, {**read_json(status), "pid": DEAD})
    made["damaged"] = make_cell(tmp_path, seed=5)
    made["damaged"].metrics_file.write_text("{")
    return {
        state: (f"faces/{folder.path.parent.name}/{folder.path.name}", folder)
        for state, folder in made.items()
    }


def test_status_has_a_line_per_cell_with_its_state_and_how_far_or_why(cells, printed):
    lines = printed("status").out.splitlines()
    assert len(lines) == len(cells)
    label = {state: name for state, (name, _) in cells.items()}
    for wanted in (
        f"done         {label['done']}",
        f"done         {label['done too']}",
        f"done         {label['collapsed']}",
        f"diverged     {label['diverged']}  pretrain epoch 4  the loss is nan",
        f"interrupted  {label['interrupted']}  sequence epoch 2",
        f"killed       {label['killed']}  pretrain epoch 1",
    ):
        assert wanted in lines
    (damaged,) = [line for line in lines if label["damaged"] in line.split()]
    file = cells["damaged"][1].metrics_file
    assert damaged.startswith(f"damaged      {label['damaged']}  {file} is damaged: ")


def test_the_wide_leaderboard_has_intervals_and_names_every_cell_that_is_not_done(cells, printed):
    lines = [" ".join(line.split()) for line in printed("leaderboard", "--all").out.splitlines()]
    head = next(line for line in lines if line.startswith("model run consist"))
    assert head.endswith("leak.a leak.i MSE PSNR SSIM slot supervision minutes")
    toy = "toy small ×2 0.800±0.000 [0.700, 0.900] 0.910±0.014 [0.800, 1.000]"
    single = "toy[decoder=single] small ×1 0.800 [0.700, 0.900] 0.900 [0.800, 1.000]"
    absent = "– " * 7  # the scores that the rows do not have
    assert f"{toy} {absent}native none 1.5" in lines
    assert f"{single} {absent}native none 1.5 collapsed" in lines
    assert (
        "faces/toy[decoder=single]/small seed 0: the identity code says nothing; "
        "transfer_accuracy: the model cannot generate" in lines
    )
    missing = lines[lines.index("not done:") + 1 :]
    assert missing[:3] == [
        "diverged faces/toy/small seed 2: the loss is nan",
        "interrupted faces/toy/small seed 3",
        "killed faces/toy/small seed 4",
    ]
    assert missing[3].startswith("damaged faces/toy/small seed 5: ")
    assert "[0.700, 0.900]" not in printed("leaderboard").out


def test_the_leaderboard_says_what_models_were_told_beside_pixels(tmp_path, printed):
    make_cell(tmp_path, supervision="identity-pairs")
    assert "supervision: identity-pairs" in printed("leaderboard").out.splitlines()
    make_cell(tmp_path, model="toy[decoder=single]")
    told = "toy small ×1"
    said = f"supervision: identity-pairs ({told}); none (toy[decoder=single] small ×1)"
    assert said in printed("leaderboard").out.splitlines()


def test_no_name_and_no_interval_is_cut_from_a_table_wider_than_the_lines_about_it(
    tmp_path, printed
):
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    scores = dict.fromkeys(SCORES, score)
    name = "toy[decoder=single,motion_dim=9,pose_dim=9]"
    for seed in (0, 1):
        make_cell(tmp_path, model=name, seed=seed, scores=scores)
    lines = printed("leaderboard", "--all").out.splitlines()
    (line,) = [line for line in lines if line.startswith(f" {name} ")]
    assert len(line) > 240
    assert line.split()[-3:] == ["native", "none", "1.5"]
