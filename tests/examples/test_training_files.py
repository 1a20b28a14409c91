"""The files of the published code's fine-tuning, what is trained from them, and the flags that it knows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import run_classifier_orig
import torch
from common import training_files
from safetensors.torch import load_file
from training import QUERY, WORDS, fine_tune, tiny_config
from transformers import BertForSequenceClassification, BertModel, Trainer


@pytest.mark.parametrize("which", ["all", "lora"])
def test_weights_of_every_epoch_are_those_of_a_plain_model(
    which: str, tmp_path: Path, flags: Callable[..., list[str]]
) -> None:
    run_classifier_orig.main(flags(tmp_path / "out", "--do_train", "--trainable", which, "--lora_rank", "2"))
    assert not list((tmp_path / "out").glob("dev*"))  # nothing was evaluated
    model = BertForSequenceClassification.from_pretrained(tmp_path / "out")
    first, last = (torch.load(tmp_path / f"out/model.{epoch}.bin", weights_only=True) for epoch in (1, 2))
    assert last.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(last[name], value, rtol=0, atol=1e-6)
    assert not torch.equal(first[f"{QUERY}.weight"], last[f"{QUERY}.weight"])


def test_results_of_all_epochs_are_kept_when_a_training_is_resumed(
    tmp_path: Path, flags: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--do_train", "--do_eval", "--num_train_epochs", "3")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_classifier_orig.main(flags(whole, *more))
    step, steps = Trainer.training_step, iter(range(100))

    def interrupted(*args: Any, **options: Any) -> torch.Tensor:
        if next(steps) == 3:
            raise KeyboardInterrupt
        return step(*args, **options)

    monkeypatch.setattr(Trainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_classifier_orig.main(flags(broken, *more))
    monkeypatch.setattr(Trainer, "training_step", step)
    run_classifier_orig.main(flags(broken, *more, "--resume"))
    results = [json.loads((folder / "dev.txt").read_text()) for folder in (whole, broken)]
    for one, other in zip(*results, strict=True):
        assert one["epoch"] == other["epoch"]
        assert other["eval_loss"] == pytest.approx(one["eval_loss"])
    assert [entry["epoch"] for entry in results[0]] == [1, 2, 3]
    for epoch in (1, 2, 3):
        assert (whole / f"dev.{epoch}.pred").read_text() == (broken / f"dev.{epoch}.pred").read_text()


def test_best_epoch_is_kept_where_that_is_asked_for(
    tmp_path: Path, flags: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the metric, here one that prefers the first epoch."""
    values = iter([0.9, 0.2, 0.9])
    monkeypatch.setattr(training_files, "score", lambda *_: next(values))
    measured = run_classifier_orig.main(flags(tmp_path / "out", "--do_train", "--do_eval", "--keep_best"))
    assert measured["eval_accuracy"] == 0.9
    kept = load_file(tmp_path / "out" / "model.safetensors")
    first, last = (torch.load(tmp_path / f"out/model.{epoch}.bin", weights_only=True) for epoch in (1, 2))
    assert torch.equal(kept["classifier.weight"], first["classifier.weight"])
    assert not torch.equal(kept["classifier.weight"], last["classifier.weight"])
    assert [entry["eval_result"] for entry in json.loads((tmp_path / "out/dev.txt").read_text())] == [0.9, 0.2]


def test_training_starts_from_other_weights_if_they_are_given(tmp_path: Path, flags: Callable[..., list[str]]) -> None:
    run_classifier_orig.main(flags(tmp_path / "out", "--do_train", "--do_eval"))
    start = tmp_path / "out/model.1.bin"
    run_classifier_orig.main(flags(tmp_path / "again", "--do_eval", "--model_recover_path", str(start)))
    (result,) = json.loads((tmp_path / "again/dev.txt").read_text())
    first, _ = json.loads((tmp_path / "out/dev.txt").read_text())
    assert result["eval_loss"] == pytest.approx(first["eval_loss"])
    assert (result["epoch"], result["model_recover_path"]) == (0, str(start))
    assert (tmp_path / "again/dev.0.pred").read_text() == (tmp_path / "out/dev.1.pred").read_text()


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path, flags: Callable[..., list[str]]) -> None:
    more = ("--do_train", "--train_batch_size", "8", "--num_train_examples", "8", "--num_train_epochs", "1")
    for parts in ("1", "4"):
        model = flags(tmp_path / parts, *more, "--gradient_accumulation_steps", parts)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.functional, "dropout", lambda values, *_, **__: values)
            run_classifier_orig.main(model)
    whole, parts_ = (load_file(tmp_path / parts / "model.safetensors") for parts in ("1", "4"))
    for name, value in whole.items():
        torch.testing.assert_close(parts_[name], value, rtol=0, atol=2e-4)


def test_mixed_precision_on_the_cpu(tmp_path: Path, flags: Callable[..., list[str]]) -> None:
    run_classifier_orig.main(flags(tmp_path / "half", "--do_train", "--bf16", "--num_train_epochs", "1"))
    run_classifier_orig.main(flags(tmp_path / "full", "--do_train", "--num_train_epochs", "1"))
    half, full = (load_file(tmp_path / name / "model.safetensors") for name in ("half", "full"))
    assert half["classifier.weight"].dtype == torch.float32
    assert not torch.equal(half["classifier.weight"], full["classifier.weight"])
    torch.testing.assert_close(half["classifier.weight"], full["classifier.weight"], rtol=0, atol=0.1)


def test_folder_as_the_published_code_reads_it_is_trained(tmp_path: Path, flags: Callable[..., list[str]]) -> None:
    old = tmp_path / "old"
    old.mkdir()
    kept = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    config = {name: tiny_config().to_dict()[name] for name in (*kept, "max_position_embeddings")}
    (old / "bert_config.json").write_text(json.dumps(config))
    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
    (old / "vocab.txt").write_text("\n".join(tokens) + "\n")
    weights = {f"bert.{name}": value for name, value in BertModel(tiny_config()).state_dict().items()}
    torch.save(
        {name.replace("LayerNorm.weight", "LayerNorm.gamma"): value for name, value in weights.items()},
        old / "pytorch_model.bin",
    )
    run_classifier_orig.main(flags(tmp_path / "out", "--do_train", "--bert_model", str(old), "--learning_rate", "1e-9"))
    model = BertForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.layer_norm_eps == 1e-5
    torch.testing.assert_close(model.state_dict()[f"{QUERY}.weight"], weights[f"{QUERY}.weight"], rtol=0, atol=1e-6)


def test_training_is_resumed_with_the_same_flags_only(
    tmp_path: Path, flags: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run_classifier_orig.main(flags(out, "--do_train", "--do_eval"))
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    for more, message in (
        ("--do_train --resume --train_batch_size 8", "--resume: the training was begun with --train_batch_size 32"),
        ("--do_eval", "holds a training's results; choose another --output_dir"),
    ):
        with pytest.raises(SystemExit):
            fine_tune(flags(out, *more.split()))
        assert message in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_encoder_that_lacks_a_layer_is_not_trained(
    tmp_path: Path, flags: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    model = BertModel(tiny_config())
    del model.encoder.layer[1]
    model.config.num_hidden_layers = 2
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(SystemExit):
        fine_tune(flags(tmp_path / "out", "--do_train", "--bert_model", str(tmp_path / "model")))
    assert "does not fit the model: it lacks bert.encoder.layer.1." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
