import pytest

from vdsm_bench.baselines.reported import leaderboard_rows, reported_rows
from vdsm_bench.errors import DataError
from vdsm_bench.registry import import_target, load_registry

HEADER = "model,dataset,metric,value,unit,direction,protocol,source\n"


def test_the_quoted_numbers_are_the_printed_ones():
    values = {(r["model"], r["dataset"], r["metric"]): r["value"] for r in reported_rows()}
    assert values["vdsm", "mug", "FID"] == 17.64
    assert values["s3vae", "mug", "action_accuracy_fixed_motion_sampled_identity"] == 70.51
    assert values["vdsm", "mug", "accuracy_consistency (15 % held out)"] == 93.33
    assert values["g3an", "mug", "FID"] == 67.12


def test_every_row_has_its_protocol_and_source_and_is_no_duplicate():
    rows = reported_rows()
    assert all(row["protocol"] and row["source"] and row["slot"] == "reported" for row in rows)
    keys = [(row["model"], row["dataset"], row["metric"]) for row in rows]
    assert len(set(keys)) == len(keys)


def test_an_unknown_number_is_empty_with_the_reason():
    (row,) = [row for row in reported_rows() if row["model"] == "monkey-net"]
    assert row["value"] is None
    assert "no published number" in row["reason"]
    (shown,) = leaderboard_rows("monkey-net")
    assert "no published number" in shown["note"]
    assert "consistent_accuracy" not in shown


def test_only_the_same_question_reaches_a_column():
    rows = leaderboard_rows()
    filled = {
        (r["model"], r["dataset"]): r["consistent_accuracy"]
        for r in rows
        if "consistent_accuracy" in r
    }
    assert filled == {("vdsm", "sprites"): 0.9953, ("vdsm", "mug"): 0.9333}
    assert not any("dynamic_accuracy" in row or "identity_accuracy" in row for row in rows)
    (s3vae,) = leaderboard_rows("s3vae")
    assert "70.51 %" in s3vae["note"]


def test_the_catalogue_lists_every_quoted_model_and_no_other():
    table = load_registry()
    quoted = [
        n
        for n in table.names("baselines")
        if table.get("baselines", n).settings["slot"] == "reported"
    ]
    assert sorted({row["model"] for row in reported_rows()}) == sorted(quoted)
    for name in quoted:
        read = import_target(table.get("baselines", name).settings["rows"], name)
        assert {row["model"] for row in read(name)} == {name}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model,dataset\nx,y\n", "columns"),
        (HEADER + "x,mug,FID,many,score,lower,p,s\n", "line 2: 'many' is no number"),
        (HEADER + "x,mug,FID,1,score,lower,,s\n", "protocol and source"),
        (HEADER + "x,mug,FID,1,score,lower,p\n", "columns"),
        (HEADER + "x,mug,FID,1,score,lower,p,s,more\n", "columns"),
    ],
)
def test_a_damaged_list_is_a_data_error(tmp_path, content, message):
    path = tmp_path / "reported.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        reported_rows(path)


def test_a_missing_list_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv"):
        reported_rows(tmp_path / "none.csv")
