"""Prunes a tiny random model of every family that transformers ships, and compares with the masked model.

    python tests/prune_survey.py                          # all, about half an hour on one core
    python tests/prune_survey.py bert qwen3_next          # some
    python tests/prune_survey.py --lines FILE --write docs/pruning_survey.md

Of each kind of attention uneven heads of two layers go. Compared are a forward, generation with a dynamic and a static
cache, beams of encoder-decoders, the model after it was saved and loaded, and the model after a training step.
"""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from surveys import Row as BaseRow
from surveys import cell, main, versions
from tiny_families import tiny_model
from torch import Tensor, nn

from captum_attattr import UnsupportedModelError, attention_layers, load_pruned, mask_heads, prune_heads, save_pruned
from captum_attattr.model.projections import Heads
from captum_attattr.model.sample_inputs import Runs, first_line

CLOSE = 1e-5
"""The largest difference that counts as equal, relative to the largest entry (float32)."""
OUTCOMES = ("equal", "refused", "no attention", "not built", "broken")


@dataclass
class Row(BaseRow):
    """What came out for one family."""

    checks: list[str] = field(default_factory=list)
    """What was compared, and equal."""

    def said(self) -> str:
        return ", ".join(self.checks) if self.outcome == "equal" else self.detail


def survey(family: str) -> Row:
    """Build, prune and compare one family."""
    try:
        model = tiny_model(family)
    except NotImplementedError as error:
        return Row(family, "not built", detail=first_line(error))
    row = Row(family, "equal", type(model).__name__)
    try:
        heads = uneven(model)
    except UnsupportedModelError as error:
        known = {"no attention layer": "no attention", "no inputs could be made": "not built"}
        outcome = next((outcome for text, outcome in known.items() if text in str(error)), "refused")
        return Row(family, outcome, row.model, first_line(error))
    pruned = copy.deepcopy(model)
    before = {name: tensor.clone() for name, tensor in pruned.state_dict().items()}
    names = {module: name for name, module in model.named_modules()}
    chosen = {layer: heads[names_of(layer, names)] for layer in layers_of(pruned) if names_of(layer, names) in heads}
    try:
        prune_heads(pruned, chosen)
    except UnsupportedModelError as error:
        same = all(torch.equal(tensor, before[name]) for name, tensor in pruned.state_dict().items())
        if "no inputs could be made" in str(error):
            return Row(family, "not built", row.model, first_line(error))
        return Row(family, "refused" if same else "broken", row.model, first_line(error))
    masks = {layer: heads[names_of(layer, names)] for layer in layers_of(model) if names_of(layer, names) in heads}
    for name, check in CHECKS.items():
        try:
            apart = check(model, masks, pruned)
        except Exception as error:
            return Row(family, "broken", row.model, f"{name}: {first_line(error)}", row.checks)
        if apart is None:
            continue
        if not apart <= CLOSE:
            return Row(family, "broken", row.model, f"{name}: differs by {apart:.2g}", row.checks)
        row.checks.append(name)
    return row


def names_of(layer: Any, _: Any = None) -> tuple[str, str, int]:
    """What tells a layer in a copy of its model."""
    return layer.name, layer.kind, layer.call


def layers_of(model: nn.Module) -> list[Any]:
    """All attention layers, cross attention included."""
    layers = attention_layers(model)
    try:
        return layers + attention_layers(model, "cross")
    except ValueError:
        return layers


def runnable(model: nn.Module, layers: list[Any]) -> list[Any]:
    """The layers of those stacks that run on inputs made from the config: some towers take what nobody can guess."""
    runs: dict[tuple[str, str | None], bool] = {}
    for layer in layers:
        stack = layer.kind, layer.stack
        if stack not in runs:
            try:
                Runs(model, [layer.module], None)
                runs[stack] = True
            except UnsupportedModelError as error:
                runs[stack] = False
                failure = error
    chosen = [layer for layer in layers if runs[layer.kind, layer.stack]]
    if not chosen:
        raise failure
    return chosen


def uneven(model: nn.Module) -> dict[tuple[str, str, int], list[int]]:
    """Of the first layer of every stack the second head or its group; of the second layer that of the last head."""
    chosen: dict[tuple[str, str, int], list[int]] = {}
    stacks: Counter[tuple[str, str | None]] = Counter()
    layers = runnable(model, layers_of(model))
    calls = Counter(id(layer.module) for layer in layers)
    failure: UnsupportedModelError | None = None
    for layer in layers:
        try:
            heads = Heads(layer)
        except UnsupportedModelError as error:
            failure = error
            continue
        which = stacks[layer.kind, layer.stack]
        stacks[layer.kind, layer.stack] += 1
        shared = calls[id(layer.module)] > 1
        if heads.count > 1 and (which < 2 or shared):
            head = heads.indices[1 if which == 0 or shared else -1]
            group = heads.group_of(head)
            if len(group) < heads.count:
                chosen[names_of(layer)] = group
    if not chosen:
        raise failure or UnsupportedModelError("no layer has two groups of heads")
    return chosen


# ------------------------------------------------------------------------------------------------- what is compared


