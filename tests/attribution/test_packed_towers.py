"""Towers that run all images of a forward as one packed sequence: one image is one example, and is run alone."""

import pytest
import torch
import transformers
from tiny_families import exists, tiny_model
from torch import Tensor

from captum_attattr import LayerAttAttr, UnsupportedModelError, attention_layers
from captum_attattr.model.sample_inputs import sample_inputs

TOWERS = ("qwen2_5_vl_vision", "qwen3_vl_vision", "kimi_k25_vision", "hunyuan_vl_vision", "pixtral")


def images(family: str) -> tuple[LayerAttAttr, tuple[Tensor, ...]]:
    """A tower's attribution, and two images: of patches with their grid, or of pixels."""
    if not exists(family):
        pytest.skip(f"transformers {transformers.__version__} has no {family}")
    model = tiny_model(family).double()
    for made in sample_inputs(model):
        names, values = list(made), tuple(made.values())
        if "grid_thw" in made:
            values = values[0].reshape(2, -1, *values[0].shape[1:]), values[1]

        def forward(pixels: Tensor, *grid: Tensor, name: str = names[0]) -> Tensor:
            packed = pixels.flatten(0, 1) if grid else pixels
            return model(**{name: packed}, **({"grid_thw": grid[0]} if grid else {})).last_hidden_state.mean()[None]

        try:
            forward(*(value[:1] for value in values))
        except (RuntimeError, ValueError, IndexError):
            continue
        return LayerAttAttr(forward, attention_layers(model)), values
    raise AssertionError(f"no inputs run {family}")


@pytest.mark.parametrize("path", ["layer", "joint"])
@pytest.mark.parametrize("family", TOWERS)
def test_an_image_is_attributed_alone_and_beside_others_alike(family: str, path: str) -> None:
    attribution, both = images(family)
    result = attribution.integrate(both, n_steps=6, path=path, internal_batch_size=8)
    delta = result.total_delta if path == "joint" else result.delta
    assert delta.abs().max() < 0.05 * result.output.abs().max()
    for i in range(2):
        its = tuple(value[i : i + 1] for value in both)
        torch.testing.assert_close(result.output[i], attribution.forward_func(*its)[0])
        alone = attribution.integrate(its, n_steps=6, path=path)
        for ours, theirs in zip(alone.attributions, result.attributions, strict=True):
            assert ours.abs().sum() > 0
            torch.testing.assert_close(ours, theirs[i : i + 1])
    expected = attribution.compute_convergence_delta(tuple(result.attributions), None, both, path=path)
    torch.testing.assert_close(
        expected if isinstance(expected, Tensor) else torch.stack(expected), delta, atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("family", TOWERS)
def test_attention_put_back_is_the_model_itself_and_two_images_at_once_are_refused(family: str) -> None:
    attribution, both = images(family)
    attention = attribution.attention(both)
    for i in range(2):
        its = tuple(value[i : i + 1] for value in both)
        with torch.no_grad():
            again = attribution.attention_forward(*(layer[i : i + 1] for layer in attention), *its)
        torch.testing.assert_close(again, attribution.forward_func(*its))
    with pytest.raises((UnsupportedModelError, ValueError), match=r"one image at a time|whose own has"):
        attribution.attention_forward(*attention, *both)
