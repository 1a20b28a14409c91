"""The tasks' files, tables of one's own, and the metrics."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from captum_attattr.heads.metrics import METRICS, score
from captum_attattr.published.tables import Example, read_table
from captum_attattr.published.tasks import TASKS, task

GLUE = Path(__file__).parents[3] / "shared/data/glue"
REFERENCE = Path(__file__).parents[3] / "shared/data/reference/mnli"

MNLI_HEADER = ["index", "promptID", "pairID", "genre", "p1", "p2", "s1p", "s2p", "sentence1", "sentence2"]
STS_HEADER = [
    "index",
    "genre",
    "filename",
    "year",
    "old_index",
    "source1",
    "source2",
    "sentence1",
    "sentence2",
    "score",
]
SICK_HEADER = [
    "pair_ID",
    "sentence_A",
    "sentence_B",
    "entailment_label",
    "relatedness_score",
    "entailment_AB",
    "SemEval_set",
]

# For each task: the file of one of its splits, that file's rows, and what must come out of them.
MADE_UP: list[tuple[str, str, str, list[list[str]], list[Example]]] = [
    (
        "cola",
        "train",
        "train.tsv",
        [["gj04", "1", "", "The sailors rode ."], ["gj04", "0", "*", "Sailors the ."]],
        [Example("The sailors rode .", 1), Example("Sailors the .", 0)],
    ),
    (
        "mnli",
        "train",
        "train.tsv",
        [[*MNLI_HEADER, "label1", "gold_label"], [*"01234567", "a premise", "b", "neutral", "contradiction"]],
        [Example(("a premise", "b"), 0)],
    ),
    (
        "mnli",
        "dev",
        "dev_matched.tsv",
        [
            [*MNLI_HEADER, "label1", "label2", "label3", "label4", "label5", "gold_label"],
            [*"01234567", "a", "b", *["entailment"] * 5, "neutral"],
            [*"12234567", "c", "d", *["neutral"] * 5, "entailment"],
        ],
        [Example(("a", "b"), 2), Example(("c", "d"), 1)],
    ),
    (
        "mnli-mm",
        "dev",
        "dev_mismatched.tsv",
        [[*MNLI_HEADER, "label1", "gold_label"], [*"01234567", "a", "b", "neutral", "neutral"]],
        [Example(("a", "b"), 2)],
    ),
    (
        "mrpc",
        "dev",
        "dev.tsv",
        [["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"], ["1", "7", "8", "a", "b"], ["0", "9", "8", "c", "d"]],
        [Example(("a", "b"), 1), Example(("c", "d"), 0)],
    ),
    (
        "rte",
        "dev",
        "dev.tsv",
        [
            ["index", "sentence1", "sentence2", "label"],
            ["0", "a", "b", "not_entailment"],
            ["1", "c", "d", "entailment"],
        ],
        [Example(("a", "b"), 1), Example(("c", "d"), 0)],
    ),
    (
        "scitail",
        "test",
        "scitail_1.0_test.tsv",
        [["a", "b", "entails"], ["c", "d", "neutral"]],
        [Example(("a", "b"), 1), Example(("c", "d"), 0)],
    ),
    (
        "sst-2",
        "dev",
        "dev.tsv",
        [["sentence", "label"], ["good ", "1"], ["bad", "0"]],
        [Example("good ", 1), Example("bad", 0)],
    ),
    (
        "qqp",
        "train",
        "train.tsv",
        [
            ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
            ["0", "1", "2", '"Why "so"?"', "How ?", "1"],
        ],
        [Example(('Why "so"?', "How ?"), 1)],
    ),
    (
        "qnli",
        "dev",
        "dev.tsv",
        [["index", "question", "sentence", "label"], ["0", "Who ?", "Me .", "entailment"]],
        [Example(("Who ?", "Me ."), 0)],
    ),
    (
        "wnli",
        "train",
        "train.tsv",
        [["index", "sentence1", "sentence2", "label"], ["0", "a", "b", "1"]],
        [Example(("a", "b"), 1)],
    ),
    (
        "sts-b",
        "dev",
        "dev.tsv",
        [STS_HEADER, ["0", "g", "f", "2012", "1", "n", "n", "a", "b", "3.800"]],
        [Example(("a", "b"), 3.8)],
    ),
    *[
        (
            "sick",
            split,
            "SICK.txt",
            [
                SICK_HEADER,
                ["1", "a", "b", "NEUTRAL", "4.5", "x", "TRAIN"],
                ["2", "c", "d", "ENTAILMENT", "4.5", "x", "TRIAL"],
                ["3", "e", "f", "CONTRADICTION", "4.5", "x", "TEST"],
            ],
            [expected],
        )
        for split, expected in (
            ("train", Example(("a", "b"), 2)),
            ("dev", Example(("c", "d"), 1)),
            ("test", Example(("e", "f"), 0)),
        )
    ],
]


def write(path: Path, rows: list[list[str]], end: str = "\n") -> Path:
    path.write_bytes("".join("\t".join(row) + end for row in rows).encode())
    return path


def sst(folder: Path, content: str | bytes) -> list[Example]:
    """Read the given dev.tsv as SST-2's."""
    (folder / "dev.tsv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return task("sst-2").read(folder, "dev")


# What a task is.


@pytest.mark.parametrize(
    ("name", "labels", "metric", "pair"),
    [
        ("cola", "0 1", "matthews", False),
        ("mnli", "contradiction entailment neutral", "accuracy", True),
        ("mnli-mm", "contradiction entailment neutral", "accuracy", True),
        ("mrpc", "0 1", "accuracy", True),
        ("rte", "entailment not_entailment", "accuracy", True),
        ("scitail", "neutral entails", "accuracy", True),
        ("sst-2", "0 1", "accuracy", False),
        ("qqp", "0 1", "accuracy", True),
        ("qnli", "entailment not_entailment", "accuracy", True),
        ("wnli", "0 1", "accuracy", True),
        ("sts-b", "", "pearson", True),
        ("sick", "CONTRADICTION ENTAILMENT NEUTRAL", "accuracy", True),
    ],
)
def test_labels_and_metric_are_the_published_codes(name: str, labels: str, metric: str, pair: bool) -> None:
    found = task(name)
    assert found.name == name
    assert found.labels == tuple(labels.split())
    assert len(found.label_names) == len(found.labels)
    assert (found.metric, found.pair) == (metric, pair)
    assert found.metric in METRICS
    assert found.regression == (name == "sts-b")
    assert found.num_labels == (len(labels.split()) or 1)


def test_every_task_is_read_from_a_made_up_file() -> None:
    assert {row[0] for row in MADE_UP} == set(TASKS)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("SST-2", "sst-2"),
        ("SST2", "sst-2"),
        ("sst_2", "sst-2"),
        ("STSB", "sts-b"),
        ("CoLA", "cola"),
        ("SciTail", "scitail"),
        ("MNLI", "mnli"),
        ("mnli_matched", "mnli"),
        ("MNLI-mm", "mnli-mm"),
        ("mnli mismatched", "mnli-mm"),
    ],
)
def test_names_in_any_case(written: str, name: str) -> None:
    assert task(written) is TASKS[name]


