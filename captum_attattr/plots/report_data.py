"""The numbers of a report as its script reads them: links exactly, maps of single heads as 8-bit codes."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from captum_attattr.exceptions import EmptyTreeError
from captum_attattr.explanations.decided import looks_back
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.image_explanation import ImageExplanation
from captum_attattr.explanations.words import readable
from captum_attattr.formatting import visible
from captum_attattr.plots.canvas.codes import coarse, fitting, packed, room
from captum_attattr.plots.canvas.sentence import Floats, Sentence, words_json
from captum_attattr.trees.algorithm import attribution_tree

MOST_LINKS = 1500  # the strongest, which travel with exact scores
MOST_CELLS = 256  # along a side of a head's map: longer texts show blocks of tokens
_TOKEN_LENGTH = 24  # characters of a token's label
_REST = 4e5  # bytes of a page beside its maps


def report_data(explanation: Explanation, sentence: Sentence, links: Floats, threshold: float) -> dict[str, Any]:
    """Return everything that the script of a report needs but the maps of the heads.

    Args:
        explanation: what is reported.
        sentence: its words.
        links: (L, T, T) its attributions, summed over heads.
        threshold: of the tree that is shown at first.
    """
    order = np.argsort(-np.abs(links), axis=None, kind="stable")[:MOST_LINKS]
    order = order[links.ravel()[order] != 0]
    return {
        **words_json(sentence),
        "layers": list(explanation.layers),
        "nouns": [sentence.noun, sentence.nouns],
        "tokens": [visible(token, _TOKEN_LENGTH) for token in readable(explanation.tokens, explanation.scheme)],
        "special": explanation.special,
        "segments": explanation.segments,
        "shape": list(explanation.attributions.shape[:3]),
        "label": visible(explanation.label, _TOKEN_LENGTH),
        "readers": readers(explanation),
        "rtl": sentence.right_to_left,
        "links": {"index": order.tolist(), "score": _digits(links.ravel()[order])},
        "total": float(np.abs(links).sum()),
        "count": int(np.count_nonzero(links)),
        "trees": _trees(explanation, threshold),
        "threshold": threshold,
        "sums": _digits(explanation.attributions.double().sum((2, 3)).numpy(force=True).ravel()),
    }


def _digits(values: Floats) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def readers(explanation: Explanation) -> list[int]:
    """Return the positions that the decision is read at: its own; else a decoder's last, an encoder's first."""
    last = len(explanation.tokens) - 1
    if explanation.positions:
        return sorted(set(explanation.positions))
    if explanation.task == "similarity":  # the mean of all tokens
        return list(range(last + 1))
    if isinstance(explanation, ImageExplanation):
        return [last if explanation.answers else 0]
    return [last if looks_back(explanation) else 0]


def _trees(explanation: Explanation, threshold: float) -> list[dict[str, Any]]:
    """Return the tree at several thresholds: its links, and what it leaves out."""
    attention = explanation.attention
    summed = replace(  # of which a tree takes a twelfth of the time
        explanation,
        attributions=explanation.attributions.double().sum(1, keepdim=True),
        attention=None if attention is None else attention.double().mean(1, keepdim=True),
    )
    trees = []
    rows = {layer: row for row, layer in enumerate(explanation.layers)}
    for each in sorted({*(i / 20 for i in range(1, 20)), threshold}):
        try:
            tree = attribution_tree(summed, each)
        except EmptyTreeError as error:
            trees.append({"threshold": each, "links": [], "left": 1.0, "why": visible(str(error), 600)})
            continue
        edges = [[rows[data["layer"]], i, j, float(f"{data['score']:.6g}")] for i, j, data in tree.edges(data=True)]
        trees.append({"threshold": each, "links": edges, "left": tree.graph["left_out_share"]})
    return trees


def maps_blob(explanation: Explanation) -> tuple[dict[str, Any], bytes]:
    """Return the maps of all heads as 8-bit codes, and what one needs to read them.

    Of more than 256 tokens a cell is a block of tokens, with the entry that is farthest from zero.

    Returns:
        The scales, and the codes of attribution and then of attention, each (L, H, S, S), compressed.
    """
    layers, heads, size = explanation.attributions.shape[:3]
    block = -(-size // MOST_CELLS)
    pooled = [
        None if maps is None else _pooled(maps.float().numpy(force=True), block)
        for maps in (explanation.attributions, explanation.attention)
    ]
    assert pooled[0] is not None
    every = [codes for codes in fitting(pooled[0], pooled[1], room(layers * heads, _REST)) if codes is not None]
    levels = [codes.levels for codes in every]
    meta: dict[str, Any] = {"block": block, "side": every[0].codes.shape[-1], "levels": levels, "note": coarse(*levels)}
    meta |= {
        name: _digits(codes.largest.ravel()) for name, codes in zip(("attribution", "attention"), every, strict=False)
    }
    return meta, packed(b"".join(codes.codes.tobytes() for codes in every))


def _pooled(maps: npt.NDArray[np.float32], block: int) -> npt.NDArray[np.float32]:
    """Return the entry farthest from zero of each block of cells."""
    if block == 1:
        return maps
    starts = np.arange(0, maps.shape[-1], block)
    high = np.maximum.reduceat(np.maximum.reduceat(maps, starts, -1), starts, -2)
    low = np.minimum.reduceat(np.minimum.reduceat(maps, starts, -1), starts, -2)
    return np.where(high >= -low, high, low)


def data_script(data: dict[str, Any]) -> str:
    """Return the element with the data, safe inside a page."""
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="data">{text}</script>'


def blob_script(blob: bytes) -> str:
    """Return the element with the maps."""
    return f'<script type="application/gzip" id="maps">{base64.b64encode(blob).decode("ascii")}</script>'
