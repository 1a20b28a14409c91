"""Low-rank updates of linear maps: trained beside frozen weights, then merged into them."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """A weight plus an update of low rank: ``W + scale * B @ A``.

    B starts at zero, so the map is unchanged until training moves it.

    Args:
        weight: W, of shape (outputs, inputs).
        rank: the rows of A and columns of B.
        scale: the factor of the update.

    Raises:
        ValueError: the rank is below 1 or above the smaller side of W.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        if not 1 <= rank <= min(outputs, inputs):
            raise ValueError(f"rank {rank} does not fit a {outputs} x {inputs} map: 1 to {min(outputs, inputs)}")
        self.scale = scale
        self.A = nn.Parameter(torch.randn(rank, inputs) / math.sqrt(inputs))
        self.B = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Return ``W + scale * B @ A`` for the frozen W."""
        return weight + self.scale * (self.B @ self.A)


def add_low_rank(maps: Iterable[nn.Linear], rank: int, scale: float) -> None:
    """Give every linear map a low-rank update: its weight W is read as ``W + scale * B @ A``.

    Args:
        maps: the linear maps, changed in place.
        rank: the rank of each update.
        scale: the factor of each update.

    Raises:
        ValueError: the rank does not fit one of the maps; none is changed.
    """
    updates = [(linear, LowRank(linear.weight, rank, scale)) for linear in maps]
    for linear, update in updates:
        parametrize.register_parametrization(linear, "weight", update)


def merge_low_rank(model: nn.Module) -> None:
    """Write every low-rank update into its map's ordinary weight, ``W <- W + scale * B @ A``.

    Args:
        model: changed in place; no parametrization is left on the maps that `add_low_rank` was given.
    """
    for module in list(model.modules()):
        if isinstance(module, nn.Linear) and parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
