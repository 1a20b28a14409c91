"""Attributes a tiny random model of every family that transformers ships, or says the reason why not.

    python tests/family_survey.py                          # all, about half an hour on one core
    python tests/family_survey.py bert qwen3_next          # some
    python tests/family_survey.py --lines FILE --write docs/family_survey.md

A family is attributed if F with the captured attention put back is F of the model itself, and the maps of its layers
are finite, not all zero, and the same in a batch and alone; it is masked if F under `mask_heads` is F with the head's
attention zero. Whether its heads can be removed is what docs/pruning_survey.md says (`tests/prune_survey.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from surveys import Row as BaseRow
from surveys import cell, main, versions
from tiny_families import given_inputs, tiny_model
from torch import Tensor, nn

from captum_attattr import LayerAttAttr, UnsupportedModelError, attention_layers, mask_heads
from captum_attattr.model.attention_layers import AttentionLayer
from captum_attattr.model.sample_inputs import Runs, first_line, modules_passed, run

PRUNING = Path(__file__).parents[1] / "docs" / "pruning_survey.md"
CLOSE = 1e-5
"""The largest difference that counts as equal, relative to F where that is above 1 (float32)."""
NORMED = ("bitnet", "kosmos-2")
"""Families that normalise what attention gives, over all heads, before the output projection."""
RANDOM = {"vilt": "it draws the order of its patches at random, by row: no forward can be repeated for other rows"}
"""Families that are not tried, and why."""
OTHERS = re.compile("logits_per_|intermediate_|auxiliary_|past_key_values|reference_points")
"""Outputs whose dimension 0 is not, or not alone, examples: scores of each image for each text, layers one by one."""
OUTCOMES = ("attributed", "refused", "no attention", "not built", "broken")


@dataclass
class Row(BaseRow):
    """What came out for one family."""

    layers: str = ""
    """How many layers of each kind were attributed."""
    masked: bool = False
    """Whether a head was switched off exactly."""

    def said(self) -> str:
        return "; ".join(filter(None, (self.layers, self.detail)))


class BrokenError(Exception):
    """What is wrong with a family."""


def survey(family: str) -> Row:
    """Build and attribute one family."""
    row = Row(family, "not built", detail=RANDOM.get(family, ""))
    if row.detail:
        return row
    try:
        model = tiny_model(family)
    except NotImplementedError as error:
        row.detail = first_line(error)
        return row
    row.model = type(model).__name__
    try:
        layers = attention_layers(model)
        every = self_and_cross(model)
        if len(every) > len(layers):
            try:
                attribute_all(model, every, row)
                layers = every
            except UnsupportedModelError as error:  # it may be of cross attention alone
                attribute_all(model, layers, row)
                row.detail = "; ".join(filter(None, (row.detail, f"no cross attention: {first_line(error)}")))
        else:
            attribute_all(model, layers, row)
    except UnsupportedModelError as error:
        known = {"no attention layer": "no attention", "no inputs could be made": "not built"}
        row.outcome = next((outcome for text, outcome in known.items() if text in str(error)), "refused")
        row.detail = first_line(error)
    except Exception as error:
        row.outcome, row.detail = "broken", f"{type(error).__name__}: {first_line(error)}"
    else:
        row.outcome = "attributed"
        row.layers = ", ".join(f"{count} {kind}" for kind, count in Counter(one.kind for one in layers).items())
    return row


def attribute_all(model: nn.Module, layers: Sequence[AttentionLayer], row: Row) -> None:
    """Attribute layers, in as many forwards as pass through them all."""
    for part, inputs in runs(model, layers):
        attribute(model, part, inputs, layers, row)


def self_and_cross(model: nn.Module) -> list[AttentionLayer]:
    """All attention layers, cross attention included."""
    layers = attention_layers(model)
    try:
        return layers + attention_layers(model, "cross")
    except ValueError:
        return layers


def runs(model: nn.Module, layers: Sequence[AttentionLayer]) -> list[tuple[nn.Module, Mapping[str, Any]]]:
    """Forwards that together pass through all layers.

    Raises:
        UnsupportedModelError: there are none.
    """
    modules = list({id(one.module): one.module for one in layers}.values())
    try:
        return Runs(model, modules, given_inputs(model)).calls
    except ValueError as error:
        raise UnsupportedModelError(f"no inputs could be made that run it: {first_line(error)}") from error


def attribute(
    model: nn.Module, part: nn.Module, inputs: Mapping[str, Any], layers: Sequence[AttentionLayer], row: Row
) -> None:
    """Attribute the layers that one forward passes; a head of the first one is masked.

    Raises:
        BrokenError: the numbers are not right.
    """
    through = modules_passed(part, inputs, [one.module for one in layers])
    mine = [one for one in layers if any(one.module is module for module in through)]
    inputs = by_image(inputs)
    names = [name for name, value in inputs.items() if isinstance(value, Tensor)]
    tensors = tuple(inputs[name] for name in names)
    forward = scalar(part, names, {name: value for name, value in inputs.items() if name not in names}, mine)
    with torch.no_grad():
        clean = forward(*tensors)
    result = LayerAttAttr(forward, mine).integrate(tensors, n_steps=2, keep_attention=True)
    attention = tuple(result.attention)
    with torch.no_grad():
        again = with_attention(LayerAttAttr(forward, mine), attention, tensors)
    check("F with its own attention put back", again, clean)
    for one, maps in zip(mine, result.attributions, strict=True):
        if not torch.isfinite(maps).all():
            raise BrokenError(f"maps of {one!r} are not finite")
    zero = [one.name for one, maps in zip(mine, result.attributions, strict=True) if not maps.any()]
    if len(zero) == len(mine):
        raise BrokenError("all maps are zero")
    row.detail = f"zero maps of {', '.join(zero)}" if zero else row.detail
    alone = LayerAttAttr(forward, mine).integrate(tuple(tensor[:1] for tensor in tensors), n_steps=2).attributions
    for one, maps, its in zip(mine, result.attributions, alone, strict=True):
        if maps[:1].shape == its.shape:  # else the batch is padded to its longest
            check(f"the map of {one!r} alone", its, maps[:1], 1e-3)
    try:
        mask(model, forward, mine[0], attention[0], tensors)
    except UnsupportedModelError as error:
        row.detail = "; ".join(filter(None, (row.detail, f"not masked: {first_line(error)}")))
    else:
        row.masked = True


def by_image(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Inputs whose dimension 0 holds examples: the packed patches of all images are cut into those of each."""
    if "grid_thw" not in inputs:
        return inputs
    images = len(inputs["grid_thw"])
    return {name: value.reshape(images, -1, *value.shape[1:]) for name, value in inputs.items()}


