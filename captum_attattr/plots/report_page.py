"""One page for one decision: which words, which links, which heads, and how exact that is."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captum_attattr.checks import checked_arguments, fraction, instance
from captum_attattr.evaluation.effects import RemovalEffects
from captum_attattr.explanations.decided import looks_back
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.image_explanation import ImageExplanation
from captum_attattr.formatting import number, path_name, signed, whole_text
from captum_attattr.heads.importance import HeadImportance
from captum_attattr.plots.canvas.certainty import Certainty, certainty_html
from captum_attattr.plots.canvas.pages import bare_page, write_page
from captum_attattr.plots.canvas.picture import end_of, picture_data, picture_html
from captum_attattr.plots.canvas.sentence import Sentence, scale_html, sentence_html, shown, special_note
from captum_attattr.plots.effects_table import checked_effects, effects_html
from captum_attattr.plots.findings import decision, findings, value_of
from captum_attattr.plots.head_scores import scores_of
from captum_attattr.plots.report_data import blob_script, data_script, maps_blob, readers, report_data

_FLAT = 0.99
_NOTE_FLAT = (
    "The probability is above 0.99, where softmax is flat: gradients and scores are tiny there, though their ranking is"
    " fine. For scores of the usual size explain the log-probability or the logit (output=), or the difference to"
    " another class (contrast=)."
)

_TREE = (
    "which follows the decision down: from the token that gathers most to those that it reads most in each layer, and"
    " on from these. Its threshold is the share of the layer's largest score that a link must have"
)
_NOTE_PICTURE = (
    "Opacity is the share of the largest score of a patch, which has 70 %. Point at a patch, or choose"
    " one: arrows lead from what is read to what reads it; they are of all layers together."
)


@checked_arguments
def write_report(
    explanation: Explanation,
    path: str | os.PathLike[str],
    *,
    importance: HeadImportance | Mapping[str, HeadImportance] | Sequence[HeadImportance] | None = None,
    threshold: float = 0.4,
    title: str | None = None,
    effects: RemovalEffects | None = None,
) -> Path:
    """Write what is known of one explanation as one HTML file, which opens without a network.

    From the top: what the model says; the text, its words tinted by their token scores, or the picture under its
    patches; the findings in words; one picture of the links, words as columns and layers upward to the decision, which
    begins with the 30 strongest and shows the attribution tree too; the heads, and the attention and attribution of one
    of them; folded at the end, completeness, estimated error and nodes of every layer. All of it is linked: a choice of
    a word, a link or a head shows everywhere, and the address of the page reproduces it. Nothing is loaded, light and
    dark follow the reader's setting, paper is light.

    Links have exact sums over heads; single heads' maps travel as 8-bit codes (about 2 % of a head's largest entry,
    finer for small ones; coarser where flat maps of a long text would make a page of more than 5 to 8 MB), and above
    256 tokens as blocks of tokens; the page says so.

    Args:
        explanation: of `explain`.
        path: the file; it is replaced if it exists. Its directory must exist.
        importance: what the heads show, as `plot_heads` takes it; by default the largest attribution of each
            head in this explanation, which is what one example adds to the importance of `head_importance`.
        threshold: that of the tree that is shown first, from 0 to 1. Where it leaves no tree, the page says which one
            would.
        title: a heading; the first line says what the model decides in any case.
        effects: of `removal_effects` for edges of this explanation: the page shows the ten strongest of them, the
            score beside the measured effect of the removal, and how well the two agree.

    Returns:
        The path.

    Raises:
        TypeError: `explanation`, `importance`, `path`, `title` or `effects` is something else.
        ValueError: the importance is that of another model, the effects are those of another explanation, the
            threshold is outside [0, 1], or the directory does not exist.
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
    return write_page(report_html(explanation, importance, threshold, title, effects), path)


