"""The rooms of the package: what they may import, how large their files are, and that the root imports little."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "captum_attattr"
LEVELS = {
    **dict.fromkeys(("exceptions", "checks", "files", "formatting", "notebooks"), 0),
    **dict.fromkeys(("model", "runs"), 1),
    "attribution": 2,
    "explanations": 3,
    **dict.fromkeys(("evaluation", "heads", "trees", "triggers", "archives"), 4),
    **dict.fromkeys(("plots", "published"), 5),
    **dict.fromkeys(("commands", "__init__", "tasks", "tables"), 6),
}
GROUND = {room for room, level in LEVELS.items() if level == 0}
MODULES = sorted(PACKAGE.rglob("*.py*"), key=str)
MODULES = [path for path in MODULES if path.suffix in (".py", ".pyi")]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(tree: ast.Module) -> Iterator[str]:
    """The rooms that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if node.level:  # the stub of the root
                yield parts[0]
            elif parts == ["captum_attattr"]:
                yield from (alias.name for alias in node.names)
            elif parts[0] == "captum_attattr":
                yield parts[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("captum_attattr."))


def wrong(path: Path, source: str) -> list[str]:
    """The rooms that a module of this source at this path must not import."""
    room = room_of(path)
    return [
        other
        for other in imported(ast.parse(source))
        if other != room and not (LEVELS[room] == LEVELS.get(other) == 0) and not LEVELS.get(other, 99) < LEVELS[room]
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_lower_rooms_only(path):
    assert wrong(path, path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "line", "expected"),
    [
        ("heads/curves.py", "from captum_attattr.trees.files import load_tree", ["trees"]),  # of one level
        ("heads/curves.py", "import captum_attattr.plots.canvas.pages", ["plots"]),
        ("model/modes.py", "def f():\n    from captum_attattr.runs.memory import give_back", ["runs"]),
        ("files.py", "from captum_attattr.model.modes import plain", ["model"]),
        ("files.py", "from captum_attattr.checks import integer", []),
        ("explanations/explain.py", "from captum_attattr import explain", ["explain"]),  # through the root
        ("explanations/explain.py", "from captum_attattr import checks", []),
        ("plots/tree.py", "from captum_attattr.explanations.words import words", []),
    ],
)
def test_the_test_sees_what_is_wrong(module, line, expected):
    assert wrong(PACKAGE / module, line) == expected


def test_few_files_stay_outside_the_rooms():
    outside = sorted(path.stem for path in PACKAGE.glob("*.py"))
    assert len(outside) <= 8
    assert {room_of(path) for path in MODULES} <= LEVELS.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("room", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_rooms_say_what_lives_there(room):
    body = ast.parse((PACKAGE / room / "__init__.py").read_text()).body
    assert ast.get_docstring(ast.Module(body, []))
    assert len(body) == 1 or room == "plots"


def test_no_module_hides_a_public_function():
    import captum_attattr

    assert {room_of(path) for path in MODULES}.isdisjoint(captum_attattr.__all__)


def test_the_root_imports_what_is_used_when_it_is_used():
    source = "import sys, captum_attattr; print({'torch', 'transformers', 'captum', 'plotly'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
