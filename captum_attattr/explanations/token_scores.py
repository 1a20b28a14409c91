"""`token_scores`: what each token of a text contributed, where nobody needs the maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from torch import Tensor, nn

from captum_attattr import checks
from captum_attattr.attribution.methods.table import ATTRIBUTIONS
from captum_attattr.checks import checked_arguments
from captum_attattr.explanations.decided import Decided
from captum_attattr.explanations.encoding import Text
from captum_attattr.explanations.examples import Texts, sequence_of
from captum_attattr.explanations.explain import text_bar
from captum_attattr.explanations.explainer import Explainer
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.explanation_list import ExplanationList
from captum_attattr.explanations.settings import Settings
from captum_attattr.explanations.words import read_words
from captum_attattr.formatting import cells, output_value, signed, visible, whole_text
from captum_attattr.notebooks import View, figure_view

_TOLERANCE = 1e-2
"""Of the integral: at the level of tokens a smaller one changes nothing that can be measured."""


class Word(NamedTuple):
    """A word and the sum of its tokens' scores."""

    text: str
    score: float


@dataclass(frozen=True, eq=False, repr=False)
class TokenScores(Decided):
    """What each of the T tokens of a text contributed to one decision.

    Attributes:
        tokens: the T tokens, special ones included.
        scores: (T,) float32, in points of the output: positive for it, negative against it.
        text, target, label, probability, prediction, segments, special: as in `Explanation`.
        value, output, contrast, path, baseline, attribution, scheme, task, positions: as in `Explanation`.
        total_delta: on the joint path the sum of all scores minus (F(A) - F(B)); NaN elsewhere.
    """

    tokens: list[str]
    scores: Tensor
    text: Text
    target: int
    label: str
    probability: float
    prediction: int
    segments: list[int]
    special: list[bool]
    value: float
    output: str
    contrast: str | None
    path: str
    baseline: str | float
    attribution: str
    scheme: str
    total_delta: float
    task: str = ""
    positions: Sequence[int] = ()

    layers = ()  # a view that offers a menu of layers has none to offer

    @classmethod
    def of(cls, explanation: Explanation) -> TokenScores:
        """Return the scores of an explanation's tokens."""
        kept = {field.name: getattr(explanation, field.name) for field in fields(cls) if field.name != "scores"}
        return cls(scores=explanation.token_scores().float(), **kept)

    def token_scores(self, layer: int | None = None) -> Tensor:
        """Return the scores, (T,), under the name that explanations have for them.

        Raises:
            ValueError: a layer is asked for, and the maps are gone.
        """
        if layer is not None:
            raise ValueError(f"layer={layer!r}: these scores are of all layers; `explain` keeps each layer's maps")
        return self.scores

    def words(self) -> list[Word]:
        """Return the text's words, each with the sum of its tokens' scores; they make a table of pandas."""
        positions, texts = read_words(self.tokens, self.special, self.scheme)
        values = self.scores.tolist()
        return [Word(text, sum(values[i] for i in word)) for text, word in zip(texts, positions, strict=True)]

    def table(self, top: int | None = None) -> str:
        """Return the words with the largest scores, in size, as text; all of them, in order, if `top` is None."""
        rows = self.words()
        if top is not None:
            rows = sorted(rows, key=lambda word: -abs(word.score))[: checks.at_least(1, top, "top")]
        shown = [visible(word.text, 40) for word in rows]
        width = max(map(cells, shown))
        pairs = zip(shown, rows, strict=True)
        told = (f"{text}{' ' * (width - cells(text))}  {signed(word.score):>9}" for text, word in pairs)
        return "\n".join([self._line(), *told])

    def _line(self) -> str:
        value = output_value(self.output, self.value, self.contrast is not None)
        return f"{self.decision(repr)}{f', {value}' * bool(value)}: {whole_text(self.text)!r:.200}"

    def _view(self) -> View:
        return figure_view("plot_tokens", self)


@checked_arguments
def token_scores(
    model: nn.Module,
    tokenizer: Any,
    texts: Texts,
    target: Any = None,
    *,
    attribution: str = "attattr_joint",
    output: str | None = None,
    contrast: Any = None,
    baseline: str | float | None = None,
    n_steps: int | None = None,
    tolerance: float | None = None,
    task: str | None = None,
    split_into_words: bool = False,
    truncate: bool | int = False,
    internal_batch_size: int | None = None,
    progress: bool = True,
) -> list[TokenScores]:
    r"""Say what each token of a text contributed to a decision, in a few rows a text.

    .. math:: s_j = \sum_l \sum_h \sum_i \mathrm{Attr}_{lh}(A)_{ij}

    By default all layers' attention is opened together along one path (`path="joint"` of `explain`) that begins where
    every query looks at the first token alone ("sink"), with nodes that choose themselves: the scores add up to what
    attention did beyond that, F(A) - F(B), up to `total_delta`. That takes 10 to 14 rows on small encoders, 30 to 50 on
    a decoder of 30 layers, where eight nodes would be too few. How this compares with integrated gradients on
    embeddings, gradient x input, rollout and others, by closing edges and by replacing tokens, stands in
    benchmarks/README.md.

    Args:
        model, tokenizer, texts, target, output, contrast, task, split_into_words, truncate: as in `explain`.
        attribution: any method of `explain`.
        baseline: the path's start; None for "sink" where the method has one.
        n_steps: so many nodes of a Gauss-Legendre rule for every text; None for as many as `tolerance` takes.
        tolerance: the estimated error, as in `explain`; None for 1e-2.
        internal_batch_size: most rows of one forward; None for a default by device and length.
        progress: show a progress bar for what takes longer than two seconds.

    Returns:
        One `TokenScores` for each text, in order. `plot_tokens` draws them.

    Raises:
        As `explain`.

    Example:
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> scored = token_scores(*load_demo_model(), ["a gorgeous , witty film"], progress=False)[0]
        >>> max(scored.words(), key=lambda word: word.score).text
        'gorgeous'
    """
    entry = ATTRIBUTIONS.get(attribution) if isinstance(attribution, str) else None
    if entry and entry.maps is None and tolerance is None:
        tolerance = _TOLERANCE
    if entry and entry.start and baseline is None:
        baseline = "sink"
    texts = sequence_of(texts, split_into_words)
    settings = Settings.of(
        attribution=attribution,
        output=output,
        baseline=baseline,
        attention=False,
        n_steps=n_steps,
        **({} if tolerance is None else {"tolerance": tolerance}),
        internal_batch_size=internal_batch_size,
    )
    reading: dict[str, Any] = {"task": task, "split_into_words": split_into_words}
    explainer = Explainer(model, tokenizer, truncate, settings, contrast is not None, **reading)
    items = explainer.encoded(texts, target, contrast)
    with text_bar(len(items), progress, "token scores") as bar:
        scored = {i: TokenScores.of(one) for i, one in explainer.run(items, bar.update)}
    return ExplanationList(scored[i] for i in range(len(items)))
