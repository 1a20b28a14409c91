"""The package runs with the oldest releases that it asks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import captum_attattr

NUMPY_2 = frozenset(
    {"acos", "acosh", "asin", "asinh", "astype", "atan", "atan2", "atanh", "bitwise_count", "bitwise_invert", "bool"}
    | {"bitwise_left_shift", "bitwise_right_shift", "concat", "cumulative_prod", "cumulative_sum", "from_dlpack"}
    | {"isdtype", "long", "matrix_transpose", "matvec", "permute_dims", "pow", "strings", "trapezoid", "ulong"}
    | {"unique_all", "unique_counts", "unique_inverse", "unique_values", "unstack", "vecdot", "vecmat"}
    | {f"linalg.{name}" for name in ("cross", "diagonal", "matmul", "matrix_norm", "outer", "svdvals", "tensordot")}
    | {f"linalg.{name}" for name in ("matrix_transpose", "trace", "vecdot", "vector_norm")}
)
"""Names that numpy 2.0 or a later release added."""
FILES = sorted(Path(captum_attattr.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_nothing_of_numpy_2_is_used(file: Path) -> None:
    """`numpy>=1.26` is what pyproject.toml asks for."""
    used = set(re.findall(r"\bnp\.((?:linalg\.)?[a-z0-9_]+)", file.read_text()))
    assert not used & NUMPY_2
