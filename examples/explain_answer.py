"""What the answer to a question came from, as a page that opens offline.

    python examples/explain_answer.py --model FOLDER "When was it built?" "It was built in 1889." --output 1889.html

The folder holds a model for extractive question answering and its tokenizer. `--answer` explains another string of the
context than the model's answer, and `--against` the difference to one: why this rather than that.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from captum_attattr import explain, removal_effects, token_scores, write_report
from captum_attattr.commands.endings import OneLineParser, guarded  # as the package's own command line ends
from captum_attattr.commands.models import load_model  # as it loads
from captum_attattr.commands.outputs import result_file  # tried before the work


def main() -> None:
    """Run the command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("context")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--answer", help="a string of the context that is explained instead of the model's answer")
    parser.add_argument("--against", help="a second string of the context, whose output is taken off the answer's")
    parser.add_argument("--top", type=int, default=10, help="how many words and interactions are printed (default: 10)")
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that comes with --model")
    parser.add_argument("--output", type=Path, default=Path("answer.html"), help="the page (default: answer.html)")
    args = parser.parse_args()

    result_file(args.output, beside=".safetensors")
    model, tokenizer = load_model(args.model, trust_remote_code=args.trust_remote_code)
    pair, target = [(args.question, args.context)], args.answer
    options = {"output": "log_probability", "contrast": args.against}  # the probability of a sure answer is flat
    options["task"] = "question_answering"  # which a model of another kind does not fit

    print(token_scores(model, tokenizer, pair, target, **options)[0].table(top=args.top))
    explanation = explain(model, tokenizer, pair, target, **options)[0]
    effects = removal_effects(model, tokenizer, explanation, explanation.strongest(args.top))
    print("\nwhat the answer loses without each of its strongest interactions:")
    print(effects.table(args.top))
    explanation.save(args.output.with_suffix(".safetensors"))
    print("\n" + str(write_report(explanation, args.output, effects=effects)))


if __name__ == "__main__":
    flags = {"target": "--answer", "contrast": "--against"}
    sys.exit(guarded(Path(__file__).name, main, flags))
