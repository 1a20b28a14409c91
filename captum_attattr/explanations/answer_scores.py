"""An answer's tokens scored one by one, or a span of them at once: one forward of the whole text serves many tokens.

A causal model's prediction at a position depends on the tokens up to it alone. So the outputs of several tokens of an
answer are read off one forward, each at its own position, and the edges of queries behind that position have no
gradient: what is left is the map of the prefix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from captum_attattr.attribution.baselines import check_attention_baselines
from captum_attattr.attribution.column_sums import ColumnSums, Keys, column_sums
from captum_attattr.attribution.facts import Facts
from captum_attattr.attribution.methods.table import ATTRIBUTIONS
from captum_attattr.exceptions import ConvergenceWarning, warn_caller
from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.explainer import Explainer
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.token_scores import TokenScores
from captum_attattr.explanations.words import text_of
from captum_attattr.model.head_masks import active_gates
from captum_attattr.model.modes import evaluation_mode
from captum_attattr.runs.digests import data_digest, model_digest

TOGETHER = 8
"""Tokens of an answer that share forwards, of the text that ends before the last of them."""
FACTS = 4
"""Numbers of a token before its scores: F, probability, prediction, total delta."""
MISSED = 0.1
"""Of the sum of the sizes of its scores: where they miss F(A) - F(B) by more, an integral had too few nodes."""


@dataclass(eq=False)
class AnswerScorer:
    """Scores the G tokens of an answer to a prompt of T tokens.

    Attributes:
        explainer: of the model, with the settings.
        ids: (T + G) of prompt and answer.
        length: T.
        contrasts: (G,) what each token is contrasted with, None for nothing.
        source: how many tokens of the prompt an encoder reads.
    """

    explainer: Explainer
    ids: list[int]
    length: int
    contrasts: list[int | None]
    source: int = 0
    _known: dict[object, Facts] = field(default_factory=dict, init=False)

    @property
    def count(self) -> int:
        """G."""
        return len(self.ids) - self.length

    def encoded(self, end: int, target: int | None = None, contrast: int | None = None) -> Encoded:
        """Return the text up to a token, as the model takes it."""
        row = {"input_ids": self.ids[:end], "attention_mask": [1] * end}  # of padding too, if that is what was written
        return self.explainer.texts.encode(0, row, target, contrast)

    def keys(self, item: Encoded) -> Keys:
        """Return which tokens of a text the columns of the layers' maps are."""
        return Keys([0] * len(self.explainer.layers), item.length)

    @property
    def looks_back(self) -> bool:
        """Whether what an answer is made with looks back by its attention."""
        return all(layer.kind == "decoder" for layer in self.explainer.layers)

    @property
    def _integrated(self) -> bool:
        """Whether scores are integrals along the joint path by a fixed rule."""
        settings = self.explainer.settings
        fixed = ATTRIBUTIONS[settings.attribution].maps is None and settings.rule.n_steps is not None
        return fixed and settings.path == "joint"

    @property
    def _shares(self) -> bool:
        """Whether tokens share forwards: nothing reads what follows, nor at the start B, as it does from a number."""
        start = self.explainer.settings.baseline
        return self._integrated and (isinstance(start, str) or start == 0) and self.causal

    @cached_property
    def causal(self) -> bool:
        """Whether tokens that follow change no prediction: seen at the prompt's last token, before all of the answer.

        Models that look ahead (XLNet) or stretch their positions with the text's length do not.
        """
        if not self.looks_back:
            return False
        alone, within = (self._logits(end, 0)[0] for end in (self.length, len(self.ids) - 1))
        precision = torch.finfo(next(self.explainer.texts.model.parameters()).dtype).eps
        return bool((alone - within).abs().max() <= precision**0.5 * alone.abs().max())

    def likely(self) -> Tensor:
        """Return (n,) the probabilities that the model gives the answer's tokens: all, of one forward, or the first."""
        end = len(self.ids) - 1 if self.causal else self.length
        found = self._probabilities(end, 0).double().cpu()
        return found.gather(1, torch.tensor(self.ids[self.length : end + 1])[:, None])[:, 0]

    def _probabilities(self, end: int, token: int) -> Tensor:
        """Return (n, V) the softmax of `_logits`."""
        return self._logits(end, token).softmax(-1)

    def _logits(self, end: int, token: int) -> Tensor:
        """Return (n, V) the logits of the answer's tokens from one on, of the text up to a token."""
        texts, last = self.explainer.texts, end - self.length - token + 1
        with evaluation_mode(texts.model), torch.no_grad():
            logits = last_logits(self.explainer, texts.inputs([self.encoded(end)]), last)
        return logits[0].float()

    # ---------------------------------------------------------------------------------------- one token after another

    def batches(self) -> list[list[int]]:
        """Return the answer's tokens, those that are scored together in one list."""
        if not self._shares:
            return [[token] for token in range(self.count)]
        return [list(range(i, min(i + TOGETHER, self.count))) for i in range(0, self.count, TOGETHER)]

    def about(self, batches: Sequence[list[int]]) -> dict[str, Any]:
        """Return what tells this run from others, as JSON."""
        texts, settings = self.explainer.texts, self.explainer.settings
        about: dict[str, Any] = {"kind": "generation", "model": model_digest(texts.model)}
        about["data"] = data_digest(self.ids, self.length, self.contrasts, [list(batch) for batch in batches])
        about["options"] = settings.as_json()
        return about | ({"masked": masked} if (masked := active_gates(texts.model)) else {})

    def work(self, tokens: list[int]) -> Tensor:
        """Return (n, 4 + T + G) of some tokens: F, probability, prediction, total delta, then the scores."""
        if self._shares:
            return self._together(tokens)
        return torch.stack([self.entry(self.explanation(token)) for token in tokens])

    def explanation(self, token: int) -> Explanation:
        """Return what `explain` says of a token, the prefix being its text."""
        end = self.length + token
        item = self.encoded(end, self.ids[end], self.contrasts[token])
        return next(found for _, found in self.explainer.run([item], int))

    def entry(self, found: Explanation) -> Tensor:
        """Return (4 + T + G) what `work` says of a token, out of its explanation."""
        facts = [found.value, found.probability, found.prediction, found.total_delta]
        scores = found.token_scores().double()
        padding = scores.new_zeros(len(self.ids) - len(scores))
        return torch.cat([torch.tensor(facts, dtype=torch.float64), scores, padding])

    def _together(self, tokens: list[int]) -> Tensor:
        """Return what `work` does of neighbouring tokens, out of one text."""
        texts, last, end = self.explainer.texts, len(tokens), self.length + tokens[-1]
        targets = torch.tensor([self.ids[self.length + token] for token in tokens])
        against = torch.tensor([-1 if (one := self.contrasts[token]) is None else one for token in tokens])

        def outputs(logits: Tensor) -> Tensor:
            values = texts.values(logits, self.explainer.output)
            first, second = (values.gather(2, chosen(index, values)) for index in (targets, against.clamp(min=0)))
            return torch.where(chosen(against, values) < 0, first, first - second)[..., 0]

        found = self._sums(self.encoded(end), last, outputs)
        probabilities = self._probabilities(end, tokens[0]).double().cpu()
        likely = probabilities.gather(1, targets[:, None])
        predicted = probabilities.argmax(1, keepdim=True).double()
        facts = found.output[:, None], likely, predicted, found.total_delta[:, None]
        padding = found.scores.new_zeros(last, len(self.ids) - end)
        return torch.cat([*facts, found.scores, padding], 1)

    def _sums(self, item: Encoded, last: int, outputs: Callable[[Tensor], Tensor]) -> ColumnSums:
        """Return the scores of outputs (R, K) of the logits (R, last, V) at a text's last tokens, on the joint path."""
        explainer = self.explainer
        named = explainer.texts.inputs([item])
        start = check_attention_baselines(explainer.settings.integral["attention_baselines"], len(explainer.layers))

        def forward(*tensors: Tensor) -> Tensor:
            return outputs(last_logits(explainer, dict(zip(named, tensors, strict=True)), last).float())

        layers, inputs = explainer.layers, tuple(named.values())
        check = partial(explainer.attribution_of(forward).check_shapes, inputs)
        rule, keys = explainer.settings.rule, self.keys(item)
        with evaluation_mode(explainer.texts.model):
            return column_sums(layers, forward, inputs, start, self._known, rule, check, keys)

    def warn_missed(self, scores: Tensor, deltas: Sequence[float], names: Sequence[str]) -> None:
        """Warn of integrals (n, T) that do not add up.

        Warns:
            ConvergenceWarning: their deltas are more than a tenth of the sizes of their scores.
        """
        sizes = scores.abs().sum(1).tolist()
        missed = [(abs(d), name) for d, size, name in zip(deltas, sizes, names, strict=True) if abs(d) > MISSED * size]
        if not missed:  # nor where deltas are not known
            return
        nodes = self.explainer.settings.rule.n_steps
        worst, name = max(missed)
        warn_caller(
            f"the scores of {len(missed)} of {len(names)} miss F(A) - F(B) by more than a tenth of their sizes (most "
            f"of all {name!r:.60}, by {worst:.2g}): n_steps={nodes} is too few here; pass more, as "
            f"n_steps={4 * (nodes or 8)}",
            ConvergenceWarning,
        )

    # ------------------------------------------------------------------------------------------------ a span at once

    def span(self, begin: int, end: int) -> TokenScores:
        """Return the token scores of some neighbouring tokens together, F being the log-probability of them all.

        Raises:
            ValueError: the model is not causal.

        Warns:
            ConvergenceWarning: the scores do not add up.
        """
        texts, last, read = self.explainer.texts, end - begin, self.length + end - 1
        if not self.causal:
            raise ValueError(
                f"{type(texts.model).__name__} reads tokens differently once others follow, so that no single forward "
                "gives the probability of a span; add up rows of the matrix instead"
            )
        wanted = self.ids[self.length + begin : self.length + end]
        item = self.encoded(read, wanted[0])

        def log_probability(logits: Tensor) -> Tensor:
            likely = logits.log_softmax(-1)
            return likely.gather(2, chosen(torch.tensor(wanted), likely)).sum(1)

        if self._integrated:
            found = self._sums(item, last, log_probability)
            scores, value, delta = found.scores[0].float(), float(found.output[0]), float(found.total_delta[0])
        else:
            whole = self._whole(item, last, log_probability)
            scores, value, delta = whole.token_scores().float(), float(whole.value or 0.0), whole.total_delta
        self.warn_missed(scores[None].double(), [delta], ["span"])
        settings = self.explainer.settings
        return TokenScores(
            tokens=texts.tokenizer.convert_ids_to_tokens(self.ids[:read]),
            scores=scores,
            text=item.text,
            target=wanted[0],
            label=text_of(texts.tokenizer, wanted),
            probability=math.exp(value),
            prediction=int(self._probabilities(self.length + begin, begin)[0].argmax()),
            segments=item.segments,
            special=item.special,
            value=value,
            output="log_probability",
            contrast=None,
            path=settings.path,
            baseline=settings.baseline,
            attribution=settings.name,
            scheme=texts.scheme,
            total_delta=delta,
        )

    def _whole(self, item: Encoded, last: int, output: Callable[[Tensor], Tensor]) -> Explanation:
        """Return an explanation of an output (R, 1) of the logits (R, last, V) at a text's last tokens."""
        explainer = self.explainer
        named = explainer.texts.inputs([item])

        def forward(*tensors: Tensor) -> Tensor:
            return output(last_logits(explainer, dict(zip(named, tensors, strict=True)), last).float())

        inputs, *further = named.values()
        with evaluation_mode(explainer.texts.model):
            result = explainer.scored(explainer.attribution_of(forward), inputs, tuple(further), None)
        return explainer.explanation(item, 0, 0, 0.0, result, 0)


def chosen(index: Tensor, values: Tensor) -> Tensor:
    """Return (K,) indices of tokens as `gather` takes them of values (R, K, V): (R, K, 1)."""
    return index.to(values.device)[None, :, None].expand(len(values), -1, -1)


def last_logits(explainer: Explainer, inputs: dict[str, Tensor], last: int) -> Tensor:
    """Return (B, last, V) the logits at the last tokens of texts."""
    texts = explainer.texts
    kept = {"logits_to_keep": last} if "logits_to_keep" in texts.extra else {}
    logits: Tensor = texts.model(**inputs, **texts.extra | kept).logits
    return logits[:, -last:]
