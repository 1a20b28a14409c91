"""The report: one page with every view of one explanation, harmless, offline, each figure with controls of its own."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import results
import torch
from browser import look
from hostile import HOSTILE, Page
from results import importance

from captum_attattr.explanations.explanation import Explanation
from captum_attattr.plots.canvas.library import library_script
from captum_attattr.plots.flow import plot_flow
from captum_attattr.plots.report_page import write_report

SECTIONS = ["decision", "tree", "flow", "maps", "heads"]


def explanation(layers: int = 3, heads: int = 4, words: int | list[str] = 8, **changed: Any) -> Explanation:
    names = words if isinstance(words, list) else ["[CLS]", *(f"word{i}" for i in range(1, words - 1)), "[SEP]"]
    return results.explanation(layers, heads, names, **changed)


def section(text: str, name: str) -> str:
    """The visible text of one part of a page."""
    (part,) = re.findall(f'<section id="{name}">(.*?)</section>', text, re.DOTALL)
    return html.unescape(re.sub("<script.*?</script>|<[^>]*>", " ", part, flags=re.DOTALL))


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = explanation(3, 4, HOSTILE, label=HOSTILE[0], text=(HOSTILE[1], HOSTILE[8]), prediction=0)
    return write_report(given, tmp_path_factory.mktemp("reports") / "hostile.html", title=HOSTILE[0])


# ------------------------------------------------------------------------------------------------ the page


def test_report_has_every_section_and_figure_and_plotly_once(tmp_path: Path) -> None:
    path = write_report(explanation(), tmp_path / "report.html")
    assert path == tmp_path / "report.html"
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert [attributes["id"] for tag, attributes in page.elements if tag == "section"] == SECTIONS
    assert [attributes["href"] for tag, attributes in page.elements if tag == "a"] == [f"#{name}" for name in SECTIONS]
    drawings = [attributes["id"] for _, attributes in page.elements if attributes.get("class") == "plot"]
    assert drawings == [f"{name}-plot" for name in SECTIONS[1:]]
    assert text.count(library_script([])) == 1
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "<title>Self-attention attribution: positive, probability 0.875</title>" in text


def test_decision_tells_text_tokens_value_and_the_numbers_of_each_layer(tmp_path: Path) -> None:
    given = explanation(error=torch.tensor([0.5, 0.25, torch.nan]), delta=torch.tensor([0.5, -0.25, 0.0]), prediction=0)
    told = " ".join(section(write_report(given, tmp_path / "report.html").read_text("utf-8"), "decision").split())
    sums = [f"{float(each.sum(dtype=torch.float64)):+.3g}".replace("-", "−") for each in given.attributions]
    for part in ("a text of words", "[CLS]", "word6", "positive (target 1)", "probability 0.875", "target 0", *sums):
        assert part in told
    for row in (["0", sums[0], "+0.5", "0.5", "9"], ["2", sums[2], "+0", "not estimated", "9"]):
        assert " ".join(row) in told


def test_report_asks_for_nothing(hostile_report: Path, tmp_path: Path) -> None:
    page = Page(hostile_report.read_text(encoding="utf-8"))
    loading = ("src", "srcset", "data", "action", "poster", "background")
    assert [tag for tag, attributes in page.elements for name in loading if name in attributes] == []
    hrefs = [attributes["href"] or "" for _, attributes in page.elements if "href" in attributes]
    assert all(href == "data:," or href.startswith("#") for href in hrefs)
    harmless = write_report(explanation(), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http" not in harmless.replace("http-equiv", "").replace(SVG, "")


SVG = "http://www.w3.org/2000/svg"
"""A name that browsers demand of whoever makes a picture; nobody loads it."""


def test_hostile_tokens_make_no_element(hostile_report: Path, tmp_path: Path) -> None:
    given = explanation(3, 4, [f"t{i}" for i in range(len(HOSTILE))], text=("first", "second"))
    harmless = write_report(given, tmp_path / "harmless.html")
    tags = [[tag for tag, _ in Page(path.read_text(encoding="utf-8")).elements] for path in (hostile_report, harmless)]
    assert tags[0] == tags[1]
    told = section(hostile_report.read_text(encoding="utf-8"), "decision")
    for part in (HOSTILE[0], HOSTILE[1], HOSTILE[4], HOSTILE[5], HOSTILE[7], HOSTILE[9], HOSTILE[11], "\\u202eturned"):
        assert part in told
    for part in ("two↵lines↵and⇥tab", "half \\ud800 pair", "nul \\u0000 bell \\u0007", "∅", "␣␣"):
        assert part in told


def test_same_explanation_same_bytes(tmp_path: Path) -> None:
    pages = [write_report(explanation(), tmp_path / name).read_bytes() for name in ("one.html", "two.html")]
    assert pages[0] == pages[1]


def test_report_of_a_large_model_is_at_most_20_megabytes(tmp_path: Path) -> None:
    path = write_report(explanation(12, 12, 128), tmp_path / "report.html")
    assert path.stat().st_size <= 20_000_000


# --------------------------------------------------------------------------------------------- the options


def test_empty_tree_is_said_in_words_with_the_threshold_that_gives_an_edge(tmp_path: Path) -> None:
    attributions = torch.zeros(3, 1, 4, 4)
    attributions[:, 0, 3, 3] = 1.0  # the largest is a token's own
    attributions[1, 0, 1, 2] = 0.25
    given = explanation(3, 1, 4, attributions=attributions, attention=torch.full((3, 1, 4, 4), 0.25))
    text = write_report(given, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "There is no tree to draw: threshold=0.4 leaves no edge" in section(text, "tree")
    assert "one below 0.25 would give the first edge" in section(text, "tree")
    assert 'id="tree-plot"' not in text
    assert 'id="maps-plot"' in text
    assert 'id="tree-plot"' in write_report(given, tmp_path / "report.html", threshold=0.2).read_text("utf-8")


def test_maps_of_zeros_are_said_in_words(tmp_path: Path) -> None:
    """All heads may be cut out: the page still says what was decided, and draws what there is."""
    given = explanation(attributions=torch.zeros(3, 4, 8, 8))
    path = write_report(given, tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    assert "no token gathers anything positive from another" in section(text, "tree")
    assert "There is no flow to draw: the attributions of all heads are 0" in section(text, "flow")
    assert look(path, "", tmp_path)["figures"] == 2  # the maps, whose attention is there, and the heads


def test_threshold_is_the_trees(tmp_path: Path) -> None:
    text = write_report(explanation(), tmp_path / "report.html", threshold=0.25).read_text(encoding="utf-8")
    assert "threshold 0.25" in text


def test_head_map_is_the_largest_attribution_of_each_head_or_the_given_importance(tmp_path: Path) -> None:
    given = explanation()
    own = write_report(given, tmp_path / "own.html")
    steps = "seen.scores = document.getElementById('heads-plot')._fullData[0].z.map((row) => [...row]);"
    steps += "seen.title = document.getElementById('heads-plot').layout.title.text;"
    seen = look(own, steps, tmp_path)
    np.testing.assert_allclose(seen["scores"], given.attributions.amax((2, 3)), rtol=1e-6)
    assert "largest attribution in this text" in seen["title"]
    text = write_report(given, tmp_path / "given.html", importance=importance(3, 4, "taylor")).read_text("utf-8")
    assert re.search(r"Head importance: \\u003cb\\u003e\\u2068taylor", text)


def test_heads_that_are_gone_have_no_score(tmp_path: Path) -> None:
    given = explanation()
    given.attributions[1, 2] = given.attention[1, 2] = 0
    text = write_report(given, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "this head is gone" in text


def test_regression_score_is_no_probability(tmp_path: Path) -> None:
    text = write_report(explanation(probability=-3.2, output="score"), tmp_path / "report.html").read_text("utf-8")
    assert "score −3.2" in section(text, "decision")


def test_what_is_not_known_is_said_in_words(tmp_path: Path) -> None:
    given = explanation(probability=float("nan"), delta=torch.full((3,), torch.nan))
    text = write_report(given, tmp_path / "report.html").read_text("utf-8")
    assert "<title>Self-attention attribution: positive</title>" in text
    assert section(text, "decision").count("not known") == 1 + 3


# ---------------------------------------------------------------------------------------------- the errors


@pytest.mark.parametrize(
    ("changed", "options", "error", "message"),
    [
        ({}, {"threshold": 1.5}, ValueError, "threshold=1.5 must be a number from 0"),
        ({}, {"threshold": -0.1}, ValueError, "threshold=-0.1 must be a number from 0"),
        ({}, {"title": 3}, TypeError, "title must be a string, not int: 3"),
        ({}, {"importance": "attattr"}, TypeError, "importance must be a HeadImportance, .* not str"),
        ({}, {"importance": importance(2, 4)}, ValueError, r"that of \(2, 4\) layers and heads, .* has \(3, 4\)"),
        ({"tokens": ["a"]}, {}, ValueError, "attributions must be 1 x 1 for 1 token, not 8 x 8"),
        ({"delta": torch.zeros(2)}, {}, ValueError, r"delta must have the shape \(3,\), not \(2,\)"),
        ({"attributions": torch.full((3, 4, 8, 8), torch.nan)}, {}, ValueError, "must be finite"),
        ({"special": [False]}, {}, ValueError, r"special must have the shape \(8,\), not \(1,\)"),
        ({"nodes": torch.ones(2)}, {}, ValueError, r"nodes must have the shape \(3,\), not \(2,\)"),
        ({"probability": float("inf")}, {}, ValueError, "probability must be finite, not inf"),
    ],
)
def test_wrong_input_leaves_no_file(
    changed: dict[str, Any], options: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        write_report(explanation(**changed), tmp_path / "report.html", **options)
    assert list(tmp_path.iterdir()) == []


def test_wrong_explanation_and_path(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="explanation must be an Explanation, not list: \\[\\]"):
        write_report([], tmp_path / "report.html")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"directory .*nowhere does not exist"):
        write_report(explanation(), tmp_path / "nowhere" / "report.html")
    with pytest.raises(TypeError, match="path must be a string or a path, not int: 3"):
        write_report(explanation(), 3)  # type: ignore[arg-type]


def test_failed_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail_midway(self: Path, data: str, **_: Any) -> None:
        self.write_bytes(data.encode()[:1000])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", fail_midway)
    with pytest.raises(OSError, match="no space left"):
        write_report(explanation(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# --------------------------------------------------------------------------------------------- the browser

STEPS = """
  const part = (name) => document.getElementById(name);
  const [tree, flow, maps, heads] = ["tree", "flow", "maps", "heads"].map((name) => part(`${name}-plot`));
  const state = () => ({
    tree: [part("tree-chosen").textContent, ...tree.data.map((trace) => trace.opacity ?? 1)],
    flow: flow.querySelector(".flow-cut").value,
    maps: maps.layout.updatemenus.map((menu) => menu.active),
    heads: heads.layout.updatemenus.map((menu) => menu.active),
  });
  seen.paper = [tree, flow, maps, heads].map((plot) => plot._fullLayout.paper_bgcolor);
  const marks = "path.js-line, .flow-edges path, .heatmaplayer image";
  seen.pictures = [tree, flow, maps, heads].map((plot) => plot.querySelectorAll(marks).length);
  seen.edges = [Array.from(flow.layout.meta.flow.indices), Array.from(flow.layout.meta.flow.score)];
  const { high, low } = flow.layout.meta.flow.heads;
  seen.codes = Array.from(high, (upper, i) => (upper << 4) | ((low[i >> 1] >> (4 * (i & 1))) & 15));
  seen.states = [state()];
  const steps = [
    () => key(tree, "ArrowRight"),
    () => key(flow, "ArrowRight"),
    () => key(maps, maps.layout.updatemenus[1].active ? "ArrowUp" : "ArrowDown"),
    () => key(heads, "ArrowDown"),
  ];
  for (const step of steps) {
    step();
    await wait();
    seen.states.push(state());
  }
  seen.chosen = ["tree", "maps", "heads"].map((name) => part(`${name}-chosen`).textContent);
