"""The flow: its edges are the explanation's, the cut moves at once, every choice is told."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import results
import torch
from browser import Clocked, look
from browser import clocked as clocked
from hostile import HOSTILE, every_text

from captum_attattr import Explanation, plot_flow, write_html
from captum_attattr.plots import flow as flow_plot
from captum_attattr.plots.canvas.codes import signed_codes


def explanation(layers: int = 2, heads: int = 3, words: int | list[str] = 6, **changed: Any) -> Explanation:
    """A made-up explanation of a pair of texts: signed scores of very different sizes."""
    size = words if isinstance(words, int) else len(words)
    pair = {"segments": [int(i > size // 2) for i in range(size)], "text": ("a premise", "a hypothesis")}
    return results.explanation(layers, heads, words, uneven, **(pair | changed))


def uneven(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    sizes = torch.exp(2 * torch.randn(shape, generator=generator) - 6)
    return (torch.randn(shape, generator=generator) + 0.2) * sizes


def drawn(figure: go.Figure) -> dict[tuple[int, int, int], tuple[str, int]]:
    """(layer, query, key) of every edge in the traces, with its sign and class of width."""
    found = {}
    for trace in figure.data:
        if not re.fullmatch("(positive|negative) [0-3]", trace.name or ""):
            continue
        sign, width = trace.name.split()
        for (x0, x1, gap), (y0, y1, _) in zip(trace.x.reshape(-1, 3), trace.y.reshape(-1, 3), strict=True):
            assert np.isnan(gap)
            assert y1 == y0 + 1
            found[int(y0), int(x1), int(x0)] = (sign, int(width))
    return found


def bulk(figure: go.Figure) -> dict[str, Any]:
    flow: dict[str, Any] = figure.layout.meta["flow"]
    return flow


# --------------------------------------------------------------------------------------------- the edges


@pytest.mark.parametrize(("layers", "heads", "tokens"), [(1, 1, 1), (2, 3, 6), (30, 2, 4), (1, 12, 9)])
def test_traces_hold_all_interactions_with_sign_and_width(layers: int, heads: int, tokens: int) -> None:
    given = explanation(layers, heads, tokens)
    sums = given.attributions.double().sum(1)
    edges = drawn(plot_flow(given, share=1.0, most=3000))
    assert len(edges) == layers * tokens**2
    for (layer, query, key), (sign, width) in edges.items():
        share = float(sums[layer, query, key].abs() / sums.abs().max())
        assert sign == ("positive" if sums[layer, query, key] > 0 else "negative")
        assert width == sum(share >= edge for edge in (0.1, 0.25, 0.5))


def test_the_cut_takes_the_strongest_that_carry_the_share() -> None:
    given = explanation(3, 2, 10)
    sums = given.attributions.double().sum(1)
    edges = drawn(plot_flow(given, share=0.5))
    scores = torch.tensor([sums[place] for place in edges])
    assert set(edges) == {
        tuple(int(i) for i in torch.unravel_index(place, sums.shape))
        for place in sums.abs().flatten().topk(len(edges))[1]
    }
    positive = float(scores.clamp(min=0).sum() / sums.clamp(min=0).sum())
    weakest = scores.abs().min()
    without = float(scores[scores.abs() > weakest].clamp(min=0).sum() / sums.clamp(min=0).sum())
    assert without < 0.5 <= positive
    assert len(drawn(plot_flow(given, share=1.0, most=7))) == 7


@pytest.mark.parametrize(
    ("choice", "allowed"),
    [
        ({"layer": 1}, lambda layer, q, k, s: layer == 1),
        ({"sign": "negative"}, lambda layer, q, k, s: s < 0),
        ({"sign": "positive"}, lambda layer, q, k, s: s > 0),
        ({"special_tokens": False}, lambda layer, q, k, s: {q, k}.isdisjoint({0, 5})),
        ({"segment": "first"}, lambda layer, q, k, s: max(q, k) <= 3),
        ({"segment": "second"}, lambda layer, q, k, s: min(q, k) > 3),
        ({"segment": "across"}, lambda layer, q, k, s: (q > 3) != (k > 3)),
        (
            {"layer": 0, "segment": "across", "sign": "positive"},
            lambda layer, q, k, s: layer == 0 and s > 0 and (q > 3) != (k > 3),
        ),
    ],
)
@pytest.mark.parametrize("head", [None, 2])
def test_choices_choose(choice: dict[str, Any], allowed: Any, head: int | None) -> None:
    given = explanation()
    scores = given.attributions.sum(1) if head is None else given.attributions[:, head]
    every = {tuple(map(int, place)): float(scores[tuple(place)]) for place in np.ndindex(*scores.shape)}
    wanted = {place for place, score in every.items() if allowed(*place, score)}
    figure = plot_flow(given, head=head, share=1.0, **choice)
    assert set(drawn(figure)) == wanted
    assert f" of {sum(layer == choice.get('layer', layer) for layer, *_ in every)} edges = " in told(figure)


def told(figure: go.Figure) -> str:
    text: str = figure.layout.annotations[0].text
    return text


def test_what_is_told_is_counted() -> None:
    given = explanation(2, 2, 12)
    sums = given.attributions.double().sum(1)
    figure = plot_flow(given, share=0.6)
    scores = torch.tensor([sums[place] for place in drawn(figure)])
    shares = [float((s * scores).clamp(min=0).sum() / (s * sums).clamp(min=0).sum()) for s in (1, -1)]
    expected = (
        f"{len(scores)} of 288 edges = {100 * shares[0]:.0f} % of the positive and {100 * shares[1]:.0f} % of the"
    )
    assert told(figure) == f"{expected} negative attribution; |score| from {scores.abs().min():.2g} (sum over heads)"


def test_a_decoder_has_no_edges_to_what_comes_later() -> None:
    given = explanation(2, 2, 8)
    given = replace(given, attributions=given.attributions.tril())
    figure = plot_flow(given, share=1.0)
    assert all(key <= query for _, query, key in drawn(figure))
    assert " of 72 edges" in told(figure)


def test_hover_tells_tokens_layer_heads_and_scores() -> None:
    maps = torch.zeros(2, 4, 3, 3)
    maps[1, :, 2, 0] = torch.tensor([0.5, -2.0, 0.25, 1.0])
    figure = plot_flow(explanation(2, 4, ["a", "b", "<c>"], attributions=maps, segments=[0, 0, 0]))
    (points,) = figure.select_traces({"name": "edges"})
    names = "<b>\u2068&lt;c&gt;\u2069</b> [2] from <b>\u2068a\u2069</b> [0]"
    heads = "head 1: −2<br>head 3: +1<br>head 0: +0.5"
    assert list(points.hovertemplate) == [f"{names}<br>layer 1, sum over 4 heads: −0.25<br>{heads}<extra></extra>"]
    assert (points.x[0], points.y[0]) == pytest.approx((0.76, 1.38))
    (points,) = plot_flow(explanation(2, 4, 3, attributions=maps), head=3).select_traces({"name": "edges"})
    assert points.hovertemplate[0].endswith("layer 1, head 3: +1<extra></extra>")


def test_many_edges_are_drawn_with_webgl() -> None:
    given = explanation(4, 2, 20)
    kinds = [{t.type for t in plot_flow(given, share=1.0, most=most).data if "3" in t.name} for most in (1000, 1001)]
    assert kinds == [{"scatter"}, {"scattergl"}]


# ---------------------------------------------------------------------------------------------- the bulk


def test_sums_are_stored_exactly_and_heads_in_eight_bits() -> None:
    given = explanation(3, 5, 9)
    flow = bulk(plot_flow(given))
    np.testing.assert_array_equal(flow["sums"], given.attributions.double().sum(1).float().numpy().ravel())
    heads = flow["heads"]
    assert (flow["sums"].dtype, heads["codes"].dtype) == (np.float32, np.int8)
    code = heads["codes"].reshape(15, -1) / heads["levels"]
    exact = given.attributions.numpy().reshape(15, -1)
    largest = np.abs(exact).max(1)
    np.testing.assert_array_equal(heads["largest"], largest)
    found = np.sign(code) * code**2 * largest[:, None]
    assert (np.abs(found - exact) <= 0.008 * largest[:, None]).all()
    strong = np.abs(exact) > 0.3 * largest[:, None]
    np.testing.assert_allclose(found[strong], exact[strong], rtol=0.02)


@pytest.mark.parametrize(("shape", "megabytes"), [((12, 12, 128), 5), ((6, 12, 200), 5)])
def test_large_page_is_small(shape: tuple[int, int, int], megabytes: float, tmp_path: Path) -> None:
    assert write_html(plot_flow(explanation(*shape)), tmp_path / "flow.html").stat().st_size < megabytes * 1e6


def test_same_explanation_same_bytes(tmp_path: Path) -> None:
    pages = [write_html(plot_flow(explanation()), tmp_path / name).read_bytes() for name in ("one.html", "two.html")]
    assert pages[0] == pages[1]


# -------------------------------------------------------------------------------------------- the tokens


def test_hostile_tokens_are_literal_text() -> None:
    given = explanation(2, 2, HOSTILE, label=HOSTILE[0], text=(HOSTILE[1], HOSTILE[14]))
    allowed = re.compile("<br>|<b>|</b>|<extra></extra>")
    for text in every_text(json.loads(plot_flow(given).to_json())):
        assert "<" not in allowed.sub("", text)
        assert "$" not in text
        assert not any(character in text for character in "\u202e\x00\x07\n\r\t\ud800")


# -------------------------------------------------------------------------------------------- the errors


@pytest.mark.parametrize(
    ("changed", "arguments", "error", "message"),
    [
        ({"words": ["a", "b"], "tokens": ["a", 2]}, {}, TypeError, "tokens must be strings, not int: 2"),
        ({"tokens": ["a"]}, {}, ValueError, "attributions must be 1 x 1 for 1 token, not 6 x 6"),
        ({"attributions": torch.zeros(2, 3, 6, 6)}, {}, ValueError, "all 0: there is no edge to draw"),
        ({"attributions": torch.zeros(0, 3, 6, 6)}, {}, ValueError, r"all above 0, not \(0, 3, 6, 6\)"),
        (
            {"attributions": torch.full((2, 3, 6, 6), torch.nan)},
            {},
            ValueError,
            r"attributions\[0, 0, 0, 0\] is nan",
        ),
        ({"special": [True]}, {}, ValueError, r"special must have the shape \(6,\), not \(1,\)"),
        ({"probability": float("inf")}, {}, ValueError, "probability must be finite, not inf"),
        ({}, {"layer": 2}, ValueError, "layer must be from 0 to 1, not 2"),
        ({}, {"head": True}, TypeError, "head must be an integer, not bool: True"),
        ({}, {"sign": "plus"}, ValueError, "sign must be 'both', 'positive' or 'negative', not 'plus'"),
        ({}, {"segment": "third"}, ValueError, "segment must be .* or 'across', not 'third'"),
        ({"segments": [0] * 6}, {"segment": "across"}, ValueError, "'across' needs a pair of texts"),
        ({}, {"special_tokens": 1}, TypeError, "special_tokens must be True or False, not int: 1"),
        ({}, {"share": 0}, ValueError, "share=0 shows nothing: it must be above 0"),
        ({}, {"most": 3001}, ValueError, "most must be from 1 to 3000, not 3001"),
        ({}, {"most": 1.5}, TypeError, "most must be an integer, not float: 1.5"),
        (
            {"words": 2},
            {"special_tokens": False},
            ValueError,
            "no interaction has a score with .*: choose more",
        ),
    ],
)
def test_wrong_input(changed: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot_flow(explanation(**changed), **arguments)


def test_wrong_kind_of_explanation() -> None:
    with pytest.raises(TypeError, match="explanation must be an Explanation, not int: 3"):
        plot_flow(3)  # type: ignore[arg-type]


def test_unknown_probability_is_left_out_of_the_title() -> None:
    title = plot_flow(explanation(probability=float("nan"))).layout.title.text
    assert title.endswith("(target 1)")


# ------------------------------------------------------------------------------------------- the browser

STEPS = """
  const told = () => plot.querySelector(".flow-told").textContent;
  const choose = async (name, place) => {
    const menu = plot.querySelector(`.flow-${name}`);
    menu.selectedIndex = place;
    menu.dispatchEvent(new Event("change"));
    await wait();
  };
  const lines = () => [...plot.querySelectorAll(".flow-line")].map((each) =>
    (each.getAttribute("d") || "").split("M").length - 1);
  const traces = () => plot.data.slice(0, 8).map((each) => [...each.x].filter(Number.isFinite).length / 2);
  seen.paper = plot._fullLayout.paper_bgcolor;
  seen.strokes = [...plot.querySelectorAll(".flow-line")].map((each) => each.getAttribute("stroke"));
  seen.start = [told(), lines(), traces()];
  const slider = plot.querySelector(".flow-cut");
  slider.value = 20;
  slider.dispatchEvent(new Event("input"));
  seen.moved = [told(), lines()];
  await wait();
  seen.settled = [traces(), plot._fullLayout.annotations[0].text, slider.getAttribute("aria-valuetext")];
  key(plot, "ArrowRight");
  seen.right = told();
  key(plot, "Home");
  seen.home = told();
  key(plot, "End");
  await wait();
  seen.all = told();
  await choose("head", 3);
  seen.head = told();
  await choose("layer", 2);
  seen.layer = told();
  await choose("sign", 2);
  seen.negative = told();
  await choose("sign", 0);
  await choose("special", 1);
  seen.special = told();
  await choose("segment", 3);
  seen.across = told();
  for (const name of ["segment", "special", "head", "layer"]) await choose(name, 0);
  key(plot, "Home");
  const { xaxis, yaxis } = plot._fullLayout;
  const area = plot.getBoundingClientRect();
  await wait();
  const at = [xaxis._offset + xaxis.l2p(0.3 * KEY + 0.7 * QUERY), yaxis._offset + yaxis.l2p(LAYER + 0.7)];
  const target = plot.querySelector(".nsewdrag");
  target.dispatchEvent(new PointerEvent("pointermove",
    { clientX: area.left + at[0], clientY: area.top + at[1], bubbles: true }));
  seen.tip = [...plot.querySelectorAll(".flow-tip div")].map((each) => each.textContent);
  seen.menus = [...plot.querySelectorAll("select")].map((each) => each.className);
  seen.live = plot.querySelector(".flow-told").getAttribute("aria-live");
