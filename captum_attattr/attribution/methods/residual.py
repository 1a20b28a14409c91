"""What an attention sub-layer is given and gives in a run, and where that is added to the hidden states.

Examples are run in two copies. In the second, every layer's attention is the identity: what reaches its output
projection there are its values. They are read, and the first copy's context is put in their place, so that above the
projection both copies are the example as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_attattr.attribution.facts import close
from captum_attattr.attribution.methods.gradients import gradients
from captum_attattr.attribution.methods.norms import LinearNorm, linear_norm
from captum_attattr.attribution.sweep import Sweep
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model.attention_control import LayerCall
from captum_attattr.model.attention_layers import AttentionLayer, family_name
from captum_attattr.model.projections import Heads


class Residual(NamedTuple):
    """How an attention sub-layer's output joins the hidden states."""

    x: Tensor
    """(R, T, d) the hidden states that it is added to."""
    y: Tensor
    """(R, T, d) the sum, behind the norm if there is one."""
    norm: LinearNorm | None

    def of_row(self, row: int) -> Residual:
        """Return one row's, as floats of 32 bits at least."""
        norm = self.norm and self.norm._replace(scale=self.norm.scale[row])
        dtype = torch.promote_types(self.y.dtype, torch.float32)
        return Residual(self.x[row].to(dtype), self.y[row].to(dtype), norm)


class Event(NamedTuple):
    """A module that has run, and what it was given and gave of the shape of hidden states; the first copy's rows."""

    module: nn.Module
    inputs: list[Tensor]
    outputs: list[Tensor]


@dataclass(eq=False)
class Passage:
    """One layer's attention in a run of R rows."""

    layer: int
    attention: Tensor
    """(R, H, T, T)"""
    given: list[Tensor]
    """What the attention module was given."""
    projection: nn.Module
    values: Tensor = field(default_factory=lambda: torch.empty(0))
    """(R, T, H D)"""
    output: Tensor = field(default_factory=lambda: torch.empty(0))
    """(R, T, d) what the projection gave."""

    def moved(self, row: int) -> tuple[Tensor, Tensor]:
        """Return what the output projection makes of each head's values, (H, T, d), without its bias; and the bias."""
        values = self.values[row : row + 1]
        dtype = torch.promote_types(values.dtype, torch.float32)
        heads = self.attention.shape[1]
        size = values.shape[-1] // heads
        bias = self.projection(torch.zeros_like(values[:, :1]))[0, 0].to(dtype)
        moved = []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            only = torch.zeros_like(values)
            only[..., own] = values[..., own]
            moved.append(self.projection(only)[0].to(dtype) - bias)
        return torch.stack(moved).to(self.output.device), bias.to(self.output.device)


def unsupported(layer: AttentionLayer, reason: str) -> UnsupportedModelError:
    """Return the error for a layer whose output is not a sum over tokens."""
    return UnsupportedModelError(
        f"{family_name(layer.model)}: ALTI is not defined for {layer!r}: {reason}; use 'attattr', "
        "'gradient_attention', 'chefer' or 'rollout'"
    )


