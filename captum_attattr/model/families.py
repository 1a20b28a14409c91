"""What differs from family to family, by name: which are refused, which look back only, how parts are called."""

from __future__ import annotations

# Families whose attention is not one full (queries x keys) matrix per head, by config.model_type.
REFUSED = {
    **dict.fromkeys(("longformer", "led", "longt5"), "its attention is windowed: there is no full query-by-key matrix"),
    **dict.fromkeys(
        ("swin", "swinv2", "swin2sr", "maskformer-swin", "donut-swin", "clap_audio_model", "hiera"),
        "its attention is windowed: batch and windows share one dimension",
    ),
    "falcon": "its attention is fused: it calls scaled_dot_product_attention itself, past the interface",
    "reformer": "its attention is hashed: there is no full query-by-key matrix",
    "nystromformer": "its attention is a low-rank product: there is no full query-by-key matrix",
    "yoso": "its attention is hashed: there is no full query-by-key matrix",
}


# Families outside the interface whose attention looks back only.
CAUSAL_OUTSIDE_INTERFACE = frozenset(
    {"bloom", "mpt", "codegen", "gptj", "gpt_neo", "xglm", "falcon", "ctrl", "openai-gpt"}
)


CROSS_ATTENTION_NAMES = frozenset(
    {"encoder_attn", "encdecattention", "crossattention", "cross_attn", "cross_attention"}
)
