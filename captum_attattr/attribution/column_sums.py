"""Token scores along the joint path of several outputs of one text, where nobody needs the maps.

    s_kj = sum_n w_n  sum_l sum_h sum_i  (dF_k/dM_lh)_ij at node a_n

The forward of a node is the same for every output F_k: it is run once, and gone back through once for each. Its maps
are summed up on the way: an output leaves (T,) numbers behind instead of (L, H, T, T).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_attattr.attribution.baselines import AttentionBaselines
from captum_attattr.attribution.edges import Edges
from captum_attattr.attribution.facts import Facts
from captum_attattr.attribution.inputs import Rule, fixed_rule, make_batch
from captum_attattr.attribution.integration import default_limit
from captum_attattr.attribution.preparation import prepared_sweep
from captum_attattr.attribution.rows import ALL, Row
from captum_attattr.attribution.sweep import Sweep
from captum_attattr.model.attention_layers import AttentionLayer
from captum_attattr.runs.memory import in_chunks


class ColumnSums(NamedTuple):
    """Scores of K outputs of a text of T tokens, float64, on the CPU."""

    scores: Tensor
    """(K, T) what all queries of all heads and layers took from each key."""
    output: Tensor
    """(K,) F(A), by the model's own attention."""
    total_delta: Tensor
    """(K,) the sum of the scores minus (F(A) - F(B))."""


class Keys(NamedTuple):
    """Where the keys of the layers' maps stand among the T tokens of a text."""

    first: Sequence[int]
    """By layer, the token that is its first key."""
    tokens: int
    """T."""


class _Outputs:
    """A forward function of several outputs, as one of their sum; the outputs of the last forward stay."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        self.forward, self.last = forward, torch.empty(0)

    def __call__(self, *tensors: Tensor) -> Tensor:
        self.last = self.forward(*tensors)
        return self.last.sum(1)


def column_sums(
    layers: Sequence[AttentionLayer],
    forward: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    baselines: AttentionBaselines,
    known: dict[object, Facts],
    rule: Rule,
    check: Callable[[Sequence[torch.Size]], None],
    keys: Keys,
) -> ColumnSums:
    """Integrate several outputs of one text along the joint path, by a fixed rule, and sum up the columns of the maps.

    Args:
        layers, baselines: as in `LayerAttAttr`, checked.
        forward: takes tensors (R, ...), rows of the text, and returns (R, K).
        inputs: the text's, each (1, ...).
        known: what was learned of the model from texts before; added to.
        rule: fixed, with the most rows of a forward.
        check: refuses shapes (H, Tq, Tk) of layers.
        keys: which tokens the columns of the maps are.

    Raises:
        UnsupportedModelError, ValueError: as `LayerAttAttr.integrate`.
    """
    assert rule.n_steps is not None, "the rule is fixed"
    nodes, weights = fixed_rule(rule.method, rule.n_steps)
    outputs = _Outputs(forward)
    with torch.no_grad():
        output = forward(*inputs)[0].double().cpu()
    with prepared_sweep(layers, make_batch(outputs, inputs, None, None), baselines, known) as sweep:
        check(sweep.facts.shapes)
        scores = torch.zeros(len(output), keys.tokens, dtype=torch.float64, device="cpu")

        def run(part: range) -> None:
            found = _columns(sweep, [nodes[i] for i in part], outputs, keys)
            of_nodes = torch.tensor([weights[i] for i in part], dtype=torch.float64, device="cpu")
            scores.add_(torch.einsum("n,nkt->kt", of_nodes, found))

        # What a forward leaves for going back stays until the last output: half as many rows as elsewhere.
        in_chunks(len(nodes), rule.internal_batch_size or max(1, default_limit(sweep) // 2), run)
        sweep.opened([Row(0, ALL, 1.0)], backward=False)  # which verifies the model with its attention replaced
        sweep.opened([Row(0, ALL, 0.0)], backward=False)
        start = outputs.last[0].double().cpu()
    return ColumnSums(scores, output, scores.sum(1) - (output - start))


def _columns(sweep: Sweep, nodes: list[float], outputs: _Outputs, keys: Keys) -> Tensor:
    """Return (n, K, T) the sums of the maps' columns of every output at some nodes: one forward, K times back."""
    layout, _, calls, paths = sweep.opened([Row(0, ALL, node) for node in nodes], backward=True)
    everything = torch.arange(len(nodes), device=sweep.device)
    edges: dict[int, Edges] = {}
    for layer in paths:
        edges[layer] = Edges.of(layer, calls.pop(layer), everything, layout.examples, sweep.baseline)
        edges[layer].attention = edges[layer].difference  # only that is needed: the matrices are large
    with torch.enable_grad():  # the caller may be under torch.no_grad
        values = outputs.last.unbind(1)
    found = []
    for k, value in enumerate(values):
        gradients = sweep.gradients(value, paths, layout.examples, again=k + 1 < len(values))
        sums = []
        for layer in paths:
            columns, first = edges[layer].columns(sweep.or_zeros(gradients[layer], paths[layer])), keys.first[layer]
            sums.append(nn.functional.pad(columns, (first, keys.tokens - first - columns.shape[1])).to(sweep.device))
        found.append(torch.stack(sums).sum(0).double().cpu())
    in_order = torch.empty(len(nodes), len(found), found[0].shape[-1], dtype=torch.float64, device="cpu")
    in_order[layout.listed] = torch.stack(found, 1)
    return in_order
