"""Clips from a file: the same numbers as the model that made them, and every refusal."""

import dataclasses
import json
import runpy

import numpy as np
import pytest

from vdsm_bench.boards.leaderboard import leaderboard
from vdsm_bench.config import resolve
from vdsm_bench.errors import ContractError, DataError, ProtocolError, UsageError
from vdsm_bench.evaluators.outputs import SubjectOutputs, batches
from vdsm_bench.files import read_json, write_json
from vdsm_bench.runs import external
from vdsm_bench.runs.execute import RunContext
from vdsm_bench.runs.external import score_file, template_of
from vdsm_bench.runs.folder import read_cell, scan_cells
from vdsm_bench.runs.pick import pick_cell
from vdsm_bench.runs.protocol import ScoringProtocol
from vdsm_bench.runs.restore import restore_cell

JUDGED = {
    "consistent_accuracy", "dynamic_accuracy", "identity_accuracy", "transfer_accuracy",
    "action_leak", "identity_leak", "mse", "psnr", "ssim",
}  # fmt: skip
TOLD = {"name": "elsewhere", "supervision": "none"}


@pytest.fixture
def context(table, data_dir, shared_runs, listener):
    return RunContext(
        table=table,
        runs_dir=shared_runs,
        data_dir=data_dir,
        device="cpu",
        fresh=False,
        wait=True,
        reporter=listener,
    )


@pytest.fixture
def config(table):
    def call(layer=None, seed=0):
        return resolve(
            table, model="toy", dataset="toy-squares", preset="smoke", seed=seed,
            layers=[layer or {}],
        )  # fmt: skip

    return call


@pytest.fixture
def asked(context, config, tmp_path):
    paths = template_of(config(), context, tmp_path / "request")
    with np.load(paths[0], allow_pickle=False) as file:
        return dict(file)


@pytest.fixture
def answers(asked):
    return copies(asked)


def copies(asked):
    """What a perfect copier of A would hand in."""
    clips = asked["clips"].astype(np.float32) / 255
    return {
        "schema": 1,
        "protocol": asked["protocol"],
        "pair_id": asked["pair_id"],
        "transfers": clips[asked["pairs"][:, 0]],
        "clip_id": asked["clip_id"],
        "reconstructions": clips,
        **TOLD,
    }


@pytest.fixture
def score(context, config, tmp_path):
    def call(arrays, options=None, fresh=False, layer=None, seed=0):
        path = tmp_path / "predictions.npz"
        if arrays is not None:
            np.savez(path, **arrays)
        here = dataclasses.replace(context, fresh=fresh)
        return score_file(path, config(layer, seed), here, options or {})

    return call


def numbers(metrics):
    return {key: metrics[key] for key in ("scores", "long", "chance", "histogram")}


def whole(read, n, size):
    """Reads n rows as scoring does."""
    return np.concatenate([read(rows).numpy() for rows in batches(n, size)])


def test_a_native_model_written_to_a_file_gets_the_very_same_numbers(
    bench, answers, score, config, table, data_dir, shared_runs
):
    (native,), listener = bench(runs_dir=shared_runs)
    record = pick_cell(table, shared_runs, cell=native.folder)
    model, restored = restore_cell(table, record, data_dir=data_dir, reporter=listener)
    request = ScoringProtocol(table, restored, config(), "cpu").request
    outputs = SubjectOutputs(model, request)
    file = score(
        answers
        | {
            "transfers": whole(outputs.transfers, len(request.pairs), request.batch_size),
            "reconstructions": whole(
                outputs.reconstructions, len(request.test), request.batch_size
            ),
            "name": "toy-from-file",
        }
    )
    mine, theirs = file.metrics, native.metrics
    empty = set()
    for column, value in theirs["scores"].items():
        if mine["scores"][column].get("reason", "").startswith("the file holds no"):
            empty.add(column)
        else:
            assert mine["scores"][column] == value, column
    # what needs codes or a prior, and nothing else
    assert all("_code_" in column or column.startswith("sampled_") for column in empty)
    assert not JUDGED & empty
    there = [row for row in theirs["long"] if row["metric"] in {r["metric"] for r in mine["long"]}]
    assert mine["long"] == there
    for name in ("real", "regenerated", "transferred"):
        assert mine["histogram"][name] == theirs["histogram"][name]
    assert (mine["judge"], mine["protocol"]) == (theirs["judge"], theirs["protocol"])
    rows = {row["key"]: row for row in leaderboard(shared_runs)}
    row, other = rows[mine["group"]], rows[theirs["group"]]
    assert (row["slot"], other["slot"]) == ("external", "native")
    same = ("dataset", "preset", "image_size", "frames", "split", "judge_accuracy", "protocol")
    assert [row[key] for key in same] == [other[key] for key in same]
    assert row["training_minutes"] is None


