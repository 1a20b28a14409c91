"""The published AttAttr code's way through a BERT classifier, written out plainly, for timing beside this package."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class Protocol:
    """The published code's way through a BERT classifier, one padded example at a time."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.heads = model.config.num_attention_heads

    def encode(self, text: Any) -> tuple[Tensor, Tensor]:
        """Return embeddings and attention mask, padded to 128 tokens."""
        parts = (text,) if isinstance(text, str) else text
        encoding = self.tokenizer(*parts, padding="max_length", max_length=128, truncation=True, return_tensors="pt")
        hidden = self.model.bert.embeddings(encoding["input_ids"], token_type_ids=encoding.get("token_type_ids"))
        return hidden, (1.0 - encoding["attention_mask"][:, None, None].float()) * -10_000.0

    def logits(self, text: Any, layer: int = -1, attention: Tensor | None = None, keep: list[Tensor] | None = None):
        """Return logits, one layer's attention replaced by a given batch; without a batch that layer's attention."""
        hidden, mask = self.encode(text)
        for index, block in enumerate(self.model.bert.encoder.layer):
            parts = block.attention.self
            query, key, value = (
                linear(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                for linear in (parts.query, parts.key, parts.value)
            )
            weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + mask).softmax(-1)
            if index == layer and attention is not None:
                weights = attention
            elif index == layer:
                return weights
            context = (weights @ value).transpose(1, 2).flatten(2)
            if keep is not None:
                context.retain_grad()
                keep.append(context)
            hidden = block.attention.output(context, hidden.expand(len(context), -1, -1))
            hidden = block.output(block.intermediate(hidden), hidden)
        return self.model.classifier(self.model.bert.pooler(hidden))

    def maps(self, text: Any, label: int, steps: int, batch: int) -> Tensor:
        """Return (L, H, T, T) attributions by a left sum of `steps` nodes, `batch` at a time, padding included."""
        maps = []
        for layer in range(len(self.model.bert.encoder.layer)):
            with torch.no_grad():
                attention = self.logits(text, layer)
            step = attention / steps
            total = torch.zeros_like(attention[0])
            for start in range(0, steps, batch):
                scaled = torch.cat([step * k for k in range(start, start + batch)]).requires_grad_()
                probability = self.logits(text, layer, scaled).softmax(-1)[:, label].sum()
                (gradient,) = torch.autograd.grad(probability, scaled)
                total += gradient.sum(0)
            maps.append(total * step[0])
        return torch.stack(maps)

    def attattr(self, text: Any, label: int) -> Tensor:
        """Return the (L, H) largest attributions to the label, 20 nodes in one batch."""
        return self.maps(text, label, 20, 20).amax((2, 3))

    def taylor(self, text: Any, label: int) -> Tensor:
        """Return (L, H) sensitivities of the loss; by backward(), which reaches the parameters too."""
        contexts: list[Tensor] = []
        for parameter in self.model.parameters():
            parameter.requires_grad_(True)
        torch.nn.functional.cross_entropy(self.logits(text, keep=contexts), torch.tensor([label])).backward()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        products = [(c * c.grad).unflatten(-1, (self.heads, -1)).sum(-1).abs() for c in contexts]
        return torch.stack([product.sum((0, 1)).detach() for product in products])
