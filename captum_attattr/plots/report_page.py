"""One page for one decision: what was decided, the tree, the flow, the maps and the heads."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import torch

from captum_attattr.checks import instance
from captum_attattr.exceptions import EmptyTreeError
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.words import readable
from captum_attattr.formatting import number, output_value, path_name, signed, visible
from captum_attattr.heads.importance import HeadImportance
from captum_attattr.plots.attention import plot_attention
from captum_attattr.plots.canvas.packing import halves
from captum_attattr.plots.canvas.pages import figure_block, page, write_page
from captum_attattr.plots.flow import plot_flow
from captum_attattr.plots.head_scores import scores_of
from captum_attattr.plots.heads import plot_heads
from captum_attattr.plots.tree import plot_tree
from captum_attattr.trees.algorithm import attribution_tree

_INTRODUCTIONS = {
    "tree": "Where the decision gathered from, layer by layer; of every layer only the strongest links.",
    "flow": "All links between tokens, the strongest first; not only the tree's.",
    "maps": "Every head's map: a row is a token that gathers, a column a token that it gathers from.",
    "heads": "Which heads matter, layer by layer.",
}
_FLAT = 0.99
_NOTE_FLAT = (
    "The probability is above 0.99, where softmax is flat: gradients and scores are tiny there, though their ranking is"
    " fine. For scores of the usual size explain the log-probability or the logit (output=), or the difference to"
    " another class (contrast=)."
)


def write_report(
    explanation: Explanation,
    path: str | os.PathLike[str],
    *,
    importance: HeadImportance | Mapping[str, HeadImportance] | Sequence[HeadImportance] | None = None,
    threshold: float = 0.4,
    title: str | None = None,
) -> Path:
    """Write all views of one explanation as one HTML file, which opens without a network.

    In this order: what was decided, with delta and error of every layer; the attribution tree; the flow; the maps
    of all heads; the head map. The page is one of `write_html`'s kind: plotly.js is inside, nothing is loaded,
    light and dark follow the reader's setting, paper is light.

    Args:
        explanation: of `explain`.
        path: the file; it is replaced if it exists. Its directory must exist.
        importance: what the head map shows, as `plot_heads` takes it; by default the largest attribution of each
            head in this explanation, which is what one example adds to the importance of `head_importance`.
        threshold: that of the tree, from 0 to 1. Where it leaves no tree, the page says which one would.
        title: the page's heading; by default the label and its probability.

    Returns:
        The path.

    Raises:
        TypeError: `explanation`, `importance`, `path` or `title` is something else.
        ValueError: the importance is that of another model, the threshold is outside [0, 1], or the directory does
            not exist.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> from captum_attattr import explain
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> explanation = explain(*load_demo_model(), ["a gorgeous , witty film"], progress=False)[0]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_report(explanation, folder + "/report.html").name
        'report.html'
    """
    instance("explanation", explanation, Explanation, "an Explanation")
    if title is not None:
        instance("title", title, str, "a string")
    sections = _sections(explanation, importance, threshold)
    title = _shown(_title(explanation) if title is None else title)
    links = "".join(f'<a href="#{each.name}">{each.heading}</a>' for each in sections)
    start = f'<header><h1>{html.escape(title)}</h1><nav aria-label="sections">{links}</nav></header>'
    body = "\n".join([start, *(each.block() for each in sections)])
    return write_page(page(title, body, [each.figure for each in sections if each.figure], "report"), path)


class _Section(NamedTuple):
    """One part of the page."""

    name: str
    heading: str
    content: str
    """HTML above the figure"""
    figure: go.Figure | None = None

    def block(self) -> str:
        drawing = "" if self.figure is None else figure_block(self.figure, self.name)
        return f'<section id="{self.name}">\n<h2>{self.heading}</h2>\n{self.content}\n{drawing}\n</section>'


def _sections(explanation: Explanation, importance: Any, threshold: float) -> list[_Section]:
    """Return all parts in their order."""
    figures: dict[str, tuple[str, go.Figure | str]] = {
        "tree": ("Attribution tree", _tree(explanation, threshold)),
        "flow": ("Flow", _flow(explanation)),
        "maps": ("Maps of the heads", plot_attention(explanation)),
        "heads": ("Importance of the heads", _heads(explanation, importance)),
    }
    sections = [_Section("decision", "Decision", _decision(explanation))]
    for name, (heading, figure) in figures.items():
        introduction = f"<p>{html.escape(_INTRODUCTIONS[name])}</p>"
        if isinstance(figure, str):
            sections.append(_Section(name, heading, f'{introduction}\n<p class="note">{html.escape(figure)}</p>'))
        else:
            sections.append(_Section(name, heading, introduction, figure))
    return sections


def _tree(explanation: Explanation, threshold: float) -> go.Figure | str:
    """Return the figure, or why there is none."""
    try:
        tree = attribution_tree(explanation, threshold)
    except EmptyTreeError as error:
        return f"There is no tree to draw: {_shown(str(error))}."
    return plot_tree(tree, explanation)


def _flow(explanation: Explanation) -> go.Figure | str:
    """Return the figure, or why there is none. `report.js` makes its scores of single heads of the maps."""
    if not explanation.attributions.sum(1).any():
        return "There is no flow to draw: the attributions of all heads are 0, or cancel out."
    figure = plot_flow(explanation)
    bulk = dict(figure.layout.meta["flow"])
    layers, _, size = bulk["shape"]
    sums = np.zeros(layers * size * size, dtype=np.float32)
    sums[bulk["indices"]] = bulk["score"]
    heads = {name: value for name, value in bulk["heads"].items() if name not in ("high", "low")}
    kept = {name: value for name, value in bulk.items() if name not in ("indices", "score")}
    reduced = {**kept, "heads": heads, "sums": halves(sums.reshape(-1, size))}
    figure.layout.meta = {**figure.layout.meta, "flow": reduced}
    return figure


def _heads(explanation: Explanation, importance: Any) -> go.Figure | str:
    """Return the figure of the given importance, or of the largest attribution of each head, or why there is none."""
    if importance is None:
        if list(explanation.layers) != list(range(len(explanation.attributions))):
            return "Of some layers alone no head map is drawn; give an importance of all layers."
        return plot_heads({"largest attribution in this text": _largest_attributions(explanation)})
    shape = tuple(explanation.attributions.shape[:2])
    given = scores_of(importance)[0].scores.shape
    chosen = list(explanation.layers) != list(range(shape[0]))
    if given != shape and not (chosen and given[0] > explanation.layers[-1] and given[1] == shape[1]):
        raise ValueError(f"importance is that of {given} layers and heads, but the explanation has {shape}")
    return plot_heads(importance)


def _largest_attributions(explanation: Explanation) -> HeadImportance:
    """Return what one example adds to the importance of `head_importance`: the largest attribution of each head."""
    scores = explanation.attributions.double().amax((2, 3))
    maps = explanation.attributions if explanation.attention is None else explanation.attention
    present = maps.ne(0).any(-1).any(-1)  # a head that `prune_heads` took attends to nothing
    if present.any():
        scores = scores.masked_fill(~present, math.nan)
    return HeadImportance(
        scores=scores,
        stderr=torch.full_like(scores, math.nan),
        count=1,
        method="attattr",
        options={},
        labels=[],
        examples=[],
        model="",
    )


def _shown(text: str) -> str:
    """Return the whole of a text from data, with what would act spelt out; not escaped for HTML."""
    return visible(text, 6 * len(text) + 1)  # "\\u202e" is the longest that a character becomes


def _title(explanation: Explanation) -> str:
    against = "" if explanation.contrast is None else f" against {explanation.contrast}"
    how = path_name(explanation.path, explanation.baseline)
    return ", ".join(
        filter(None, [f"Self-attention attribution: {explanation.label}{against}", _value(explanation), how])
    )


def _value(explanation: Explanation) -> str:
    """Return what F is and its value; "" if that is not known."""
    return output_value(explanation.output, explanation.value, explanation.contrast is not None)


def _decision(explanation: Explanation) -> str:
    """Return the HTML of what was decided: text, label and value, tokens, and a table of the layers."""
    texts = [explanation.text] if isinstance(explanation.text, str) else list(explanation.text)
    quoted = "".join(f"<blockquote><bdi>{html.escape(_shown(text))}</bdi></blockquote>" for text in texts)
    label = f"<bdi>{html.escape(_shown(explanation.label))}</bdi>"
    facts = {
        "explained": f"{label} (target {explanation.target})",
        "its value": _value(explanation) or "not known",
    }
    if explanation.contrast is not None:
        other = f"<bdi>{html.escape(_shown(explanation.contrast))}</bdi>"
        facts["against"] = f"{other} (target {explanation.contrast_target})"
    if explanation.output != "score" and (explanation.output != "probability" or explanation.contrast is not None):
        facts["probability"] = number(explanation.probability)
    if how := path_name(explanation.path, explanation.baseline):
        facts["integrated along"] = f"the {how if explanation.path == 'joint' else f'layer path {how}'}"
    if explanation.prediction == explanation.target:
        facts["the model's own choice"] = "the same"
    else:
        facts["the model's own choice"] = f"target {explanation.prediction}"
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    flat = explanation.output == "probability" and explanation.probability > _FLAT
    note = f'\n<p class="note">{_NOTE_FLAT}</p>' if flat else ""
    return f"{quoted}\n<dl>{rows}</dl>{note}\n{_tokens(explanation)}\n{_layers(explanation)}"


def _tokens(explanation: Explanation) -> str:
    """Return the HTML list of the tokens, special ones marked."""
    items = []
    for position, (token, special) in enumerate(zip(readable(explanation.tokens), explanation.special, strict=True)):
        kind = ' class="special"' if special else ""
        shown = html.escape(_shown(token))
        items.append(f'<li{kind} title="position {position}"><bdi>{shown}</bdi></li>')
    return f'<ol class="tokens" start="0" aria-label="tokens">{"".join(items)}</ol>'


def _layers(explanation: Explanation) -> str:
    """Return the HTML table of the layers: their attributions and how exact these are."""
    sums = explanation.attributions.double().sum((1, 2, 3)).tolist()
    columns = zip(sums, explanation.delta.tolist(), explanation.error.tolist(), explanation.nodes.tolist(), strict=True)
    rows = "".join(
        f"<tr><th scope=row>{layer}</th><td>{signed(total)}</td>"
        f"<td>{signed(delta) if math.isfinite(delta) else 'not known'}</td>"
        f"<td>{number(error) if math.isfinite(error) else 'not estimated'}</td><td>{int(nodes)}</td></tr>"
        for layer, (total, delta, error, nodes) in zip(explanation.layers, columns, strict=True)
    )
    names = ("layer", "attributions sum to", "delta", "relative error", "nodes")
    heads = "".join(f"<th scope=col>{name}</th>" for name in names)
    start = "0" if explanation.baseline == "zero" else "B"
    if explanation.path == "joint":
        note = (
            f"The attributions of all layers together add up to F(A) − F({start}), what the value gains from attention,"
            f" but for a delta of {signed(explanation.total_delta)}."
        )
        if math.isfinite(explanation.total_error):
            note += f" The estimated error of all maps together is {number(explanation.total_error)}."
    else:
        note = (
            f"The attributions of a layer add up to F(A) − F({start}), what the value gains from the layer's attention,"
            " but for delta."
        )
    if explanation.attention is None:
        note += " The attention was not kept."
    note += " The error is an estimate, relative to the size of the layer's map; nodes are points of the integral."
    table = f'<table aria-label="layers"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    return f"{table}\n<p>{note}</p>"
