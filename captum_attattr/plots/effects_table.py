"""The measured effects of removing a report's strongest edges, beside their scores, as HTML."""

from __future__ import annotations

import html
import math
from typing import Any

from captum_attattr.checks import instance, row_of
from captum_attattr.evaluation.effects import RemovalEffects
from captum_attattr.evaluation.result import REMOVALS
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.words import readable
from captum_attattr.formatting import counted, number, signed, visible

_MOST = 10
_FEWEST = 5  # effects of which a correlation is told
_AGREEMENT = ((0.8, "agree well"), (0.5, "agree in part"), (0.2, "agree little"), (-1.0, "do not agree"))
_LENGTH = 24  # characters of a token


def checked_effects(explanation: Explanation, effects: RemovalEffects) -> RemovalEffects:
    """Return effects that belong to an explanation.

    Raises:
        TypeError: they are something else.
        ValueError: they are of heads or tokens, or of another explanation.
    """
    instance("effects", effects, RemovalEffects, "a RemovalEffects of removal_effects")
    if effects.unit != "edge":
        raise ValueError(f"effects must be those of edges, not of {effects.unit}s: removal_effects(..., unit='edge')")
    other = "effects are those of another explanation"
    if effects.tokens != explanation.tokens:
        first = next((pair for pair in zip(effects.tokens, explanation.tokens, strict=False) if pair[0] != pair[1]), ())
        told = " and ".join(map(repr, first)) or f"{len(effects.tokens)} and {len(explanation.tokens)} of them"
        raise ValueError(f"{other}: their tokens differ, {told:.200}")
    if not math.isclose(effects.value, float(explanation.value or 0), rel_tol=0.01, abs_tol=1e-4):
        raise ValueError(f"{other}: F is {number(effects.value)} there, and here {number(explanation.value or 0)}")
    for layer, head, query, key, score in effects.edges:
        edge = f"layer {layer}, head {head}, query {query}, key {key}"
        row = row_of("effects: layer", layer, explanation.layers)
        here = float(explanation.attributions[row, head, query, key])
        if not math.isclose(here, score, rel_tol=1e-3, abs_tol=1e-12):
            raise ValueError(f"{other}: the score of {edge} is {number(score)} there, and here {number(here)}")
    return effects


def effects_html(explanation: Explanation, effects: RemovalEffects) -> str:
    """Return the HTML of the ten strongest edges that were removed, a row each with its score and its effect."""
    pairs = sorted(zip(effects.edges, effects.effects.tolist(), strict=True), key=lambda pair: -abs(pair[0].score))
    pairs = pairs[:_MOST]
    largest = max((abs(value) for edge, effect in pairs for value in (edge.score, effect)), default=0) or 1
    names = [visible(token, _LENGTH) for token in readable(explanation.tokens, explanation.scheme)]
    names = [
        f"<bdi>{html.escape(name)}</bdi>" if special else f"“<bdi>{html.escape(name)}</bdi>”"
        for name, special in zip(names, explanation.special, strict=True)
    ]
    rows = "".join(_row(explanation, names, edge, effect, largest) for edge, effect in pairs)
    removed = f"{counted(len(effects.edges), 'edge')} {REMOVALS[effects.removal]}, each alone"
    return f"""<h2>Removed one by one: the score beside the measured effect</h2>
<p class="agreement">{html.escape(agreement(effects))}</p>
<table class="effects" aria-label="effects of removal"><thead><tr><th scope="col">edge of one head</th>
<th scope="col">score</th><th scope="col">effect</th></tr></thead><tbody>{rows}</tbody></table>
<p class="key">Effect: what F loses without the edge, F(whole) − F(without), measured.
{removed[0].upper()}{removed[1:]};
the strongest {len(pairs)} are shown. Bars have one scale.</p>"""


def _row(explanation: Explanation, names: list[str], edge: Any, effect: float, largest: float) -> str:
    row = explanation.layers.index(edge.layer)
    cells = "".join(
        f'<td class="{"against" if value < 0 else "for"}"><span>{signed(value)}</span>'
        f'<i style="--share:{abs(value) / largest:.3f}"></i></td>'
        for value in (edge.score, effect)
    )
    told = f"{names[edge.query]} read {names[edge.key]}, layer {edge.layer}, head {edge.head}"
    link = f'<button type="button" class="phrase" data-link="{row},{edge.query},{edge.key}">{told}</button>'
    return f'<tr><th scope="row">{link}</th>{cells}</tr>'


def agreement(effects: RemovalEffects) -> str:
    """Return a sentence on how well scores and effects agree, over all edges that were removed."""
    count = len(effects.edges)
    scores, measured = effects.scores.double(), effects.effects.double()
    same = int((scores.sign() == measured.sign()).sum())
    signs = f"{same} of {counted(count, 'effect')} {'has' if same == 1 else 'have'} the sign of the score"
    rank = effects.spearman
    if count < _FEWEST:
        return f"Too few edges to say how well scores and effects agree: {signs}."
    if not math.isfinite(rank):
        return f"Scores and effects cannot be ranked against each other, for one of them is constant: {signs}."
    how = next(text for least, text in _AGREEMENT if rank >= least)
    size = float(measured.abs().sum() / scores.abs().sum()) if scores.any() else math.nan
    sizes = f"; together the effects are {number(size)} times as large as the scores" if math.isfinite(size) else ""
    return f"Scores and effects {how} (rank correlation {rank:.2f}); {signs}{sizes}."
