"""Figures of heads: the numbers are the results', each can be read without colours, bad input makes no picture."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import browser
import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from hostile import every_text
from pictured import comparison, curve, effectiveness
from results import importance
from scipy.stats import rankdata

from captum_attattr.heads.correlation import importance_correlation
from captum_attattr.heads.curves import PruningComparison
from captum_attattr.heads.importance import METHODS
from captum_attattr.plots import plot_correlation, plot_effectiveness, plot_heads, plot_pruning_curve
from captum_attattr.plots.canvas.pages import write_html

HOSTILE = "<script>alert(1)</script> $x$ %{x}"


FIGURES = {
    "heads": lambda: plot_heads([importance(), importance(method="loss_difference")]),
    "correlation": lambda: plot_correlation(importance(), importance(method="taylor", seed=1)),
    "curves": lambda: plot_pruning_curve(comparison()),
    "effectiveness": lambda: plot_effectiveness(effectiveness()),
}


def trace(figure: go.Figure, name: str) -> Any:
    return next(each for each in figure.data if plain(each.name) == name)


def plain(text: str) -> str:
    return re.sub("[\u2068\u2069]", "", text)


# ------------------------------------------------------------------------------------------ the head map


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (6, 12), (30, 9), (48, 64)])
def test_head_map_holds_the_scores_layer_0_on_top(layers: int, heads: int) -> None:
    given = importance(layers, heads)
    figure = plot_heads(given)
    np.testing.assert_array_equal(trace(figure, "attattr").z, given.scores)
    assert figure.layout.yaxis.range == (layers - 0.5, -0.5)
    assert figure.layout.width <= 1250


def test_layer_bars_are_the_means_of_the_heads_that_are_there() -> None:
    scores = torch.tensor([[1.0, 3.0], [torch.nan, 5.0], [torch.nan, torch.nan]], dtype=torch.float64)
    bars = trace(plot_heads(importance(3, 2, scores=scores, stderr=scores)), "attattr layers")
    np.testing.assert_array_equal(bars.x, [2.0, 5.0, np.nan])
    assert bars.customdata[1] == "<b>layer 1</b><br>mean 5 of 1 head<br>sum 5"


def test_head_map_hover_tells_score_error_and_the_rank_that_pruning_uses() -> None:
    given = importance(4, 5)
    hovers = trace(plot_heads(given), "attattr").customdata
    for rank, (layer, head) in enumerate(given.ranking("most"), 1):
        expected = f"{given.scores[layer, head]:.3g} ± {given.stderr[layer, head]:.3g}<br>rank {rank} of 20"
        assert hovers[layer][head] == f"<b>layer {layer}, head {head}</b><br>{expected}"


def test_equal_scores_share_their_ranks_and_unknown_errors_are_said() -> None:
    scores = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)
    hovers = trace(plot_heads(importance(1, 3, scores=scores, stderr=scores * torch.nan)), "attattr").customdata
    assert hovers[0][1].endswith("0.25<br>no standard error<br>ranks 2 to 3, equal scores, of 3")


def test_heads_that_are_gone_are_marked() -> None:
    scores = torch.tensor([[0.5, torch.nan], [0.1, 0.2]], dtype=torch.float64)
    figure = plot_heads(importance(2, 2, scores=scores, stderr=scores))
    marks = trace(figure, "attattr gone")
    assert (list(marks.x), list(marks.y), list(marks.text)) == ([1], [0], ["×"])
    assert marks.hoverinfo == "skip"  # it would win over the cells beside it
    assert trace(figure, "attattr").customdata[0][1] == "<b>layer 0, head 1</b><br>no score: this head is gone"
    assert "1 head gone" in figure.layout.title.subtitle.text
    assert "×" in figure.layout.meta["hint"]
    assert "×" not in plot_heads(importance()).layout.meta["hint"]


def test_a_method_has_one_colour_in_every_figure() -> None:
    from captum_attattr.plots.canvas.attributions import attribution_colours, ranking_colours

    names = ["taylor", "attattr (reduce=sum)", "\u2068attention\u2069", "attattr (path=joint)", "mine", "attattr"]
    found = ranking_colours(names)
    assert found["attattr (reduce=sum)"] == attribution_colours("attattr")
    assert found["attattr (path=joint)"] == attribution_colours("attattr_joint")
    assert found["\u2068attention\u2069"] == attribution_colours("attention")
    assert found["taylor"] == ranking_colours(["mine", "taylor"])["taylor"]
    assert len({colours["light"] for colours in found.values()}) == len(names)
    assert len(ranking_colours(map(str, range(20)))) == 20
    layout = plot_correlation(importance(), importance(method="taylor")).layout
    assert layout.xaxis.title.font.color == attribution_colours("attattr")["light"]
    assert layout.yaxis.title.font.color == found["taylor"]["light"]


def test_a_correlation_shows_ranks_too() -> None:
    first, second = importance(), importance(method="taylor", seed=1)
    first.scores[0, :2] = 0.25  # equal scores share a rank
    first.scores[2, 3] = torch.nan
    figure = plot_correlation(first, second)
    scores, ranks = figure.layout.updatemenus[0].buttons
    marks = [trace for trace in figure.data if trace.showlegend]
    bars = len(figure.data) - len(marks)
    for layer, trace in enumerate(marks):
        np.testing.assert_array_equal(scores.args[0]["x"][bars + layer], trace.x)
        np.testing.assert_array_equal(scores.args[0]["y"][bars + layer], trace.y)
    known = ~first.scores.isnan()
    for axis, given in (("x", first), ("y", second)):
        found = np.concatenate(list(ranks.args[0][axis][bars:]))
        np.testing.assert_array_equal(found, rankdata(given.scores[known].numpy()))
    assert list(ranks.args[0]["x"][:bars]) == [None] * bars
    assert ranks.args[1]["xaxis.title.text"].endswith(", rank")
    at_first = plot_correlation(first, second, scale="rank")
    assert at_first.layout.updatemenus[0].active == 1
    assert at_first.layout.xaxis.title.text == ranks.args[1]["xaxis.title.text"]
    for i, line in enumerate(at_first.data):
        np.testing.assert_array_equal(line.x, ranks.args[0]["x"][i])


def lightness(colour: str) -> float:
    """CIE L* of a colour."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    y = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return float(116 * np.cbrt(y) - 16 if y > 0.008856 else 903.3 * y)


