"""The model families the package is tested with: tiny random models and valid inputs for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import transformers
from device import place
from packaging.version import Version
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

BOS, PAD, EOS = 0, 1, 2
LAYERS, HEADS, HIDDEN, VOCAB, LENGTH, LABELS = 3, 4, 32, 60, 7, 3
IMAGE, PATCH = 12, 4

# Most configs know these names; the others are given their own below. Windows are shorter than the inputs,
# and activations are smooth wherever a config chooses them, so that few nodes integrate exactly.
TINY = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 48,
    "initializer_range": 0.1,
    "num_labels": LABELS,
}
TEXT = {
    "vocab_size": VOCAB,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "decoder_start_token_id": EOS,
}
VISION = {"image_size": IMAGE, "patch_size": PATCH}

Inputs = Callable[[int, "int | None"], dict[str, Tensor]]


@dataclass(frozen=True)
class Family:
    """One family; `layers` counts the attention layers of each kind, reasons are in the words of the refusal."""

    name: str
    build: Callable[[], PreTrainedModel]
    inputs: Inputs
    route: str  # "interface", "softmax" or "refused"
    layers: dict[str, int]  # of "encoder", "decoder" and "cross"
    task: str  # "classification": logits (batch, LABELS); "lm": logits at each token; "features"
    reason: str = ""
    uncut: str = ""  # why its heads can be masked, but not pruned

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.layers)


def stack(batch: int, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
    """Draw each example with its own seed: the first one is the same in every batch."""
    return place(torch.stack([draw(torch.Generator().manual_seed(row)) for row in range(batch)]))


def tokens(batch: int = 1, padding: int | None = None, length: int = LENGTH) -> dict[str, Tensor]:
    """Sentences `<bos> words <eos>` of `length` tokens, and `padding` masked ones on their right."""
    words = stack(batch, lambda generator: torch.randint(EOS + 1, VOCAB, (length - 2,), generator=generator))
    ids = pad(pad(words, (1, 0), value=BOS), (0, 1), value=EOS)
    right = (0, padding or 0)
    return {"input_ids": pad(ids, right, value=PAD), "attention_mask": pad(torch.ones_like(ids), right)}


def blocks(batch: int = 1, padding: int | None = None) -> dict[str, Tensor]:
    """Sentences long enough for attention in blocks."""
    return tokens(batch, padding, length=20)


def pixels(batch: int = 1, padding: int | None = None, size: int = IMAGE) -> dict[str, Tensor]:
    """Images, which have no padding."""
    return {"pixel_values": stack(batch, lambda generator: torch.randn(3, size, size, generator=generator))}


tiles = partial(pixels, size=16)


def speech(batch: int = 1, padding: int | None = None) -> dict[str, Tensor]:
    """Spectrograms, which have no padding, and the beginning of their text."""
    features = stack(batch, lambda generator: torch.randn(8, 12, generator=generator))
    return {"input_features": features, "decoder_input_ids": tokens(batch, length=5)["input_ids"]}


def sound(batch: int = 1, padding: int | None = None) -> dict[str, Tensor]:
    """Waves, without padding."""
    return {"input_values": stack(batch, lambda generator: torch.randn(64, generator=generator))}


def build(name: str, **config: Any) -> PreTrainedModel:
    """Build a model whose tokens have unit variance, without zero parameters, which would hide mistakes."""
    if not hasattr(transformers, name):
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    cls = getattr(transformers, name)
    model = cls(cls.config_class(**config)).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.num_embeddings == VOCAB:
                module.weight /= module.weight.std()
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return place(model)


def task(cls: str) -> str:
    if cls.endswith("Classification"):
        return "classification"
    return "lm" if cls.endswith(("LM", "ConditionalGeneration")) else "features"


def family(
    name: str,
    cls: str,
    *,
    route: str = "interface",
    kind: str = "encoder",
    layers: dict[str, int] | None = None,
    inputs: Inputs = tokens,
    reason: str = "",
    uncut: str = "",
    **config: Any,
) -> Family:
    size = TINY | (TEXT if inputs in (tokens, blocks, speech) else VISION)
    model = partial(build, cls, **size | config)
    return Family(name, model, inputs, route, layers or {kind: LAYERS}, task(cls), reason, uncut)


encoder = family
decoder = partial(family, kind="decoder")
grouped = partial(decoder, num_key_value_heads=2, head_dim=HIDDEN // HEADS)
vision = partial(family, inputs=pixels)
refused = partial(family, route="refused")
both = partial(family, layers={"encoder": LAYERS, "decoder": LAYERS, "cross": LAYERS})

MODERN = {"local_attention": 4, "cls_token_id": BOS, "sep_token_id": EOS}
GROUPS = {"num_hidden_groups": 2, "inner_group_num": 2, "num_hidden_layers": 2}
BOTTLENECK = {"intra_bottleneck_size": 16, "num_feedforward_networks": 2, "hidden_act": "gelu"}
ROTARY = {"position_embedding_type": "rotary", "token_dropout": False}
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
XLNET = {"d_model": HIDDEN, "d_head": HIDDEN // HEADS, "d_inner": 48, "n_head": HEADS, "n_layer": LAYERS}
FULL = {"attention_type": "original_full", "sep_token_id": EOS}
SPARSE = {"attention_type": "block_sparse", "sep_token_id": EOS, "block_size": 2, "num_random_blocks": 1}

GPT_NEO = {"attention_types": [[["global", "local", "global"], 1]], "window_size": 4}
OPT = {"ffn_dim": 48, "activation_function": "gelu", "word_embed_proj_dim": 16}
MPT = {"d_model": HIDDEN, "n_heads": HEADS, "n_layers": LAYERS}
XGLM = {"d_model": HIDDEN, "attention_heads": HEADS, "ffn_dim": 48}
ALTERNATING = {
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 2}  # all of them: a choice would not be smooth
# These models normalize what attention returns: with a small epsilon, all of the integral is a step at A = 0.
SANDWICH = {"rms_norm_eps": 0.1}
# Before transformers 5.21 Gemma 2 runs torch's fused attention, which leaves out its soft cap, if it is not told.
GEMMA2 = ALTERNATING | SANDWICH | {"attn_logit_softcapping": 1.0, "attn_implementation": "eager"}
GEMMA3 = ALTERNATING | SANDWICH

T5 = {
    "d_model": HIDDEN,
    "d_kv": HIDDEN // HEADS,
    "d_ff": 48,
    "num_layers": LAYERS,
    "num_heads": HEADS,
    "feed_forward_proj": "gated-gelu",
}
BART = {
    "d_model": HIDDEN,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "init_std": 0.1,
}
WHISPER = BART | {"num_mel_bins": 8, "max_source_positions": 6, "max_target_positions": 16}

# Of families that transformers 5.24 put on the attention interface.
SINCE_5_24 = "interface" if Version(transformers.__version__) >= Version("5.24") else "softmax"

SMALL_TEXT = {"vocab_size": VOCAB, "bos_token_id": BOS, "eos_token_id": EOS}
NESTED = {"vision_config": TINY | VISION, "text_config": SMALL_TEXT}
NORMALISED = "its queries are normalised over all heads together"

SWIN = {
    "image_size": 16,
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 16,
    "depths": (2, 1),
    "num_attention_heads": (2, 4),
}
WAV2VEC2 = {
    "conv_dim": (16, 16),
    "conv_stride": (4, 2),
    "conv_kernel": (4, 2),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
}

FAMILIES: tuple[Family, ...] = (
    encoder("BERT", "BertForSequenceClassification"),
    encoder("RoBERTa", "RobertaForSequenceClassification"),
    encoder("XLM-RoBERTa", "XLMRobertaForSequenceClassification"),
    encoder("CamemBERT", "CamembertForSequenceClassification"),
    encoder("DistilBERT", "DistilBertForSequenceClassification", hidden_dim=48),
    encoder("ELECTRA", "ElectraForSequenceClassification", embedding_size=16),
    encoder("ALBERT", "AlbertForSequenceClassification", embedding_size=16),
    encoder("ALBERT (groups)", "AlbertForSequenceClassification", layers={"encoder": 4}, **GROUPS),
    encoder("MobileBERT", "MobileBertForSequenceClassification", embedding_size=16, **BOTTLENECK),
    encoder("ModernBERT", "ModernBertForSequenceClassification", **MODERN),
    encoder("EuroBERT", "EuroBertForSequenceClassification", mask_token_id=EOS),
    encoder("NomicBERT", "NomicBertForSequenceClassification"),
    encoder("ESM", "EsmForSequenceClassification", **ROTARY),
    encoder("LayoutLM", "LayoutLMForSequenceClassification"),
    encoder("DeBERTa", "DebertaForSequenceClassification", route="softmax", **DEBERTA),
    encoder("DeBERTa-v2", "DebertaV2ForSequenceClassification", route="softmax", **DEBERTA),
    encoder("MPNet", "MPNetForSequenceClassification", route="softmax"),
    encoder("RemBERT", "RemBertForSequenceClassification", route="softmax", input_embedding_size=16),
    encoder("RoFormer", "RoFormerForSequenceClassification", route="softmax"),
    encoder("MegatronBERT", "MegatronBertForSequenceClassification", route="softmax"),
    encoder("LUKE", "LukeForSequenceClassification", route="softmax", entity_vocab_size=10),
    encoder(
        "SqueezeBERT",
        "SqueezeBertForSequenceClassification",
        route="softmax",
        embedding_size=HIDDEN,
        **{f"{name}_groups": 1 for name in "qkv"},
    ),
    encoder("XLM", "XLMForSequenceClassification", route="softmax", pad_index=PAD),
    encoder("FlauBERT", "FlaubertForSequenceClassification", route="softmax", pad_index=PAD),
    encoder(
        "XLNet",
        "XLNetForSequenceClassification",
        route="softmax",
        summary_type="first",
        **XLNET,
    ),
    encoder("BigBird (full)", "BigBirdForSequenceClassification", route="softmax", **FULL),
    encoder("T5 (encoder)", "T5EncoderModel", **T5),
    encoder("CLIP (text)", "CLIPTextModel", max_position_embeddings=32),
    decoder("GPT-2", "GPT2ForSequenceClassification"),
    decoder("GPT-NeoX", "GPTNeoXForSequenceClassification"),
    decoder("GPT-Neo", "GPTNeoForSequenceClassification", route="softmax", **GPT_NEO),
    decoder("GPTBigCode", "GPTBigCodeForSequenceClassification"),
    decoder("OPT", "OPTForSequenceClassification", **OPT),
    decoder("Phi", "PhiForSequenceClassification"),
    decoder("BioGPT", "BioGptForSequenceClassification"),
    decoder("BLOOM", "BloomForSequenceClassification", route="softmax"),
    decoder("MPT", "MptForSequenceClassification", route="softmax", **MPT),
    decoder("GPT-J", "GPTJForSequenceClassification", route=SINCE_5_24, rotary_dim=4),
    decoder("CodeGen", "CodeGenForCausalLM", route=SINCE_5_24, rotary_dim=4),
    decoder("XGLM", "XGLMForCausalLM", route="softmax", **XGLM),
    decoder("Falcon", "FalconForSequenceClassification", route="softmax", uncut="one of its maps is a FalconLinear"),
    grouped("Llama", "LlamaForSequenceClassification"),
    grouped("Mistral", "MistralForSequenceClassification", sliding_window=4),
    grouped("Mixtral", "MixtralForSequenceClassification", **EXPERTS),
    grouped("Qwen2", "Qwen2ForSequenceClassification"),
    grouped("Qwen3", "Qwen3ForSequenceClassification"),
    grouped("Phi-3", "Phi3ForSequenceClassification"),
    grouped("Gemma", "GemmaForSequenceClassification"),
    grouped("Gemma2", "Gemma2ForSequenceClassification", **GEMMA2),
    grouped("Gemma3", "Gemma3TextForSequenceClassification", **GEMMA3),
    grouped("GPT-OSS", "GptOssForSequenceClassification", **ALTERNATING, **EXPERTS),
    grouped("Cohere", "CohereForCausalLM"),
    grouped("Cohere2", "Cohere2ForCausalLM", **ALTERNATING),
    grouped("OLMo2", "Olmo2ForSequenceClassification", uncut=NORMALISED, **SANDWICH),
    grouped("StableLM", "StableLmForSequenceClassification"),
    grouped("StarCoder2", "Starcoder2ForSequenceClassification"),
    grouped("Granite", "GraniteForCausalLM"),
    grouped("SmolLM3", "SmolLM3ForSequenceClassification"),
    grouped("GLM-4", "Glm4ForSequenceClassification", **SANDWICH),
    both("T5", "T5ForSequenceClassification", **T5),
    both("BART", "BartForSequenceClassification", **BART),
    both("mBART", "MBartForSequenceClassification", **BART),
    both("Whisper", "WhisperForConditionalGeneration", inputs=speech, **WHISPER),
    vision("ViT", "ViTForImageClassification"),
    vision("DeiT", "DeiTForImageClassification"),
    vision("BEiT", "BeitForImageClassification", use_relative_position_bias=True),
    vision("DINOv2", "Dinov2ForImageClassification"),
    vision("DINOv3", "DINOv3ViTModel"),
    vision("CLIP (vision)", "CLIPForImageClassification", **NESTED),
    vision("SigLIP (vision)", "SiglipForImageClassification", **NESTED),
    vision("BLIP (vision)", "BlipVisionModel", route="softmax"),
    encoder("Wav2Vec2", "Wav2Vec2ForSequenceClassification", inputs=sound, **WAV2VEC2),
    refused(
        "Longformer", "LongformerForSequenceClassification", reason="its attention is windowed", attention_window=4
    ),
    refused(
        "BigBird", "BigBirdForSequenceClassification", reason="its attention is block-sparse", inputs=blocks, **SPARSE
    ),
    refused("FNet", "FNetForSequenceClassification", reason="no attention layer"),
    refused(
        "Granite SWA",
        "GraniteSWAForCausalLM",
        kind="decoder",
        reason="its output is not attention times values",
        **ALTERNATING,
    ),
    refused("Swin", "SwinForImageClassification", inputs=tiles, reason="its attention is windowed", **SWIN),
)
