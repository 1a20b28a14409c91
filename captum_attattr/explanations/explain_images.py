"""explain_images: from pictures to explanations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr.checks import checked_arguments
from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.explain import row_counter, text_bar
from captum_attattr.explanations.explainer import Explainer, TokenAttAttr
from captum_attattr.explanations.explanation_list import ExplanationList
from captum_attattr.explanations.image_explanation import ImageExplanation
from captum_attattr.explanations.image_kinds import image_model
from captum_attattr.explanations.image_model import EncodedImage, ImageModel, naming_images
from captum_attattr.explanations.images import read_images
from captum_attattr.explanations.settings import Settings
from captum_attattr.explanations.targets import each


class PatchAttAttr(TokenAttAttr):
    """Attributes to attention between patches, and the tokens beside them."""

    def __init__(self, forward: Callable[..., Tensor], layers: Any, seeing: ImageModel) -> None:
        super().__init__(forward, layers)
        self._seeing = seeing

    def token_count(self, inputs: tuple[Any, ...]) -> int:
        """Return how many tokens each picture of a batch has."""
        return self._seeing.token_count(inputs)


class ImageExplainer(Explainer):
    """Explains encoded pictures of one model."""

    texts: ImageModel

    def read(self, model: nn.Module, tokenizer: Any, truncate: bool | int, **reading: Any) -> ImageModel:
        """Return the model as its pictures and outputs are understood."""
        return image_model(model, tokenizer, **reading)

    def attribution_of(self, forward: Callable[..., Tensor]) -> TokenAttAttr:
        """Return what attributes the outputs of a forward function."""
        return PatchAttAttr(forward, self.layers, self.texts)

    def made(self, item: Encoded, **found: Any) -> ImageExplanation:
        """Return the explanation of a picture."""
        assert isinstance(item, EncodedImage)
        return ImageExplanation(
            **found | ({"label": item.label} if item.label else {}),
            tokens=item.tokens,
            text=item.text,
            segments=item.segments,
            special=item.special,
            inputs=item.encoding,
            scheme=self.texts.scheme,
            picture=item.picture,
            grid=item.grid,
            patches=item.patches,
        )


@checked_arguments
def explain_images(
    model: nn.Module,
    processor: Any,
    images: Any,
    target: Any = None,
    *,
    text: Any = None,
    candidates: Iterable[str] | None = None,
    attribution: str = "attattr",
    output: str | None = None,
    contrast: Any = None,
    path: str | None = None,
    baseline: str | float | None = None,
    layers: Iterable[int] | None = None,
    attention: bool = True,
    dtype: torch.dtype | str = torch.float32,
    n_steps: int | None = None,
    method: str = "gausslegendre",
    tolerance: float = 1e-3,
    max_nodes: int = 1_000,
    internal_batch_size: int | None = None,
    progress: bool = True,
) -> list[ImageExplanation]:
    r"""Explain a model's decisions on pictures: which patches carried them, and which patches read which.

    The tokens are the patches, beside [CLS], the distillation token and registers. F is, of

    - a classifier (ViT, DeiT, DINOv2, BEiT, CLIP with a classifier ...): what `explain` has of a text classifier, the
      probability of one class;
    - image-text similarity (CLIP, SigLIP): the cosine similarity of picture and `text`; or with `candidates`, the
      probability of one of them: softmax (of SigLIP sigmoid) of the model's logits. The vision tower is attributed.
    - a vision-language model (LLaVA, PaliGemma, Gemma 3, Idefics 3, SmolVLM, Qwen2-VL): the probability of the token
      that begins the answer to the picture and the prompt `text`. The language model is attributed: its tokens are
      those of the prompt, and patches in the place of the picture's placeholders. Pictures that are cut into tiles are
      refused.

    Args:
        model: the model.
        processor: its image processor, or its processor of images and texts. Those of transformers that have "Pil" in
            their names need no torchvision.
        images: one picture or a list: PIL images, arrays (height, width, 3) of uint8, tensors (3, height, width) of
            uint8 or of floats from 0 to 1 (which are rounded to 256 levels), paths of files. All are read as RGB.
        target: None for the class (candidate, token) that the model predicts; a class's index or name (a token's id, or
            a text of one token), or a list with one of these for each picture.
        text: of image-text similarity, what the pictures are compared with; of a vision-language model the prompt,
            which goes through the processor's chat template, behind the picture, unless it has the picture's
            placeholder itself (an answer may be begun in it then). A text, or a list with one for each picture.
        candidates: of image-text similarity, texts among which the model chooses, for all pictures.
        attribution, output, contrast, path, baseline, layers, attention, dtype: as in `explain`.
        n_steps, method, tolerance, max_nodes, internal_batch_size: as in `LayerAttAttr.attribute`. A ViT of 12 layers
            has maps of 197 x 197 tokens: `n_steps=32` bounds its time.
        progress: show a progress bar for what takes longer than two seconds.

    Returns:
        One `ImageExplanation` for each picture, in order, on the CPU. `plot_image` and `write_report` draw them.

    Raises:
        ImportError: Pillow is not installed.
        TypeError, ValueError: as `explain`; a picture of another kind, with its index and its value; a text where the
            model takes none, or none where it needs one; raised before the model runs.
        FileNotFoundError: a path of no file.
        UnsupportedModelError: the attention cannot be read, or is not one of patches: models that pool them.

    Example:
        >>> import numpy as np
        >>> from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor
        >>> config = ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        ...                    image_size=32, patch_size=8, id2label={0: "cat", 1: "dog"})
        >>> model, processor = ViTForImageClassification(config), ViTImageProcessor(size={"height": 32, "width": 32})
        >>> picture = np.zeros((50, 40, 3), np.uint8)
        >>> explanation = explain_images(model, processor, picture, target="dog", progress=False)[0]
        >>> explanation.label, explanation.grid, explanation.attributions.shape  # (layers, heads, tokens, tokens)
        ('dog', (4, 4), torch.Size([2, 4, 17, 17]))
    """
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
    read = read_images(images)
    explainer = ImageExplainer(model, processor, False, settings, contrast is not None, candidates=candidates)
    given = (("target", target), ("contrast", contrast), ("text", text))
    with naming_images():
        targets, contrasts, texts = (each(name, one, len(read)) for name, one in given)
        items: list[Encoded] = [
            explainer.texts.encode_image(i, image, *rest)
            for i, (image, *rest) in enumerate(zip(read, texts, targets, contrasts, strict=True))
        ]
        explainer.texts.check_sizes(items)
        with text_bar(len(items), progress, "explain", "picture") as bar:
            explanations = dict(explainer.run(items, bar.update, row_counter(bar)))
    return ExplanationList(explanations[i] for i in range(len(items)))