def test_ids_decide_and_not_the_order_of_rows(answers, score):
    first = score(answers)
    rng = np.random.default_rng(0)
    for ids, part in (("pair_id", "transfers"), ("clip_id", "reconstructions")):
        order = rng.permutation(len(answers[ids]))
        answers = answers | {ids: answers[ids][order], part: answers[part][order]}
    again = score(answers)
    assert again.reused
    fresh = score(answers, fresh=True)
    assert not fresh.reused
    assert numbers(fresh.metrics) == numbers(first.metrics)


def test_the_copier_of_a_keeps_the_identity_and_leaks_the_action(answers, score):
    outcome = score(answers)
    scores = outcome.metrics["scores"]
    assert scores["consistent_accuracy"]["value"] == 1.0
    assert scores["mse"]["value"] == 0.0
    control = next(
        row
        for path in outcome.folder.parents[3].glob("judges/*/*/controls-*.json")
        for row in read_json(path)["rows"]
        if row["name"] == "copy-identity-clip"
        and read_json(path)["judge"] == outcome.metrics["judge"]
    )
    for column in ("identity_accuracy", "dynamic_accuracy", "action_leak", "transfer_accuracy"):
        assert scores[column] == control["scores"][column]
    assert outcome.pictures[0].name == "pairs.png"


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8"])
def test_other_dtypes_of_the_same_clips_score_alike(dtype, answers, score):
    wanted = score(answers).metrics["scores"]
    for part in ("transfers", "reconstructions"):
        scaled = answers[part] * (255 if dtype == "uint8" else 1)
        answers[part] = np.rint(scaled).astype(dtype) if dtype == "uint8" else scaled.astype(dtype)
    found = score(answers, {"name": dtype}).metrics["scores"]
    assert found["identity_accuracy"] == wanted["identity_accuracy"]
    assert found["mse"]["value"] == pytest.approx(0.0, abs=1e-6)


def test_part_of_the_clips_leaves_the_rest_empty_with_the_reason(answers, score):
    del answers["clip_id"], answers["reconstructions"]
    scores = score(answers, {"name": "half"}).metrics["scores"]
    assert scores["consistent_accuracy"] == {"reason": "the file holds no reconstructions"}
    assert "value" in scores["identity_accuracy"]


