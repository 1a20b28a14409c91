"""The figure of an attack: its numbers are the report's, every verdict is seen, bad input makes no picture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import browser
import numpy as np
import plotly.graph_objects as go
import pytest
from hostile import HOSTILE, every_text
from pictured import CLASSES, several, trigger, triggers, victim

from captum_attattr import plot_attack
from captum_attattr.plots.canvas.labels import CHARACTER_WIDTH, fitted, text_width, token_label
from captum_attattr.plots.canvas.pages import write_html
from captum_attattr.triggers.report import AttackReport, Choice, Outcome, VictimResult

MINUS = "−"


def verdicts() -> AttackReport:
    """One class of 10 rows, all right when clean, and a trigger for each verdict."""

    def wrong(count: int) -> list[int]:
        return [1] * count + [0] * (10 - count)

    outcomes = [Outcome("clean", [], None, wrong(0))]
    for name, count, draws in (
        ("stronger", 5, [1, 4, 2]),
        ("like", 4, [1, 4, 2]),
        ("weaker", 1, [2, 4, 3]),
        ("nothing", 0, [2, 3, 4]),
        ("alone", 3, []),
    ):
        one = trigger(name)
        outcomes.append(Outcome("trigger", [name], one, wrong(count)))
        outcomes += [Outcome("control", ["random"], one, wrong(draw)) for draw in draws]
    return AttackReport([VictimResult("model", [0], ["positive"], [0] * 10, outcomes)])


def plain(text: str) -> str:
    return re.sub("[\u2068\u2069]", "", text)


def trace(figure: go.Figure, name: str) -> Any:
    (found,) = (each for each in figure.data if plain(each.name) == name)
    return found


# ---------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("group", range(3))
def test_marks_are_the_measures_of_the_report(number: int, group: int) -> None:
    report = several()
    figure, one = plot_attack(report), report.victims[number]
    of = ["all", *one.class_names][group]
    pairs = list(one.triggers())
    clean = one.measure(one.outcomes[0], of)
    marks = trace(figure, f"{one.name} {of} clean")
    assert (list(marks.x), list(marks.y)) == ([clean.accuracy], [0])
    assert list(trace(figure, f"{one.name} {of} line").x) == [clean.accuracy] * 2

    found = [one.measure(outcome, of) for outcome, _ in pairs]
    marks = trace(figure, f"{one.name} {of} triggers")
    assert list(marks.x) == [measure.accuracy for measure in found]
    np.testing.assert_allclose(np.add(marks.x, marks.error_x.array), [measure.high for measure in found])
    np.testing.assert_allclose(np.subtract(marks.x, marks.error_x.arrayminus), [measure.low for measure in found])

    controls = [[one.measure(control, of).accuracy for control in some] for _, some in pairs]
    draws = trace(figure, f"{one.name} {of} draws")
    assert list(draws.x) == [accuracy for some in controls for accuracy in some]
    assert list(draws.y) == [row for row in trace(figure, f"{one.name} {of} means").y for _ in range(4)]
    np.testing.assert_allclose(trace(figure, f"{one.name} {of} means").x, [np.mean(some) for some in controls])
    band = trace(figure, f"{one.name} {of} band")
    assert list(band.x) == [end for some in controls for end in (min(some), max(some), None)]
    texts = trace(figure, f"{one.name} {of} numbers")
    by_row = dict(zip(texts.y, texts.text, strict=True))
    assert [by_row[row] for row in marks.y] == [f"{measure.accuracy:.3f}" for measure in found]
    assert [by_row[row] for row in trace(figure, f"{one.name} {of} means").y] == [
        f"{np.mean(some):.3f}" for some in controls
    ]
    assert by_row[0] == f"{clean.accuracy:.3f}"


def test_rows_are_clean_and_each_trigger_above_its_random_words() -> None:
    axis = plot_attack(AttackReport([victim()])).layout.yaxis
    names = [plain(text) for text in axis.ticktext]
    assert names == ["clean", *(n for one in triggers(3) for n in (f"<b>{one.name}</b>", "random words, 4 draws"))]
    assert list(axis.tickvals) == sorted(axis.tickvals)
    assert axis.range[0] > axis.range[1]  # the first row on top


def test_hover_tells_all_of_a_trigger() -> None:
    given = [trigger("so", "dull", sources=3), trigger("not", source=-1, sources=2, layer=-1, head=-1, target=9)]
    one = victim("model", ["negative", "positive"], given, rows=200)
    choice = Choice(300, 5, "all", 0.95, [0.9, 0.7, 0.9, 0.6, 0.9], [3, 1])
    hovers = [
        plain(text) for text in trace(plot_attack(AttackReport([one], choice)), "model positive triggers").customdata
    ]
    for place, (hover, (outcome, controls)) in enumerate(zip(hovers, one.triggers(), strict=True)):
        measure = one.measure(outcome, "positive")
        drops = [one.measure(control, "positive").drop for control in controls]
        flipped = sum(one.gold[row] == 1 for row in one.flipped(outcome))
        origin = [
            [
                "found in 3 examples, the strongest number 12",
                "layer 3, head 7, score 0.432",
                "target 0, negative of model",
            ],
            ["composed of triggers of 2 examples", "layer and head not known, score 0.432"],
        ][place]
        tried = ["accuracy 0.600", "accuracy 0.700"][place]
        assert hover.replace(MINUS, "-").split("<br>") == [
            f"<b>{given[place].name}</b>",
            "gold class positive",
            f"accuracy {measure.accuracy:.3f} [{measure.low:.3f}, {measure.high:.3f}], 100 rows",
            f"drop {measure.drop:.3f} ± {measure.drop_error:.3f}",
            f"{100 * measure.flip_rate:.1f} % flipped: {flipped} row{'s' * (flipped != 1)} predicted differently",
            f"<b>{one.verdict(outcome, controls, 'positive')}</b>, "
            f"whose 4 draws cost {min(drops):.3f} to {max(drops):.3f}",
            *origin,
            f"number {place + 1} of 5 triggers tried on other rows: {tried}, clean 0.950",
        ]


def test_hovers_of_random_words_tell_each_draw_and_their_mean() -> None:
    one = victim()
    figure = plot_attack(AttackReport([one]))
    outcome, controls = next(one.triggers())
    measures = [one.measure(control) for control in controls]
    draw = plain(trace(figure, "model all draws").customdata[1]).split("<br>")
    assert draw[0] == f"<b>{' '.join(controls[1].tokens)}</b>"
    assert draw[1] == "random words, all rows"
    assert draw[2].startswith(f"accuracy {measures[1].accuracy:.3f} [{measures[1].low:.3f}, ")
    mean = plain(trace(figure, "model all means").customdata[0]).split("<br>")
    assert mean[:3] == ["<b>random words</b>, 4 draws, in the places of", " ".join(outcome.tokens), "all rows"]
    for line, key in zip(mean[3:], ("accuracy", "drop", "flip_rate"), strict=True):
        values = [getattr(measure, key) for measure in measures]
        text = f"{np.mean(values):.3f} on average, from {min(values):.3f} to {max(values):.3f}"
        assert line.replace(MINUS, "-") == f"{key.replace('_', ' ')} {text}"


def test_one_row_has_no_standard_error() -> None:
    hover = trace(
        plot_attack(AttackReport([victim(classes=["positive"], rows=1)])), "model positive triggers"
    ).customdata[0]
    assert "<br>drop 0.000, no standard error<br>" in hover
    assert "nan" not in hover


# --------------------------------------------------------------------------------------------- the verdicts


def test_each_verdict_has_a_mark_of_its_own_and_a_place_in_the_legend() -> None:
    figure = plot_attack(verdicts())
    marks = trace(figure, "model positive triggers")
    assert len(set(marks.marker.symbol)) == 5
    legend = {each.name: each.marker.symbol for each in figure.data if each.showlegend is not False}
    expected = ["stronger than random words", "like random words", "weaker than random words", "changes nothing"]
    for text, symbol, hover in zip([*expected, "no control"], marks.marker.symbol, marks.customdata, strict=True):
        assert legend.pop(f"trigger, {text}") == symbol
        assert f"<br><b>{text}</b>" in hover
    assert list(legend) == ["clean", "random words, mean", "lowest to highest draw"]
    # Only what costs more than all random words is full.
    assert [symbol.endswith("-open") for symbol in marks.marker.symbol] == [False, True, True, True, True]
    assert list(marks.marker.line.width) == [0, 1.5, 1.5, 1.5, 1.5]


def test_verdict_is_that_of_the_panel() -> None:
    one = victim(given=triggers(8), rows=300)
    figure = plot_attack(AttackReport([one]))
    symbols = {name.removeprefix("trigger, "): each.marker.symbol for each in figure.data if (name := each.name)}
    by_group = []
    for of in ("all", *CLASSES):
        found = [one.verdict(outcome, controls, of) for outcome, controls in one.triggers()]
        assert list(trace(figure, f"model {of} triggers").marker.symbol) == [symbols[each] for each in found]
        by_group.append(found)
    assert len(set(map(tuple, by_group))) > 1


def test_trigger_without_control_is_said_where_others_have_one() -> None:
    figure = plot_attack(verdicts())
    assert [plain(text) for text in figure.layout.yaxis.ticktext][-2:] == ["<b>alone</b>", "no control"]
    assert len(trace(figure, "model all means").x) == 4
    assert len(trace(figure, "model all numbers").x) == 1 + 5 + 4


def test_without_any_control_there_are_no_rows_and_no_words_for_them() -> None:
    figure = plot_attack(AttackReport([victim(draws=0)]))
    assert len(figure.layout.yaxis.ticktext) == 4
    assert {plain(each.name).split()[-1] for each in figure.data if each.showlegend is False} == {
        "line",
        "clean",
        "triggers",
        "numbers",
    }
    assert "random words" not in str(figure.layout.meta["hint"])
    assert [each.name for each in figure.data[:2]] == ["clean", "trigger, no control"]


# --------------------------------------------------------------------------------------- titles and the menu


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        (None, "3 triggers, all that were given; measured on 90 rows"),
        (
            Choice(300, 4, "all", 0.9, [0.5] * 4, [0, 1, 2]),
            "3 of 4 triggers, chosen by the accuracy on 300 other rows; measured on 90 rows",
        ),
        (
            Choice(300, 4, "neutral", 0.9, [0.5] * 4, [0, 1, 2]),
            "3 of 4 triggers, chosen by the accuracy of neutral on 300 other rows; measured on 90 rows",
        ),
    ],
)
def test_subtitle_tells_how_triggers_were_chosen(choice: Choice | None, text: str) -> None:
    figure = plot_attack(AttackReport([victim()], choice))
    assert plain(figure.layout.title.subtitle.text) == text
    assert plain(figure.layout.title.text) == "Accuracy of <b>model</b> with triggers"


def test_panels_are_all_rows_and_then_each_class() -> None:
    figure = plot_attack(AttackReport([victim(rows=91)]))
    texts = [plain(each.text) for each in figure.layout.annotations]
    assert texts == [
        "<b>all</b>, 91 rows",
        "<b>entailment</b>, 31 rows",
        *(f"<b>{c}</b>, 30 rows" for c in CLASSES[1:]),
    ]
    axes = [figure.layout[f"xaxis{i}"] for i in ("", 3, 5, 7)]
    assert len({tuple(axis.range) for axis in axes}) == 1
    assert [axis.matches for axis in axes] == [None, "x", "x", "x"]
    low, high = axes[0].range
    for each in figure.data[8:]:
        if plain(each.name).split()[-1] not in ("numbers", "band"):
            assert min(each.x) > low
            assert max(each.x) < high


def test_menu_leads_to_each_victim() -> None:
    report = several()
    figure = plot_attack(report)
    (menu,) = figure.layout.updatemenus
    assert [plain(button.label) for button in menu.buttons] == [
        "first, attacked",
        "second, transfer",
        "third, transfer",
    ]
    for one, button in zip(report.victims, menu.buttons, strict=True):
        traces, change = button.args
        for each, visible in zip(figure.data, traces["visible"], strict=True):
            own = each.showlegend is not False or plain(each.name).startswith(f"{one.name} ")
            # "legendonly", for a trace that is not visible at all would leave its colour to the next one.
            assert visible == (True if own else "legendonly")
        for path, value in change.items():
            figure.layout[path] = value
        groups = ["all", *one.class_names]
        shown = [plain(each.text).split("<")[1][2:] for each in figure.layout.annotations if each.visible]
        assert shown == groups
        assert f"<b>{one.name}</b>" in plain(figure.layout.title.text)
        assert figure.layout.title.subtitle.text.endswith(f"measured on {len(one.gold)} rows")
        check_panels(figure, one)
    assert [each.visible or True for each in figure.data] == menu.buttons[0].args[0]["visible"]
    assert plot_attack(AttackReport([victim()])).layout.updatemenus == ()


def check_panels(figure: go.Figure, one: VictimResult) -> None:
    """Panels of a victim lie side by side, and the hidden ones cover none of them with their ground."""
    places: dict[str, list[tuple[float, float]]] = {}
    for i in range(1, 2 * len(figure.layout.annotations) + 1):
        axis = figure.layout[f"xaxis{i if i > 1 else ''}"]
        if (i - 1) // 2 <= len(one.classes):
            assert axis.visible
            places.setdefault(axis.anchor, []).append(tuple(axis.domain))
        else:
            assert not axis.visible
            assert 1 / 4096 < axis.domain[1] - axis.domain[0] < 2 / 1250
    for spots in places.values():
        flat = [end for spot in spots for end in spot]
        assert flat == sorted(flat)
        assert flat[0] == pytest.approx(0)
        assert flat[-1] < 1 + 1e-9
    assert places["y"][-1][1] == pytest.approx(1)
    lines = [axis for axis in ("yaxis", "yaxis2") if figure.layout[axis].visible]
    assert sorted(places) == [axis.replace("axis", "") for axis in lines]
    for each in figure.data:
        if plain(each.name).startswith(f"{one.name} ") and not plain(each.name).endswith("numbers"):
            assert each.yaxis == figure.layout[f"xaxis{each.xaxis[1:]}"].anchor


# ------------------------------------------------------------------------------------------------ the sizes


def test_three_triggers_and_three_classes_fit_a_small_screen() -> None:
    figure = plot_attack(AttackReport([victim("a"), victim("b")]))
    assert figure.layout.width <= 1250
    assert figure.layout.height <= 700  # 800, less the hint and the page's margins


@pytest.mark.parametrize("count", [1, 3, 8, 20])
def test_rows_keep_their_distance(count: int) -> None:
    layout = plot_attack(AttackReport([victim(given=triggers(count))])).layout
    inside = layout.height - layout.margin.t - layout.margin.b
    pixel = inside / abs(layout.yaxis.range[0] - layout.yaxis.range[1])
    distances = np.diff(layout.yaxis.tickvals) * pixel
    assert distances.min() > 17
    assert distances.max() < 60
    # The axis is where a page is opened.
    assert layout.xaxis.side == ("top" if count == 20 else "bottom")


def test_names_fit_their_places() -> None:
    long = [trigger("x" * 300), trigger("漢字" * 50), trigger("😀" * 90)]
    one = victim("model" * 50, ["c" * 300, "漢字" * 50], long)
    layout = plot_attack(AttackReport([one], Choice(9, 3, "c" * 300, 0.9, [0.9] * 3, [0, 1, 2]))).layout
    for text in layout.yaxis.ticktext:
        assert text_width(plain(text).replace("<b>", "").replace("</b>", "")) < layout.margin.l
    width = (layout.xaxis2.domain[1] - layout.xaxis.domain[0]) * (layout.width - layout.margin.l - layout.margin.r)
    for each in layout.annotations:
        assert text_width(re.sub("</?b>", "", plain(each.text))) < width
    assert len(layout.title.text) < 100
    assert len(layout.title.subtitle.text) < 200


@pytest.mark.parametrize("width", [40, 100, 333])
def test_shortened_texts_fit_whatever_their_characters(width: int) -> None:
    for text in ("x" * 300, "漢字" * 50, "a漢" * 50, "😀" * 90):
        shown = plain(fitted(text, width))
        assert width - 3 * CHARACTER_WIDTH < text_width(shown) <= width
    assert plain(token_label("漢字")) == "漢字"


# --------------------------------------------------------------------------------------------- all the rest


def hostile() -> AttackReport:
    given = [trigger(token, "$x$ %{x} &amp;") for token in HOSTILE] + [trigger(rules="reference")]
    return AttackReport([victim(HOSTILE[0], [f"{t}{i}" for i, t in enumerate(HOSTILE[:3])], given), victim(HOSTILE[1])])


def test_hostile_texts_are_literal() -> None:
    allowed = re.compile(r"<br>|</?b>|<extra></extra>|%\{customdata\}")
    texts = every_text(json.loads(plot_attack(hostile()).to_json()))
    assert any("&lt;" in text for text in texts)
    for text in texts:
        rest = allowed.sub("", text)
        assert "<" not in rest
        assert "$" not in rest
        assert "%{" not in rest


def test_colours_for_light_and_dark_pages() -> None:
    figure = plot_attack(several())
    themes = figure.layout.meta["themes"]
    assert themes["light"].keys() == themes["dark"].keys()
    assert all(len(theme["colorway"]) == len(figure.data) for theme in themes.values())
    kinds: dict[str, set[str]] = {}
    for each, colour in zip(figure.data, themes["dark"]["colorway"], strict=True):
        if each.showlegend is False:
            kinds.setdefault(plain(each.name).split()[-1], set()).add(colour)
    assert all(len(colours) == 1 for colours in kinds.values())
    assert len({*kinds["clean"], *kinds["triggers"], *kinds["means"], *kinds["band"]}) == 4


def test_saved_report_gives_the_same_page(tmp_path: Path) -> None:
    report = several()
    pages = [
        write_html(plot_attack(each), tmp_path / f"{i}.html").read_bytes()
        for i, each in enumerate((report, AttackReport.load(report.save(tmp_path / "attack.json"))))
    ]
    assert pages[0] == pages[1]
    assert plot_attack(report).layout.meta["filename"] == "attack"


@pytest.mark.parametrize("report", [3, victim(), None, [victim()]])
def test_wrong_input(report: Any) -> None:
    kind = type(report).__name__
    with pytest.raises(TypeError, match=f"report must be an AttackReport, what `attack` returns, not {kind}"):
        plot_attack(report)


# ---------------------------------------------------------------------------------------------- the browser

STEPS = """
  const named = (name) => plot._fullData.find((each) => each.name === name);
  const hover = async (name, point) => {
    const { index, xaxis, yaxis } = named(name);
    const drag = document.querySelector(`.nsewdrag[data-subplot="${xaxis}${yaxis}"]`);
    const area = drag.getBoundingClientRect();
    const [x, y] = ["xaxis", "yaxis"].map((axis, i) => plot._fullLayout[axis + [xaxis, yaxis][i].slice(1)]);
    const at = plot.calcdata[index][point];
    mouse("mousemove", drag, area.left + x.d2p(at.x), area.top + y.d2p(at.y));
    await wait();
    return texts(".hoverlayer text").join(" | ");
  };
  const looks = () => ({
    title: plot._fullLayout.title.text,
    shown: plot._fullData.filter((each) => each.visible === true).map((each) => each.name),
    colours: plot._fullData.map((each) => each.marker?.color ?? null),
    panels: texts(".annotation-text"),
    rows: texts(".yaxislayer-above .ytick text, .ytick text"),
  });
  const all = document.head.appendChild(document.createElement("style"));
  // How many marks there are, and how many of them nothing covers but what the mouse needs.
  const marks = () => {
    all.textContent = "* { pointer-events: all !important; }";
    const found = [...document.querySelectorAll(".scatterlayer .points path")];
    const seen = found.filter((mark) => {
      const { left, top, width, height } = mark.getBoundingClientRect();
      const pile = document.elementsFromPoint(left + width / 2, top + height / 2);
      const above = pile.slice(0, pile.indexOf(mark));
      return pile.includes(mark) && !above.some((each) => each.classList.contains("bg"));
    });
    all.textContent = "";
    return [found.length, seen.length];
  };
  seen.paper = plot._fullLayout.paper_bgcolor;
  seen.fits = document.documentElement.scrollHeight <= innerHeight;
  seen.hover = await hover(NAME, POINT);
  seen.marks = marks();
  seen.first = looks();
  if (plot.layout.updatemenus) {
    key(plot, "ArrowDown");
    await wait();
    seen.second = looks();
    seen.moved = marks();
    seen.chosen = document.getElementById("chosen").textContent;
    key(plot, "ArrowUp");
    await wait();
    seen.again = looks();
  }