def with_attention(attribution: LayerAttAttr, attention: Sequence[Tensor], tensors: tuple[Tensor, ...]) -> Tensor:
    """F of each example with attention put in; of a tower that packs images, one image after another."""
    if not any(layer.packs for layer in attribution.layers):
        return attribution.attention_forward(*attention, *tensors)
    rows = zip(*(tensor.split(1) for tensor in (*attention, *tensors)), strict=True)
    return torch.cat([attribution.attention_forward(*row) for row in rows])


def mask(model: nn.Module, forward: Any, layer: AttentionLayer, attention: Tensor, tensors: tuple[Tensor, ...]) -> None:
    """Mask the last head of a layer, and compare with its attention zero.

    Raises:
        BrokenError: F is another one.
        UnsupportedModelError: heads of the layer cannot be masked.
    """
    its, last = attention.clone(), attention.shape[1] - 1
    its[:, last] = 0
    with torch.no_grad():
        wanted = with_attention(LayerAttAttr(forward, layer), (its,), tensors)
        with mask_heads(model, {layer: [last]}):
            masked = forward(*tensors)
    if model.config.model_type in NORMED:
        raise UnsupportedModelError("its attention is normalised before the output projection, where heads are masked")
    check("F with a head masked", masked, wanted)


def scalar(
    part: nn.Module, names: Sequence[str], rest: Mapping[str, Any], layers: Sequence[AttentionLayer]
) -> Callable[..., Tensor]:
    """F of each example: fixed random weights times each output that has its rows."""
    packed = any(layer.packs for layer in layers)

    def forward(*tensors: Tensor) -> Tensor:
        rows, inputs = len(tensors[0]), dict(zip(names, tensors, strict=True)) | dict(rest)
        if packed and rows > 1:
            return torch.cat([forward(*row) for row in zip(*(tensor.split(1) for tensor in tensors), strict=True)])
        if "grid_thw" in inputs:
            inputs = {name: value.flatten(0, 1) for name, value in inputs.items()}
        output = run(part, inputs)
        values = [v for n, v in output.items() if not OTHERS.match(n)] if isinstance(output, Mapping) else [output]
        floats = (v for v in tensors_in(values) if v.is_floating_point() and v.dim() > 1)
        fitting = [v.flatten(0, -2) for v in floats if packed or len(v) == rows]
        if not fitting:
            raise UnsupportedModelError("its examples share one sequence: no output has a row for each")
        return torch.stack([weighted(value, rows) for value in fitting]).mean(0)

    return forward


