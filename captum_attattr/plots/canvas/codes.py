"""Maps as 8-bit codes, a quarter of their size, and bytes compressed for a page."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

SIGNED, UNSIGNED = 127, 63
"""Levels of attribution, which is signed, and of attention."""


class Codes(NamedTuple):
    """Maps as codes c, each sign(c) (c / levels)² times the largest of its map: finest near 0, where most are."""

    codes: npt.NDArray[Any]
    """(..., T, T), int8 or uint8"""
    largest: npt.NDArray[Any]
    """(...) of each map, in size"""
    levels: int


def signed_codes(maps: npt.NDArray[np.float32]) -> Codes:
    """Return codes of attributions, (..., T, T)."""
    largest = np.abs(maps).max((-2, -1))
    root = np.sqrt(np.abs(maps) / np.where(largest > 0, largest, 1)[..., None, None])
    return Codes((np.sign(maps) * np.ceil(root * SIGNED - 0.5)).astype(np.int8), largest, SIGNED)


def unsigned_codes(maps: npt.NDArray[np.float32]) -> Codes:
    """Return codes of attention, (..., T, T); what is below 0 by rounding counts as 0."""
    largest = maps.max((-2, -1))
    root = np.sqrt(np.clip(maps, 0, None) / np.where(largest > 0, largest, 1)[..., None, None])
    return Codes(np.round(root * UNSIGNED).astype(np.uint8), largest, UNSIGNED)


def packed(content: bytes) -> bytes:
    """Return bytes as gzip has them, with or without repeats looked for: maps of short texts repeat nothing."""
    tried = []
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY):
        packer = zlib.compressobj(6, zlib.DEFLATED, 31, 9, strategy)
        tried.append(packer.compress(content) + packer.flush())
    return min(tried, key=len)
