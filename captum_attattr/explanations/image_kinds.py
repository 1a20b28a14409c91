"""Which kind of model that sees a model is, and its processor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from captum_attattr import checks
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.explanations.image_language import ImageLanguageModel
from captum_attattr.explanations.image_model import ImageModel, ImageTextModel
from captum_attattr.model.attention_layers import family_name
from captum_attattr.model.wrappers import check_whole, language_tower, parameters_of, unwrapped


def takes_images(processor: Any) -> bool:
    """Return whether something is a processor of images, alone or beside a tokenizer."""
    names = getattr(processor, "model_input_names", None) or ()
    made = callable(processor) and not isinstance(processor, type)
    return made and (hasattr(processor, "image_processor") or "pixel_values" in names)


def image_model(model: Any, processor: Any, candidates: Any = None) -> ImageModel:
    """Return a model that sees as its task asks.

    Raises:
        TypeError: a processor or a model of another kind.
        ValueError: candidates of a model that has none, or too few.
    """
    if not takes_images(processor):
        raise TypeError(f"processor must be the model's processor of images, got {type(processor).__name__}")
    model = unwrapped(model)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a model of transformers that takes images, got {type(model).__name__}")
    check_whole(model)
    if "spatial_shapes" in parameters_of(model):
        raise UnsupportedModelError(f"{family_name(model)} takes rows of patches, which are not put together here")
    if all(hasattr(model, name) for name in ("get_image_features", "get_text_features", "vision_model", "logit_scale")):
        return ImageTextModel(model, processor, checked_candidates(candidates))
    if candidates is not None:
        raise ValueError(
            f"candidates are texts to choose among, which {type(model).__name__} does not do; leave it out"
        )
    classifies = any("ForImageClassification" in kind.__name__ for kind in type(model).__mro__)
    if classifies and getattr(model, "main_input_name", "") == "pixel_values":  # not ImageGPT, ShieldGemma 2
        return ImageModel(model, processor, model.config, model)
    if language_tower(model):
        return ImageLanguageModel(model, processor)
    raise TypeError(
        "expected a model for image classification, for image-text similarity, or one that answers to pictures, got "
        f"{type(model).__name__}; give LayerAttAttr a forward function of your own"
    )


def checked_candidates(candidates: Any) -> list[str] | None:
    """Return texts to choose among.

    Raises:
        TypeError, ValueError: no list of different texts, at least two.
    """
    if candidates is None:
        return None
    if isinstance(candidates, str) or not isinstance(candidates, Iterable):
        raise TypeError(f"candidates must be a list of texts, not {type(candidates).__name__}: {candidates!r:.60}")
    texts = list(candidates)
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise TypeError(f"candidates must be texts, not {type(text).__name__}: {text!r:.60}")
        checks.characters("one of candidates", text)
    if len(set(texts)) < len(texts) or len(texts) < 2:
        raise ValueError(f"candidates must be two or more different texts, not {texts!r:.100}")
    return texts