@pytest.mark.parametrize(("theme", "sign"), [("light", -1), ("dark", 1)])
def test_sequential_scales_can_be_read_in_black_and_white(theme: str, sign: int) -> None:
    colours = [c for _, c in plot_heads(importance()).layout.meta["themes"][theme]["coloraxis.colorscale"]]
    steps = np.diff([lightness(colour) for colour in colours]) * sign
    assert steps.min() > 10
    layers = plot_correlation(importance(12, 4), importance(12, 4, "taylor")).layout.meta["themes"][theme]["colorway"]
    assert (np.diff([lightness(colour) for colour in layers[1:]]) * sign).min() > 1


def test_both_signs_get_a_diverging_scale_about_zero_and_signs_as_text() -> None:
    given = importance(3, 4, "accuracy_difference")
    figure = plot_heads(given)
    grid = trace(figure, "accuracy_difference")
    largest = float(given.scores.abs().max())
    assert grid.coloraxis == "coloraxis2"
    assert (figure.layout.coloraxis2.cmin, figure.layout.coloraxis2.cmax) == (-largest, largest)
    assert (figure.layout.coloraxis2.showscale, figure.layout.coloraxis.showscale) == (True, False)
    assert all(
        text.startswith("−") == (score < 0)
        for row, scores in zip(grid.text, given.scores, strict=True)
        for text, score in zip(row, scores, strict=True)
    )
    crowded = importance(48, 64, "accuracy_difference")
    texts = trace(plot_heads(crowded), "accuracy_difference").text
    np.testing.assert_array_equal(np.array(texts) == "−", crowded.scores < 0)


def test_scores_of_one_sign_start_at_zero() -> None:
    given = importance()
    figure = plot_heads(given)
    assert trace(figure, "attattr").coloraxis == "coloraxis"
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, float(given.scores.max()))
    flat = plot_heads(importance(scores=torch.zeros(3, 4, dtype=torch.float64)))
    assert (flat.layout.coloraxis.cmin, flat.layout.coloraxis.cmax) == (0, 1)
    assert trace(flat, "attattr").text[0][0] == "0"


