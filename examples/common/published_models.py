"""Models as the published AttAttr code keeps them: names of old, and a layer-norm epsilon that no file mentions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertTokenizer

PUBLISHED_EPS = 1e-5
"""Of the published code's layer norms, whatever the configuration says; today's BERT has 1e-12."""
MATTERS = 1e-5
"""A difference of logits that is worth mentioning: as far as the published files are reproduced."""


def is_old(folder: str) -> bool:
    """Whether a folder holds a model as that code reads it: bert_config.json, and not today's config.json."""
    return os.path.isfile(Path(folder) / "bert_config.json") and not os.path.isfile(Path(folder) / "config.json")


def old_config(folder: str, changes: dict[str, Any]) -> BertConfig:
    """The configuration in bert_config.json, with the epsilon that the published code computes with.

    Args:
        folder: the folder.
        changes: entries that replace those of the file.

    Returns:
        The configuration.

    Raises:
        ValueError: the file is no configuration.
    """
    path = Path(folder) / "bert_config.json"
    try:
        return BertConfig(**{"layer_norm_eps": PUBLISHED_EPS, **json.loads(path.read_text("utf-8")), **changes})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is no configuration of BERT: {error}") from error


def old_tokenizer(folder: str, do_lower_case: bool) -> Any:
    """The tokenizer of vocab.txt, cased unless it is to lower-case, as the published code has it.

    Raises:
        FileNotFoundError: no vocab.txt.
    """
    if not (Path(folder) / "vocab.txt").is_file():
        raise FileNotFoundError(f"no file {str(Path(folder) / 'vocab.txt')!r}")
    return BertTokenizer.from_pretrained(folder, do_lower_case=do_lower_case)


def old_weights(folder: str) -> str:
    """The file of weights in such a folder."""
    return str(Path(folder) / "pytorch_model.bin")


def todays_names(weights: dict[str, Any]) -> dict[str, Any]:
    """Weights by the names of today: layer norms had gamma and beta, and models on several GPUs a prefix."""
    prefix = "module." if all(key.startswith("module.") for key in weights) else ""
    names = {key: key.removeprefix(prefix).replace(".gamma", ".weight").replace(".beta", ".bias") for key in weights}
    return {names[key]: value for key, value in weights.items()}


def say_if_eps_matters(model: Any, name: str) -> None:
    """Say on standard output that the published code would compute something else with these weights, if that shows.

    Args:
        model: BERT, or a model of another family, of which there is nothing to say.
        name: where its configuration is from.
    """
    own = getattr(model.config, "layer_norm_eps", PUBLISHED_EPS)
    if model.config.model_type != "bert" or own == PUBLISHED_EPS:
        return
    norms = [part for part in model.modules() if isinstance(part, torch.nn.LayerNorm)]
    ids = torch.linspace(0, model.config.vocab_size - 1, min(32, model.config.max_position_embeddings)).long()[None]
    with torch.no_grad():
        logits = []
        for eps in (PUBLISHED_EPS, own):
            for norm in norms:
                norm.eps = eps
            logits.append(model(input_ids=ids).logits)
    moved = float((logits[0] - logits[1]).abs().max())
    if moved > MATTERS:
        print(
            f"note: layer_norm_eps is {own:g}, as {name} says; the published code always computes with "
            f"{PUBLISHED_EPS:g}, which moves this model's logits by about {moved:.0e}. For weights that it trained, "
            f"give --layer_norm_eps {PUBLISHED_EPS:g}"
        )
