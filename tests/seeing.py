"""Tiny models that see, their processors, and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import transformers
from families import HEADS, HIDDEN, TINY, VISION, build
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


def _language(kind: str, **changes: Any) -> dict[str, Any]:
    text = {"model_type": kind, "num_key_value_heads": 2, "head_dim": HIDDEN // HEADS}
    return TINY | WORDS | text | {"tie_word_embeddings": False} | changes


def _tower(kind: str, **changes: Any) -> dict[str, Any]:
    return (
        {name: value for name, value in (TINY | VISION).items() if name != "num_labels"}
        | {"model_type": kind}
        | changes
    )


def _tokenizer() -> Any:
    return tiny_tokenizer(
        model_max_length=1024,
        bos_token="[CLS]",
        extra_special_tokens={"image_token": "<image>"},
        additional_special_tokens=["<fake_token_around_image>", "<global-img>", "<end_of_utterance>"],
    )


def llava() -> tuple[Any, Any]:
    """A vision-language model with a causal language model, and its processor."""
    tokenizer = _tokenizer()
    image = tokenizer.convert_tokens_to_ids("<image>")
    configs = {"vision_config": _tower("clip_vision_model"), "text_config": _language("llama")}
    model = build("LlavaForConditionalGeneration", **configs, image_token_id=image, image_token_index=image)
    eye = pil("CLIPImageProcessor")(size={"shortest_edge": 12}, crop_size=SIZE)
    options = {"patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return model, transformers.LlavaProcessor(eye, tokenizer, **options)


PALI = {"projection_dim": HIDDEN, "tie_word_embeddings": False}


def paligemma() -> tuple[Any, Any]:
    """One whose prompt and picture see each other in both directions."""
    tokenizer = _tokenizer()
    image = tokenizer.convert_tokens_to_ids("<image>")
    configs = {"vision_config": _tower("siglip_vision_model", vision_use_head=False), "text_config": _language("gemma")}
    configs["vision_config"] |= {"projection_dim": HIDDEN}
    model = build("PaliGemmaForConditionalGeneration", **configs, **PALI, image_token_index=image)
    eye = pil("SiglipImageProcessor")(size=SIZE)
    eye.image_seq_length = 9
    return model, transformers.PaliGemmaProcessor(eye, tokenizer)


def idefics3() -> tuple[Any, Any]:
    """One whose patches are put together in squares."""
    tokenizer = _tokenizer()
    image = tokenizer.convert_tokens_to_ids("<image>")
    configs = {"vision_config": _tower("idefics3_vision", image_size=16), "text_config": _language("llama")}
    model = build("Idefics3ForConditionalGeneration", **configs, image_token_id=image, scale_factor=2)
    side = {"longest_edge": 16}
    eye = pil("Idefics3ImageProcessor")(size=side, max_image_size=side, do_image_splitting=False)
    return model, transformers.Idefics3Processor(eye, tokenizer, image_seq_len=4)
