"""explain and explain_iter: from texts to explanations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_attattr import checks
from captum_attattr.attribution.inputs import check_rule
from captum_attattr.attribution.integration import PathIntegral
from captum_attattr.attribution.layer_attattr import LayerAttAttr
from captum_attattr.explanations.encoding import Encoded, Text
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.model.modes import evaluation_mode
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
    so nothing is padded. An encoder-decoder's encoder is explained. A model in training mode is put into evaluation
    mode for as long as it runs, and back.

    Args:
        model: a transformers model for sequence classification, or a causal language model.
        tokenizer: its tokenizer.
        texts: texts, or (text, second text) pairs.
        target: None for the class (or token) that the model predicts; a class's index or name (a token's id, or a
            text of one token); or a list or array with one of these for each text.
        truncate: cut texts that are longer than the model takes, instead of raising; an integer cuts to at most so
            many tokens.
        n_steps, method, tolerance, max_nodes, internal_batch_size: as in `LayerAttAttr.attribute`.
        progress: show a progress bar for what takes longer than two seconds.

    Returns:
        One `Explanation` for each text, in order, on the CPU.

    Raises:
        TypeError, ValueError: an empty list or text, a text longer than the model's positions, a target that
            the model does not have, options that mean nothing; raised before the model runs.
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
    explainer = Explainer(
        model, tokenizer, truncate, _options(n_steps, method, tolerance, max_nodes, internal_batch_size)
    )
    target = listed(target)
    targets = target if isinstance(target, list) else [target] * len(texts)
    if len(targets) != len(texts):
        raise ValueError(f"target lists {len(targets)} entries for {len(texts)} texts")
    items = [explainer.texts.encode(i, text, want) for i, (text, want) in enumerate(zip(texts, targets, strict=True))]
    with tqdm(total=len(items), desc="explain", unit="text", delay=2, disable=not progress) as bar:
        explanations = dict(explainer.run(items, bar.update))
    return [explanations[i] for i in range(len(items))]


def explain_iter(
    model: nn.Module,
    tokenizer: Any,
    texts: Iterable[Text],
    target: Any = None,
    *,
    window: int = 256,
    truncate: bool | int = False,
    n_steps: int | None = None,
    method: str = "gausslegendre",
    tolerance: float = 1e-3,
    max_nodes: int = 1_000,
    internal_batch_size: int | None = None,
    progress: bool = True,
) -> Iterator[Explanation]:
    """Explain texts one window after another, for lists that do not fit in memory.

    Args:
        model, tokenizer, target, truncate, progress: as in `explain`; `target` cannot be a list.
        texts: any iterable of texts or pairs; read one window ahead.
        window: how many texts are read, sorted by length and explained together.
        n_steps, method, tolerance, max_nodes, internal_batch_size: as in `LayerAttAttr.attribute`.

    Returns:
        An iterator with one `Explanation` for each text, in order.

    Raises:
        As `explain`, before a text is read; for a bad text, when its window is reached.

    Example:
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> lines = (line.strip() for line in ["a fine film", "dull and lifeless"])
        >>> [explanation.label for explanation in explain_iter(*load_demo_model(), lines, progress=False)]
        ['positive', 'negative']
    """
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise TypeError(f"texts must be an iterable of texts or of pairs, got {type(texts).__name__}; use [text]")
    if isinstance(listed(target), list):
        raise TypeError("explain_iter takes one target for all texts; use explain for a list of targets")
    size = checks.integer(window)
    if size is None:
        raise TypeError(f"window={window!r} must be an int")
    if size < 1:
        raise ValueError(f"window={window} is too small: at least 1 is needed")
    size = min(size, sys.maxsize)
    explainer = Explainer(
        model, tokenizer, truncate, _options(n_steps, method, tolerance, max_nodes, internal_batch_size)
    )
    explainer.texts.target(0, target)
    return _windows(explainer, texts, target, size, progress)


def _windows(
    explainer: Explainer, texts: Iterable[Text], target: Any, size: int, progress: bool
) -> Iterator[Explanation]:
    """Yield the explanations of texts, `size` of which are read and explained together."""
    source = enumerate(texts)
    total = len(texts) if isinstance(texts, Sequence) else None
    with tqdm(total=total, desc="explain", unit="text", delay=2, disable=not progress) as bar:
        while items := [explainer.texts.encode(i, text, target) for i, text in islice(source, size)]:
            explanations = dict(explainer.run(items, bar.update))
            yield from (explanations[item.index] for item in items)


def _options(
    n_steps: int | None, method: str, tolerance: float, max_nodes: int, internal_batch_size: int | None
) -> dict[str, Any]:
    """Return the quadrature's options by name, checked."""
    check_rule(method, n_steps, tolerance, max_nodes, internal_batch_size)
    return {
        "n_steps": n_steps,
        "method": method,
        "tolerance": tolerance,
        "max_nodes": max_nodes,
        "internal_batch_size": internal_batch_size,
    }


