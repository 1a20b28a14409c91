"""`ImageExplanation`: an explanation of a decision on a picture, with the picture and where its patches are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from captum_attattr import checks
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.explanation_checks import inputs_by_name
from captum_attattr.notebooks import View, figure_view


@dataclass(frozen=True, eq=False, repr=False)
class ImageExplanation(Explanation):
    """What every layer's attention did for one decision on one picture: an `Explanation` whose tokens are patches.

    A patch is called "patch 3,5": row 3 and column 5 of the grid, counted from 0 at the top left. [CLS], [DIST] and
    [REG1] ... are special tokens; of a vision-language model the other tokens are those of the prompt.

    Attributes:
        picture: (height, width, 3) uint8, the pixels that the model saw: after the processor has resized and cropped.
        grid: (rows, columns) of patches.
        patches: (rows x columns) the tokens that are patches, row by row.
        inputs: the model's inputs by name, each of one example. Of image-text similarity the texts have one more
            dimension: (1, texts, tokens).
        text: of a classifier the file's name or the picture's size; else the text that the picture is compared with, or
            the prompt; several candidates are separated by " | ".

    Raises:
        TypeError, ValueError: as `Explanation`; patches that are no tokens, or do not fill the grid.
    """

    picture: Tensor = field(default_factory=lambda: torch.empty(0))
    grid: Sequence[int] = (0, 0)
    patches: Sequence[int] = ()

    list_plot = "plot_image"

    def __post_init__(self) -> None:
        super().__post_init__()
        picture = checks.tensor("picture", self.picture, ("height", "width", 3))
        if picture.dtype != torch.uint8:
            raise TypeError(f"picture must be of uint8, not {picture.dtype}")
        rows, columns = checks.integers("grid", list(self.grid), 2, smallest=1)
        patches = checks.integers("patches", self.patches, rows * columns, smallest=0)
        if len(set(patches)) < len(patches) or max(patches) >= len(self.tokens):
            raise ValueError(f"patches must be different tokens from 0 to {len(self.tokens) - 1}")
        checks.set_fields(self, picture=picture, grid=(rows, columns), patches=patches)

    @staticmethod
    def checked_inputs(inputs: Any, tokens: int) -> dict[str, Tensor]:
        """Return inputs by name, each of one example; pixels and texts to compare with have shapes of their own."""
        return inputs_by_name(inputs, lambda _, value: (1, *getattr(value, "shape", ())[1:]))

    def patch_scores(self, layer: int | None = None) -> Tensor:
        """Return `token_scores` as the patches lie in the picture, (rows, columns); of other tokens nothing is shown.

        Example:
            >>> import torch
            >>> from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor
            >>> from captum_attattr import explain_images
            >>> config = ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
            ...                    image_size=32, patch_size=8, id2label={0: "cat", 1: "dog"})
            >>> model = ViTForImageClassification(config)
            >>> processor = ViTImageProcessor(size={"height": 32, "width": 32})
            >>> explanation = explain_images(model, processor, torch.rand(3, 40, 40), progress=False)[0]
            >>> explanation.patch_scores().shape, explanation.tokens[:2]
            (torch.Size([4, 4]), ['[CLS]', 'patch 0,0'])
        """
        return self.token_scores(layer)[list(self.patches)].reshape(*self.grid)

    @property
    def noun(self) -> str:
        """What views call a token: "patch", or "part" where there is text beside the picture."""
        return "part" if self.answers else "patch"

    @property
    def answers(self) -> bool:
        """Whether there is text beside the picture, whose last token the answer is made at."""
        every = set(self.patches)
        return not all(flag or i in every for i, flag in enumerate(self.special))

    def _view(self) -> View:
        return figure_view("plot_image", self)