class PassageRecorder:
    """Runs examples, and tells of every layer what passed.

    Args:
        sweep: prepared.
        keep: called with a layer, its passage and its residual, once what comes after it has run.
    """

    def __init__(self, sweep: Sweep, keep: Callable[[int, Passage, Residual], None]) -> None:
        self.sweep = sweep
        self.keep = keep
        self.layers = sweep.control.layers
        for layer in self.layers:
            if layer.kind == "cross":
                raise unsupported(layer, "it reads the tokens of another sequence")
        self.projections = [Heads(layer).output for layer in self.layers]
        self.widths = {getattr(p, "out_features", getattr(p, "nf", None)) for p in self.projections}

    def run(self, examples: range) -> tuple[Tensor, Tensor]:
        """Run these R examples.

        Returns:
            F, (R,), and its gradient by the last layer's attention, (R, H, T, T).

        Raises:
            UnsupportedModelError: see `alti`.
            ValueError: F carries no gradient to the last layer.
        """
        rows = torch.tensor(examples, device=self.sweep.device)
        self.rows, self.busy = len(rows), False
        self.last: list[Tensor] = []  # its attention, once
        self.passing: Passage | None = None  # its projection has not run yet
        self.passed: Passage | None = None
        self.before: list[Event] = []  # up to the last projection but one
        self.events: list[Event] = []
        self.given: dict[int, list[Tensor]] = {}
        with torch.enable_grad(), self._hooks(), self.sweep.control.watch(self._visit):
            outputs = self.sweep.evaluate(torch.cat((rows, rows)))[: len(rows)]
        self._finish()
        self.before, self.events, self.given = [], [], {}
        expected = self.sweep.uncontrolled[rows]
        if not close(outputs.detach(), expected, self.sweep.facts.dtype):
            raise UnsupportedModelError(
                f"{family_name(self.layers[0].model)}: run in two copies, its output is {outputs.tolist()}, and "
                f"{expected.tolist()} by itself; examples of one batch must not influence each other"
            )
        (gradient,) = gradients(outputs, self.last, [self.layers[self.sweep.facts.order[-1]]])
        return outputs.detach(), gradient

    def _visit(self, layer: int, call: LayerCall) -> Tensor:
        """Let the first copy attend as it does, and the second each to itself."""
        attention = call.tensor.detach()[: self.rows]
        projection = self.projections[layer]
        if attention.shape[-1] != attention.shape[-2]:
            raise unsupported(self.layers[layer], f"its {attention.shape[-1]} keys are not its queries")
        if projection is None:
            raise unsupported(self.layers[layer], "its output projection is no module")
        if layer == self.sweep.facts.order[-1]:
            self.last.append(attention.requires_grad_())
        self.passing = Passage(layer, attention.detach(), self.given[id(self.layers[layer].module)], projection)
        identity = torch.eye(attention.shape[-1], dtype=attention.dtype, device=attention.device)
        return torch.cat((attention, identity.expand_as(attention)))

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        """See every module of the model in the forward that runs inside."""
        thread = threading.get_ident()

        def mine(hook: Callable[..., Any]) -> Callable[..., Any]:
            def checked(*args: Any) -> Any:
                return None if self.busy or threading.get_ident() != thread else hook(*args)

            return checked

        with ExitStack() as handles:

            def register(register_on: Callable[..., Any], hook: Callable[..., Any], **options: Any) -> None:
                handles.callback(register_on(mine(hook), **options).remove)

            for attention in {layer.module for layer in self.layers}:
                register(attention.register_forward_pre_hook, self._enter, with_kwargs=True)
            for projection in {projection for projection in self.projections if projection is not None}:
                # Before hooks that gate heads, which what passes the projection later passes too.
                register(projection.register_forward_pre_hook, self._project, prepend=True)
                register(projection.register_forward_hook, self._projected)
            for module in self.layers[0].model.modules():
                register(module.register_forward_hook, self._note, with_kwargs=True)
            yield

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.given[id(module)] = self._hidden((*args, *kwargs.values()))

    def _project(self, module: nn.Module, args: Any) -> Any:
        """Read the values, and put the first copy's context in their place."""
        passing = self.passing
        if passing is None or passing.projection is not module:
            return None
        context = args[0]
        heads = passing.attention.shape[1]
        if context.dim() != 3 or len(context) != 2 * self.rows or context.shape[-1] % heads:
            raise unsupported(self.layers[passing.layer], f"its output projection is given {tuple(context.shape)}")
        self._finish()
        passing.values = context.detach()[self.rows :].clone()
        return (torch.cat((context[: self.rows],) * 2), *args[1:])

    def _projected(self, module: nn.Module, args: Any, output: Any) -> None:
        passing = self.passing
        if passing is not None and passing.projection is module:
            passing.output = output.detach()[: self.rows].to(self.sweep.device, copy=True)
            self.passed, self.passing = passing, None

    def _note(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        inputs = self._hidden((*args, *kwargs.values()))
        outputs = self._hidden(output if isinstance(output, tuple) else (output,))
        if inputs or outputs:
            self.events.append(Event(module, inputs, outputs))

    def _hidden(self, values: tuple[Any, ...]) -> list[Tensor]:
        """Return copies of the first copy's rows of what may be hidden states: later they may change in place."""
        found = []
        for value in values:
            if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() not in (2, 3):
                continue
            if self.widths.isdisjoint({value.shape[-1], None}) or len(value) % (2 * self.rows):
                continue
            if value.dim() == 2:  # OPT: rows and positions in one dimension
                value = value.reshape(2 * self.rows, -1, value.shape[-1])
            if len(value) == 2 * self.rows:
                found.append(value.detach()[: self.rows].to(self.sweep.device, copy=True))
        return found

    @torch.no_grad()
    def _finish(self) -> None:
        """Tell of the layer that has passed, now that what comes after it has run."""
        passed, self.passed = self.passed, None
        if passed is not None:
            self.busy = True
            residual = self._residual(passed, [*self.before, *self.events])
            self.keep(passed.layer, passed, residual)
            self.busy = False
        self.before, self.events = self.events, []

    def _residual(self, passed: Passage, events: list[Event]) -> Residual:
        """Find out where a layer's output is added, and to what.

        Raises:
            UnsupportedModelError: it is not found.
        """
        layer, output = self.layers[passed.layer], passed.output
        path = layer.name.split(".")
        around = {id(layer.model.get_submodule(".".join(path[:i]))) for i in range(len(path))}
        blocks = [t for e in events if id(e.module) in around for t in e.outputs]
        results = [t for e in events for t in e.outputs]

        def goes_on(x: Tensor) -> bool:
            """Whether a block gives x + attention + what another module gave: a stream that no norm has interrupted."""
            return any(is_sum(block, x, output, other) for block in blocks for other in results)

        for given in passed.given:
            # The attention is given what it is added to: the norm comes after the sum (BERT), or there is none.
            if goes_on(given):
                return Residual(given, given + output, None)
            for event in events:
                if event.inputs and event.outputs and is_sum(event.inputs[0], given, output):
                    norm = linear_norm(event.module, event.inputs[0], event.outputs[0])
                    if norm:
                        return Residual(given, event.outputs[0], norm)
            # It is given a norm of that; the MLP comes behind it (GPT-2, Llama), or beside it (GPT-NeoX).
            for event in events:
                if not (event.inputs and any(torch.equal(result, given) for result in event.outputs)):
                    continue
                x = event.inputs[0]
                added = (is_sum(t, x, output) for e in events for t in (*e.inputs, *e.outputs))
                if linear_norm(event.module, x, given) and (any(added) or goes_on(x)):
                    return Residual(x, x + output, None)
        raise unsupported(
            layer,
            "no sum of its output and the hidden states is found (it is normalised or rescaled before it is added)",
        )


def is_sum(total: Tensor, *parts: Tensor) -> bool:
    """Whether a tensor is the sum of others, but for rounding."""
    if any(part.shape != total.shape for part in parts):
        return False
    stacked = torch.stack([part.to(torch.promote_types(part.dtype, torch.float32)) for part in parts])
    bound = 4 * torch.finfo(total.dtype).eps * stacked.abs().sum(0)
    return bool(((total - stacked.sum(0)).abs() <= bound).all())
