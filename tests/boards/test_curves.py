from vdsm_bench.boards.curves import epoch_figures
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
