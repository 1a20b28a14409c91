"""The figure of a generation: prompt and answer, each word tinted by what the answer, or part of it, took from it."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import plotly.graph_objects as go

from captum_attattr import checks
from captum_attattr.checks import checked_arguments
from captum_attattr.explanations.generation import GenerationExplanation
from captum_attattr.formatting import counted, number
from captum_attattr.plots.canvas.labels import escape, name_label
from captum_attattr.plots.canvas.layout import WIDTH, Area
from captum_attattr.plots.canvas.sentence import Sentence, shown
from captum_attattr.plots.canvas.theme import finish
from captum_attattr.plots.tokens import HEADING, MARGIN, TOP, annotation, place, placed

_BETWEEN = 14  # pixels, of prompt and answer


@checked_arguments
def plot_generation(generation: GenerationExplanation, *, begin: int = 0, end: int | None = None) -> go.Figure:
    """Draw the prompt and the answer of a generation, tinted by what a part of the answer came from.

    Pieces of a word are put together, and their scores added up. Orange words speak for the answer's tokens, blue ones
    against them. Special tokens, the first of which often has most of all, have no tint. `write_html` makes a page of
    it in which every word of the answer says what it came from: pointed at, touched, or reached with the arrow keys;
    and a span of words, what they came from together.

    Args:
        generation: of `explain_generation`.
        begin, end: the tokens of the answer, from `begin` to the one before `end`, whose scores are added up; those of
            the whole answer if they are not given. Words of which they hold a token are taken whole.

    Returns:
        A figure, for images (`figure.write_image`) and `write_html`. Its words are annotations.

    Raises:
        TypeError, ValueError: no GenerationExplanation, or it has no such tokens.
    """
    checks.instance("generation", generation, GenerationExplanation, "a GenerationExplanation")
    count = len(generation.tokens)
    first = checks.index("begin", begin, count)
    last = count if end is None else checks.index("end", end, count + 1)
    if last <= first:
        raise ValueError(f"end={last} must be above begin={first}")
    page = _page_of(generation)
    owners = [i for i, word in enumerate(generation.word_positions()[1][0]) for _ in word]
    page["chosen"] = [owners[first], owners[last - 1]]
    scores = np.array(page["scores"])[owners[first] : owners[last - 1] + 1].sum(0)
    scores[np.array(page["special"])] = 0.0
    annotations: list[dict[str, Any]] = []
    y, largest = 0.0, float(np.abs(scores).max()) or 1.0
    size = page["prompt"]
    for what, part in ((generation.given, slice(0, size)), ("answer", slice(size, None))):
        text = f"<b>{what}</b>" + (f"; colours to ±{escape(number(largest))}" if what != "answer" else "")
        annotations.append({**place(0, y + HEADING / 2), "text": text, "xanchor": "left", "font": {"size": 13}})
        words = page["words"][part]
        sentence = Sentence(words, [], page["special"][part], [0] * len(words), scores[None, part])
        drawn, y = placed(sentence, -1, y + HEADING, largest)
        annotations += [annotation(word) for word in drawn]
        y += _BETWEEN
    whole = (owners[first], owners[last - 1]) == (0, owners[-1])
    taken = page["words"][size + owners[first] : size + owners[last - 1] + 1]
    title = "What the answer came from" if whole else f"What {name_label(' '.join(taken))} came from"
    area = Area(WIDTH - 2 * MARGIN, round(y), MARGIN, MARGIN, TOP, MARGIN)
    hidden = {"visible": False, "fixedrange": True}
    figure = go.Figure(
        layout={
            **area.layout(title, "orange for the answer's tokens, blue against them; special tokens have no tint"),
            "annotations": annotations,
            "xaxis": {**hidden, "range": [0, area.width]},
            "yaxis": {**hidden, "range": [area.height, 0]},
            "plot_bgcolor": "#ffffff",
        }
    )
    paper = {"paper_bgcolor": "#ffffff", "font.color": "#1b232b"}
    return finish(figure, {"light": paper, "dark": paper}, filename="generation", generation=page)


def _page_of(generation: GenerationExplanation) -> dict[str, Any]:
    """Return what a page tells of a generation, as texts and numbers; rows of its scores end before the word itself."""
    (before, sources), (own, answer) = generation.word_positions()
    words = generation.words()
    length = len(generation.prompt_tokens)
    starts = chain((word[0] for word in before), (length + word[0] for word in own))
    every = [*sources, *answer]
    likely = generation.probabilities.double().clamp(min=1e-300).log()
    how = [counted(len(generation.tokens), "token"), generation.written]
    return {
        "words": every,
        "prompt": len(sources),
        "given": generation.given,
        "special": [generation.special[start] for start in starts],
        "breaks": ["\n" in text for text in every],
        "scores": words.scores.double().tolist(),
        "likely": [float(likely[word].sum()) for word in own],
        "missing": [float(generation.total_delta[word].abs().sum()) for word in own],
        "contrast": [" ".join(shown(c) for i in word if (c := generation.contrast[i]) is not None) for word in own],
        "how": ", ".join(how),
        "output": generation.output.replace("_", "-"),
    }
