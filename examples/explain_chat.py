"""What each word of a chat model's answer came from, as a page that opens offline.

    python examples/explain_chat.py --model FOLDER "What is the capital of France?" --output france.html

The folder holds a causal language model and its tokenizer, with a chat template (without one the question is the prompt
as it stands). `--answer` explains an answer of your own instead of the model's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from captum_attattr import explain_generation, plot_generation, write_html
from captum_attattr.commands.endings import OneLineParser, guarded  # as the package's own command line ends
from captum_attattr.commands.models import load_model  # as it loads
from captum_attattr.commands.outputs import result_file  # tried before the work


def main() -> None:
    """Run the command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--system", help="what the system message says")
    parser.add_argument("--answer", help="an answer that is explained instead of the model's own")
    parser.add_argument("--max-new-tokens", type=int, default=40, help="of the model's answer (default: 40)")
    parser.add_argument("--nodes", type=int, default=8, help="of the integral; large models need 32 (default: 8)")
    parser.add_argument("--sentence", help="a part of the answer: print what it came from as a whole")
    parser.add_argument("--resume", help="a file from which a run that was stopped goes on")
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that comes with --model")
    parser.add_argument("--output", type=Path, default=Path("chat.html"), help="the page (default: chat.html)")
    args = parser.parse_args()

    result_file(args.output, args.resume, beside=".safetensors")
    model, tokenizer = load_model(args.model, trust_remote_code=args.trust_remote_code)
    prompt: Any = args.question
    if tokenizer.chat_template:
        system = [{"role": "system", "content": args.system}] if args.system else []
        prompt = [*system, {"role": "user", "content": args.question}]
    given = {"generated": args.answer} if args.answer is not None else {"max_new_tokens": args.max_new_tokens}
    result = explain_generation(model, tokenizer, prompt, n_steps=args.nodes, resume=args.resume, **given)

    print(result.table())
    if args.sentence:
        print()
        print(result.span(args.sentence).table(top=10))
    result.save(args.output.with_suffix(".safetensors"))
    print("\n" + str(write_html(plot_generation(result), args.output)))


if __name__ == "__main__":
    flags = {"generated": "--answer", "max_new_tokens": "--max-new-tokens", "n_steps": "--nodes", "resume": "--resume"}
    sys.exit(guarded(Path(__file__).name, main, flags))
