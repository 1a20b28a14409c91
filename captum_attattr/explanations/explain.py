"""explain and explain_iter: from texts to explanations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_attattr.attribution.layer_attattr import LayerAttAttr
from captum_attattr.explanations.encoding import Encoded, Text, TextModel
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.model.modes import uncompiled
from captum_attattr.model.projections import head_count
from captum_attattr.runs.memory import give_back


def explain(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[Text],
    target: Any = None,
    *,
    truncate: bool | int = False,
    n_steps: int | None = None,
    method: str = "gausslegendre",
    tolerance: float = 1e-3,
    max_nodes: int = 1_000,
    internal_batch_size: int | None = None,
    progress: bool = True,
) -> list[Explanation]:
    r"""Explain a model's decisions on texts or pairs of texts.

    The output that is attributed is the probability of one class,
    :math:`F = \mathrm{softmax}(\mathrm{logits})_{target}`; for a causal language model that of the next
    token after the text; for a regression model (one label) the score itself; for a multi-label model the
    label's own probability, :math:`\mathrm{sigmoid}(\mathrm{logit})`. Texts are run in groups of one length,
    so nothing is padded. An encoder-decoder's encoder is explained.

    Args:
        model: a transformers model for sequence classification, or a causal language model.
        tokenizer: its tokenizer.
        texts: texts, or (text, second text) pairs.
        target: None for the class (or token) that the model predicts; a class number or a label's name (a
            token number, or a text of one token); or a list with one of these for each text.
        truncate: cut texts that are longer than the model takes, instead of raising; a number cuts to at most so
            many tokens.
        n_steps, method, tolerance, max_nodes, internal_batch_size: as in `LayerAttAttr.attribute`.
        progress: show a progress bar for what takes longer than two seconds.

    Returns:
        One `Explanation` for each text, in order, on the CPU.

    Raises:
        TypeError, ValueError: an empty list or text, a text longer than the model's positions, a target that
            the model does not have; raised before the model runs.
        UnsupportedModelError: the model's attention cannot be read.

    Example:
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> model, tokenizer = load_demo_model()
        >>> explanations = explain(model, tokenizer, ["a fine film", ("a premise", "a hypothesis")], progress=False)
        >>> explanations[0].label, explanations[0].attributions.shape  # (layers, heads, tokens, tokens)
        ('positive', torch.Size([6, 12, 5, 5]))
    """
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise TypeError(f"texts must be a list of texts or of pairs, got {type(texts).__name__}; use [text]")
    if not texts:
        raise ValueError("texts is empty: give at least one text or pair")
    options = {"n_steps": n_steps, "method": method, "tolerance": tolerance, "max_nodes": max_nodes}
    options["internal_batch_size"] = internal_batch_size
    explainer = Explainer(model, tokenizer, truncate, options)
    targets = target if isinstance(target, list) else [target] * len(texts)
    if len(targets) != len(texts):
        raise ValueError(f"target lists {len(targets)} entries for {len(texts)} texts")
    items = [explainer.texts.encode(i, text, want) for i, (text, want) in enumerate(zip(texts, targets, strict=True))]
    with tqdm(total=len(items), desc="explain", unit="text", delay=2, disable=not progress) as bar:
        found = dict(explainer.run(items, bar.update))
    return [found[i] for i in range(len(items))]


def explain_iter(
    model: nn.Module,
    tokenizer: Any,
    texts: Iterable[Text],
    target: Any = None,
    *,
    window: int = 256,
    truncate: bool | int = False,
    progress: bool = True,
    **options: Any,
) -> Iterator[Explanation]:
    """Explain texts one window after another, for lists that do not fit in memory.

    Args:
        model, tokenizer, target, truncate, progress: as in `explain`; `target` cannot be a list.
        texts: any iterable of texts or pairs; read one window ahead.
        window: how many texts are read, sorted by length and explained together.
        options: the quadrature's options of `explain`.

    Yields:
        One `Explanation` for each text, in order.

    Raises:
        As `explain`; for a bad text, when its window is reached.
    """
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise TypeError(f"texts must be an iterable of texts or of pairs, got {type(texts).__name__}; use [text]")
    if isinstance(target, list):
        raise TypeError("explain_iter takes one target for all texts; use explain for a list of targets")
    if window < 1:
        raise ValueError(f"window={window} is too small: at least 1 is needed")
    explainer = Explainer(model, tokenizer, truncate, options)
    source = enumerate(texts)
    total = len(texts) if isinstance(texts, Sequence) else None
    with tqdm(total=total, desc="explain", unit="text", delay=2, disable=not progress) as bar:
        while items := [explainer.texts.encode(i, text, target) for i, text in islice(source, window)]:
            found = dict(explainer.run(items, bar.update))
            yield from (found[item.number] for item in items)


class Explainer:
    """Explains encoded texts of one model."""

    MAPS_AT_ONCE = 2**28
    """Most attention entries (examples x layers x heads x T x T) of a group: 1 GiB of float32."""

    def __init__(self, model: nn.Module, tokenizer: Any, truncate: bool | int, options: dict[str, Any]) -> None:
        self.texts = TextModel(model, tokenizer, truncate)
        self.options = options

    def run(self, items: list[Encoded], progress: Callable[[int], object]) -> Iterator[tuple[int, Explanation]]:
        """Explain encoded texts in groups of one length, longest first."""
        by_length: dict[tuple[Any, ...], list[Encoded]] = {}
        for item in items:
            by_length.setdefault((item.length, tuple(item.encoding)), []).append(item)
        heads = sum(head_count(layer) for layer in self.texts.layers)
        for (length, *_), group in sorted(by_length.items(), key=lambda pair: -pair[0][0]):
            size = max(1, self.MAPS_AT_ONCE // (heads * length**2))
            for start in range(0, len(group), size):
                yield from self._explain(group[start : start + size])
                progress(len(group[start : start + size]))
                give_back()

    def _explain(self, group: list[Encoded]) -> Iterator[tuple[int, Explanation]]:
        texts = self.texts
        named = texts.inputs(group)
        inputs = tuple(named.values())

        def forward(*tensors: Tensor) -> Tensor:
            return texts.probabilities(texts.logits(dict(zip(named, tensors, strict=True))))

        with torch.no_grad(), uncompiled():
            predictions = torch.cat(
                [forward(*(t[i : i + 32] for t in inputs)).argmax(-1) for i in range(0, len(group), 32)]
            )
        wanted = [
            p if item.target is None else item.target for item, p in zip(group, predictions.tolist(), strict=True)
        ]
        result = LayerAttAttr(forward, texts.layers).integrate(
            inputs[0],
            target=wanted,
            additional_forward_args=inputs[1:],
            keep_attention=True,
            store="cpu",
            **self.options,
        )
        places = [layer.index for layer in texts.layers]
        for i, item in enumerate(group):
            delta, error, nodes = (
                part.new_zeros(texts.depth).index_copy(0, torch.tensor(places), part[:, i])
                for part in (result.delta, result.error, result.nodes)
            )
            yield (
                item.number,
                Explanation(
                    tokens=texts.tokenizer.convert_ids_to_tokens(item.encoding["input_ids"][0].tolist()),
                    attributions=texts.complete([map_[i] for map_ in result.attributions]).float(),
                    attention=texts.complete([map_[i] for map_ in result.attention]).float(),
                    delta=delta.float(),
                    error=error.float(),
                    nodes=nodes,
                    target=wanted[i],
                    label=texts.label(wanted[i]),
                    probability=float(result.output[i]),
                    prediction=int(predictions[i]),
                    text=item.text,
                    segments=item.segments,
                    special=item.special,
                    value=float(result.output[i]),
                    inputs=item.encoding,
                ),
            )
