"""Tiny models that see, their processors, and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import transformers
from families import TINY, VISION, build
from toy import tiny_tokenizer

SIZE = {"height": 12, "width": 12}  # 3 x 3 patches
WORDS = {"vocab_size": 60, "max_position_embeddings": 64, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
TOWERS = {"vision_config": TINY | VISION, "text_config": TINY | WORDS}

CLASSIFIERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "ViTForImageClassification": ({}, ["[CLS]"]),
    "DeiTForImageClassification": ({}, ["[CLS]", "[DIST]"]),
    "DeiTForImageClassificationWithTeacher": ({}, ["[CLS]", "[DIST]"]),
    "Dinov2ForImageClassification": ({}, ["[CLS]"]),
    "Dinov2WithRegistersForImageClassification": ({"num_register_tokens": 2}, ["[CLS]", "[REG1]", "[REG2]"]),
    "BeitForImageClassification": ({"use_relative_position_bias": True}, ["[CLS]"]),
    "CLIPForImageClassification": (TOWERS, ["[CLS]"]),
    "SiglipForImageClassification": (TOWERS, []),
    "IJepaForImageClassification": ({}, []),
}
"""By class: further configuration, and the tokens before the patches."""


def pil(name: str) -> Any:
    """A processor that needs no torchvision; older releases of transformers have no other under the plain name."""
    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)


def classifier(name: str = "ViTForImageClassification", **changes: Any) -> Any:
    return build(name, **TINY | VISION | CLASSIFIERS[name][0] | changes)


def processor(**changes: Any) -> Any:
    return pil("ViTImageProcessor")(**{"size": SIZE} | changes)


def clip(**changes: Any) -> tuple[Any, Any]:
    """A model of image-text similarity and its processor."""
    model = build("CLIPModel", **TOWERS | {"projection_dim": 16} | changes)
    eye = pil("CLIPImageProcessor")(size={"shortest_edge": 12}, crop_size=SIZE)
    return model, transformers.CLIPProcessor(eye, tiny_tokenizer())


def siglip() -> tuple[Any, Any]:
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 64
    return build("SiglipModel", **TOWERS), transformers.SiglipProcessor(
        pil("SiglipImageProcessor")(size=SIZE), tokenizer
    )


def pictures(count: int = 2, height: int = 30, width: int = 20) -> list[Any]:
    """Arrays of noise."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]
