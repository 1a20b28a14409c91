"""Figures and pages: the numbers are the explanation's, texts are harmless, pages need no network."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
import struct
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest
import results
import torch
from browser import Clocked, look
from browser import clocked as clocked
from hostile import HOSTILE, Page, every_text

from captum_attattr import Explanation
from captum_attattr.formatting import visible
from captum_attattr.plots import plot_attention
from captum_attattr.plots.canvas.packing import figure_content
from captum_attattr.plots.canvas.pages import write_html


def explain(layers: int = 2, heads: int = 3, words: int | list[str] = 5, **changed: Any) -> Explanation:
    return results.explanation(layers, heads, words, **changed)


def trace(figure: go.Figure, name: str) -> Any:
    (found,) = figure.select_traces(selector={"name": name})
    return found


def menu(figure: go.Figure, name: str) -> Any:
    (found,) = (each for each in figure.layout.updatemenus if each.name == name)
    return found


# ------------------------------------------------------------------------------------------- the values


@pytest.mark.parametrize(("layers", "heads", "tokens"), [(1, 1, 2), (1, 1, 1), (2, 3, 5), (3, 1, 50), (30, 16, 2)])
def test_each_map_is_stored_once_as_it_is(layers: int, heads: int, tokens: int) -> None:
    explanation = explain(layers, heads, tokens)
    traces = {each.name: each for each in plot_attention(explanation).data}
    for kind, maps in (("attribution", explanation.attributions), ("attention", explanation.attention)):
        for layer in range(layers):
            for head in range(heads):
                z = traces[f"{kind} {layer} {head}"].z
                assert z.dtype == np.float32
                np.testing.assert_array_equal(z, maps[layer, head].numpy())


def test_queries_are_rows_from_above_and_keys_are_columns() -> None:
    maps = torch.zeros(2, 2, 3, 3)
    maps[1, 0, 2, 1] = 0.5  # layer 1, head 0: query "c", key "b"
    figure = plot_attention(explain(2, 2, ["a", "b", "c"], attributions=maps))
    assert "annotations[0].text" in menu(figure, "layer").buttons[1].args[0]
    large = trace(figure, "attribution 1 0")
    assert (large.x0, large.y0, large.dy) == (0, -3, -1)
    x, y = large.x0 + 1, large.y0 + 2 * large.dy
    texts = {axis: figure.layout[f"{axis}axis2"] for axis in "xy"}
    assert texts["x"].ticktext[list(texts["x"].tickvals).index(x)] == "key 1: \u2068b\u2069"
    assert texts["y"].ticktext[list(texts["y"].tickvals).index(y)] == "query 2: \u2068c\u2069"
    # The head with the most attribution is the one shown at first, and the cell is in the axes.
    assert figure.layout.xaxis2.range[0] < x < figure.layout.xaxis2.range[1]
    assert figure.layout.yaxis2.range[0] < y < figure.layout.yaxis2.range[1]


def test_hover_tells_tokens_layer_head_score_and_attention() -> None:
    figure = plot_attention(explain())
    score, attention = (trace(figure, f"{kind} 1 2").hovertemplate for kind in ("attribution", "attention"))
    assert "layer 1, head 2" in score
    assert "attribution %{z:+" in score
    assert "%{y}" in score
    assert "attention %{z" in attention
    assert figure.layout.hovermode == "x unified"  # its heading is x, and it joins both


def test_title_and_note_name_prediction_and_delta() -> None:
    explanation = explain(delta=torch.tensor([0.5, -0.25]), error=torch.tensor([0.01, 0.02]))
    figure = plot_attention(explanation, layer=1)
    for part in ("positive", "target 1", "probability 0.875"):
        assert part in figure.layout.title.text
    total = float(explanation.attributions[1].sum())
    for part in ("layer 1", f"{total:+.3g}".replace("-", "−"), "delta −0.25", "error 0.02"):
        assert part in figure.layout.annotations[0].text
    unknown = plot_attention(explain(error=torch.full((2,), torch.nan)))
    assert "error not estimated" in unknown.layout.annotations[0].text
    unknown = plot_attention(explain(delta=torch.full((2,), torch.nan), probability=float("nan")))
    assert "delta not known, estimated" in unknown.layout.annotations[0].text
    assert unknown.layout.title.text.endswith("(target 1)")
    assert "score −3.2" in plot_attention(explain(probability=-3.2)).layout.title.text.replace("-", "−")
    assert "premise ‖ hypothesis" in plot_attention(explain(text=("premise", "hypothesis"))).layout.title.subtitle.text


# ------------------------------------------------------------------------------------------- the colours


def test_difference_is_how_far_attributions_are_from_the_order_of_the_attention() -> None:
    attributions = torch.tensor([[[[0.0, 0.2], [-0.4, 0.1]], [[0.0, 0.0], [0.0, 0.0]]]])
    attention = torch.tensor([[[[0.5, 0.5], [0.8, 0.2]], [[1.0, 0.0], [0.75, 0.25]]]])
    given = explain(1, 2, ["a", "b"], attributions=attributions, attention=attention, delta=[0.0], error=[0.0])
    figure = plot_attention(given, view="difference")
    # Sizes by rank 0, .1, .2, .4; the attention of rank 2 and 3 is equal, and has their mean: 0.15.
    expected = [[-0.375, 0.125], [0, 0.25]], [[0, 0], [0, 0]]
    for head in range(2):
        map_ = trace(figure, f"difference 0 {head}")
        assert (map_.z.dtype, map_.opacity) == (np.float32, 1)
        np.testing.assert_allclose(map_.z, expected[head], atol=6e-3)  # of 8-bit codes
        np.testing.assert_array_equal(tile(figure, "difference", 0, head), map_.z)
    end = np.abs(trace(figure, "difference 0 0").z).max()
    assert (figure.layout.coloraxis3.cmin, figure.layout.coloraxis3.cmax) == pytest.approx((-end, end))
    assert figure.layout.coloraxis3.showscale


@pytest.mark.parametrize("power", [0.5, 1, 3])
def test_attributions_in_the_order_of_the_attention_have_no_difference(power: float) -> None:
    """However much more even the attention is; and whatever the order, a head sums to zero, at any scale."""
    given = explain(2, 3, 12)
    signs = given.attributions.sign()
    alike = plot_attention(explain(2, 3, 12, attributions=signs * given.attention**power, attention=given.attention))
    scaled = plot_attention(explain(2, 3, 12, attributions=given.attributions * -1e-6, attention=given.attention))
    usual = plot_attention(given)
    for name in (f"difference {layer} {head}" for layer in range(2) for head in range(3)):
        assert np.abs(trace(alike, name).z).max() < 0.1  # what share a code of attention have other attributions
        assert np.abs(trace(usual, name).z).max() > 0.5
        assert abs(float(trace(usual, name).z.sum())) < 1e-4
        np.testing.assert_allclose(trace(scaled, name).z, trace(usual, name).z, atol=2e-2)


@pytest.mark.parametrize("tokens", [5, 50])
def test_colours_fit_the_head_or_all_heads_symmetric_about_zero(tokens: int) -> None:
    """Of 2,500 cells a single one is not seen: there the colours end where ten strong ones are."""
    explanation = explain(words=tokens)
    figure = plot_attention(explanation, layer=0, head=1)
    cells = explanation.attributions[0, 1].abs().flatten().sort(descending=True).values
    end = float(cells[0 if tokens == 5 else 9])
    scale = figure.layout.coloraxis
    assert (scale.cmin, scale.cmax) == (-end, end)
    assert scale.colorbar.title.text == "attribution<br>scale of this head"
    for path, value in menu(figure, "colours").buttons[1].args[0].items():
        figure.layout[path] = value
    largest = float(explanation.attributions.abs().max())
    assert (scale.cmin, scale.cmax) == (-largest, largest)
    assert scale.colorbar.title.text == "attribution<br>scale of all heads"
    assert (figure.layout.coloraxis2.cmin, figure.layout.coloraxis2.cmax) == (0, 1)
    for button in menu(figure, "colours").buttons:
        assert button.args[0]["coloraxis.cmin"] == -button.args[0]["coloraxis.cmax"]
    for each in figure.data:
        if each.name not in ("heads", "labels"):
            views = {"attribution": "coloraxis", "attention": "coloraxis2", "difference": "coloraxis3"}
            assert each.coloraxis == views[each.name.split()[0]]


def test_the_middle_of_the_diverging_scale_is_neutral_and_its_ends_differ_in_blue_and_red() -> None:
    themes = plot_attention(explain()).layout.meta["themes"]
    for theme in themes.values():
        scale = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for _, colour in theme["coloraxis.colorscale"]]
        assert max(scale[2]) - min(scale[2]) < 16
        assert scale[1][2] > scale[1][0] + 100  # blue below zero
        assert scale[3][0] > scale[3][2] + 100  # orange above


def test_all_zero_attribution_has_a_scale() -> None:
    figure = plot_attention(explain(attributions=torch.zeros(2, 3, 5, 5)))
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)


# ----------------------------------------------------------------------------------------- the thumbnails


def tile(figure: go.Figure, kind: str, layer: int, head: int) -> Any:
    """The cells of one head in the mosaic, found by their places."""
    mosaic = trace(figure, f"{kind} thumbnails")
    x, y = ((edges[:-1] + edges[1:]) / 2 for edges in (mosaic.x, mosaic.y))
    z = mosaic.z[np.floor(y) == layer][:, np.floor(x) == head]
    return z[np.isfinite(z).any(1)][:, np.isfinite(z).any(0)]


def test_thumbnails_are_the_maps_side_by_side() -> None:
    explanation = explain(3, 4, 6)
    figure = plot_attention(explanation)
    for layer in range(3):
        for head in range(4):
            np.testing.assert_array_equal(
                tile(figure, "attribution", layer, head), explanation.attributions[layer, head]
            )
            np.testing.assert_array_equal(tile(figure, "attention", layer, head), explanation.attention[layer, head])
    np.testing.assert_allclose(trace(figure, "heads").z, explanation.attributions.sum((2, 3)), rtol=1e-5)


def test_thumbnails_of_long_texts_keep_what_is_farthest_from_zero() -> None:
    maps = torch.full((12, 12, 64, 64), 1e-3)
    maps[3, 4, 40, 7] = -0.5
    maps[3, 4, 41, 7] = 0.4
    small = tile(plot_attention(explain(12, 12, 64, attributions=maps)), "attribution", 3, 4)
    assert small.shape[0] == small.shape[1] < 20
    assert small.min() == np.float32(-0.5)
    assert (small == np.float32(1e-3)).sum() == small.size - 1


def test_thumbnail_hover_names_the_strongest_link() -> None:
    maps = torch.zeros(2, 2, 3, 3)
    maps[1, 0, 2, 1] = -0.5
    figure = plot_attention(explain(2, 2, ["a", "b", "<c>"], attributions=maps))
    assert trace(figure, "heads").customdata[1][0] == "\u2068&lt;c&gt;\u2069 → \u2068b\u2069 −0.5"


def test_one_head_needs_no_thumbnails_and_no_menu_of_heads() -> None:
    figure = plot_attention(explain(1, 1, 4))
    assert [each.name for each in figure.data] == ["labels", "attribution 0 0", "attention 0 0", "difference 0 0"]
    assert [each.name for each in figure.layout.updatemenus] == ["view", "colours"]
    assert not any("shapes" in path for theme in figure.layout.meta["themes"].values() for path in theme)


# -------------------------------------------------------------------------------------------- the menus


def test_menus_lead_to_what_the_arguments_lead_to() -> None:
    explanation = explain(4, 3, 5)
    figure = plot_attention(explanation, layer=0, head=0)
    view = menu(figure, "view").buttons[1].args
    for each, opacity in zip(figure.data, view[0]["opacity"], strict=True):
        each.opacity = opacity
    for change in (menu(figure, "layer").buttons[3].args[0], menu(figure, "head").buttons[2].args[0], view[1]):
        for path, value in change.items():
            figure.layout[path] = value
    direct = plot_attention(explanation, layer=3, head=2, view="attention")
    for each in (figure, direct):  # a page's script lets the colours follow the head; here all heads have one scale
        for path, value in menu(each, "colours").buttons[1].args[0].items():
            each.layout[path] = value
    assert [(each.opacity or 1) if each.opacity != 0 else 0 for each in figure.data] == [
        (each.opacity or 1) if each.opacity != 0 else 0 for each in direct.data
    ]
    figure.layout.updatemenus = direct.layout.updatemenus
    assert figure.layout == direct.layout


def test_first_choice() -> None:
    maps = torch.full((3, 2, 4, 4), 1e-4)
    maps[1, 1, 0, 0] = -0.3
    maps[2, 0, 3, 3] = 0.2
    shown = [
        tuple(
            menu(plot_attention(explain(3, 2, 4, attributions=maps), **where), name).active
            for name in ("layer", "head")
        )
        for where in ({}, {"layer": 2}, {"head": 0}, {"layer": 0, "head": 1}, {"layer": np.int64(2)})
    ]
    assert shown == [(1, 1), (2, 0), (2, 0), (0, 1), (2, 0)]


# -------------------------------------------------------------------------------------------- the tokens


def test_equal_tokens_have_places_of_their_own() -> None:
    figure = plot_attention(explain(1, 2, ["the", "the", "the"]))
    assert list(figure.layout.xaxis3.tickvals) == [0, 1, 2, 3, 4, 5]
    assert list(figure.layout.yaxis3.tickvals) == [0, -1, -2]
    assert list(figure.layout.yaxis3.ticktext) == ["\u2068the\u2069"] * 3


def test_labels_thin_out_before_they_overlap() -> None:
    for size, step in ((5, 1), (40, 1), (128, 3)):
        figure = plot_attention(explain(1, 2, size))
        rows = -figure.layout.yaxis3.tickvals
        np.testing.assert_array_equal(rows, np.arange(0, size, step))
        low, high = figure.layout.yaxis2.domain  # under the labels' own axis
        inside = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
        assert (high - low) * inside / len(rows) > 11
        assert len(figure.layout.yaxis2.ticktext) == size  # the hover names every token


def test_long_tokens_are_cut_on_the_axis_and_whole_in_the_hover() -> None:
    figure = plot_attention(explain(1, 2, ["y" * 100, "short"]))
    assert figure.layout.yaxis3.ticktext[0] == "\u2068" + "y" * 13 + "…\u2069"
    hover = figure.layout.yaxis2.ticktext[0]
    assert hover.count("y", len("query 0:")) == 100
    assert hover.count("<br>") == 1


def test_white_space_can_be_seen() -> None:
    given = ["\n", "\t\t", " ", "", "\r\n\n", "a\nb"]
    assert [visible(token, 14) for token in given] == ["↵", "⇥⇥", "␣", "∅", "↵↵", "a↵b"]


def test_hostile_tokens_are_literal_text() -> None:
    figure = plot_attention(explain(2, 2, HOSTILE, label=HOSTILE[0], text=HOSTILE[1]))
    allowed = re.compile(r"<br>|<b>|</b>|<extra></extra>")
    for text in every_text(json.loads(figure.to_json())):
        assert "<" not in allowed.sub("", text)
        assert "$" not in text
        assert not any(character in text for character in "\u202e\x00\x07\n\r\t\ud800")
    shown = [html.unescape(text).strip("\u2068\u2069") for text in figure.layout.yaxis3.ticktext[: len(HOSTILE)]]
    assert shown[:7] == [
        "<script>alert…",
        "</script><img…",
        "<b>bold</b>",
        "<a href='http…",
        '"double" and…',
        "&amp;",
        "&#60;b&#62;",
    ]
    assert shown[7:11] == ["שלום עולם", "\\u202eturned", "👩‍👩‍👧‍👦", "two↵lines↵and…"]
    assert shown[12:] == ["$E=mc^2$", "%{x} %{meta}", "half \\ud800 p…", "nul \\u0000 be…", "∅", "␣␣", "the", "the"]


# --------------------------------------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    figure = plot_attention(explain(3, 4, HOSTILE, label=HOSTILE[0], text=HOSTILE[1]), layer=0, head=0)
    return write_html(figure, tmp_path_factory.mktemp("pages") / "hostile.html")


def test_page_asks_for_nothing(hostile_page: Path) -> None:
    page = Page(hostile_page.read_text(encoding="utf-8"))
    loading = ("src", "href", "srcset", "data", "action", "poster", "background")
    asked = [(tag, attributes[name]) for tag, attributes in page.elements for name in loading if name in attributes]
    assert asked == [("link", "data:,")]
    (policy,) = (a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    style = "".join(page.texts)
    assert "@import" not in style
    assert "url(" not in style


def test_hostile_tokens_make_no_element(hostile_page: Path, tmp_path: Path) -> None:
    harmless = write_html(plot_attention(explain(3, 4, len(HOSTILE))), tmp_path / "harmless.html")
    tags = [[tag for tag, _ in Page(path.read_text(encoding="utf-8")).elements] for path in (hostile_page, harmless)]
    assert tags[0] == tags[1]


def test_page_says_what_it_is(hostile_page: Path) -> None:
    text = hostile_page.read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert ("html", {"lang": "en"}) in page.elements
    assert ("meta", {"charset": "utf-8"}) in page.elements
    assert any(attributes.get("name") == "viewport" for _, attributes in page.elements)
    title = re.search("<title>(.*?)</title>", text)
    assert title
    assert html.unescape(title[1]).startswith("Self-attention attribution: <script>alert(1)</script> (target 1)")
    (drawing,) = (attributes for _, attributes in page.elements if attributes.get("role") == "figure")
    assert drawing["aria-label"] == html.unescape(title[1])


def test_same_figure_same_bytes(tmp_path: Path) -> None:
    pages = [write_html(plot_attention(explain()), tmp_path / name).read_bytes() for name in ("one.html", "two.html")]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(("shape", "megabytes"), [((12, 12, 128), 8), ((6, 12, 200), 5)])
def test_page_of_a_large_model_holds_the_maps_once(shape: Any, megabytes: float, tmp_path: Path) -> None:
    """Made-up maps with heavy tails: those of a model compress better."""
    generator = torch.Generator().manual_seed(1)
    size = (*shape, shape[-1])
    attention = (2 * torch.randn(size, generator=generator)).softmax(-1)
    attributions = attention * torch.randn(size, generator=generator)
    given = explain(*shape, attributions=attributions, attention=attention)
    path = write_html(plot_attention(given), tmp_path / "large.html")
    assert path.stat().st_size < megabytes * 1e6


def test_maps_travel_as_codes_and_differences_not_at_all(tmp_path: Path) -> None:
    figure = plot_attention(explain(2, 3, 30))
    text = write_html(figure, tmp_path / "page.html").read_text(encoding="utf-8")
    (content,) = re.findall('<script type="application/json" class="content">(.*?)</script>', text)
    (packed,) = re.findall('<script type="application/gzip" class="arrays">(.*?)</script>', text)
    arrays = gzip.decompress(base64.b64decode(packed))
    assert len(arrays) == 2 * 2 * 3 * 30 * 30
    for each in json.loads(content)["data"]:
        if "codes" in each.get("z", ()):
            spec, exact = each["z"], trace(figure, each["name"]).z
            code = np.frombuffer(arrays, f"|{spec['dtype']}", 900, spec["codes"]).reshape(30, 30) / spec["levels"]
            found = np.sign(code) * code**2 * spec["largest"]
            assert spec["largest"] == np.abs(exact).max()
            step = (np.abs(code) + 1 / spec["levels"]) / spec["levels"] * spec["largest"]
            assert (np.abs(found - exact) <= step).all()
            assert ".3~g" not in each["hovertemplate"]
        elif each["name"].startswith("difference") and "thumbnails" not in each["name"]:
            assert "z" not in each
        elif "z" in each:
            rows, columns = each["z"]["shape"]
            halves = np.frombuffer(base64.b64decode(each["z"]["halves"]), "<f2").reshape(rows, columns)
            found = halves.astype(float) * each["z"]["unit"]
            np.testing.assert_allclose(found, trace(figure, each["name"]).z, rtol=5e-4)
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize("largest", [1e38, 1.0, 3e-5, 1e-30, 0.0])
def test_small_numbers_keep_three_digits(largest: float) -> None:
    z = np.array([[largest, -largest / 3], [largest * 1e-6, np.nan]], dtype=np.float32)
    (trace_,) = json.loads(figure_content(go.Figure(go.Heatmap(z=z)), {}).text)["data"]
    halves = np.frombuffer(base64.b64decode(trace_["z"]["halves"]), "<f2").astype(float).reshape(2, 2)
    np.testing.assert_allclose(halves * trace_["z"]["unit"], z, rtol=5e-4)


def test_other_figures_have_pages_too(tmp_path: Path) -> None:
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]), layout={"meta": ["not ours"]})
    assert "<title>Explanation</title>" in write_html(figure, str(tmp_path / "other.html")).read_text("utf-8")


def test_failed_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")

    def fail_midway(self: Path, data: str, **_: Any) -> None:
        self.write_bytes(data.encode()[:1000])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", fail_midway)
    with pytest.raises(OSError, match="no space left"):
        write_html(plot_attention(explain()), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    assert write_html(plot_attention(explain()), path) == path
    assert path.stat().st_size > 500_000
    assert list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------------- the errors


@pytest.mark.parametrize(
    ("changed", "arguments", "error", "message"),
    [
        ({}, {"layer": 2}, ValueError, "layer must be from 0 to 1, not 2"),
        ({}, {"head": -1}, ValueError, "head must be from 0 to 2, not -1"),
        ({}, {"layer": 1.0}, TypeError, "layer must be an integer, not float: 1.0"),
        ({}, {"head": True}, TypeError, "head must be an integer, not bool"),
        ({}, {"view": "scores"}, ValueError, "view must be 'attribution', 'attention' or 'difference', not 'scores'"),
        ({"tokens": ["a", "b"]}, {}, ValueError, "attributions must be 2 x 2 for 2 tokens, not 5 x 5"),
        ({"tokens": ["a", 2, "c", "d", "e"]}, {}, TypeError, "tokens must be strings, not int: 2"),
        ({"attributions": torch.zeros(3, 5, 5)}, {}, ValueError, r"attributions must have the shape \(L, H, T, T\)"),
        ({"attributions": torch.zeros(2, 0, 5, 5)}, {}, ValueError, r"attributions .* not \(2, 0, 5, 5\)"),
        (
            {"attention": torch.zeros(2, 1, 5, 5)},
            {},
            ValueError,
            r"attention has the shape \(2, 1, 5, 5\), attributions have",
        ),
        ({"delta": torch.zeros(3)}, {}, ValueError, r"delta must have the shape \(2,\), not \(3,\)"),
        ({"delta": torch.tensor([0.0, torch.inf])}, {}, ValueError, r"delta must be finite, but delta\[1\] is inf"),
        ({"attributions": torch.full((2, 3, 5, 5), torch.inf)}, {}, ValueError, r"attributions\[0, 0, 0, 0\] is inf"),
        ({"probability": float("inf")}, {}, ValueError, "probability must be finite, not inf"),
    ],
)
def test_wrong_input(changed: dict[str, Any], arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot_attention(explain(**changed), **arguments)


def test_wrong_kind_of_explanation() -> None:
    with pytest.raises(TypeError, match="explanation must be an Explanation, not int: 3"):
        plot_attention(3)  # type: ignore[arg-type]


def test_wrong_path(tmp_path: Path) -> None:
    figure = go.Figure()
    with pytest.raises(ValueError, match=r"directory .*nowhere does not exist"):
        write_html(figure, tmp_path / "nowhere" / "page.html")
    with pytest.raises(ValueError, match="is a directory"):
        write_html(figure, tmp_path)
    with pytest.raises(TypeError, match="path must be a string or a path, not int: 3"):
        write_html(figure, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="figure must be a plotly Figure, not dict"):
        write_html({}, tmp_path / "page.html")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------ the browser

STEPS = """
  seen.paper = plot._fullLayout.paper_bgcolor;
  seen.pictures = document.querySelectorAll(".heatmaplayer image").length;
  seen.labels = texts(".y3tick text");
  const area = document.querySelector('.nsewdrag[data-subplot="x2y2"]');
  const { left, top, width } = area.getBoundingClientRect();
  const cell = width / 20;
  mouse("mousemove", area, left + 0.5 * cell, top + 1.5 * cell);
  await wait();
  seen.hover = texts(".hoverlayer text").join(" | ");
  plot.emit("plotly_click", { points: [{ data: { name: "heads" }, pointNumber: [1, 2] }] });
  await wait();
  seen.end = plot._fullLayout.coloraxis.cmax;
  seen.clicked = [plot._fullLayout.xaxis2.range, plot._fullLayout.yaxis3.range];
  key(plot, "ArrowDown");
  await wait();
  seen.moved = [plot._fullLayout.xaxis3.range, plot._fullLayout.yaxis2.range];
  seen.chosen = document.getElementById("chosen").textContent;
  seen.menus = plot.layout.updatemenus.map((each) => each.active);
  const drawn = () => plot._fullData.filter((each) => each.visible && each.opacity && each.z).map((each) => each.name);
  seen.before = drawn();
  await Plotly.relayout(plot, plot.layout.updatemenus[1].buttons[1].args[0]); // as its own menu does
  await wait();
  seen.byMenu = [drawn(), plot._fullLayout.xaxis3.range, plot._fullLayout.yaxis2.range];
  seen.maps = {};
  for (const { name, z } of plot.data) if (z) seen.maps[name] = z.map((row) => [...row]);
  const over = plot.querySelector(".attention-over");
  seen.over = [over.hidden];
  plot.emit("plotly_buttonclicked", { menu: { name: "head" }, active: 0 }); // drawn at once, by the page itself
  seen.over.push(over.hidden, document.getElementById("chosen").textContent);
  await wait();
  seen.over.push(over.hidden, drawn().at(-1));
  plot.emit("plotly_buttonclicked", { menu: { name: "head" }, active: 2 });
  await wait();
  [...document.querySelectorAll(".controls label")].find((each) => each.textContent === "difference").click();
  await wait();
  seen.after = drawn();
  seen.bar = texts(".cbcoloraxis3 text").join(" ");