@pytest.mark.parametrize("name", ["sst-3", "", "mnlim"])
def test_unknown_task_lists_the_known(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown task '{name}'; known are cola, mnli, mnli-mm, .*, sts-b, sick"):
        task(name)


# The tasks' own files.


@pytest.mark.parametrize(("name", "split", "file", "rows", "expected"), MADE_UP)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_columns_and_labels(
    tmp_path: Path, name: str, split: str, file: str, rows: list[list[str]], expected: list[Example], end: str
) -> None:
    write(tmp_path / file, rows, end)
    assert task(name).read(tmp_path, split) == expected
    marked = b"\xef\xbb\xbf" + (tmp_path / file).read_bytes().removesuffix(end.encode())
    (tmp_path / file).write_bytes(marked)  # a byte-order mark, and no end of the last line
    assert task(name).read(str(tmp_path), split) == expected


def test_a_score_is_a_float_and_a_class_is_not(tmp_path: Path) -> None:
    write(tmp_path / "dev.tsv", [STS_HEADER, [*"0123456", "a", "b", "5"]])
    assert type(task("sts-b").read(tmp_path)[0].label) is float
    assert type(sst(tmp_path, "sentence\tlabel\nfine\t1\n")[0].label) is int


@pytest.mark.parametrize("text", ['say "no', '"quoted" film', "'s", 'a "" b', '"', "a\x85b", "a\u2028b", "a\x0cb\x1cc"])
def test_only_tabs_and_line_feeds_separate(tmp_path: Path, text: str) -> None:
    assert sst(tmp_path, f"sentence\tlabel\n{text}\t1\nnext\t0\n") == [Example(text, 1), Example("next", 0)]


def test_blank_lines_are_skipped_and_still_counted(tmp_path: Path) -> None:
    assert sst(tmp_path, "sentence\tlabel\n\ngood\t1\r\n\r\n\n") == [Example("good", 1)]
    with pytest.raises(ValueError, match="line 4"):
        sst(tmp_path, "sentence\tlabel\n\ngood\t1\nbad\t2\n")


def test_columns_are_found_by_the_header(tmp_path: Path) -> None:
    assert sst(tmp_path, "id\tlabel\tsentence\n7\t1\tgood\n") == [Example("good", 1)]


def test_mnli_without_agreed_label_is_left_out(tmp_path: Path) -> None:
    rows = [[*MNLI_HEADER, "gold_label"], *([*"01234567", "a", "b", mark] for mark in ("-", "neutral", "-"))]
    path = write(tmp_path / "dev_matched.tsv", rows)
    with pytest.warns(
        UserWarning, match="2 rows without all columns or an agreed label are left out: line 2, 4$"
    ) as told:
        assert task("mnli").read(tmp_path) == [Example(("a", "b"), 2)]
    assert [warning.filename for warning in told] == [__file__]  # the caller's line
    write(path, rows[:2])
    with pytest.warns(UserWarning, match="line 2$"), pytest.raises(ValueError, match="holds no example"):
        task("mnli").read(tmp_path)
    with pytest.raises(ValueError, match="label '-' is not one of"):
        sst(tmp_path, "sentence\tlabel\nfine\t-\n")


def test_qqp_as_the_published_code_reads_it(tmp_path: Path) -> None:
    header = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]
    rows = [header, ["0", "1", "2", "Why", ""], ["1", "2", "3", "How", "", "0"], *[["broken"]] * 6]
    write(tmp_path / "dev.tsv", rows)
    with pytest.warns(UserWarning, match=r"7 rows .* are left out: line 2, 4, 5, 6, 7, \.\.\.$"):
        assert task("qqp").read(tmp_path) == [Example(("How", ""), 0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "dev.tsv is empty: not even a header"),
        ("\ufeff\r\n\n", "dev.tsv is empty: not even a header"),
        ("sentence\tlabel\n", "dev.tsv is empty: it holds no example"),
        ("text\tlabel\ngood\t1\n", "dev.tsv has no column 'sentence'; its header has 'text', 'label'"),
        ("sentence\tlabel\tlabel\ng\t1\t1\n", "has more than one column 'label'"),
        ("sentence\tlabel\ngood\t1\nbad\n", "dev.tsv, line 3: 1 columns; 2 are expected (sentence, label)"),
        ("sentence\tlabel\na\tgood\t1\n", "dev.tsv, line 2: 3 columns; 2 are expected (sentence, label)"),
        ("sentence\tlabel\ngood\t2\n", "dev.tsv, line 2: label '2' is not one of sst-2's: 0, 1"),
        ("sentence\tlabel\ngood\t\n", "dev.tsv, line 2: label '' is not one of sst-2's: 0, 1"),
        ("sentence\tlabel\n \t1\n", "dev.tsv, line 2: an empty text"),
        ("sentence\tlabel\n\t\n", "dev.tsv, line 2: an empty text"),
        (b"sentence\tlabel\nok\t1\ncaf\xe9\t1\n", "dev.tsv, line 3: not UTF-8 text"),
    ],
)
def test_malformed_files(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        sst(tmp_path, content)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("value", ["high", "nan", "inf", ""])
def test_a_score_must_be_a_number(tmp_path: Path, value: str) -> None:
    write(tmp_path / "dev.tsv", [STS_HEADER, [*"0123456", "a", "b", value]])
    with pytest.raises(ValueError, match=f"dev.tsv, line 2: label '{value}' is not a number"):
        task("sts-b").read(tmp_path)


def test_wrong_columns_of_files_without_header(tmp_path: Path) -> None:
    write(tmp_path / "dev.tsv", [["gj04", "1", "", "fine"], ["gj04", "1", "", "a", "tab"]])
    with pytest.raises(ValueError, match=r"line 2: 5 columns; 4 are expected \(source, label, mark, sentence\)"):
        task("cola").read(tmp_path)


def test_missing_files_and_splits(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"no file '.*dev_matched.tsv', the dev split of mnli"):
            task("mnli").read(folder)
    with pytest.raises(ValueError, match="sst-2 has no split 'test' with labels; it has train, dev"):
        task("sst-2").read(tmp_path, "test")


# A table of one's own.

TABLES = {
    "t.csv": 'id,a,b,mark\n1,"one, ""two""\nthree",x,good\n2,four,"y",bad\n',
    "t.CSV": '\ufeffid,a,b,mark\r\n1,"one, ""two""\nthree",x,good\r\n\r\n2,four,"y",bad',
    "t.jsonl": '{"a": "one, \\"two\\"\\nthree", "b": "x", "mark": "good"}\n\n{"mark": "bad", "b": "y", "a": "four"}',
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_ones_own(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(TABLES[name].encode())
    first = 'one, "two"\nthree'
    assert read_table(path, text="a") == [Example(first, -1), Example("four", -1)]
    pairs = read_table(str(path), text="a", second="b", label="mark", labels=["bad", "good"])
    assert pairs == [Example((first, "x"), 1), Example(("four", "y"), 0)]


@pytest.mark.parametrize(
    ("values", "expected"), [(("2", "0"), (2, 0)), (("2", "0.5"), (2.0, 0.5)), (("-1e0", "3.0"), (-1, 3))]
)
def test_numbers_as_labels(tmp_path: Path, values: tuple[str, str], expected: tuple[float, float]) -> None:
    (tmp_path / "t.tsv").write_text("n\ta\n" + "".join(f'{value}\t"x\n' for value in values))
    (tmp_path / "t.json").write_text("".join(f'{{"n": {value}, "a": "\\"x"}}\n' for value in values))
    for name in ("t.tsv", "t.json"):
        found = read_table(tmp_path / name, text="a", label="n")
        assert found == [Example('"x', value) for value in expected]
        assert {type(example.label) for example in found} == {type(value) for value in expected}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "t.csv is empty: not even a header"),
        ("t.csv", "a,mark\n", "t.csv is empty: it holds no example"),
        ("t.jsonl", "\n", "t.jsonl is empty: it holds no example"),
        ("t.csv", "b,mark\nx,good\n", "t.csv has no column 'a'; its header has 'b', 'mark'"),
        ("t.csv", "a,mark\nx\n", "t.csv, line 2: 1 columns; 2 are expected (a, mark)"),
        ("t.csv", 'a,mark\nx,good\n"y,bad\n', "t.csv, line 3: unexpected end of data"),
        ("t.csv", "a,mark\nx,fine\n", "t.csv, line 2: label 'fine' is not one of bad, good"),
        ("t.csv", "a,mark\n,good\n", "t.csv, line 2: an empty text"),
        ("t.jsonl", '{"a": "x", "mark": "good"}\n{"a": "y"}\n', "t.jsonl, line 2: no 'mark'; it has 'a'"),
        ("t.jsonl", '{"a": "x",\n', "t.jsonl, line 1: not JSON ("),
        ("t.jsonl", '["x", "good"]\n', 't.jsonl, line 1: a JSON object is expected, not \'["x", "good"]\''),
        ("t.jsonl", '{"a": null, "mark": "good"}\n', "t.jsonl, line 1: 'a' must be a text or a number, not None"),
        ("t.jsonl", '{"a": true, "mark": "good"}\n', "t.jsonl, line 1: 'a' must be a text or a number, not True"),
        ("t.jsonl", '{"a": "x", "mark": false}\n', "t.jsonl, line 1: 'mark' must be a text or a number, not False"),
        ("t.jsonl", "[" * 100_000, "t.jsonl, line 1: not JSON ("),
        ("t.jsonl", "1" * 5_000, "t.jsonl, line 1: not JSON ("),
        ("t.xlsx", "a", "t.xlsx' must end in .csv, .tsv, .jsonl, .ndjson or .json"),
    ],
)
def test_bad_tables(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        read_table(tmp_path / name, text="a", label="mark", labels=["bad", "good"])
    assert message in str(caught.value)


def test_arguments_of_other_kinds_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,mark\nx,good\n")
    path: Any
    for path in (5, None, b"t.csv"):
        with pytest.raises(TypeError, match=r"path must be a string or a path"):
            read_table(path, text="a")
        with pytest.raises(TypeError, match=r"data_dir must be a string or a path"):
            task("sst-2").read(path)
    labels: Any
    for labels in ("good", 5, [0, 1], {"good": 1}):
        with pytest.raises(TypeError, match="labels must be "):
            read_table(tmp_path / "t.csv", text="a", label="mark", labels=labels)


def test_labels_that_are_no_numbers(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,mark\nx,good\n")
    with pytest.raises(ValueError, match=r"t\.csv, line 2: label 'good' is not a number"):
        read_table(tmp_path / "t.csv", text="a", label="mark")
    with pytest.raises(FileNotFoundError, match=r"no file '.*none\.csv'"):
        read_table(tmp_path / "none.csv", text="a")


# The package `datasets`.


class Dataset(list[dict[str, Any]]):
    """What is used of a `datasets.Dataset`."""

    def __init__(self, rows: list[dict[str, Any]], names: list[str] | None) -> None:
        super().__init__(rows)
        self.column_names = list(rows[0]) if rows else ["sentence", "label"]
        self.features = {"label": SimpleNamespace(names=names) if names else SimpleNamespace()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str, str], Dataset]:
    """The data sets by path, configuration and split, in a stand-in for the package `datasets`."""
    stored: dict[tuple[str, str, str], Dataset] = {}
    module = ModuleType("datasets")
    module.load_dataset = lambda path, name, split: stored[path, name, split]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return stored


def test_datasets_labels_are_matched_by_name(hub: dict[tuple[str, str, str], Dataset]) -> None:
    names = ["entailment", "neutral", "contradiction"]  # the hub's order, not the published code's
    rows = [{"premise": "a", "hypothesis": "b", "label": i, "idx": 7} for i in range(3)]
    for name, split in (("mnli", "matched"), ("mnli-mm", "mismatched")):
        hub["nyu-mll/glue", "mnli", f"validation_{split}"] = Dataset(rows, names)
        assert [example.label for example in task(name).read_hub("dev")] == [1, 2, 0]
    rows = [{"sentence": "fine", "label": 1, "idx": 0}]
    hub["nyu-mll/glue", "sst2", "train"] = Dataset(rows, ["negative", "positive"])
    assert task("sst-2").read_hub("train") == [Example("fine", 1)]
    rows = [{"premise": "a", "hypothesis": "b", "label": "entails"}]
    hub["allenai/scitail", "tsv_format", "test"] = Dataset(rows, None)
    assert task("scitail").read_hub("test") == [Example(("a", "b"), 1)]
    rows = [{"sentence1": "a", "sentence2": "b", "label": 3.5, "idx": 0}]
    hub["nyu-mll/glue", "stsb", "validation"] = Dataset(rows, None)
    assert task("sts-b").read_hub() == [Example(("a", "b"), 3.5)]


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        ([], ["negative", "positive"], "sst-2 of datasets is empty"),
        ([{"text": "fine", "label": 1}], ["negative", "positive"], "no column 'sentence'; it has 'text', 'label'"),
        ([{"sentence": "fine", "label": -1}], ["negative", "positive"], "row 0: label '-1' is not one of sst-2's"),
        ([{"sentence": "fine", "label": 1}], ["bad", "good"], "row 0: label 'good' is not one of sst-2's: 0, 1"),
        ([{"sentence": "", "label": 1}], ["negative", "positive"], "row 0: an empty text"),
    ],
)
def test_unusable_datasets(
    hub: dict[tuple[str, str, str], Dataset], rows: list[dict[str, Any]], names: list[str], message: str
) -> None:
    hub["nyu-mll/glue", "sst2", "validation"] = Dataset(rows, names)
    with pytest.raises(ValueError, match=message):
        task("sst-2").read_hub()


