"""The classifier that the fine-tuning script trains, and what an exported file says about its training."""

import argparse
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from demo_model import PACKAGE, encoder_folder, load_demo_model
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from captum_attattr.explanations.text_model import most_tokens  # so that the limit is that of explaining
from common.classifier import (
    check_fit,
    check_name,
    in_output_order,
    label_settings,
    load_quietly,
    load_tokenizer,
    load_weights,
    output_names,
    read_weights,
)
from common.published_models import in_published_format, published_config, published_weights, with_current_names
from common.trained_weights import choose_trainable
from common.training_data import TaskData

LORA_SCALE = 2.0
"""The factor of low-rank updates."""


def load_model(args: argparse.Namespace, names: Sequence[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load ``--bert_model``, with the weights that ``--trainable`` names ready to train.

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
        if (outputs := output_names(model.config)) != list(names):
            raise ValueError(_other_outputs(args.bert_model, outputs, names))
        return model, tokenizer
    name = args.bert_model or str(encoder_folder())
    check_name(name)
    set_seed(args.seed)
    if in_published_format(name):
        weights = with_current_names(read_weights(published_weights(name)))
        options = {"config": published_config(name, **label_settings(names)), "state_dict": weights}
    else:
        options = label_settings(_names_for_outputs(args, name, names))
    model, missing, resized = load_quietly(name, **options)
    if args.model_recover_path:
        load_weights(model, args.model_recover_path)
    else:
        if args.do_train:  # a head that is missing starts at random
            missing = {weight for weight in missing if not _in_head(model, weight)}
        check_fit(name, missing=missing, resized=resized)
    tokenizer = load_tokenizer(name, args.do_lower_case)
    if args.max_seq_length > (most := most_tokens(model.config, tokenizer)):
        raise ValueError(f"--max_seq_length is {args.max_seq_length}; {name!r} takes at most {most} tokens")
    if args.do_train:
        choose_trainable(model, args.trainable, args.lora_rank, LORA_SCALE)
    return model, tokenizer


def _names_for_outputs(args: argparse.Namespace, name: str, names: Sequence[str]) -> Sequence[str]:
    """Return the task's names in the order of the model's outputs, so that its weights fit its configuration.

    Raises:
        ValueError: a fine-tuned model has outputs of another task.
    """
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    outputs = output_names(config)
    fine_tuned = any(kind.endswith("ForSequenceClassification") for kind in config.architectures or [])
    if fine_tuned and len(outputs) != len(names):
        raise ValueError(f"{name!r} has {len(outputs)} outputs and the task {len(names)}: {', '.join(names)}")
    ordered = in_output_order(outputs, names)
    if ordered is None and not args.do_train:
        raise ValueError(_other_outputs(name, outputs, names))
    return ordered if ordered and len(outputs) == len(names) else names


def _other_outputs(name: str, outputs: Sequence[str], names: Sequence[str]) -> str:
    """Return the message that a model's outputs are not the task's."""
    return f"{name!r} has the outputs {', '.join(outputs)}; the task's are {', '.join(names)}"


def _in_head(model: PreTrainedModel, weight: str) -> bool:
    """Return whether a weight is pooler's or classifier's, by its name."""
    return not weight.startswith(f"{model.base_model_prefix}.") or ".pooler." in weight


def training_header(
    args: argparse.Namespace, argv: Sequence[str], data: TaskData, metrics: dict[str, float]
) -> dict[str, Any]:
    """Return what the header of an exported file says about the training with these flags."""
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
