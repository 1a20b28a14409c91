"""Parameters and time of a model whose heads are cut out."""

from __future__ import annotations

import copy
import statistics
import time

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_attattr.explanations.text_model import TextModel
from captum_attattr.heads.evaluation import EvaluationRows
from captum_attattr.heads.importance import Pair
from captum_attattr.model.attention_layers import every_layer
from captum_attattr.model.head_pruning import prune_heads

_LATENCY_REPEATS = 15


def structure(
    rows: EvaluationRows, gone: list[list[Pair]], batch_size: int, progress: bool = False
) -> list[tuple[int, float]]:
    """Parameters and relative latency at every step, of copies whose heads are cut out."""
    texts = rows.texts
    order = sorted(rows.items, key=lambda item: item.length)
    first = max(0, (len(order) - batch_size) // 2)
    middle = [item for item in order[first : first + batch_size] if texts.pads or item.length == order[first].length]
    inputs = texts.inputs(middle)
    found = []
    pruned = copy.deepcopy(texts.model)
    before: list[Pair] = []
    for heads in tqdm(gone, desc="latency", unit="step", delay=2, disable=not progress):
        fresh = [pair for pair in heads if pair not in before]
        before = heads
        if fresh:
            layers = every_layer(pruned, texts.kind)
            prune_heads(pruned, [(layers[layer], head) for layer, head in fresh])
        parameters = sum(parameter.numel() for parameter in pruned.parameters())
        found.append((parameters, _relative_time(texts, pruned, inputs)))
    return found


def _relative_time(texts: TextModel, pruned: nn.Module, inputs: dict[str, Tensor]) -> float:
    """Median time of the pruned model over that of the whole one, both taken in turn."""
    times: dict[int, list[float]] = {0: [], 1: []}
    with torch.no_grad():
        for repeat in range(_LATENCY_REPEATS + 2):
            for place, model in enumerate((texts.model, pruned)):
                _synchronize(texts.device)
                begin = time.perf_counter()
                model(**inputs, **texts.extra)
                _synchronize(texts.device)
                if repeat >= 2:
                    times[place].append(time.perf_counter() - begin)
    return statistics.median(times[1]) / statistics.median(times[0])


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
