"""Tiny models that see, their processors, and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
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
    made = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)

    def make(**options: Any) -> Any:
        try:
            return made(**options)
        except ImportError as error:  # transformers' stand-in for it
            pytest.skip(f"transformers {transformers.__version__}: {str(error).strip():.100}")

    return make


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


def gemma3() -> tuple[Any, Any]:
    """One whose prompts have another token for the picture than the ids, and whose patches are averaged in squares."""
    names = {"image_token": "<image>", "boi_token": "<begin>", "eoi_token": "<end>"}
    tokenizer = tiny_tokenizer(model_max_length=1024, bos_token="[CLS]", extra_special_tokens=names)
    image, begin, end = tokenizer.convert_tokens_to_ids([*names.values()])
    configs = {
        "vision_config": _tower("siglip_vision_model", image_size=16, vision_use_head=False),
        "text_config": _language("gemma3_text", rms_norm_eps=0.1),
    }
    ids = {"image_token_id": image, "image_token_index": image, "boi_token_index": begin, "eoi_token_index": end}
    model = build("Gemma3ForConditionalGeneration", **configs, **ids, mm_tokens_per_image=4, tie_word_embeddings=False)
    eye = pil("Gemma3ImageProcessor")(size={"height": 16, "width": 16})
    return model, transformers.Gemma3Processor(eye, tokenizer, image_seq_length=4)


class QwenProcessor:
    """What Qwen2-VL's processor does with one picture; its own needs one of videos, which needs torchvision."""

    def __init__(self, eye: Any, tokenizer: Any) -> None:
        self.image_processor, self.tokenizer, self.image_token = eye, tokenizer, "<image>"

    def __call__(self, text: list[str], images: list[Any], return_tensors: str, **options: Any) -> dict[str, Any]:
        made = dict(self.image_processor(images=images, return_tensors=return_tensors))
        count = int(made["image_grid_thw"].prod()) // self.image_processor.merge_size**2
        read = self.tokenizer(text[0].replace("<image>", "<image>" * count), return_tensors=return_tensors, **options)
        kinds = (read["input_ids"] == self.tokenizer.convert_tokens_to_ids("<image>")).long()
        return made | {name: read[name] for name in ("input_ids", "attention_mask")} | {"mm_token_type_ids": kinds}


def qwen2() -> tuple[Any, Any]:
    """One that takes pictures of any size, as rows of patches that are put together in squares."""
    tokenizer = _tokenizer()
    image, video, start = tokenizer.convert_tokens_to_ids(["<image>", "<global-img>", "<fake_token_around_image>"])
    sizes = {"depth": 2, "embed_dim": HIDDEN, "hidden_size": HIDDEN, "num_heads": HEADS, "mlp_ratio": 2}
    vision = sizes | {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
    text = _language("qwen2_vl_text", rope_scaling={"rope_type": "default", "mrope_section": [1, 1, 2]})
    ids = {"image_token_id": image, "video_token_id": video, "vision_start_token_id": start}
    model = build("Qwen2VLForConditionalGeneration", vision_config=vision, text_config=text, **ids)
    eye = pil("Qwen2VLImageProcessor")(patch_size=4, merge_size=2, min_pixels=64, max_pixels=512)
    return model, QwenProcessor(eye, tokenizer)
