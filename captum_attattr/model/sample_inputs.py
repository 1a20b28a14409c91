"""Small inputs that a model runs on, made from its config: to see what its heads depend on, and whether it is the same.

Sizes that do not matter to a text are as small as tells heads, tokens and rows apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model.attention_layers import family_name
from captum_attattr.model.modes import evaluation_mode, plain

_ROWS, _TOKENS, _SEED = 2, 7, 20
_GRID = 4
"""Patches along each side of an image, where a model is given patches."""
_BINS = ("feature_projection_input_dim", "num_mel_bins", "input_feat_per_channel")


def sample_inputs(model: Any) -> list[dict[str, Tensor]]:
    """Return keyword arguments for a model of transformers: tokens, pixels, patches, a spectrogram or a wave.

    Returns:
        What to try first, and what else: text with an image, and text alone; an image, and frames of a video.

    Raises:
        LookupError: nothing is known of what the model takes.
    """
    names, config = inspect.signature(model.forward).parameters, model.config
    generator = torch.Generator().manual_seed(_SEED)
    main = next((n for n in (model.main_input_name, *_MAKERS) if n in _MAKERS and n in names), None)
    if "grid_thw" in names:  # the images of Qwen2-VL and its like
        main, made = next(iter(names)), _patches(config, generator)
    elif main is None:
        raise LookupError(f"it takes {', '.join(names)}")
    else:
        made = _MAKERS[main](config, generator)
    besides: dict[str, Tensor] = {}
    if main == "input_ids" and "attention_mask" in names:
        besides["attention_mask"] = torch.ones_like(made[0])
    if "decoder_input_ids" in names:
        besides["decoder_input_ids"] = _tokens(config, generator)[0][:, :-2]
    if "grid_thw" in names:
        besides["grid_thw"] = torch.tensor([[1, _GRID, _GRID]] * _ROWS)
    tries = [{main: value} | besides for value in made]
    if main == "input_ids" and "pixel_values" in names:
        with_images = [tries[0] | {"pixel_values": pixels} for pixels in _pixels(config, generator)]
        tries = [*with_images[:1], *tries, *with_images[1:]]
    place = next(model.parameters())
    return [
        {n: v.to(place.device, place.dtype if v.is_floating_point() else None) for n, v in each.items()}
        for each in tries
    ]


def _tokens(config: Any, generator: torch.Generator) -> list[Tensor]:
    """Draw token ids that have no special meaning."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    size = int(getattr(text, "vocab_size", 0) or getattr(config, "vocab_size", 0) or 0)
    special = {
        number
        for owner in (config, text)
        for name, value in vars(owner).items()
        if name.endswith(("token_id", "token_index", "pad_index"))
        for number in (value if isinstance(value, list) else [value])
    }
    plain_ids = torch.tensor([number for number in range(min(size, 1_000)) if number not in special])
    if not len(plain_ids):
        raise LookupError(f"its vocabulary has {size} tokens")
    return [plain_ids[torch.randint(len(plain_ids), (_ROWS, _TOKENS), generator=generator)]]


def _pixels(config: Any, generator: torch.Generator) -> list[Tensor]:
    """Draw images of the size that a config says, (rows, channels, height, width), and frames of each."""
    config = getattr(config, "vision_config", config)
    size = getattr(config, "image_size", None) or (
        64 if hasattr(config, "backbone_config") else 32
    )  # DETR divides by 32
    height, width = size if isinstance(size, list | tuple) else (size, size)
    frames = getattr(config, "num_frames", None) or 2
    images = torch.randn(_ROWS, _channels(config), height, width, generator=generator)
    return [images, torch.randn(_ROWS, frames, *images.shape[1:], generator=generator)]


def _frames(config: Any, generator: torch.Generator) -> list[Tensor]:
    """Draw videos, (rows, frames, channels, height, width)."""
    return _pixels(config, generator)[1:]


def _patches(config: Any, generator: torch.Generator) -> list[Tensor]:
    """Draw the patches of all images in one row, (patches, numbers in each), and with their channels apart."""
    channels, times, size = _channels(config), getattr(config, "temporal_patch_size", 1), config.patch_size
    patches = torch.randn(_ROWS * _GRID**2, channels, times, size, size, generator=generator)
    return [patches.flatten(1), patches[:, :, 0]]


def _channels(config: Any) -> int:
    """Return the channels of an image."""
    return getattr(config, "num_channels", None) or getattr(config, "in_channels", None) or 3


def _spectrogram(config: Any, generator: torch.Generator) -> list[Tensor]:
    """Draw spectrograms: (rows, bins, frames) where the config counts source positions, else (rows, frames, bins)."""
    config = getattr(config, "audio_config", config)
    bins = next((getattr(config, name) for name in _BINS if hasattr(config, name)), None)
    if bins is None:
        raise LookupError(f"its config has none of {', '.join(_BINS)}")
    if hasattr(config, "max_source_positions") and not hasattr(config, "input_feat_per_channel"):
        return [torch.randn(_ROWS, bins, 2 * config.max_source_positions, generator=generator)]
    frames = torch.randn(_ROWS, 40, bins, generator=generator)
    return [frames, frames.mT]


def _wave(config: Any, generator: torch.Generator) -> list[Tensor]:
    """Draw waves that are long enough for every convolution before the attention, and spectrograms of such a name."""
    strides = getattr(config, "conv_stride", None) or [400]
    wave = torch.randn(_ROWS, 12 * int(torch.tensor(strides).prod()) + 400, generator=generator)
    bins, frames = getattr(config, "num_mel_bins", None), getattr(config, "max_length", None)
    spectrograms = [torch.randn(_ROWS, frames, bins, generator=generator)] if bins and frames else []
    return [wave, wave[:, None], *spectrograms]


