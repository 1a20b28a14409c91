"""Targets as users give them: one for all texts, or a list or an array with one for each."""

from __future__ import annotations

from typing import Any

from captum_attattr.checks import listed


def each(name: str, given: Any, count: int, several: bool = False) -> list[Any]:
    """Return a target for each of `count` texts, of one for all or of a list or array with one for each.

    Args:
        name: of the argument, for errors.
        given: the target or targets.
        count: how many texts there are.
        several: whether a text may have a list of targets: of one text alone a list of others than one is that.

    Raises:
        ValueError: a list of more or fewer.
    """
    given = listed(given)
    if not isinstance(given, list):
        return [given] * count
    if several and count == 1 and len(given) > 1:
        return [given]
    if len(given) != count:
        raise ValueError(f"{name} lists {len(given)} entries for {count} texts")
    return given
