"""Models as the flags name them: today's folders, weights alone, and what the published code kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import LABELS, write_mnli
from common.classifier import load_classifier
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, BertForSequenceClassification, BertModel

from captum_attattr.published.tasks import task

MNLI = task("mnli")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT in today's form, its weights alone, and both as the published code has them."""
    folder = write_mnli(tmp_path_factory.mktemp("mnli"))
    config = json.loads((folder / "model/config.json").read_text())
    kept = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    old = folder / "old"
    old.mkdir()
    named = {name: config[name] for name in (*kept, "max_position_embeddings", "initializer_range")}
    (old / "bert_config.json").write_text(json.dumps(named))
    (old / "vocab.txt").write_text((folder / "model/vocab.txt").read_text())
    weights = torch.load(folder / "model.bin", weights_only=True)
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for key, value in weights.items():
        ending = next((ending for ending in names if key.endswith(ending)), None)
        renamed[key.replace(ending, names[ending]) if ending else key] = value
    assert any(key.endswith("gamma") for key in renamed)
    torch.save(renamed, old / "pytorch_model.bin")
    save_file(weights, folder / "model.safetensors")
    return folder


def load(folder: Path, bert_model: str = "model", model_file: str | None = "model.bin", **options: Any) -> Any:
    file = None if model_file is None else str(folder / model_file)
    return load_classifier(str(folder / bert_model), file, MNLI, options.pop("do_lower_case", False), **options)


def logits(folder: Path, eps: float) -> Tensor:
    model = BertForSequenceClassification.from_pretrained(folder / "model", layer_norm_eps=eps).eval()
    with torch.no_grad():
        return model(torch.arange(4, 20)[None]).logits


FORMS = {
    "folder": ("model", None, 1e-12),
    "other folder": ("old", "model", 1e-12),
    "state dict": ("model", "model.bin", 1e-12),
    "safetensors": ("model", "model.safetensors", 1e-12),
    "names of old": ("model", "old/pytorch_model.bin", 1e-12),
    "old": ("old", None, 1e-5),
    "old, and weights": ("old", "model.bin", 1e-5),
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_in_any_form_are_the_same_model(folder, form):
    bert_model, model_file, eps = FORMS[form]
    model, tokenizer = load(folder, bert_model, model_file)
    assert not model.training
    assert model.config.layer_norm_eps == eps
    assert list(model.config.id2label.values()) == list(LABELS)
    with torch.no_grad():
        # Not the same bits: where in memory a file's numbers lie decides how they are added up.
        torch.testing.assert_close(model(torch.arange(4, 20)[None]).logits, logits(folder, eps), rtol=0, atol=2e-6)
    assert tokenizer.convert_ids_to_tokens(tokenizer("a B")["input_ids"])[:2] == ["[CLS]", "a"]


def test_epsilon_can_be_given(folder):
    for bert_model, model_file in (("model", None), ("model", "model.bin"), ("old", None)):
        model, _ = load(folder, bert_model, model_file, layer_norm_eps=1e-3)
        assert {part.eps for part in model.modules() if isinstance(part, torch.nn.LayerNorm)} == {1e-3}


def test_note_says_by_how_much_epsilon_matters_and_only_then(folder, tmp_path, capsys):
    load(folder)
    note = capsys.readouterr().out
    assert note.startswith(f"note: layer_norm_eps is 1e-12, as {folder / 'model'} says; the published code always")
    assert note.count("\n") == 1
    said = float(note.split("by about ")[1].split(". ")[0])
    assert 1e-5 < said < 1e-2
    assert (logits(folder, 1e-5) - logits(folder, 1e-12)).abs().max() == pytest.approx(said, rel=3)
    for options in (
        {"layer_norm_eps": 1e-12},
        {"model_file": "model.safetensors"},  # which the published code does not write
        {"model_file": None},
        {"bert_model": "old"},
    ):
        load(folder, **options)
        assert not capsys.readouterr().out, options
    weights = torch.load(folder / "model.bin", weights_only=True)
    for key in weights:
        if key.endswith(("embeddings.weight", "output.dense.weight")):
            weights[key] *= 1e3  # layers whose variance drowns any epsilon
    torch.save(weights, tmp_path / "loud.bin")
    load_classifier(str(folder / "model"), str(tmp_path / "loud.bin"), MNLI, False)
    assert not capsys.readouterr().out


def test_epsilon_is_left_as_the_configuration_says(folder):
    model, _ = load(folder)
    assert {part.eps for part in model.modules() if isinstance(part, torch.nn.LayerNorm)} == {1e-12}


def test_old_folder_is_cased_unless_told_otherwise(folder):
    for lower, expected in ((False, "[UNK]"), (True, "a")):
        _, tokenizer = load(folder, "old", do_lower_case=lower)
        assert tokenizer.convert_ids_to_tokens(tokenizer("A")["input_ids"])[1] == expected


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no weights": ({"bert_model": "empty", "model_file": None}, r"no file of weights '.*empty/pytorch_model\.bin'"),
    "no vocabulary": ({"bert_model": "bare"}, r"no file '.*bare/vocab\.txt'"),
    "configuration": ({"bert_model": "broken"}, r"bert_config\.json' is no configuration of BERT"),
    "other sizes": ({"model_file": "wide.bin"}, r"does not fit the model: it has other sizes of classifier\.bias, c"),
    "one missing": ({"model_file": "less.bin"}, r"less\.bin' does not fit the model: it lacks classifier\.bias$"),
    "unknown": ({"model_file": "more.bin"}, r"has the unknown extra\.0, extra\.1, extra\.2 and 2 more$"),
    "no mapping": (
        {"model_file": "list.bin"},
        r"list\.bin' holds no state dict, which maps names to tensors, but a list",
    ),
    "not fine-tuned": ({"model_file": "plain"}, r"plain' does not fit the model: it lacks classifier\.bias, classi"),
    "two classes": ({"model_file": "two"}, r"two' does not fit the model: it has other sizes of classifier\.bias"),
    "pointer": ({"bert_model": "pointer", "model_file": None}, r"the weights in '.*pointer' are damaged"),
    "tokenizer": ({"bert_model": "nonsense"}, r"the tokenizer in '.*nonsense' cannot be loaded"),
    "path": ({"bert_model": "no/such/folder"}, r"no folder '.*no/such/folder'"),
    "file": ({"bert_model": "model.bin"}, "is a file; a folder or a hub name is needed"),
}


