"""The two pruning scripts through the command line: the published files, their numbers, and plain refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import command_line
import prune_head_with_taylor
import pytest
import torch
from command_line import LABELS, REFERENCE, ROWS, needs_reference, run, write_mnli
from common import head_pruning
from common.classifier import load_classifier
from transformers import BertForSequenceClassification

from captum_attattr import HeadImportance, head_importance, pruning_curve
from captum_attattr.published.tasks import task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT and MNLI-shaped rows."""
    return write_mnli(tmp_path_factory.mktemp("mnli"))


def flags(folder: Path, output: Path, **changes: Any) -> list[str]:
    return command_line.flags(folder, output, **{"num_examples": 4} | changes)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def expected(folder: Path, method: str, **options: Any) -> tuple[HeadImportance, Any]:
    """What the library gives for the same rows."""
    from transformers import AutoTokenizer

    model = BertForSequenceClassification.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = task("mnli").read(folder / "data", "dev")
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    found = head_importance(model, tokenizer, texts[:4], labels[:4], method, progress=False, **options)
    return found, pruning_curve(model, tokenizer, texts, labels, found, progress=False)


def test_attribution_script_writes_the_published_files(folder, tmp_path):
    done = run("prune_head_with_attr.py", *flags(folder, tmp_path / "out"), "--structural")
    assert done.returncode == 0, done.stderr
    importance, curve = expected(folder, "attattr", n_steps=20, rule="riemann_left")
    sums = read(tmp_path / "out/head_importance_attr.json")
    assert sums == pytest.approx((importance.scores * 4).flatten().tolist(), rel=1e-5)
    assert read(tmp_path / "out/prune_result_attr.json") == curve.metric
    assert (tmp_path / "out/head_importance_attr.json").read_text().startswith("[\n  ")  # indented as published
    assert "4 of them in the ranking too" in done.stdout
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".html", ".safetensors"}


def test_taylor_script_writes_a_list_for_each_layer(folder, tmp_path):
    done = run("prune_head_with_taylor.py", *flags(folder, tmp_path), "--evaluation_rows", "4:")
    assert done.returncode == 0, done.stderr
    importance, _ = expected(folder, "taylor_logits")
    torch.testing.assert_close(
        torch.tensor(read(tmp_path / "head_importance_taylor.json"), dtype=torch.double), importance.scores
    )
    assert len(read(tmp_path / "prune_result_taylor.json")) == 11
    assert f"on dev rows 4 to {ROWS - 1}, 0 of them in the ranking too" in done.stdout


@pytest.mark.slow
def test_published_takes_the_papers_definitions(folder, tmp_path):
    for script, kind in (("prune_head_with_attr.py", "attr"), ("prune_head_with_taylor.py", "taylor")):
        done = run(script, *flags(folder, tmp_path, model_file=folder / "model"), "--published", "--quiet")
        assert done.returncode == 0, done.stderr
        options = {"n_steps": 20, "rule": "riemann_right"} if kind == "attr" else {}
        importance, _ = expected(folder, "attattr" if kind == "attr" else "taylor", **options)
        stored = HeadImportance.load(tmp_path / f"head_importance_{kind}.safetensors")
        torch.testing.assert_close(stored.scores, importance.scores, rtol=1e-5, atol=1e-8)


