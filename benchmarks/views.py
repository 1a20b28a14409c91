"""Sizes of the pages and the time to build and to open them; bertviz's model_view beside them.

The maps are random, and so compress worse than those of a model (`--explanation` takes a file of one). "Open" is the
time to the drawn page in a headless Chromium, and "choose" the longest of three choices of another head in the report.

bertviz shows attention only, and its page loads libraries from the network. Only this comparison needs it:

    pip install bertviz ipython
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from captum_attattr import (
    Explanation,
    attribution_tree,
    plot_attention,
    plot_flow,
    plot_tokens,
    plot_tree,
    write_html,
    write_report,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Clocked


def explanation(layers: int, heads: int, tokens: int) -> Explanation:
    """Return an explanation with heavy-tailed random maps, and much attention to the first token."""
    generator = torch.Generator().manual_seed(0)
    shape = layers, heads, tokens, tokens
    scores = torch.randn(shape, generator=generator) * 2
    scores[..., 0] += 3
    attention = scores.softmax(-1)
    attributions = attention * torch.randn(shape, generator=generator) * 0.05
    return Explanation(
        tokens=["[CLS]", *(f"token{i}" for i in range(1, tokens - 1)), "[SEP]"],
        attributions=attributions,
        attention=attention,
        delta=torch.zeros(layers),
        error=torch.zeros(layers),
        nodes=torch.full((layers,), 9),
        target=1,
        label="positive",
        probability=0.9,
        prediction=1,
        text=" ".join(f"token{i}" for i in range(1, tokens - 1)),
        segments=[0] * tokens,
        special=[i in (0, tokens - 1) for i in range(tokens)],
    )


def bertviz_page(given: Explanation, path: Path) -> None:
    from bertviz import model_view

    page = model_view([layer[None] for layer in given.attention], given.tokens, html_action="return")
    path.write_text(page.data, encoding="utf-8")


def opening(page: Path, folder: Path) -> float:
    """Return the seconds until a browser has drawn a page."""
    browser = Clocked(folder / "profile")
    begin = time.perf_counter()
    browser.open(page)
    spent = time.perf_counter() - begin
    close(browser)
    return spent


CHOICES = """(() => { const times = [];
  for (const button of [...document.querySelectorAll("#heads button")].filter((_, i) => i % 25 === 3).slice(0, 3)) {
    const begin = performance.now();
    button.click();
    times.push(performance.now() - begin);
  }
  return Math.max(...times); })()"""


def choosing(page: Path, folder: Path) -> float:
    """Return the milliseconds that the slowest of three choices of a head takes."""
    browser = Clocked(folder / "profile")
    browser.open(page)
    browser.until("document.getElementById('map-name').textContent", lambda name: name.startswith("layer"))
    spent = float(browser.run(CHOICES))
    close(browser)
    return spent


def close(browser: Clocked) -> None:
    browser.ask("Browser.close")
    browser.process.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--keep", type=Path, help="folder for the pages; by default they are thrown away")
    parser.add_argument("--explanation", type=Path, help="a file of Explanation.save, in place of random maps")
    args = parser.parse_args()
    given = explanation(args.layers, args.heads, args.tokens)
    if args.explanation:
        given = Explanation.load(args.explanation)
    pages: dict[str, Callable[[Path], Any]] = {
        "words": lambda path: write_html(plot_tokens(given), path),
        "tree": lambda path: write_html(plot_tree(attribution_tree(given), given), path),
        "flow": lambda path: write_html(plot_flow(given), path),
        "attention maps": lambda path: write_html(plot_attention(given), path),
        "report": lambda path: write_report(given, path),
        "bertviz model_view": lambda path: bertviz_page(given, path),
    }
    print("| page | MB | seconds to build | to open |")
    print("|---|---:|---:|---:|")
    with TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in pages.items():
            path = folder / f"{name.replace(' ', '_')}.html"
            try:
                write(path)  # once for imports and caches
                begin = time.perf_counter()
                write(path)
            except ImportError as error:
                print(f"| {name} | not installed ({error}) | | |")
                continue
            spent = time.perf_counter() - begin
            opened = "" if name.startswith("bertviz") else f"{opening(path, folder):.1f}"
            print(f"| {name} | {path.stat().st_size / 1e6:.2f} | {spent:.2f} | {opened} |")
        print(f"choosing a head in the report: {choosing(folder / 'report.html', folder):.0f} ms")


if __name__ == "__main__":
    main()
