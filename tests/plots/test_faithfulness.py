"""The figure of faithfulness: its numbers are the results', colours tell the attribution, wrong input makes none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import browser
import plotly.graph_objects as go
import pytest
import torch
from hostile import every_text
from results import faithfulness

from captum_attattr import AttributionComparison, plot_faithfulness, write_html
from captum_attattr.attribution.methods.table import ATTRIBUTIONS as METHODS
from captum_attattr.evaluation.compared import Compared
from captum_attattr.evaluation.measures import bands
from captum_attattr.plots.canvas.attributions import attribution_colours

HOSTILE = "<script>alert(1)</script> $x$ %{x}"
ATTRIBUTIONS = (
    *("attattr", "attattr_joint", "gradient_attention", "attention", "chefer", "rollout", "alti", "attnlrp", "random"),
)


def test_every_attribution_has_a_colour_of_its_own() -> None:
    assert set(METHODS) <= set(ATTRIBUTIONS)


def plain(text: str) -> str:
    return re.sub("[\u2068\u2069]", "", text)


def trace(figure: go.Figure, meta: str) -> Any:
    return next(each for each in figure.data if each.meta == meta)


def colour(figure: go.Figure, meta: str) -> str:
    return figure.layout.colorway[[each.meta for each in figure.data].index(meta)]


def test_curves_are_means_over_the_examples_and_bands_their_intervals() -> None:
    result = faithfulness()
    figure = plot_faithfulness(result)
    for part, axis in (("keep", "x"), ("delete", "x2")):
        values = getattr(result, part)
        curve = trace(figure, f"{part} attattr")
        assert curve.xaxis == axis
        assert list(curve.x) == [0.1, 1, 10, 50, 100]
        assert list(curve.y) == values.mean(0).tolist()
        low, high = bands(values)
        (band,) = [each for each in figure.data if each.fill == "toself" and each.xaxis == axis]
        assert list(band.y) == [*high, *low[::-1]]
        assert list(band.x) == [0.1, 1, 10, 50, 100, 100, 50, 10, 1, 0.1]
    assert figure.layout.xaxis.type == figure.layout.xaxis2.type == "log"
    ends = {plain(each.name): each.y[0] for each in figure.data if not each.meta and not each.fill}
    assert ends == {"all edges": result.full.mean().item(), "no edges": result.empty.mean().item()}


def test_hover_and_titles_tell_the_numbers() -> None:
    result = faithfulness(units=[4608] * 10 + [4600] * 10)
    figure = plot_faithfulness(result)
    low, high = bands(result.delete)
    assert plain(trace(figure, "delete attattr").customdata[1]) == (
        f"<b>attattr</b><br>top 1 % removed: about 46 of 4,604 edges<br>probability {result.delete[:, 1].mean():.3g} "
        f"({low[1]:.3g} to {high[1]:.3g})<br>{result.full.mean():.3g} with all, {result.empty.mean():.3g} with none"
    )
    assert plain(figure.layout.title.text) == "Faithfulness: <b>probability</b> with and without the top edges"
    assert figure.layout.title.subtitle.text == "Mean over 20 examples; edges removed: their attention is 0"
    other = plot_faithfulness(faithfulness(unit="head", removal="sink", output="log_probability", units=[72] * 20))
    assert plain(other.layout.title.text) == "Faithfulness: <b>log-probability</b> with and without the top heads"
    assert "top 1 % kept: 1 of 72 heads" in plain(trace(other, "keep attattr").customdata[1])


@pytest.mark.parametrize("count", [1, 4])
def test_few_examples_have_no_band(count: int) -> None:
    figure = plot_faithfulness(faithfulness(count))
    assert not any(each.fill for each in figure.data)
    assert " to " not in trace(figure, "keep attattr").customdata[0]
    assert "bands" not in figure.layout.meta["hint"]
    assert "bands" in plot_faithfulness(faithfulness()).layout.meta["hint"]


def test_one_fraction_is_seen() -> None:
    one = torch.full((20, 1), 0.7)
    figure = plot_faithfulness(faithfulness(fractions=[0.01], keep=one, delete=one, keep_absolute=one))
    assert all("markers" in each.mode for each in figure.data if not each.fill)


def test_colours_tell_the_attribution_whatever_stands_beside_it() -> None:
    alone = {name: colour(plot_faithfulness(faithfulness(attribution=name)), f"keep {name}") for name in ATTRIBUTIONS}
    assert len(set(alone.values())) == len(ATTRIBUTIONS)
    together = plot_faithfulness([faithfulness(attribution=name) for name in reversed(ATTRIBUTIONS)])
    for name in ATTRIBUTIONS:
        assert colour(together, f"keep {name}") == colour(together, f"delete {name}") == alone[name]
        assert attribution_colours(name)["light"] == alone[name]
    joint = plot_faithfulness(faithfulness(path="joint"))
    assert colour(joint, "keep attattr, joint path") == alone["attattr_joint"]
    assert attribution_colours("of my own") == attribution_colours("of my own")


def test_results_of_one_attribution_differ_in_dashes_and_marks() -> None:
    figure = plot_faithfulness({"zero": faithfulness(), "sink": faithfulness(baseline="sink")})
    one, other = trace(figure, "keep zero"), trace(figure, "keep sink")
    assert (one.line.dash, other.line.dash) == ("solid", "dash")
    assert one.marker.symbol != other.marker.symbol
    assert colour(figure, "keep zero") == colour(figure, "keep sink")
    legend = [plain(each.name) for each in figure.data if each.showlegend]
    assert sorted(legend) == ["all edges", "no edges", "sink", "zero"]


def test_a_comparison_is_drawn_as_its_results_by_name() -> None:
    both = {"joint, sink": faithfulness(attribution="attattr_joint"), "random": faithfulness(attribution="random")}
    numbers, pairs = torch.ones(20), torch.zeros(20, 2)
    compared = {
        name: Compared(one, {"top": pairs}, numbers, numbers, torch.ones(20, 3, 4)) for name, one in both.items()
    }
    figure = plot_faithfulness(AttributionComparison(compared, ["a text"] * 20))
    assert figure.to_json() == plot_faithfulness(both).to_json()


def test_hostile_names_are_literal_text() -> None:
    figure = plot_faithfulness({HOSTILE: faithfulness(output="<lambda>"), "b": faithfulness(output="<lambda>")})
    allowed = re.compile(r"<br>|</?b>|<extra></extra>|%\{customdata\}")
    texts = every_text(json.loads(figure.to_json()))
    assert any("&lt;" in text for text in texts)
    for text in texts:
        rest = allowed.sub("", text)
        assert "<" not in rest
        assert "$" not in rest
        assert "%{" not in rest


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda: 3, TypeError, "results must be a Faithfulness, a list or a dict of them, or .* not int: 3"),
        (lambda: "attattr", TypeError, "not str: 'attattr'"),
        (list, ValueError, "results is empty: this list has no Faithfulness"),
        (dict, ValueError, "results is empty: this dict has no Faithfulness"),
        (lambda: [faithfulness(), None], TypeError, "not NoneType"),
        (lambda: {1: faithfulness()}, TypeError, "names of results must be strings, not int"),
        (lambda: [faithfulness(), faithfulness()], ValueError, "two results are called 'attattr': give a dict"),
    ],
)
def test_wrong_input(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot_faithfulness(given())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": "head"}, "same unit; 'attattr' and 'random' have 'edge' and 'head'"),
        ({"removal": "sink"}, "same removal; .* have 'zero' and 'sink'"),
        ({"output": "logit"}, "same output; .* have 'probability' and 'logit'"),
        ({"contrasted": True}, "same output; .* have 'probability' and 'probability difference'"),
        ({"fractions": [0.1, 0.2, 0.3, 0.4, 1]}, r"same fractions; .* have \[0.001.* and \[0.1"),
        ({"count": 19}, "same examples; 'attattr' and 'random' have 20 and 19 of them"),
        ({"full": torch.linspace(0.5, 0.9, 20)}, "same examples; the whole output of example 0 is .* and 0.5 in"),
    ],
)
def test_results_of_other_things_are_not_drawn_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_faithfulness([faithfulness(), faithfulness(attribution="random", **changes)])


STEPS = """
  const plot = document.querySelector(".plot");
  seen.colours = [...plot.querySelectorAll(".scatterlayer .trace .js-line")].map((each) => each.style.stroke);
  const drag = plot.querySelector(".nsewdrag[data-subplot=xy]").getBoundingClientRect();
  const { xaxis, yaxis } = plot._fullLayout;
  mouse("mousemove", plot.querySelector(".nsewdrag[data-subplot=xy]"),
    drag.left + xaxis.d2p(AT_X), drag.top + yaxis.d2p(AT_Y));
  await wait();
  seen.hover = texts(".hovertext").join();
  seen.legend = texts(".legendtext");
"""


@pytest.mark.parametrize("dark", [False, True])
def test_in_a_browser(tmp_path: Path, dark: bool) -> None:
    given = faithfulness()
    figure = plot_faithfulness({HOSTILE: given, "random": faithfulness(attribution="random", seed=0)})
    steps = STEPS.replace("AT_X", "1").replace("AT_Y", str(given.keep[:, 1].mean().item()))
    seen = browser.look(write_html(figure, tmp_path / "page.html"), steps, tmp_path, dark)
    assert "46 of 4,608 edges" in seen["hover"]
    assert [plain(name) for name in seen["legend"]] == [HOSTILE, "random", "all edges", "no edges"]
    orange, grey = ("rgb(255, 138, 87)", "rgb(152, 164, 176)") if dark else ("rgb(209, 72, 12)", "rgb(93, 106, 119)")
    assert {orange, grey} <= set(seen["colours"])
