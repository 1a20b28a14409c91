"""The classifier that the fine-tuning script trains, and what an exported file says about its training."""

import argparse
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from demo_model import PACKAGE, encoder_folder, load_demo_model
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from captum_attattr.explanations.encoding import most_tokens
from common.classifier import (
    check_name,
    from_pretrained,
    in_own_order,
    label_settings,
    load_tokenizer,
    load_weights,
    own_labels,
    read_weights,
    refuse_unfit,
)
from common.published_models import is_old, old_config, old_weights, todays_names
from common.trained_weights import choose_trainable
from common.training_data import TaskData

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
        if own_labels(model.config) != list(names):
            raise ValueError(_other_outputs(args.bert_model, own_labels(model.config), names))
        return model, tokenizer
    name = args.bert_model or str(encoder_folder())
    check_name(name)
    set_seed(args.seed)
    if is_old(name):
        file = old_weights(name)
        options = {"config": old_config(name, label_settings(names)), "state_dict": todays_names(read_weights(file))}
        model, lacks, sizes = from_pretrained(name, **options)
    else:
        model, lacks, sizes = from_pretrained(name, **label_settings(_output_names(args, name, names)))
    if args.model_recover_path:
        load_weights(model, args.model_recover_path)
    else:  # a model that is to be trained needs no head yet
        encoder = {key for key in lacks if not _is_head(model, key)}
        refuse_unfit(name, lacks=encoder if args.do_train else lacks, sizes=sizes)
    tokenizer = load_tokenizer(name, args.do_lower_case)
    if args.max_seq_length > (most := most_tokens(model.config, tokenizer)):
        raise ValueError(f"--max_seq_length is {args.max_seq_length}; {name!r} takes at most {most} tokens")
    if args.do_train:
        choose_trainable(model, args.trainable, args.lora_rank, LORA_SCALE)
    return model, tokenizer


def _output_names(args: argparse.Namespace, name: str, names: Sequence[str]) -> Sequence[str]:
    """The task's names in the order of the model's own, so that files of its weights go with its configuration."""
    config = AutoConfig.from_pretrained(name)
    own = own_labels(config)
    fine_tuned = any(kind.endswith("ForSequenceClassification") for kind in config.architectures or [])
    if fine_tuned and len(own) != len(names):
        raise ValueError(f"{name!r} has {len(own)} outputs and the task {len(names)}: {', '.join(names)}")
    ordered = in_own_order(own, names)
    if ordered is None and not args.do_train:
        raise ValueError(_other_outputs(name, own, names))
    return ordered if ordered and len(own) == len(names) else names


def _other_outputs(name: str, own: Sequence[str], names: Sequence[str]) -> str:
    return f"{name!r} has the outputs {', '.join(own)}; the task's are {', '.join(names)}"


def _is_head(model: PreTrainedModel, weight: str) -> bool:
    return not weight.startswith(f"{model.base_model_prefix}.") or ".pooler." in weight


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
