"""Sizes of the pages and the time to build and to open them, beside those of bertviz on the same attention, in one run.

The maps are random, and so compress worse than those of a model; `--flat` makes the worst of them, in which no value is
rarer than another, and `--sentence` explains one with the demonstration model. Every page is built in turn, `--rounds`
times; seconds are medians, and "of bertviz" is that of its `model_view`. "Open" is the time to the drawn page in a
headless Chromium, and "choose" the longest of three choices of another head in the report.

bertviz shows attention only, and its pages load libraries from the network, without which they stay empty: they are not
opened. Its `neuron_view` takes models of its own classes alone. Only this comparison needs it:

    pip install --no-deps bertviz && pip install ipython
"""

from __future__ import annotations

import argparse
import statistics
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
    explain,
    plot_attention,
    plot_flow,
    plot_tokens,
    plot_tree,
    write_html,
    write_report,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Clocked

SENTENCE = "Seldom has a movie so closely matched the spirit of a man and his work ."


def explanation(layers: int, heads: int, tokens: int, flat: bool = False) -> Explanation:
    """Return an explanation with heavy-tailed random maps, and much attention to the first token; or with flat maps."""
    generator = torch.Generator().manual_seed(0)
    shape = layers, heads, tokens, tokens
    scores = torch.randn(shape, generator=generator) * 2
    scores[..., 0] += 3
    attention = scores.softmax(-1)
    attributions = attention * torch.randn(shape, generator=generator) * 0.05
    if flat:
        attention = torch.rand(shape, generator=generator)
        attention /= attention.sum(-1, keepdim=True)
        attributions = 2 * torch.rand(shape, generator=generator) - 1
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


def bertviz_page(given: Explanation, path: Path, view: str) -> None:
    import bertviz

    make = getattr(bertviz, view)
    page = make([layer[None] for layer in given.attention], given.tokens, html_action="return")
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


def builds(pages: dict[str, Callable[[Path], Any]], folder: Path, rounds: int) -> dict[str, tuple[float, float]]:
    """Return megabytes and median seconds of each page, without those whose package is not installed."""
    spent: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        for name, write in pages.items():
            begin = time.perf_counter()
            try:
                write(folder / file_of(name))
            except ImportError as error:
                if not turn:
                    print(f"{name} is not installed ({error})")
                continue
            if turn:  # the first is for imports and caches
                spent.setdefault(name, []).append(time.perf_counter() - begin)
    sizes = {name: (folder / file_of(name)).stat().st_size / 1e6 for name in spent}
    return {name: (sizes[name], statistics.median(times)) for name, times in spent.items()}


def file_of(name: str) -> str:
    return f"{name.replace(' ', '_')}.html"


def table(built: dict[str, tuple[float, float]], folder: Path) -> None:
    """Print the measured pages, beside bertviz's model_view where it is there."""
    theirs = built.get("bertviz model_view")
    print("| page | MB | of bertviz | seconds to build | of bertviz | to open |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, measured in built.items():
        ratios = [f"{one / other:.3f}" for one, other in zip(measured, theirs, strict=True)] if theirs else ["", ""]
        opened = "" if name.startswith("bertviz") else f"{opening(folder / file_of(name), folder):.1f}"
        print(f"| {name} | {measured[0]:.2f} | {ratios[0]} | {measured[1]:.2f} | {ratios[1]} | {opened} |")


def given_by(args: argparse.Namespace) -> Explanation:
    """Return the explanation that the command line asks for."""
    if args.explanation:
        return Explanation.load(args.explanation)
    if args.sentence:
        sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
        from demo_model import load_demo_model

        return explain(*load_demo_model(), [SENTENCE], progress=False)[0]
    return explanation(args.layers, args.heads, args.tokens, args.flat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--flat", action="store_true", help="maps in which no value is rarer than another")
    parser.add_argument("--sentence", action="store_true", help="the README's sentence, in place of random maps")
    parser.add_argument("--explanation", type=Path, help="a file of Explanation.save, in place of random maps")
    parser.add_argument("--rounds", type=int, default=3, help="how often every page is built (default: 3)")
    parser.add_argument("--keep", type=Path, help="folder for the pages; by default they are thrown away")
    args = parser.parse_args()
    given = given_by(args)
    pages: dict[str, Callable[[Path], Any]] = {
        "words": lambda path: write_html(plot_tokens(given), path),
        "tree": lambda path: write_html(plot_tree(attribution_tree(given), given), path),
        "flow": lambda path: write_html(plot_flow(given), path),
        "attention maps": lambda path: write_html(plot_attention(given), path),
        "report": lambda path: write_report(given, path),
        "bertviz head_view": lambda path: bertviz_page(given, path, "head_view"),
        "bertviz model_view": lambda path: bertviz_page(given, path, "model_view"),
    }
    with TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        table(builds(pages, folder, args.rounds), folder)
        print(f"choosing a head in the report: {choosing(folder / 'report.html', folder):.0f} ms")


if __name__ == "__main__":
    main()