@pytest.mark.parametrize(
    ("factor", "text", "note"),
    [
        (1.0, "0.50", ""),
        (1e-5, "5.0", "numbers in units of 10<sup>−6</sup>"),
        (1e-1, "0.050", ""),
        (1e6, "5.0", "numbers in units of 10<sup>5</sup>"),
    ],
)
def test_numbers_in_the_cells_say_their_unit(factor: float, text: str, note: str) -> None:
    scores = torch.tensor([[0.5, 0.1] * 7], dtype=torch.float64) * factor
    figure = plot_heads(importance(1, 14, scores=scores, stderr=scores))
    value = trace(figure, "attattr").text[0][0]
    assert float(value) == float(text)
    assert note in figure.layout.title.subtitle.text
    assert ("units" in figure.layout.title.subtitle.text) == bool(note)


def test_method_menu_leads_to_what_one_importance_leads_to() -> None:
    gone = importance(method="taylor", scores=torch.tensor([[0.1, torch.nan]] * 3), stderr=torch.ones(3, 2))
    given = {"first": importance(3, 2), "signed": importance(3, 2, "loss_difference"), "gone": gone}
    figure = plot_heads(given)
    _, menu = figure.layout.updatemenus
    assert [plain(button.label) for button in menu.buttons] == list(given)
    for name, button in zip(given, menu.buttons, strict=True):
        visible, change = button.args
        assert len(visible["visible"]) == len(figure.data)
        direct = plot_heads({name: given[name]})
        shown = [each for each, on in zip(figure.data, visible["visible"], strict=True) if on]
        assert go.Figure([each.update(visible=True) for each in shown]).to_json() == go.Figure(direct.data).to_json()
        for path, value in change.items():
            assert json.dumps(direct.layout[path]) == json.dumps(value), path
    assert [menu.name for menu in plot_heads(importance()).layout.updatemenus] == ["values"]


def test_names_of_a_list_are_the_methods_with_their_options() -> None:
    options = METHODS["attattr"].options | {"reduce": "sum"}
    figure = plot_heads([importance(), importance(options=options)])
    assert [plain(b.label) for b in figure.layout.updatemenus[1].buttons] == ["attattr", "attattr (reduce=sum)"]


def test_ranks_tell_apart_what_one_layer_flattens() -> None:
    given = importance(method="loss_difference")
    given.scores[1] *= 1000
    given.scores[0, :2] = 0.25  # equal scores share a rank
    given.scores[2, 3] = torch.nan
    other = importance(method="taylor")
    usual, figure = plot_heads([given, other]), plot_heads([given, other], scale="rank")
    for each, name in ((given, "loss_difference"), (other, "taylor")):
        known = ~each.scores.isnan().numpy()
        ranks = rankdata(each.scores.numpy()[known])  # the least important has rank 1
        drawn = trace(figure, name)
        np.testing.assert_allclose(drawn.z[known], (ranks - 1) / (len(ranks) - 1), atol=1e-12)
        assert np.isnan(drawn.z[~known]).all()
        assert [text for row in drawn.text for text in row if text] == [f"{len(ranks) + 1 - rank:g}" for rank in ranks]
        assert drawn.coloraxis == "coloraxis3"
        np.testing.assert_array_equal(trace(usual, name).z, each.scores.numpy())
        assert trace(figure, f"{name} layers").x.tolist() == trace(usual, f"{name} layers").x.tolist()
    for one, active in ((usual, 0), (figure, 1)):
        switch = one.layout.updatemenus[0]
        assert (switch.active, [button.label for button in switch.buttons]) == (active, ["scores", "ranks"])
        for button, like in zip(switch.buttons, (usual, figure), strict=True):
            changes, traces = button.args
            for place, index in enumerate(traces):
                drawn = like.data[index]
                assert changes["coloraxis"][place] == drawn.coloraxis
                assert [list(row) for row in changes["text"][place]] == [list(row) for row in drawn.text]
                np.testing.assert_array_equal(np.array(changes["z"][place], float), drawn.z)


@pytest.mark.parametrize("draw", [plot_heads, lambda given, **scale: plot_correlation(given, given, **scale)])
def test_a_scale_that_there_is_not_is_refused(draw: Any) -> None:
    with pytest.raises(ValueError, match="scale='log' is unknown; use one of linear, rank"):
        draw(importance(), scale="log")


# -------------------------------------------------------------------------------------- the correlation


