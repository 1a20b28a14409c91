"""A tiny random model of every family that transformers ships: sizes are set by what configs call them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from captum_attattr.model.sample_inputs import first_line

HEADS, SIZE, GROUPS, LAYERS, VOCAB, IMAGE = 4, 8, 2, 3, 97, 32
HIDDEN = HEADS * SIZE

# Sizes by name; a config takes those of its attributes that are here.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "encoder_hidden_size"), HIDDEN),
    **dict.fromkeys(("decoder_hidden_size", "embedding_size", "emb_dim", "hidden_dim", "width"), HIDDEN),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_heads", "n_head", "attention_heads"), HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_attn_heads"), HEADS),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), HEADS),
    **dict.fromkeys(("encoder_num_attention_heads", "decoder_num_attention_heads"), HEADS),
    **dict.fromkeys(("num_key_value_heads", "n_kv_heads", "num_kv_heads", "multi_query_group_num"), GROUPS),
    **dict.fromkeys(("encoder_num_key_value_heads", "decoder_num_key_value_heads"), HEADS),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "kv_channels", "attention_head_dim", "global_head_dim"), SIZE),
    **dict.fromkeys(("v_head_dim", "qk_nope_head_dim"), SIZE),
    "qk_rope_head_dim": SIZE,
    "rotary_dim": 4,
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), 16),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "depth"), LAYERS),
    **dict.fromkeys(("decoder_layers", "num_encoder_layers", "num_decoder_layers", "layers"), LAYERS),
    **dict.fromkeys(("num_blocks_per_layer",), 1),
    **dict.fromkeys(("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "d_inner", "mlp_dim"), 48),
    **dict.fromkeys(("ffn_hidden_size", "feed_forward_hidden_size", "intermediate_size_mlp"), 48),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts"), 1),
    "vocab_size": VOCAB,
    "entity_vocab_size": 11,
    "type_vocab_size": 2,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_target_positions", "n_ctx"), 64),
    **dict.fromkeys(("max_source_positions",), 16),
    "num_mel_bins": 16,
    **dict.fromkeys(("image_size", "img_size"), IMAGE),
    "patch_size": 8,
    "projection_dim": HIDDEN,
    "initializer_range": 0.2,
    "init_std": 0.2,
    "conv_dim": (16, 16),
    "conv_stride": (4, 2),
    "conv_kernel": (4, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size_per_layer_input": VOCAB,
    "hidden_size_per_layer_input": 8,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": SIZE,
    "linear_value_head_dim": SIZE,
    "mamba_d_state": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "state_size": 8,
    "router_jitter_noise": 0.0,
}
LISTS = {"hidden_sizes": HIDDEN, "num_attention_heads": HEADS, "num_heads": HEADS, "intermediate_sizes": 48}
# A small convolutional network in place of one of the library timm.
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4}
RESNET |= {"layer_type": "basic", "out_features": ["stage1", "stage2", "stage3", "stage4"]}
DETR = {"backbone_config": RESNET}
# What some families need besides, by model type.
BESIDES: dict[str, dict[str, Any]] = {
    "xlnet": {"d_model": HIDDEN, "n_head": HEADS, "d_inner": 48, "n_layer": LAYERS},
    "funnel": {"block_sizes": [1, 1, 1], "d_head": SIZE, "d_model": HIDDEN},
    "modernbert": {"cls_token_id": 1, "sep_token_id": 2, "pad_token_id": 0, "local_attention": 4},
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]], "window_size": 4},
    "squeezebert": {"q_groups": 1, "k_groups": 1, "v_groups": 1, "embedding_size": HIDDEN},
    "mobilebert": {"intra_bottleneck_size": 16, "embedding_size": 16, "num_feedforward_networks": 1},
    "albert": {"embedding_size": 16},
    "mpt": {"max_seq_len": 64},
    "phi3": {"num_key_value_heads": GROUPS},
    "esm": {"position_embedding_type": "rotary", "token_dropout": False, "mask_token_id": 3, "pad_token_id": 0},
    "beit": {"use_relative_position_bias": True},
    "data2vec-vision": {"use_relative_position_bias": True},
    "deberta": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "olmo2": {"num_key_value_heads": HEADS},
    "lilt": {"hidden_size": 48},
    "bros": {"hidden_size": 128},
    "mistral4": {"head_dim": 2 * SIZE},
    "xmod": {"default_language": "en_XX"},
    "musicgen_decoder": {"num_codebooks": 2},
    "musicgen_melody_decoder": {"num_codebooks": 2},
    "mimi": {"upsample_groups": HIDDEN},
    "clvp_encoder": {"hidden_size": 256, "projection_dim": 256},
    "dbrx": {
        "attn_config": {"kv_n_heads": GROUPS, "rope_theta": 1e4, "clip_qkv": 8},
        "d_model": HIDDEN,
        "n_heads": HEADS,
    },
    **dict.fromkeys(("detr", "conditional_detr", "dab-detr", "deformable_detr", "table-transformer"), DETR),
    **{
        f"{name}_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
        for name in ("qwen2_vl", "qwen2_5_vl", "glm4v", "glm4v_moe", "glm46v", "glm_image", "glm_ocr", "paddleocr_vl")
    },
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 8, "visual_embed": False},
    # Hybrids: attention in some layers, which tiny models would else not have.
    "bamba": {"attn_layer_indices": [1]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"]},
    "zamba": {"layers_block_type": ["mamba", "hybrid", "hybrid"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "full_attention"]},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": None,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_hidden_layers": 4,
    },
    "nemotron3_5_transcribe_asr_audio": {"num_key_value_heads": HEADS},
    "nemotron3_diarization_audio": {"num_key_value_heads": HEADS},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    **{
        name: {"layer_types": ["linear_attention", "full_attention", "full_attention"]}
        for name in (
            "qwen3_next",
            "qwen4_exp_text",
            "qwen3_5_text",
            "qwen3_5_moe_text",
            "bailing_hybrid",
            "kimi_linear",
            "olmo_hybrid",
        )
    },
}
# Sections of the rotation of a small head, which configs leave to the model.
SECTIONS = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
BESIDES |= {
    **{
        name: {"rope_parameters": SECTIONS}
        for name in (
            *("qwen2_vl_text", "qwen2_5_vl_text", "glm4v_text", "glm_image_text", "glm_ocr_text", "hunyuan_vl_text"),
            *("qwen2_5_omni_text", "qwen2_5_omni_thinker", "paddleocr_vl_text", "ernie4_5_vl_moe_text"),
        )
    },
    "glm4v_moe_text": {"rope_parameters": SECTIONS | {"mrope_section": [1, 1, 0]}},
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "sep_token_id": 2}
AUTO = ("CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "SEQUENCE_CLASSIFICATION", "IMAGE_CLASSIFICATION", "SPEECH_SEQ_2_SEQ")


def model_types() -> list[str]:
    """Every model type that transformers has a model of; parts of others have none of their own."""
    return sorted(filter(exists, CONFIG_MAPPING))


def exists(model_type: str) -> bool:
    """Whether this release of transformers has a model of that type."""
    return model_type in CONFIG_MAPPING and next(classes(model_type), None) is not None


def tiny_config(model_type: str) -> Any:
    """A small config: the sizes above wherever an attribute has a known name, in configs inside it too."""
    kind = CONFIG_MAPPING[model_type]
    return _config(kind, BESIDES.get(model_type, {}))


def _config(kind: Any, besides: dict[str, Any]) -> Any:
    try:
        default = kind()
    except Exception as error:
        raise NotImplementedError(f"its config has no default: {error}") from error
    changes: dict[str, Any] = {}
    for name in getattr(kind, "sub_configs", {}):
        sub: Any = vars(default).get(name)
        if isinstance(sub, transformers.PreTrainedConfig):
            changes[name] = _config(type(sub), BESIDES.get(sub.model_type, {})).to_dict()
    attributes = dict(kind.attribute_map)
    for name, value in SIZES.items():
        stored = attributes.get(name, name)
        old = vars(default).get(stored)
        if stored not in vars(default) or stored in changes:
            continue
        if isinstance(value, list | tuple) and not isinstance(old, list | tuple):
            continue  # another thing of that name
        if isinstance(old, list | tuple) and not isinstance(value, list | tuple):
            if name in LISTS:
                changes[stored] = type(old)([LISTS[name]] * len(old))
            continue
        changes[stored] = value
    for name in LISTS:
        old = vars(default).get(name)
        if isinstance(old, list | tuple):
            changes[name] = type(old)([LISTS[name]] * len(old))
    for name, number in SPECIAL.items():
        if vars(default).get(name) is not None:
            changes[name] = number
    for name, value in vars(default).items():  # ids of tokens that a small vocabulary lacks
        if name.endswith(("_token_id", "_token_index")) and type(value) is int and name not in SPECIAL:
            changes[name] = VOCAB - 1 - len([n for n in changes if n.endswith(("_token_id", "_token_index"))]) % 20
    changes |= {"layer_types": None} if "layer_types" in vars(default) else {}
    changes |= {"num_key_value_heads": HEADS} if "kv_lora_rank" in vars(default) else {}
    changes |= _rotary(default)
    changes |= besides
    try:
        return kind(**changes)
    except Exception:  # some values do not fit one another: take those that do, one by one
        fitting: dict[str, Any] = {}
        for name, value in changes.items():
            try:
                kind(**fitting, **{name: value})
            except Exception:
                continue
            fitting[name] = value
        return kind(**fitting)


def _rotary(config: Any) -> dict[str, Any]:
    """Parameters of the rotation of a small head, where a config has sections of a large one."""
    changes = {}
    for name in ("rope_parameters", "rope_scaling"):
        old = vars(config).get(name)
        if isinstance(old, dict) and "mrope_section" in old:
            half = int(SIZE * (old.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", 1.0)) / 2)
            changes[name] = old | {"mrope_section": [half - 2 * (half // 3), half // 3, half // 3]}
    return changes


def classes(model_type: str) -> Iterator[Any]:
    """The classes that may be built of a config: a language model or a classifier before the bare model."""
    for task in (
        "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
        "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
        "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
        "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
        "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
        "MODEL_MAPPING_NAMES",
    ):
        names = getattr(modeling_auto, task, {}).get(model_type)
        for name in names if isinstance(names, list | tuple) else [names] * bool(names):
            cls = getattr(transformers, name, None)
            if isinstance(cls, type) and issubclass(cls, nn.Module):
                yield cls


def tiny_model(model_type: str, wanted: Iterable[Any] | None = None) -> Any:
    """A tiny random model of a family, in evaluation mode, without zero parameters, which would hide mistakes.

    Args:
        model_type: of the family.
        wanted: classes that it may be of; None for those of `classes`.

    Raises:
        NotImplementedError: none could be built; the message says why.
    """
    errors: list[str] = []
    for cls in classes(model_type) if wanted is None else wanted:
        try:
            config = tiny_config(model_type)
            if cls.config_class is not type(config):
                config = _config(cls.config_class, BESIDES.get(cls.config_class.model_type, {}))
            with torch.device("meta"):
                size = sum(parameter.numel() for parameter in cls(config).parameters())
            if size > 20_000_000:
                raise NotImplementedError(f"it is still large: {size:,} parameters")
            torch.manual_seed(0)
            model = cls(config).eval()
        except Exception as error:
            errors.append(f"{cls.__name__}: {first_line(error)}")
            continue
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point() and not parameter.any():
                    parameter.normal_(std=0.1)
        return model
    raise NotImplementedError(errors[0] if errors else "transformers lists no model of it")


def given_inputs(model: Any) -> dict[str, Any] | None:
    """Inputs of models that need more than their config tells; None where `sample_inputs` makes them."""
    make = INPUTS.get(model.config.model_type)
    return None if make is None else make(model.config)


def _text(config: Any, **more: Any) -> dict[str, Any]:
    """Token ids that are not special, and more."""
    ids = torch.randint(20, 60, (2, 7), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | more


def _boxed(config: Any) -> dict[str, Any]:
    """Words with boxes."""
    return _text(config, bbox=torch.arange(2 * 7)[:, None].add(torch.tensor([0, 1, 3, 5])).view(2, 7, 4))


def _noise(*size: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(0))


def _video(config: Any) -> dict[str, Any]:
    frames = getattr(config, "num_frames", 2)
    return {"pixel_values": _noise(2, frames, 3, config.image_size, config.image_size)}


def _series(config: Any) -> dict[str, Any]:
    return {"past_values": _noise(2, config.context_length, config.num_input_channels)}


def _patches(config: Any) -> dict[str, Any]:
    """Images as patches, with what they need besides."""
    inputs = {"pixel_values": _noise(2, 16, 3 * (config := getattr(config, "vision_config", config)).patch_size ** 2)}
    return inputs | {"pixel_attention_mask": torch.ones(2, 16), "spatial_shapes": torch.tensor([[4, 4]] * 2)}


INPUTS: dict[str, Any] = {
    **dict.fromkeys(("siglip2", "siglip2_vision_model"), _patches),
    "lxmert": lambda config: _text(
        config, visual_feats=_noise(2, 5, config.visual_feat_dim), visual_pos=_noise(2, 5, 4)
    ),
    "bros": lambda config: _text(config, bbox=_noise(2, 7, 8).abs()),
    **dict.fromkeys(("lilt", "layoutlm", "layoutlmv3"), _boxed),
    "canine": _text,
    **dict.fromkeys(("timesformer", "videomae", "vivit"), _video),
    **dict.fromkeys(("patchtst", "patchtsmixer"), _series),
    "vit_mae": lambda config: {"pixel_values": _noise(2, 3, IMAGE, IMAGE), "noise": _noise(2, (IMAGE // 8) ** 2)},
    # Models of text and images asked about text only.
    **dict.fromkeys(
        (
            *("qwen2_vl", "qwen2_5_vl", "glm4v", "glm4v_moe", "glm46v", "hunyuan_vl", "paddleocr_vl", "step3p7"),
            *("qwen2_5_omni_thinker", "idefics", "ernie4_5_vl_moe"),
        ),
        _text,
    ),
}