"""


@pytest.mark.parametrize("dark", [False, True])
def test_figures_in_a_browser_answer_and_do_not_disturb_each_other(tmp_path: Path, dark: bool) -> None:
    given = explanation(3, 4, HOSTILE, label=HOSTILE[0], text=HOSTILE[1])
    given.attributions[1, 2, 3, 4], given.attributions[1, 2, 3, 5] = 1e-11, 0
    smallest, nothing = (int(np.ravel_multi_index((1, 2, 3, at), given.attributions.shape)) for at in (4, 5))
    maps = {HOSTILE[0]: importance(3, 4), "second": importance(3, 4, "taylor")}
    path = write_report(given, tmp_path / "report.html", importance=maps)
    seen = look(path, STEPS, tmp_path, dark)
    assert seen["figures"] == 4
    assert seen["paper"] == ["#12161b" if dark else "#ffffff"] * 4
    assert min(seen["pictures"]) >= 1
    for place, name in enumerate(("tree", "flow", "maps", "heads")):
        before, after = seen["states"][place : place + 2]
        assert {each for each in before if before[each] != after[each]} == {name}
    assert re.search(r"gathers from", seen["chosen"][0])
    assert seen["chosen"][1].startswith("layer ")
    assert seen["chosen"][2].strip("\u2068\u2069") == "second"
    # The page makes the flow's edges and heads of the maps and of the sums over heads.
    place, score = (np.array(part) for part in seen["edges"])
    sums = given.attributions.sum(1, dtype=torch.float64).flatten().numpy()
    assert sorted(place) == list(range(len(sums)))
    np.testing.assert_allclose(score, sums[place], rtol=5e-4)  # half floats: 11 bits of each
    assert (np.diff(np.abs(score)) <= 0).all()
    heads = plot_flow(given).layout.meta["flow"]["heads"]
    lower = np.stack([heads["low"] & 15, heads["low"] >> 4], 1).ravel()[: len(heads["high"])]
    codes, expected = np.array(seen["codes"]), heads["high"].astype(int) * 16 + lower
    assert codes[smallest] == expected[smallest] == 1  # not 0, which would be no edge
    assert codes[nothing] == expected[nothing] == 0
    assert (np.abs(codes - expected) <= 1).all()  # of 2048 levels
    assert (codes == expected).mean() > 0.9
