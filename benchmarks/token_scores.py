"""Token scores by Captum's methods, of the decision that an explanation is of.

Every method is a function of the model and an explanation, and returns (T,), a score for each token:

- `integrated_gradients`: Captum's `IntegratedGradients` on the token embeddings, 50 Gauss-Legendre nodes, from zeros or
  from padding tokens (special tokens stay, as in Captum's tutorials on BERT); summed over the embedding.
- `gradient_x_input`: Captum's `InputXGradient` on the token embeddings, summed over them.
- `leave_one_out`: Captum's `FeatureAblation`, F(whole) - F with another token in this one's place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from captum.attr import FeatureAblation, InputXGradient, IntegratedGradients
from torch import Tensor, nn

from captum_attattr import Explanation
from captum_attattr.explanations.text_model import TextModel  # F is to be the very one that the explanation is of

AT_ONCE = 64
"""Rows of one forward."""


class Decision:
    """F of an explanation for Captum: a function of one tensor, ids or embeddings, and further arguments.

    Args:
        texts: the model.
        explanation: of one of its decisions.
        name: of the tensor, "input_ids" or "inputs_embeds".
    """

    def __init__(self, texts: TextModel, explanation: Explanation, name: str = "inputs_embeds") -> None:
        inputs = {key: tensor.to(texts.device) for key, tensor in (explanation.inputs or {}).items()}
        self.ids = inputs.pop("input_ids")
        inputs |= texts.beside([explanation.contrast_target])
        self.forward = texts.forward_function([name, *inputs], explanation.output)
        self.options: dict[str, Any] = {"additional_forward_args": tuple(inputs.values())}
        if explanation.output != "score":
            self.options["target"] = explanation.target


def integrated_gradients(
    texts: TextModel, explanation: Explanation, start: str = "padding", n_steps: int = 50
) -> Tensor:
    decision, embed = Decision(texts, explanation), texts.model.get_input_embeddings()
    with torch.no_grad():
        embeddings = embed(decision.ids)
        baselines = torch.zeros_like(embeddings)
        if start == "padding":
            special = torch.tensor([explanation.special], device=decision.ids.device)
            baselines = embed(decision.ids.where(special, texts.tokenizer.pad_token_id))
    method = IntegratedGradients(decision.forward)
    return summed(
        method.attribute(embeddings, baselines, n_steps=n_steps, internal_batch_size=AT_ONCE, **decision.options)
    )


def gradient_x_input(texts: TextModel, explanation: Explanation) -> Tensor:
    decision = Decision(texts, explanation)
    embeddings = texts.model.get_input_embeddings()(decision.ids).detach()
    return summed(InputXGradient(decision.forward).attribute(embeddings.requires_grad_(), **decision.options))


def leave_one_out(texts: TextModel, explanation: Explanation, replacement: int) -> Tensor:
    decision = Decision(texts, explanation, "input_ids")
    method = FeatureAblation(decision.forward)
    with torch.no_grad():
        effects = method.attribute(
            decision.ids, baselines=replacement, perturbations_per_eval=AT_ONCE, **decision.options
        )
    return effects[0].cpu().double()


def summed(scores: Tensor) -> Tensor:
    return scores.detach()[0].double().sum(-1).cpu()


@contextmanager
def counted_rows(model: nn.Module) -> Iterator[list[int]]:
    """Yield a list of the rows of each forward that is run inside."""
    rows: list[int] = []

    def count(module: nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        rows.append(len(inputs["inputs_embeds"] if "inputs_embeds" in inputs else inputs["input_ids"]))

    handle = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()
