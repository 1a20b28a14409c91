"""The API documentation has every public name, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import captum_attattr

PAGES = (Path(__file__).parents[1] / "docs").glob("*.md")


def test_every_public_name_is_documented_once():
    named = [name for page in PAGES for name in re.findall(r"^\.\. auto\w+:: (\w+)$", page.read_text(), re.MULTILINE)]
    assert sorted(named) == sorted(captum_attattr.__all__)
