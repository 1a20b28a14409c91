"""Runs examples/tour.ipynb and stores it with pictures of its pages, which code hosts show: they run no scripts.

    python tools/tour_pictures.py

Each page that a cell shows is drawn by a headless Chromium, in light colours, and stored as a PNG in its place; whoever
runs the notebook gets the pages. The test of the notebook fails where what is stored is not what a run says.
"""

from __future__ import annotations

import base64
import html
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import PIL.Image
from nbclient import NotebookClient

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Clocked

ROOT = Path(__file__).parents[1]
WIDTH, COLOURS = 1280, 128


def picture(browser: Clocked, page: str, path: Path) -> bytes:
    """Return the PNG of a page."""
    path.write_text(page, encoding="utf-8")
    size = {"width": WIDTH, "height": 200, "deviceScaleFactor": 1, "mobile": False}
    browser.ask("Emulation.setDeviceMetricsOverride", **size)
    browser.open(path)
    size["height"] = round(browser.run("document.querySelector('main').getBoundingClientRect().bottom")) + 8
    browser.ask("Emulation.setDeviceMetricsOverride", **size)
    browser.run("new Promise((done) => setTimeout(done, 1000))")
    taken = browser.ask("Page.captureScreenshot", format="png")["data"]
    image = PIL.Image.open(io.BytesIO(base64.b64decode(taken))).convert("RGB")
    packed = io.BytesIO()
    image.quantize(COLOURS, PIL.Image.Quantize.MAXCOVERAGE, dither=PIL.Image.Dither.NONE).save(
        packed, "png", optimize=True
    )
    return packed.getvalue()


def with_picture(data: dict[str, Any], browser: Clocked, path: Path) -> dict[str, Any]:
    """Return what an output holds, a picture in the place of its page."""
    framed = re.search('srcdoc="(.*?)"', data.get("text/html", ""), re.DOTALL)
    if framed is None:
        return data
    png = picture(browser, html.unescape(framed[1]), path)
    kept = {kind: content for kind, content in data.items() if kind != "text/html"}
    return {"image/png": base64.b64encode(png).decode("ascii"), **kept}


def main() -> None:
    """Run the notebook, and write it with its pictures."""
    notebook = ROOT / "examples/tour.ipynb"
    content = nbformat.read(notebook, 4)
    os.environ |= {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "examples", ROOT))), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        NotebookClient(content, timeout=600, resources={"metadata": {"path": folder}}).execute()
        browser = Clocked(Path(folder) / "profile")
        for i, cell in enumerate(content.cells):
            cell.metadata.pop("execution", None)
            for output in cell.get("outputs", ()):
                if "data" in output:
                    output.data = with_picture(output.data, browser, Path(folder) / f"page{i}.html")
        browser.ask("Browser.close")
        browser.process.wait(30)
    content.metadata.language_info = {"name": "python"}
    nbformat.write(content, notebook)
    print(f"{notebook.relative_to(ROOT)}: {notebook.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
