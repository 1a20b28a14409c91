"""What a page shows in place of a picture that a phone has no room for: the words, and a list of links."""

from __future__ import annotations

import html
from collections.abc import Container, Iterable, Sequence
from typing import Any

import numpy as np

from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.words import readable
from captum_attattr.formatting import signed, visible
from captum_attattr.plots.canvas.certainty import Certainty, certainty_html
from captum_attattr.plots.canvas.labels import escape
from captum_attattr.plots.canvas.sentence import Sentence, scale_html, sentence_html, shown, special_note

_MOST = 10  # links
_LENGTH = 24  # characters of a token

Link = tuple[int, int, int, float]
"""Layer by its own number, query, key, score."""


def narrow(explanation: Explanation) -> dict[str, Any]:
    """Return the words and the strongest links of an explanation, for `layout.meta["narrow"]`."""
    sums = explanation.attributions.double().sum(1).numpy(force=True)
    order = np.argsort(-np.abs(sums), axis=None, kind="stable")[:_MOST]
    places = [tuple(map(int, np.unravel_index(at, sums.shape))) for at in order if sums.ravel()[at]]
    links = [(explanation.layers[row], query, key, float(sums[row, query, key])) for row, query, key in places]
    sentence = Sentence.of(explanation)
    told = {**sentence._asdict(), "scores": sentence.scores[-1:].tolist(), "output": explanation.output}
    told["words"] = [escape(shown(word)) for word in sentence.words]
    tokens = readable(explanation.tokens, explanation.scheme)
    special = {i for i, flag in enumerate(explanation.special) if flag}
    exact = list(Certainty.of(explanation))
    return {
        "sentence": told,
        "certainty": exact,
        "links": sentences(links, tokens, special),
        "what": "Strongest links",
    }


def sentences(links: Iterable[Link], tokens: Sequence[str], special: Container[int]) -> list[str]:
    """Return links in words, escaped as all texts of a figure are; `special` tokens need no quotes."""
    names = [escape(visible(token, _LENGTH)) for token in tokens]
    names = [name if i in special else f"“{name}”" for i, name in enumerate(names)]
    return [
        f"{names[query]} read {'itself' if query == key else names[key]} in layer {layer}: {signed(score)}"
        for layer, query, key, score in links
    ]


def narrow_html(title: str, told: dict[str, Any]) -> str:
    """Return the HTML of it, which a wide page hides, for a title in plain text."""
    parts = [f'<div class="narrow"><h1><bdi>{html.escape(title)}</bdi></h1>']
    if "certainty" in told:
        parts.append(certainty_html(*told["certainty"]))
    if "sentence" in told:
        fields = dict(told["sentence"])
        output = fields.pop("output").replace("_", "-")
        fields["words"] = [html.unescape(word).strip("\u2068\u2069") for word in fields["words"]]
        sentence = Sentence.read(fields)
        parts += [sentence_html(sentence), scale_html(sentence.largest_of(), output, special_note(sentence.framed))]
    items = "".join(f"<li>{link}</li>" for link in told["links"])  # escaped when they were made
    parts += [
        f"<h2>{html.escape(told['what'])}</h2><p>{html.escape(told.get('about', ''))}</p><ol>{items}</ol>",
        '<p class="wider">A wider window shows the picture.</p></div>',
    ]
    return "\n".join(parts)