@pytest.mark.slow
def test_two_processes_resume_and_write_what_one_writes(folder, tmp_path):
    one = run("prune_head_with_taylor.py", *flags(folder, tmp_path / "one", eval_batch_size=2))
    given = [*flags(folder, tmp_path / "two", eval_batch_size=2), "--resume"]
    two = run("prune_head_with_taylor.py", *given, processes=2)
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    assert (tmp_path / "two/head_importance_taylor.jsonl.rank1").is_file()
    files = "head_importance_taylor.json", "prune_result_taylor.json"
    single, shared = ([read(tmp_path / name / file) for file in files] for name in ("one", "two"))
    torch.testing.assert_close(torch.tensor(shared[0]), torch.tensor(single[0]), rtol=0, atol=1e-6)
    assert shared[1] == single[1]
    again = run("prune_head_with_taylor.py", *given)
    assert again.returncode == 0, again.stderr
    assert [read(tmp_path / "two" / file) for file in files] == shared


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "task": ({"task_name": "MNIST"}, "MNIST"),
    "data": ({"data_dir": "nowhere"}, "nowhere"),
    "model": ({"bert_model": "nowhere"}, "nowhere"),
    "weights": ({"model_file": "nowhere.bin"}, "no file of weights 'nowhere.bin'"),
    "junk": ({"model_file": __file__}, "is no file of weights"),
    "rows": ({"evaluation_rows": "99:"}, f"--evaluation_rows '99:' holds no row; the file has {ROWS}"),
    "range": ({"evaluation_rows": "all of them"}, "must be START:END"),
    "number": ({"num_examples": 0}, "--num_examples is 0; it must be 1 or more"),
    "length": ({"max_seq_length": 2}, "--max_seq_length is 2; it must be 3 or more: [CLS], a word, [SEP]"),
    "output": ({"output_dir": __file__}, "cannot be written: File exists"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_one_line_and_status_2(folder, tmp_path, capsys, name):
    changes, message = MISTAKES[name]
    line = [str(part) for part in flags(folder, tmp_path / "out", **changes)]
    with pytest.raises(SystemExit) as end:
        head_pruning.run(line, "taylor", "", prune_head_with_taylor.method)
    assert end.value.code == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert ": error: " in said
    assert message in said
    assert not list(tmp_path.rglob("*.json"))


def refusal(capsys: pytest.CaptureFixture[str], given: list[Any]) -> str:
    """The one line with which a script ends."""
    with pytest.raises(SystemExit) as end:
        head_pruning.run([str(part) for part in given], "taylor", "", prune_head_with_taylor.method)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return str(line)


@pytest.mark.parametrize("kept", [[1, 2], {"weights": {}}, {1: torch.zeros(1)}], ids=["list", "nested", "numbers"])
def test_file_without_a_state_dict_is_one_line(folder, tmp_path, capsys, kept):
    torch.save(kept, tmp_path / "kept.bin")
    line = refusal(capsys, flags(folder, tmp_path / "out", model_file=tmp_path / "kept.bin"))
    assert "kept.bin' holds no state dict, which maps names to tensors" in line


def test_damaged_and_missing_files_are_one_line(folder, tmp_path, capsys):
    copy = tmp_path / "model"
    shutil.copytree(folder / "model", copy)
    given = flags(folder, tmp_path / "out", bert_model=copy, model_file=None)
    BertForSequenceClassification.from_pretrained(copy).bert.save_pretrained(copy)
    assert "does not fit the model: it lacks classifier.bias, classifier.weight" in refusal(capsys, given)
    (copy / "model.safetensors").write_bytes(b"junk")
    assert "are damaged: " in refusal(capsys, given)
    given = flags(folder, tmp_path / "out", bert_model=copy)
    (copy / "vocab.txt").unlink()
    assert "its vocabulary is missing" in refusal(capsys, given)


def test_tokenizer_of_another_model_is_one_line(folder, tmp_path, capsys):
    copy = tmp_path / "model"
    shutil.copytree(folder / "model", copy)
    words = (copy / "vocab.txt").read_text().split()
    (copy / "vocab.txt").write_text("\n".join([*words[:4], *"{}[]()", *words[4:]]) + "\n")
    line = refusal(capsys, flags(folder, tmp_path / "out", bert_model=copy))
    assert "and the model knows 40 tokens: the tokenizer is another model's" in line


def test_mistake_ends_the_program_without_a_traceback(folder, tmp_path):
    done = run("prune_head_with_taylor.py", *flags(folder, tmp_path, task_name="MNIST"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("prune_head_with_taylor.py: error: ")


def test_weights_of_another_model_are_refused_by_key(folder, tmp_path):
    torch.save({"bert.pooler.dense.weight": torch.zeros(3, 3)}, tmp_path / "other.bin")
    with pytest.raises(ValueError, match=r"does not fit the model: it lacks bert\.embeddings"):
        load_classifier(str(folder / "model"), str(tmp_path / "other.bin"), task("mnli"), False)


def test_models_own_label_order_counts(folder, tmp_path):
    """The model with its classes in another order, and its rows moved with them, is the same model."""
    model = BertForSequenceClassification.from_pretrained(folder / "model")
    order = [2, 0, 1]
    with torch.no_grad():
        for part in (model.classifier.weight, model.classifier.bias):
            part.copy_(part[order].clone())
    model.config.id2label = {i: LABELS[label].upper() for i, label in enumerate(order)}
    model.save_pretrained(tmp_path / "model")
    results = []
    for weights in (folder / "model", tmp_path / "model"):
        line = flags(folder, tmp_path / "out", model_file=weights)
        head_pruning.run([str(part) for part in (*line, "--quiet")], "taylor", "", prune_head_with_taylor.method)
        results.append(read(tmp_path / "out/prune_result_taylor.json"))
    assert results[0] == results[1]
    model.config.id2label = {0: "a", 1: "b", 2: "c"}
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"tells \['a', 'b', 'c'\] apart, the task mnli"):
        load_classifier(str(folder / "model"), str(tmp_path / "model"), task("mnli"), False)


def test_weights_with_the_names_of_old_are_taken(folder, tmp_path):
    weights = torch.load(folder / "model.bin", weights_only=True)
    renamed = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value + 1
        for key, value in weights.items()
    }
    torch.save(renamed, tmp_path / "old.bin")
    model, _ = load_classifier(str(folder / "model"), str(tmp_path / "old.bin"), task("mnli"), False)
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key] + 1), key


@pytest.mark.slow
@needs_reference
def test_published_commands_give_the_published_files(tmp_path):
    model = REFERENCE / "tiny-base"
    given = {"bert_model": model, "model_file": model / "pytorch_model.bin", "num_examples": 12}
    given |= {"task_name": "mnli", "data_dir": REFERENCE / "mnli", "output_dir": tmp_path}
    line = [part for name, value in given.items() for part in (f"--{name}", value)]
    for script, kind in (("prune_head_with_attr.py", "attr"), ("prune_head_with_taylor.py", "taylor")):
        done = run(script, *line, "--quiet")
        assert done.returncode == 0, done.stderr
        found, published = (read(place / f"head_importance_{kind}.json") for place in (tmp_path, REFERENCE / "out"))
        torch.testing.assert_close(torch.tensor(found), torch.tensor(published), rtol=1e-4, atol=0)
        assert read(tmp_path / f"prune_result_{kind}.json") == read(REFERENCE / f"out/prune_result_{kind}.json")
