"""The page of `plot_generation`: an answer whose words say what they came from. It needs no plotly.js."""

from __future__ import annotations

import html
import json
import math
from typing import Any

import numpy as np

from captum_attattr.plots.canvas.sentence import Sentence, shown, special_note

STYLES, SCRIPTS = ["sentence.css", "generation.css"], ["generation.js"]


def generation_body(page: dict[str, Any]) -> str:
    """Return the HTML of prompt and answer, of what `plot_generation` stores with its figure.

    All texts in it are escaped here.
    """
    size = page["prompt"]
    data = {
        "prompt": size,
        "words": [shown(word) for word in page["words"]],
        "special": page["special"],
        "likely": [float(f"{value:.4g}") for value in page["likely"]],
        "missing": [None if math.isnan(value) else float(f"{value:.3g}") for value in page["missing"]],
        "against": page["contrast"],
        "scores": [[float(f"{s:.4g}") for s in row[: size + i + 1]] for i, row in enumerate(page["scores"])],
        "chosen": page["chosen"],
    }
    content = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return f"""<h1>What the answer came from</h1>
<div class="figure" data-drawn>
<p class="tools"><button type="button" id="whole">whole answer</button>
<label><input type="checkbox" id="special"> tint special tokens</label>
<span class="scale"><span>against</span><span class="ramp" aria-hidden="true"></span><span>for, in points of the \
{html.escape(page["output"])}, to <span id="end"></span></span>\
{special_note(name for name, special in zip(page["words"], page["special"], strict=True) if special)}</span></p>
<h2>{html.escape(page["given"])}</h2>
{_text(page, 0, size)}
<section class="answer"><h2>answer <span class="how">({html.escape(shown(page["how"]))})</span></h2>
<p class="told" id="told" role="status"></p>
{_text(page, size, len(page["words"]))}
<p class="exact" id="exact"></p>
<p class="hint">Point at a word of the answer, or tap it. Drag over words, or Shift with the arrow keys, for a span; \
Escape for the whole answer.</p>
</section>
</div>
<script type="application/json" id="data">{content}</script>"""


def _text(page: dict[str, Any], begin: int, end: int) -> str:
    """Return some words as spans, with real spaces between, so that the text can be copied."""
    words, special = page["words"][begin:end], page["special"][begin:end]
    sentence = Sentence(words, [], special, [0] * len(words), np.zeros((1, len(words))))
    direction = ' dir="rtl"' if sentence.right_to_left else ""
    answer = begin > 0
    role = ' role="listbox" aria-multiselectable="true" aria-label="words of the answer"' if answer else ""
    parts = []
    for i, (word, alone) in enumerate(zip(words, special, strict=True), begin):
        kind = "word special" if alone else "word"
        use = ' role="option" aria-selected="false" tabindex="-1"' if answer else ""
        line = "<br>" if page["breaks"][i] else ""
        parts.append(f'<span class="{kind}" data-word="{i}"{use}><bdi>{html.escape(shown(word))}</bdi></span>{line}')
    return f'<p class="sentence"{direction}{role}>{" ".join(parts)}</p>'
