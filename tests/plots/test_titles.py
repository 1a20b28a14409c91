"""Every title, caption and report says what was attributed, against what and along which path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import results
import torch

from captum_attattr import (
    Explanation,
    attribution_tree,
    load_tree,
    plot_attention,
    plot_flow,
    plot_tree,
    save_tree,
    tree_text,
    write_report,
)

UNKNOWN = torch.full((3,), torch.nan)
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "usual": ({}, "positive (target 1), probability 0.875"),
    "logit": ({"output": "logit", "value": -3.25}, "positive (target 1), logit −3.25"),
    "log-probability": (
        {"output": "log_probability", "value": -0.134},
        "positive (target 1), log-probability −0.134",
    ),
    "contrast": (
        {"output": "logit", "value": 2.5, "contrast": "negative", "contrast_target": 0},
        "positive (target 1) against negative, logit difference 2.5",
    ),
    "joint": (
        {"path": "joint", "delta": UNKNOWN, "total_delta": 0.5, "total_error": 0.25},
        "positive (target 1), probability 0.875, joint path",
    ),
    "sink": (
        {"path": "joint", "baseline": "sink", "delta": UNKNOWN, "total_delta": 0.5},
        "positive (target 1), probability 0.875, joint path from the baseline sink",
    ),
    "number": ({"baseline": 0.5}, "positive (target 1), probability 0.875, from the baseline 0.5"),
}


def explanation(**changed: Any) -> Explanation:
    return results.explanation(3, 4, ["[CLS]", *(f"word{i}" for i in range(6)), "[SEP]"], **changed)


def plain(text: str) -> str:
    for mark in ("<b>", "</b>", "\u2068", "\u2069"):
        text = text.replace(mark, "")
    return text


@pytest.mark.parametrize("name", CASES)
def test_titles_of_figures(name, tmp_path):
    changed, expected = CASES[name]
    given = explanation(**changed)
    tree = attribution_tree(given)
    for figure in (plot_attention(given), plot_flow(given), plot_tree(tree, given)):
        assert plain(figure.layout.title.text).split(": ", 1)[1].startswith(expected)
    for ending in ("json", "graphml"):
        again = load_tree(save_tree(tree, tmp_path / f"tree.{ending}"))
        assert again.graph == tree.graph
        assert plot_tree(again).layout.title.text == plot_tree(tree).layout.title.text


@pytest.mark.parametrize("name", CASES)
def test_trees_in_text(name):
    changed, expected = CASES[name]
    head = tree_text(attribution_tree(explanation(**changed))).splitlines()[0]
    for part in expected.replace("positive (target 1)", "'positive' (target 1)").split(", "):
        if "against" in part:
            assert "against 'negative'" in head
        elif part.startswith(("joint", "from", "'")):
            assert part in head
        elif part.startswith("logit d"):
            assert "F = 2.5000 (logit difference)" in head
        elif part.startswith("log"):
            assert f"({part.split()[0]})" in head


@pytest.mark.parametrize("name", CASES)
def test_reports(name, tmp_path: Path):
    changed, expected = CASES[name]
    text = write_report(explanation(**changed), tmp_path / "report.html").read_text(encoding="utf-8")
    title = expected.replace(" (target 1)", "")
    assert f"<title>Self-attention attribution: {title}</title>" in text
    assert ("<dt>against</dt><dd><bdi>negative</bdi> (target 0)</dd>" in text) == ("contrast" in changed)
    assert ("<dt>probability</dt><dd>0.875</dd>" in text) == ("output" in changed)
    assert ("<dt>integrated along</dt>" in text) == (name in ("joint", "sink", "number"))
    assert ("attributions of all layers together add up to F(A) − F(" in text) == ("path" in changed)
    assert ("a delta of +0.5" in text) == ("path" in changed)
    assert ("estimated error of all maps together is 0.25" in text) == (name == "joint")
    assert ("F(A) − F(B)" in text) == ("baseline" in changed)


@pytest.mark.parametrize(
    ("changed", "flat"),
    [
        ({"probability": 0.995}, True),
        ({"probability": 0.989}, False),
        ({"probability": 0.995, "contrast": "negative", "contrast_target": 0, "value": 0.99}, True),
        ({"probability": 0.995, "output": "logit", "value": 6.0}, False),
        ({"probability": 4.0, "output": "score"}, False),
    ],
)
def test_reports_say_why_scores_are_tiny(changed, flat, tmp_path: Path):
    text = write_report(explanation(**changed), tmp_path / "report.html").read_text(encoding="utf-8")
    assert ("softmax is flat" in text and "log-probability or the logit" in text) == flat


def test_hostile_contrasts_make_no_element(tmp_path: Path):
    given = explanation(output="logit", value=1.0, contrast="<img src=x onerror=alert(1)>", contrast_target=0)
    text = write_report(given, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in text
    for figure in (plot_attention(given), plot_flow(given), plot_tree(attribution_tree(given))):
        assert "<img" not in figure.layout.title.text