"""


@pytest.mark.parametrize("dark", [False, True])
def test_in_a_browser(hostile_page: Path, tmp_path: Path, dark: bool) -> None:
    seen = look(hostile_page, STEPS, tmp_path, dark)
    chosen = explain(3, 4, HOSTILE).attributions[1, 2]
    assert seen["end"] == pytest.approx(float(chosen.abs().max()))  # the colours follow the head
    assert seen["paper"] == ("#12161b" if dark else "#ffffff")
    assert seen["pictures"] >= 4
    shown = [text.strip("\u2068\u2069\u200b") for text in seen["labels"]]
    assert shown[:4] == ["<script>alert…", "</script><img…", "<b>bold</b>", "<a href='http…"]
    for part in (HOSTILE[0], HOSTILE[1], "layer 0, head 0", "attribution ", "attention ", "difference "):
        assert part in seen["hover"]
    size = len(HOSTILE)
    head, layer = [2 * size - 0.5, 3 * size - 0.5], [[0.5 - n * size, 0.5 - (n - 1) * size] for n in (2, 3)]
    assert seen["clicked"] == [head, layer[0]]
    assert seen["moved"] == [head, layer[1]]
    assert seen["chosen"] == "layer 2, head 2"
    assert seen["menus"] == [0, 2, 2, 0]
    assert seen["before"] == ["attribution thumbnails", "heads", "attribution 2 2"]
    assert seen["byMenu"] == [["attribution thumbnails", "heads", "attribution 1 2"], head, layer[0]]
    assert seen["after"] == ["difference thumbnails", "heads", "difference 2 2"]
    assert "attribution" in seen["bar"]
    assert seen["over"] == [True, False, "layer 2, head 0", True, "attribution 2 0"]
    # The page holds half floats and 8-bit codes and computes the difference; its numbers are the figure's.
    names = [name for name in seen["maps"] if name[-1].isdigit()]
    assert names == ["attribution 1 2", "attention 1 2", "difference 1 2"]
    for each in plot_attention(explain(3, 4, HOSTILE)).data:
        if each.type == "heatmap" and each.name in seen["maps"]:
            found = np.array(seen["maps"][each.name], dtype=float)  # JSON tells NaN as null
            coarse = 0.02 * float(np.nanmax(np.abs(each.z))) if each.name in names else 0
            if each.name.startswith("difference"):
                coarse = 1e-5  # which the figure too computes from the codes
            np.testing.assert_allclose(found, each.z, rtol=5e-4, atol=coarse)


def test_another_head_is_seen_in_less_than_a_tenth_of_a_second(clocked: Clocked, tmp_path: Path) -> None:
    clocked.open(write_html(plot_attention(explain(6, 12, 200), layer=2, head=5), tmp_path / "page.html"))
    spent = """(async () => { const times = [];
      for (const key of ["ArrowDown", "ArrowRight", "ArrowUp", "ArrowRight", "ArrowLeft"]) {
        const begin = performance.now();
        plot.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
        times.push(performance.now() - begin);
        await new Promise((done) => setTimeout(done, 20));
      }
      return [Math.min(...times), document.getElementById("chosen").textContent]; })()"""
    least, chosen = clocked.run(spent)
    assert least < 100
    assert chosen == "layer 2, head 6"
    clocked.until("plot.layout.xaxis3.title.text", lambda title: title == "key token, head 6")


def test_buttons_save_the_picture_as_png_and_svg(clocked: Clocked, tmp_path: Path) -> None:
    """From the page alone, without a network; what the tokens hold stays text, and menus are left out."""
    folder = tmp_path / "saved"
    clocked.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    figure = plot_attention(explain(2, 2, HOSTILE, label=HOSTILE[0]))
    clocked.open(write_html(figure, tmp_path / "page.html"))
    for ending in ("png", "svg"):
        clocked.run(f"document.querySelector('[data-title$={ending.upper()}]').click()")
        for _ in range(100):
            if (folder / f"attention.{ending}").is_file():
                break
            time.sleep(0.1)
    png = (folder / "attention.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    size = [figure.layout.width, figure.layout.height]
    assert list(struct.unpack(">II", png[16:24])) == [2 * side for side in size]
    svg = ElementTree.fromstring((folder / "attention.svg").read_text(encoding="utf-8"))
    assert [int(svg.attrib[side]) for side in ("width", "height")] == size
    assert not {"script", "foreignObject", "a"} & {element.tag.rpartition("}")[2] for element in svg.iter()}
    texts = {
        "".join(element.itertext()).strip("\u2068\u2069") for element in svg.iter() if element.tag.endswith("text")
    }
    assert {"<script>alert…", "<b>bold</b>", "&amp;", "שלום עולם", "%{x} %{meta}"} <= texts
    assert not {"layer 1 ▼", "difference"} & texts
    assert any(text.startswith("key token, head ") for text in texts)
