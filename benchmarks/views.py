"""Sizes of the pages and the time to build them: 12 layers, 12 heads, 128 tokens; bertviz's model_view beside them.

bertviz shows attention only, and its page loads libraries from the network. Only this comparison needs it:

    pip install bertviz ipython
"""

from __future__ import annotations

import argparse
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
    plot_tree,
    write_html,
    write_report,
)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--keep", type=Path, help="folder for the pages; by default they are thrown away")
    args = parser.parse_args()
    given = explanation(args.layers, args.heads, args.tokens)
    pages: dict[str, Callable[[Path], Any]] = {
        "tree": lambda path: write_html(plot_tree(attribution_tree(given), given), path),
        "flow": lambda path: write_html(plot_flow(given), path),
        "attention maps": lambda path: write_html(plot_attention(given), path),
        "report of all": lambda path: write_report(given, path),
        "bertviz model_view": lambda path: bertviz_page(given, path),
    }
    print("| page | MB | seconds to build |")
    print("|---|---:|---:|")
    with TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in pages.items():
            path = folder / f"{name.replace(' ', '_')}.html"
            try:
                write(path)  # once for imports and caches
                begin = time.perf_counter()
                write(path)
            except ImportError as error:
                print(f"| {name} | not installed ({error}) | |")
                continue
            print(f"| {name} | {path.stat().st_size / 1e6:.1f} | {time.perf_counter() - begin:.2f} |")


if __name__ == "__main__":
    main()
