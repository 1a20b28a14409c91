"""A headless Chromium without a network, which uses a page as a reader would and tells what it saw."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

# The steps run when every figure is drawn; they leave what they saw in `seen`.
PROBE = """
<script>
(() => {
const wait = (time = 500) => new Promise((done) => setTimeout(done, time));
const texts = (where) => [...document.querySelectorAll(where)].map((each) => each.textContent);
const mouse = (type, target, clientX, clientY) =>
  target.dispatchEvent(new MouseEvent(type, { clientX, clientY, bubbles: true }));
const key = (target, key) => target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const seen = { failures: [] };
addEventListener("error", (event) => seen.failures.push(event.message));
addEventListener("unhandledrejection", (event) => seen.failures.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => seen.failures.push(event.blockedURI));
addEventListener("load", async () => {
  for (let i = 0; i < 100 && document.querySelector(".figure:not([data-drawn])"); i++) await wait(100);
  await wait();
  seen.figures = document.querySelectorAll(".figure").length;
  seen.drawn = document.querySelectorAll(".figure[data-drawn]:has(.main-svg)").length;
  seen.dark = matchMedia("(prefers-color-scheme: dark)").matches;
  try {
    STEPS
  } catch (error) {
    seen.failures.push(error.stack);
  }
  seen.elements = document.querySelectorAll("main img, main a[href*=evil], main script[src]").length;
  document.documentElement.dataset.seen = JSON.stringify(seen);
});
})();
</script>
"""


def chromium() -> str:
    """The browser's path; without one the test is skipped."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no chromium on this machine: the page was not opened in a browser")
    return found


def look(page: Path, steps: str, folder: Path, dark: bool = False) -> dict[str, Any]:
    """Open a page from disk, take steps in it, and check that it drew everything without an error.

    Args:
        page: the HTML file, which stays as it is.
        steps: JavaScript, in which `seen` takes what is to be returned; `wait()`, `texts(selector)`,
            `mouse(type, target, x, y)` and `key(target, name)` are there.
        folder: for a copy of the page and the browser's own files.
        dark: whether the reader prefers dark pages.
    """
    path = folder / "probe.html"
    text = page.read_text(encoding="utf-8").replace("</body>", PROBE.replace("STEPS", steps) + "</body>")
    path.write_text(text, encoding="utf-8")
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--virtual-time-budget=60000"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--window-size=1280,800"]
    command += ["--dump-dom", path.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=240, check=True)
    errors = [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
    assert not errors, errors
    found = re.search('data-seen="(.*?)"', ran.stdout)
    assert found, ran.stderr
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert not seen["failures"], seen["failures"]
    assert seen["elements"] == 0, seen
    assert seen["dark"] == dark, seen
    assert seen["drawn"] == seen["figures"] >= 1, seen
    return seen
