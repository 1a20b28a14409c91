"""A fine-tuned sequence classifier and its tokenizer, as the published code's flags name them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification
from transformers.utils import logging

from captum_attattr import load_pruned
from captum_attattr.explanations.encoding import check_tokenizer  # also before training, which explains nothing
from captum_attattr.tasks import Task
from common.published_models import (
    in_published_format,
    note_if_eps_matters,
    published_config,
    published_tokenizer,
    published_weights,
    with_current_names,
)


def load_classifier(
    bert_model: str, model_file: str | None, task: Task, do_lower_case: bool, layer_norm_eps: float | None = None
) -> tuple[Any, Any]:
    """Load a classifier for a task.

    Args:
        bert_model: a folder or hub name: architecture, tokenizer and, unless `model_file` is given, weights. A folder
            with bert_config.json and vocab.txt, which the published code reads, is taken too.
        model_file: a file of weights (`.safetensors`; any other is a state dict), or a folder that transformers loads.
        task: says which classes there are, and their names.
        do_lower_case: lower-case; else as the tokenizer's own setting says.
        layer_norm_eps: epsilon of the layer norms; None for the configuration's, or, with bert_config.json, for the
            published code's. Where weights come from a state dict and its epsilon would matter, a note says so.

    Returns:
        The model, in evaluation mode, and its tokenizer.

    Raises:
        OSError: no such model or file.
        ValueError: weights or classes that do not fit; the message names some of them.
    """
    check_name(bert_model)
    eps = {} if layer_norm_eps is None else {"layer_norm_eps": layer_norm_eps}
    published = in_published_format(bert_model)
    if (
        eps
        and not published
        and not hasattr(AutoConfig.from_pretrained(bert_model, trust_remote_code=False), "layer_norm_eps")
    ):
        raise ValueError(f"the configuration of {bert_model!r} has no layer_norm_eps that could be changed")
    tokenizer = load_tokenizer(bert_model, do_lower_case)
    if published and model_file is None:
        model_file = published_weights(bert_model)
    if model_file is None or os.path.isdir(model_file):
        source = model_file or bert_model
        model = _from_folder(source, task, eps)
        from_state_dict = (Path(source) / "pytorch_model.bin").is_file()
    else:
        source = bert_model
        outputs = [] if published else output_names(AutoConfig.from_pretrained(bert_model, trust_remote_code=False))
        changes = {**_task_labels(bert_model, outputs, task), **eps}
        reader = published_config if published else partial(AutoConfig.from_pretrained, trust_remote_code=False)
        config = reader(bert_model, **changes)
        model = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
        load_weights(model, model_file)
        from_state_dict = not model_file.endswith(".safetensors")  # which the published code does not write
    model.eval()
    if from_state_dict and not eps:
        note_if_eps_matters(model, source)
    return model, tokenizer


def _from_folder(name: str, task: Task, eps: dict[str, Any]) -> Any:
    """Load a model from a folder or the hub, and check that no weight is missing there."""
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    labels = _task_labels(name, output_names(config), task)
    if getattr(config, "pruned_heads", None) and not eps:
        return load_pruned(name)
    model, missing, resized = load_quietly(name, **labels, **eps)
    check_fit(name, missing=missing, resized=resized)
    return model


def load_quietly(name: str, **options: Any) -> tuple[Any, set[str], list[str]]:
    """Load a classifier as transformers does, but quietly.

    Args:
        name: folder or hub name.
        options: of transformers' `from_pretrained`; `state_dict` are BERT's weights, if they are read already.

    Returns:
        The model, the names of the weights that were missing, and of the ones with other sizes; both are now random.

    Raises:
        OSError: no such model.
        ValueError: damaged files.
    """
    try:
        reading: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True, **options}
        with quiet_transformers():
            loaded: Any = (
                BertForSequenceClassification.from_pretrained(None, **reading)
                if "state_dict" in options
                else AutoModelForSequenceClassification.from_pretrained(name, trust_remote_code=False, **reading)
            )
    except (OSError, ImportError):
        raise
    except Exception as error:  # damaged files fail in many ways
        raise ValueError(f"the weights in {name!r} are damaged: {type(error).__name__}: {error}") from error
    model, report = loaded
    resized = [key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]]
    return model, set(report["missing_keys"]) - set(resized), resized


def check_name(name: str) -> None:
    """Check that a name can be that of a folder, or of a model on the hub.

    Raises:
        FileNotFoundError: a path that does not exist.
        ValueError: a file.
    """
    if Path(name).is_file():
        raise ValueError(f"{name!r} is a file; a folder or a hub name is needed, and weights as model_file")
    if not Path(name).is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise FileNotFoundError(f"no folder {name!r}")


def load_tokenizer(name: str, do_lower_case: bool) -> Any:
    """Load the tokenizer of a folder or hub name.

    Raises:
        OSError: no such tokenizer.
        ValueError: files that cannot be read, or that hold no vocabulary.
    """
    if in_published_format(name):
        return published_tokenizer(name, do_lower_case)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, trust_remote_code=False, **({"do_lower_case": True} if do_lower_case else {})
        )
    except OSError:
        raise
    except Exception as error:  # missing and damaged files fail in many ways
        raise ValueError(f"the tokenizer in {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    check_tokenizer(tokenizer)
    return tokenizer


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from showing a bar, and a table of what `check_fit` says in one line."""
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


