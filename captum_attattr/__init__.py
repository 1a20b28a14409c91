"""Self-attention attribution (AttAttr, AAAI 2021) for Hugging Face transformers, as a Captum plugin."""

from captum_attattr.archives.archive import Archive
from captum_attattr.archives.explain_dataset import explain_dataset
from captum_attattr.attribution.integration import PathIntegral
from captum_attattr.attribution.layer_attattr import LayerAttAttr
from captum_attattr.exceptions import ConvergenceWarning, EmptyTreeError, ResultFileError, UnsupportedModelError
from captum_attattr.explanations.explain import explain, explain_iter
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.heads.correlation import Correlation, importance_correlation
from captum_attattr.heads.curves import PruningComparison, PruningCurve, compare_pruning, pruning_curve
from captum_attattr.heads.effectiveness import Effectiveness, effectiveness_analysis
from captum_attattr.heads.importance import HeadImportance, head_importance
from captum_attattr.model.attention_layers import AttentionLayer, attention_layers
from captum_attattr.model.head_masks import mask_heads
from captum_attattr.model.head_pruning import load_pruned, prune_heads, save_pruned
from captum_attattr.plots import (
    plot_attack,
    plot_attention,
    plot_correlation,
    plot_effectiveness,
    plot_flow,
    plot_heads,
    plot_pruning_curve,
    plot_tree,
)
from captum_attattr.plots.canvas.pages import write_html
from captum_attattr.plots.report_page import write_report
from captum_attattr.trees.algorithm import attribution_tree
from captum_attattr.trees.files import load_tree, save_tree, tree_text
from captum_attattr.triggers.attack import attack
from captum_attattr.triggers.extraction import compose_triggers, extract_triggers, triggers_of
from captum_attattr.triggers.insertion import Insertion, insert_trigger
from captum_attattr.triggers.patterns import Pattern, find_patterns
from captum_attattr.triggers.report import AttackReport
from captum_attattr.triggers.trigger import Trigger, load_triggers, save_triggers

__all__ = [
    "Archive",
    "AttackReport",
    "AttentionLayer",
    "ConvergenceWarning",
    "Correlation",
    "Effectiveness",
    "EmptyTreeError",
    "Explanation",
    "HeadImportance",
    "Insertion",
    "LayerAttAttr",
    "PathIntegral",
    "Pattern",
    "PruningComparison",
    "PruningCurve",
    "ResultFileError",
    "Trigger",
    "UnsupportedModelError",
    "attack",
    "attention_layers",
    "attribution_tree",
    "compare_pruning",
    "compose_triggers",
    "effectiveness_analysis",
    "explain",
    "explain_dataset",
    "explain_iter",
    "extract_triggers",
    "find_patterns",
    "head_importance",
    "importance_correlation",
    "insert_trigger",
    "load_pruned",
    "load_tree",
    "load_triggers",
    "mask_heads",
    "plot_attack",
    "plot_attention",
    "plot_correlation",
    "plot_effectiveness",
    "plot_flow",
    "plot_heads",
    "plot_pruning_curve",
    "plot_tree",
    "prune_heads",
    "pruning_curve",
    "save_pruned",
    "save_tree",
    "save_triggers",
    "tree_text",
    "triggers_of",
    "write_html",
    "write_report",
]
