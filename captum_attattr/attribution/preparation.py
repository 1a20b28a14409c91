"""A sweep made ready for a batch: F by itself is seen first, and what is known of the model is looked up or learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from captum_attattr.attribution.baselines import AttentionBaselines, baseline, check_baseline_shapes
from captum_attattr.attribution.facts import Facts, learn
from captum_attattr.attribution.inputs import Batch
from captum_attattr.attribution.layers import check_model
from captum_attattr.attribution.sweep import Sweep
from captum_attattr.model.attention_control import AttentionControl
from captum_attattr.model.attention_layers import AttentionLayer
from captum_attattr.runs.memory import ChunkSize, in_chunks

ENTRIES_AT_ONCE = 3_000
"""Entries of the first input (tokens, say) in a forward before the model is under control, to see F by itself."""


@contextmanager
def prepared_sweep(
    layers: Sequence[AttentionLayer], batch: Batch, baselines: AttentionBaselines, known: dict[object, Facts]
) -> Iterator[Sweep]:
    """Prepare a sweep over a batch; the model is restored at the end.

    Args:
        layers, batch, baselines: checked.
        known: what was learned from batches before, by their form; added to.
    """
    check_model(layers[0].model)
    uncontrolled = _evaluate_all(batch, one_by_one=any(layer.packs for layer in layers))
    with AttentionControl(layers) as control:
        parameter = next(control.model.parameters(), torch.empty(0))
        state = tuple(layer.kept for layer in layers), tuple(control.usual.values()), control.model.training
        model = state, parameter.dtype, parameter.device
        form, kin = ((batch.form(sizes), model) for sizes in (True, False))
        try:
            if form not in known and kin in known:
                known[form] = known[kin].resized(control, batch.evaluate, uncontrolled.device)
            elif form not in known:
                known[form] = known[kin] = learn(control, batch.evaluate, uncontrolled, batch.most_padded())
        except (RuntimeError, MemoryError) as error:
            ChunkSize(1).shrink(error, 1)
        sweep = Sweep(control, batch.evaluate, baseline(baselines), known[form], uncontrolled, batch.device)
        check_baseline_shapes(baselines, batch.size, sweep.facts.shapes)
        yield sweep


@torch.no_grad()
def _evaluate_all(batch: Batch, one_by_one: bool) -> Tensor:
    """Return F of every example by the model's own attention implementation."""
    outputs: list[Tensor] = []

    def run(examples: range) -> None:
        outputs.append(batch.evaluate(torch.arange(examples.start, examples.stop, device=batch.device)))

    most = 1 if one_by_one else max(8, ENTRIES_AT_ONCE // max(1, batch.inputs[0][0].numel()))
    in_chunks(batch.size, most, run)
    return torch.cat(outputs)
