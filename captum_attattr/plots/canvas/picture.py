"""A picture under a grid of patches that are tinted by their scores, as HTML; which patch reads which, as numbers."""

from __future__ import annotations

import base64
import html
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from captum_attattr.explanations.image_explanation import ImageExplanation
from captum_attattr.explanations.words import summed
from captum_attattr.formatting import signed
from captum_attattr.plots.canvas.sentence import Floats, Sentence, shown, tint

MOST_LINKS = 8
"""Of one patch, in each direction."""
_STRONGEST = 10  # of a whole picture
_SMALL = 0.02  # of the strongest link of a picture: weaker ones are not told


def address(pixels: npt.NDArray[np.uint8]) -> str:
    """Return pixels (height, width, 3) as an address that holds the picture itself."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")


def grey(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return pixels in grey with less contrast, on which tints can be told from the picture's own colours."""
    light = pixels @ np.array([0.299, 0.587, 0.114]) * 0.75 + 48
    return np.repeat(light.round().astype(np.uint8)[:, :, None], 3, 2)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return pixels (height, width, 3) as a PNG file."""
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], 1)  # 0: rows as they are
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    parts = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def picture_data(explanation: ImageExplanation, sentence: Sentence) -> dict[str, Any]:
    """Return a picture as figures and pages take it: its address, its size, and which words are its patches."""
    pixels = explanation.picture.numpy(force=True)
    height, width = pixels.shape[:2]
    word_of = {word[0]: i for i, word in enumerate(sentence.positions)}
    return {
        "source": address(pixels),
        "size": [width, height],
        "grid": list(explanation.grid),
        "patches": [word_of[token] for token in explanation.patches],
        **links_of(explanation, sentence),
    }


def end_of(sentence: Sentence, row: int = -1) -> float:
    """Return the score at which the colours of a picture end: the largest, in size, of what is no special token.

    [CLS] often has more than all patches.
    """
    scores = np.abs(sentence.scores[row])[~np.array(sentence.special, bool)]
    return float(scores.max(initial=0)) or sentence.largest_of(row)


def links_of(explanation: ImageExplanation, sentence: Sentence) -> dict[str, list[Any]]:
    """Return the strongest links of a picture: sums over heads and layers (on the layer path means over layers).

    Returns:
        `links`, for each word [read, gave], each a list of [other word, score, layer], the strongest first; the layer
        is the one that most of it comes from, by its own number. `strongest`, of all words [key, query, score].
    """
    maps = explanation.attributions.double().sum(1).numpy(force=True)
    by_layer = summed(maps, sentence.positions)
    whole = by_layer.sum(0) if explanation.path == "joint" else by_layer.mean(0)
    np.fill_diagonal(whole, 0)
    smallest = _SMALL * np.abs(whole).max(initial=0)
    layers = np.array(explanation.layers)[(by_layer * np.sign(whole)).argmax(0)]

    def strongest(scores: Floats, layers: npt.NDArray[np.int64]) -> list[list[Any]]:
        order = np.argsort(-np.abs(scores), kind="stable")[:MOST_LINKS]
        return [[int(i), _digits(scores[i]), int(layers[i])] for i in order if abs(scores[i]) > smallest]

    order = np.argsort(-np.abs(whole), axis=None, kind="stable")[:_STRONGEST]
    pairs = [(int(at) // len(whole), int(at) % len(whole)) for at in order]
    return {
        "links": [[strongest(whole[i], layers[i]), strongest(whole[:, i], layers[:, i])] for i in range(len(whole))],
        "strongest": [[k, q, _digits(whole[q, k])] for q, k in pairs if whole[q, k]],
    }


def _digits(value: Any) -> float:
    return float(f"{value:.4g}")


def picture_html(picture: dict[str, Any], sentence: Sentence, row: int = -1, name: str = "") -> str:
    """Return the HTML of a picture as it is, and of the same in grey under tinted patches, with the other words below.

    Args:
        picture: of `picture_data`.
        sentence: the words, patches among them.
        row: of the scores that tint them.
        name: what the picture shows, for who does not see it.
    """
    (width, height), (rows, columns) = picture["size"], picture["grid"]
    scores, largest = sentence.scores[row], end_of(sentence, row)
    patches = set(picture["patches"])

    def word(i: int, kind: str, content: str) -> str:
        told = html.escape(f"{shown(sentence.words[i])}: {signed(float(scores[i]))}", quote=True)
        style = tint(float(scores[i]), largest)
        return f'<span class="{kind}" data-word="{i}" style="{style}" title="{told}">{content}</span>'

    cells = "".join(word(i, "word patch", "") for i in picture["patches"])
    others = []
    for i, (text, special) in enumerate(zip(sentence.words, sentence.special, strict=True)):
        if i not in patches:
            others.append(word(i, "word special" if special else "word", f"<bdi>{html.escape(shown(text))}</bdi>"))
        elif not others or others[-1] != _HERE:
            others.append(_HERE)
    if all(special or i in patches for i, special in enumerate(sentence.special)):  # no text around the picture
        others = [other for other in others if other != _HERE]
    words = f'<p class="sentence">{" ".join(others)}</p>' if others else ""
    small = " small" if max(width, height) < 120 else ""
    shape = f"--width:{width};--height:{height};--rows:{rows};--columns:{columns}"
    alt = html.escape(shown(name), quote=True)
    return f"""<div class="pictures{small}" style="{shape}">
<figure><img class="plain" src="{picture["source"]}" alt="{alt}" width="{width}" height="{height}">
<figcaption>what the model saw</figcaption></figure>
<figure class="sentence field"><div class="stack"><img class="under" alt="" src="{picture["source"]}">
<div class="patches" role="grid" aria-label="{rows} x {columns} patches">{cells}</div>
<svg class="main-svg arrows" aria-hidden="true"></svg></div>
{words}<figcaption>{rows} x {columns} patches, by what they contributed</figcaption></figure>
</div>"""


_HERE = '<span class="here" aria-label="the picture">▦</span>'
