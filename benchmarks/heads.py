"""Head importance, examples per second: this package beside the published code's protocol, on the same rows.

The protocol: one example at a time, padded to 128 tokens; for attributions the left sum of 20 nodes, layer by
layer, in one batch of 20; for Taylor one forward and one backward(), gradients of the parameters included, as
published. Both are written out here plainly.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_attattr import head_importance
from captum_attattr.tasks import task


class Protocol:
    """The published code's way through a BERT classifier, one padded example at a time."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.heads = model.config.num_attention_heads

    def encode(self, text: Any) -> tuple[Tensor, Tensor]:
        """Embeddings and attention mask, padded to 128 tokens."""
        parts = (text,) if isinstance(text, str) else text
        encoding = self.tokenizer(*parts, padding="max_length", max_length=128, truncation=True, return_tensors="pt")
        hidden = self.model.bert.embeddings(encoding["input_ids"], token_type_ids=encoding.get("token_type_ids"))
        return hidden, (1.0 - encoding["attention_mask"][:, None, None].float()) * -10_000.0

    def logits(self, text: Any, layer: int = -1, attention: Tensor | None = None, keep: list[Tensor] | None = None):
        """Logits, with one layer's attention replaced by a batch of others where one is given."""
        hidden, mask = self.encode(text)
        for number, block in enumerate(self.model.bert.encoder.layer):
            parts = block.attention.self
            query, key, value = (
                linear(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                for linear in (parts.query, parts.key, parts.value)
            )
            weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + mask).softmax(-1)
            if number == layer and attention is not None:
                weights = attention
            elif number == layer:
                return weights
            context = (weights @ value).transpose(1, 2).flatten(2)
            if keep is not None:
                context.retain_grad()
                keep.append(context)
            hidden = block.attention.output(context, hidden.expand(len(context), -1, -1))
            hidden = block.output(block.intermediate(hidden), hidden)
        return self.model.classifier(self.model.bert.pooler(hidden))

    def attattr(self, text: Any, label: int) -> Tensor:
        """(L, H) largest attributions to the label."""
        rows = []
        for layer in range(len(self.model.bert.encoder.layer)):
            with torch.no_grad():
                attention = self.logits(text, layer)
            step = attention / 20
            scaled = torch.cat([step * k for k in range(20)]).requires_grad_()
            probability = self.logits(text, layer, scaled).softmax(-1)[:, label].sum()
            (gradient,) = torch.autograd.grad(probability, scaled)
            rows.append((gradient.sum(0) * step[0]).amax((1, 2)))
        return torch.stack(rows)

    def taylor(self, text: Any, label: int) -> Tensor:
        """(L, H) sensitivities of the loss; by backward(), which reaches the parameters too."""
        contexts: list[Tensor] = []
        for parameter in self.model.parameters():
            parameter.requires_grad_(True)
        torch.nn.functional.cross_entropy(self.logits(text, keep=contexts), torch.tensor([label])).backward()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        products = [(c * c.grad).unflatten(-1, (self.heads, -1)).sum(-1).abs() for c in contexts]
        return torch.stack([product.sum((0, 1)).detach() for product in products])


def run_protocol(score: Callable[[Any, int], Tensor], rows: list[tuple[Any, int]]) -> Tensor:
    """(N, L, H), one example after another."""
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

    model = AutoModelForSequenceClassification.from_pretrained(args.model).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
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
        for _ in range(args.repeats):  # in turn, so that both meet the same machine
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