def report_html(
    explanation: Explanation,
    importance: Any = None,
    threshold: float = 0.4,
    title: str | None = None,
    effects: Any = None,
) -> str:
    """Return the page of `write_report`, whose arguments these are."""
    instance("explanation", explanation, Explanation, "an Explanation")
    explanation.check_heads("a report")
    if title is not None:
        instance("title", title, str, "a string")
    threshold = fraction("threshold", threshold)
    measured = "" if effects is None else effects_html(explanation, checked_effects(explanation, effects))
    heads = _heads(explanation, importance)
    sentence = Sentence.of(explanation)
    links = explanation.attributions.double().sum(1).numpy(force=True)
    scales, blob = maps_blob(explanation)
    data = report_data(explanation, sentence, links, threshold) | {"maps": scales, "importance": heads}
    picture = ""
    if isinstance(explanation, ImageExplanation):
        data["picture"] = picture_data(explanation, sentence)
        told = html.escape(shown(whole_text(explanation.text)))
        drawn = picture_html(data["picture"], sentence, name=whole_text(explanation.text))
        picture = f'<div id="seen" class="grey">{drawn}<p class="key"><bdi>{told}</bdi>. {_NOTE_PICTURE}</p></div>'
        del data["picture"]["source"]
    heading = "" if title is None else f'<p class="heading"><bdi>{html.escape(shown(title))}</bdi></p>'
    unit = explanation.output.replace("_", "-") + " difference" * (explanation.contrast is not None)
    flat = explanation.output == "probability" and explanation.probability > _FLAT
    parts = [
        f"<header>{heading}",
        f"<h1>{decision(explanation)}</h1>",
        certainty_html(*Certainty.of(explanation)),
        picture or sentence_html(sentence),
        scale_html(end_of(sentence) if picture else sentence.largest_of(), unit, _framed(explanation, sentence)),
        f'<p class="findings">{findings(sentence, links, explanation.layers, causal=looks_back(explanation))}</p>',
        f'<p class="note">{html.escape(_sentence(explanation.note))}</p>' if explanation.note else "",
        f'<p class="note">{_NOTE_FLAT}</p></header>' if flat else "</header>",
        _views(explanation, [each["name"] for each in heads], measured, sentence.nouns),
        f"<details><summary>Completeness, estimated error, nodes, settings</summary>{_details(explanation)}</details>",
        data_script(data),
        blob_script(blob),
    ]
    scripts = [
        "report_tools.js",
        "report.js",
        *["picture.js", "report_picture.js"] * bool(picture),
        "report_heads.js",
        "report_save.js",
    ]
    styles = ["sentence.css", "report.css", *["picture.css"] * bool(picture)]
    return bare_page(_title(explanation), "\n".join(parts), styles, scripts)


def _framed(explanation: Explanation, sentence: Sentence) -> str:
    """Return what the special tokens of an explanation are, and whether its decision is read at one of them."""
    at = readers(explanation)
    words = [i for i, word in enumerate(sentence.positions) if at[0] in word and sentence.special[i]]
    return special_note(sentence.framed, sentence.words[words[0]] if len(at) == 1 and words else "")


def _views(explanation: Explanation, importances: list[str], effects: str, nouns: str) -> str:
    """Return the HTML of the picture, the heads and the map, which the script fills."""
    modes = {"strongest": "strongest links", "tree": "attribution tree", "all": "all links"}
    told = {"tree": f' title="The tree, {html.escape(_TREE)}"'}
    radios = "".join(
        f'<label{told.get(mode, "")}><input type="radio" name="mode" value="{mode}"> {text}</label>'
        for mode, text in modes.items()
    )
    names = "".join(f"<option>{html.escape(name)}</option>" for name in importances)
    choice = f'<select id="scores" aria-label="what the heads show">{names}</select>' if len(importances) > 1 else ""
    whose = "" if choice else f": {html.escape(importances[0])}"
    whole = "sum over layers" if explanation.path == "joint" else "mean over layers"
    options = f"<option>{whole}</option>" + "".join(f"<option>layer {i}</option>" for i in explanation.layers)
    return f"""<div class="tools">
<fieldset aria-label="which links">{radios}</fieldset>
<label><span id="cut-name">how many links</span> <input type="range" id="cut" step="1"></label>
<span id="count" role="status"></span>
<label class="hide-on-paper">{nouns} by <select id="layer">{options}</select></label>
<button type="button" id="reset">reset</button>
</div>
<p class="note" id="warning" hidden></p>
<div class="views">
<div>
<div class="figure" id="picture"><div id="tip" hidden></div></div>
<p class="key">{nouns.capitalize()} below, layers upward, the decision at the top. Orange lines speak for it, blue
dashed ones against it; the wider, the more. A grey outline: also in the attribution tree.</p>
<p class="save">The picture as a file: <button type="button" id="png" title="Download the picture as PNG">PNG</button>
<button type="button" id="svg" title="Download the picture as SVG">SVG</button></p>
<h2 id="list-title">Strongest links</h2>
<ol class="list" id="list"></ol>
<p class="key" id="tree-key">◦ tree: the link is in the attribution tree too, {_TREE}.</p>
<p class="key wider">A wider window shows the picture of the links.</p>
{effects}
</div>
<aside>
<p id="told" role="status"></p>
<h2>Heads, layer by layer{whose} {choice}</h2>
<div id="heads" role="grid" aria-label="heads, a row for each layer"></div>
<h2>Map of <span id="map-name">a head</span></h2>
<div class="maps">
<figure><figcaption>attribution</figcaption><canvas id="attribution"></canvas></figure>
<figure><figcaption>attention</figcaption><canvas id="attention"></canvas></figure>
</div>
<p id="map-scale"></p>
<p id="map-told">Rows are queries, which read; columns are keys, which are read. Point at a cell for its numbers.</p>
</aside>
</div>"""


