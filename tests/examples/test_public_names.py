"""Scripts and benchmarks use the package as anybody does; where they need more of it, a comment says why."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PUBLIC = {"captum_attattr", "captum_attattr.tasks", "captum_attattr.tables"}
PACKAGE = sorted((ROOT / "captum_attattr").rglob("*.py"))
FILES = sorted([*(ROOT / "examples").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")])


def unexplained(source: str) -> Iterator[str]:
    """The imports of the package's modules that are not public, and have no comment on their line."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        package = [module for module in modules if module.split(".")[0] == "captum_attattr"]
        if set(package) - PUBLIC and "  # " not in lines[node.end_lineno - 1]:
            yield ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_public_or_explained(path):
    assert list(unexplained(path.read_text(encoding="utf-8"))) == []


LOADERS = re.compile(r"(Auto\w+|getattr\(transformers, kind\))\.from_pretrained\b(?!\w)(?P<rest>[^\n]*(\n[^\n]*){0,3})")


@pytest.mark.parametrize("path", [*FILES, *PACKAGE], ids=lambda path: str(path.relative_to(ROOT)))
def test_models_are_loaded_without_code_of_their_own(path):
    """Where it is not asked for, transformers asks on the terminal, and "y" runs the code."""
    loading = path.read_text(encoding="utf-8")
    for found in LOADERS.finditer(re.sub(r"^ *(>>>|\.\.\.).*$", "", loading, flags=re.MULTILINE)):
        assert "trust_remote_code" in found["rest"] or "**options" in found["rest"], found[0]


def test_the_tour_uses_public_names_only():
    cells = json.loads((ROOT / "examples/tour.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert sum("from captum_attattr import" in source for source in code) > 5
    assert [line for source in code for line in unexplained(source)] == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from captum_attattr.heads.metrics import score", 1),
        ("import captum_attattr.files", 1),
        ("def f():\n    from captum_attattr.runs import memory", 1),
        ("from captum_attattr.heads.metrics import score  # as pruning measures", 0),
        ("from captum_attattr.tasks import task", 0),
        ("from captum_attattr import explain", 0),
        ("import captum", 0),
    ],
)
def test_the_test_sees_what_is_not_public(line, expected):
    assert len(list(unexplained(line))) == expected