def test_the_example_of_the_template_runs(context, config, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    runpy.run_path(str(template_of(config(), context, tmp_path)[1]))
    outcome = score_file(elsewhere / "predictions.npz", config(), context, {})
    assert outcome.metrics["model"] == "my-model"
    assert outcome.metrics["scores"]["mse"]["value"] == 0.0
    (tmp_path / "example.py").write_text("# mine\n")
    template_of(config(), context, tmp_path)
    assert (tmp_path / "example.py").read_text() == "# mine\n"


def test_the_request_names_training_clips_and_none_of_the_test_clips(asked):
    test = set(map(int, asked["clip_id"]))
    assert not test & set(asked["train"].tolist())
    assert not test & set(asked["validation"].tolist())
    assert asked["clips"].shape == (len(test), 4, 3, 32, 32)
    names = asked["clip_id"][asked["pairs"]]
    assert [f"{a}-{b}" for a, b in names] == asked["pair_id"].tolist()


def with_value(part, value, row=5):
    def change(answers):
        clips = answers[part].copy()
        clips[row, 1, 0, 3, 3] = value
        return answers | {part: clips}

    return change


@pytest.mark.parametrize(
    ("change", "error", "message", "hint"),
    [
        (with_value("transfers", np.nan), ContractError, "NaN or infinity, first in {pair}", ""),
        (with_value("transfers", np.inf), ContractError, "NaN or infinity, first in {pair}", ""),
        (with_value("transfers", 1.01), ContractError, r"\[0, 1\], got .*first in {pair}", "255"),
        (with_value("transfers", -0.5), ContractError, r"\[0, 1\]", "[-1, 1]"),
        (lambda a: a | {"transfers": a["transfers"] * 255}, ContractError, r"\[0, 1\]", "/ 255"),
        (
            lambda a: a | {"transfers": np.ceil(a["transfers"]).astype(np.uint8)},
            ContractError, "lost their fractions", "255",
        ),
        (
            lambda a: a | {"transfers": (a["transfers"] * 255).astype(np.int64)},
            ContractError, "int64", "uint8",
        ),
        (
            lambda a: a | {"transfers": np.moveaxis(a["transfers"], 2, -1)},
            ContractError, "height, width", "numpy.moveaxis(transfers, -1, 2)",
        ),
        (
            lambda a: a | {"transfers": a["transfers"][:, :3]},
            ContractError, "got .*24, 3", "--template",
        ),
        (
            lambda a: a | {"transfers": a["transfers"][:-1]},
            ContractError, "must be .24, 4", "--template",
        ),
        (
            lambda a: a | {"transfers": a["transfers"][:-2], "pair_id": a["pair_id"][:-2]},
            ContractError, "2 of 24 in 'pair_id' missing: .*-", "every pair_id",
        ),
        (
            lambda a: a | {"pair_id": np.r_[a["pair_id"][:-1], a["pair_id"][:1]]},
            ContractError, "1 of 24 in 'pair_id' more than once", "every pair_id",
        ),
        (
            lambda a: a | {"pair_id": np.r_[a["pair_id"][:-1], ["000000-999999"]]},
            ContractError, "not asked for: 000000-999999", "every pair_id",
        ),
        (
            lambda a: a | {"pair_id": np.arange(24)},
            ContractError, "'pair_id' must be text", "--template",
        ),
        (
            lambda a: {k: v for k, v in a.items() if k != "pair_id"},
            ContractError, "'pair_id' is missing", "--template",
        ),
        (
            lambda a: {k: v for k, v in a.items() if k in ("schema", "protocol")},
            ContractError, "no clips", "--template",
        ),
        (lambda a: a | {"transfer": 3}, ContractError, "did you mean 'transfers'", "--template"),
        (lambda a: a | {"name": np.array(["a", "b"])}, ContractError, "one text", ""),
        (lambda a: a | {"schema": 2}, ProtocolError, "schema is 2", "--template"),
        (
            lambda a: {k: v for k, v in a.items() if k != "protocol"},
            ContractError, "'protocol' is missing", "--template",
        ),
        (lambda a: a | {"protocol": "{"}, ContractError, "not the text", "--template"),
        (lambda a: a | {"protocol": "[]"}, ContractError, "not the text", "--template"),
        (
            lambda a: a | {"transfers": np.array(list(a["transfers"]) + [None], dtype=object)[:-1]},
            DataError, "'transfers' is an object array", "asarray",
        ),
        (
            lambda a: a | {"name": " "},
            UsageError, "says no 'name'", "--name",
        ),
        (
            lambda a: {k: v for k, v in a.items() if k != "supervision"},
            UsageError, "says no 'supervision'", "--supervision none",
        ),
    ],
)  # fmt: skip
def test_what_breaks_the_schema_is_refused_with_the_next_step(
    change, error, message, hint, answers, score, shared_runs
):
    before = len(scan_cells(shared_runs))
    with pytest.raises(error, match=message.format(pair=answers["pair_id"][5])) as refusal:
        score(change(answers))
    assert hint in (refusal.value.hint or "")
    assert len(scan_cells(shared_runs)) == before


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("dataset", "sprites", "--dataset sprites"),
        ("pairs_version", 0, "--template"),
        ("content", "other", "--template"),
        ("frames", 9, "--set data.frames=9"),
    ],
)
def test_another_request_is_refused_by_name(key, value, hint, answers, score):
    facts = json.loads(str(answers["protocol"])) | {key: value}
    with pytest.raises(ProtocolError, match=f"{key} {value!r}, here") as refusal:
        score(answers | {"protocol": json.dumps(facts)})
    assert hint in refusal.value.hint


def test_a_request_of_other_settings_is_refused(answers, score):
    with pytest.raises(ProtocolError, match="pairs 24, here 20") as refusal:
        score(answers, layer={"evaluation": {"pairs": 20}})
    assert "--set evaluation.pairs=24" in refusal.value.hint


