"""Fine-tunes and evaluates a sequence classifier, with the flags of the published AttAttr code.

The weights after the last epoch are kept, never the best on the held-out sentences: choosing by them would
flatter the accuracy measured on them.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classifier_flags import checkpoints, read_flags
from demo_model import PACKAGE, encoder_folder, load_demo_model
from film_reviews import LABELS, Review, find_archive, read_film_reviews
from low_rank import merge_low_rank
from staged import staged
from trained_part import choose_trainable, round_to_half, save_trained, trained_tensors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

LORA_SCALE = 2.0


def load_model(args: argparse.Namespace) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads ``--bert_model``, with the part named by ``--trainable`` ready to train.

    Args:
        args: the flags.

    Returns:
        The classifier and its tokenizer.

    Raises:
        ImportError: the default encoder is not installed.
        OSError: there is no such model.
        ValueError: ``--max_seq_length`` or ``--lora_rank`` does not fit the model.
    """
    if (args.bert_model or "").endswith(".safetensors"):
        return load_demo_model(args.bert_model)
    name = args.bert_model or str(encoder_folder())
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    set_seed(args.seed)
    model = AutoModelForSequenceClassification.from_pretrained(name, **labels)
    positions = getattr(model.config, "max_position_embeddings", args.max_seq_length)
    if args.max_seq_length > positions:
        raise ValueError(f"--max_seq_length is {args.max_seq_length}; {name!r} takes at most {positions} tokens")
    if args.do_train:
        choose_trainable(model, args.trainable, args.lora_rank, LORA_SCALE)
    return model, AutoTokenizer.from_pretrained(name, **({"do_lower_case": True} if args.do_lower_case else {}))


def encode(reviews: list[Review], tokenizer: PreTrainedTokenizerBase, length: int) -> list[dict[str, Any]]:
    """Returns one unpadded input of at most ``length`` tokens, with its label, for each sentence."""
    inputs = tokenizer([review.text for review in reviews], truncation=True, max_length=length)
    columns = {**inputs, "labels": [review.label for review in reviews]}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Returns the share of inputs whose largest logit is their label's, as ``{"accuracy": share}``."""
    return {"accuracy": float((np.argmax(prediction.predictions, -1) == prediction.label_ids).mean())}


def about_training(args: argparse.Namespace, argv: Sequence[str], metrics: dict[str, float]) -> dict[str, Any]:
    """Returns what the header of an exported file says about the training with these flags."""
    packaged = {"package": PACKAGE, "version": version(PACKAGE)} if args.bert_model is None else None
    return {
        "base": packaged or {"model": args.bert_model},
        "task": args.task_name,
        "trainable": args.trainable,
        "rank": args.lora_rank if args.trainable == "lora" else None,
        "scale": LORA_SCALE,
        "labels": LABELS,
        "seed": args.seed,
        "accuracy": metrics.get("eval_accuracy"),
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
        train, held_out = read_film_reviews(find_archive(args.data_dir))
        model, tokenizer = load_model(args)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{Path(__file__).name}: error: {error}")
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
        save_total_limit=2,
        logging_steps=50,
    )
    trainer = Trainer(
        model,
        settings,
        train_dataset=encode(train, tokenizer, args.max_seq_length),
        eval_dataset=encode(held_out, tokenizer, args.max_seq_length),
        processing_class=tokenizer,
        compute_metrics=accuracy,
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
        save_trained(trained, args.export, about_training(args, argv, metrics))
    return metrics


if __name__ == "__main__":
    main(sys.argv[1:])
