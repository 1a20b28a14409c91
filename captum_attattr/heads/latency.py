"""Parameters and time of a model whose heads are cut out."""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import torch
from torch import nn

from captum_attattr.heads.importance import Pair
from captum_attattr.heads.labelled_examples import LabelledExamples
from captum_attattr.model.attention_layers import every_layer
from captum_attattr.model.head_pruning import prune_heads
from captum_attattr.model.modes import evaluation_mode

_WARM_UP, _REPEATS = 2, 15  # runs of each model that do not count, and that do


def parameters_and_latency(
    examples: LabelledExamples, off: list[list[Pair]], progress: bool
) -> tuple[list[int], list[float]]:
    """Cut heads out of a copy of the model, step after step, and measure it on a batch of examples of median length.

    Args:
        examples: the model, and examples in batches.
        off: the heads that are off at each of S steps; those of the step before are among them.
        progress: show a bar for what takes longer than two seconds.

    Returns:
        (S,) the parameters, and (S,) the time divided by that of the whole model.
    """
    from tqdm.auto import tqdm

    texts = examples.texts
    by_length = sorted(examples.items, key=lambda item: item.length)
    size = max(map(len, examples.batches))
    first = max(0, (len(by_length) - size) // 2)
    median = by_length[first : first + size]
    inputs: dict[str, Any] = texts.inputs([item for item in median if texts.pads or item.length == median[0].length])
    parameters, latency = [], []
    before: list[Pair] = []
    with evaluation_mode(texts.model):
        cut = copy.deepcopy(texts.model)
        for heads in tqdm(off, desc="latency", unit="step", delay=2, disable=not progress):
            if more := [pair for pair in heads if pair not in before]:
                layers = every_layer(cut, texts.kind)
                prune_heads(cut, [(layers[layer], head) for layer, head in more])
            before = heads
            parameters.append(sum(parameter.numel() for parameter in cut.parameters()))
            whole_time, cut_time = _median_times([texts.model, cut], inputs | texts.extra, texts.device)
            latency.append(cut_time / whole_time)
    return parameters, latency


def _median_times(models: list[nn.Module], inputs: dict[str, Any], device: torch.device) -> list[float]:
    """Return the median time of each model; they run in turn, so that a busy machine slows all of them alike."""
    times: list[list[float]] = [[] for _ in models]
    with torch.no_grad():
        for _ in range(_WARM_UP + _REPEATS):
            for model, taken in zip(models, times, strict=True):
                _synchronize(device)
                begin = time.perf_counter()
                model(**inputs)
                _synchronize(device)
                taken.append(time.perf_counter() - begin)
    return [statistics.median(taken[_WARM_UP:]) for taken in times]


def _synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given: CUDA's, Apple's and Intel's go on while Python does."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is not None and accelerator.type == device.type:
        torch.accelerator.synchronize(device)