def test_validation_clips_are_scored_under_their_own_request_alone(
    answers, score, context, config, tmp_path
):
    layer = {"evaluation": {"part": "validation"}}
    with np.load(template_of(config(layer), context, tmp_path / "validation")[0]) as file:
        given = copies(dict(file))
    with pytest.raises(ProtocolError, match="part 'validation', here 'test'") as refusal:
        score(given)
    assert "(--set evaluation.part=validation)" in refusal.value.hint
    with pytest.raises(ProtocolError, match="part 'test', here 'validation'") as refusal:
        score(answers, layer=layer)
    assert "(--set evaluation.part=test)" in refusal.value.hint
    assert score(given, layer=layer).metrics["protocol"]["part"] == "validation"
    facts = json.loads(str(given["protocol"]))
    assert facts.pop("part") == "validation"
    assert score(given | {"protocol": json.dumps(facts)}, layer=layer).reused  # an older request
    assert "part" not in json.loads(str(answers["protocol"]))  # as older files have it


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_half_a_file_is_refused(share, answers, score, tmp_path):
    path = tmp_path / "predictions.npz"
    np.savez(path, **answers)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match="does not read") as refusal:
        score(None)
    assert "--template" in refusal.value.hint


def test_a_flipped_byte_is_found(answers, score, tmp_path):
    path = tmp_path / "predictions.npz"
    np.savez(path, **answers)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="does not read"):
        score(None)


def test_a_refused_file_leaves_no_judge(answers, config, context, tmp_path):
    np.savez(tmp_path / "p.npz", **answers, transfer=3)
    elsewhere = dataclasses.replace(context, runs_dir=tmp_path / "runs")
    with pytest.raises(ContractError):
        score_file(tmp_path / "p.npz", config(), elsewhere, {})
    assert not (tmp_path / "runs").exists()


def test_a_judge_that_fails_its_gate_scores_no_file(answers, score):
    with pytest.raises(ProtocolError, match="test gate"):
        score(answers, layer={"judge": {"floor": 1.0, "epochs": 1}})


def test_a_missing_file_is_refused(score):
    with pytest.raises(DataError, match=r"predictions\.npz"):
        score(None)


def test_a_pickle_inside_is_never_run(answers, score, tmp_path):
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self):
            return (open, (str(trap), "w"))

    array = np.empty(1, dtype=object)
    array[0] = Trap()
    with pytest.raises(DataError, match="'transfers' is an object array"):
        score(answers | {"transfers": array})
    assert not trap.exists()


def test_options_win_over_the_file_and_the_citation_stands_in_the_row(answers, score, shared_runs):
    told = {"name": "renamed", "supervision": "action-labels", "citation": "A. Body, 2020"}
    outcome = score(answers | {"citation": "nobody"}, told)
    assert outcome.metrics["supervision"] == "action-labels"
    (row,) = [row for row in leaderboard(shared_runs) if row["model"] == "renamed"]
    assert row["supervision"] == "action-labels"
    assert "cites A. Body, 2020" in row["note"]


@pytest.mark.parametrize("odd", ["\x1b[31mA. Body", "Br\udce9al, 2020"])
def test_a_citation_that_no_terminal_prints_is_refused(odd, answers, score):
    with pytest.raises(UsageError, match="citation holds") as refusal:
        score(answers, {"name": "cited", "citation": odd})
    assert str(refusal.value).isascii()
    assert "\x1b" not in str(refusal.value)
    assert "--citation" in refusal.value.hint


def test_a_citation_in_a_file_is_one_line_of_any_language(answers, score):
    row = score(answers | {"name": "cited", "citation": "Bréal, 王,\n 2020"}).metrics
    assert row["citation"] == "Bréal, 王, 2020"


@pytest.mark.parametrize("fresh", [False, True])
def test_the_same_clips_are_no_other_training(fresh, answers, score, shared_runs):
    options = {"name": f"scored-twice-{fresh}"}
    first = score(answers, options)
    order = np.arange(len(answers["pair_id"]))[::-1]
    permuted = {key: answers[key][order] for key in ("pair_id", "transfers")}
    with pytest.raises(UsageError, match="seed0.*same clips") as refusal:
        score(answers | permuted, options, fresh=fresh, seed=1)
    assert str(first.folder) in refusal.value.hint
    assert score(answers, options).reused
    assert not score(answers, options, fresh=True).reused
    (row,) = [row for row in leaderboard(shared_runs) if row["model"] == options["name"]]
    assert (row["seeds"], row["n_seeds"]) == ("0", 1)
    assert score(answers, {"name": f"another-{fresh}"}, seed=1).metrics["seed"] == 1


