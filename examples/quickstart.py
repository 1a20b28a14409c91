"""Explains a model's decisions on a few texts: what it predicts, and which interactions carried that.

Without arguments it takes the demonstration model, a small English encoder fine-tuned on film reviews. With
--model it takes any sequence classifier or causal language model, from a folder or by its hub name.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from captum_attattr import (
    EmptyTreeError,
    Explanation,
    attribution_tree,
    explain,
    removal_effects,
    tree_text,
    write_report,
)
from captum_attattr.commands.endings import OneLineParser, ShortHelp, guarded  # as its own command line ends
from captum_attattr.commands.models import load_model  # as its own command line loads
from captum_attattr.commands.outputs import result_folder  # tried before the work
from captum_attattr.commands.work import named_class  # as it reads a class
from captum_attattr.formatting import counted  # "1 text"

TEXTS = [
    "Seldom has a movie so closely matched the spirit of a man and his work .",
    "A gorgeous , witty , seductive movie .",
    "It is never dull , but it is not a film that I would watch again .",
    "The plot is thin and the jokes are lame .",
]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description=__doc__.splitlines()[0], formatter_class=ShortHelp)
    parser.add_argument("--model", help="folder or hub name of another model than the demonstration model")
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that comes with --model")
    parser.add_argument("--text", action="append", default=[], help="a text to explain; may be repeated")
    parser.add_argument(
        "--pair", action="append", default=[], nargs=2, metavar=("FIRST", "SECOND"), help="a pair of texts"
    )
    parser.add_argument("--target", help="class (label or number) or token to explain; by default what is predicted")
    parser.add_argument("--top", type=int, default=5, help="how many interactions to print")
    parser.add_argument("--effects", action="store_true", help="measure what removing the strongest edges does")
    parser.add_argument("--truncate", action="store_true", help="cut texts that are too long for the model")
    parser.add_argument("--output", type=Path, default=Path("quickstart_output"), help="folder for the results")
    return parser.parse_args()


def load(name: str | None, trust_remote_code: bool) -> tuple[Any, Any]:
    """Load a model and its tokenizer; the demonstration model if none is named."""
    if name is None:
        from demo_model import load_demo_model

        return load_demo_model()
    return load_model(name, trust_remote_code=trust_remote_code)


def report(explanation: Explanation, top: int) -> None:
    """Print one explanation."""
    text = explanation.text if isinstance(explanation.text, str) else " | ".join(explanation.text)
    print(f"\n{text}\n  {explanation.label!r}, F = {explanation.value:.4f}")
    print(f"  {'score':>9}  layer  head  query <- key (the query reads the key)")
    for layer, head, query, key, score in explanation.strongest(top, special=False):
        words = f"{explanation.tokens[query]} <- {explanation.tokens[key]}"
        print(f"  {score:9.3g}  {layer:5d}  {head:4d}  {words}")
    try:
        tree = tree_text(attribution_tree(explanation, merge_subwords=True))
        print("\n".join(f"  {line}" for line in ["attribution tree:", *tree.splitlines()[1:]]))
    except EmptyTreeError as error:
        print(f"  no attribution tree: {error}")
    missing = float(explanation.delta.abs().max())
    print(f"  a layer's scores add up to F with its attention less F without, within {missing:.1e} (delta)")
    print(f"  the model ran at {int(explanation.nodes.sum())} strengths of its attention (nodes)")


def main() -> None:
    """Explain, print, and write one report and one safetensors file per text."""
    args = arguments()
    if args.top < 1:
        raise ValueError(f"--top {args.top} is too small: at least 1 is needed")
    output = result_folder(args.output)
    model, tokenizer = load(args.model, args.trust_remote_code)
    texts = [*args.text, *map(tuple, args.pair)] or TEXTS
    target = named_class(model, args.target)
    begin = time.perf_counter()
    explanations = explain(model, tokenizer, texts, target, truncate=args.truncate)
    seconds = time.perf_counter() - begin
    for count, explanation in enumerate(explanations, 1):
        report(explanation, args.top)
        explanation.save(output / f"explanation_{count}.safetensors")
        strongest = explanation.strongest()
        effects = removal_effects(model, tokenizer, explanation, strongest) if args.effects else None
        write_report(explanation, output / f"explanation_{count}.html", effects=effects)
    print(f"\n{counted(len(texts), 'text')} in {seconds:.1f} s; pages and safetensors files in {output}/")


if __name__ == "__main__":
    sys.exit(guarded(Path(__file__).name, main, {name: f"--{name}" for name in ("target", "truncate")}))
