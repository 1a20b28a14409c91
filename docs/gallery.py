"""Every kind of page, of the demonstration model, in one folder: python docs/gallery.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from demo_model import load_demo_model

from captum_attattr import (
    attribution_tree,
    explain,
    head_importance,
    plot_attention,
    plot_flow,
    plot_heads,
    plot_tokens,
    plot_tree,
    write_html,
    write_report,
)

TEXTS = [
    "Seldom has a movie so closely matched the spirit of a man and his work .",
    "the jokes are lame , the story is a bore",
    "a gorgeous , witty film",
    "dull and lifeless",
]


def main(folder: Path) -> None:
    """Write all pages into a folder, and an index of them."""
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load_demo_model()
    explanations = explain(model, tokenizer, TEXTS, progress=False)
    labels = [each.label for each in explanations]
    importance = head_importance(model, tokenizer, TEXTS, labels, progress=False)
    first = explanations[0]
    figures = {
        "words": plot_tokens(explanations),
        "tree": plot_tree(attribution_tree(first), first),
        "tree_for_print": plot_tree(attribution_tree(first), first, style="paper"),
        "flow": plot_flow(first),
        "maps": plot_attention(first),
        "heads": plot_heads(importance),
    }
    write_report(first, folder / "report.html")
    for name, figure in figures.items():
        write_html(figure, folder / f"{name}.html", plotlyjs="directory")
    links = "".join(f'<li><a href="{name}.html">{name}</a></li>' for name in ["report", *figures])
    page = (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Gallery</title><h1>Gallery</h1><ul>{links}</ul>'
    )
    (folder / "index.html").write_text(page + "</html>\n", encoding="utf-8")
    print(f"{len(figures) + 1} pages in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