def test_datasets_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match="datasets is not installed: pip install datasets"):
        task("sst-2").read_hub()
    with pytest.raises(ValueError, match="sick cannot be read with datasets; give the folder of its files"):
        task("sick").read_hub()
    with pytest.raises(ValueError, match="sst-2 has no split 'validation' with labels; it has train, dev"):
        task("sst-2").read_hub("validation")


# The metrics.


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_metrics_agree_with_scikit_learn_and_scipy(classes: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(classes)
    labels = random.integers(classes, size=50)
    logits = random.normal(size=(50, classes)) + 0.7 * np.eye(classes)[labels]
    guessed = logits.argmax(-1)
    assert score("accuracy", logits, labels) == metrics.accuracy_score(labels, guessed)
    assert score("matthews", logits, labels) == pytest.approx(metrics.matthews_corrcoef(labels, guessed))
    scores = labels + random.normal(size=50)
    assert score("pearson", scores, labels) == pytest.approx(stats.pearsonr(scores, labels)[0])
    # Logits or classes, a column or a row, an array, a tensor or a list.
    assert score("accuracy", guessed, labels) == score("accuracy", torch.tensor(logits), labels.tolist())
    assert score("matthews", guessed.tolist(), torch.tensor(labels)) == score("matthews", logits, labels)
    assert score("pearson", scores[:, None].tolist(), labels) == score("pearson", torch.tensor(scores), labels)


def test_perfect_opposite_and_constant_predictions() -> None:
    labels = [0, 1, 1, 0, 1]
    for metric, opposite in (("accuracy", 0), ("matthews", -1), ("pearson", -1)):
        assert score(metric, labels, labels) == pytest.approx(1)
        assert score(metric, [1 - label for label in labels], labels) == pytest.approx(opposite)
    for metric in ("matthews", "pearson"):
        assert score(metric, [1] * 5, labels) == 0
        assert score(metric, labels, [1] * 5) == 0
    for constant in (0.1, 1 / 3, 1e-9):
        assert score("pearson", [constant] * 5, labels) == 0  # their mean is not the constant, but for rounding


@pytest.mark.parametrize(
    ("metric", "predictions", "labels", "message"),
    [
        ("f1", [1], [1], "unknown metric 'f1'; known are accuracy, matthews, pearson"),
        ("accuracy", [], [], r"predictions of shape \(0,\) do not fit labels of shape \(0,\)"),
        ("accuracy", [1, 0], [1], r"shape \(2,\) do not fit labels of shape \(1,\) for 'accuracy'"),
        ("pearson", [[1.0, 2.0]], [1.0], r"shape \(1, 2\) do not fit labels of shape \(1,\) for 'pearson'"),
        ("accuracy", [[[1.0]]], [1], r"shape \(1, 1, 1\) do not fit"),
        ("accuracy", [[1.0, float("nan")]], [1], "must be finite"),
        ("pearson", [1.0, 2.0], [1.0, float("inf")], "must be finite"),
    ],
)
def test_what_cannot_be_measured(metric: str, predictions: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(metric, predictions, labels)


# The real files.


def needs(folder: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not folder.is_dir(), reason=f"the real data sets are not in {folder}")


COUNTS = {
    "CoLA": (8551, 1043),
    "MRPC": (3667, 408),
    "RTE": (2490, 277),
    "SST-2": (67349, 872),
    "STS-B": (5749, 1500),
    "WNLI": (635, 71),
    "QNLI": (None, 5463),
}


@needs(GLUE)
@pytest.mark.parametrize("name", COUNTS)
def test_glue_row_by_row(name: str) -> None:
    """The official counts, and the same columns as the csv module finds without quoting."""
    kind = task(name)
    for split, count in zip(("train", "dev"), COUNTS[name], strict=True):
        if count is None:
            continue
        found = kind.read(GLUE / name, split)
        assert len(found) == count
        with (GLUE / name / f"{split}.tsv").open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, kind.header, delimiter="\t", quoting=csv.QUOTE_NONE))
        *texts, label = kind.columns
        assert len(rows) == count
        for example, row in zip(found, rows, strict=True):
            assert (example.text if kind.pair else (example.text,)) == tuple(row[column] for column in texts)
            assert (example.label if kind.regression else kind.labels[int(example.label)]) == (
                float(row[label]) if kind.regression else row[label]
            )
        if not kind.regression:
            assert {example.label for example in found} == set(range(kind.num_labels))


@needs(GLUE)
def test_sick_splits() -> None:
    found = {split: task("sick").read(GLUE / "SICK", split) for split in ("train", "dev", "test")}
    assert {split: len(rows) for split, rows in found.items()} == {"train": 4439, "dev": 495, "test": 4906}
    assert {example.label for example in found["test"]} == {0, 1, 2}


@needs(REFERENCE)
def test_the_references_mnli() -> None:
    for split, count in (("train", 24), ("dev", 45)):
        found = task("mnli").read(REFERENCE, split)
        assert len(found) == count
        assert {example.label for example in found} == {0, 1, 2}
