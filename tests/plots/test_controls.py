"""With keys alone: the menus of a page are native controls that Tab reaches, with a name and a focus that is seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
import results
from browser import Clocked
from browser import clocked as clocked
from pictured import comparison, curve, several
from results import importance

from captum_attattr import (
    attribution_tree,
    plot_attack,
    plot_attention,
    plot_correlation,
    plot_heads,
    plot_pruning_curve,
    plot_tree,
    write_html,
)

EXPLANATION = results.explanation(3, 4, ["[CLS]", "a", "fine", "film", "[SEP]"])
FIGURES: dict[str, tuple[Callable[[], go.Figure], dict[str, tuple[str, str]]]] = {
    # The names of the controls in the order of Tab, what each has at first, and after an arrow key.
    "maps": (
        lambda: plot_attention(EXPLANATION, layer=1, head=1),
        {
            "view": ("attribution", "attention"),
            "layer": ("layer 1", "layer 2"),
            "head": ("head 1", "head 2"),
            "colours": ("colours fit this head", "colours to 100 % of max"),
        },
    ),
    "tree": (
        lambda: plot_tree(attribution_tree(EXPLANATION, 0.05), EXPLANATION),
        {"width": ("width: score", "width: share of its layer")},
    ),
    "heads": (
        lambda: plot_heads({"<b>one</b>": importance(), "two": importance(seed=1)}),
        {"values": ("scores", "ranks"), "method": ("<b>one</b>", "two")},
    ),
    "curves": (lambda: plot_pruning_curve(comparison()), {"order": ("both orders", "least important first")}),
    "correlation": (lambda: plot_correlation(importance(), importance(seed=1)), {"values": ("scores", "ranks")}),
    "attack": (lambda: plot_attack(several()), {"model": ("first, attacked", "second, transfer")}),
}
# Of what has the focus: name, choice, whether the focus is seen, and whether the control is where it is seen.
FOCUSED = """(() => {
  const at = document.activeElement;
  if (!at.closest(".controls")) return null;
  const drawn = at.type === "radio" ? at.nextElementSibling : at;
  const { left, top, right, bottom } = drawn.getBoundingClientRect();
  const clean = (text) => text.replaceAll(/[\\u2068\\u2069]/g, "");
  const [name, choice] = at.type === "radio"
    ? [at.closest("fieldset").querySelector("legend").textContent, drawn.textContent]
    : [at.ariaLabel, at.selectedOptions[0].text];
  const plot = at.closest(".figure").querySelector(".plot").getBoundingClientRect();
  const texts = [...document.querySelectorAll(".plot text")].filter((each) => {
    const box = each.getBoundingClientRect();
    return box.width && box.left < right && box.right > left && box.top < bottom && box.bottom > top;
  });
  const inside = left >= plot.left && right <= plot.right && top >= plot.top && bottom <= plot.bottom;
  const under = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
  return { name, choice: clean(choice), outline: getComputedStyle(drawn).outlineStyle, inside,
           seen: under === drawn || drawn.contains(under), over: texts.map((each) => each.textContent) };
})()"""
STATE = """(() => {
  const { _fullData: data, _fullLayout: layout } = document.querySelector(".plot");
  const looks = data.map(({ visible, opacity, x, line, coloraxis }) =>
    visible === true && [opacity, [...x ?? []], line?.width, coloraxis]);
  return JSON.stringify([looks, layout.title.text,
    layout.coloraxis?.cmax, layout.coloraxis?.colorbar?.title?.text, layout.xaxis2?.range, layout.yaxis2?.range,
    layout.xaxis.title.text]);
})()"""


def tab(browser: Clocked) -> Any:
    """Press Tab, and return what has the focus then, if that is a control."""
    browser.press("Tab", 9)
    return browser.run(FOCUSED)


@pytest.mark.parametrize("name", FIGURES)
def test_tab_and_arrow_keys_do_what_menus_do(name: str, clocked: Clocked, tmp_path: Path) -> None:
    make, controls = FIGURES[name]
    clocked.open(write_html(make(), tmp_path / "page.html"))
    assert clocked.run("document.querySelectorAll('.updatemenu-container > *').length") == 0
    for control, (first, second) in controls.items():
        seen = tab(clocked)
        assert (seen["name"], seen["choice"]) == (control, first)
        assert (seen["outline"], seen["inside"], seen["seen"], seen["over"]) == ("solid", True, True, [])
        before = clocked.run(STATE)
        clocked.press("ArrowDown", 40)
        seen = clocked.run(FOCUSED)
        assert (seen["name"], seen["choice"]) == (control, second)  # the focus stays
        clocked.until(STATE, lambda after, before=before: after != before)
        clocked.press("ArrowUp", 38)
        clocked.until(STATE, lambda after, before=before: after == before)
    assert tab(clocked) is None


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "tree"])
def test_the_controls_tell_what_the_arrow_keys_of_the_picture_chose(
    name: str, clocked: Clocked, tmp_path: Path
) -> None:
    make, controls = FIGURES[name]
    clocked.open(write_html(make(), tmp_path / "page.html"))
    clocked.run("document.querySelector('.plot').focus()")
    clocked.press("ArrowDown", 40)
    chosen = "layer" if name == "maps" else list(controls)[-1]
    shown = "[...document.querySelectorAll('.controls option:checked, .controls input:checked + span')]"
    wanted = [choices[control == chosen] for control, choices in controls.items()]
    clean = ".map((each) => each.textContent.replaceAll(/[\\u2068\\u2069]/g, ''))"
    clocked.until(shown + clean, lambda seen: seen == wanted)


def test_a_figure_of_others_keeps_its_menus(clocked: Clocked, tmp_path: Path) -> None:
    """Whose menus may do anything: no more is known about them."""
    menu = {"buttons": [{"label": "away", "method": "relayout", "args": [{"title.text": "gone"}]}]}
    clocked.open(write_html(go.Figure(layout={"updatemenus": [menu]}), tmp_path / "page.html"))
    assert clocked.run("document.querySelectorAll('.updatemenu-header').length") == 1
    assert clocked.run("document.querySelectorAll('.controls').length") == 0


ENTRY = """(() => {
  const at = document.activeElement;
  if (!at.matches(".legend .traces")) return null;
  return [at.getAttribute("aria-label").replaceAll(/[\\u2068\\u2069]/g, ""), at.getAttribute("role"),
    at.getAttribute("aria-checked"), getComputedStyle(at).outlineStyle];
})()"""
HIDDEN = """(() => {
  const plot = [...document.querySelectorAll(".plot")].find((each) => each.getClientRects().length);
  return plot._fullData.filter(({ visible }) => visible === "legendonly").map(({ name }) => name);
})()"""


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize(
    "make",
    [
        lambda: plot_pruning_curve([curve("attattr"), curve("<b>taylor</b>")]),
        lambda: plot_correlation(importance(3, 4), importance(3, 4, seed=1)),
    ],
)
def test_the_entries_of_a_legend_are_reached_by_keys(make: Any, width: int, clocked: Clocked, tmp_path: Path) -> None:
    clocked.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    clocked.open(write_html(make(), tmp_path / "page.html"))
    names: list[str] = []
    for _ in range(40):
        clocked.press("Tab", 9)
        entry = clocked.run(ENTRY)
        if entry is None:
            if names:
                break
            continue
        name, role, checked, outline = entry
        assert (role, checked, outline) == ("checkbox", "true", "solid")
        names.append(name)
        for key, number, state in ((" ", 32, "false"), ("Enter", 13, "true")):
            clocked.press(key, number)
            clocked.until(
                ENTRY, lambda seen, name=name, state=state: seen and seen[::2] == [name, state]
            )  # the focus stays
            assert bool(clocked.run(HIDDEN)) == (state == "false")
    assert len(names) == len(set(names)) >= 2


def test_a_legend_that_only_explains_is_not_reached(clocked: Clocked, tmp_path: Path) -> None:
    clocked.open(write_html(FIGURES["tree"][0](), tmp_path / "page.html"))
    assert clocked.run("document.querySelectorAll('.legend .traces').length") >= 2
    assert clocked.run("document.querySelectorAll('.legend [tabindex]').length") == 0
