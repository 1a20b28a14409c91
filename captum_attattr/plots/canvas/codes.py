"""Maps as 8-bit codes, a quarter of their size, and bytes compressed for a page."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

LEVELS = ((127, 63), (127, 31), (63, 31), (63, 15), (31, 15), (15, 15), (15, 7), (7, 7))
"""Levels of attribution, which is signed, and of attention: the finest that a page has room for."""
_BASE64 = 4 / 3


class Codes(NamedTuple):
    """Maps as codes c, each sign(c) (c / levels)² times the largest of its map: finest near 0, where most are."""

    codes: npt.NDArray[Any]
    """(..., T, T), int8 or uint8"""
    largest: npt.NDArray[Any]
    """(...) of each map, in size"""
    levels: int


def signed_codes(maps: npt.NDArray[np.float32], levels: int = LEVELS[0][0]) -> Codes:
    """Return codes of attributions, (..., T, T)."""
    largest = np.abs(maps).max((-2, -1))
    root = np.sqrt(np.abs(maps) / np.where(largest > 0, largest, 1)[..., None, None])
    return Codes((np.sign(maps) * np.ceil(root * levels - 0.5)).astype(np.int8), largest, levels)


def unsigned_codes(maps: npt.NDArray[np.float32], levels: int = LEVELS[0][1]) -> Codes:
    """Return codes of attention, (..., T, T); what is below 0 by rounding counts as 0."""
    largest = maps.max((-2, -1))
    root = np.sqrt(np.clip(maps, 0, None) / np.where(largest > 0, largest, 1)[..., None, None])
    return Codes(np.round(root * levels).astype(np.uint8), largest, levels)


def room(heads: int, rest: float) -> float:
    """Return how many bytes the maps of so many heads may take in a page whose `rest` takes so many.

    Pages have at most 5 MB with 72 heads, and 8 MB with 144 or more.
    """
    return 1e6 * min(2 + heads / 24, 8) - rest


def fitting(
    attributions: npt.NDArray[np.float32], attention: npt.NDArray[np.float32] | None, most: float
) -> tuple[Codes, Codes | None]:
    """Return the codes of maps (..., T, T), with as many levels as there is room for.

    Flat maps, in which no value is rarer than another, take the most; those of models leave room for all levels.

    Args:
        attributions, attention: the maps.
        most: bytes of a page, packed and in base64.
    """
    for step, (signed, unsigned) in enumerate(LEVELS):
        found = signed_codes(attributions, signed), None if attention is None else unsigned_codes(attention, unsigned)
        every = [each.codes for each in found if each is not None]
        if _BASE64 * sum(map(_bytes, every)) <= most:
            break
        if not step and _BASE64 * len(packed(b"".join(each.tobytes() for each in every))) <= most:
            break  # what repeats takes less
    return found


def _bytes(codes: npt.NDArray[Any]) -> float:
    """Return the bytes that codes (..., T, T) take if nothing in them repeats: the entropy of each map."""
    flat = codes.view(np.uint8).reshape(-1, codes.shape[-2] * codes.shape[-1])
    shares = np.stack([np.bincount(each, minlength=256) for each in flat]) / flat.shape[1]
    bits = -(shares * np.log2(shares, out=np.zeros_like(shares), where=shares > 0)).sum()
    return float(bits) * flat.shape[1] / 8


def coarse(*levels: int) -> str:
    """Return what a page says of codes of attribution, and of attention, that are coarser than usual; else nothing."""
    if all(one == usual for one, usual in zip(levels, LEVELS[0], strict=False)):
        return ""
    within = " and ".join(
        f"{name} within {100 / one:.2g} %" for name, one in zip(("attributions", "attention"), levels, strict=False)
    )
    return (
        "A page has no room for so many numbers of which none is rare: those of single heads, "
        f"{within} of the head's largest."
    )


def packed(content: bytes) -> bytes:
    """Return bytes as gzip has them, with or without repeats looked for: maps of short texts repeat nothing."""
    tried = []
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY):
        packer = zlib.compressobj(6, zlib.DEFLATED, 31, 9, strategy)
        tried.append(packer.compress(content) + packer.flush())
    return min(tried, key=len)
