"""Settings for every test (one thread, no network, a quiet transformers), and a witness that models are restored."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when transformers is imported

from collections.abc import Callable
from contextlib import AbstractContextManager

import device
import pytest
import torch
import toy
import transformers
from torch import nn

torch.set_num_threads(1)  # with models this small, threads only wait for each other
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help='where the tests\' models are: "cpu", "cuda", ... or "second"')


def pytest_configure(config: pytest.Config) -> None:
    device.choose(config.getoption("--device"))


@pytest.fixture
def unchanged() -> Callable[[nn.Module], AbstractContextManager[None]]:
    """`with unchanged(model):` fails where what runs inside leaves a trace, whether or not it raises."""
    return toy.unchanged
