from PIL import Image

from vdsm_bench.boards.curves import epoch_figures, write_curves
from vdsm_bench.training.journal import Journal


def test_looks_with_epochs_between_them_stand_at_their_epochs(tmp_path):
    journal = Journal(tmp_path / "train.jsonl", ["first", "second"])
    for stage, epochs in (("first", (1, 3, 4)), ("second", (0, 1))):
        for epoch in epochs:
            journal.write(stage, epoch, 10 * epoch, {"loss": 1.0})
            journal.write(stage, epoch, 10 * epoch, {"epoch_figures": {"drift": epoch / 10}})
    drifts = {epoch: figures["drift"] for epoch, figures in epoch_figures(tmp_path).items()}
    assert drifts == {1: 0.1, 3: 0.3, 4: 0.4, 5: 0.0, 6: 0.1}
    assert [look.epoch for look in journal.looks("second")] == [0, 1]


def test_a_cell_that_has_no_log_has_no_looks(tmp_path):
    assert epoch_figures(tmp_path) == {}


def test_what_no_cell_has_gets_no_panel_and_accuracies_reach_up_to_one(tmp_path):
    def drawn(name, figure, values):
        journal = Journal(tmp_path / name / "train.jsonl", ["first"])
        for epoch, value in enumerate(values):
            journal.write("first", epoch, epoch, {"epoch_figures": {figure: value}})
        write_curves(tmp_path / f"{name}.png", {name: tmp_path / name})
        with Image.open(tmp_path / f"{name}.png") as sheet:
            line = [
                row
                for row in range(sheet.height - 60)
                if any(sheet.getpixel((x, row)) == (31, 119, 180) for x in range(150, 790))
            ]
            return sheet.height, line[0]

    one, full = drawn("gap", "swap_gap", [0.2, 0.2])
    same, low = drawn("chance", "dynamic_accuracy", [0.2, 0.2])
    assert same == one < 300  # one panel of 120
    assert low > full + 60  # at a fifth of its panel, not at its top


def test_figures_that_are_no_numbers_are_left_out_and_a_damaged_look_ends_the_log(tmp_path):
    journal = Journal(tmp_path / "train.jsonl", ["fit"])
    for epoch, drift in ((0, 0.5), (1, None), (2, "x")):
        journal.write("fit", epoch, 10 * epoch, {"epoch_figures": {"drift": drift}})
    whole = epoch_figures(tmp_path)
    assert list(whole) == [0, 1, 2]
    write_curves(tmp_path / "with.png", {"cell": tmp_path})
    with Image.open(tmp_path / "with.png") as picture:
        assert picture.height > 120  # drift has its panel
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"stage": "fit", "epoch": "x", "step": 30, "epoch_figures": {"drift": 1}}\n')
        file.write('{"stage": "fit", "epoch": 4, "step": 40, "epoch_figures": {"drift": 1}}\n')
    assert epoch_figures(tmp_path) == whole