"""


def look(report: AttackReport, name: str, point: int, dark: bool, folder: Path) -> dict[str, Any]:
    """What a browser shows of the figure's page, with the mouse at a point of a trace."""
    figure = plot_attack(report)
    (full,) = (each.name for each in figure.data if plain(each.name) == name)
    steps = STEPS.replace("NAME", json.dumps(full)).replace("POINT", str(point))
    seen = browser.look(write_html(figure, folder / "page.html"), steps, folder, dark)
    assert seen["paper"] == ("#12161b" if dark else "#ffffff")
    return seen


def marks(one: VictimResult) -> int:
    """How many marks a victim's panels have: clean, triggers, draws and means."""
    return (1 + len(one.classes)) * (len(one.outcomes) + sum(bool(controls) for _, controls in one.triggers()))


@pytest.mark.parametrize("dark", [False, True])
def test_report_in_a_browser(tmp_path: Path, dark: bool) -> None:
    given = [victim("first", given=triggers(3)), victim("second", ["negative", "positive"], triggers(3))]
    report = AttackReport(given)
    seen = look(report, "first neutral triggers", 1, dark, tmp_path)
    outcome, controls = list(given[0].triggers())[1]
    measure = given[0].measure(outcome, "neutral")
    for part in (
        outcome.trigger.name,
        f"accuracy {measure.accuracy:.3f}",
        given[0].verdict(outcome, controls, "neutral"),
    ):
        assert part in seen["hover"]
    assert seen["fits"]
    assert (seen["marks"], seen["moved"]) == ([marks(given[0])] * 2, [marks(given[1])] * 2)
    assert plain(seen["chosen"]) == "second, transfer"
    assert seen["again"] == seen["first"]
    first, second = seen["first"], seen["second"]
    assert plain(second["title"]) == "Accuracy of <b>second</b> with triggers of <b>first</b> (transfer)"
    assert [plain(text) for text in second["panels"]] == ["all, 90 rows", "negative, 45 rows", "positive, 45 rows"]
    assert [plain(text) for text in first["rows"][:2]] == ["clean", triggers(1)[0].name]
    for each, other in ((first, "second"), (second, "first")):
        assert not any(plain(name).startswith(f"{other} ") for name in each["shown"])
    assert first["colours"] == second["colours"]
    assert set(first["colours"]) - {None} == {*COLOURS[dark]}


COLOURS = {False: ["#0067a5", "#d1480c", "#5d6a77"], True: ["#6cb6ff", "#ff8a57", "#98a4b0"]}


def test_hostile_report_in_a_browser(tmp_path: Path) -> None:
    seen = look(hostile(), f"{HOSTILE[0]} all triggers".replace("<", "&lt;").replace(">", "&gt;"), 0, False, tmp_path)
    assert HOSTILE[0] in seen["hover"]
    assert HOSTILE[0] in plain(seen["first"]["rows"][1])


def test_report_of_one_class_in_a_browser(tmp_path: Path) -> None:
    report = verdicts()
    seen = look(report, "model positive triggers", 3, True, tmp_path)
    assert "changes nothing" in seen["hover"]
    assert seen["marks"] == [marks(report.victims[0])] * 2
