"""The two scripts of the adversarial attack through the command line: files, numbers, two processes, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import COLUMNS, LABELS, REFERENCE, flags, needs_reference, run, run_here, write_model
from toy import WORDS, tiny_bert, wavering_bert

CONNECTION, EVALUATE = "run_adver_connection.py", "run_adver_evaluate.py"


def table(rows: range) -> str:
    lines = ["\t".join(COLUMNS)]
    for i in rows:
        first = " ".join(WORDS[(i * 3 + k) % len(WORDS)] for k in range(2 + i % 4))
        second = " ".join(WORDS[(i * 5 + k) % len(WORDS)] for k in range(1 + i % 3))
        lines.append("\t".join([str(i), *"xxxxxxx", first, second, "n", LABELS[i % 3]]))
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT whose mind changes, and MNLI-shaped rows."""
    folder = tmp_path_factory.mktemp("mnli")
    write_model(wavering_bert(), folder)
    (folder / "data").mkdir()
    (folder / "data/train.tsv").write_text(table(range(40, 60)))
    (folder / "data/dev_matched.tsv").write_text(table(range(9)))
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


PATTERNS = "train_adver_pattern_exp0-6.json"
KEYS = {
    *("max_combined_attr", "top1pattern", "top2pattern", "top1position", "top2position"),
    *("target_label", "golden_label", "seg_pos", "tokens"),
}


@pytest.fixture(scope="module")
def found(folder: Path) -> Path:
    """What the first script writes about six rows."""
    output = folder / "found"
    done = run(CONNECTION, *flags(folder, output, num_exp=6, batch_size=4, num_batch=2), "--zero_baseline", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "6 patterns of 6 rows" in done.stdout
    return output


def test_patterns_have_the_published_form(found):
    entries = read(found / PATTERNS)
    assert len(entries) == 6
    assert all(entry.keys() == KEYS for entry in entries)
    sums = [sum(entry["max_combined_attr"]) for entry in entries]
    assert sums == sorted(sums, reverse=True)
    for entry in entries:
        assert entry["tokens"][entry["seg_pos"]] == "[SEP]"
        for number in "12":
            places = entry[f"top{number}position"]
            assert [entry["tokens"][place] for place in places] == entry[f"top{number}pattern"]
    assert [path.name for path in found.iterdir()] == [PATTERNS]


def test_evaluation_adds_an_accuracy_for_every_class(folder, found, tmp_path):
    given = flags(folder, tmp_path, pattern_file=found / PATTERNS, num_exp=6, pattern_threshold=0)
    done = run(EVALUATE, *given, "--quiet")
    assert done.returncode == 0, done.stderr
    entries = read(tmp_path / "eval_train_pattern_one_exp0-6.json")
    assert len(entries) == 5  # as published, without the last
    assert all(entry.keys() == KEYS | set(LABELS) for entry in entries)
    assert all(entry[label] * 3 == pytest.approx(round(entry[label] * 3)) for entry in entries for label in LABELS)
    done = run(EVALUATE, *given, "--if_all", "--quiet")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "eval_train_pattern_two_exp0-6.json").is_file()


@pytest.mark.slow
def test_corrected_rules_score_every_pattern_and_report_the_best(folder, tmp_path):
    given = flags(folder, tmp_path, num_exp=6)
    done = run(CONNECTION, *given, "--corrected", "--quiet")
    assert done.returncode == 0, done.stderr
    patterns = read(tmp_path / PATTERNS)
    assert not any("[" in token for entry in patterns for token in (*entry["top1pattern"], *entry["top2pattern"]))
    more = ["--pattern_file", tmp_path / PATTERNS, "--pattern_threshold", "0", "--control_seeds", "2", "--compose"]
    done = run(EVALUATE, *given, *more, "--corrected", "--quiet", "--triggers", "2")
    assert done.returncode == 0, done.stderr
    assert len(read(tmp_path / "eval_train_pattern_one_exp0-6.json")) == len(patterns)
    report = read(tmp_path / "attack_train_pattern_one_exp0-6.json")
    assert len(report["victims"][0]["outcomes"]) == 1 + 2 * 3
    assert report["choice"]["rows"] == 14
    assert (tmp_path / "attack_train_pattern_one_exp0-6.txt").read_text() in done.stdout + "\n"
    assert "clean" in done.stdout
    assert (tmp_path / "attack_train_pattern_one_exp0-6.html").stat().st_size > 5e5


@pytest.mark.slow
def test_two_processes_resume_and_write_what_one_writes(folder, found, tmp_path):
    for script, more in (
        (CONNECTION, {"batch_size": 4, "num_batch": 2}),
        (EVALUATE, {"pattern_file": found / PATTERNS, "pattern_threshold": 0, "eval_batch_size": 2}),
    ):
        one = run(script, *flags(folder, tmp_path / "one", num_exp=6, **more), "--quiet")
        assert one.returncode == 0, one.stderr
        for _ in range(2):
            two = run(script, *flags(folder, tmp_path / "two", num_exp=6, **more), "--quiet", "--resume", processes=2)
            assert two.returncode == 0, two.stderr
    for path in (tmp_path / "one").iterdir():
        one, two = read(path), read(tmp_path / "two" / path.name)
        for entry, expected in zip(two, one, strict=True):
            assert entry.pop("max_combined_attr") == pytest.approx(expected.pop("max_combined_attr"), abs=1e-6)
        assert two == one


