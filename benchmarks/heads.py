"""Head importance, examples per second: this package beside the published code's protocol, on the same rows.

The protocol: one example at a time, padded to 128 tokens; for attributions the left sum of 20 nodes, layer by
layer, in one batch of 20; for Taylor one forward and one backward(), gradients of the parameters included, as
published (see protocol.py).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from protocol import Protocol
from torch import Tensor

from captum_attattr import head_importance
from captum_attattr.tasks import task


def run_protocol(score: Callable[[Any, int], Tensor], rows: list[tuple[Any, int]]) -> Tensor:
    """Return scores of (N, L, H), one example after another."""
    return torch.stack([score(text, label) for text, label in rows])


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a BERT classifier")
    parser.add_argument("--task", default="sst-2")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument(
        "--rows", type=int, default=200, help="rows for the package; the protocol takes --protocol_rows"
    )
    parser.add_argument("--protocol_rows", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(args.model, trust_remote_code=False).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
    rows = task(args.task).read(args.data_dir, "dev")[: args.rows]
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    protocol = Protocol(model, tokenizer)
    few = list(zip(texts, labels, strict=True))[: args.protocol_rows]
    print("| method | protocol, examples/s | here, examples/s | times faster | largest difference of a mean score |")
    print("|---|---:|---:|---:|---:|")
    for method, options in (("attattr", {}), ("taylor", {"normalize": False})):
        ours = {"method": method, "progress": False, "truncate": 128, **options}
        one_by_one = partial(run_protocol, getattr(protocol, method), few)
        here = partial(head_importance, model, tokenizer, texts, labels, **ours)
        ratios, speeds = [], []
        for _ in range(args.repeats):  # in turn, so that both run under the same load
            theirs_s, theirs = timed(one_by_one)
            ours_s, _ = timed(here)
            speeds.append((len(few) / theirs_s, len(texts) / ours_s))
            ratios.append(speeds[-1][1] / speeds[-1][0])
        exact = {"n_steps": 20, "rule": "riemann_left"} if method == "attattr" else {}
        same = head_importance(model, tokenizer, texts[: len(few)], labels[: len(few)], **ours, **exact)
        gap = (same.scores - theirs.mean(0).double()).abs().max() / same.scores.abs().max()
        median = [statistics.median(column) for column in zip(*speeds, strict=True)]
        print(f"| {method} | {median[0]:.2f} | {median[1]:.2f} | {statistics.median(ratios):.1f} | {gap:.1e} |")


if __name__ == "__main__":
    main()