def listed(target: Any) -> Any:
    """Return an array of targets as a list; one target, or a list, as it is."""
    return target.tolist() if isinstance(target, Tensor | np.ndarray) and target.ndim else target


class Explainer:
    """Explains encoded texts of one model.

    Args:
        model, tokenizer, truncate: as in `TextModel`.
        options: of `LayerAttAttr.integrate`.
    """

    MAPS_AT_ONCE = 2**28
    """Most attention entries (examples x layers x heads x T x T) of a group: 1 GiB of float32."""

    def __init__(self, model: nn.Module, tokenizer: Any, truncate: bool | int, options: dict[str, Any]) -> None:
        self.texts = TextModel(model, tokenizer, truncate)
        self.options = options

    def run(self, items: list[Encoded], progress: Callable[[int], object]) -> Iterator[tuple[int, Explanation]]:
        """Explain encoded texts in groups of one length, longest first; yield each with its index."""
        by_length: dict[tuple[Any, ...], list[Encoded]] = {}
        for item in items:
            by_length.setdefault((item.length, tuple(item.encoding)), []).append(item)
        heads = sum(head_count(layer) for layer in self.texts.layers)
        for (length, *_), group in sorted(by_length.items(), key=lambda pair: -pair[0][0]):
            size = max(1, self.MAPS_AT_ONCE // (heads * length**2))
            for start in range(0, len(group), size):
                part = group[start : start + size]
                yield from self._explain(part)
                progress(len(part))
                give_back()

    def _explain(self, group: list[Encoded]) -> Iterator[tuple[int, Explanation]]:
        """Explain texts of one length."""
        named = self.texts.inputs(group)
        forward, inputs = self.texts.forward_function(named), tuple(named.values())
        with evaluation_mode(self.texts.model):
            with torch.no_grad():
                predictions: list[int] = torch.cat(
                    [forward(*(tensor[i : i + 32] for tensor in inputs)).argmax(-1) for i in range(0, len(group), 32)]
                ).tolist()
            targets = [p if item.target is None else item.target for item, p in zip(group, predictions, strict=True)]
            result = LayerAttAttr(forward, self.texts.layers).integrate(
                inputs[0],
                target=targets,
                additional_forward_args=inputs[1:],
                keep_attention=True,
                store="cpu",
                **self.options,
            )
        for row, (item, target, prediction) in enumerate(zip(group, targets, predictions, strict=True)):
            yield item.index, self._explanation(item, target, prediction, result, row)

    def _explanation(self, item: Encoded, target: int, prediction: int, result: PathIntegral, row: int) -> Explanation:
        """Return the explanation of one row of a batch."""
        texts, value = self.texts, float(result.output[row])
        return Explanation(
            tokens=texts.tokenizer.convert_ids_to_tokens(item.ids),
            attributions=texts.complete([map_[row] for map_ in result.attributions]).float(),
            attention=texts.complete([map_[row] for map_ in result.attention]).float(),
            delta=texts.by_layer(result.delta[:, row]).float(),
            error=texts.by_layer(result.error[:, row]).float(),
            nodes=texts.by_layer(result.nodes[:, row]),
            target=target,
            label=texts.label(target),
            probability=value,
            prediction=prediction,
            text=item.text,
            segments=item.segments,
            special=item.special,
            value=value,
            inputs=item.encoding,
            output=texts.output,
        )
