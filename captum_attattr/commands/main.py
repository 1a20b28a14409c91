"""`captum-attattr`: explain, report, generate, heads, prune and compare from a shell."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

from captum_attattr.commands.endings import OneLineParser, ShortHelp, guarded

_DETAILS = {
    "explain": "which interactions carried a decision, printed",
    "report": "the same as a page: tree, flow, all maps",
    "generate": "what each token of a model's answer, or translation, came from",
    "heads": "how much each head does for labelled texts",
    "prune": "a model without its least important heads",
    "compare": "which attribution tells the truth about this model",
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    whole = OneLineParser(
        prog="captum-attattr",
        description="Self-attention attribution: which interactions inside a transformer carried its decision.",
    )
    whole.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, add in _ARGUMENTS.items():
        command = commands.add_parser(
            name,
            help=_DETAILS[name],
            description=f"{_DETAILS[name][0].upper()}{_DETAILS[name][1:]}.",
            formatter_class=ShortHelp,
        )
        command.add_argument("--model", required=True, help="folder of a model and its tokenizer, or a hub name")
        command.add_argument(
            "--trust_remote_code", action="store_true", help="run Python code that comes with the model"
        )
        add(command)
    return whole


def _version() -> str:
    """Return the version that is installed."""
    try:
        return version("captum_attattr")
    except PackageNotFoundError:  # a checkout on the path
        return "of a checkout that is not installed"


def _texts(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("text", nargs="*", help="texts to explain")
    add("--pair", action="append", default=[], nargs=2, metavar=("FIRST", "SECOND"), help="a pair of texts")
    add("--data", metavar="FILE", help="CSV or TSV file with a column text (for pairs also text2)")
    add("--target", help="class (name or number) or token to explain; what is predicted if not given")
    add("--contrast", metavar="CLASS", help="explain why not this class or token instead")
    add("--attribute", choices=("probability", "logit", "log_probability"), help="F; probability if not given")
    add("--truncate", action="store_true", help="cut texts that are longer than the model takes")


def _explain(command: argparse.ArgumentParser) -> None:
    _texts(command)
    command.add_argument("--top", type=int, default=5, help="how many interactions to print")
    command.add_argument("--output", metavar="FOLDER", help="also save each explanation there, as safetensors")


def _report(command: argparse.ArgumentParser) -> None:
    _texts(command)
    command.add_argument("--output", metavar="FOLDER", default=".", help="for report_1.html, report_2.html ...")
    command.add_argument(
        "--effects", action="store_true", help="also remove the ten strongest edges one by one, and show what F loses"
    )


def _generate(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("prompt", help="text to go on from, or to translate or sum up; with a chat template, the user's message")
    add("--answer", metavar="TEXT", help="explain this answer instead of the model's own")
    add("--max_new_tokens", type=int, help="of the model's own answer; 20 if not given")
    add("--nodes", type=int, help="of the integral; 8 if not given, large models need 32")
    add("--top", type=int, default=3, help="how many sources of each token to print")
    add("--resume", metavar="FILE", help="keep what is done in this file, and go on from there")
    add("--output", metavar="FILE", default="answer.safetensors", help="the scores; the page goes beside it (.html)")


def _heads(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data", metavar="FILE", required=True, help="CSV or TSV file with columns text, label (for pairs also text2)")
    add("--method", default="attattr", help="attattr, taylor, attention, loss_difference ...")
    add("--truncate", action="store_true", help="cut texts that are longer than the model takes")
    add("--top", type=int, default=5, help="how many heads to print")
    add("--resume", metavar="FILE", help="keep what is done in this file, and go on from there")
    add("--output", metavar="FILE", default="heads.safetensors", help="the scores; the page goes beside it (.html)")


def _prune(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--importance", metavar="FILE", required=True, help="what the command heads wrote for this model")
    add("--count", type=int, required=True, help="how many of the least important heads to cut out")
    add("--output", metavar="FOLDER", required=True, help="for the pruned model and its tokenizer")


def _compare(command: argparse.ArgumentParser) -> None:
    _texts(command)
    add = command.add_argument
    add("--attributions", nargs="+", metavar="METHOD", help="methods of explain; all that fit if not given")
    add("--unit", choices=("edge", "head", "token", "layer_edge"), default="edge", help="what is kept and removed")
    add("--baseline", help="of the methods that have one: zero, uniform, sink or a number")
    add("--resume", metavar="FILE", help="keep what is done in this file, and go on from there")
    add("--output", metavar="FILE", default="comparison.json", help="the numbers; the page goes beside it (.html)")


_ARGUMENTS = {
    "explain": _explain,
    "report": _report,
    "generate": _generate,
    "heads": _heads,
    "prune": _prune,
    "compare": _compare,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit status, as `guarded` returns it.
    """
    args = parser().parse_args(argv)
    return guarded(f"captum-attattr {args.command}", lambda: _work(args), _flags(args))


def _flags(args: argparse.Namespace) -> dict[str, str]:
    """Return what the library's arguments are called on the command line."""
    called = {name: f"--{name}" for name in vars(args) if name not in ("command", "text", "prompt", "output")}
    others = {"output": "attribute", "generated": "answer", "n_steps": "nodes", "attribution": "attributions"}
    return called | {name: called[flag] for name, flag in others.items() if flag in called}


def _work(args: argparse.Namespace) -> None:
    """Import what a command needs, which takes seconds, and run it."""
    from captum_attattr.commands import work

    commands: dict[str, Callable[[argparse.Namespace], None]] = {
        "explain": work.explain_texts,
        "report": work.report_texts,
        "generate": work.explain_answer,
        "heads": work.score_heads,
        "prune": work.prune_model,
        "compare": work.compare_methods,
    }
    commands[args.command](args)
