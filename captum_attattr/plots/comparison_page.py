"""The page of a comparison of attributions: its tables, and the curves below them."""

from __future__ import annotations

import html

from captum_attattr.evaluation.compared import AttributionComparison
from captum_attattr.evaluation.result import MEASURES, spelt
from captum_attattr.plots.canvas.attributions import attribution_colours
from captum_attattr.plots.canvas.pages import figure_block, page, title_of
from captum_attattr.plots.canvas.sentence import shown
from captum_attattr.plots.faithfulness import plot_faithfulness

_ROW, _REST = 40, 210  # pixels of a row of a table, and of what is around two tables
_LOWER_IS_BETTER = ("sufficiency", "top_sufficiency", "cmd")


def comparison_page(comparison: AttributionComparison) -> tuple[str, int, int]:
    """Return the HTML of a page with all measures of all methods above their curves, and its height and width."""
    figure = plot_faithfulness(comparison.results)
    measured, differences = comparison.tables()
    lower = {name for m in MEASURES if m in _LOWER_IS_BETTER for name in (spelt(m), f"top: {spelt(m)}")}
    tables = [_table(comparison, measured, "All measures", lower)]
    if len(differences) > 1:
        tables.append(_table(comparison, differences, "Differences, text by text"))
    note = " ".join(filter(None, [comparison.left_out() and f"{comparison.left_out()}.", _NOTE]))
    body = f"""<h1>How faithful attributions are</h1>
<p>{html.escape(comparison.measured())}.</p>
{"".join(tables)}
<p class="quiet">{html.escape(note)}</p>
{figure_block(figure)}"""
    rows = len(measured) + len(differences)
    height, width = int(figure.layout.height) + _ROW * rows + _REST, int(figure.layout.width) + 20
    return page(title_of(figure), body, [figure], "comparison.css"), height, width


_NOTE = (
    "Means over the texts, in brackets 95 % bootstrap intervals; of each measure the best mean is bold. "
    "Of sufficiency and CMD less is better, of all others more. 'top' counts the first few units alone."
)


def _table(
    comparison: AttributionComparison, rows: list[tuple[str, ...]], name: str, lower: set[str] | None = None
) -> str:
    """Return the HTML of a table; `lower` are the measures of which less is better, None for a table without a best."""
    heading, *others = rows
    best = set()
    for column, measure in enumerate(heading):
        values = {i: float(row[column].split()[0]) for i, row in enumerate(others) if column and row[column] != "-"}
        if lower is not None and values and measure not in ("rows", "seconds"):
            wanted = min(values.values()) if measure in lower else max(values.values())
            best |= {(i, column) for i, value in values.items() if value == wanted}
    head = "".join(f'<th scope="col">{html.escape(shown(cell or "method"))}</th>' for cell in heading)
    body = "".join(
        f'<tr><th scope="row">{_named(comparison, row[0])}</th>'
        + "".join(_cell(cell, (i, column) in best) for column, cell in enumerate(row[1:], 1))
        + "</tr>"
        for i, row in enumerate(others)
    )
    table = f'<table aria-label="{name}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="table">{table}</div>'


def _named(comparison: AttributionComparison, name: str) -> str:
    """Return a method's name with its colour."""
    result = comparison.results[name]
    colours = attribution_colours(result.attribution, result.path)
    style = ";".join(f"--{theme}:{colour}" for theme, colour in colours.items())
    return f'<i style="{style}"></i><bdi>{html.escape(shown(name))}</bdi>'


def _cell(text: str, best: bool) -> str:
    mean, _, bounds = text.partition(" ")
    mean = f"<b>{mean}</b>" if best else mean
    small = f" <small>{html.escape(bounds)}</small>" if bounds else ""
    return f"<td>{mean}{small}</td>".replace("-", "−")
