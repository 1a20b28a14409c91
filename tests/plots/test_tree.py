"""The picture of a tree: its nodes and edges are the tree's, and a click shows what hangs together."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import plotly.graph_objects as go
import pytest
import results
import torch
from browser import Clocked, look
from browser import clocked as clocked
from hostile import HOSTILE, every_text

from captum_attattr import Explanation, attribution_tree, load_tree, plot_tree, save_tree, write_html
from captum_attattr.plots.tree_places import curve


def explanation(layers: int = 4, heads: int = 3, words: int | list[str] = 8, **changed: Any) -> Explanation:
    """A made-up explanation: a few strong interactions, signed noise everywhere else."""
    return results.explanation(layers, heads, words, few_strong, seed=1, **changed)


def few_strong(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    strong = (torch.rand(shape, generator=generator) < 2 / shape[-1]).float()
    return torch.randn(shape, generator=generator) * 1e-2 + strong * torch.rand(shape, generator=generator)


def lines(figure: go.Figure) -> dict[tuple[int, int], Any]:
    """(query, key) and the trace of every edge."""
    return {tuple(t.meta["edge"]): t for t in figure.data if (t.name or "").startswith("edge ")}


def nodes(figure: go.Figure) -> Any:
    (found,) = figure.select_traces({"name": "tokens"})
    return found


# ------------------------------------------------------------------------------------------ the picture


@pytest.mark.parametrize(("layers", "tokens"), [(1, 8), (2, 3), (4, 8), (30, 12), (12, 128)])
@pytest.mark.parametrize("algorithm", ["paper", "reference"])
def test_nodes_and_edges_are_the_trees(layers: int, tokens: int, algorithm: str) -> None:
    given = explanation(layers, words=tokens)
    try:
        tree = attribution_tree(given, 0.2, algorithm)
    except ValueError:
        pytest.skip("such maps have no tree of the reference's")
    figure = plot_tree(tree, given)
    index = figure.layout.meta["tree"]["index"]  # the token of each column
    columns = {token: column for column, token in enumerate(index) if token >= 0}
    assert len(index) == tokens if tokens <= 60 else len(index) <= min(tokens, 4 * len(tree))
    places = dict(zip([index[column] for column in nodes(figure).x], nodes(figure).y, strict=True))
    assert sorted(places) == sorted(tree)
    largest = max(abs(data["score"]) for *_, data in tree.edges(data=True))
    for node, y in places.items():
        lifted = any(data["class_edge"] for *_, data in tree.out_edges(node, data=True))
        assert y == tree.nodes[node]["layer"] + lifted
    assert set(lines(figure)) == set(tree.edges)
    for (query, key), line in lines(figure).items():
        data = tree.edges[query, key]
        assert (line.x[0], line.y[0]) == (columns[key], places[key])
        assert (line.x[-1], line.y[-1]) == (columns[query], places[query])
        assert line.line.dash == ("dash" if data["score"] < 0 else "solid")
        assert line.line.width == pytest.approx(1.2 + 5.8 * abs(data["score"]) / largest, abs=0.01)
        assert line.meta["share"] == pytest.approx(1.2 + 5.8 * min(abs(data["share_of_max"]), 1), abs=0.01)
        if places[query] > places[key]:
            assert (np.diff(line.y) >= 0).all()  # information flows upwards
        else:
            assert line.y[20] > places[key]  # above both tokens of a layer
    assert [(line.name, line.line.width) for line in lines(plot_tree(tree)).values()] == [
        (line.name, line.line.width) for line in lines(figure).values()
    ]


def test_every_line_is_inside_the_picture() -> None:
    """Without [CLS] the last layer is not left out: its lines are arcs above the uppermost row."""
    given = explanation(3, 2, 60, special=[False] * 60)
    tree = attribution_tree(given, 0.3)
    figure = plot_tree(tree, given)
    low, high = figure.layout.yaxis.range
    tops = [max(line.y) for line in lines(figure).values()]
    assert max(tops) > 2.6
    assert low < 0
    assert high > max(tops)


def test_rows_begin_at_the_lowest_layer_of_the_tree() -> None:
    given = explanation(40, 2, 6)
    tree = attribution_tree(given, 0.2)
    lowest = min(data["layer"] for _, data in tree.nodes(data=True))
    assert lowest > 20
    figure = plot_tree(tree, given)
    assert figure.layout.yaxis.range[0] == lowest - 0.6
    assert figure.layout.yaxis.ticktext[0] == f"layer {lowest}"
    assert f"; below layer {lowest} no token comes in<br>" in figure.layout.title.subtitle.text


def test_legend_tells_signs_and_the_root() -> None:
    given = explanation()
    figure = plot_tree(attribution_tree(given, 0.2), given)
    names = [plain(trace.name) for trace in figure.data if trace.showlegend]
    assert names == ["positive", "negative", "root"]
    (root,) = figure.select_traces({"name": "root"})
    assert root.marker.symbol == "square"


def test_colours_follow_the_sign_in_both_themes() -> None:
    given = explanation()
    tree = attribution_tree(given, 0.2)
    assert {data["score"] < 0 for *_, data in tree.edges(data=True)} == {True, False}
    figure = plot_tree(tree, given)
    for theme, (blue, orange) in {"light": ("#0067a5", "#d1480c"), "dark": ("#6cb6ff", "#ff8a57")}.items():
        colours = figure.layout.meta["themes"][theme]["colorway"]
        assert len(colours) == len(figure.data)
        for trace, colour in zip(figure.data, colours, strict=True):
            if (trace.name or "").startswith("edge "):
                assert colour == (blue if tree.edges[trace.meta["edge"]]["score"] < 0 else orange)


def test_all_tokens_are_named_below_those_outside_dimmed() -> None:
    given = explanation(words=10)
    tree = attribution_tree(given, 0.4)
    figure = plot_tree(tree, given)
    inside, outside = figure.layout.xaxis, figure.layout.xaxis2
    assert list(inside.tickvals) == sorted(tree)
    assert sorted([*inside.tickvals, *outside.tickvals]) == list(range(10))
    assert [*inside.ticktext] == [f"\u2068word{i}\u2069" for i in sorted(tree)]
    for theme in figure.layout.meta["themes"].values():
        assert theme["xaxis2.tickfont.color"] != theme["font.color"]


@pytest.mark.parametrize(("tokens", "threshold"), [(60, 0.2), (400, 0.5), (400, 0.05)])
def test_labels_of_a_very_long_text_do_not_overlap(tokens: int, threshold: float) -> None:
    given = explanation(2, 1, tokens)
    figure = plot_tree(attribution_tree(given, threshold), given)
    columns = len(figure.layout.meta["tree"]["index"])
    room = (figure.layout.width - figure.layout.margin.l - figure.layout.margin.r) / columns
    shown = np.sort([*figure.layout.xaxis.tickvals, *figure.layout.xaxis2.tickvals])
    assert len(shown) > min(columns, 100) / 2
    assert (np.diff(shown) * room > 8).all()


def test_title_says_what_was_decided_and_how_the_subtitle_what_is_missing() -> None:
    tree = attribution_tree(explanation(), 0.25)
    for algorithm, told in (("paper", "Algorithm 1"), ("reference", "the published script's algorithm")):
        tree.graph["algorithm"] = algorithm
        title = plot_tree(tree).layout.title
        for part in ("positive", "target 1", "probability 0.875", "threshold 0.25", told):
            assert part in title.text
    edges, share = tree.graph["left_out_edges"], tree.graph["left_out_share"]
    wanted = f"left out: {edges:,} interactions with a positive score, {100 * share:.0f} % of the positive attribution"
    assert share > 0.9
    shown = f"<b>This tree shows little of the decision; {wanted}</b>"
    assert title.subtitle.text == f"{shown}; below layer 1 no token comes in"
    assert plot_tree(attribution_tree(explanation(2), 0.4)).layout.title.subtitle.text.endswith("attribution</b>")
    tree.graph["left_out_share"] = 0.9
    assert plot_tree(tree).layout.title.subtitle.text.startswith("left out: ")


@pytest.mark.parametrize(("columns", "step"), [(5, 2**-8), (17, 2**-7), (60, 2**-6)])
def test_lines_pass_within_half_a_pixel_of_their_curves(columns: int, step: float) -> None:
    x, y = curve((0, 1), (columns - 1, 4), columns)
    t = np.linspace(0, 1, len(x))
    for given, ends, most in ((x, (0, 0, columns - 1, columns - 1), step), (y, (1, 2.65, 2.35, 4), 2**-8)):
        exact = np.array(ends) @ [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
        assert np.abs(given - exact).max() <= most / 2
        assert (given[[0, -1]] == [ends[0], ends[-1]]).all()
        assert (given / most == np.round(given / most)).all()
    assert step * 1250 / columns < 1  # pixels


def test_the_hint_tells_what_a_tree_is() -> None:
    end = "; in the end the first token, a special one where the decision is read, gathers them all."
    for decoder in (False, True):
        given = explanation()
        if decoder:
            given = dataclasses.replace(
                given, attributions=given.attributions.tril(), attention=given.attention.tril(), special=[False] * 8
            )
        hint = plot_tree(attribution_tree(given, 0.25), given).layout.meta["hint"]
        assert "with more than 25 % of the layer's largest score" in hint
        assert (end in hint) != decoder


@pytest.mark.parametrize("merge", [False, True])
def test_strongest_links_that_are_not_in_the_tree_are_named(merge: bool) -> None:
    given = explanation(words=["[CLS]", "play", "##ing", "is", "fun", "##ny", "[SEP]"])
    tree = attribution_tree(given, 0.4, merge_subwords=merge)
    maps = given.attributions.double().sum(1).numpy()
    if merge:
        starts = [0, 1, 3, 4, 6]
        maps = np.add.reduceat(np.add.reduceat(maps, starts, 1), starts, 2)
    for (i, j), data in tree.edges.items():
        maps[data["layer"], i, j] = 0
    best = np.abs(maps).ravel().argsort()[::-1][:3]
    names = tree.graph["tokens"]
    told = plain(plot_tree(tree, given).layout.title.subtitle.text.split("<br>")[1])
    wanted = [
        f"{names[i]} ← {names[j]} {maps[level, i, j]:+.3g} (layer {level})".replace("-", "−")
        for level, i, j in (np.unravel_index(at, maps.shape) for at in best)
    ]
    assert told == f"3 strongest links not in the tree: {', '.join(wanted)}"


@pytest.mark.parametrize(
    ("output", "value", "told"),
    [
        ("score", 0.5, "score 0.5"),
        ("probability", 0.5, "probability 0.5"),
        ("score", -2.0, "score −2"),
        (None, 0.5, "probability 0.5"),
        (None, 2.5, "score 2.5"),
    ],
)
def test_title_tells_what_the_value_is_and_files_of_version_0_1_let_it_be_guessed(
    tmp_path: Path, output: str | None, value: float, told: str
) -> None:
    tree = attribution_tree(explanation(probability=value, value=value, output=output or "score"), 0.25)
    if output is None:
        del tree.graph["output"]
    for ending in ("json", "graphml"):
        again = load_tree(save_tree(tree, tmp_path / f"tree.{ending}"))
        assert again.graph.get("output") == output
        assert f", {told}; threshold" in plot_tree(again).layout.title.text


def test_hover_tells_tokens_layer_heads_score_and_attention() -> None:
    given = explanation()
    tree = attribution_tree(given, 0.3)
    query, key, data = next((i, j, d) for i, j, d in tree.edges(data=True) if not d["class_edge"])
    head, score = data["heads"][0]
    name = f"<b>\u2068word{query}\u2069</b> [{query}] from <b>\u2068word{key}\u2069</b> [{key}]"
    number = f"head {head}: {score:+.3g} ({100 * score / abs(data['score']):+.0f} %)".replace("-", "−")
    seen = f"attention {float(given.attention[data['layer'], head, query, key]):.3g}"
    mean = f"attention {float(given.attention[data['layer'], :, query, key].mean()):.3g}, mean over heads"
    both, tree_alone = lines(plot_tree(tree, given))[query, key], lines(plot_tree(tree))[query, key]
    for part in (name, f"layer {data['layer']}, attribution {data['score']:+.3g}", f"{number}, {seen}", mean):
        assert part in both.hovertemplate
    assert number in tree_alone.hovertemplate
    assert seen not in tree_alone.hovertemplate
    at = list(nodes(plot_tree(tree)).x).index(key)
    hover = nodes(plot_tree(tree, given)).hovertemplate[at]
    for part in (f"<b>\u2068word{key}\u2069</b> [{key}], layer {data['layer']}", f"{number}, {seen}", mean):
        assert part in hover
    root = tree.graph["root"]
    assert ", root" in nodes(plot_tree(tree)).hovertemplate[list(nodes(plot_tree(tree)).x).index(root)]


def test_words_put_together_have_the_attention_of_their_pieces() -> None:
    given = explanation(words=["[CLS]", "play", "##ing", "is", "fun", "##ny", "[SEP]"])
    tree = attribution_tree(given, 0.2, merge_subwords=True)
    assert tree.graph["tokens"] == ["[CLS]", "playing", "is", "funny", "[SEP]"]
    pieces = [[0], [1, 2], [3], [4, 5], [6]]
    figure = plot_tree(tree, given)
    assert len(figure.layout.xaxis.tickvals) + len(figure.layout.xaxis2.tickvals) == 5
    for (query, key), line in lines(figure).items():
        data = tree.edges[query, key]
        for head, _ in data["heads"]:
            block = given.attention[data["layer"], head][pieces[query]][:, pieces[key]]
            assert f"attention {float(block.double().sum(1).mean()):.3g}" in line.hovertemplate


def test_decoders_have_no_class_token_and_their_root_on_top() -> None:
    given = explanation(special=[False] * 8)
    causal = explanation(special=[False] * 8, attributions=given.attributions.tril(), attention=given.attention.tril())
    tree = attribution_tree(causal, 0.3)
    figure = plot_tree(tree, causal)
    assert tree.graph["class_token"] is None
    assert max(nodes(figure).y) == nodes(figure).y[list(nodes(figure).x).index(7)] == 3
    assert figure.layout.yaxis.ticktext[-1] == "output"
    (output,) = figure.select_traces({"name": "output"})
    assert (list(output.x), list(output.y), plain(output.text[1])) == ([7, 7], [3, 4], "predicts positive ")
    assert all(key < query for query, key in lines(figure))


@pytest.mark.parametrize("ending", [".json", ".graphml"])
def test_a_tree_from_a_file_looks_the_same(tmp_path: Path, ending: str) -> None:
    given = explanation(words=["[CLS]", "<b>", '"', "שלום", "👩‍👩‍👧", "&amp;", "x" * 40, "[SEP]"])
    tree = attribution_tree(given, 0.3)
    again = load_tree(save_tree(tree, tmp_path / f"tree{ending}"))
    assert plot_tree(again, given).to_json() == plot_tree(tree, given).to_json()


def test_names_stand_beside_the_tokens_where_there_is_room() -> None:
    few, many = (plot_tree(attribution_tree(explanation(words=n), 0.3)) for n in (4, 100))
    assert [plain(text) for text in nodes(few).text] == [f"word{i}" for i in nodes(few).x]
    assert "" in nodes(many).text  # where names would lie upon one another, one of them is left out, not all
    assert sum(text != "" for text in nodes(many).text) > 5


def test_hostile_tokens_are_literal_text() -> None:
    given = explanation(words=HOSTILE, label=HOSTILE[0])
    allowed = re.compile("<br>|<b>|</b>|<extra></extra>")
    for text in every_text(json.loads(plot_tree(attribution_tree(given, 0.2), given).to_json())):
        assert "<" not in allowed.sub("", text)
        assert "$" not in text
        assert not any(character in text for character in "\u202e\x00\x07\n\r\t\ud800")


# ---------------------------------------------------------------------------------------------- the page


def test_same_tree_same_bytes(tmp_path: Path) -> None:
    given = explanation()
    pages = [write_html(plot_tree(attribution_tree(given, 0.3), given), tmp_path / name).read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


def test_the_page_of_a_large_tree_is_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = explanation(12, 12, 128)
    tree = attribution_tree(given, 0.05)
    start = time.perf_counter()
    size = write_html(plot_tree(tree, given), tmp_path / "tree.html").stat().st_size
    seconds = time.perf_counter() - start
    with capsys.disabled():
        print(f"\ntree of {len(tree)} tokens, {tree.number_of_edges()} edges: {size / 1e6:.1f} MB in {seconds:.2f} s")
    assert tree.number_of_edges() > 200
    assert size < 6e6
    assert seconds < 3


STEPS = """
  const heard = document.getElementById("chosen");
  const bright = () => {
    const { x, selectedpoints } = plot._fullData[0];
    return selectedpoints ? [...selectedpoints].map((place) => x[place]) : "all";
  };
  const edges = () => plot.data.filter((each) => each.meta?.edge && each.opacity > 0.1).map((each) => each.meta.edge);
  seen.paper = plot._fullLayout.paper_bgcolor;
  seen.strokes = plot._fullData.map((each) => each.line?.color ?? null);
  seen.start = [heard.textContent, bright(), edges().length];
  plot.focus();
  seen.focused = document.activeElement === plot;
  key(plot, "ArrowRight");
  key(plot, "ArrowRight");
  await wait();
  seen.second = [heard.textContent, bright(), edges()];
  key(plot, "ArrowUp");
  await wait();
  seen.up = heard.textContent;
  key(plot, "Escape");
  await wait();
  seen.cleared = [heard.textContent, bright(), edges().length];
