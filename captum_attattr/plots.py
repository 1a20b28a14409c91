"""Plotly figures of results, one for each kind. They import results only, never a model."""

from captum_attattr.attack_plot import plot_attack
from captum_attattr.attention_plot import plot_attention
from captum_attattr.correlation_plot import plot_correlation
from captum_attattr.effectiveness_plot import plot_effectiveness
from captum_attattr.flow_plot import plot_flow
from captum_attattr.head_plot import plot_heads
from captum_attattr.pruning_plot import plot_pruning_curve
from captum_attattr.tree_plot import plot_tree

__all__ = [
    "plot_attack",
    "plot_attention",
    "plot_correlation",
    "plot_effectiveness",
    "plot_flow",
    "plot_heads",
    "plot_pruning_curve",
    "plot_tree",
]