"""


@pytest.mark.parametrize("dark", [False, True])
def test_in_a_browser(tmp_path: Path, dark: bool) -> None:
    given = explanation(2, 3, HOSTILE, label=HOSTILE[0], text=(HOSTILE[1], HOSTILE[0]))
    layer, query, key = 1, 4, 7  # the strongest edge; that of an odd place, whose lower bits are upper halves
    given.attributions[layer, :, query, key] = torch.tensor([17.0, 31.0, -2.2])
    figure = plot_flow(given, most=50)
    sums = given.attributions.double().sum(1)
    assert int(sums.abs().argmax()) == (layer * len(HOSTILE) + query) * len(HOSTILE) + key
    steps = STEPS.replace("LAYER", str(layer)).replace("QUERY", str(query)).replace("KEY", str(key))
    seen = look(write_html(figure, tmp_path / "flow.html"), steps, tmp_path, dark)

    # At first the page shows what the figure does, in its own lines and in plotly's.
    counts = [len(trace.x) // 3 for trace in figure.data[:8]]
    assert seen["start"] == [told(figure).removesuffix(" (sum over heads)"), counts, counts]
    blue, orange = ("#6cb6ff", "#ff8a57") if dark else ("#0067a5", "#d1480c")
    assert seen["strokes"] == [blue, orange] * 4
    assert seen["paper"] == ("#12161b" if dark else "#ffffff")

    def expected(count: int, scores: Any, kept: Any = slice(None), whole: Any = None) -> str:
        whole = scores if whole is None else whole
        shown = scores.flatten()[kept]
        shown = shown[shown.abs().argsort(descending=True)[:count]]
        shown = shown[shown != 0]
        parts = [float((s * shown).clamp(min=0).sum() / (s * whole).clamp(min=0).sum()) for s in (1, -1)]
        shares = f"{100 * parts[0]:.0f} % of the positive and {100 * parts[1]:.0f} % of the negative"
        return f"{len(shown):,} of {int((whole != 0).sum()):,} edges = {shares} attribution; "

    moved = int(seen["moved"][0].split()[0])
    assert moved == sum(seen["moved"][1]) == sum(seen["settled"][0]) == 21
    assert seen["moved"][0].startswith(expected(moved, sums))
    assert seen["settled"][1] == f"{seen['moved'][0]} (sum over heads)"
    assert seen["settled"][2] == seen["moved"][0]
    assert seen["settled"][0] == seen["moved"][1]
    assert int(seen["right"].split()[0]) == moved + 1
    assert seen["home"].startswith(expected(1, sums))
    assert seen["all"].startswith(expected(800, sums))

    def same(text: str, wanted: str) -> None:
        """The page knows the scores of heads in 8 bits: a share may be rounded to the next percent."""
        numbers = [
            [float(n.replace(",", "")) for n in re.findall(r"[\d,]+(?= of| edges| %)", t)] for t in (text, wanted)
        ]
        assert numbers[0][:2] == numbers[1][:2], (text, wanted)
        assert numbers[0] == pytest.approx(numbers[1], abs=1), (text, wanted)

    heads = signed_codes(given.attributions.numpy())  # what is tiny beside the largest of its map counts as 0
    code = heads.codes[:, 2] / heads.levels
    head = torch.from_numpy(np.sign(code) * code**2 * heads.largest[:, 2, None, None])
    same(seen["head"], expected(800, head))
    same(seen["layer"], expected(400, head[1]))
    assert re.match(
        rf"{int((head[1] < 0).sum())} of {int((head[1] != 0).sum())} edges = 100 % of the negative attribution",
        seen["negative"],
    )
    size = len(HOSTILE)
    words = torch.tensor([0 < i < size - 1 for i in range(size)])
    inner = (words[:, None] & words).flatten()
    same(seen["special"], expected(400, head[1], inner))
    second = torch.tensor(given.segments)
    same(seen["across"], expected(400, head[1], inner & (second[:, None] != second).flatten()))

    assert len(seen["tip"]) == 5
    shown = [html.unescape(text).replace("\u2068", "").replace("\u2069", "") for text in seen["tip"]]
    names = [html.unescape(text).replace("\u2068", "").replace("\u2069", "") for text in bulk(figure)["tokens"]]
    assert shown[0] == f"{names[query]} [{query}] from {names[key]} [{key}]"
    score = float(shown[1].split(": ")[1].replace("−", "-"))
    assert score == pytest.approx(float(sums[layer, query, key]), rel=5e-3)
    for line in shown[2:]:
        found = re.fullmatch("head (\\d): about (.*)", line)
        assert found
        value = float(given.attributions[layer, int(found[1]), query, key])
        assert float(found[2].replace("−", "-")) == pytest.approx(value, rel=0.03)
    assert seen["menus"] == [f"flow-{name}" for name in ("layer", "head", "sign", "special", "segment")]
    assert seen["live"] == "polite"


def test_menus_without_a_choice_are_left_out(tmp_path: Path) -> None:
    given = explanation(1, 1, 1, special=[False], segments=[0], text="a")
    steps = """
      seen.menus = [...plot.querySelectorAll("select")].map((each) => each.className);
      const menu = plot.querySelector("select");
      menu.selectedIndex = 2 - (plot.data[1].x.length || plot.data[3].x.length || plot.data[7].x.length ? 0 : 1);
      menu.dispatchEvent(new Event("change"));
      seen.told = plot.querySelector(".flow-told").textContent;
      seen.disabled = plot.querySelector(".flow-cut").disabled;
    """
    seen = look(write_html(plot_flow(given), tmp_path / "flow.html"), steps, tmp_path)
    assert seen["menus"] == ["flow-sign"]
    assert (seen["told"], seen["disabled"]) == ("no edge: choose more in the menus", True)


TIMED = """
(async () => {
  const wait = (time) => new Promise((done) => setTimeout(done, time));
  const slider = plot.querySelector(".flow-cut");
  const took = [];
  for (const part of [0.3, 0.6, 0.8, 0.9, 1, 0.95, 0.7]) {
    await wait(700);
    slider.value = Math.round(part * slider.max);
    const start = performance.now();
    slider.dispatchEvent(new Event("input"));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    took.push(performance.now() - start);
  }
  return [took, plot.querySelector(".flow-told").textContent];
})()
"""


def test_the_slider_answers_at_once(clocked: Clocked, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_html(plot_flow(explanation(12, 12, 128)), tmp_path / "flow.html")
    clocked.open(path)
    took, text = clocked.run(TIMED)
    with capsys.disabled():
        print(f"\nthe slider answers within {max(took):.0f} ms, {sorted(took)[len(took) // 2]:.0f} ms in the middle")
    assert " of 196,608 edges" in text
    assert sorted(took)[len(took) // 2] < 100  # other programs may hold one of them up
    assert max(took) < 500


def test_the_page_draws_as_many_edges_as_python_allows() -> None:
    assert bulk(plot_flow(explanation()))["most"] == flow_plot.MOST