_MAKERS: dict[str, Callable[[Any, torch.Generator], list[Tensor]]] = {
    "input_ids": _tokens,
    "pixel_values": _pixels,
    "pixel_values_videos": _frames,
    "input_features": _spectrogram,
    "input_values": _wave,
}
"""By the name of what a model takes: draws what to try for it, the likeliest first."""


class Runs:
    """Forwards that together pass through some modules: each a model of transformers and inputs for it.

    Args:
        model: that holds the modules.
        modules: to be passed through.
        inputs: keyword arguments of the model's forward; None to make them.

    Raises:
        UnsupportedModelError: no inputs can be made on which the modules run.
        TypeError, ValueError: `inputs` are no mapping, or the forward fails on them or passes a module by.
    """

    def __init__(self, model: nn.Module, modules: list[nn.Module], inputs: Mapping[str, Any] | None) -> None:
        self.calls: list[tuple[nn.Module, Mapping[str, Any]]] = []
        if inputs is not None:
            self._take(model, modules, inputs)
            return
        left, failures = list(modules), []
        for part in _models(plain(model)):
            inside = [module for module in left if any(module is other for other in part.modules())]
            if not inside:
                continue
            try:
                tries = sample_inputs(part)
            except Exception as error:  # its config may lack anything
                failures.append(f"{type(part).__name__}: {first_line(error)}")
                continue
            for made in tries:
                if not inside:
                    break
                try:
                    passed = modules_passed(part, made, inside)
                except Exception as error:  # whatever a model raises on inputs that it was not made for
                    failures.append(f"{type(part).__name__}: {first_line(error)}")
                    continue
                if passed:
                    self.calls.append((part, made))
                    left = [module for module in left if all(module is not other for other in passed)]
                    inside = [module for module in inside if any(module is other for other in left)]
        if left:
            why = f" ({failures[0]})" if failures else ""
            raise UnsupportedModelError(
                f"{family_name(model)}: no inputs could be made that run its {type(left[0]).__name__}{why}; give "
                "prune_heads some as inputs={...}, the keyword arguments of its forward, or verify=False"
            )

    def _take(self, model: nn.Module, modules: list[nn.Module], inputs: Any) -> None:
        if not isinstance(inputs, Mapping):
            raise TypeError(f"inputs must be the keyword arguments of the model's forward, got {type(inputs).__name__}")
        usable = {name: _usable(value) for name, value in inputs.items()}
        try:
            passed = modules_passed(model, usable, modules)
        except Exception as error:
            raise ValueError(f"the model does not run on the inputs that were given: {error}") from error
        if len(passed) < len(modules):
            raise ValueError("the forward on the inputs that were given does not pass through all layers to be cut")
        self.calls = [(model, usable)]

    def outputs(self, copies: Mapping[nn.Module, nn.Module] | None = None) -> list[Tensor]:
        """Run every forward without gradients, and return the floating-point tensors that they give.

        Args:
            copies: what to run in place of a model, by the model.
        """
        with torch.no_grad():
            calls = [((copies or {}).get(part, part), inputs) for part, inputs in self.calls]
            return [tensor for part, inputs in calls for tensor in _tensors(run(part, inputs))]


def _usable(value: Any) -> Any:
    """Return a tensor made in inference mode as one that gradients may pass."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def run(model: nn.Module, inputs: Mapping[str, Any]) -> Any:
    """Run one forward in evaluation mode, uncompiled, and with the same random numbers each time."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with evaluation_mode(model), torch.random.fork_rng(devices):
        torch.manual_seed(_SEED)
        return model(**inputs)


def _models(model: nn.Module) -> Iterator[Any]:
    """Yield the models of transformers in a module, outer ones first."""
    from transformers import PreTrainedModel

    yield from (module for module in model.modules() if isinstance(module, PreTrainedModel))


def modules_passed(model: nn.Module, inputs: Mapping[str, Any], modules: list[nn.Module]) -> list[nn.Module]:
    """Return the modules that one forward passes through."""
    seen: list[nn.Module] = []
    with torch.no_grad(), _hooked(modules, lambda module, *_: seen.append(module)):
        run(model, inputs)
    return [module for module in modules if any(module is other for other in seen)]


@contextmanager
def _hooked(modules: list[nn.Module], hook: Callable[..., None]) -> Iterator[None]:
    """Call a function after each run of some modules."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors of an output; caches are objects, and left out."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        parts = (part for name, part in value.items() if "attentions" not in str(name))  # these count heads
        yield from (tensor for part in parts for tensor in _tensors(part))
    elif isinstance(value, list | tuple):
        yield from (tensor for part in value for tensor in _tensors(part))


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Return the largest difference between outputs, in units of what their type's rounding can explain.

    A value of 1 or less is rounding: the square root of the type's epsilon, of the largest entry.
    """
    if [tensor.shape for tensor in ours] != [tensor.shape for tensor in theirs]:
        return float("inf")
    most = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a.numel():
            scale = float(b.detach().float().nan_to_num(0, 0, 0).abs().max()) + 1e-6
            apart = float((a.float() - b.float()).masked_fill(a == b, 0).nan_to_num(torch.inf, torch.inf).abs().max())
            most = max(most, apart / scale / torch.finfo(b.dtype).eps ** 0.5)
    return most
