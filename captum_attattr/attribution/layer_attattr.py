"""`LayerAttAttr`: self-attention attribution as a Captum layer attribution."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from captum.attr import LayerAttribution
from captum.attr._utils.attribution import GradientAttribution
from captum.log import log_usage
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_attattr.attribution.baselines import check_attention_baselines
from captum_attattr.attribution.facts import Facts
from captum_attattr.attribution.inputs import (
    Batch,
    Target,
    baseline_inputs,
    check_path,
    check_rule,
    check_store,
    make_batch,
)
from captum_attattr.attribution.integration import Integrator, PathIntegral, make_integral, warn_unconverged
from captum_attattr.attribution.layers import resolve_layers
from captum_attattr.attribution.preparation import prepared_sweep
from captum_attattr.attribution.rows import ALL, Row
from captum_attattr.model.attention_control import AttentionControl, LayerCall
from captum_attattr.model.attention_layers import AttentionLayer

Maps = Tensor | tuple[Tensor, ...]


class LayerAttAttr(LayerAttribution, GradientAttribution):
    r"""Self-attention attribution (AttAttr): integrated gradients whose input is a layer's attention.

    For a layer with heads h and attention matrices A = [A_1 .. A_H], rows queries and columns keys,

    .. math:: \mathrm{Attr}_h(A) = (A_h - B_h) \odot
              \int_0^1 \frac{\partial F(B + a\,(A - B))}{\partial A_h} \, da

    (Hao, Dong, Wei, Xu: "Self-Attention Attribution: Interpreting Information Interactions Inside
    Transformer", AAAI 2021, equation 4), where F is the output at the target and B the baseline, zero by
    default. All heads of a layer are scaled together, one layer at a time; the layers above recompute their
    own attention. The sum over heads, rows and columns is F(A) - F(B). With ``path="joint"`` all layers given are
    scaled together instead, each recomputing its own attention, and the sum over layers, too, is F(A) - F(B).

    All layers are done in one sweep: one forward and one backward serve rows of many layers, nodes and
    examples, and a row costs nothing below the layer where it branches off.

    Args:
        forward_func: the model's forward or any function around it that returns one tensor, examples in
            dimension 0. The paper attributes the class probability:
            ``lambda ids, mask: model(ids, attention_mask=mask).logits.softmax(-1)``.
            A tower that packs the patches of all images in one sequence (Qwen2-VL's and its like) takes one image as
            one example, (B, patches, numbers), and is run image by image:
            ``lambda patches, grid: tower(patches.flatten(0, 1), grid).last_hidden_state.mean((-2, -1))[None]``.
        layer: one layer or a list of layers of one model: what `attention_layers` returns, or attention
            modules themselves where the model can be found from `forward_func`.
        device_ids: accepted for Captum's sake; a `DataParallel` model is refused.
        multiply_by_inputs: False leaves out the factor (A - B).

    Raises:
        ValueError, TypeError: a module that is no attention layer, layers of different models, no layer.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from captum_attattr import LayerAttAttr, attention_layers
        >>> _ = torch.manual_seed(0)
        >>> config = BertConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
        ...                     intermediate_size=24, vocab_size=10, initializer_range=0.2)
        >>> model = BertForSequenceClassification(config).eval()
        >>> lattr = LayerAttAttr(lambda ids: model(ids).logits.softmax(-1), attention_layers(model))
        >>> maps, deltas = lattr.attribute(torch.tensor([[1, 5, 6, 2]]), target=1, return_convergence_delta=True)
        >>> [tuple(map_.shape) for map_ in maps], all(abs(delta) < 1e-3 for delta in deltas)
        ([(1, 4, 4, 4), (1, 4, 4, 4)], True)
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: AttentionLayer | nn.Module | Sequence[AttentionLayer | nn.Module],
        device_ids: list[int] | None = None,
        multiply_by_inputs: bool = True,
    ) -> None:
        if not callable(forward_func):
            raise TypeError(f"forward_func must be callable, got {type(forward_func).__name__}")
        LayerAttribution.__init__(self, forward_func, layer, device_ids)
        GradientAttribution.__init__(self, forward_func)
        self.layers = resolve_layers(forward_func, layer)
        single = isinstance(layer, (AttentionLayer, nn.Module)) and not isinstance(layer, nn.ModuleList)
        self.known: dict[object, Facts] = {}  # what was learned of the model, by the form of the inputs
        self._several = not single or len(self.layers) > 1  # ALBERT: one module, several layers
        self._multiply_by_inputs = bool(multiply_by_inputs)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether attributions carry the factor (A - B)."""
        return self._multiply_by_inputs

    def has_convergence_delta(self) -> bool:
        """True: `attribute` can return the convergence delta."""
        return True

    def attribute_future(self) -> None:
        """Not available, as in Captum's own layer methods."""
        raise NotImplementedError("attribute_future is not implemented for LayerAttAttr")

    @typing.overload
    def attribute(
        self,
        inputs: Maps,
        baselines: Any = ...,
        target: Target = ...,
        additional_forward_args: Any = ...,
        n_steps: int | None = ...,
        method: str = ...,
        internal_batch_size: int | None = ...,
        return_convergence_delta: Literal[False] = ...,
        *,
        attention_baselines: Any = ...,
        path: str = ...,
        tolerance: float = ...,
        max_nodes: int = ...,
        show_progress: bool = ...,
    ) -> Maps: ...

    @typing.overload
    def attribute(
        self,
        inputs: Maps,
        baselines: Any = ...,
        target: Target = ...,
        additional_forward_args: Any = ...,
        n_steps: int | None = ...,
        method: str = ...,
        internal_batch_size: int | None = ...,
        *,
        return_convergence_delta: Literal[True],
        attention_baselines: Any = ...,
        path: str = ...,
        tolerance: float = ...,
        max_nodes: int = ...,
        show_progress: bool = ...,
    ) -> tuple[Maps, Maps]: ...

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]  # NoiseTunnel calls attribute.__wrapped__
    def attribute(
        self,
        inputs: Maps,
        baselines: Any = None,
        target: Target = None,
        additional_forward_args: Any = None,
        n_steps: int | None = None,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        *,
        attention_baselines: Any = None,
        path: str = "layer",
        tolerance: float = 1e-3,
        max_nodes: int = 1_000,
        show_progress: bool = False,
    ) -> Maps | tuple[Maps, Maps]:
        """Attribute the output at the target to the attention of every layer.

        Args:
            inputs: a tensor or a tuple of tensors, examples in dimension 0; given to the forward function.
            baselines: inputs (or a number for each) whose attention is the path's start B.
            target: which output is attributed, in any of Captum's forms.
            additional_forward_args: further positional arguments of the forward function.
            n_steps: None chooses nodes by themselves, per example and layer, until the estimated error of
                the map is below `tolerance` times its Euclidean norm; a number gives Captum's rule `method`
                with that many nodes.
            method: "gausslegendre", "riemann_left", "riemann_right", "riemann_middle" or
                "riemann_trapezoid"; used with `n_steps`.
            internal_batch_size: most rows of one forward with gradients. None for a default by device and length. Where
                memory runs out it is halved.
            return_convergence_delta: also return, per layer, sum(attributions) - (F(A) - F(B)), (B,); on the joint
                path one for all layers together.
            attention_baselines: the path's start B itself: None (zeros), a number, "uniform" (the same for
                every key that is attended to), "sink" (each query's whole mass on the first key that its mask lets it
                see), or one tensor per layer that broadcasts to (B, H, Tq, Tk).
            path: "layer" opens one layer at a time, all others as they are (the paper); "joint" opens all layers
                given together, each from the attention that it recomputes on the way, so that the maps of all layers
                add up to F(A) - F(B), with B in all of them.
            tolerance: see `n_steps`.
            max_nodes: most nodes for one example and layer (on the joint path, for one example) under `n_steps=None`.
            show_progress: show a progress bar.

        Returns:
            (B, H, Tq, Tk) for one layer, a tuple of them for a list of layers; with the delta beside it if
            asked for: like the maps, one (B,) per layer; on the joint path one (B,) for all. float32, or float64 for a
            model in float64.

        Raises:
            ValueError, TypeError: bad arguments, before the model runs where possible; an output that is no
                tensor, has no value per example or is not finite.
            UnsupportedModelError: the model's attention cannot be replaced.

        Warns:
            ConvergenceWarning: some maps' estimated error stayed above the tolerance.
        """
        result = self.integrate(
            inputs,
            baselines,
            target,
            additional_forward_args,
            n_steps,
            method,
            internal_batch_size,
            attention_baselines=attention_baselines,
            path=path,
            tolerance=tolerance,
            max_nodes=max_nodes,
            show_progress=show_progress,
        )
        maps = self._returned(result.attributions)
        delta = result.total_delta if result.path == "joint" else self._returned(list(result.delta))
        return (maps, delta) if return_convergence_delta else maps

    def integrate(
        self,
        inputs: Maps,
        baselines: Any = None,
        target: Target = None,
        additional_forward_args: Any = None,
        n_steps: int | None = None,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        *,
        attention_baselines: Any = None,
        path: str = "layer",
        tolerance: float = 1e-3,
        max_nodes: int = 1_000,
        show_progress: bool = False,
        keep_attention: bool = False,
        store: torch.device | str | None = None,
    ) -> PathIntegral:
        """Compute what `attribute` returns, and how exact it is.

        Args:
            inputs, baselines, target, additional_forward_args, n_steps, method: as in `attribute`.
            internal_batch_size, attention_baselines, path, tolerance, max_nodes, show_progress: as in `attribute`.
            keep_attention: also return A.
            store: where results are kept; the inputs' device by default.

        Returns:
            Maps, attention, F(A), F(B), deltas, estimated errors, and how many nodes were used.

        Raises:
            As `attribute`.
        """
        rule = check_rule(method, n_steps, tolerance, max_nodes, internal_batch_size)
        joint = check_path(path, self._multiply_by_inputs)
        batch = make_batch(self.forward_func, inputs, additional_forward_args, target)
        device = check_store(store, batch.device)
        if baselines is not None:
            if attention_baselines is not None:
                raise ValueError("give baselines (inputs) or attention_baselines (attention), not both")
            attention_baselines = self._read(replace(batch, inputs=baseline_inputs(baselines, batch.inputs)))
        start = check_attention_baselines(attention_baselines, len(self.layers))
        with prepared_sweep(self.layers, batch, start, self.known) as sweep:
            sweep.multiply, sweep.keep_attention = self._multiply_by_inputs, keep_attention
            dtype, shapes = sweep.facts.dtype, sweep.facts.shapes
            self.check_shapes((*batch.inputs, *batch.additional), shapes)
            integrator = Integrator(
                sweep,
                lambda: make_integral(rule, dtype, shapes if joint else ()),
                limit=rule.internal_batch_size,
                store=device,
                joint=joint,
            )
            unit = "example" if joint else "map"
            with tqdm(
                total=len(integrator.pairs), disable=not show_progress, desc="AttAttr", unit=unit, miniters=0
            ) as bar:

                def progress(finished: int, rows: int) -> None:
                    bar.set_postfix(rows=rows, refresh=False)
                    bar.update(finished)

                result = integrator.run(progress)
        warn_unconverged(result, self.layers, rule.tolerance, dtype)
        return result

    def check_shapes(self, inputs: tuple[Any, ...], shapes: Sequence[torch.Size]) -> None:
        """Refuse layers by what goes into the model and the (H, Tq, Tk) of their attention; here none is."""

    def attention(self, inputs: Maps, additional_forward_args: Any = None) -> Maps:
        """Read the layers' attention probabilities.

        Args:
            inputs, additional_forward_args: as in `attribute`.

        Returns:
            (B, H, Tq, Tk) for one layer, a tuple of them for a list of layers.
        """
        return self._returned(self._read(make_batch(self.forward_func, inputs, additional_forward_args, None)))

    def attention_forward(self, *args: Any) -> Any:
        """Run the model with its attention replaced: the forward function of attention space.

        It makes every Captum method and metric that takes a forward function work in attention space, as in
        ``infidelity(lattr.attention_forward, perturb, lattr.attention(ids), maps, additional_forward_args=ids)``.
        Differentiable with respect to the attention.

        Args:
            args: first one tensor (B, H, Tq, Tk) per layer, then the forward function's own arguments.

        Returns:
            What the forward function returns.
        """
        count = len(self.layers)
        if len(args) < count or not all(isinstance(a, Tensor) and a.dim() == 4 for a in args[:count]):
            raise TypeError(f"the first {count} arguments must be attention tensors (B, H, Tq, Tk)")

        def visit(layer: int, call: LayerCall) -> Tensor:
            if call.tensor.shape != args[layer].shape:
                raise ValueError(
                    f"attention of shape {tuple(args[layer].shape)} given for {self.layers[layer]!r}, "
                    f"whose own has {tuple(call.tensor.shape)}"
                )
            given: Tensor = args[layer].to(call.tensor.dtype)
            return given

        with AttentionControl(self.layers) as control, control.watch(visit):
            return self.forward_func(*args[count:])

    def compute_convergence_delta(
        self,
        attributions: Maps,
        start_point: Any,
        end_point: Maps,
        target: Target = None,
        additional_forward_args: Any = None,
        *,
        path: str = "layer",
    ) -> Maps:
        """Return the sum of the attributions minus F(A) - F(B), per layer and example.

        Captum's method compares the outputs at two inputs; the path of AttAttr runs in attention space.

        Args:
            attributions: as `attribute` returned them.
            start_point: the path's start, in the forms of `attention_baselines`; None for zeros.
            end_point: the model's inputs, which give A.
            target, additional_forward_args, path: as in `attribute`.

        Returns:
            (B,) for one layer, a tuple of them for a list of layers; on the joint path one (B,) for all of them.
        """
        joint = check_path(path, self._multiply_by_inputs)
        maps = attributions if isinstance(attributions, tuple) else (attributions,)
        if len(maps) != len(self.layers):
            raise ValueError(f"{len(maps)} attribution maps for {len(self.layers)} layers")
        batch = make_batch(self.forward_func, end_point, additional_forward_args, target)
        start = check_attention_baselines(start_point, len(self.layers))
        examples, deltas = range(batch.size), []
        with prepared_sweep(self.layers, batch, start, self.known) as sweep:
            parts = sweep.facts.parts(examples)
            for part in parts:
                sweep.run_clean(part, backward=False)
            end = torch.stack([sweep.clean[example].output for example in examples])
            for layer in [ALL] if joint else range(len(maps)):
                rows = [[Row(example, layer, 0.0) for example in part] for part in parts]
                start_output = torch.cat([sweep.run(some, backward=False).outputs for some in rows])
                sweep.edges.clear()
                total = sum(map_.flatten(1).sum(1) for map_ in (maps if joint else maps[layer : layer + 1]))
                deltas.append(total - (end - start_output).to(maps[0]))
        return deltas[0] if joint else self._returned(deltas)

    def _returned(self, values: list[Tensor]) -> Maps:
        """Return one value per layer in the form in which layers were given."""
        return tuple(values) if self._several else values[0]

    def _read(self, batch: Batch) -> list[Tensor]:
        """Return the attention of every layer for a batch."""
        maps: dict[int, list[Tensor]] = {}

        def read(layer: int, call: LayerCall) -> None:
            maps.setdefault(layer, []).append(call.tensor)

        every = torch.arange(batch.size, device=batch.device)
        with AttentionControl(self.layers) as control, torch.no_grad():
            for rows in every[:, None] if any(layer.packs for layer in self.layers) else [every]:
                with control.watch(read, check=True):
                    self.forward_func(*batch.arguments(rows))
        return [torch.cat(maps[layer]) for layer in range(len(self.layers))]
