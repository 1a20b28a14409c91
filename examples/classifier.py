"""A fine-tuned sequence classifier and its tokenizer, as the published code's flags name them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from captum_attattr.tasks import Task


def load_classifier(bert_model: str, model_file: str | None, task: Task, do_lower_case: bool) -> tuple[Any, Any]:
    """Load a classifier for a task.

    Args:
        bert_model: a folder or hub name: architecture, tokenizer and, unless `model_file` is given, weights.
        model_file: a file of weights (`.bin`, `.pt`: a state dict; `.safetensors`), or a folder that
            transformers loads.
        task: says how many classes there are and what they are called.
        do_lower_case: lower-case; else as the tokenizer's own setting says.

    Returns:
        The model, in evaluation mode, and its tokenizer.

    Raises:
        OSError: no such model or file.
        ValueError: weights that are damaged or do not fit the model; the message names some of them.
    """
    if Path(bert_model).is_file():
        raise ValueError(f"{bert_model!r} is a file; a folder or a hub name is needed, and weights as model_file")
    labels = _labels(bert_model if model_file is None or not os.path.isdir(model_file) else model_file, task)
    tokenizer = AutoTokenizer.from_pretrained(bert_model, **({"do_lower_case": True} if do_lower_case else {}))
    if model_file is None or os.path.isdir(model_file):
        model = _load_folder(model_file or bert_model, labels)
    else:
        config = AutoConfig.from_pretrained(bert_model, **labels)
        model = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
        _load_weights(model, model_file)
    return model.eval(), tokenizer


def _labels(name: str, task: Task) -> dict[str, Any]:
    """The names of a model's outputs: its own, in its own order, if they are the task's; else the task's."""
    names = task.label_names or ("score",)
    own = [str(label) for _, label in sorted(AutoConfig.from_pretrained(name).id2label.items())]
    if not all(re.fullmatch(r"LABEL_\d+", label) for label in own):
        by_lower = {label.lower(): label for label in names}
        if sorted(label.lower() for label in own) != sorted(by_lower):
            raise ValueError(f"the model {name!r} tells {own} apart, the task {task.name} {list(names)}")
        names = tuple(by_lower[label.lower()] for label in own)
    return {"id2label": dict(enumerate(names)), "label2id": {label: i for i, label in enumerate(names)}}


def _load_folder(name: str, labels: dict[str, Any]) -> Any:
    try:
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(name, output_loading_info=True, **labels)
    except SafetensorError as error:
        raise ValueError(f"the weights in {name!r} are damaged: {error}") from error
    model, info = loaded
    if missing := sorted(info["missing_keys"]):  # transformers would make some up
        raise ValueError(f"{name!r} is not fine-tuned for this: it lacks {_some(missing)}")
    return model


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _load_weights(model: Any, file: str) -> None:
    if not Path(file).is_file():
        raise FileNotFoundError(f"no file of weights {file!r}")
    try:
        safe = file.endswith(".safetensors")
        weights = load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling fails in many ways
        raise ValueError(f"{file!r} is no file of weights ({type(error).__name__})") from error
    named = isinstance(weights, dict) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in weights.items()
    )
    if not named:
        raise ValueError(f"{file!r} holds no state dict, which maps names to tensors, but a {type(weights).__name__}")
    # Layer norms were gamma and beta in the years of the published code.
    renamed = {key.replace(".gamma", ".weight").replace(".beta", ".bias"): value for key, value in weights.items()}
    own = model.state_dict()
    missing = sorted(own.keys() - renamed.keys())
    unknown = sorted(key for key in renamed.keys() - own.keys() if not key.endswith("position_ids"))
    sizes = [key for key in own.keys() & renamed.keys() if own[key].shape != renamed[key].shape]
    for what, keys in (("lacks", missing), ("has the unknown", unknown), ("has other sizes of", sorted(sizes))):
        if keys:
            raise ValueError(f"{file!r} does not fit the model: it {what} {_some(keys)}")
    model.load_state_dict({key: renamed[key] for key in own})
