"""explain and explain_iter: from texts to explanations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from captum_attattr import checks
from captum_attattr.checks import checked_arguments
from captum_attattr.explanations.examples import Texts, examples_one_by_one, sequence_of
from captum_attattr.explanations.explainer import Explainer
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.explanation_list import ExplanationList
from captum_attattr.explanations.settings import Settings


@checked_arguments
def explain(
    model: nn.Module,
    tokenizer: Any,
    texts: Texts,
    target: Any = None,
    *,
    attribution: str = "attattr",
    output: str | None = None,
    contrast: Any = None,
    path: str | None = None,
    baseline: str | float | None = None,
    task: str | None = None,
    split_into_words: bool = False,
    layers: Iterable[int] | None = None,
    attention: bool = True,
    dtype: torch.dtype | str = torch.float32,
    truncate: bool | int = False,
    n_steps: int | None = None,
    method: str = "gausslegendre",
    tolerance: float = 1e-3,
    max_nodes: int = 1_000,
    internal_batch_size: int | None = None,
    progress: bool = True,
) -> list[Explanation]:
    r"""Explain a model's decisions on texts or pairs of texts.

    The output that is attributed is the probability of one class, :math:`F =
    \mathrm{softmax}(\mathrm{logits})_{target}`; for a causal language model that of the next token after the text; for
    a regression model (one label) the score itself; for a multi-label model the label's own probability,
    :math:`\mathrm{sigmoid}(\mathrm{logit})`; of an answer to a question :math:`P_{first} P_{last}` of its first and
    last token, whose logits are added up; of a tag, or the word at a mask, its probability at that token; of two texts'
    similarity the cosine of their vectors, one of which is fixed. `output` and `contrast` choose another F. Where the
    probability is above 0.99, softmax is flat: its gradients and all scores shrink to nothing, though the ranking stays
    fine. Attribute the log-probability or the logit there, or contrast it with another class. Texts are run in groups
    of one length, so nothing is padded. An encoder-decoder's encoder is explained. A model in training mode is put into
    evaluation mode for as long as it runs, and back.

    Args:
        model: a transformers model for sequence classification, question answering, token classification or masked
            words, or a causal language model, of a multimodal one the language model; also inside `torch.compile`, DDP,
            peft (LoRA) or a CrossEncoder; or a module of one's own around a transformers model that takes the
            tokenizer's tensors by name and returns logits.
        tokenizer: its tokenizer.
        texts: texts, (text, second text) pairs, conversations (lists of messages with "role" and "content", through
            the tokenizer's chat template), lists of token ids, or an encoding of the tokenizer, each row of which is a
            text; any iterable, or one text, conversation or list of ids alone. A text that carries its special tokens
            already gets none twice; ids and encodings stay as they are. An answer is begun behind a conversation for
            a language model, or gone on with where its last message is the assistant's.
        target: None for the class (or token) that the model predicts; a class's index or name (a token's id, or a text
            of one token); an answer that stands in the context, or its (first token, last token), special tokens
            counted; (token index, label), or "all entities"; a word for the first mask, (token index, word), or "all
            masks"; of a similarity "first" or "second", the text to explain; or a list or array with one of these for
            each text. Of all these but classes and next tokens it may be a list of several for a text, each of which is
            explained; of one text alone the list is that.
        attribution: how edges are scored: "attattr", the paper; "attattr_joint", the same with `path="joint"`;
            "gradient_attention" (attention x gradient, one row); "attnlrp", the same with gradients by rules of
            relevance, where the model allows it; "attention" itself; "alti", one map for all heads of a layer,
            (L, 1, T, T); "chefer" and "rollout", one for all layers and heads, (1, 1, T, T); "random", the control.
            What each computes, and its source, stands in its file in `captum_attattr.attribution.methods`. Only
            integrals have the options of a quadrature, only they and gradient_attention a baseline.
        output: F: the target's "probability", "logit" or "log_probability"; None for the probability, or for the score
            of a regression, which has no other ("logit").
        contrast: a second class, label or token, in the forms of `target`: F is the target's output minus that of this
            one ("why Paris rather than London": `output="logit", contrast=" London"`).
        path: None or "layer" opens one layer's attention at a time, all others as they are (the paper); "joint" opens
            all layers together, so that the scores of all layers are parts of one budget, add up to F(A) - F(B) and can
            be compared, at a fraction of the cost.
        baseline: the start B of the path: None or "zero", "uniform" (over the keys that are attended to), "sink" (each
            query's whole mass on the first key that its mask lets it see), or a number for all entries.
        task: "classification", "next_token", "question_answering", "token_classification" or "masked_lm", where neither
            the model's class nor its outputs tell it; "similarity" or "similarity_cls" for the cosine of two texts'
            vectors.
        split_into_words: read a list of strings as the words of one text, if the tokenizer takes them so.
        layers: the layers to attribute and keep, by their indices, 0 the one nearest to the input; None for all. On the
            joint path only these are opened.
        attention: keep the attention probabilities, which are as large as the attributions.
        dtype: of the maps that are kept: torch.float32, float64, bfloat16, or float16, which rounds scores below 6e-8
            to 0.
        truncate: cut texts that are longer than the model takes, instead of raising; an integer cuts to at most so
            many tokens.
        n_steps, method, tolerance, max_nodes, internal_batch_size: as in `LayerAttAttr.attribute`.
        progress: show a progress bar for what takes longer than two seconds.

    Returns:
        One `Explanation` for each text (and each of its targets), in order, on the CPU.

    Raises:
        TypeError, ValueError: an empty list or text, a text longer than the model's positions, a target that the model
            does not have, an answer that is not in the context, a contrast that is the target, options that mean
            nothing; raised before the model runs. A contrast that is what the model predicts, where no target is given;
            raised before anything is explained.
        UnsupportedModelError: the model's attention cannot be read.

    Example:
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> model, tokenizer = load_demo_model()
        >>> explanations = explain(model, tokenizer, ["a fine film", ("a premise", "a hypothesis")], progress=False)
        >>> explanations[0].label, explanations[0].attributions.shape  # (layers, heads, tokens, tokens)
        ('positive', torch.Size([6, 12, 5, 5]))
    """
    texts = sequence_of(texts, split_into_words)
    settings = Settings.of(
        attribution=attribution,
        output=output,
        path=path,
        baseline=baseline,
        layers=layers,
        attention=attention,
        dtype=dtype,
        n_steps=n_steps,
        method=method,
        tolerance=tolerance,
        max_nodes=max_nodes,
        internal_batch_size=internal_batch_size,
    )
    explainer = Explainer(
        model, tokenizer, truncate, settings, contrast is not None, task=task, split_into_words=split_into_words
    )
    items = explainer.encoded(texts, target, contrast)
    with text_bar(len(items), progress) as bar:
        explanations = dict(explainer.run(items, bar.update, row_counter(bar)))
    return ExplanationList(explanations[i] for i in range(len(explanations)))


@checked_arguments
def explain_iter(
    model: nn.Module,
    tokenizer: Any,
    texts: Texts,
    target: Any = None,
    *,
    window: int = 256,
    attribution: str = "attattr",
    output: str | None = None,
    contrast: Any = None,
    path: str | None = None,
    baseline: str | float | None = None,
    task: str | None = None,
    split_into_words: bool = False,
    layers: Iterable[int] | None = None,
    attention: bool = True,
    dtype: torch.dtype | str = torch.float32,
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
        model, tokenizer, target, attribution, output, contrast, path, baseline, task, split_into_words: as in
            `explain`; `target` and `contrast` cannot be lists.
        texts: any iterable of what `explain` takes; read one window ahead.
        layers, attention, dtype, truncate, progress: as in `explain`.
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
    texts = examples_one_by_one(texts, split_into_words)
    for name, given in (("target", target), ("contrast", contrast)):
        if isinstance(checks.listed(given), list):
            raise TypeError(f"explain_iter takes one {name} for all texts; use explain for a list of {name}s")
    size = checks.integer(window)
    if size is None:
        raise TypeError(f"window={window!r} must be an int")
    if size < 1:
        raise ValueError(f"window={window} is too small: at least 1 is needed")
    size = min(size, sys.maxsize)
    settings = Settings.of(
        attribution=attribution,
        output=output,
        path=path,
        baseline=baseline,
        layers=layers,
        attention=attention,
        dtype=dtype,
        n_steps=n_steps,
        method=method,
        tolerance=tolerance,
        max_nodes=max_nodes,
        internal_batch_size=internal_batch_size,
    )
    explainer = Explainer(
        model, tokenizer, truncate, settings, contrast is not None, task=task, split_into_words=split_into_words
    )
    explainer.texts.task.foresee(target, contrast)
    return _windows(explainer, texts, target, contrast, size, progress)


def _windows(
    explainer: Explainer, texts: Iterable[Any], target: Any, contrast: Any, size: int, progress: bool
) -> Iterator[Explanation]:
    """Yield the explanations of texts, `size` of which are read and explained together."""
    source = enumerate(texts)
    total = len(texts) if isinstance(texts, Sequence) else None
    with text_bar(total, progress) as bar:
        rows = row_counter(bar)
        while items := [explainer.texts.encode(i, text, target, contrast) for i, text in islice(source, size)]:
            explanations = dict(explainer.run(items, bar.update, rows))
            yield from (explanations[i] for i in range(len(explanations)))


def text_bar(total: int | None, shown: bool, desc: str = "explain", unit: str = "text") -> Any:
    """Return a bar of texts, say, that shows itself after two seconds; `miniters` lets it move within a text too."""
    return tqdm(total=total, desc=desc, unit=unit, delay=2, miniters=0, disable=not shown)


def row_counter(bar: Any) -> Callable[[int], None]:
    """Return what tells a bar how many rows are about to be run: a long text takes thousands."""
    total = 0

    def told(rows: int) -> None:
        nonlocal total
        total += rows
        bar.set_postfix_str(f"{total:,} rows", refresh=False)
        bar.update(0)

    return told
