"""Settings for every test (one thread, no network, a quiet transformers), and what a restored model is."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when transformers is imported

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig

torch.set_num_threads(1)  # with models this small, threads only wait for each other
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def configs_in(value: Any, seen: dict[int, PreTrainedConfig]) -> None:
    """Collect a config and the ones inside it, also those that no module of the model refers to."""
    if isinstance(value, PreTrainedConfig) and id(value) not in seen:
        seen[id(value)] = value
        for part in vars(value).values():
            configs_in(part, seen)


def snapshot(model: nn.Module) -> dict[str, Any]:
    """All of a model's state that something which runs the model could leave changed."""
    configs: dict[int, PreTrainedConfig] = {}
    for module in model.modules():
        configs_in(getattr(module, "config", None), configs)
    hooks = {
        (name, key): list(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if "hooks" in key and isinstance(value, dict)
    }
    return {
        "configs": {key: (c._attn_implementation_internal, c.to_dict()) for key, c in configs.items()},
        "hooks": hooks,
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "training": {name: module.training for name, module in model.named_modules()},
        "parameters": {name: (id(p), p.requires_grad, p.data_ptr()) for name, p in model.named_parameters()},
        "gradients": {name: p.grad for name, p in model.named_parameters()},
        "values": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "grad mode": torch.is_grad_enabled(),
        "function modes": torch._C._len_torch_function_stack(),
        "interfaces": (sorted(AttentionInterface()), sorted(AttentionMaskInterface())),
    }


def assert_same_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    for part in before.keys() - {"values", "gradients"}:
        assert after[part] == before[part], part
    assert after["values"].keys() == before["values"].keys()
    for name, tensor in before["values"].items():
        assert torch.equal(after["values"][name], tensor), name
    for name, gradient in before["gradients"].items():
        assert after["gradients"][name] is gradient, name


@pytest.fixture
def unchanged() -> Callable[[nn.Module], AbstractContextManager[None]]:
    """`with unchanged(model):` fails where what runs inside leaves a trace, whether or not it raises."""

    @contextmanager
    def check(model: nn.Module) -> Iterator[None]:
        before = snapshot(model)
        try:
            yield
        finally:
            assert_same_state(before, snapshot(model))

    return check
