r"""ALTI: how much of each token is in what attention makes of each position (Ferrando, Gallego, Costa-jussà:
"Measuring the Mixing of Contextual Information in the Transformer", EMNLP 2022, equations 4 to 8).

With x_j the hidden states that reach an attention sub-layer, V_hj the values made of them, O_h the output projection's
columns of head h, and A the attention, what the sub-layer gives position i is a sum over tokens and biases,

    y_i = sum_j z_ij + biases,      z_ij = L_i( sum_h A_hij O_h V_hj + [i = j] x_i ).

L_i is the norm behind the residual, its division by the size of its argument held, where the family has one (BERT), and
nothing where the norm comes before the attention (GPT-2, Llama). The contribution of token j to position i is how
much nearer to y_i its part alone is than nothing, in the sum of absolute values,

    c_ij = max(0, |y_i| - |y_i - z_ij|) / sum over j of the same,

one map (T, T) a layer whose rows add up to 1 (to 0 where no token is nearer). Heads are summed, and the output plays no
part: gradients only tell which queries it reads in the last layer, whose rows are kept there, divided by their count.
The product of the layers' maps, the last one leftmost, is the share of each token in the output: its column sums are
the token scores.

Where a family adds its residual is not known by name. It is found in a run, and what is found is checked: x + attention
must be what a module is given next, and the sum of all z_ij what the output projection gave.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_attattr.attribution.methods.maps import Maps, Request, room
from captum_attattr.attribution.methods.reading import read_rows
from captum_attattr.attribution.methods.residual import Passage, PassageRecorder, Residual, unsupported
from captum_attattr.attribution.sweep import Sweep

ENTRIES_AT_ONCE = 2**22
"""Entries of the z_ij that are formed together."""


def alti(request: Request) -> Maps:
    """Return the contribution of each token to each position, per layer one map (B, 1, T, T).

    Raises:
        UnsupportedModelError: a layer's output is not the sum above: what attention gives is normalised or rescaled
            before it is added (Gemma 2, OLMo 2), the residual is not found, or other tokens than its own are read.
        ValueError: F carries no gradient to the last layer.
    """
    with request.chunks() as (sweep, each):
        maps = [matrix[:, :1].clone() for matrix in room(sweep)]
        output = torch.zeros(sweep.batch, dtype=maps[0].dtype, device="cpu")

        def run(examples: range) -> None:
            part = slice(examples.start, examples.stop)

            def keep(layer: int, passage: Passage, residual: Residual) -> None:
                for row, example in enumerate(examples):
                    shares = _contributions(sweep, layer, _Terms.of(passage, residual, row))
                    maps[layer][example, 0] = shares.to(maps[layer])

            values, gradients = PassageRecorder(sweep, keep).run(examples)
            output[part] = values.to(output)
            last = sweep.facts.order[-1]
            maps[last][part, 0] = read_rows(maps[last][part, 0], gradients.to(maps[last]))

        each(run)
    return Maps(maps, output, [], 2 * sweep.batch)


@dataclass
class _Terms:
    """One example's parts of one layer's output; floats of 32 bits at least."""

    attention: Tensor
    """(H, T, T)"""
    moved: Tensor
    """(H, T, d) O_h V_hj"""
    bias: Tensor
    """(d,) of the output projection."""
    given: Tensor
    """(T, d) what the output projection gave, in the model's own type."""
    residual: Residual
    """x, y and the norm, of this example."""

    @classmethod
    def of(cls, passage: Passage, residual: Residual, row: int) -> _Terms:
        """Take one example's out of what a forward has passed."""
        moved, bias = passage.moved(row)
        return cls(passage.attention[row].to(moved), moved, bias, passage.output[row], residual.of_row(row))


def _contributions(sweep: Sweep, layer: int, terms: _Terms) -> Tensor:
    """Return the map (T, T) of one example, some queries at a time.

    Raises:
        UnsupportedModelError: the parts do not add up to what the output projection gave.
    """
    given = terms.given.to(terms.moved)
    by_key, weights = terms.moved.transpose(0, 1), terms.attention.permute(2, 1, 0)  # (T, H, d), (keys, queries, H)
    at_once = max(1, ENTRIES_AT_ONCE // given.numel())
    tolerance = torch.finfo(terms.given.dtype).eps ** 0.5 * float(given.abs().max())
    x, y, norm = terms.residual.x, terms.residual.y, terms.residual.norm
    shares = []
    for begin in range(0, len(given), at_once):
        queries = torch.arange(begin, min(begin + at_once, len(given)), device=given.device)
        parts = torch.bmm(weights[:, queries], by_key).transpose(0, 1)  # (queries, keys, d)
        error = float((parts.sum(1) + terms.bias - given[queries]).abs().max())
        if not error <= tolerance:
            raise unsupported(
                sweep.control.layers[layer],
                f"its output projection does not give the sum of its attention times its values (off by {error:.2g})",
            )
        parts[torch.arange(len(queries), device=given.device), queries] += x[queries]
        if norm:
            parts = norm(parts, norm.scale[queries, None])
        whole = y[queries, None]
        nearer = (whole.abs() - (whole - parts).abs()).sum(-1).clamp_min(0)
        shares.append(nearer / nearer.sum(1, keepdim=True).clamp_min(torch.finfo(nearer.dtype).tiny))
    return torch.cat(shares)
