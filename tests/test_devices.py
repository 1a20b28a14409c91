"""The package on another device than the CPU, without a GPU at hand: in a process of its own, with `second_device`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from device import choose, chosen
from second_device import NAME
from torch.utils import backend_registration

HERE = Path(__file__).parent


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices in Python",
)
@pytest.mark.parametrize(
    ("which", "skipped"),
    [("not two", 5), pytest.param("two", 2, marks=pytest.mark.slow)],  # models on two devices
)
def test_public_functions_on_another_device(which: str, skipped: int) -> None:
    """Torch knows a second device until its process ends, and the other tests should not."""
    device = NAME if chosen().type == "cpu" else str(chosen())
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "--device", device]
    command += ["tests/on_a_device.py", "-k", which]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
    told = rf"^\d+ passed, {skipped} skipped, \d+ deselected in"
    assert re.search(told, done.stdout, re.MULTILINE), done.stdout[-1000:]  # none else left out


def test_a_device_that_is_not_there() -> None:
    with pytest.raises((RuntimeError, AssertionError)):
        choose("cuda:99")
    assert chosen().type != "cuda" or chosen().index != 99
