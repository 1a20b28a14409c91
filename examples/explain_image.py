"""Which patches of a picture carried a model's decision, and which patches read which, as a page that opens offline.

    python examples/explain_image.py --model FOLDER flower.jpg --output flower.html

The folder holds a model and its processor: a classifier (ViT, DeiT, DINOv2 ...); with `--text` a model of image-text
similarity (CLIP, SigLIP), of which several `--text` are candidates among which it chooses; with `--prompt` a model that
answers to pictures (LLaVA ...), of whose answer the first token is explained.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from captum_attattr import explain_images, plot_image, removal_effects, write_html, write_report
from captum_attattr.commands.endings import OneLineParser, guarded  # as the package's own command line ends
from captum_attattr.commands.outputs import result_file  # tried before the work


def main() -> None:
    """Run the command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", help="files")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--text", action="append", help="what the pictures are compared with; several: candidates")
    parser.add_argument("--prompt", help="what the model is asked about the pictures")
    parser.add_argument("--target", help="a class, candidate or token that is explained instead of the model's choice")
    parser.add_argument("--nodes", type=int, default=16, help="of the integral (default: 16)")
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that comes with --model")
    parser.add_argument("--output", type=Path, default=Path("image.html"), help="the page (default: image.html)")
    args = parser.parse_args()

    result_file(args.output, beside=".safetensors")
    given: dict[str, Any] = {}
    kind: Any = AutoModelForImageClassification
    if args.prompt:
        kind, given = AutoModelForImageTextToText, {"text": args.prompt}
    elif args.text:
        kind, given = AutoModel, {"candidates": args.text} if len(args.text) > 1 else {"text": args.text[0]}
    processors: Any = AutoProcessor if given else AutoImageProcessor
    model = kind.from_pretrained(args.model, trust_remote_code=args.trust_remote_code)
    processor = processors.from_pretrained(args.model, trust_remote_code=args.trust_remote_code)
    explanations = explain_images(model, processor, args.images, args.target, n_steps=args.nodes, **given)

    for explanation, path in zip(explanations, args.images, strict=True):
        print(f"{path}: {explanation.label!r}, {explanation.output} {explanation.value:.4f}")
        scores = explanation.patch_scores()
        for i in scores.flatten().abs().argsort(descending=True)[:5].tolist():
            row, column = (int(part) for part in torch.unravel_index(torch.tensor(i), scores.shape))
            print(f"  row {row:>2}, column {column:>2}  {scores[row, column]:+.4f}")
    effects = removal_effects(model, processor, explanations[0], top=10)
    print(effects.table(5))
    explanations[0].save(args.output.with_suffix(".safetensors"))
    report = write_report(explanations[0], args.output.with_suffix(".report.html"), effects=effects)
    print(f"\n{write_html(plot_image(explanations), args.output)}\n{report}")


if __name__ == "__main__":
    flags = {"target": "--target", "n_steps": "--nodes"}
    sys.exit(guarded(Path(__file__).name, main, flags))
