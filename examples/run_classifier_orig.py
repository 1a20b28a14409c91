"""Fine-tunes and evaluates a sequence classifier, with the flags of the published AttAttr code.

The weights after the last epoch are kept, never the best on the held-out examples: choosing by them would
flatter the figure measured on them.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from classifier_flags import check_writable, checkpoints, read_flags
from demo_model import PACKAGE, encoder_folder, load_demo_model
from low_rank import merge_low_rank
from staged import staged
from task_data import TaskData, encode, read_task_data
from trained_part import choose_trainable, round_to_half, save_trained, trained_tensors
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EvalPrediction,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

from captum_attattr.metrics import score

LORA_SCALE = 2.0


def load_model(args: argparse.Namespace, names: Sequence[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads ``--bert_model``, with the part named by ``--trainable`` ready to train.

    Args:
        args: the flags.
        names: the names of the task's outputs.

    Returns:
        The classifier and its tokenizer.

    Raises:
        ImportError: the default encoder is not installed.
        OSError: there is no such model.
        ValueError: ``--max_seq_length`` or ``--lora_rank`` does not fit the model, or its outputs are not the task's.
    """
    if (args.bert_model or "").endswith(".safetensors"):
        model, tokenizer = load_demo_model(args.bert_model)
        _check_labels(args.bert_model, model.config, names)
        return model, tokenizer
    name = args.bert_model or str(encoder_folder())
    try:
        config = AutoConfig.from_pretrained(name)
    except OSError as error:
        raise OSError(f"--bert_model {name!r} cannot be loaded: {error}") from error
    fine_tuned = any(kind.endswith("ForSequenceClassification") for kind in config.architectures or [])
    if fine_tuned and config.num_labels != len(names):
        raise ValueError(f"{name!r} has {config.num_labels} outputs and the task {len(names)}: {', '.join(names)}")
    if not args.do_train:
        _check_labels(name, config, names)
    labels = {"id2label": dict(enumerate(names)), "label2id": {label: i for i, label in enumerate(names)}}
    set_seed(args.seed)
    model = AutoModelForSequenceClassification.from_pretrained(name, **labels)
    positions = getattr(model.config, "max_position_embeddings", args.max_seq_length)
    if args.max_seq_length > positions:
        raise ValueError(f"--max_seq_length is {args.max_seq_length}; {name!r} takes at most {positions} tokens")
    if args.do_train:
        choose_trainable(model, args.trainable, args.lora_rank, LORA_SCALE)
    return model, AutoTokenizer.from_pretrained(name, **({"do_lower_case": True} if args.do_lower_case else {}))


def _check_labels(model: str, config: PreTrainedConfig, names: Sequence[str]) -> None:
    """Refuses to evaluate a model whose own names say that its outputs mean something else."""
    own = [str(label) for _, label in sorted((config.id2label or {}).items())]
    if [label.lower() for label in own] != list(names) and own != [f"LABEL_{i}" for i in range(len(own))]:
        raise ValueError(f"{model!r} has the outputs {', '.join(own)}; the task's are {', '.join(names)}")


def about_training(
    args: argparse.Namespace, argv: Sequence[str], data: TaskData, metrics: dict[str, float]
) -> dict[str, Any]:
    """Returns what the header of an exported file says about the training with these flags."""
    packaged = {"package": PACKAGE, "version": version(PACKAGE)} if args.bert_model is None else None
    return {
        "base": packaged or {"model": args.bert_model},
        "task": args.task_name,
        "trainable": args.trainable,
        "rank": args.lora_rank if args.trainable == "lora" else None,
        "scale": LORA_SCALE,
        "labels": data.labels,
        "seed": args.seed,
        data.metric: metrics.get(f"eval_{data.metric}"),
        "command": shlex.join(["python", "examples/run_classifier_orig.py", *argv]),
    }


def main(argv: Sequence[str]) -> dict[str, float]:
    """Trains and evaluates as the flags say.

    Args:
        argv: the flags.

    Returns:
        The figures of the final evaluation; none without ``--do_eval``.
    """
    args = read_flags(argv)
    try:
        data = read_task_data(args)
        model, tokenizer = load_model(args, data.labels)
        check_writable(args)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"{Path(__file__).name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)

    def measure(prediction: EvalPrediction) -> dict[str, float]:
        return {data.metric: score(data.metric, prediction.predictions, prediction.label_ids)}

    use_cpu = args.no_cuda or not torch.cuda.is_available()
    settings = TrainingArguments(
        output_dir=args.output_dir,
        per_device_train_batch_size=args.train_batch_size,
        per_device_eval_batch_size=args.eval_batch_size,
        learning_rate=args.learning_rate,
        num_train_epochs=args.num_train_epochs,
        warmup_steps=args.warmup_proportion,
        seed=args.seed,
        use_cpu=use_cpu,
        dataloader_pin_memory=not use_cpu,
        eval_strategy="epoch" if args.do_eval else "no",
        save_strategy="epoch",
        train_sampling_strategy="group_by_length" if args.group_by_length else "random",
        save_total_limit=2,
        logging_steps=50,
    )
    trainer = Trainer(
        model,
        settings,
        train_dataset=encode(data.train, tokenizer, args.max_seq_length) or None,
        eval_dataset=encode(data.held_out, tokenizer, args.max_seq_length) or None,
        processing_class=tokenizer,
        compute_metrics=measure,
    )
    if args.do_train:
        trainer.train(resume_from_checkpoint=str(checkpoints(args.output_dir)[-1]) if args.resume else None)
        if args.export:
            round_to_half(model)
        trained = trained_tensors(model)
        merge_low_rank(model)
        with staged(args.output_dir) as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    metrics = trainer.evaluate() if args.do_eval else {}
    if args.do_eval:
        with staged(args.output_dir) as folder:
            (folder / "eval_results.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    if args.export:
        save_trained(trained, args.export, about_training(args, argv, data, metrics))
    return metrics


if __name__ == "__main__":
    main(sys.argv[1:])
