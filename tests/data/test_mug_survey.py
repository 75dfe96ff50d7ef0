"""What is said of MUG's files before they are imported."""

import json
import shutil

import pytest

from vdsm_bench.cli.main import run_cli
from vdsm_bench.data.mug import Mug
from vdsm_bench.data.mug_files import EXPRESSIONS
from vdsm_bench.errors import DataError

from .test_mug import (
    broken_image,
    empty_action,
    empty_take,
    odd_file,
    odd_image,
    released,
    save,
    write_tree,
)


def test_a_survey_says_per_identity_and_action_what_is_there_and_what_is_missing(tmp_path):
    clips, labels = released(people=3)
    source = save(tmp_path / "mug", clips[:-1], labels[:-1])  # person 2 has no code 8
    report = Mug().survey(source)
    assert report.problems == []
    assert report.cells["subject-02"] == {
        "code-0": 1, "code-1": 1, "code-7": 1, "code-3": 1, "code-4": 1, "code-8": 0,
    }  # fmt: skip
    assert "layout release, 17 clips" in report.lines[0]
    assert "identity x action: 17 of 18 combinations have clips, 1 each" in report.lines
    for note in ("missing code-8: subject-02", "left out: code-2 (3)", "left out: code-6 (3)",
                 "3 identities; the published scores are over 52"):  # fmt: skip
        assert note in report.notes


def test_a_survey_lists_every_fault_and_an_import_the_first(tmp_path):
    source = write_tree(tmp_path / "tree")
    for damage in (odd_file, odd_image, empty_take, empty_action, broken_image):
        damage(source)
    report = Mug(crop="clean").survey(source)
    for wanted in ("anna/notes.txt does not belong there", "take1/notes.txt is no jpg",
                   "take7 is too short: 0 images", "sad is empty",
                   "img_9.png does not read as an image"):  # fmt: skip
        assert sum(wanted in problem for problem in report.problems) == 1, wanted
    with pytest.raises(DataError, match=r"And 3 more faults\.") as caught:
        Mug().prepare(tmp_path / "data" / "mug", source=source)
    assert f"vdsm-bench data check mug --from {source}" in caught.value.hint


def survey(capsys, source, *options, expect=0):
    code = run_cli(["data", "check", "mug", "--from", str(source), *options])
    answer = capsys.readouterr()
    assert code == expect, answer.err
    return answer


def faces(tmp_path):
    """Three people; ben has no clip of fear, and everybody has actions beside the six."""
    actions = (*EXPRESSIONS, "neutral")
    source = write_tree(tmp_path / "my faces", people=("anna", "ben", "cleo"), actions=actions)
    shutil.rmtree(source / "ben" / "fear")
    return source


def test_the_command_says_of_a_tree_what_it_holds_and_what_it_lacks(tmp_path, capsys):
    source = faces(tmp_path)
    answer = survey(capsys, source, "--cells")
    assert answer.out.splitlines() == [
        f"{source}: layout tree, 34 clips, 68 frames for crop as-released, about 1 MB",
        "identity x action: 17 of 18 combinations have clips, 2 each",
        "     anger disgust fear happiness sadness surprise",
        "anna     2       2    2         2       2        2",
        "ben      2       2    .         2       2        2",
        "cleo     2       2    2         2       2        2",
        "note: missing fear: ben",
        "note: left out: neutral (6)",
        "note: 3 identities; the published scores are over 52",
    ]
    assert f"look at {source}  34/34" in answer.err
    assert "anna     2" not in survey(capsys, source).out
    told = json.loads(survey(capsys, source, "--json").out)
    assert told["cells"]["ben"] == {**dict.fromkeys(EXPRESSIONS, 2), "fear": 0}


def test_the_command_names_every_fault_of_a_tree_and_what_to_type_once_it_is_mended(
    tmp_path, capsys
):
    source = faces(tmp_path)
    odd_file(source)
    image = source / "ben" / "anger" / "take1" / "img_9.png"
    image.write_bytes(image.read_bytes()[:60])
    answer = survey(capsys, source, expect=3)
    stray, broken = [line for line in answer.out.splitlines() if line.startswith("fault: ")]
    assert stray.startswith(f"fault: {source / 'anna' / 'notes.txt'} does not belong there")
    assert broken.startswith(f"fault: {image} does not read as an image")
    assert "17 of 18 combinations" in answer.out  # what is sound is counted all the same
    assert f"error: {source} has 2 faults; the first: " in answer.err
    again = f"next: mend {source}, then: vdsm-bench data prepare mug --from '{source}'"
    assert again in answer.err
    told = json.loads(survey(capsys, source, "--json", expect=3).out)
    assert [f"fault: {problem}" for problem in told["problems"]] == [stray, broken]
