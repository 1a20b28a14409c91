"""The figure of token scores: the text, each word tinted by what it contributed; or a table of many texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import plotly.graph_objects as go

from captum_attattr import checks
from captum_attattr.checks import checked_arguments
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.token_scores import TokenScores
from captum_attattr.formatting import output_value, signed
from captum_attattr.plots.canvas.certainty import Certainty
from captum_attattr.plots.canvas.labels import escape, fitted, name_label, text_width
from captum_attattr.plots.canvas.layout import WIDTH, Area
from captum_attattr.plots.canvas.sentence import Sentence, shown
from captum_attattr.plots.canvas.theme import finish

# Lengths in pixels.
_FONT, _LINE, _SPACE, MARGIN = 16, 32, 9, 20
TOP, HEADING, _AFTER = 62, 26, 14  # above all, of the line that says what is explained, after a text
_COLOURS = {1: (224, 129, 43), -1: (59, 134, 198)}  # for, against; as the pages have them
_STRONGEST = 0.7  # of a colour in white: black letters stay easy to read


class PlacedWord(NamedTuple):
    """A word of a figure; lengths are pixels."""

    text: str
    score: float
    share: float
    """of the largest score of its text, signed"""
    x: float
    y: float
    special: bool


@checked_arguments
def plot_tokens(
    explanations: Explanation | TokenScores | Iterable[Explanation | TokenScores], *, layer: int | None = None
) -> go.Figure:
    """Draw texts whose words are tinted by their token scores, one below the other.

    Pieces of a word are put together, and their scores (`Explanation.token_scores`, `token_scores`) added up. Orange
    words speak for the output, blue ones against it; the colours of each text end at its largest score, which is told.
    `write_html` makes a page of it that reads as text does: a table of all texts with their outputs, and a menu of the
    layers.

    Args:
        explanations: of `explain` or `token_scores`: one, or several of any models.
        layer: whose scores are shown, by its own number; those of all layers together if it is None.

    Returns:
        A figure, for images (`figure.write_image`) and `write_html`. Its words are annotations.

    Raises:
        TypeError: not an Explanation, or none that hold some.
        ValueError: there are none, or one of them has no such layer.

    Example:
        >>> from captum_attattr import explain
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> found = explain(*load_demo_model(), ["a gorgeous , witty film", "dull"], progress=False)
        >>> words = [word for word in plot_tokens(found).layout.annotations if word.bgcolor]
        >>> len(words), words[2].hovertext[0]
        (10, '+')
    """
    every = one_or_several(explanations, (Explanation, TokenScores), "an Explanation")
    rows = [tokens_row(each) for each in every]
    drawn = [row_of(each, layer) for each in every]
    annotations: list[dict[str, Any]] = []
    y = 0.0
    for row, at in zip(rows, drawn, strict=True):
        annotations.append(_heading(row, at, y))
        words, y = placed(Sentence.read(row["sentence"]), at, y + HEADING)
        annotations += [annotation(word) for word in words]
        y += _AFTER
    area = Area(WIDTH - 2 * MARGIN, round(y), MARGIN, MARGIN, TOP, MARGIN)
    whose = "all layers" if layer is None else f"layer {layer}"
    title = f"What each word contributed, {whose}"
    layout = area.layout(title, "orange for the output, blue against it; numbers of a text end its colours")
    hidden = {"visible": False, "fixedrange": True}
    figure = go.Figure(
        layout={
            **layout,
            "annotations": annotations,
            "xaxis": {**hidden, "range": [0, area.width]},
            "yaxis": {**hidden, "range": [area.height, 0]},
            "plot_bgcolor": "#ffffff",
        }
    )
    page = {"paper_bgcolor": "#ffffff", "font.color": "#1b232b"}
    return finish(figure, {"light": page, "dark": page}, filename="tokens", tokens={"rows": rows, "layer": layer})


def tokens_row(explanation: Explanation | TokenScores) -> dict[str, Any]:
    """Return what a page tells of one explanation, as texts and numbers."""
    sentence = Sentence.of(explanation)
    against = "" if explanation.contrast is None else f" against {shown(explanation.contrast)}"
    return {
        "label": f"{explanation.decision(shown)}{against}",
        "value": output_value(explanation.output, explanation.value, explanation.contrast is not None),
        "layers": list(explanation.layers),
        "joint": explanation.path == "joint",
        "rough": isinstance(explanation, Explanation) and Certainty.of(explanation).rough,
        "sentence": {**sentence._asdict(), "scores": sentence.scores.tolist()},
    }


def row_of(explanation: Explanation | TokenScores, layer: int | None) -> int:
    """Return the row of the scores of a layer; the last one for all layers."""
    if layer is not None:
        explanation.token_scores(layer)  # which refuses a layer that is not there
    return -1 if layer is None else list(explanation.layers).index(layer)


def _heading(row: dict[str, Any], at: int, y: float) -> dict[str, Any]:
    """Return the line above a text: label, value, and where its colours end."""
    largest = Sentence.read(row["sentence"]).largest_of(at)
    told = ", ".join(filter(None, [f"<b>{name_label(row['label'].strip() or row['label'])}</b>", row["value"]]))
    text = f"{told}; colours to ±{escape(f'{largest:.3g}')}"
    return {**place(0, y + HEADING / 2), "text": text, "xanchor": "left", "font": {"size": 13}}


def placed(sentence: Sentence, row: int, y: float, largest: float | None = None) -> tuple[list[PlacedWord], float]:
    """Return the words of a text in lines as long as the figure, and where the next text begins.

    Args:
        sentence: the words.
        row: of their scores.
        y: where the text begins.
        largest: the score at which colours end; None for the largest of the row.
    """
    largest, scores = sentence.largest_of(row) if largest is None else largest, sentence.scores[row]
    x, words = 0.0, []
    for i, (word, special) in enumerate(zip(sentence.words, sentence.special, strict=True)):
        text = fitted(shown(word), WIDTH - 4 * MARGIN)
        width = text_width(text.strip("\u2068\u2069")) * _FONT / 11 + _SPACE
        if x and x + width > WIDTH - 2 * MARGIN:
            x, y = 0.0, y + _LINE
        at = WIDTH - 2 * MARGIN - x - width if sentence.right_to_left else x
        words.append(
            PlacedWord(text, float(scores[i]), float(scores[i]) / largest, at + width / 2, y + _LINE / 2, special)
        )
        x += width
    return words, y + _LINE


def place(x: float, y: float) -> dict[str, Any]:
    """Return an annotation's place."""
    return {"x": x, "y": y, "xref": "x", "yref": "y", "yanchor": "middle", "showarrow": False}


