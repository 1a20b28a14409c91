"""What is learned of a model once for inputs of one form, and holds for all batches of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from captum_attattr.attribution.late_branching import BlockRecorder, LateBranching
from captum_attattr.exceptions import ModelInUseError, UnsupportedModelError
from captum_attattr.model.attention_control import AttentionControl, LayerCall
from captum_attattr.model.attention_layers import family_name
from captum_attattr.runs.memory import out_of_memory

Evaluate = Callable[[Tensor], Tensor]
"""F of the examples with these indices (R,), as a tensor (R,): expands the batch and runs the model."""


@dataclass
class Facts:
    """What is known of a model for inputs of one form.

    Attributes:
        space: "context" or "attention": what of a layer is replaced, see `AttentionControl.watch`.
        fused: ids of the modules whose fused attention computes what their eager function does.
        order: the layers as they run.
        shapes: (H, Tq, Tk) of every layer.
        dtype: the type that the model computes in.
        branching: how the blocks are cut; None where they are not.
        verified: whether rows that branch have been seen to be right.
        packed: whether all rows of a forward would be one packed sequence: they are run one by one.
    """

    space: str
    fused: set[int] = field(default_factory=set)
    order: list[int] = field(default_factory=list)
    shapes: list[torch.Size] = field(default_factory=list)
    dtype: torch.dtype = torch.float32
    branching: LateBranching | None = None
    verified: bool = False
    packed: bool = False

    def parts(self, examples: Sequence[int]) -> list[Sequence[int]]:
        """Return which examples can be run in one forward."""
        return [[example] for example in examples] if self.packed else [examples]

    @torch.no_grad()
    def resized(self, control: AttentionControl, evaluate: Evaluate, device: torch.device) -> Facts:
        """Return what is known for inputs of another length: one example is run to see the shapes."""
        shapes: dict[int, torch.Size] = {}

        def read(layer: int, call: LayerCall) -> None:
            shapes[layer] = call.shape

        control.fused = self.fused
        with control.watch(read, space=self.space):
            evaluate(torch.zeros(1, dtype=torch.long, device=device))
        return replace(self, shapes=[shapes[layer] for layer in range(len(control.layers))])


@torch.no_grad()
def learn(control: AttentionControl, evaluate: Evaluate, uncontrolled: Tensor, example: int) -> Facts:
    """Run one example, and see how its attention can be replaced.

    Args:
        control: the model's attention, under control.
        evaluate: see `Evaluate`.
        uncontrolled: (B,) F of every example, run in batches by the model's own attention implementation.
        example: which of them is run.

    Raises:
        UnsupportedModelError: the model computes something else once its attention is read, or for one example alone.
    """
    rows = torch.tensor([example], device=uncontrolled.device)
    in_context = any(layer.route == "interface" for layer in control.layers)
    alone = uncontrolled[rows]
    for space in ["context"] * in_context + ["attention"]:
        try:
            facts, alone = _learn_in(space, control, evaluate, rows)
        except (TypeError, AttributeError, RuntimeError, ValueError, IndexError) as error:
            # In context space a forward function that reads the attentions is given none.
            if out_of_memory(error) or isinstance(error, ModelInUseError | UnsupportedModelError):
                raise
            if space == "attention":
                batched = _runs_eagerly(control, evaluate, torch.arange(len(uncontrolled), device=rows.device))
                raise UnsupportedModelError(
                    f"{family_name(control.model)} runs by itself, and fails "
                    + ("for one example alone" if batched else "when its attention is computed eagerly")
                    + f": {type(error).__name__}: {error}"
                    + "; dimension 0 of its inputs must hold examples that it can be run on one by one" * batched
                ) from error
            continue
        if close(alone, uncontrolled[rows], facts.dtype):
            return facts
    with control.watch(lambda *_: None):
        together = evaluate(torch.arange(len(uncontrolled), device=rows.device))[example]
    if len(uncontrolled) > 1 and close(together, uncontrolled[example], facts.dtype):
        raise UnsupportedModelError(
            f"the model's output for example {example} is {together.item():.6g} in its batch and {alone.item():.6g} "
            "alone; examples of one batch must not influence each other"
        )
    with control.plainly_eager():
        same = close(evaluate(rows), alone, facts.dtype)
    raise UnsupportedModelError(
        "the model's output changes when its attention is computed eagerly: "
        f"F = {uncontrolled[example].item():.6g} by itself, {alone.item():.6g} eagerly, for example {example}; "
        + (
            "transformers' eager and fused attention of this family differ: model.set_attn_implementation('eager') "
            "makes it a model that can be attributed"
            if same
            else "its attention cannot be read faithfully (dropout in training mode, a cache that is used again and "
            "rows that are all padding do this)"
        )
    )


def _runs_eagerly(control: AttentionControl, evaluate: Evaluate, rows: Tensor) -> bool:
    """Whether transformers' own eager functions run these examples together; False for one."""
    if len(rows) < 2:
        return False
    with control.plainly_eager():
        try:
            evaluate(rows)
        except (TypeError, AttributeError, RuntimeError, ValueError, IndexError):
            return False
    return True


def _learn_in(space: str, control: AttentionControl, evaluate: Evaluate, rows: Tensor) -> tuple[Facts, Tensor]:
    """Return what one example shows, and its F."""
    facts = Facts(space)
    shapes: dict[int, torch.Size] = {}

    def read(layer: int, call: LayerCall) -> None:
        attention = call.attention(torch.arange(len(call.tensor), device=call.tensor.device))
        facts.order.append(layer)
        shapes[layer] = attention.shape[1:]
        facts.dtype = _working_dtype(attention)
        if attention.shape[0] != 1 or len(call.tensor) != 1:
            raise UnsupportedModelError(
                f"{control.layers[layer]!r}: for one example its attention has shape "
                f"{tuple(attention.shape)}; (1, heads, queries, keys) is needed"
            )

    control.fused = ()
    recorder = BlockRecorder(control, evaluate, space)
    output, facts.fused = recorder.run(rows, read)
    facts.shapes = [shapes[layer] for layer in range(len(control.layers))]
    facts.packed = any(layer.packs for layer in control.layers)
    facts.branching = None if facts.packed else recorder.branching()
    return facts, output


def _working_dtype(attention: Tensor) -> torch.dtype:
    """Return the type that a model computes in; autocast leaves the softmax in float32."""
    device = attention.device.type
    autocast = attention.dtype == torch.float32 and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else attention.dtype


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two evaluations of F agree to what the floating-point type of the model can hold."""
    eps = max(torch.finfo(kind).eps for kind in (actual.dtype, dtype, torch.float32))
    return torch.allclose(actual, expected.to(actual), rtol=eps**0.5, atol=min(300 * eps, eps**0.5))
