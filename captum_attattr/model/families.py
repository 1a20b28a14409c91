"""Every table of family names: what transformers' families do differently, by config.model_type or by class name."""

from __future__ import annotations

# ------------------------------------------------------------------------------------------ reaching attention

# Families whose attention is not one full (queries x keys) matrix per head, by config.model_type.
REFUSED = {
    **dict.fromkeys(("longformer", "led", "longt5"), "its attention is windowed: there is no full query-by-key matrix"),
    **dict.fromkeys(
        ("swin", "swinv2", "swin2sr", "maskformer-swin", "donut-swin", "clap_audio_model", "hiera"),
        "its attention is windowed: batch and windows share one dimension",
    ),
    "pegasus_x": "its attention is local to blocks beside global tokens: there is no full query-by-key matrix",
    **dict.fromkeys(("swiftformer", "mobilevitv2"), "its attention is additive: there is no query-by-key matrix"),
    "autoformer": "its attention is autocorrelation: there is no query-by-key matrix",
    "dinat": "its attention is local to neighbourhoods: there is no full query-by-key matrix",
    "reformer": "its attention is hashed: there is no full query-by-key matrix",
    "nystromformer": "its attention is a low-rank product: there is no full query-by-key matrix",
    "yoso": "its attention is hashed: there is no full query-by-key matrix",
}

# Families outside the attention interface whose attention looks back only, by config.model_type.
CAUSAL_OUTSIDE_INTERFACE = frozenset(
    {"bloom", "mpt", "codegen", "gptj", "gpt_neo", "xglm", "falcon", "ctrl", "openai-gpt"}
)

# Families whose maps say little of the next token, by config.model_type.
STREAMS = {
    "prophetnet": "predicts in streams of its own beside the tokens that it has read, and no map has their attention"
}

# What cross-attention modules are called in their parents, in lower case.
CROSS_ATTENTION_NAMES = frozenset(
    {"encoder_attn", "encdecattention", "crossattention", "cross_attn", "cross_attention", "visual_attention"}
)

# Towers that run all images of a forward as one packed sequence: their attention modules take the images' ends by this
# name, or are of these classes.
PACKED_ENDS = "cu_seqlens"
PACKED = frozenset({"PixtralAttention"})

# What the classes of modules end in that are called attention and weigh sampled points or features: their softmax is no
# matrix of queries by keys.
NO_MATRIX = ("MultiscaleDeformableAttention", "PatchTSMixerGatedAttention")

# The class that runs one attention module for several layers: ALBERT's.
SHARES_LAYERS = "AlbertTransformer"

# ------------------------------------------------------------------------------------------- inputs and outputs

# Families whose positions start after the padding token's, by config.model_type.
OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "xlm-roberta-xl", "esm"})

# What configs call the most positions that a model takes.
POSITION_LIMITS = ("max_position_embeddings", "n_positions")

# Parameters of vision towers that are tokens before the patches, in their order, and what these tokens are called.
TOKENS_BEFORE_PATCHES = {
    "cls_token": "[CLS]",
    "class_embedding": "[CLS]",
    "distillation_token": "[DIST]",
    "register_tokens": "REG",
}


# What embeddings of positions are called in their parents.
POSITION_TABLES = frozenset({"position_embeddings", "wpe", "embed_positions"})


def causal_language_models() -> frozenset[str]:
    """Return the class names of the causal language models that transformers lists."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())


def text_to_text_models() -> frozenset[str]:
    """Return the class names of the encoder-decoders that transformers lists as writing a text for a text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

    return frozenset(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values())


# ------------------------------------------------------------------------------ the linear maps around attention

# Attributes of attention modules: the size of one head, the count of heads, the size of all heads together.
HEAD_SIZES = ("v_head_dim", "head_dim", "attention_head_size", "head_size", "d_head", "key_value_proj_dim", "dim_head")
HEAD_COUNTS = ("num_heads", "n_heads", "num_attention_heads", "n_head", "num_attn_heads")
GROUP_COUNTS = ("num_key_value_heads", "kv_heads", "num_kv_heads")
ALL_HEADS_SIZES = ("all_head_size", "split_size")

# The output projection: its name inside the attention module, or its path from the module's parent.
OUTPUTS: tuple[str, ...] = ("o_proj", "out_proj", "out_lin", "c_proj", "Wo", "dense", "o", "projection")
LESS_SURE_OUTPUTS = ("proj", "linear_out", "attention_out", "projection_layer", "output", "to_out")  # if linear maps
OUTPUTS += LESS_SURE_OUTPUTS
OUTPUTS_BESIDE = ("output.dense", "post_attention.conv1d")