def annotation(word: PlacedWord) -> dict[str, Any]:
    """Return a word as an annotation, tinted by its share."""
    share = min(abs(word.share), 1.0) * _STRONGEST
    rgb = (round(255 + share * (c - 255)) for c in _COLOURS[-1 if word.share < 0 else 1])
    return {
        **place(word.x, word.y),
        "text": word.text,
        "xanchor": "center",
        "font": {"size": 11 if word.special else _FONT, "color": "#1b232b"},
        "bgcolor": f"rgb({','.join(map(str, rgb))})",
        "borderpad": 2,
        "hovertext": signed(word.score),
    }


def one_or_several(explanations: Any, kinds: tuple[type, ...], wanted: str) -> list[Any]:
    """Return a list of the explanations that are drawn; `wanted` names their kind in words, "an Explanation".

    Raises:
        TypeError: something else than one or several of these kinds.
        ValueError: there is none.
    """
    given = [explanations] if isinstance(explanations, kinds) else explanations
    if not isinstance(given, Iterable):
        raise TypeError(f"explanations must be {wanted} or several, not {type(given).__name__}")
    every: list[Any] = [checks.instance("each of explanations", each, kinds, wanted) for each in given]
    if not every:
        raise ValueError("explanations is empty: there is nothing to draw")
    return every
