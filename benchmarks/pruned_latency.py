"""Time of a BERT-base with half of its heads cut out, beside the share of its operations that are gone.

    python benchmarks/pruned_latency.py [--rows 32] [--tokens 128] [--repeats 5]

The whole and the pruned model run in turn, so that a busy machine slows both alike; medians.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
from transformers import BertConfig, BertModel

from captum_attattr import prune_heads


def operations(heads: int, tokens: int, config: BertConfig) -> dict[str, float]:
    """Multiplications of one row, of all layers: the maps around attention, attention itself, and the rest."""
    width, size = config.hidden_size, config.hidden_size // config.num_attention_heads
    layer = {
        "projections": 4 * tokens * width * heads * size,
        "attention": 2 * tokens * tokens * heads * size,
        "feed-forward": 2 * tokens * width * config.intermediate_size,
    }
    return {name: config.num_hidden_layers * count for name, count in layer.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    whole = BertModel(BertConfig()).eval()
    config = whole.config
    pruned = copy.deepcopy(whole)
    prune_heads(pruned, {layer: range(0, 12, 2) for layer in range(12)})
    ids = torch.randint(1000, 20_000, (given.rows, given.tokens))
    times: dict[str, list[float]] = {"whole": [], "half of the heads": []}
    parts: dict[str, list[float]] = {"whole": [], "half of the heads": []}
    began: list[float] = []
    with torch.no_grad():
        for model, name in ((whole, "whole"), (pruned, "half of the heads")):
            for layer in model.encoder.layer:  # attention with its output projection; the rest is feed-forward
                layer.attention.register_forward_pre_hook(lambda *_: began.append(time.perf_counter()))
                layer.attention.register_forward_hook(
                    lambda *_, name=name: parts[name].append(time.perf_counter() - began.pop())
                )
        for repeat in range(given.repeats + 1):
            for model, name in ((whole, "whole"), (pruned, "half of the heads")):
                start = time.perf_counter()
                model(ids)
                if repeat:
                    times[name].append(time.perf_counter() - start)
    counts = {"whole": operations(12, given.tokens, config), "half of the heads": operations(6, given.tokens, config)}
    print("| | operations | time of a forward | in attention | elsewhere |\n|---|---|---|---|---|")
    base = statistics.median(times["whole"])
    for name, taken in times.items():
        median = statistics.median(taken)
        attention = sum(parts[name][12:]) / given.repeats
        share = sum(counts[name].values()) / sum(counts["whole"].values())
        print(
            f"| {name} | {share:.1%} | {median:.2f} s ({median / base:.1%}) | {attention / base:.1%} | "
            f"{(statistics.fmean(taken) - attention) / base:.1%} |"
        )


if __name__ == "__main__":
    main()