def test_scatter_holds_both_scores_of_every_head() -> None:
    first, second = importance(), importance(method="taylor", seed=1)
    figure = plot_correlation(first, second)
    for layer in range(3):
        marks = trace(figure, str(layer))
        np.testing.assert_array_equal(marks.x, first.scores[layer])
        np.testing.assert_array_equal(marks.y, second.scores[layer])
        for head, hover in enumerate(marks.customdata):
            assert hover.startswith(f"<b>layer {layer}, head {head}</b><br>")
            assert f"attattr\u2069: {first.scores[layer, head]:.3g} ± {first.stderr[layer, head]:.3g}" in hover
    assert len({each.marker.symbol for each in figure.data[1:]}) == 3
    errors = trace(figure, "± error")
    np.testing.assert_array_equal(errors.error_x.array, first.stderr.flatten())
    np.testing.assert_array_equal(errors.error_y.array, second.stderr.flatten())
    found = importance_correlation(first, second)
    expected = f"Pearson {found.pearson:.3f}, Spearman {found.spearman:.3f} over 12 heads".replace("-", "−")
    assert figure.layout.title.subtitle.text == expected


def test_scatter_leaves_out_heads_without_a_score() -> None:
    first, second = importance(), importance(method="random", stderr=torch.full((3, 4), torch.nan))
    first.scores[1, 2] = torch.nan
    second.scores[2] = torch.nan
    figure = plot_correlation(first, second, names=("SST-2", "SICK"))
    assert [each.name for each in figure.data] == ["± error", "0", "1"]
    assert figure.data[0].error_y.array is None
    assert [hover[:20] for hover in trace(figure, "1").customdata] == [
        f"<b>layer 1, head {h}</b>"[:20] for h in (0, 1, 3)
    ]
    assert figure.layout.title.subtitle.text.endswith("over 7 heads; 5 heads without a score left out")
    assert [plain(axis.title.text) for axis in (figure.layout.xaxis, figure.layout.yaxis)] == ["SST-2", "SICK"]
    for theme in figure.layout.meta["themes"].values():
        assert len(theme["colorway"]) == len(figure.data)


def test_constant_scores_have_no_correlation() -> None:
    figure = plot_correlation(importance(), importance(scores=torch.ones(3, 4)))
    assert figure.layout.title.subtitle.text == "No correlation: the scores of one are all equal, over 12 heads"


# ------------------------------------------------------------------------------------ the pruning curve


def test_pruning_curves_hold_the_metric_over_the_share_of_heads() -> None:
    given = comparison()
    figure = plot_pruning_curve(given)
    for each in given.curves:
        metric, *latency = (t for t in figure.data if t.legendgroup == f"\u2068{each.name}\u2069 {each.order}")
        assert list(metric.x) == [0, 25, 50, 75, 100]
        assert list(metric.y) == each.metric
        assert metric.line.dash == ("solid" if each.order == "least" else "dash")
        assert metric.marker.symbol.endswith("-open") == (each.order == "most")
        assert [list(t.y) for t in latency] == ([each.latency] if each.latency else [])
        assert all((t.xaxis, t.yaxis, t.showlegend) == ("x2", "y2", False) for t in latency)
    symbols = {plain(t.name): t.marker.symbol.removesuffix("-open") for t in figure.data if t.marker.symbol}
    assert symbols["attattr"] != symbols["taylor"]
    (parameters,) = (t for t in figure.data if t.name == "parameters")
    np.testing.assert_allclose(parameters.y, [1, 0.9, 0.8, 0.7, 0.6])


def test_random_band_is_from_the_least_to_the_largest_of_the_seeds() -> None:
    given = comparison()
    values = np.array([each.metric for each in given.random])
    figure = plot_pruning_curve(given)
    band, mean = figure.data[:2]
    np.testing.assert_array_equal(band.y, [*values.max(0), *values.min(0)[::-1]])
    np.testing.assert_array_equal(band.x, [0, 25, 50, 75, 100, 100, 75, 50, 25, 0])
    np.testing.assert_allclose(mean.y, values.mean(0))
    assert mean.name == "random, 3 seeds: mean and range"
    alone = plot_pruning_curve(PruningComparison([], given.random[:1]))
    assert [each.name for each in alone.data] == ["random, 1 seed"]
    unknown = replace(given.random[0], metric=[0.9, 0.8, 0.7, 0.6, float("nan")])
    assert len(plot_pruning_curve(PruningComparison([], [unknown, *given.random[1:]])).data[1].x) == 4


