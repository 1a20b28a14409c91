"""A fine-tuned sequence classifier and its tokenizer, as the published code's flags name them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification
from transformers.utils import logging

from captum_attattr import load_pruned
from captum_attattr.explanations.encoding import check_tokenizer
from captum_attattr.tasks import Task
from common.published_models import is_old, old_config, old_tokenizer, old_weights, say_if_eps_matters, todays_names


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
            published code's. Where weights come from a state dict and theirs would matter, a note says so.

    Returns:
        The model, in evaluation mode, and its tokenizer.

    Raises:
        OSError: no such model or file.
        ValueError: weights or classes that do not fit; the message names some of them.
    """
    check_name(bert_model)
    eps = {} if layer_norm_eps is None else {"layer_norm_eps": layer_norm_eps}
    old = is_old(bert_model)
    if eps and not old and not hasattr(AutoConfig.from_pretrained(bert_model), "layer_norm_eps"):
        raise ValueError(f"the configuration of {bert_model!r} has no layer_norm_eps that could be changed")
    tokenizer = load_tokenizer(bert_model, do_lower_case)
    if old and model_file is None:
        model_file = old_weights(bert_model)
    if model_file is None or os.path.isdir(model_file):
        folder = model_file or bert_model
        loaded = _from_folder(folder, task, eps).eval()
        if not eps and (Path(folder) / "pytorch_model.bin").is_file():
            say_if_eps_matters(loaded, folder)
        return loaded, tokenizer
    own = [] if old else own_labels(AutoConfig.from_pretrained(bert_model))
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
    config = AutoConfig.from_pretrained(name)
    labels = _labels(name, own_labels(config), task)
    if getattr(config, "pruned_heads", None) and not eps:
        return load_pruned(name)
    model, lacks, sizes = from_pretrained(name, **labels, **eps)
    refuse_unfit(name, lacks=lacks, sizes=sizes)
    return model


def from_pretrained(name: str, **options: Any) -> tuple[Any, set[str], list[str]]:
    """Load a classifier as transformers does, but quietly.

    Args:
        name: folder or hub name.
        options: of transformers' `from_pretrained`; with `state_dict`, weights of BERT that are read already.

    Returns:
        The model, the names of the weights that it did not find, and of those that had other sizes; it made these up.

    Raises:
        OSError: no such model.
        ValueError: damaged files.
    """
    try:
        read: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True, **options}
        with quiet_transformers():
            loaded: Any = (
                BertForSequenceClassification.from_pretrained(None, **read)
                if "state_dict" in options
                else AutoModelForSequenceClassification.from_pretrained(name, **read)
            )
    except (OSError, ImportError):
        raise
    except Exception as error:  # damaged files fail in many ways
        raise ValueError(f"the weights in {name!r} are damaged: {type(error).__name__}: {error}") from error
    model, found = loaded
    sizes = [key[0] if isinstance(key, tuple) else key for key in found["mismatched_keys"]]
    return model, set(found["missing_keys"]) - set(sizes), sizes


def check_name(name: str) -> None:
    """Find out whether a name can be a folder's or a model's of the hub.

    Raises:
        FileNotFoundError: a path to nothing.
        ValueError: a file.
    """
    if Path(name).is_file():
        raise ValueError(f"{name!r} is a file; a folder or a hub name is needed, and weights as model_file")
    if not Path(name).is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise FileNotFoundError(f"no folder {name!r}")


def load_tokenizer(name: str, do_lower_case: bool) -> Any:
    """The tokenizer of a folder or hub name.

    Raises:
        OSError: no such tokenizer.
        ValueError: files that cannot be read, or that hold no vocabulary.
    """
    if is_old(name):
        return old_tokenizer(name, do_lower_case)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **({"do_lower_case": True} if do_lower_case else {}))
    except OSError:
        raise
    except Exception as error:  # missing and damaged files fail in many ways
        raise ValueError(f"the tokenizer in {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    check_tokenizer(tokenizer)
    return tokenizer


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bar, and no table of what `refuse_unfit` says in one line."""
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


def own_labels(config: Any) -> list[str]:
    """The names of a model's outputs, by its configuration."""
    return [str(label) for _, label in sorted((config.id2label or {}).items())]


def in_own_order(own: list[str], names: Sequence[str]) -> tuple[str, ...] | None:
    """A task's names in the order of a model's outputs; None if the model tells other classes apart.

    Args:
        own: the names of the model's outputs; LABEL_0 and so on say nothing, and the task's order holds.
        names: the task's.
    """
    if all(re.fullmatch(r"LABEL_\d+", label) for label in own):
        return tuple(names)
    by_lower = {label.lower(): label for label in names}
    if sorted(label.lower() for label in own) != sorted(by_lower):
        return None
    return tuple(by_lower[label.lower()] for label in own)


def label_settings(names: Sequence[str]) -> dict[str, Any]:
    """What a configuration says about the names of a model's outputs."""
    return {"id2label": dict(enumerate(names)), "label2id": {label: i for i, label in enumerate(names)}}


def _labels(name: str, own: list[str], task: Task) -> dict[str, Any]:
    """The names of a model's outputs: its own, in its own order, if they are the task's; else the task's."""
    names = task.label_names or ("score",)
    if (ordered := in_own_order(own, names)) is None:
        raise ValueError(f"the model {name!r} tells {own} apart, the task {task.name} {list(names)}")
    return label_settings(ordered)


def read_weights(file: str) -> dict[str, torch.Tensor]:
    """The weights of a file, by their names there.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds no weights.
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
    return weights


def load_weights(model: Any, file: str) -> None:
    """Load all of a model's weights from a file, by their names of today or of old.

    Args:
        model: the model.
        file: `.safetensors`; any other is a state dict.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds no weights, or those of another model.
    """
    named = todays_names(read_weights(file))
    own = model.state_dict()
    unknown = {key for key in named.keys() - own.keys() if not key.endswith("position_ids")}
    sizes = [key for key in own.keys() & named.keys() if own[key].shape != getattr(named[key], "shape", None)]
    refuse_unfit(file, lacks=own.keys() - named.keys(), unknown=unknown, sizes=sizes)
    model.load_state_dict({key: named[key] for key in own})


def refuse_unfit(file: str, lacks: Any = (), unknown: Any = (), sizes: Any = ()) -> None:
    """Refuse weights that are not those of the model.

    Args:
        file: where they are from.
        lacks: names of weights that are missing there.
        unknown: names of weights that the model does not have.
        sizes: names of weights that have other sizes in the model.

    Raises:
        ValueError: any of these; the message has some of the names.
    """
    for what, keys in (("lacks", lacks), ("has the unknown", unknown), ("has other sizes of", sizes)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise ValueError(f"{file!r} does not fit the model: it {what} {', '.join(sorted(keys)[:3])}{more}")
