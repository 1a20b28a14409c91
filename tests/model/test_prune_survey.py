"""The survey of families: one of each kind here, the whole by `python tests/prune_survey.py`, its table in the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from families import FAMILIES
from prune_survey import OUTCOMES, Row, survey, table

PAGE = Path(__file__).parents[2] / "docs" / "pruning_survey.md"

KINDS: dict[str, str] = {
    "llama": "grouped heads",
    "qwen3_next": "queries and gates in one map",
    "deepseek_v3": "latent keys and values",
    "t5": "a position bias that layers share",
    "umt5": "a position bias in every layer",
    "bloom": "alibi, with heads and rows in one dimension",
    "phi3": "counts read in the config",
    "cpmant": "maps that no table of names has",
    "qwen3_vl_vision": "patches of images",
    "vivit": "frames of a video",
}


@pytest.mark.parametrize("family", KINDS, ids=lambda family: f"{family}: {KINDS[family]}")
def test_one_of_each_kind(family: str) -> None:
    row = survey(family)
    assert row.outcome == "equal", row
    assert {"forward", "save and load", "training step"} <= set(row.checks)


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("olmo2", "normalised over all heads"),
        ("diffllama", "halves of pairs"),
        ("prophetnet", "the width of its input"),
        ("fsmt", "the width of its input"),
        ("trocr", "the width of its input"),
        ("bitnet", "'attn_sub_norm' normalises what all heads give together"),
        ("doge", "made of the values of all"),
        ("lilt", "a second context, of the layout"),
    ],
)
def test_what_cannot_be_exact_is_refused_with_its_reason(family: str, reason: str) -> None:
    row = survey(family)
    assert row.outcome == "refused"
    assert reason in row.detail


def test_page_gives_no_bare_error_of_shapes_as_a_reason() -> None:
    assert not re.findall(r"^.*\| refused \|.*(?:invalid for input|must match).*$", PAGE.read_text(), flags=re.M)


def rows() -> dict[str, str]:
    """The outcomes in the page, by family."""
    found = re.findall(r"^\| (\S+) \| \S* \| ([a-z ]+) \|", PAGE.read_text(), flags=re.M)
    return {family: outcome for family, outcome in found if outcome in OUTCOMES}


def test_page_has_every_family_of_the_readme_and_none_is_broken() -> None:
    outcomes = rows()
    assert len(outcomes) > 300
    assert "broken" not in outcomes.values()
    for family in FAMILIES:
        if family.route == "refused" or family.name.endswith(("(vision)", "(text)")):
            continue  # parts of composite models
        model_type = family.build().config.model_type
        assert outcomes[model_type] == ("refused" if family.uncut else "equal"), family.name


def test_page_says_what_was_not_tried() -> None:
    page = table([Row("a", "equal", "A", checks=["forward"]), Row("b", "not built", detail="needs | timm")])
    assert "2 families; 1 with attention that could be run: 1 equal, 0 refused" in page
    assert "of 1 no tiny model was built or run here" in page
    assert "| b |  | not built | needs \\| timm |" in page