def test_pruning_hover_tells_heads_metric_loss_parameters_and_latency() -> None:
    given = curve(cut=True, metric=[0.9, 0.8, 0.7, 0.6, 0.5], loss=[0.1, 0.2, 0.3, 0.4, 0.5], parameters=[10_000] * 5)
    assert plain(plot_pruning_curve(given).data[0].customdata[1]) == (
        "<b>attattr</b>, least important first<br>18 of 72 heads off (25 %)<br>accuracy 0.8 (with all heads 0.9)<br>"
        "loss 0.2<br>10,000 parameters (100.0 %)<br>latency 0.9 of the whole model"
    )


@pytest.mark.parametrize(
    ("shared", "text"),
    [
        ([0, 0], "Heads ranked on 200 rows, evaluated on 872 rows, none of which the ranking had seen"),
        ([3, 3], "Heads ranked on 200 rows, evaluated on 872 rows, 3 of which the ranking had seen"),
        ([0, 200], "Heads ranked on 200 rows, evaluated on 872 rows, 0 to 200 of which the ranking had seen"),
    ],
)
def test_subtitle_tells_ranking_rows_from_evaluation_rows(shared: list[int], text: str) -> None:
    curves = [curve(name, shared_rows=rows) for name, rows in zip("ab", shared, strict=True)]
    assert plot_pruning_curve(curves).layout.title.subtitle.text == text
    random = plot_pruning_curve(PruningComparison([], [curve(ranking_rows=0)]))
    assert random.layout.title.subtitle.text == "Random rankings, evaluated on 872 rows"


def test_order_buttons_hide_the_other_order_only() -> None:
    figure = plot_pruning_curve(comparison())
    (menu,) = figure.layout.updatemenus
    for button, hidden in zip(menu.buttons, ((), ("most",), ("least",)), strict=True):
        for each, visible in zip(figure.data, button.args[0]["visible"], strict=True):
            # "legendonly", for a trace that is not visible at all would leave its colour to the next one.
            assert visible == ("legendonly" if (each.legendgroup or "").split()[-1] in hidden else True)
    assert plot_pruning_curve([curve(), curve("taylor")]).layout.updatemenus == ()


def test_nothing_measured_has_no_second_panel() -> None:
    assert "yaxis2" not in plot_pruning_curve([curve(), curve("taylor", "most")]).to_dict()["layout"]
    # What the further processes of a parallel run have.
    zeros = curve(parameters=[0] * 5, latency=[0.0] * 5)
    assert "yaxis2" not in plot_pruning_curve(zeros).to_dict()["layout"]


def test_unequal_parameters_have_a_line_for_each_curve() -> None:
    given = [curve(cut=True), curve("taylor", cut=True, parameters=[1000, 990, 980, 970, 500])]
    lines = [each for each in plot_pruning_curve(given).data if each.name == "parameters"]
    assert [each.y[1] for each in lines] == [0.9, 0.99]


# ------------------------------------------------------------------------------------ the effectiveness


def test_effectiveness_has_four_curves_over_k() -> None:
    given = effectiveness()
    figure = plot_effectiveness(given)
    for each in figure.data:
        score, mode = each.meta.split()
        assert list(each.x) == given.heads
        assert list(each.y) == given.metric[score][mode]
        assert each.xaxis == ("x" if mode == "prune" else "x2")
        assert f"loss {given.loss[score][mode][2]:.3g}" in each.customdata[2]
        assert f"{score}</b><br>the 2 strongest of 4 heads per layer" in each.customdata[2]
    assert len({(each.line.dash, each.marker.symbol) for each in figure.data}) == 2
    assert figure.layout.yaxis2.matches == "y"
    assert plain(figure.layout.title.subtitle.text).startswith("50 rows; ")


# ------------------------------------------------------------------------------------------ all figures


@pytest.mark.parametrize("name", FIGURES)
def test_figures_have_colours_for_light_and_dark_pages(name: str) -> None:
    figure = FIGURES[name]()
    themes = figure.layout.meta["themes"]
    assert themes["light"].keys() == themes["dark"].keys()
    for path in themes["dark"]:
        assert figure.layout[path] is not None, path
    assert (themes["light"]["paper_bgcolor"], themes["dark"]["paper_bgcolor"]) == ("#ffffff", "#12161b")
    if name != "heads":
        assert all(len(theme["colorway"]) == len(figure.data) for theme in themes.values())


