"""The page of `plot_image`: pictures with tinted patches, and what each patch read and gave to. No plotly.js."""

from __future__ import annotations

import html
import json
from typing import Any

from captum_attattr.plots.canvas.certainty import certainty_html
from captum_attattr.plots.canvas.picture import end_of, picture_html
from captum_attattr.plots.canvas.sentence import Sentence, layer_menu, scale_html, shown, special_note, words_json

STYLES, SCRIPTS = ["sentence.css", "picture.css", "image.css"], ["picture.js", "image.js"]


def image_body(pictures: dict[str, Any]) -> str:
    """Return the HTML of the pictures, of what `plot_image` stores with its figure: `rows` and the `layer` shown first.

    All texts in it are escaped here.
    """
    rows, layer = pictures["rows"], pictures["layer"]
    sections = "\n".join(_section(i, row, layer) for i, row in enumerate(rows))
    data = [_data(row) for row in rows]
    content = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return f"""<h1>What each patch contributed</h1>
<div class="figure" data-drawn>
<p class="tools">{layer_menu(rows, layer)}
<label>tint <input type="range" id="tint" min="0" max="100" value="70" aria-label="opacity of the strongest patch">
</label>
<span id="opacity"></span>
<label><input type="checkbox" id="grey" checked> grey below the tints</label></p>
{sections}
<p class="hint">Point at a patch, touch it, or go to it with Tab and the arrow keys; click or Enter keeps it, Escape
lets go. Arrows lead from what is read to what reads it: orange for the output, blue and dashed against it; the wider,
the more. They are of all layers and heads together.</p>
</div>
<script type="application/json" id="data">{content}</script>"""


def _data(row: dict[str, Any]) -> dict[str, Any]:
    words = words_json(Sentence.read(row["sentence"]))
    picture = {name: row["picture"][name] for name in ("patches", "grid", "links", "strongest")}
    return {"layers": row["layers"], **{n: words[n] for n in ("words", "scores", "special")}, **picture}


def _section(i: int, row: dict[str, Any], layer: int | None) -> str:
    sentence = Sentence.read(row["sentence"])
    at = -1 if layer is None else row["layers"].index(layer)
    value = f" ({html.escape(row['value'])})" if row["value"] else ""
    unit = row["value"].rpartition(" ")[0] or "output"
    told = shown(row["text"] if isinstance(row["text"], str) else " ‖ ".join(row["text"]))
    return f"""<section class="seen" data-row="{i}">
<h2><b><bdi>{html.escape(shown(row["label"]))}</bdi></b>{value}
<span class="text"><bdi>{html.escape(told)}</bdi></span></h2>
{certainty_html(*row["certainty"])}
{scale_html(end_of(sentence, at), unit, special_note(sentence.framed))}
<div class="beside">{picture_html(row["picture"], sentence, at, told)}
<div class="said"><p class="told" role="status"></p><ol class="list"></ol></div></div>
</section>"""
