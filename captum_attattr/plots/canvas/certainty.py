"""How exact the numbers of an explanation are, in words."""

from __future__ import annotations

import html
import math
from typing import NamedTuple

import numpy as np

from captum_attattr.explanations.explanation import Explanation
from captum_attattr.formatting import number

_SURE, _ROUGH = 0.01, 0.1  # of what is there: so much may be missing without a word on it, without a warning
_MOST = 10.0  # times as much: more need not be told apart
_NO_INTEGRAL = "How exact: this method has no error to estimate, and its scores need not add up to anything."

_NOT_ESTIMATED = "the error was not estimated"


class Certainty(NamedTuple):
    """What a page says of how exact its numbers are."""

    text: str
    rough: bool
    """whether a reader must be warned"""

    @classmethod
    def of(cls, explanation: Explanation) -> Certainty:
        """Say the largest estimated error, and by how much scores miss adding up to what the attention did."""
        delta, error = (part.double().numpy(force=True) for part in (explanation.delta, explanation.error))
        columns = explanation.attributions.double().sum((1, 2))  # (L, T), what each token gave in a layer
        maps, sums = "the worst layer's map", "each layer adds up to what its attention did"
        largest_score = "largest score of a token in a layer"
        if explanation.path == "joint":  # one integral for all layers
            delta, error = np.array([explanation.total_delta]), np.array([explanation.total_error])
            columns = columns.sum(0)
            maps, sums = "all maps together", "all layers together add up to what attention did"
            largest_score = "largest score of a token"
        known = error[~np.isnan(error)]
        complete = bool(np.isfinite(delta).all())
        if not (len(known) or complete or explanation.nodes.any()):
            return cls(_NO_INTEGRAL, False)
        largest, miss, share = float(known.max(initial=0.0)), "", 0.0
        if complete:
            missed = float(np.abs(delta).max())
            share = missed / (float(columns.abs().max()) or math.inf)
            miss = f"; {sums} within {_plain(missed)}"
            miss += f", {_percent(share)} of the {largest_score}" if share > _SURE else ""
        if max(largest, share) <= _ROUGH:
            told = f"to {_percent(largest)}, the estimated error of {maps}" if len(known) else _NOT_ESTIMATED
            return cls(f"How exact: {told}{miss}.", False)
        told = f"the estimated error of {maps} is {_percent(largest)}" if len(known) else _NOT_ESTIMATED
        more = (
            "a smaller tolerance= or larger max_nodes="
            if len(known)
            else "a larger n_steps=, or in explain() none, which finds it"
        )
        return cls(f"Take these numbers as rough: {told}{miss}. What helps: {more}.", True)


def certainty_html(text: str, rough: bool) -> str:
    """Return the HTML of the fields of a Certainty."""
    return f'<p class="certainty{" rough" * rough}">{html.escape(text)}</p>'


def _percent(share: float) -> str:
    if math.isinf(share):
        return "not bounded"
    if share < 1e-5:
        return "less than 0.001 %" if share else "0 %"
    if share > _MOST:
        return f"more than {100 * _MOST:.0f} %"
    return f"{100 * share:.0f} %" if share >= _SURE else f"{number(float(f'{100 * share:.2g}'))} %"


def _plain(value: float) -> str:
    """Return a small number in two digits, and without an exponent that a reader has to work out."""
    if value < 1e-6:
        return "less than 0.000001" if value else "0"
    return f"{value:.6f}".rstrip("0") if value < 1e-4 else number(float(f"{value:.2g}"))
