"""Time and memory of explaining a written answer, beside writing it: ratios, in one run.

The model has GPT-2's shape (12 layers) or T5-small's (6 and 6) and random weights, or is SmolLM2-135M-Instruct (see
decoder.py). The answer is greedy and of a fixed length; both runs are timed in turn, several times.
`explain_generation` is asked for the answer and its scores at once, as a user asks: its time has the writing in it.
"""

from __future__ import annotations

import argparse
import resource
import statistics
from typing import Any

import torch
import transformers
from speed import seconds
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from captum_attattr import explain_generation


def made(shape: str) -> tuple[Any, Any]:
    """Return a model of GPT-2's or T5-small's shape, and a tokenizer whose words are numbers."""
    torch.manual_seed(0)
    model: Any = GPT2LMHeadModel(GPT2Config(bos_token_id=None, eos_token_id=None))
    if shape == "t5-small":
        model = T5ForConditionalGeneration(T5Config(decoder_start_token_id=0, eos_token_id=None))
    words = {f"w{i}": i for i in range(model.config.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return model.eval(), PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("gpt2", "t5-small", "smollm2"), default="gpt2")
    parser.add_argument("--prompt", type=int, default=50, help="tokens")
    parser.add_argument("--answer", type=int, default=20, help="tokens")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.shape == "smollm2":
        from decoder import load

        model, tokenizer = load()
        model.generation_config.eos_token_id = model.config.eos_token_id = None  # an answer of the length asked for
    else:
        model, tokenizer = made(args.shape)
    model.to(args.device)
    ids = torch.randint(5, model.config.vocab_size - 5, (args.prompt,), generator=torch.Generator().manual_seed(0))
    length = {"max_new_tokens": args.answer, "do_sample": False}

    def write() -> Any:
        batch = ids[None].to(args.device)
        with torch.no_grad():
            return model.generate(batch, attention_mask=torch.ones_like(batch), **length)

    def explained() -> Any:
        return explain_generation(model, tokenizer, ids.tolist(), n_steps=args.nodes, progress=False, **length)

    write()  # warm up
    times: dict[str, list[float]] = {"writing": [], "writing and scores": []}
    for _ in range(args.repeats):
        times["writing"].append(seconds(write, args.device))
        times["writing and scores"].append(seconds(explained, args.device))
    where = torch.cuda.get_device_name() if torch.device(args.device).type == "cuda" else f"CPU, {args.threads} threads"
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {where}")
    print(f"{args.shape}; prompt {args.prompt} tokens, answer {args.answer}, {args.nodes} nodes\n")
    middle = {name: statistics.median(values) for name, values in times.items()}
    print("| | seconds | times the writing |\n|---|---:|---:|")
    for name, value in middle.items():
        print(f"| {name} | {value:.3f} | {value / middle['writing']:.1f} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"\npeak memory of the process: {peak:.0f} MiB")
    if torch.device(args.device).type == "cuda":
        print(f"of the device: {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