"""


def plain(text: str) -> str:
    return text.replace("\u2068", "").replace("\u2069", "")


def expected(tree: nx.DiGraph, node: int, names: list[str]) -> str:
    def listed(some: set[int]) -> str:
        return ", ".join(f"{names[i]} [{i}]" for i in sorted(some)) or "none"

    above, below = nx.ancestors(tree, node), nx.descendants(tree, node)
    return f"{names[node]} [{node}]: gathered by {listed(above)}; gathers from {listed(below)}"


def lit(tree: nx.DiGraph, node: int) -> set[tuple[int, int]]:
    """The edges on the ways from the roots to a node, and on those from it."""
    above, below = nx.ancestors(tree, node), nx.descendants(tree, node)
    upper = {(i, j) for i, j in tree.edges if i in above and j in above | {node}}
    return upper | {(i, j) for i, j in tree.edges if i in below | {node} and j in below}


@pytest.mark.parametrize("dark", [False, True])
def test_keys_in_a_browser(tmp_path: Path, dark: bool) -> None:
    given = explanation(words=HOSTILE, label=HOSTILE[0])
    tree = attribution_tree(given, 0.2)
    figure = plot_tree(tree, given)
    seen = look(write_html(figure, tmp_path / "tree.html"), STEPS, tmp_path, dark)
    names = [plain(html.unescape(text)) for text in figure.layout.meta["tree"]["labels"]]
    assert seen["paper"] == ("#12161b" if dark else "#ffffff")
    assert {"#6cb6ff", "#ff8a57"} <= set(seen["strokes"]) if dark else {"#0067a5", "#d1480c"} <= set(seen["strokes"])
    assert seen["start"] == ["", "all", tree.number_of_edges()]
    assert seen["focused"]
    second = sorted(tree)[1]
    text, bright, edges = seen["second"]
    assert plain(text) == expected(tree, second, names)
    assert set(bright) == {second} | nx.ancestors(tree, second) | nx.descendants(tree, second)
    assert {tuple(edge) for edge in edges} == lit(tree, second)
    assert len(edges) < tree.number_of_edges()
    (parent, *_) = [i for i, _, data in tree.in_edges(second, data=True) if not data["class_edge"]]
    assert plain(seen["up"]) == expected(tree, parent, names)
    assert seen["cleared"] == ["", "all", tree.number_of_edges()]


def test_clicks_in_a_browser(clocked: Clocked, tmp_path: Path) -> None:
    given = explanation()
    tree = attribution_tree(given, 0.3)
    figure = plot_tree(tree, given)
    path = write_html(figure, tmp_path / "tree.html")
    clocked.open(path)
    place = """(() => {
      const { left, top } = plot.getBoundingClientRect(), { xaxis, yaxis } = plot._fullLayout;
      return [left + xaxis._offset + xaxis.l2p(X), top + yaxis._offset + (BELOW ? yaxis._length + 12 : yaxis.l2p(Y))];
    })()"""
    heard = "document.getElementById('chosen').textContent"
    node = sorted(tree)[2]
    at = place.replace("X", str(node), 1).replace("Y", str(nodes(figure).y[list(nodes(figure).x).index(node)]), 1)
    names = [f"word{i}" for i in range(8)]

    for below in ("false", "true"):  # the mark of the token, and its label
        x, y = clocked.run(at.replace("BELOW", below))
        clocked.click(x, y)
        assert plain(clocked.until(heard, bool)) == expected(tree, node, names)
        clocked.click(x, y)
        clocked.until(heard, lambda text: text == "")
    for elsewhere in ("", "document.activeElement.blur()"):
        clocked.click(x, y)
        clocked.until(heard, bool)
        clocked.run(elsewhere)
        clocked.press("Escape")
        clocked.until(heard, lambda text: text == "")


def test_the_text_at_the_mouse_is_that_of_what_is_under_it(clocked: Clocked, tmp_path: Path) -> None:
    """Lines end in the middle of tokens; there, and 3 pixels around, the token answers."""
    given = explanation()
    tree = attribution_tree(given, 0.2)
    clocked.open(write_html(plot_tree(tree, given), tmp_path / "tree.html"))
    places = clocked.run("""(() => {
      const { left, top } = plot.getBoundingClientRect(), { xaxis, yaxis } = plot._fullLayout;
      const { x, y } = plot._fullData[0];
      const place = (at, i) => [at, left + xaxis._offset + xaxis.l2p(at), top + yaxis._offset + yaxis.l2p(y[i])];
      return Array.from(x, place);
    })()""")
    assert [node for node, *_ in places] == sorted(tree)
    told = "[...document.querySelectorAll('.hovertext')].map((each) => each.textContent).join()"
    for node, x, y in places:
        for dx, dy in ((0, 0), (0, 3), (0, -3), (3, 0), (-3, 0)):
            clocked.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x + 200 * (x < 600) - 100, y=y + 40)
            clocked.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x + dx, y=y + dy)
            clocked.until(told, lambda text, node=node: plain(text).startswith(f"word{node} [{node}], layer"))


# -------------------------------------------------------------------------------------------- the errors


def broken(change: Callable[[nx.DiGraph], object]) -> nx.DiGraph:
    tree = attribution_tree(explanation(), 0.3)
    change(tree)
    return tree


def spoil(tree: nx.DiGraph) -> None:
    i, j = next(iter(tree.edges))
    tree.edges[i, j]["score"] = float("nan")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (3, TypeError, "tree must be a networkx.DiGraph of attribution_tree, not int: directed and no multigraph"),
        (nx.MultiDiGraph(), TypeError, "not MultiDiGraph: directed"),
        (broken(lambda t: t.graph.update(left_out_share="x")), ValueError, "left_out_share='x' must be a number"),
        (nx.Graph(), TypeError, "not Graph"),
        (nx.DiGraph(), ValueError, "tree has 0 nodes and no edge: there is nothing to draw"),
        (nx.DiGraph([(0, 1)]), ValueError, r"no graph of attribution_tree: it lacks \['algorithm', "),
        (broken(lambda t: t.add_node(2.5, **t.nodes[0])), ValueError, "positions from 0 to 7, not 2.5"),
        (broken(lambda t: t.add_node(9, **t.nodes[0])), ValueError, "positions from 0 to 7, not 9"),
        (broken(lambda t: t.nodes[0].pop("layer")), ValueError, r"its node 0 lacks \['layer'\]"),
        (broken(lambda t: t.graph.update(root=99)), ValueError, "the root 99 of tree is none of its nodes"),
        (broken(spoil), ValueError, r"score of the edge \d to \d must be finite, not nan"),
    ],
)
def test_wrong_tree(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot_tree(given)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"words": 9}, ValueError, r"not the one that tree was made of: its 9 tokens .* tree \(8\)"),
        ({"attention": torch.ones(3, 8, 8)}, ValueError, r"\(L, H, T, T\), .* not \(3, 8, 8\)"),
        ({"layers": 2}, ValueError, "layer 3 and head 2, that of explanation 2 x 3"),
        (
            {"attention": torch.full((4, 3, 8, 8), torch.nan)},
            ValueError,
            r"attention\[0, 0, 0, 0\] is nan",
        ),
    ],
)
def test_wrong_explanation(changed: Any, error: type[Exception], message: str) -> None:
    tree = attribution_tree(explanation(), 0.3)
    with pytest.raises(error, match=message):
        plot_tree(tree, explanation(**changed))


def test_wrong_kind_of_explanation() -> None:
    tree = attribution_tree(explanation(), 0.3)
    with pytest.raises(TypeError, match="explanation must be an Explanation, not int: 3"):
        plot_tree(tree, 3)  # type: ignore[arg-type]