@pytest.fixture(scope="module")
def broken(folder: Path) -> Path:
    """Models that do not fit, beside those that do."""
    weights = torch.load(folder / "model.bin", weights_only=True)
    wide = {"classifier.bias": torch.zeros(2), "classifier.weight": torch.zeros(2, 32)}
    torch.save(weights | wide, folder / "wide.bin")
    torch.save({key: value for key, value in weights.items() if key != "classifier.bias"}, folder / "less.bin")
    torch.save(weights | {f"extra.{i}": torch.zeros(1) for i in range(5)}, folder / "more.bin")
    torch.save([1, 2], folder / "list.bin")
    config = AutoConfig.from_pretrained(folder / "model")
    BertModel(config).save_pretrained(folder / "plain")
    BertForSequenceClassification(AutoConfig.from_pretrained(folder / "model", num_labels=2)).save_pretrained(
        folder / "two"
    )
    for name, files in (("empty", 2), ("bare", 1), ("broken", 2)):
        (folder / name).mkdir()
        for file in ("bert_config.json", "vocab.txt")[:files]:
            (folder / name / file).write_text((folder / "old" / file).read_text())
    (folder / "broken/bert_config.json").write_text("{")
    for name in ("pointer", "nonsense"):
        shutil.copytree(folder / "model", folder / name)
    (folder / "pointer/model.safetensors").unlink()
    (folder / "pointer/pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    (folder / "nonsense/tokenizer_config.json").unlink()
    (folder / "nonsense/tokenizer.json").write_text("{}")
    return folder


@pytest.mark.parametrize("name", MISTAKES)
def test_model_that_does_not_fit_is_told_by_its_keys(broken, name, capsys):
    options, message = MISTAKES[name]
    with pytest.raises((OSError, ValueError), match=message):
        load(broken, **options)
    assert not capsys.readouterr().err


def test_pickles_are_not_run(tmp_path, folder):
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "run",)

    torch.save({"classifier.bias": Evil()}, tmp_path / "evil.bin")
    with pytest.raises(ValueError, match="is no file of weights"):
        load_classifier(str(folder / "model"), str(tmp_path / "evil.bin"), MNLI, False)
    assert not (tmp_path / "run").exists()
