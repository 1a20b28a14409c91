"""Plotly figures of results, one function for each kind. A figure trusts the result, which checked itself."""

from captum_attattr.plots.attack import plot_attack
from captum_attattr.plots.attention import plot_attention
from captum_attattr.plots.correlation import plot_correlation
from captum_attattr.plots.effectiveness import plot_effectiveness
from captum_attattr.plots.faithfulness import plot_faithfulness
from captum_attattr.plots.flow import plot_flow
from captum_attattr.plots.generation import plot_generation
from captum_attattr.plots.heads import plot_heads
from captum_attattr.plots.image import plot_image
from captum_attattr.plots.pruning_curve import plot_pruning_curve
from captum_attattr.plots.tokens import plot_tokens
from captum_attattr.plots.tree import plot_tree

__all__ = [
    "plot_attack",
    "plot_attention",
    "plot_correlation",
    "plot_effectiveness",
    "plot_faithfulness",
    "plot_flow",
    "plot_generation",
    "plot_heads",
    "plot_image",
    "plot_pruning_curve",
    "plot_tokens",
    "plot_tree",
]