def weighted(value: Tensor, rows: int) -> Tensor:
    """Fixed random weights times the last dimension of an output, (rows,)."""
    flat = value.float().nan_to_num(0, 0, 0).clamp(-100, 100)
    weights = torch.randn(flat.shape[-1], generator=torch.Generator().manual_seed(0)) / flat.shape[-1] ** 0.5
    return (flat @ weights).reshape(rows, -1).mean(1)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of an output."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | Mapping):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(part)


def check(name: str, actual: Tensor, wanted: Tensor, most: float = CLOSE) -> None:
    """Check that two values of F, or two maps, are equal.

    Raises:
        BrokenError: they are not.
    """
    apart = float((actual - wanted).abs().max() / wanted.abs().max().clamp(min=1))
    if not apart <= most:
        raise BrokenError(f"{name} differs by {apart:.2g}")


def pruned_families(page: Path = PRUNING) -> set[str]:
    """The families whose heads were removed, as the page of the other survey says."""
    return set(re.findall(r"^\| (\S+) \| \S* \| equal \|", page.read_text(encoding="utf-8"), flags=re.M))


def table(rows: Sequence[Row]) -> str:
    """The Markdown of the survey."""
    counts, pruned = Counter(row.outcome for row in rows), pruned_families()
    tried = counts["attributed"] + counts["refused"] + counts["broken"]
    lines = [
        "# Attribution, family by family",
        "",
        f"`python tests/family_survey.py --write docs/family_survey.md` with {versions()}: a tiny random model of "
        "every family that transformers ships. Attributed: F with the captured attention put back is F of the model "
        "itself to 1e-5, and maps are the same in a batch and alone. Masked: F under `mask_heads` is F with that "
        "head's attention zero, to 1e-5. Pruned: with heads removed it is the masked model "
        "([the other survey](pruning_survey.md)).",
        "",
        f"{len(rows)} families; {tried} with attention that could be run: {counts['attributed']} attributed "
        f"({sum(row.masked for row in rows)} masked, "
        f"{sum(row.outcome == 'attributed' and row.family in pruned for row in rows)} pruned), "
        f"{counts['refused']} refused with the reason, **{counts['broken']} broken** (a wrong number or a raw error). "
        f"{counts['no attention']} have no attention layer. Of {counts['not built']} no "
        "tiny model was built or run here, and nothing is said of these.",
        "",
        "| family | model | outcome | masked | pruned | layers, or why not |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row.family, row.model, row.outcome, "yes" * row.masked, "yes" * (row.family in pruned)]
        lines.append(f"| {' | '.join([*cells, cell(row.said())])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(__doc__, survey, Row, table)