def output_names(config: Any) -> list[str]:
    """Return the names of a model's outputs, by its configuration."""
    return [str(label) for _, label in sorted((config.id2label or {}).items())]


def in_output_order(outputs: list[str], names: Sequence[str]) -> tuple[str, ...] | None:
    """Return a task's label names in the order of a model's outputs; None if the model has other classes.

    Args:
        outputs: the names of the model's outputs; LABEL_0, LABEL_1 ... say nothing, so the task's order is kept.
        names: the task's label names.
    """
    if all(re.fullmatch(r"LABEL_\d+", label) for label in outputs):
        return tuple(names)
    by_lower = {label.lower(): label for label in names}
    if sorted(label.lower() for label in outputs) != sorted(by_lower):
        return None
    return tuple(by_lower[label.lower()] for label in outputs)


def label_settings(names: Sequence[str]) -> dict[str, Any]:
    """Return the entries of a configuration that name a model's outputs."""
    return {"id2label": dict(enumerate(names)), "label2id": {label: i for i, label in enumerate(names)}}


def _task_labels(name: str, outputs: list[str], task: Task) -> dict[str, Any]:
    """Return the entries that name a model's outputs as the task does, in the model's order.

    Raises:
        ValueError: the model has other classes.
    """
    names = task.label_names or ("score",)
    if (ordered := in_output_order(outputs, names)) is None:
        raise ValueError(f"the model {name!r} tells {outputs} apart, the task {task.name} {list(names)}")
    return label_settings(ordered)


def read_weights(file: str) -> dict[str, torch.Tensor]:
    """Read the weights of a file, by their names there.

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
        raise ValueError(
            f"{file!r} is no file of weights ({type(error).__name__}); of a pickle only tensors are read: save a "
            "state dict, or safetensors"
        ) from error
    if not isinstance(weights, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in weights.items()
    ):
        raise ValueError(f"{file!r} holds no state dict, which maps names to tensors, but a {type(weights).__name__}")
    return weights


def load_weights(model: Any, file: str) -> None:
    """Load all of a model's weights from a file, by their present or their older names.

    Args:
        model: the model.
        file: `.safetensors`; any other is a state dict.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds no weights, or another model's.
    """
    weights, wanted = with_current_names(read_weights(file)), model.state_dict()
    unknown = {name for name in weights.keys() - wanted.keys() if not name.endswith("position_ids")}
    resized = [name for name in wanted.keys() & weights.keys() if wanted[name].shape != weights[name].shape]
    check_fit(file, missing=wanted.keys() - weights.keys(), unknown=unknown, resized=resized)
    model.load_state_dict({name: weights[name] for name in wanted})


def check_fit(file: str, missing: Any = (), unknown: Any = (), resized: Any = ()) -> None:
    """Check that weights are the model's.

    Args:
        file: where they are from.
        missing: names of weights that are not there.
        unknown: names of weights that the model does not have.
        resized: names of weights that have another shape in the model.

    Raises:
        ValueError: there are such weights; the message has some of the names.
    """
    for problem, names in (("lacks", missing), ("has the unknown", unknown), ("has other sizes of", resized)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(f"{file!r} does not fit the model: it {problem} {', '.join(sorted(names)[:3])}{more}")
