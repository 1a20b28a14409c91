"""A headless Chromium without a network, which uses a page as a reader would and tells what it saw."""

from __future__ import annotations

import fcntl
import html
import json
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
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
  const foreign = "main img:not([src^='data:image/png']), main a[href*=evil], main script[src]";
  seen.elements = document.querySelectorAll(foreign).length;
  document.documentElement.dataset.seen = JSON.stringify(seen);
});
})();
</script>
"""


def chromium() -> str:
    """The browser's path; without one the test is skipped."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no chromium on this machine: the page was not opened in a browser")
    return path


def look(page: Path, steps: str, folder: Path, dark: bool = False) -> dict[str, Any]:
    """Open a page from disk, take steps in it, and check that it drew everything without an error.

    Args:
        page: the HTML file, which stays as it is.
        steps: JavaScript, in which `seen` takes what is to be returned; `wait()`, `texts(selector)`,
            `mouse(type, target, x, y)` and `key(target, name)` are there.
        folder: for a copy of the page and the browser's files.
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
    match = re.search('data-seen="(.*?)"', ran.stdout)
    assert match, ran.stderr
    seen: dict[str, Any] = json.loads(html.unescape(match[1]))
    assert not seen["failures"], seen["failures"]
    assert seen["elements"] == 0, seen
    assert seen["dark"] == dark, seen
    assert seen["drawn"] == seen["figures"] >= 1, seen
    return seen


class Clocked:
    """A Chromium with a real clock, driven through a pipe; in `look` the clock stands still while scripts run."""

    def __init__(self, folder: Path) -> None:
        theirs, self.outgoing = os.pipe()
        self.incoming, ours = os.pipe()
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder}",
            "--remote-debugging-pipe",
        ]
        options += ["--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1280,800", "about:blank"]

        def connect() -> None:  # the browser reads from 3 and writes to 4
            copies = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs, ours)]
            for descriptor, end in enumerate(copies, start=3):
                os.dup2(end, descriptor)

        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([chromium(), *options], close_fds=False, preexec_fn=connect, **quiet)
        os.close(theirs)
        os.close(ours)
        self.count, self.rest, self.session = 0, b"", {}
        pages = [each for each in self.ask("Target.getTargets")["targetInfos"] if each["type"] == "page"]
        attached = self.ask("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self.session = {"sessionId": attached["sessionId"]}

    def ask(self, method: str, **params: Any) -> Any:
        self.count += 1
        question = json.dumps({"id": self.count, "method": method, "params": params, **self.session})
        os.write(self.outgoing, question.encode())
        os.write(self.outgoing, b"\0")
        while True:
            while b"\0" not in self.rest:
                assert select.select([self.incoming], [], [], 100)[0], method
                self.rest += os.read(self.incoming, 1 << 20)
            received, self.rest = self.rest.split(b"\0", 1)
            answer = json.loads(received)
            if answer.get("id") == self.count:
                return answer["result"]

    def run(self, script: str) -> Any:
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str, wanted: Callable[[Any], bool]) -> Any:
        """Run a script again and again until its value is wanted, and return that."""
        for _ in range(200):
            time.sleep(0.1)
            value = self.run(script)
            if wanted(value):
                return value
        raise AssertionError((script, value))

    def downloads(self, folder: Path, script: str) -> bytes:
        """Run a script that saves a file, and return what is in that; the folder must be empty, and is again."""
        session, self.session = self.session, {}
        self.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self.session = session
        self.run(script)
        for _ in range(200):
            time.sleep(0.05)
            done = [path for path in folder.iterdir() if path.suffix != ".crdownload" and path.stat().st_size]
            if done and len(list(folder.iterdir())) == 1:
                content = done[0].read_bytes()
                done[0].unlink()
                return content
        raise AssertionError(script)

    def open(self, page: Path) -> None:
        """Go to a page, and wait for its figures."""
        self.ask("Page.navigate", url=page.as_uri())
        left = "location.href + document.querySelectorAll('.figure').length + ' ' "
        left += "+ document.querySelectorAll('.figure:not([data-drawn])').length"
        self.until(left, lambda seen: bool(re.fullmatch(re.escape(page.as_uri()) + "[1-9] 0", seen)))

    def click(self, x: float, y: float) -> None:
        """Click the left button of the mouse."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            buttons = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **buttons)

    def press(self, key: str, number: int = 0) -> None:
        """Press a key, by its name, and by its number where the browser itself is to answer."""
        for kind in ("rawKeyDown" if number else "keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=number)


@pytest.fixture
def clocked(tmp_path: Path) -> Iterator[Clocked]:
    browser = Clocked(tmp_path / "profile")
    yield browser
    browser.ask("Browser.close")
    browser.process.wait(30)
    os.close(browser.outgoing)
    os.close(browser.incoming)
