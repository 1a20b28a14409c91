"""Heads cut out of a model for good: smaller projections, checked against the masked model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_attattr.checks import checked_arguments
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model.attention_control import claimed
from captum_attattr.model.attention_layers import AttentionLayer, KeptHeads, every_layer, family_name
from captum_attattr.model.families import NEVER_EMPTY, RETURNED
from captum_attattr.model.head_adapters import HOWS, adapt, tell, told
from captum_attattr.model.head_cuts import Cut, HeadCuts, assign, cut_parameter
from captum_attattr.model.head_masks import HeadSpec, active_gates, mask_heads, named_heads, selected_heads
from captum_attattr.model.head_probe import argument_names, probed
from captum_attattr.model.head_trial import failure, trial, undone_on_error
from captum_attattr.model.projections import Heads, UnknownPartError, not_cut
from captum_attattr.model.pruning_record import Layout, parameter_shapes, record
from captum_attattr.model.sample_inputs import Runs, difference


class Plan(NamedTuple):
    """What `prune_heads` is to do in one attention module."""

    heads: Heads
    """The heads as they are now."""
    keep: list[int]
    """Those that stay, by their indices in the original model."""
    cuts: list[Cut]
    by_name: bool = True
    """Whether names alone tell the same cuts: then a saved model needs no more than its heads."""
    unknown: UnknownPartError | None = None
    """What names do not tell."""


@checked_arguments
def prune_heads(
    model: nn.Module, heads: HeadSpec, *, verify: bool = True, inputs: Mapping[str, Any] | None = None
) -> dict[str, list[int]]:
    """Remove heads: their rows of the query, key and value projections, their columns of the output projection.

    The pruned model gives what the masked model gives (`mask_heads`), with fewer parameters and in less time. Which
    rows belong to which head is seen in gradients of a small forward. The cut is tried on a copy, of the same weights,
    and compared with the masked model, then made, and compared again. Where an error is raised the model is as it was,
    bit for bit. Old optimizers hold the old parameters.

    Args:
        model: changed in place; a compiled one is compiled again when it runs next. What is gone is written into
            its config, so that it survives saving; the config is a copy from then on, since other models may have
            been built from it.
        heads: as for `mask_heads`. Heads that share keys and values (grouped-query attention) go together, unless all
            that stay share the same ones, and so do all layers that share weights (ALBERT).
        verify: run the model to see what belongs to which head, and to compare. Without it names of maps decide, and
            nothing is compared.
        inputs: what the model is run on, keyword arguments of its forward; by default small random ones, of the
            sizes in the config.

    Returns:
        The heads that were removed, by the name of their layer's module inside the model: of a multimodal model, the
        names say which tower.

    Raises:
        TypeError, ValueError: no head at all, a layer or head that the model does not have, a part of a group, inside
            `mask_heads`, weights that are not in memory ("meta", or offloaded) or hold NaN, inputs that the model does
            not run on.
        UnsupportedModelError: heads of this model cannot be removed; the message says why.
        RuntimeError: the model is being attributed in another thread.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertModel
        >>> model = BertModel(BertConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
        ...                              intermediate_size=24, vocab_size=10)).eval()
        >>> prune_heads(model, {0: [1, 3], 1: [0, 1, 2, 3]})
        {'encoder.layer.0.attention.self': [1, 3], 'encoder.layer.1.attention.self': [0, 1, 2, 3]}
        >>> model.encoder.layer[0].attention.self.query.weight.shape, model.config.pruned_heads
        (torch.Size([12, 24]), {'encoder.0': [1, 3], 'encoder.1': [0, 1, 2, 3]})
    """
    chosen = _checked(model, heads)
    removed = named_heads(chosen)
    with claimed(model), torch.inference_mode(False):
        _check_in_memory(model)
        if not verify:
            cut_by_name(model, chosen)
            return removed
        named = _named(chosen)
        if named:
            runs = Runs(model, list(named), inputs)
            for plan in named.values():
                plan.heads.check_finite()
            with mask_heads(model, chosen):
                masked = _finite(model, runs.outputs())
            plans = _probed(named, runs)
            _check_untied(model, plans)
            new = _new_parameters(plans)
            how = _tried(model, plans, new, runs, masked)
            with undone_on_error(model):
                _cut(model, plans, new, how)
                if not (apart := difference(runs.outputs(), masked)) <= 1:
                    why = f"it differs from the masked model by {apart:.0f} times what rounding explains"
                    raise _not_the_same(model, plans, why)
    return removed


def cut_by_name(model: nn.Module, chosen: Mapping[AttentionLayer, set[int]]) -> None:
    """Remove heads as the names of maps tell; the weights need not be in memory.

    Raises:
        ValueError, UnsupportedModelError: see `prune_heads`.
    """
    if plans := _known(_named(chosen)):
        _check_untied(model, plans)
        new = _new_parameters(plans)
        with undone_on_error(model):
            _cut(model, plans, new, {module: told(module) for module in plans})


def _check_untied(model: nn.Module, plans: Mapping[nn.Module, Plan]) -> None:
    """Check that no parameter to be cut is also another module's: that one would keep all heads.

    Raises:
        UnsupportedModelError: one is.
    """
    owners: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(module)
    for plan in plans.values():
        for cut in plan.cuts:
            if len(owners.get(id(getattr(cut.owner, cut.name)), [])) > 1:
                raise not_cut(plan.heads.layer, f"its {cut.name!r} is tied to that of another layer")


def _new_parameters(plans: Mapping[nn.Module, Plan]) -> dict[nn.Module, list[nn.Parameter]]:
    """Return what stays of every parameter; nothing is assigned yet."""
    return {module: [cut_parameter(cut) for cut in plan.cuts] for module, plan in plans.items()}


def check_cuts(model: nn.Module, heads: HeadSpec) -> None:
    """Check that heads can be removed; the model runs only where names do not tell what belongs to which head.

    Raises:
        TypeError, ValueError, UnsupportedModelError: see `prune_heads`.
    """
    chosen = _checked(model, heads)
    _check_in_memory(model)
    named = _named(chosen)
    if any(plan.unknown for plan in named.values()):
        _probed(named, Runs(model, list(named), None))


def _checked(model: nn.Module, heads: HeadSpec) -> dict[AttentionLayer, set[int]]:
    """Return the heads to remove, by layer, of a model whose heads can be removed now."""
    chosen = selected_heads(model, heads)
    if active_gates(model):
        raise ValueError("heads cannot be removed inside mask_heads, which counts on them; leave that context first")
    _check_shared(model, chosen)
    for layer in chosen:
        Heads(layer).check_plain()
    return chosen


def _check_in_memory(model: nn.Module) -> None:
    """Check that all weights are there.

    Raises:
        ValueError: some are on the meta device, or offloaded.
    """
    absent = next((name for name, tensor in model.named_parameters() if tensor.is_meta), None)
    if absent is not None:
        raise ValueError(
            f"the weight {absent!r} is not in memory (it is on the meta device or offloaded): load the whole model "
            "onto a device before heads are removed"
        )


def _named(chosen: Mapping[AttentionLayer, set[int]]) -> dict[nn.Module, Plan]:
    """Return what is to be done in every attention module that loses heads, as the names of its maps tell.

    Raises:
        ValueError, UnsupportedModelError: a part of a group, or heads that cannot be removed.
    """
    plans: dict[nn.Module, Plan] = {}
    for layer, removed in chosen.items():
        heads = Heads(layer)
        keep = [head for head in heads.indices if head not in removed]
        if len(keep) == heads.count:
            continue  # they are gone already
        heads.check_keep(keep)
        kind = type(layer.module).__name__
        if not keep and kind in NEVER_EMPTY:
            raise UnsupportedModelError(f"{layer!r}: {kind} cannot lose all of its heads")
        try:
            plans[layer.module] = Plan(heads, keep, HeadCuts(heads, keep).cuts())
        except UnknownPartError as error:
            plans[layer.module] = Plan(heads, keep, [], unknown=error)
    return plans


def _known(plans: dict[nn.Module, Plan]) -> dict[nn.Module, Plan]:
    """Return plans that names tell whole.

    Raises:
        UnsupportedModelError: one is not.
    """
    for plan in plans.values():
        if plan.unknown:
            raise plan.unknown
    return plans


def _probed(named: Mapping[nn.Module, Plan], runs: Runs) -> dict[nn.Module, Plan]:
    """Return what is to be done in every attention module, as gradients tell.

    Raises:
        UnsupportedModelError: heads cannot be removed.
    """
    probes = probed(runs, [plan.heads for plan in named.values()])
    plans = {}
    for module, plan in named.items():
        cuts = HeadCuts(plan.heads, plan.keep, probes[module]).cuts()
        plans[module] = Plan(plan.heads, plan.keep, cuts, by_name=not plan.unknown and _same(cuts, plan.cuts))
    return plans


def _same(ours: list[Cut], theirs: list[Cut]) -> bool:
    """Return whether two lists of cuts cut the same."""
    by_parameter = [{(id(cut.owner), cut.name): (cut.dim, cut.keep) for cut in cuts} for cuts in (ours, theirs)]
    return by_parameter[0] == by_parameter[1]


def _finite(model: nn.Module, outputs: list[Tensor]) -> list[Tensor]:
    """Return outputs that can be compared.

    Raises:
        ValueError: they hold NaN.
    """
    if any(output.isnan().any() for output in outputs):
        bad = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)
        why = f"its weight {bad!r} holds NaN or infinity" if bad else "other inputs may help, inputs={...}"
        raise ValueError(f"{family_name(model)} gives NaN, which cannot be compared: {why}")
    return outputs


def _tried(
    model: nn.Module,
    plans: Mapping[nn.Module, Plan],
    new: Mapping[nn.Module, list[nn.Parameter]],
    runs: Runs,
    masked: list[Tensor],
) -> dict[nn.Module, str]:
    """Cut a copy, and compare it with the masked model; return what every module must be told, of `HOWS`.

    Raises:
        UnsupportedModelError: no way gives what the masked model gives.
    """
    failures = []
    for least in HOWS:
        how = {module: max(told(module), least, key=HOWS.index) for module in plans}
        with trial(model) as copies:
            try:
                _cut(
                    copies[model],
                    {copies[module]: _moved(plan, copies) for module, plan in plans.items()},
                    {copies[module]: parameters for module, parameters in new.items()},
                    {copies[module]: level for module, level in how.items()},
                )
                outputs = runs.outputs(copies)
            except Exception as error:  # a forward on other shapes may raise anything
                failures.append(failure(error, {copies[module] for module in plans}))
                continue
        apart = difference(outputs, masked)
        if apart <= 1:
            return how
        failures.append(f"it differs from the masked model by {apart:.0f} times what rounding explains")
    raise _not_the_same(model, plans, failures[0])


def _moved(plan: Plan, copies: Mapping[nn.Module, nn.Module]) -> Plan:
    """Return a plan for the copies of modules."""
    layer = plan.heads.layer
    heads = Heads(replace(layer, model=copies[layer.model], module=copies[layer.module]))
    return plan._replace(heads=heads, cuts=[cut._replace(owner=copies[cut.owner]) for cut in plan.cuts])


def _not_the_same(model: nn.Module, plans: Mapping[nn.Module, Plan], why: str) -> UnsupportedModelError:
    """Return the error for a pruned model that is not the masked one."""
    import transformers

    kinds = ", ".join(sorted({type(module).__name__ for module in plans}))
    return UnsupportedModelError(
        f"{family_name(model)}: heads of {kinds} cannot be removed: with them gone, {why}. The model is as it "
        f"was; mask_heads switches heads off. Please report the model type, transformers {transformers.__version__} "
        "and this message"
    )


def _cut(
    model: nn.Module,
    plans: Mapping[nn.Module, Plan],
    new: Mapping[nn.Module, list[nn.Parameter]],
    how: Mapping[nn.Module, str],
) -> None:
    """Assign all new parameters, and tell every module of its heads."""
    for pruned, (before, keep, cuts, by_name, _) in plans.items():
        for cut, parameter in zip(cuts, new[pruned], strict=True):
            assign(cut.owner, cut.name, parameter)
        finish(model, before, keep, how[pruned])
        known = by_name and how[pruned] == told(pruned)
        module: Any = pruned
        if not known or hasattr(module, "pruned_layout"):
            module.pruned_layout = Layout(how[pruned], parameter_shapes(before))
    record(model)


def finish(model: nn.Module, before: Heads, keep: list[int], how: str) -> None:
    """Tell a module whose parameters have been cut which heads it has now."""
    module: Any = before.layer.module
    tell(before, len(keep), how)
    module.kept_heads = KeptHeads(tuple(keep), before.original)
    adapt(model, before.layer)
    if not keep:
        module.forward = partial(_forward_without_heads, module, before.output, before.layer.kind == "cross")


def _check_shared(model: nn.Module, chosen: Mapping[AttentionLayer, set[int]]) -> None:
    """Check that layers which share weights lose the same heads."""
    by_key = {layer.key: removed for layer, removed in chosen.items()}
    for layer, removed in chosen.items():
        for other in every_layer(model, layer.kind):
            if other.module is layer.module and by_key.get(other.key) != removed:
                raise ValueError(
                    f"{layer!r} and {other!r} share their weights and can only lose the same heads, not "
                    f"{sorted(removed)} and {sorted(by_key.get(other.key, ()))}; mask_heads tells them apart"
                )


def _forward_without_heads(
    module: nn.Module, projection: nn.Module | None, cross: bool, *args: Any, **kwargs: Any
) -> Any:
    """Compute what an attention layer without heads gives: the bias of its output projection, or nothing."""
    hidden: Tensor = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    named = dict(zip(argument_names(module), args, strict=False)) | kwargs
    if not cross:
        _count_tokens(module, hidden, *args, **kwargs)
    if projection is None or all(part is not projection for part in module.modules()):
        output = hidden.new_zeros(*hidden.shape[:-1], 0)
    else:
        bias: Any = projection.bias
        output = torch.zeros_like(hidden) if bias is None else bias.to(hidden).repeat(*hidden.shape[:-1], 1)
        output = output + named["residual"] if "residual" in named else output  # BLOOM
        norm = getattr(module, "LayerNorm", None)  # ALBERT adds and normalises inside its attention
        output = output if norm is None else norm(hidden + output)
    values = RETURNED.get(type(module).__name__, 2)
    return (output, *(None,) * (values - 1)) if values else output


def _count_tokens(module: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> None:
    """Put one small key for each token into the cache: models ask its first layer how many tokens there were."""
    from transformers import Cache

    given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)
    index = next((getattr(module, name) for name in ("layer_idx", "layer_id") if hasattr(module, name)), None)
    if given is not None and index is not None:
        cache: Cache = getattr(given, "self_attention_cache", given)  # an encoder-decoder has two
        keys = hidden.new_ones(len(hidden), 1, hidden.shape[1], 1)
        cache.update(keys, keys, index, {"cache_position": kwargs.get("cache_position")})
