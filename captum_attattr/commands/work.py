"""What each command of `captum-attattr` does with its arguments: calls of the library, and lines to print."""

from __future__ import annotations

import argparse
from typing import Any

from captum_attattr.commands.data import read_rows
from captum_attattr.commands.models import load_model
from captum_attattr.commands.outputs import result_file, result_folder
from captum_attattr.evaluation.comparison import compare_attributions
from captum_attattr.evaluation.effects import removal_effects
from captum_attattr.explanations.explain import explain
from captum_attattr.explanations.explain_generation import explain_generation
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.files import checked_path
from captum_attattr.formatting import counted, output_value, visible, whole_text
from captum_attattr.heads.importance import HeadImportance, head_importance
from captum_attattr.model.head_pruning import prune_heads
from captum_attattr.model.pruned_files import save_pruned
from captum_attattr.plots.canvas.pages import write_html
from captum_attattr.plots.faithfulness import plot_faithfulness
from captum_attattr.plots.generation import plot_generation
from captum_attattr.plots.heads import plot_heads
from captum_attattr.plots.report_page import write_report
from captum_attattr.runs.digests import model_digest


def explain_texts(args: argparse.Namespace) -> None:
    """Print what carried each decision."""
    _check_top(args.top)
    folder = None if args.output is None else result_folder(args.output)
    explanations = _explained(args)[2]
    files = [e.save(folder / f"explanation_{index}.safetensors") for index, e in enumerate(explanations, 1) if folder]
    for index, explanation in enumerate(explanations):  # once all are saved: the lines may end at a closed pipe
        print(told(explanation, args.top))
        if files:
            print(f"  saved: {files[index]}")


def report_texts(args: argparse.Namespace) -> None:
    """Write a page for each decision."""
    folder = result_folder(args.output)
    model, tokenizer, explanations = _explained(args)
    lines = []
    for index, explanation in enumerate(explanations, 1):
        strongest = explanation.strongest()
        effects = removal_effects(model, tokenizer, explanation, strongest) if args.effects else None
        page = write_report(explanation, folder / f"report_{index}.html", effects=effects)
        lines.append(f"{_decision(explanation)}: {page}")
    print("\n".join(lines))


def explain_answer(args: argparse.Namespace) -> None:
    """Print what each token of an answer came from, and write scores and page."""
    _check_top(args.top)
    output = result_file(args.output, args.resume)
    model, tokenizer = load_model(args.model, trust_remote_code=args.trust_remote_code)
    prompt: Any = [{"role": "user", "content": args.prompt}] if tokenizer.chat_template else args.prompt
    given: dict[str, Any] = {"generated": args.answer, "max_new_tokens": args.max_new_tokens, "n_steps": args.nodes}
    result = explain_generation(model, tokenizer, prompt, resume=args.resume, **given)
    saved = f"saved: {result.save(output)}, {write_html(plot_generation(result), output.with_suffix('.html'))}"
    print(f"{result.table(args.top)}\n{saved}")


def score_heads(args: argparse.Namespace) -> None:
    """Score the heads, print the first and the last, and write scores and page."""
    _check_top(args.top)
    output = result_file(args.output, args.resume)
    texts, labels = read_rows(args.data, needs_labels=True)
    model, tokenizer = load_model(args.model, trust_remote_code=args.trust_remote_code)
    labels = [named_class(model, label) for label in labels]
    importance = head_importance(
        model, tokenizer, texts, labels, args.method, truncate=args.truncate, resume=args.resume
    )
    importance.save(output)
    page = write_html(plot_heads(importance), output.with_suffix(".html"))
    ranking = importance.ranking("most")
    print(f"{importance.name} of {counted(len(ranking), 'head')}, mean over {counted(importance.count, 'text')}")
    for title, heads in (("most important", ranking[: args.top]), ("least important", ranking[: -args.top - 1 : -1])):
        print(f"{title}:")
        for layer, head in heads:
            print(f"  layer {layer}, head {head}: {importance.scores[layer, head]:.3g}")
    print(f"saved: {output}, {page}")


