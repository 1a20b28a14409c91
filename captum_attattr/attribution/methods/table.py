"""The methods by name, and what each can tell apart."""

from __future__ import annotations

from typing import NamedTuple

from captum_attattr.attribution.methods.alti import alti
from captum_attattr.attribution.methods.attention import attention
from captum_attattr.attribution.methods.attnlrp import attnlrp
from captum_attattr.attribution.methods.chefer import chefer
from captum_attattr.attribution.methods.gradient_attention import gradient_attention
from captum_attattr.attribution.methods.maps import Method
from captum_attattr.attribution.methods.random_scores import random_scores
from captum_attattr.attribution.methods.rollout import rollout


class Entry(NamedTuple):
    """One method."""

    maps: Method | None
    """None of an integral along a path, which is `LayerAttAttr`'s."""
    heads: bool = True
    """Whether it gives a map for each head."""
    layers: bool = True
    """Whether it gives maps for each layer, whichever layers are asked for."""
    start: bool = False
    """Whether the path's start B matters."""


ATTRIBUTIONS: dict[str, Entry] = {
    "attattr": Entry(None, start=True),
    "attattr_joint": Entry(None, start=True),
    "gradient_attention": Entry(gradient_attention, start=True),
    "attention": Entry(attention),
    "chefer": Entry(chefer, heads=False, layers=False),
    "rollout": Entry(rollout, heads=False, layers=False),
    "alti": Entry(alti, heads=False),
    "attnlrp": Entry(attnlrp),
    "random": Entry(random_scores),
}
WITH_HEADS = [name for name, entry in ATTRIBUTIONS.items() if entry.heads]