def apart(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> float:
    """The largest difference, relative to the largest entry."""
    most = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if b.numel():
            scale = float(b.float().nan_to_num(0, 0, 0).abs().max()) + 1e-9
            unlike = (a.float() - b.float()).masked_fill(a == b, 0).masked_fill(a.isnan() & b.isnan(), 0)
            most = max(most, float(unlike.nan_to_num(torch.inf).abs().max()) / scale)
    return most


def runs(model: nn.Module, masks: Any) -> Runs:
    return Runs(model, list({id(layer.module): layer.module for layer in masks}.values()), None)


def forward(model: nn.Module, masks: Any, pruned: nn.Module) -> float:
    """One forward."""
    with mask_heads(model, masks):
        masked = runs(model, masks).outputs()
    inputs = [inputs for _, inputs in runs(model, masks).calls]
    layers = {names_of(layer): layer for layer in layers_of(pruned)}
    ours = Runs(pruned, [layers[names_of(layer)].module for layer in masks], None)
    assert len(ours.calls) == len(inputs)
    return apart(ours.outputs(), masked)


def generation(model: Any, masks: Any, pruned: Any, **options: Any) -> float | None:
    """Tokens and scores of a few steps; None where the model does not generate."""
    calls = runs(model, masks).calls
    if not getattr(model, "can_generate", lambda: False)() or calls[0][0] is not model:
        return None
    inputs = {name: value for name, value in calls[0][1].items() if name != "decoder_input_ids"}
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "output_logits": True} | options
    options |= {"return_dict_in_generate": True}
    options |= {"decoder_start_token_id": 1} if getattr(model.config, "is_encoder_decoder", False) else {}
    try:
        with torch.no_grad(), mask_heads(model, masks):
            theirs = model.generate(**inputs, **options)
    except Exception:  # the family does not generate like this, pruned or not
        return None
    with torch.no_grad():
        ours = pruned.generate(**inputs, **options)
    assert torch.equal(ours.sequences, theirs.sequences), "other tokens"
    return apart(ours.logits, theirs.logits)


def static(model: Any, masks: Any, pruned: Any) -> float | None:
    """Generation with a static cache."""
    return generation(model, masks, pruned, cache_implementation="static", disable_compile=True)


def beams(model: Any, masks: Any, pruned: Any) -> float | None:
    """Beams of an encoder-decoder."""
    if not getattr(model.config, "is_encoder_decoder", False):
        return None
    return generation(model, masks, pruned, num_beams=3)


def loaded(model: Any, masks: Any, pruned: Any) -> float | None:
    """Save and load; None where the family's own model does not come back the same."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            model.save_pretrained(folder)
            again = type(model).from_pretrained(folder, attn_implementation=model.config._attn_implementation)
            own = apart(runs(again, layers_of(again)[:1]).outputs(), runs(model, layers_of(model)[:1]).outputs())
        except Exception:
            return None
    if own > CLOSE:
        return None
    with tempfile.TemporaryDirectory() as folder:
        save_pruned(pruned, folder)
        again = load_pruned(folder, attn_implementation=pruned.config._attn_implementation)
    return forward(model, masks, again)


def trained(model: Any, masks: Any, pruned: Any) -> float | None:
    """One step of gradient descent on both; None where no output has a gradient."""
    model, ours = (copy.deepcopy(each) for each in (model, pruned))
    layers = {names_of(layer): layer for layer in layers_of(model)}
    masks = {layers[names_of(layer)]: heads for layer, heads in masks.items()}
    mine = {names_of(layer): layer.module for layer in layers_of(ours)}
    for each, modules in ((model, [layer.module for layer in masks]), (ours, [mine[names_of(n)] for n in masks])):
        calls = Runs(each, modules, None).calls
        with mask_heads(each, masks) if each is model else torch.enable_grad():
            for part, inputs in calls:
                torch.manual_seed(0)
                outputs = [o for o in part(**inputs).values() if isinstance(o, Tensor) and o.requires_grad]
                if not outputs:
                    return None
                torch.stack([o.float().pow(2).mean() for o in outputs]).sum().backward()
        with torch.no_grad():
            for parameter in each.parameters():
                if parameter.grad is not None:
                    parameter -= 1e-3 * parameter.grad
    return forward(model, masks, ours) / 10  # rounding of gradients comes on top


CHECKS = {
    "forward": forward,
    "dynamic cache": generation,
    "static cache": static,
    "beams": beams,
    "save and load": loaded,
    "training step": trained,
}


# ------------------------------------------------------------------------------------------------- the whole survey


def table(rows: list[Row]) -> str:
    """The Markdown of the survey."""
    counts = Counter(row.outcome for row in rows)
    tried = counts["equal"] + counts["refused"] + counts["broken"]
    lines = [
        "# Pruning, family by family",
        "",
        f"`python tests/prune_survey.py --write docs/pruning_survey.md` with {versions()}: a tiny random model of "
        "every family that transformers ships; of "
        "each kind of attention uneven heads of two layers removed, and compared with the masked model (1e-5 of the "
        "largest entry, float32; 1e-4 after a training step).",
        "",
        f"{len(rows)} families; {tried} with attention that could be run: {counts['equal']} equal, {counts['refused']} "
        f"refused before a change, **{counts['broken']} broken**. {counts['no attention']} have no attention that is "
        f"found, and of {counts['not built']} no tiny model was built or run here (nothing is said of these; "
        "`prune_heads` compares with the masked model there too, on inputs that you give).",
        "",
        "| family | model | outcome | compared, or why not |",
        "|---|---|---|---|",
    ]
    for row in rows:
        lines.append(f"| {row.family} | {row.model} | {row.outcome} | {cell(row.said())} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(__doc__, survey, Row, table)
