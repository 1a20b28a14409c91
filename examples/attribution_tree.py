"""Builds the attribution tree of one example from the published code's files, and draws it.

Writes OUTPUT.html (offline), OUTPUT.txt and OUTPUT.graphml. The edges are those of the published script; --algorithm
paper gives Algorithm 1 of the paper, which differs from it.
"""

from __future__ import annotations

import argparse
import os
import webbrowser
from pathlib import Path

from common.command_line import OneLineParser, run_script

from captum_attattr import attribution_tree, plot_tree, save_tree, tasks, tree_text, write_html
from captum_attattr.published.attribution_files import read_explanation  # a file format that only the scripts need

ENDINGS = (".html", ".txt", ".graphml")


def arguments() -> argparse.Namespace:
    """Read the command line; --attr_file, --tokens_file, --task_name and --example_index are the published code's."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--attr_file", required=True, help="attributions of the example: attr_zero_base_exp{N}.json")
    parser.add_argument("--tokens_file", required=True, help="tokens of all examples: tokens_and_pred_{N}.json")
    parser.add_argument("--task_name", required=True, help="the task, in any case: MNLI, SST-2 ...")
    parser.add_argument("--example_index", type=int, default=128, help="the example's number in --tokens_file")
    parser.add_argument("--att_file", help="its attention, for the hover: att_score_zero_base_exp{N}.json")
    parser.add_argument("--threshold", type=float, default=0.4, help="share of a layer's maximum that an edge needs")
    parser.add_argument("--algorithm", choices=("paper", "reference"), default="reference", help="whose rules")
    output = "path of the results without ending, or a folder (FOLDER/) for tree_exp{N}"
    parser.add_argument("--output", default=".", help=output)
    parser.add_argument("--show", action="store_true", help="open the page in the browser")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Read the example, grow its tree, write and print it."""
    task = tasks.task(args.task_name)
    explanation = read_explanation(
        args.attr_file, args.tokens_file, args.example_index, args.att_file, task.labels, task.label_names
    )
    tree = attribution_tree(explanation, args.threshold, args.algorithm)
    figure = plot_tree(tree, explanation)
    output = Path(args.output)
    if output.is_dir() or args.output.endswith(("/", os.sep)):
        output /= f"tree_exp{args.example_index}"
    output = output.with_suffix("") if output.suffix in ENDINGS else output
    output.parent.mkdir(parents=True, exist_ok=True)
    page, *others = files = [Path(f"{output}{ending}") for ending in ENDINGS]
    write_html(figure, page)
    for file in others:
        save_tree(tree, file)
    print(tree_text(tree))
    print(f"wrote {', '.join(map(str, files))}")
    if args.show:
        webbrowser.open(page.resolve().as_uri())


if __name__ == "__main__":
    flags = arguments()
    run_script(lambda: main(flags), flags)
