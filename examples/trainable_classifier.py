"""The classifier that the fine-tuning script trains, and what an exported file says about its training."""

import argparse
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from classifier import load_weights
from demo_model import PACKAGE, encoder_folder, load_demo_model
from old_checkpoints import is_old, old_config, old_tokenizer, old_weights, todays_names
from task_data import TaskData
from trained_part import choose_trainable
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

LORA_SCALE = 2.0
"""The factor of low-rank updates."""


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
        ValueError: ``--max_seq_length``, ``--lora_rank`` or ``--model_recover_path`` does not fit the model, or its
            outputs are not the task's.
    """
    if (args.bert_model or "").endswith(".safetensors"):
        model, tokenizer = load_demo_model(args.bert_model)
        _check_labels(args.bert_model, model.config, names)
        return model, tokenizer
    name = args.bert_model or str(encoder_folder())
    if is_old(name):
        return _prepared(args, name, _old_model(args, name, names)), old_tokenizer(name, args.do_lower_case)
    try:
        config = AutoConfig.from_pretrained(name)
    except OSError as error:
        raise OSError(f"--bert_model {name!r} cannot be loaded: {error}") from error
    fine_tuned = any(kind.endswith("ForSequenceClassification") for kind in config.architectures or [])
    if fine_tuned and config.num_labels != len(names):
        raise ValueError(f"{name!r} has {config.num_labels} outputs and the task {len(names)}: {', '.join(names)}")
    if not args.do_train:
        _check_labels(name, config, names)
    set_seed(args.seed)
    model = AutoModelForSequenceClassification.from_pretrained(name, **_labels(names))
    tokenizer = AutoTokenizer.from_pretrained(name, **({"do_lower_case": True} if args.do_lower_case else {}))
    return _prepared(args, name, model), tokenizer


def _prepared(args: argparse.Namespace, name: str, model: PreTrainedModel) -> PreTrainedModel:
    """The model with the weights of ``--model_recover_path``, and what is not trained frozen."""
    positions = getattr(model.config, "max_position_embeddings", args.max_seq_length)
    if args.max_seq_length > positions:
        raise ValueError(f"--max_seq_length is {args.max_seq_length}; {name!r} takes at most {positions} tokens")
    if args.model_recover_path:
        load_weights(model, args.model_recover_path)
    if args.do_train:
        choose_trainable(model, args.trainable, args.lora_rank, LORA_SCALE)
    return model


def _old_model(args: argparse.Namespace, name: str, names: Sequence[str]) -> PreTrainedModel:
    """A classifier from bert_config.json and pytorch_model.bin, pretrained or fine-tuned."""
    config = old_config(name, _labels(names))
    weights = todays_names(torch.load(old_weights(name), map_location="cpu", weights_only=True))
    set_seed(args.seed)
    return BertForSequenceClassification.from_pretrained(None, config=config, state_dict=weights)


def _labels(names: Sequence[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {label: i for i, label in enumerate(names)}}


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