def test_other_clips_under_the_same_name_are_refused_and_a_seed_is_averaged(
    answers, score, shared_runs
):
    options = {"name": "trained-twice"}
    first = score(answers, options)
    other = answers | {"transfers": answers["transfers"][::-1].copy()}
    with pytest.raises(UsageError, match="other clips") as refusal:
        score(other, options)
    for option in ("--seed", "--name", "--fresh"):
        assert option in refusal.value.hint
    second = score(other, options, seed=1)
    (row,) = [row for row in leaderboard(shared_runs) if row["model"] == "trained-twice"]
    assert (row["seeds"], row["n_seeds"]) == ("0 1", 2)
    values = [each.metrics["scores"]["identity_accuracy"]["value"] for each in (first, second)]
    assert row["identity_accuracy"] == pytest.approx(np.mean(values))
    assert row["identity_accuracy_spread"] == pytest.approx(np.std(values, ddof=1))
    third = answers | {"transfers": np.roll(answers["transfers"], 1, axis=0)}
    replaced = score(third, options, fresh=True)
    assert replaced.folder == first.folder
    assert (first.folder.parent / f".{first.folder.name}.old-1" / "metrics.json").exists()


def test_asked_scores_join_those_that_were_asked_for_before(answers, score):
    def asking(*scores):
        return {"evaluation": {"scores": list(scores)}}

    told = {**answers, "name": "asked-twice"}
    first = score(told, layer=asking("vdsm-notebook")).metrics
    assert first["scores"]["notebook_agreement"]["value"] is not None
    (plain, both) = (score(told).metrics, score(told, layer=asking("leakage")).metrics)
    assert plain == first  # what is there stays
    assert set(both["asked"]) == {"vdsm-notebook", "leakage"}
    for name, value in first["scores"].items():
        assert both["scores"][name] == value
    assert set(first["notes"]) <= set(both["notes"])
    assert "identity_information_gap" in both["scores"]
    assert score(told, layer=asking("leakage", "vdsm-notebook")).reused


def test_a_row_of_judges_that_are_others_now_is_scored_again(answers, score):
    options = {"name": "judged-elsewhere"}
    first = score(answers, options)
    judge = {**first.metrics["judge"], "weights": "of another machine"}
    write_json(first.folder / "metrics.json", {**first.metrics, "judge": judge, "scores": {}})
    again = score(answers, options)
    assert not again.reused
    assert again.metrics["judge"] == first.metrics["judge"]
    assert again.metrics["scores"] == first.metrics["scores"]
    assert score(answers, options).reused


def test_scored_again_and_cut_off_it_is_no_row_until_it_is_whole(answers, score, monkeypatch):
    """Pairs of new judges must not be ranked beside scores of old ones."""
    options = {"name": "cut-while-scored-again"}
    first = score(answers, options)
    judge = {**first.metrics["judge"], "weights": "of another machine"}
    write_json(first.folder / "metrics.json", {**first.metrics, "judge": judge})
    with monkeypatch.context() as patch:
        patch.setattr(external, "write_pair_strips", _fails)
        with pytest.raises(OSError, match="disk"):
            score(answers, options)
    assert read_cell(first.folder).metrics is None
    assert score(answers, options).metrics["scores"] == first.metrics["scores"]


def test_fresh_moves_a_row_aside_only_when_the_new_one_is_there(answers, score, monkeypatch):
    named = {"name": "kept-until"}
    first = score(answers, named)
    with monkeypatch.context() as broken:
        broken.setattr(external, "obtain_controls", _fails)
        with pytest.raises(OSError, match="disk full"):
            score(answers, named, fresh=True)
    assert read_json(first.folder / "metrics.json") == first.metrics
    aside = first.folder.with_name(f".{first.folder.name}.old-1")
    assert not aside.exists()
    score(answers, named, fresh=True)
    assert read_json(aside / "metrics.json") == first.metrics


def _fails(*_, **__):
    raise OSError("disk full")


@pytest.mark.parametrize("name", [".", "..", "..."])
def test_a_name_that_no_folder_can_have_is_refused(name, answers, score):
    with pytest.raises(UsageError, match="'name'"):
        score({**answers, "name": name})


def test_a_folder_that_was_cut_short_is_made_again(answers, score):
    options = {"name": "cut-short"}
    outcome = score(answers, options)
    (outcome.folder / "status.json").unlink()
    again = score(answers, options)
    assert not again.reused
    assert read_cell(again.folder).state == "done"


def test_a_row_from_a_file_has_no_model_to_draw_with(answers, score, table, shared_runs):
    folder = score(answers, {"name": "no-model"}).folder
    assert read_cell(folder).slot == "external"
    with pytest.raises(UsageError, match="scored from a file") as refusal:
        pick_cell(table, shared_runs, cell=folder)
    assert "media" in refusal.value.hint