def _heads(explanation: Explanation, importance: Any) -> list[dict[str, Any]]:
    """Return the given importances, or the largest attribution of each head; None where a head is gone."""
    if importance is None:
        what = "picture" if isinstance(explanation, ImageExplanation) else "text"
        return [{"name": f"largest attribution in this {what}", "scores": _numbers(_largest_attributions(explanation))}]
    shape = tuple(explanation.attributions.shape[:2])
    every = scores_of(importance)
    given = every[0].scores.shape
    rows = list(explanation.layers)
    chosen = rows != list(range(shape[0]))
    if given != shape and not (chosen and given[0] > rows[-1] and given[1] == shape[1]):
        raise ValueError(f"importance is that of {given} layers and heads, but the explanation has {shape}")
    shown_rows = rows if given != shape else list(range(shape[0]))
    return [
        {"name": html.unescape(each.name).strip("\u2068\u2069"), "scores": _numbers(each.scores[shown_rows])}
        for each in every
    ]


def _numbers(scores: Any) -> list[float | None]:
    return [None if math.isnan(score) else float(f"{score:.6g}") for score in np.asarray(scores).ravel()]


def _largest_attributions(explanation: Explanation) -> Any:
    """Return (L, H), what one example adds to the importance of `head_importance`; NaN for a head that is gone."""
    scores = explanation.attributions.double().amax((2, 3))
    seen = explanation.attributions if explanation.attention is None else explanation.attention
    present = seen.ne(0).any(-1).any(-1)  # a head that `prune_heads` took attends to nothing
    return torch.where(present, scores, math.nan) if present.any() else scores


def _title(explanation: Explanation) -> str:
    against = "" if explanation.contrast is None else f" against {shown(explanation.contrast)}"
    how = path_name(explanation.path, explanation.baseline)
    label = f"Self-attention attribution: {explanation.decision(shown)}{against}"
    return ", ".join(filter(None, [label, value_of(explanation), how]))


def _details(explanation: Explanation) -> str:
    """Return the HTML of the text as it was given, what was explained, and a table of the layers."""
    texts = [explanation.text] if isinstance(explanation.text, str) else list(explanation.text)
    quoted = "".join(f"<blockquote><bdi>{html.escape(shown(text))}</bdi></blockquote>" for text in texts)
    facts = {
        "explained": f"<bdi>{html.escape(explanation.decision(shown))}</bdi> ({explanation.telling.place})",
        "its value": value_of(explanation) or "not known",
    }
    if explanation.contrast is not None:
        other = f"<bdi>{html.escape(shown(explanation.contrast))}</bdi>"
        facts["against"] = f"{other} (target {explanation.contrast_target})"
    if explanation.output != "score" and (explanation.output != "probability" or explanation.contrast is not None):
        facts["probability"] = number(explanation.probability)
    if how := path_name(explanation.path, explanation.baseline):
        facts["integrated along"] = f"the {how if explanation.path == 'joint' else f'layer path {how}'}"
    same = explanation.prediction == explanation.target
    facts["the model's own choice"] = "the same" if same else f"target {explanation.prediction}"
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return f"{quoted}\n<dl>{rows}</dl>\n{_layers(explanation)}"


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."


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
    return f'<div class="table">{table}</div>\n<p>{note}</p>'
