"""The survey of tasks: some families here, the whole by `python tests/task_survey.py`, its page in the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers
from task_survey import BROKEN, NONE, REFUSED, TASKS, YES, Row, survey, table
from tiny_families import exists

PAGE = Path(__file__).parents[2] / "docs" / "task_survey.md"

FAMILIES: dict[str, tuple[str, str, str, str]] = {
    "roberta": (YES, YES, YES, YES),
    "deberta-v2": (YES, YES, YES, YES),  # a softmax of its own
    "albert": (YES, YES, YES, YES),  # layers that share weights
    "gpt2": (YES, YES, NONE, NONE),  # a decoder
    "bart": (YES, NONE, YES, YES),  # an encoder-decoder
    "xlnet": (YES, YES, NONE, NONE),  # answers by the second class of the two
    "fnet": (REFUSED, REFUSED, REFUSED, REFUSED),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_some_families(family: str) -> None:
    if not exists(family):
        pytest.skip(f"transformers {transformers.__version__} has no {family}")
    row = survey(family)
    assert tuple(row.tasks.values()) == FAMILIES[family], row


def test_page_has_them_and_none_is_broken() -> None:
    text = PAGE.read_text("utf-8")
    found = {row[0]: row[1:] for row in re.findall(r"^\| (\S+) \| (.*) \| (.*) \| (.*) \| (.*) \|$", text, flags=re.M)}
    assert found["family"] == tuple(TASKS)
    assert len(found) > 100
    assert {family: tuple(part.strip() for part in found[family]) for family in FAMILIES} == FAMILIES
    assert BROKEN not in text.split("Not explained")[0]


def test_table_counts_and_says_why() -> None:
    tasks = dict(zip(TASKS, (YES, REFUSED, NONE, YES), strict=True))
    row = Row("some", YES, tasks=tasks, reasons={"token_classification": "its attention is <windowed>"})
    page = table([row, Row("other", "no class", tasks=dict.fromkeys(TASKS, NONE))])
    assert "1 families" in page
    assert "question_answering: 1 yes." in page
    assert "- some, token_classification: its attention is &lt;windowed>" in page
    assert "other" not in page.split("| family")[1]
