"""Self-attention attribution (AttAttr, AAAI 2021) for Hugging Face transformers, as a Captum plugin."""

from captum_attattr.attattr import LayerAttAttr
from captum_attattr.attention import AttentionLayer, attention_layers
from captum_attattr.exceptions import ConvergenceWarning, ResultFileError, UnsupportedModelError
from captum_attattr.explanation import Explanation, explain, explain_iter
from captum_attattr.integration import PathIntegral
from captum_attattr.pages import write_html
from captum_attattr.plots import plot_attention

__all__ = [
    "AttentionLayer",
    "ConvergenceWarning",
    "Explanation",
    "LayerAttAttr",
    "PathIntegral",
    "ResultFileError",
    "UnsupportedModelError",
    "attention_layers",
    "explain",
    "explain_iter",
    "plot_attention",
    "write_html",
]