def prune_model(args: argparse.Namespace) -> None:
    """Cut the least important heads out of a model, and save it."""
    if checked_path(args.output, "--output").is_file():
        raise ValueError(f"--output {args.output} is a file: a folder is needed, for the model and its tokenizer")
    importance = HeadImportance.load(args.importance)
    ranking = importance.ranking()
    if not 1 <= args.count <= len(ranking):
        raise ValueError(f"--count {args.count}: {args.importance} ranks {len(ranking)} heads; 1 to {len(ranking)}")
    model, tokenizer = load_model(args.model, trust_remote_code=args.trust_remote_code)
    if importance.model != model_digest(model):
        raise ValueError(
            f"--importance {args.importance} was made of another model than --model {args.model}, or of other weights: "
            "make it again with captum-attattr heads"
        )
    before = sum(parameter.numel() for parameter in model.parameters())
    prune_heads(model, ranking[: args.count])
    after = sum(parameter.numel() for parameter in model.parameters())
    folder = save_pruned(model, args.output)
    tokenizer.save_pretrained(folder)
    print(f"{counted(args.count, 'head')} of {len(ranking)} cut out: {before:,} parameters before, {after:,} now")
    print(f"saved: {folder} (read it with captum_attattr.load_pruned, or as --model here)")


def compare_methods(args: argparse.Namespace) -> None:
    """Measure several attributions on the same decisions, print the table, and write numbers and page."""
    output = result_file(args.output, args.resume)
    texts, model, tokenizer, target, options = _asked(args)
    try:
        baseline = None if args.baseline is None else float(args.baseline)
    except ValueError:
        baseline = args.baseline
    compared = compare_attributions(
        model,
        tokenizer,
        texts,
        args.attributions,
        target,
        unit=args.unit,
        baseline=baseline,
        resume=args.resume,
        **options,
    )
    page = write_html(plot_faithfulness(compared.results), output.with_suffix(".html"))
    saved = f"saved: {compared.save(output)}, {page}"
    print(f"{compared.table()}\n{saved}")


def told(explanation: Explanation, top: int) -> str:
    """Return an explanation as lines: the decision, its strongest interactions, and how exact they are."""
    lines = [_decision(explanation), f"  {'score':>9}  layer  head  query <- key (the query reads the key)"]
    for layer, head, query, key, score in explanation.strongest(top, special=False):
        words = " <- ".join(visible(explanation.tokens[position], 24) for position in (query, key))
        lines.append(f"  {score:9.3g}  {layer:5d}  {head:4d}  {words}")
    missing = float(explanation.delta.abs().max())
    lines.append(f"  a layer's scores add up to F with its attention less F without, within {missing:.1e}")
    if explanation.output == "probability" and (explanation.value or 0) > 0.99:
        lines.append("  F is nearly 1, where its scores are tiny: --attribute logit tells more")
    return "\n".join(lines)


def _decision(explanation: Explanation) -> str:
    """Return text, class and F in a line."""
    value = output_value(explanation.output, explanation.value, explanation.contrast is not None)
    return f"{visible(whole_text(explanation.text), 80)}: {explanation.decision(repr)}, {value}"


def _asked(args: argparse.Namespace) -> tuple[list[Any], Any, Any, Any, dict[str, Any]]:
    """Return the texts of the command line and of its file, model, tokenizer, target, and options of `explain`."""
    texts: list[Any] = [*args.text, *map(tuple, args.pair)]
    texts += read_rows(args.data, needs_labels=False)[0] if args.data else []
    if not texts:
        raise ValueError("nothing to explain: give texts, --pair or --data")
    model, tokenizer = load_model(args.model, trust_remote_code=args.trust_remote_code)
    target = named_class(model, args.target)
    options = {"output": args.attribute, "contrast": args.contrast, "truncate": args.truncate}
    return texts, model, tokenizer, target, options


def named_class(model: Any, given: Any) -> Any:
    """Return a class, or a score, as functions take it: a number typed as text is one, unless classes are named so.

    Args:
        model: whose configuration has the names.
        given: a text of the command line or of a file; None passes.
    """
    if given is None or any(str(name).isdecimal() for name in getattr(model.config, "id2label", {}).values()):
        return given
    if given.isdecimal():
        return int(given)
    if not type(model).__name__.endswith("ForSequenceClassification"):  # a token may look like a number
        return given
    try:
        number = float(given)
    except ValueError:
        return given
    return int(number) if number.is_integer() else number  # pandas writes classes as 1.0 where one is missing


def _explained(args: argparse.Namespace) -> tuple[Any, Any, list[Explanation]]:
    """Return the model, its tokenizer, and explanations of the texts."""
    texts, model, tokenizer, target, options = _asked(args)
    return model, tokenizer, explain(model, tokenizer, texts, target, **options)


def _check_top(top: int) -> None:
    """Check how many lines are to be printed."""
    if top < 1:
        raise ValueError(f"--top {top} is too small: at least 1 is needed")
