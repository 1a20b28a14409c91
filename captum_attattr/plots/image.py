"""The figure of pictures: each patch tinted by what it contributed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go

from captum_attattr.checks import checked_arguments
from captum_attattr.explanations.image_explanation import ImageExplanation
from captum_attattr.formatting import signed
from captum_attattr.plots.canvas.certainty import Certainty
from captum_attattr.plots.canvas.labels import escape, fitted
from captum_attattr.plots.canvas.layout import WIDTH, Area
from captum_attattr.plots.canvas.picture import address, end_of, grey, picture_data
from captum_attattr.plots.canvas.sentence import Sentence, shown
from captum_attattr.plots.canvas.theme import finish
from captum_attattr.plots.tokens import MARGIN, TOP, one_or_several, place, row_of, tokens_row

# Lengths in pixels.
_SIDE, _GAP, _HEADING, _WORDS = 390, 20, 44, 30
_COLOURS = {1: "224,129,43", -1: "59,134,198"}  # for, against; as the pages have them
STRONGEST = 0.7
"""Opacity of the patch with the largest score, in size."""
_FAINTEST = 0.04  # of the largest score: below it a patch has no tint


@checked_arguments
def plot_image(explanations: ImageExplanation | Iterable[ImageExplanation], *, layer: int | None = None) -> go.Figure:
    """Draw pictures, in grey, whose patches are tinted by their token scores.

    Orange patches speak for the output, blue ones against it. A patch's opacity is its share of the picture's largest
    score but for special tokens', which has 70 %, and which is told. `write_html` makes a page of it: the
    picture as the model saw it beside the tinted one, and for each patch that is pointed at, touched or reached with
    the arrow keys what it read and what it gave to.

    Args:
        explanations: of `explain_images`: one, or several of any models.
        layer: whose scores are shown, by its own number; those of all layers together if it is None.

    Returns:
        A figure, for images (`figure.write_image`) and `write_html`. Its patches are shapes, in the order of `patches`,
        those without tint included.

    Raises:
        TypeError: not an ImageExplanation, or none that hold some.
        ValueError: there are none, or one of them has no such layer.
    """
    every = one_or_several(explanations, (ImageExplanation,), "an ImageExplanation")
    rows: list[dict[str, Any]] = []
    parts: dict[str, list[dict[str, Any]]] = {"images": [], "shapes": [], "annotations": []}
    beside = (WIDTH - 2 * MARGIN + _GAP) // (_SIDE + _GAP)
    for i, each in enumerate(every):
        at, sentence = row_of(each, layer), Sentence.of(each)
        rows.append(
            {
                **tokens_row(each),
                "text": each.text,
                "certainty": [*Certainty.of(each)],
                "picture": picture_data(each, sentence),
            }
        )
        corner = (i % beside * (_SIDE + _GAP), i // beside * (_SIDE + _GAP + _HEADING + _WORDS))
        under = address(grey(each.picture.numpy(force=True)))
        for name, drawn in _drawn(rows[-1], under, sentence, at, *corner).items():
            parts[name] += drawn
    height = -(-len(every) // beside) * (_SIDE + _GAP + _HEADING + _WORDS)
    area = Area(WIDTH - 2 * MARGIN, height, MARGIN, MARGIN, TOP, MARGIN)
    whose = "all layers" if layer is None else f"layer {layer}"
    about = "orange for the output, blue against it; the strongest patch of a picture has 70 % opacity"
    hidden = {"visible": False, "fixedrange": True}
    figure = go.Figure(
        layout={
            **area.layout(f"What each patch contributed, {whose}", about),
            **parts,
            "xaxis": {**hidden, "range": [0, area.width]},
            "yaxis": {**hidden, "range": [area.height, 0]},
            "plot_bgcolor": "#ffffff",
        }
    )
    page = {"paper_bgcolor": "#ffffff", "font.color": "#1b232b"}
    return finish(figure, {"light": page, "dark": page}, filename="picture", pictures={"rows": rows, "layer": layer})


def _drawn(
    row: dict[str, Any], under: str, sentence: Sentence, at: int, left: float, top: float
) -> dict[str, list[dict[str, Any]]]:
    """Return the images, shapes and annotations of one picture, whose corner is at (left, top)."""
    picture, scores, largest = row["picture"], sentence.scores[at], end_of(sentence, at)
    size, (rows, columns) = picture["size"], picture["grid"]
    width, height = (_SIDE * side / max(size) for side in size)
    top += _HEADING
    across, down = width / columns, height / rows
    axes = {"xref": "x", "yref": "y"}
    shapes = []
    for i, word in enumerate(picture["patches"]):
        share = min(abs(float(scores[word])) / largest, 1.0)
        x, y = left + i % columns * across, top + i // columns * down
        colour = f"rgba({_COLOURS[-1 if scores[word] < 0 else 1]},{STRONGEST * share * (share >= _FAINTEST):.3f})"
        corners = {"x0": x, "x1": x + across, "y0": y, "y1": y + down}
        shapes.append({"type": "rect", **axes, **corners, "fillcolor": colour, "line": {"width": 0}})
    patches = set(picture["patches"])
    words = [
        f"{shown(w)} {signed(float(s))}"
        for i, (w, s) in enumerate(zip(sentence.words, scores, strict=True))
        if i not in patches
    ]
    heading = ", ".join(filter(None, [f"<b>{fitted(row['label'], 250)}</b>", row["value"]]))
    lines = [
        (top - _HEADING / 2, f"{heading}; to ±{escape(f'{largest:.3g}')}<br>{fitted(shown(row['text']), _SIDE)}"),
        (top + height + _WORDS / 2, fitted(", ".join(words), _SIDE) if words else ""),
    ]
    return {
        "images": [
            {"source": under, **axes, "x": left, "y": top, "sizex": width, "sizey": height}
            | {"sizing": "stretch", "layer": "below", "xanchor": "left", "yanchor": "top"}
        ],
        "shapes": shapes,
        "annotations": [
            {**place(left, y), "text": text, "xanchor": "left", "align": "left", "font": {"size": 13}}
            for y, text in lines
            if text
        ],
    }
