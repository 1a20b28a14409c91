"""Which queries of the last layer the output reads: [CLS], the last token, or all of them."""

from __future__ import annotations

from torch import Tensor


def reading(gradients: Tensor) -> Tensor:
    """Return which queries of the last layer the output reads.

    Nothing of any other query's attention reaches F, so that its gradients are exactly 0.

    Args:
        gradients: (B, H, T, T) dF/dA of the last layer, or A times it.

    Returns:
        (B, T) booleans; all of an example that F reads nothing of.
    """
    read = (gradients != 0).any(-1).any(1)
    return read | ~read.any(1, keepdim=True)


def read_rows(relevance: Tensor, gradients: Tensor) -> Tensor:
    """Return the mean, over the queries that the output reads, of what they took from each token.

    Args:
        relevance: (B, T, T), rows queries.
        gradients: as in `reading`.

    Returns:
        (B, T, T): the rows of these queries divided by how many there are, so that columns add up to the mean; the
        other rows are 0.
    """
    read = reading(gradients).to(relevance)
    return relevance * (read / read.sum(1, keepdim=True))[:, :, None]
