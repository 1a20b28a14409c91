"""Models as the published AttAttr code keeps them: older names, and a layer-norm epsilon that no file mentions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertTokenizer

PUBLISHED_EPS = 1e-5
"""The epsilon of the published code's layer norms, whatever the configuration says; transformers' BERT has 1e-12."""
NOTABLE_DIFFERENCE = 1e-5
"""A difference of logits that is worth a note: the published files are reproduced to this precision."""


def in_published_format(folder: str) -> bool:
    """Return whether a folder holds a model as that code reads it: bert_config.json, and no config.json."""
    return os.path.isfile(Path(folder) / "bert_config.json") and not os.path.isfile(Path(folder) / "config.json")


def published_config(folder: str, **changes: Any) -> BertConfig:
    """Read bert_config.json, with the epsilon that the published code computes with.

    Args:
        folder: a folder in the published format.
        changes: entries that replace the file's.

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


def published_tokenizer(folder: str, do_lower_case: bool) -> Any:
    """Load the tokenizer of vocab.txt, cased unless told to lower-case, as the published code does.

    Raises:
        FileNotFoundError: no vocab.txt.
    """
    if not (Path(folder) / "vocab.txt").is_file():
        raise FileNotFoundError(f"no file {str(Path(folder) / 'vocab.txt')!r}")
    return BertTokenizer.from_pretrained(folder, do_lower_case=do_lower_case)


def published_weights(folder: str) -> str:
    """Return the path of the weights in a folder in the published format."""
    return str(Path(folder) / "pytorch_model.bin")


def with_current_names(weights: dict[str, Any]) -> dict[str, Any]:
    """Rename weights as transformers does now: layer norms had gamma and beta, models on several GPUs a prefix."""
    prefix = "module." if all(key.startswith("module.") for key in weights) else ""
    names = {key: key.removeprefix(prefix).replace(".gamma", ".weight").replace(".beta", ".bias") for key in weights}
    return {names[key]: value for key, value in weights.items()}


def note_if_eps_matters(model: Any, name: str) -> None:
    """Print a note if the published code would compute visibly different logits with these weights.

    Args:
        model: any; there is nothing to note about other families than BERT.
        name: where its configuration is from.
    """
    configured = getattr(model.config, "layer_norm_eps", PUBLISHED_EPS)
    if model.config.model_type != "bert" or configured == PUBLISHED_EPS:
        return
    norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
    ids = torch.linspace(0, model.config.vocab_size - 1, min(32, model.config.max_position_embeddings)).long()[None]
    with torch.no_grad():
        logits = []
        for eps in (PUBLISHED_EPS, configured):
            for norm in norms:
                norm.eps = eps
            logits.append(model(input_ids=ids).logits)
    moved = float((logits[0] - logits[1]).abs().max())
    if moved > NOTABLE_DIFFERENCE:
        print(
            f"note: layer_norm_eps is {configured:g}, as {name} says; the published code always computes with "
            f"{PUBLISHED_EPS:g}, which moves this model's logits by about {moved:.0e}. For weights that it trained, "
            f"give --layer_norm_eps {PUBLISHED_EPS:g}"
        )