@pytest.mark.parametrize("name", FIGURES)
def test_same_figure_same_bytes(name: str, tmp_path: Path) -> None:
    pages = [write_html(FIGURES[name](), tmp_path / page).read_bytes() for page in ("one.html", "two.html")]
    assert pages[0] == pages[1]
    assert f'"filename": "{FIGURES[name]().layout.meta["filename"]}"'.encode() in pages[0]


@pytest.mark.parametrize(
    "figure",
    [
        lambda: plot_heads({HOSTILE: importance(labels=[HOSTILE]), "other": importance()}),
        lambda: plot_correlation(importance(), importance(seed=1), names=(HOSTILE, HOSTILE + "2")),
        lambda: plot_pruning_curve(PruningComparison([curve(HOSTILE, metric_name="<lambda>", cut=True)], [])),
        lambda: plot_effectiveness(effectiveness(metric_name="<lambda>", options={"target": HOSTILE})),
    ],
)
def test_hostile_names_are_literal_text(figure: Any) -> None:
    allowed = re.compile(r"<br>|</?b>|<extra></extra>|</?sup>|%\{(customdata|text|[xy]:\.[03]f)\}")
    texts = every_text(json.loads(figure().to_json()))
    assert any("&lt;" in text for text in texts)
    for text in texts:
        rest = allowed.sub("", text)
        assert "<" not in rest
        assert "$" not in rest
        assert "%{" not in rest


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: plot_heads(3), TypeError, "importance must be a HeadImportance, or a dict or list of them, not int"),
        (lambda: plot_heads([importance(), "attattr"]), TypeError, "list of them, not str"),
        (lambda: plot_heads("attattr"), TypeError, "list of them, not str"),
        (lambda: plot_heads([]), ValueError, "this list is empty"),
        (lambda: plot_heads({}), ValueError, "this dict is empty"),
        (lambda: plot_heads({1: importance()}), TypeError, "must be a string, not int: 1"),
        (lambda: plot_heads([importance(), importance(2, 4, "taylor")]), ValueError, r"\(3, 4\), .*taylor.* \(2, 4\)"),
        (lambda: plot_heads([importance(), importance(seed=1)]), ValueError, "two importances are called .*attattr"),
        (lambda: plot_correlation(importance(), 3), TypeError, "both arguments must be a HeadImportance, not int"),
        (lambda: plot_correlation(importance(), importance(2, 4)), ValueError, "importances of different models"),
        (
            lambda: plot_correlation(importance(1, 1), importance(1, 1)),
            ValueError,
            "heads with scores in both importances: 1",
        ),
        (lambda: plot_correlation(importance(), importance(), names="ab"), TypeError, "two strings, not 'ab'"),
        (lambda: plot_correlation(importance(), importance(), names=("a", 2)), TypeError, "not int: 2"),
        (lambda: plot_pruning_curve(3), TypeError, "curves must be a PruningCurve.* not int: 3"),
        (lambda: plot_pruning_curve([]), ValueError, "curves is empty: this list has no PruningCurve"),
        (lambda: plot_pruning_curve(PruningComparison([], [])), ValueError, "this PruningComparison has no"),
        (lambda: plot_pruning_curve([curve(), 3]), TypeError, "not int: 3"),
        (lambda: plot_pruning_curve([curve(), curve()]), ValueError, "two curves are called .*attattr.*, least"),
        (lambda: plot_pruning_curve([curve(), curve("b", metric_name="f1")]), ValueError, "not 'accuracy' and 'f1'"),
        (lambda: plot_effectiveness(3), TypeError, "effectiveness must be an Effectiveness, not int"),
    ],
)
def test_wrong_input(draw: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        draw()


def test_random_rankings_of_other_steps_are_put_together() -> None:
    """As groups of several sizes give them: between its steps a curve is a straight line."""
    one, other = curve(heads=[0, 18, 36, 54, 72]), curve(heads=[0, 9, 36, 54, 72], metric=[1.0, 0.5, 0.4, 0.3, 0.2])
    figure = plot_pruning_curve(PruningComparison([], [one, other]))
    band, mean = figure.data
    assert mean.x.tolist() == [0, 12.5, 25, 50, 75, 100]
    both = [np.interp(mean.x, [100 * n / 72 for n in each.heads], each.metric) for each in (one, other)]
    np.testing.assert_allclose(mean.y, np.mean(both, 0))
    np.testing.assert_allclose(band.y[:6], np.max(both, 0))


# ------------------------------------------------------------------------------------------ the browser

STEPS = """
  seen.paper = plot._fullLayout.paper_bgcolor;
  seen.marks = document.querySelectorAll(".heatmaplayer image, .scatterlayer .trace").length;
  seen.colours = plot._fullData.map((each) => each.line?.color ?? null);
  const drag = document.querySelector('.nsewdrag[data-subplot="xy"]');
  const area = drag.getBoundingClientRect();
  const { xaxis, yaxis } = plot._fullLayout;
  mouse("mousemove", drag, area.left + xaxis.d2p(AT_X), area.top + yaxis.d2p(AT_Y));
  await wait();
  seen.hover = texts(".hoverlayer text").join(" | ");
  if (plot.layout.updatemenus) {
    key(plot, "ArrowDown");
    await wait();
    seen.chosen = document.getElementById("chosen").textContent;
    seen.active = plot.layout.updatemenus.at(-1).active;
    seen.title = plot._fullLayout.title.text;
    seen.visible = plot._fullData.map((each) => each.visible);
    seen.after = plot._fullData.map((each) => each.line?.color ?? null);
    key(plot, "ArrowUp");
    await wait();
    seen.again = plot.layout.updatemenus.at(-1).active;
  }
"""


def look(figure: go.Figure, at: tuple[float, float], dark: bool, folder: Path) -> dict[str, Any]:
    """What a browser shows of the figure's page, with the mouse at (x, y) of the first plot."""
    steps = STEPS.replace("AT_X", str(at[0])).replace("AT_Y", str(at[1]))
    seen = browser.look(write_html(figure, folder / "page.html"), steps, folder, dark)
    assert seen["paper"] == ("#12161b" if dark else "#ffffff")
    assert seen["marks"] >= 1
    return seen


@pytest.mark.parametrize("dark", [False, True])
def test_head_map_in_a_browser(tmp_path: Path, dark: bool) -> None:
    given = importance()
    given.scores[2, 3] = torch.nan
    figure = plot_heads({HOSTILE: given, "signed": importance(method="loss_difference")})
    seen = look(figure, (3, 2) if dark else (2, 1), dark, tmp_path)
    for part in ("layer 2, head 3", "this head is gone") if dark else ("layer 1, head 2", " ± ", "rank "):
        assert part in seen["hover"]
    assert (seen["active"], seen["again"], plain(seen["chosen"])) == (1, 0, "signed")
    assert plain(seen["title"]) == "Head importance: <b>signed</b>"
    assert seen["visible"] == [False, False, False, True, True]


@pytest.mark.parametrize("dark", [False, True])
def test_pruning_curves_in_a_browser(tmp_path: Path, dark: bool) -> None:
    given = comparison()
    seen = look(plot_pruning_curve(given), (25, given.curves[0].metric[1]), dark, tmp_path)
    assert "18 of 72 heads off (25 %)" in seen["hover"]
    assert (seen["active"], seen["again"], seen["chosen"]) == (1, 0, "least important first")
    assert seen["visible"] == [True] * 4 + ["legendonly"] * 2 + [True] * 3
    assert seen["colours"] == seen["after"] == list(plot_colours(dark))


def plot_colours(dark: bool) -> tuple[str, ...]:
    """Of the band, its mean, both curves, both of the other order, both latencies, and the parameters."""
    orange, purple = ("#ff8a57", "#e29be0") if dark else ("#d1480c", "#9b4f96")  # attattr, taylor
    band, grey = ("#56616c", "#98a4b0") if dark else ("#c3cad1", "#5d6a77")
    return (band, grey, orange, purple, orange, purple, orange, purple, grey)


def test_scatter_in_a_browser(tmp_path: Path) -> None:
    first, second = importance(), importance(method="taylor", seed=1)
    at = (float(first.scores[1, 2]), float(second.scores[1, 2]))
    assert "layer 1, head 2" in look(plot_correlation(first, second), at, True, tmp_path)["hover"]


def test_effectiveness_in_a_browser(tmp_path: Path) -> None:
    given = effectiveness()
    at = (3, given.metric["attention"]["prune"][3])
    hover = look(plot_effectiveness(given), at, True, tmp_path)["hover"]
    assert "the 3 strongest of 4 heads per layer are off" in hover