# Maps whose rows are heads.
QUERIES = frozenset({"query", "q_proj", "q_lin", "q", "query_proj"})
KEYS = frozenset({"key", "k_proj", "k_lin", "k", "key_proj"})
VALUES = frozenset({"value", "v_proj", "v_lin", "v", "value_proj"})
# More maps and biases whose rows are heads: DeBERTa's positions, LUKE's entities.
MORE_MAPS = frozenset(
    {"pos_key_proj", "pos_query_proj", "pos_proj", "pos_q_proj", "q_bias", "v_bias"}
    | {"w2e_query", "e2w_query", "e2e_query"}
)
SINKS = "sinks"  # GPT-OSS: one entry for each head
# Maps that give queries, keys and values at once: one after the other ("blocks"), or of each head together ("heads").
FUSED = {
    ("GPT2Attention", "c_attn"): "blocks",
    ("ModernBertAttention", "Wqkv"): "blocks",
    ("GPTNeoXAttention", "query_key_value"): "heads",
    ("DisentangledSelfAttention", "in_proj"): "heads",
    ("BloomAttention", "query_key_value"): "heads",
    ("MptAttention", "Wqkv"): "blocks",
    ("BlipAttention", "qkv"): "blocks",
    ("Phi3Attention", "qkv_proj"): "groups",
    ("GPTBigCodeAttention", "c_attn"): "heads or shared",
    ("CodeGenAttention", "qkv_proj"): "quarters",
}
# Bare parameters with a dimension of heads.
BARE = {
    **{("XLNetRelativeAttention", name): 1 for name in ("q", "k", "v", "r", "seg_embed")},
    **{("XLNetRelativeAttention", name): 0 for name in ("r_r_bias", "r_s_bias", "r_w_bias")},
}
# Tables of position biases with a column for each head that several layers read: they stay whole, and are indexed.
SHARED_TABLES = frozenset({"relative_attention_bias"})
# Arguments of an attention module's forward that come from outside with an entry for each head, and are indexed.
HEAD_ARGUMENTS = frozenset({"position_bias", "relative_position_bias", "alibi", "rel_pos", "rel_2d_pos"})
# Attention modules whose mask has an entry for each head, since a bias is part of it.
HEAD_MASKS = frozenset({"BeitAttention", "Data2VecVisionAttention"})


def head_arguments(module: object) -> frozenset[str]:
    """Return the names of a module's arguments that have an entry for each head."""
    return HEAD_ARGUMENTS | ({"attention_mask"} if type(module).__name__ in HEAD_MASKS else set())


# How much besides its counts of heads an attention module is told when heads go: see head_adapters.HOWS.
TOLD = {"GPTBigCodeAttention": "widths", "BlipAttention": "division", "Phi3Attention": "config"}
UNTOUCHED = frozenset(
    {"q_norm", "k_norm", "LayerNorm", "layer_norm", "dense_bias"}
)  # of one head's size, or after the output

_INPUT_WIDTH = "its forward gives what all heads give together the width of its input"
# Why heads cannot be cut out of a family, by config.model_type or by class name of an attention module.
NOT_CUT: dict[str, str] = {
    "diffllama": "its heads are halves of pairs: each gives the difference of two attention maps on shared values",
    **dict.fromkeys(("prophetnet", "fsmt", "dab-detr", "TrOCRAttention", "GroupViTAttention"), _INPUT_WIDTH),
    **dict.fromkeys(("TableTransformerAttention", "MgpstrAttention", "TimesformerSelfAttention"), _INPUT_WIDTH),
    "PvtV2SelfAttention": _INPUT_WIDTH,
    "DogeAttention": "the mask of each head is made of the values of all ('dt_proj')",
    "LiltSelfAttention": "its heads give a second context, of the layout, which a mask of a head leaves as it is",
}

# Values that an attention module's forward returns, by class name, where it is not (output, probabilities);
# 0 stands for the output alone, not in a tuple.
RETURNED = {
    **dict.fromkeys(("T5Gemma2MergedAttention", "T5Attention", "MT5Attention", "UMT5Attention"), 3),
    **dict.fromkeys(
        (
            *("MobileViTSelfAttention", "Cosmos3EdgeVisionAttention", "EdgeTamVideoPerceiverAttention"),
            *("Phi4MultimodalAudioAttention", "Qwen2_5OmniAudioAttention", "Qwen3OmniMoeAudioAttention"),
            "Qwen3ASRAudioAttention",
        ),
        0,
    ),
}
# Attention modules whose forward returns two outputs (LUKE's words and entities, PEGASUS-X's tokens and global tokens,
# XLNet's two streams) or no tuple.
NEVER_EMPTY = frozenset(
    {"LukeSelfAttention", "PegasusXGlobalLocalAttention", "XLNetRelativeAttention", "SqueezeBertSelfAttention"}
)
