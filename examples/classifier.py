"""A fine-tuned sequence classifier and its tokenizer, as the published code's flags name them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from old_checkpoints import is_old, old_config, old_tokenizer, old_weights, say_if_eps_matters, todays_names
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from captum_attattr.tasks import Task


def load_classifier(
    bert_model: str, model_file: str | None, task: Task, do_lower_case: bool, layer_norm_eps: float | None = None
) -> tuple[Any, Any]:
    """Load a classifier for a task.

    Args:
        bert_model: a folder or hub name: architecture, tokenizer and, unless `model_file` is given, weights. Also a
            folder with bert_config.json and vocab.txt, which the published code reads.
        model_file: a file of weights (`.safetensors`; any other is a state dict), or a folder that transformers loads.
        task: says how many classes there are and what they are called.
        do_lower_case: lower-case; else as the tokenizer's own setting says.
        layer_norm_eps: epsilon of the layer norms; None for the configuration's own, or, of bert_config.json, for the
            published code's. Where weights come from a state dict and theirs would matter, a note on stderr says so.

    Returns:
        The model, in evaluation mode, and its tokenizer.

    Raises:
        OSError: no such model or file.
        ValueError: weights or classes that do not fit; the message names some of them.
    """
    if Path(bert_model).is_file():
        raise ValueError(f"{bert_model!r} is a file; a folder or a hub name is needed, and weights as model_file")
    eps = {} if layer_norm_eps is None else {"layer_norm_eps": layer_norm_eps}
    old = is_old(bert_model)
    tokenizer = (
        old_tokenizer(bert_model, do_lower_case)
        if old
        else AutoTokenizer.from_pretrained(bert_model, **({"do_lower_case": True} if do_lower_case else {}))
    )
    if old and model_file is None:
        model_file = old_weights(bert_model)
    if model_file is None or os.path.isdir(model_file):
        return _from_folder(model_file or bert_model, task, eps).eval(), tokenizer
    own = [] if old else _own_labels(AutoConfig.from_pretrained(bert_model))
    changes = {**_labels(bert_model, own, task), **eps}
    config = old_config(bert_model, changes) if old else AutoConfig.from_pretrained(bert_model, **changes)
    model: Any = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    load_weights(model, model_file)
    model.eval()
    if not eps and not model_file.endswith(".safetensors"):  # which the published code does not write
        say_if_eps_matters(model, bert_model)
    return model, tokenizer


def _from_folder(name: str, task: Task, eps: dict[str, Any]) -> Any:
    """A model with its own weights, all of them."""
    labels = _labels(name, _own_labels(AutoConfig.from_pretrained(name)), task)
    try:
        with _quiet_transformers():
            loaded: Any = AutoModelForSequenceClassification.from_pretrained(
                name, output_loading_info=True, ignore_mismatched_sizes=True, **labels, **eps
            )
    except SafetensorError as error:
        raise ValueError(f"the weights in {name!r} are damaged: {error}") from error
    model, found = loaded
    sizes = [key[0] if isinstance(key, tuple) else key for key in found["mismatched_keys"]]
    _refuse_unfit(name, lacks=set(found["missing_keys"]) - set(sizes), sizes=sizes)
    return model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No bar, and no table of what `_refuse_unfit` says in one line."""
    log: Any = logging
    verbosity, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bar:
            log.enable_progress_bar()


def _own_labels(config: Any) -> list[str]:
    return [str(label) for _, label in sorted(config.id2label.items())]


def _labels(name: str, own: list[str], task: Task) -> dict[str, Any]:
    """The names of a model's outputs: its own, in its own order, if they are the task's; else the task's."""
    names = task.label_names or ("score",)
    if not all(re.fullmatch(r"LABEL_\d+", label) for label in own):
        by_lower = {label.lower(): label for label in names}
        if sorted(label.lower() for label in own) != sorted(by_lower):
            raise ValueError(f"the model {name!r} tells {own} apart, the task {task.name} {list(names)}")
        names = tuple(by_lower[label.lower()] for label in own)
    return {"id2label": dict(enumerate(names)), "label2id": {label: i for i, label in enumerate(names)}}


def load_weights(model: Any, file: str) -> None:
    """Load all of a model's weights from a file, by their names of today or of old.

    Args:
        model: the model.
        file: `.safetensors`; any other is a state dict.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds no weights, or those of another model.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"no file of weights {file!r}")
    try:
        safe = file.endswith(".safetensors")
        weights = load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling fails in many ways
        raise ValueError(f"{file!r} is no file of weights ({type(error).__name__})") from error
    if not isinstance(weights, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in weights.items()
    ):
        raise ValueError(f"{file!r} holds no state dict, which maps names to tensors, but a {type(weights).__name__}")
    named = todays_names(weights)
    own = model.state_dict()
    unknown = {key for key in named.keys() - own.keys() if not key.endswith("position_ids")}
    sizes = [key for key in own.keys() & named.keys() if own[key].shape != getattr(named[key], "shape", None)]
    _refuse_unfit(file, lacks=own.keys() - named.keys(), unknown=unknown, sizes=sizes)
    model.load_state_dict({key: named[key] for key in own})


def _refuse_unfit(file: str, lacks: Any = (), unknown: Any = (), sizes: Any = ()) -> None:
    """Refuse weights that are not those of the model, by some of their names."""
    for what, keys in (("lacks", lacks), ("has the unknown", unknown), ("has other sizes of", sizes)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise ValueError(f"{file!r} does not fit the model: it {what} {', '.join(sorted(keys)[:3])}{more}")
