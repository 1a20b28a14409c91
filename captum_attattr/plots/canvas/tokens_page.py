"""The page of `plot_tokens`: a table of texts with tinted words, and a menu of the layers. It needs no plotly.js."""

from __future__ import annotations

import html
import json
from typing import Any

from captum_attattr.plots.canvas.sentence import Sentence, layer_menu, sentence_html, shown, special_note

STYLES, SCRIPTS = ["sentence.css", "tokens.css"], ["tokens.js"]


def tokens_body(tokens: dict[str, Any]) -> str:
    """Return the HTML of the table, of what `plot_tokens` stores with its figure: `rows` and the `layer` shown first.

    All texts in it are escaped here.
    """
    rows, layer = tokens["rows"], tokens["layer"]
    body = "\n".join(_row(i, row, layer) for i, row in enumerate(rows))
    data = [
        {"layers": row["layers"], "scores": [[float(f"{s:.4g}") for s in each] for each in row["sentence"]["scores"]]}
        for row in rows
    ]
    content = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return f"""<h1>What each word contributed</h1>
<div class="figure" data-drawn>
<p class="tools">{layer_menu(rows, layer)}
<span class="scale"><span>against</span><span class="ramp" aria-hidden="true"></span><span>for the output</span>\
{special_note(name for row in rows for name in Sentence.read(row["sentence"]).framed)}</span>
</p>
<table class="texts"><thead><tr><th scope="col">output</th><th scope="col">colours to</th><th scope="col">text</th></tr>
</thead><tbody>
{body}
</tbody></table>
</div>
<script type="application/json" id="data">{content}</script>"""


def _row(i: int, row: dict[str, Any], layer: int | None) -> str:
    sentence = Sentence.read(row["sentence"])
    at = -1 if layer is None else row["layers"].index(layer)
    value = f"<br>{html.escape(row['value'])}" if row["value"] else ""
    value += "<br><b>rough numbers</b>" * row["rough"]
    return (
        f'<tr data-row="{i}"><td><b><bdi>{html.escape(shown(row["label"]))}</bdi></b>{value}</td>'
        f'<td class="end">±{sentence.largest_of(at):.3g}</td><td>{sentence_html(sentence, at)}</td></tr>'
    )
