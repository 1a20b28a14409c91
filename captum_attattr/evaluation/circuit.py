"""Heads as a circuit of the MIB benchmark: the JSON that EAP-IG's graphs are read from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from captum_attattr import checks
from captum_attattr.evaluation.measures import Floats, top_units, unit_counts
from captum_attattr.files import write_json

_PARALLEL = ("use_parallel_residual", "parallel_attn", "new_decoder_architecture")
"""Switches of configs by which attention and MLP read the same input."""
_PARALLEL_TYPES = ("codegen", "cohere", "cohere2", "gptj", "phi")
"""Models of which they always do."""


def write_circuit(
    path: str | os.PathLike[str], heads: Floats, layers: Sequence[int], fraction: float, config: Any
) -> Path:
    """Write a circuit.

    Args:
        path: the file.
        heads: (L, H) scores; NaN where there is none.
        layers: the L layers' own numbers.
        fraction: of the heads with a score that are in the circuit.
        config: the model's, or None.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: as `write_json`; no head has a score, or the config has other layers or heads.
    """
    scored = np.argwhere(~np.isnan(heads))
    if not len(scored):
        raise ValueError("no head has a score: this attribution does not tell heads apart")
    cfg = _cfg(heads, layers, config)
    scores = {f"a{layers[row]}.h{head}": float(heads[row, head]) for row, head in scored}
    kept = top_units(list(scores.values()), int(unit_counts([fraction], len(scores))[0]))
    names = list(scores)
    dropped = scores.keys() - {names[index] for index in kept}
    nodes: dict[str, dict[str, Any]] = {}
    for name in ("input", *(name for layer in range(cfg["n_layers"]) for name in _layer(cfg, layer)), "logits"):
        nodes[name] = {"in_graph": name not in dropped}
        if name in scores:
            nodes[name]["score"] = scores[name]
    edges = {name: {"score": 0.0, "in_graph": True} for name in _edges(cfg, dropped)}
    return write_json(path, {"cfg": cfg, "nodes": nodes, "edges": edges})


def _cfg(heads: Floats, layers: Sequence[int], config: Any) -> dict[str, Any]:
    """Return the sizes that a graph is made from."""
    depth, width = max(layers) + 1, heads.shape[1]
    if config is None:
        return {"n_layers": depth, "n_heads": width, "parallel_attn_mlp": False, "d_model": 0}
    config = getattr(config, "config", config)
    config = getattr(config, "get_text_config", lambda: config)()
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size")
    sizes = [size for size in (checks.integer(getattr(config, name, None)) for name in names) if size is not None]
    if len(sizes) < len(names):
        raise TypeError(f"config must be the model's, with its {', '.join(names)}, not {config!r:.60}")
    n_layers, n_heads, d_model = sizes
    if n_heads != width or n_layers < depth:
        given = f"{n_layers} layers of {n_heads} heads"
        raise ValueError(f"config has {given}, but the scores are of layers up to {depth - 1} with {width} heads")
    always = getattr(config, "model_type", "") in _PARALLEL_TYPES
    parallel = always or any(getattr(config, name, False) for name in _PARALLEL)
    return {"n_layers": n_layers, "n_heads": n_heads, "parallel_attn_mlp": parallel, "d_model": d_model}


def _layer(cfg: dict[str, Any], layer: int) -> list[str]:
    """Return the names of a layer's nodes: heads, then the MLP."""
    return [*(f"a{layer}.h{head}" for head in range(cfg["n_heads"])), f"m{layer}"]


def _edges(cfg: dict[str, Any], dropped: set[str]) -> Iterator[str]:
    """Yield the names of all edges between nodes that are kept: each reads what came before it."""
    before = ["input"]
    for layer in range(cfg["n_layers"]):
        heads = [name for name in _layer(cfg, layer)[:-1] if name not in dropped]
        mlp = f"m{layer}"
        yield from (f"{node}->{head}<{part}>" for node in before for head in heads for part in "qkv")
        yield from (f"{node}->{mlp}" for node in before)
        if not cfg["parallel_attn_mlp"]:
            yield from (f"{head}->{mlp}" for head in heads)
        before += [*heads, mlp]
    yield from (f"{node}->logits" for node in before)
