"""Numbers and texts as people read them."""

import numpy as np
import pytest

from captum_attattr.formatting import output_value


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("probability", 0.875, "probability 0.875"),
        ("probability", 1.0, "probability 1"),
        ("score", 0.5, "score 0.5"),
        ("score", -3.25, "score −3.25"),
        ("score", np.float32(12345), "score 1.23e+04"),
        ("score", float("nan"), ""),
        ("probability", float("inf"), ""),
        ("probability", None, ""),
    ],
)
def test_the_output_is_called_what_the_model_says(name, value, text):
    assert output_value(name, value) == text