@pytest.mark.parametrize(
    ("script", "changes", "message"),
    [
        (CONNECTION, {"task_name": "MNIST"}, "unknown task 'MNIST'"),
        (CONNECTION, {"task_name": "STS-B"}, "its labels are scores; triggers need classes"),
        (CONNECTION, {"data_type": "test"}, "invalid choice: 'test'"),
        (CONNECTION, {"start_exp": 90}, "--start_exp 90 is beyond the last row"),
        (CONNECTION, {"start_exp": -1}, "--start_exp is -1; it must be 0 or more"),
        (CONNECTION, {"num_batch": 0}, "--num_batch is 0; it must be 1 or more"),
        (CONNECTION, {"data_dir": "nowhere"}, "no file 'nowhere/train.tsv'"),
        (EVALUATE, {"pattern_file": "train_none.json"}, "no file 'train_none.json'"),
        (EVALUATE, {"pattern_file": "dev_adver.json"}, "is not of --data_type train, by its name"),
        (EVALUATE, {"pattern_threshold": -1}, "min_score=-1.0 must be a number of 0 or more"),
        (EVALUATE, {"start_exp": -1}, "--start_exp is -1; it must be 0 or more"),
        (EVALUATE, {"selection_rows": "0:9", "corrected": True}, "--selection_rows 0:9 are among the rows 0:6"),
        (EVALUATE, {"selection_rows": "5", "corrected": True}, "--selection_rows '5' must be START:END"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder, found, tmp_path, capsys, script, changes, message):
    given: dict[str, Any] = {} if script == CONNECTION else {"pattern_file": found / PATTERNS}
    assert run_here(script, flags(folder, tmp_path / "out", **{**given, **changes})) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith(f"{script}: error: ")
    assert message in said
    assert not list(tmp_path.glob("out/*.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries[1].pop("tokens"), "entry 1 lacks the key 'tokens'"),
        (lambda entries: entries[0].update(top1position=[0, 99]), "entry 0: 'top1position' must be two positions from"),
        (
            lambda entries: entries[0].update(max_combined_attr=[1.0]),
            "entry 0: 'max_combined_attr' must be two numbers",
        ),
        (lambda entries: entries[2].update(seg_pos="4"), "entry 2: 'seg_pos' must be a whole number"),
    ],
)
def test_pattern_files_of_the_wrong_form_are_named_with_entry_and_key(folder, found, tmp_path, capsys, change, message):
    entries = read(found / PATTERNS)
    change(entries)
    path = tmp_path / "train_wrong.json"
    path.write_text(json.dumps(entries))
    assert run_here(EVALUATE, flags(folder, tmp_path, pattern_file=path)) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert message in said


@pytest.mark.slow
@needs_reference
def test_published_scripts_numbers(tmp_path):
    """Both scripts on the published code's model and rows, against the files that it wrote."""
    model = REFERENCE / "tiny-base"
    given = {"data_dir": REFERENCE / "mnli", "bert_model": model, "model_file": model / "pytorch_model.bin"}
    common = flags(tmp_path, tmp_path, **given)
    done = run(CONNECTION, *common, "--num_exp", 24, "--num_batch", 2, "--quiet")
    assert done.returncode == 0, done.stderr
    published = read(REFERENCE / "out/train_adver_pattern_exp0-24.json")
    for entry, expected in zip(read(tmp_path / "train_adver_pattern_exp0-24.json"), published, strict=True):
        assert entry.pop("max_combined_attr") == pytest.approx(expected.pop("max_combined_attr"), rel=1e-4)
        assert entry == expected
    file = REFERENCE / "out/train_adver_pattern_exp0-24.json"
    done = run(EVALUATE, *common, "--pattern_file", file, "--pattern_threshold", 0, "--quiet")
    assert done.returncode == 0, done.stderr
    written = tmp_path / "eval_train_pattern_one_exp0-500.json"
    assert written.read_bytes() == (REFERENCE / "out" / written.name).read_bytes()
    done = run(EVALUATE, *common, "--pattern_file", file, "--pattern_threshold", 0, "--quiet", "--corrected")
    assert done.returncode == 2  # 24 training rows leave none for the choice
    assert "--selection_rows '24:324' holds no row; the file has 24" in done.stderr


@pytest.mark.slow
def test_accuracies_have_the_labels_of_the_published_files(tmp_path):
    """SST-2's are "0" and "1" there."""
    model = tiny_bert(seed=6, num_labels=2)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model/vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]) + "\n")
    (tmp_path / "model/tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    rows = [" ".join(WORDS[(i + k) % len(WORDS)] for k in range(11 + i)) for i in range(6)]
    for name in ("train", "dev"):
        lines = ["sentence\tlabel", *(f"{row}\t{i % 2}" for i, row in enumerate(rows))]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    given = flags(tmp_path, tmp_path, task_name="SST-2", data_dir=tmp_path, model_file=None)
    done = run(CONNECTION, *given, "--num_batch", 1, "--num_exp", 6, "--quiet")
    assert "4 patterns of 4 rows" in done.stdout, done.stderr  # two have fewer than 15 tokens
    none = run(CONNECTION, *given, "--num_exp", 2, "--quiet")
    assert "--num_exp 2: none of these rows has 15 tokens" in none.stderr
    file = tmp_path / "train_adver_pattern_exp0-6.json"
    done = run(EVALUATE, *given, "--pattern_file", file, "--pattern_threshold", 0, "--num_exp", 6, "--quiet")
    entries = read(tmp_path / "eval_train_pattern_one_exp0-6.json")
    assert all(entry.keys() == KEYS | {"0", "1"} for entry in entries), done.stderr
    file.write_text("[]")
    done = run(EVALUATE, *given, "--pattern_file", file, "--quiet")
    assert (done.returncode, "holds no pattern" in done.stderr) == (2, True)
