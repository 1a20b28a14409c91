"""`GenerationExplanation`: what each token of an answer came from, and the files that hold it."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_attattr import checks
from captum_attattr.explanations.answer_scores import AnswerScorer
from captum_attattr.explanations.attributed_output import OUTPUTS
from captum_attattr.explanations.encoding import Text
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.schemes import SCHEMES
from captum_attattr.explanations.settings import Settings, checked_attribution, checked_baseline
from captum_attattr.explanations.token_scores import TokenScores
from captum_attattr.explanations.translation import Answering
from captum_attattr.explanations.words import read_words
from captum_attattr.files import read_tensors, reading, write_tensors
from captum_attattr.formatting import cells, counted, number, signed, visible, whole_text
from captum_attattr.notebooks import Shown, View, figure_view

_HEADER, _VERSION = "captum_attattr generation", 1
_KEPT = "explanations"
_APART, _SMALLEST = 0.15, 1e-30
"""Of the logarithms of an answer's probabilities, on average: more than another device or precision makes. And the
smallest probability that is told from 0."""


class WordMatrix(NamedTuple):
    """What each word of an answer came from: sums over the tokens of both."""

    answer: list[str]
    """The A words of the answer."""
    sources: list[str]
    """The W words of the prompt, then those of the answer."""
    scores: Tensor
    """(A, W)"""


@dataclass(frozen=True, eq=False, repr=False)
class GenerationExplanation(Shown):
    """What each of the G tokens of an answer came from, among the T tokens of its prompt and those before it.

    Of an encoder-decoder the T tokens are the S of the source, and those that the decoder starts with.

    Attributes:
        prompt: the text of the prompt or source, of a conversation what the chat template makes of it.
        answer: the text of the answer.
        prompt_tokens: the T tokens of the prompt, special ones included.
        tokens: the G tokens of the answer.
        ids: (T + G) of all of them.
        special: (T + G) whether a token is special.
        values: (G,) F of each token, float32.
        probabilities: (G,) the probability that the model gives each token.
        predictions: (G,) the id of the token that the model prefers there.
        matrix: (G, T + G) float32, token scores: in row g, what each token before contributed to F of token g of the
            answer; 0 for the token itself and those behind.
        total_delta: (G,) on the joint path the sum of a row minus (F(A) - F(B)); NaN elsewhere.
        written: how the answer came about: "given", "greedy", "sampled with the seed 3".
        output, path, baseline, attribution, scheme: as in `Explanation`.
        layers: of the model, that were attributed, by their own numbers.
        contrast: (G,) the name of the token whose output is taken off that of each token; None for none.
        contrast_ids: (G,) their ids.
        options: what `explain` is asked for beside that, as JSON.
        kept: (G,) the explanations, if they were kept; else None.
        scorer: what computes explanations and spans; None in a result that was loaded, until `attach`.

    Raises:
        TypeError, ValueError: a part of another type or shape, out of range, or not finite; the message names it.
    """

    prompt: Text
    answer: str
    prompt_tokens: list[str]
    tokens: list[str]
    ids: list[int]
    special: list[bool]
    values: Tensor
    probabilities: Tensor
    predictions: list[int]
    matrix: Tensor
    total_delta: Tensor
    written: str
    output: str
    path: str
    baseline: str | float
    attribution: str
    layers: list[int]
    scheme: str
    contrast: list[str | None]
    contrast_ids: list[int | None]
    options: dict[str, Any]
    kept: Sequence[Explanation] | None = None
    scorer: AnswerScorer | None = field(default=None)

    def __post_init__(self) -> None:
        before, tokens = (checks.strings(name, getattr(self, name)) for name in ("prompt_tokens", "tokens"))
        if not before or not tokens:
            raise ValueError("prompt_tokens and tokens must hold one token or more")
        count, whole = len(tokens), len(before) + len(tokens)
        probabilities = checks.tensor("probabilities", self.probabilities, (count,)).float()
        if ((probabilities < 0) | (probabilities > 1)).any():
            raise ValueError(f"probabilities must be from 0 to 1, not {probabilities.tolist()!s:.60}")
        name, _ = checked_attribution(self.attribution, None)
        matrix = checks.tensor("matrix", self.matrix, (count, whole)).float()
        if matrix.triu(len(before)).any():
            raise ValueError("matrix must be 0 for each token itself and those behind it")
        contrasts = [checks.sequence(each, getattr(self, each)) for each in ("contrast", "contrast_ids")]
        if any(len(each) != count for each in contrasts):
            raise ValueError(f"contrast and contrast_ids must have {count} entries")
        checks.set_fields(
            self,
            prompt=checks.text_or_pair("prompt", self.prompt),
            answer=checks.instance("answer", self.answer, str, "a string"),
            prompt_tokens=before,
            tokens=tokens,
            ids=checks.integers("ids", self.ids, whole, smallest=0),
            special=checks.flags("special", self.special, whole),
            values=checks.tensor("values", self.values, (count,)).float(),
            probabilities=probabilities,
            predictions=checks.integers("predictions", self.predictions, count, smallest=0),
            matrix=matrix,
            total_delta=checks.tensor("total_delta", self.total_delta, (count,), unknown=True).float(),
            written=checks.instance("written", self.written, str, "a string"),
            output=checks.one_of("output", self.output, OUTPUTS),
            path=checks.one_of("path", self.path, ("joint",) if self.attribution != name else ("layer",)),
            baseline=checked_baseline(self.baseline),
            layers=checks.integers("layers", self.layers, smallest=0),
            scheme=checks.one_of("scheme", self.scheme, ("", *SCHEMES)),
            options=dict(checks.instance("options", self.options, dict, "an object")),
        )

    # ------------------------------------------------------------------------------------------------- what it says

    @property
    def given(self) -> str:
        """What the answer was written from: "prompt", or "source" of an encoder-decoder."""
        return "source" if self.options.get("source") else "prompt"

    @property
    def text(self) -> str:
        """Prompt and answer."""
        return whole_text(self.prompt) + self.answer

    @property
    def explanations(self) -> Sequence[Explanation]:
        """The G explanations, each that of `explain` for the prefix with the token as target.

        With `keep="maps"` they are there; else each is computed when it is asked for, and not kept.

        Raises:
            ValueError: they are asked for in a result that was loaded, without `attach`.
        """
        return self.kept if self.kept is not None else _OnDemand(self._attached("explanations"), len(self.tokens))

    def row(self, token: int) -> TokenScores:
        """Return the scores of one token of the answer, as `token_scores` has them of its prefix.

        Raises:
            TypeError, ValueError: `token` is not from 0 to G - 1.
        """
        at = checks.index("token", token, len(self.tokens))
        end = len(self.prompt_tokens) + at
        return TokenScores(
            tokens=[*self.prompt_tokens, *self.tokens][:end],
            scores=self.matrix[at, :end],
            text=self.prompt,
            target=self.ids[end],
            label=read_words([self.tokens[at]], [True], self.scheme)[1][0],
            probability=float(self.probabilities[at]),
            prediction=self.predictions[at],
            segments=[0] * end,
            special=self.special[:end],
            value=float(self.values[at]),
            total_delta=float(self.total_delta[at]),
            contrast=self.contrast[at],
            **{name: getattr(self, name) for name in ("output", "path", "baseline", "attribution", "scheme")},
        )

    def span(self, begin: int | str, end: int | None = None) -> TokenScores:
        r"""Say what neighbouring tokens of the answer came from, together, in one pass.

        F is the log-probability of them all, one forward of the whole text (teacher forcing):

        .. math:: F = \sum_{g=begin}^{end-1} \log p(token_g \mid prefix_g)

        Scores of tokens inside the span are what they contributed to those behind them.

        Args:
            begin: the first token, an index of `tokens`; or a text that the answer holds once, such as a sentence,
                which stands for the tokens that it touches.
            end: the index behind the last token; None for the end of the answer.

        Returns:
            The scores of the T + end - 1 tokens that the model read; `value` is F, `plot_tokens` draws it.

        Raises:
            TypeError, ValueError: no such tokens, a text that is not there or there twice, a model that is not causal;
                a result that was loaded, without `attach`.

        Warns:
            ConvergenceWarning: the scores miss F(A) - F(B) by more than a tenth of their sizes.
        """
        scorer = self._attached("span")
        if isinstance(begin, str):
            if end is not None:
                raise ValueError(f"end={end!r}: the text {begin!r:.60} says where the span ends; leave it out")
            first, last = self._found(scorer, begin)
        else:
            first = checks.index("begin", begin, len(self.tokens))
            last = len(self.tokens) if end is None else checks.index("end", end, len(self.tokens) + 1)
        if last <= first:
            raise ValueError(f"end={last} must be above begin={first}")
        return scorer.span(first, last)

    def _found(self, scorer: AnswerScorer, text: str) -> tuple[int, int]:
        """Return the first token that a text of the answer touches, and the one behind the last."""
        count = self.answer.count(text) if text else 0
        if count != 1:
            times = f"{count} times" if count else "not"
            raise ValueError(
                f"begin={text!r:.60} stands {times} in the answer {self.answer!r:.200}; give indices of tokens"
            )
        start = self.answer.index(text)
        decode, ids = scorer.explainer.texts.tokenizer.decode, self.ids[len(self.prompt_tokens) :]
        ends = [len(str(decode(ids[: i + 1])).rstrip("\ufffd")) for i in range(len(ids))]
        first = next(i for i, at in enumerate(ends) if at > start)
        last = next((i for i, at in enumerate(ends) if at >= start + len(text)), len(ids) - 1)
        return first, last + 1

    def words(self) -> WordMatrix:
        """Return what each word of the answer came from; `pandas.DataFrame(w.scores, w.answer, w.sources)` shows it."""
        (before, sources), (own, answer) = self.word_positions()
        starts = [word[0] for word in before] + [len(self.prompt_tokens) + word[0] for word in own]
        by_source = torch.stack([part.sum(1) for part in self.matrix.tensor_split(starts[1:], 1)], 1)
        scores = torch.stack([by_source[word].sum(0) for word in own])
        return WordMatrix(answer, [*sources, *answer], scores)

    def word_positions(self) -> tuple[tuple[list[list[int]], list[str]], tuple[list[list[int]], list[str]]]:
        """Return the words of the prompt, as positions of its tokens and as texts, and so those of the answer."""
        length = len(self.prompt_tokens)
        prompt = read_words(self.prompt_tokens, self.special[:length], self.scheme)
        answer = read_words(self.tokens, self.special[length:], self.scheme)
        return prompt, answer

    def table(self, top: int = 3) -> str:
        """Return the words of the answer as text, each with its probability and its strongest sources.

        Args:
            top: how many sources a word has, largest first, in size.

        Raises:
            ValueError: `top` is no integer of 1 or more.
        """
        top = checks.at_least(1, top, "top")
        words, (_, (positions, _)) = self.words(), self.word_positions()
        shown = [visible(word, 30) for word in words.answer]
        width = max(map(cells, shown))
        lines = [self._line()]
        for text, tokens, row in zip(shown, positions, words.scores, strict=True):
            order = row.abs().argsort(descending=True, stable=True)[:top].tolist()
            told = ", ".join(f"{visible(words.sources[i], 30)} {signed(float(row[i]))}" for i in order if row[i])
            likely = number(float(self.probabilities[tokens].prod()))
            lines.append(f"{text}{' ' * (width - cells(text))}  p {likely:<9} {told}")
        return "\n".join(lines)

    def _line(self) -> str:
        length, count = len(self.prompt_tokens), len(self.tokens)
        how = f"{self.written}, {counted(count, 'token')} after {length}, {self.output.replace('_', '-')}"
        return f"{self.answer!r:.200} ({how}) to {whole_text(self.prompt)!r:.200}"

    def _view(self) -> View:
        return figure_view("plot_generation", self)

    # ------------------------------------------------------------------------------------------- files and the model

    def _attached(self, use: str) -> AnswerScorer:
        if self.scorer is None:
            raise ValueError(
                f"{use} needs the model, which files do not hold: result = result.attach(model, tokenizer) first"
            )
        return self.scorer

    def attach(self, model: nn.Module, tokenizer: Any) -> GenerationExplanation:
        """Return this result with its model, for `explanations` and `span` of a result that was loaded.

        Raises:
            TypeError, ValueError: as `explain`; a tokenizer or model that gives other tokens or values.
        """
        options = {**self.options, "attribution": self.attribution, "output": self.output}
        task, start, source = options.pop("task"), options.pop("start"), options.pop("source", 0)
        settings = Settings.of(**options, baseline=self.baseline if start else None)
        contrasted = any(each is not None for each in self.contrast_ids)
        answering = Answering.of(model)
        if answering.given != self.given:
            raise ValueError(f"the model is another one: it writes from a {answering.given}, not from a {self.given}")
        explainer = answering.of_model(model, tokenizer, settings, contrasted, task)
        if tokenizer.convert_ids_to_tokens(self.ids) != [*self.prompt_tokens, *self.tokens]:
            raise ValueError("the tokenizer is another one: its tokens are not those of this result")
        scorer = answering.scorer(explainer, self.ids, len(self.prompt_tokens), self.contrast_ids, source)
        here = scorer.likely()
        there = self.probabilities[: len(here)].double()
        apart = (here.clamp(min=_SMALLEST) / there.clamp(min=_SMALLEST)).log().abs()
        if apart.mean() > _APART:
            at = int(apart.argmax())
            raise ValueError(
                f"the model is another one: it gives token {at} of the answer the probability {float(here[at]):.3g}, "
                f"and {float(there[at]):.3g} is this result's"
            )
        return replace(self, scorer=scorer)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file: the arrays as tensors, everything else as JSON in its header; never the model.

        An old file stays as it is until the new one is there whole.

        Returns:
            The path.

        Raises:
            TypeError, ValueError: `path` is no path or a directory, or its directory does not exist.
        """
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("kept", "scorer")}
        tensors = {name: content.pop(name) for name, value in list(content.items()) if isinstance(value, Tensor)}
        if self.kept is not None:
            parts = [each.entries() for each in self.kept]
            content[_KEPT] = [entries for _, entries in parts]
            tensors |= {f"{_KEPT}.{i}.{name}": t for i, (own, _) in enumerate(parts) for name, t in own.items()}
        return write_tensors(path, _HEADER, _VERSION, tensors, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GenerationExplanation:
        """Read what `save` wrote.

        Raises:
            TypeError, FileNotFoundError: `path` is no path, or there is no such file.
            ResultFileError: not a file of `save`, damaged, or of a newer version.
        """
        with reading(path, "explanation of a generation", "GenerationExplanation.save") as file:
            _, content, tensors = read_tensors(file, _HEADER, _VERSION)
            entries = content.pop(_KEPT, None)
            own = {name: tensors.pop(name) for name in list(tensors) if name.startswith(f"{_KEPT}.")}
            wanted = {f.name for f in fields(cls)} - {"kept", "scorer"}
            checks.names_match(content.keys() | tensors.keys(), wanted)
            if isinstance(content["prompt"], list):
                content["prompt"] = tuple(content["prompt"])
            kept = None if entries is None else [_explanation(i, entry, own) for i, entry in enumerate(entries)]
            if kept is not None and len(kept) != len(content["tokens"]):
                raise ValueError(f"it holds {len(kept)} explanations for {len(content['tokens'])} tokens")
            return cls(**content, **tensors, kept=kept)


def _explanation(index: int, entry: dict[str, Any], tensors: dict[str, Tensor]) -> Explanation:
    """Return one of the explanations of a file."""
    start = f"{_KEPT}.{index}."
    own = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
    return Explanation.of_entries(own, entry)


class _OnDemand(Sequence[Explanation]):
    """Explanations that are computed when they are asked for."""

    def __init__(self, scorer: AnswerScorer, count: int) -> None:
        self._scorer, self._count = scorer, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        at = operator.index(index)
        if not -self._count <= at < self._count:
            raise IndexError(f"explanations[{index}]: there are {self._count}")
        return self._scorer.explanation(range(self._count)[at])

    def __repr__(self) -> str:
        return f"<{counted(self._count, 'explanation')}, computed when asked for>"
