"""What users get wrong: each mistake is named with its value and what would be right, and the model stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from toy import HEADS, LAYERS, VOCAB, probabilities, sentences, tiny_bart, tiny_bert, tiny_llama, unchanged
from transformers import PreTrainedModel

from captum_attattr import ConvergenceWarning, LayerAttAttr, UnsupportedModelError, attention_layers
from captum_attattr.model.attention_control import AttentionControl

BATCH, LENGTH = 3, 6
FULL = (BATCH, HEADS, LENGTH, LENGTH)
IDS = sentences(BATCH, LENGTH)
Model = PreTrainedModel


def attribute(model: Model, *args: Any, **options: Any) -> Any:
    """All layers of a classifier; options override a valid call."""
    options = {"target": 1, "n_steps": 2} | options
    return LayerAttAttr(probabilities(model), attention_layers(model)).attribute(*args or (IDS,), **options)


def of_forward(change: Callable[[Model, Tensor], Any], **options: Any) -> Callable[[Model], Any]:
    """A call whose forward function is change(model, ids)."""

    def call(model: Model) -> Any:
        lattr = LayerAttAttr(lambda ids: change(model, ids), attention_layers(model))
        return lattr.attribute(IDS, **{"target": 1, "n_steps": 2} | options)

    return call


def of_layer(layer: Callable[[Model], Any]) -> Callable[[Model], Any]:
    return lambda model: LayerAttAttr(probabilities(model), layer(model))


def of(**options: Any) -> Callable[[Model], Any]:
    return lambda model: attribute(model, **options)


def inputs(*args: Any) -> Callable[[Model], Any]:
    return lambda model: attribute(model, *args)


def logits(model: Model, ids: Tensor) -> Tensor:
    return model(ids).logits


def spoiled(value: float, example: int) -> Callable[[Model, Tensor], Tensor]:
    def forward(model: Model, ids: Tensor) -> Tensor:
        hit = (ids == IDS[example]).all(1, keepdim=True)
        return torch.where(hit, torch.full((), value), logits(model, ids).softmax(-1))

    return forward


def centred(model: Model, ids: Tensor) -> Tensor:
    values = logits(model, ids)
    return (values - values.mean(0)).softmax(-1)


@torch.no_grad()
def without_gradient(model: Model, ids: Tensor) -> Tensor:
    return logits(model, ids)


class Case(NamedTuple):
    name: str
    call: Callable[[Model], Any]
    error: type[Exception]
    message: str


OTHER = tiny_bert(1)
BERT_LAYER = "bert.encoder.layer"
CASES = (
    # layers
    Case("block", of_layer(lambda m: m.bert.encoder.layer[1]), ValueError, rf"BertLayer .*{BERT_LAYER}\.1\.attention"),
    Case("whole model", of_layer(lambda m: m), ValueError, rf"holds {BERT_LAYER}\.0\.attention\.self, .*\.1\..*\.2\."),
    Case("linear", of_layer(lambda m: m.classifier), ValueError, r"Linear is no attention layer.*attention_layers"),
    Case("unknown module", of_layer(lambda m: nn.Linear(2, 2)), ValueError, r"which model Linear .*attention_layers"),
    Case("no layer", of_layer(lambda m: []), ValueError, "layer is empty: give at least one"),
    Case("no module", of_layer(lambda m: nn.ModuleList()), ValueError, "layer is empty"),
    Case("name", of_layer(lambda m: "encoder.layer.0"), TypeError, r"must be an attention layer, got str: 'encoder\.l"),
    Case("number", of_layer(lambda m: [0]), TypeError, "must be an attention layer, got int: 0"),
    Case("None", of_layer(lambda m: None), TypeError, "got NoneType"),
    Case("generator", of_layer(lambda m: (x for x in attention_layers(m))), TypeError, "got generator"),
    Case("twice", of_layer(lambda m: attention_layers(m)[:1] * 2), ValueError, "given twice"),
    Case("twice, found twice", of_layer(lambda m: [attention_layers(m)[1] for _ in "ab"]), ValueError, "given twice"),
    Case(
        "twice, as a module",
        of_layer(lambda m: [attention_layers(m)[1], attention_layers(m)[1].module]),
        ValueError,
        "given twice",
    ),
    Case(
        "two models",
        of_layer(lambda m: [attention_layers(m)[0], attention_layers(OTHER)[1]]),
        ValueError,
        "layers of different models.*one model at a time",
    ),
    Case(
        "modules of two models",
        lambda m: LayerAttAttr(
            lambda ids: m(ids).logits + OTHER(ids).logits,
            [m.bert.encoder.layer[0].attention.self, OTHER.bert.encoder.layer[0].attention.self],
        ),
        ValueError,
        "layers of different models",
    ),
    Case("forward no function", lambda m: LayerAttAttr(3, attention_layers(m)), TypeError, "callable, got int"),
    Case(
        "data parallel",
        lambda m: LayerAttAttr(nn.DataParallel(m), attention_layers(m)),
        TypeError,
        "DataParallel is not supported.*torchrun",
    ),
    Case(
        "kind", lambda m: attention_layers(m, "middle"), ValueError, r"kind='middle'.*'encoder', 'decoder' or 'cross'"
    ),
    Case("no such kind", lambda m: attention_layers(m, "cross"), ValueError, r"no cross attention; it has 3 encoder"),
    Case("no module to search", lambda m: attention_layers("bert"), TypeError, r"torch\.nn\.Module, got str"),
    Case("no attention", lambda m: attention_layers(m.classifier), UnsupportedModelError, "no attention layer"),
    # inputs
    Case("no inputs", inputs(None), TypeError, "tensor or a tuple of tensors, got NoneType"),
    Case("list of tensors", inputs([IDS]), TypeError, "tuple of tensors, got list of Tensor"),
    Case("text", inputs("a film"), TypeError, "got str"),
    Case("dict", inputs({"input_ids": IDS}), TypeError, "got dict"),
    Case("empty tuple", inputs(()), TypeError, "got tuple of nothing"),
    Case("tuple with text", inputs((IDS, "mask")), TypeError, "got tuple of Tensor, str"),
    Case("no example", inputs(IDS[:0]), ValueError, r"no example: shape \(0, 6\)"),
    Case("scalar", inputs(torch.tensor(1)), ValueError, r"batch size in dimension 0, got shapes \[\(\)\]"),
    Case("sizes", inputs((IDS, IDS[:2])), ValueError, r"same batch size.*\[\(3, 6\), \(2, 6\)\]"),
    # targets
    Case("no target", of(target=None), ValueError, r"returned \(3,\) values .* target=0 \.\. 2"),
    Case("no target, 3-D", of_forward(lambda m, i: m.bert(i)[0], target=None), ValueError, "one index for each dim"),
    Case("too large", of(target=3), ValueError, r"target 3 is out of range.*\(3,\) values"),
    Case("too small", of(target=-4), ValueError, "target -4 is out of range"),
    Case("one too large", of(target=[0, 1, 5]), ValueError, "target 5 is out of range"),
    Case("tensor too large", of(target=torch.tensor([0, 7, 1])), ValueError, "target 7 is out of range"),
    Case("list too short", of(target=[1, 2]), ValueError, "lists 2 classes for 3 examples"),
    Case("empty list", of(target=[]), ValueError, "lists 0 classes for 3 examples"),
    Case("tensor too short", of(target=torch.tensor([1, 2])), ValueError, r"shape \(2,\); for 3 examples \(3,\)"),
    Case("column", of(target=torch.tensor([[1], [2], [0]])), ValueError, r"shape \(3, 1\); for 3 examples"),
    Case("float", of(target=1.0), TypeError, "target=1.0: an int"),
    Case("bool", of(target=True), TypeError, "target=True: an int"),
    Case("label", of(target="positive"), TypeError, "target='positive': an int"),
    Case(
        "float tensor", of(target=torch.tensor([1.0, 2.0, 0.0])), TypeError, "integers, got a tensor of torch.float32"
    ),
    Case("bool tensor", of(target=torch.tensor([True] * 3)), TypeError, "integers, got a tensor of torch.bool"),
    Case("mixed list", of(target=[1, (2,), 0]), TypeError, r"target\[1\] is \(2,\); all must be ints, or all tuples"),
    Case("list of lists", of(target=[[1], [2], [0]]), TypeError, r"target\[0\] is \[1\]"),
    Case("list with bool", of(target=[1, True, 0]), TypeError, r"target\[1\] is True"),
    Case("tuple with bool", of(target=[(1,), (True,), (0,)]), TypeError, r"target\[1\] is \(True,\)"),
    Case(
        "tuple too long",
        of(target=(1, 2)),
        ValueError,
        r"\(1, 2\) has 2 indices for .* 1 dimensions per example \(3,\)",
    ),
    Case("tuple with text", of(target=("a",)), TypeError, r"target=\('a',\)"),
    Case("slice", of(target=(slice(0, 2),)), TypeError, "a slice selects several values"),
    # rules
    Case("method", of(method="simpson"), ValueError, "method='simpson' is unknown; use one of .*gausslegendre"),
    Case("method None", of(method=None), ValueError, "method=None is unknown"),
    Case("method alone", of(method="riemann_left", n_steps=None), ValueError, "say its number of nodes, as n_steps=50"),
    Case("no steps", of(n_steps=0), ValueError, "n_steps=0 is too small: at least 1"),
    Case("negative steps", of(n_steps=-5), ValueError, "n_steps=-5 is too small"),
    Case("half steps", of(n_steps=2.5), TypeError, "n_steps=2.5 must be an int or None"),
    Case("text steps", of(n_steps="20"), TypeError, "n_steps='20' must be an int"),
    Case("bool steps", of(n_steps=True), TypeError, "n_steps=True must be an int"),
    Case("trapezoid", of(method="riemann_trapezoid", n_steps=1), ValueError, "n_steps=1 is too small: at least 2"),
    Case("internal batch", of(internal_batch_size=0), ValueError, "internal_batch_size=0 is too small: at least 1"),
    Case(
        "internal batch type", of(internal_batch_size=1.5), TypeError, "internal_batch_size=1.5 must be an int or None"
    ),
    Case("tolerance 0", of(tolerance=0), ValueError, "tolerance=0 must be a number between 0 and 1"),
    Case("tolerance 1", of(tolerance=1), ValueError, "tolerance=1 must be"),
    Case("tolerance nan", of(tolerance=float("nan")), ValueError, "tolerance=nan must be"),
    Case("tolerance text", of(tolerance="1e-3"), (ValueError, TypeError), "tolerance='1e-3' must be a number"),
    Case("max_nodes", of(max_nodes=4), ValueError, "max_nodes=4 is too small: at least 5"),
    Case("max_nodes float", of(max_nodes=1e3), TypeError, "max_nodes=1000.0 must be an int$"),
    Case("max_nodes None", of(max_nodes=None), TypeError, "max_nodes=None must be an int$"),
    Case("unknown option", of(steps=3), TypeError, "unexpected keyword argument 'steps'"),
    # baselines
    Case("both", of(baselines=0, attention_baselines=0), ValueError, "baselines .* or attention_baselines .*not both"),
    Case("text", of(baselines="zero"), TypeError, "baselines must be tensors or numbers, got str"),
    Case("list", of(baselines=[IDS]), TypeError, "baselines must be tensors or numbers, got list of Tensor"),
    Case("shape", of(baselines=IDS[:, :5]), ValueError, r"shape \(3, 5\), its input \(3, 6\)"),
    Case("batch", of(baselines=IDS[:2]), ValueError, r"shape \(2, 6\), its input \(3, 6\)"),
    Case("two", of(baselines=(IDS, IDS)), ValueError, "2 baselines for 1 inputs"),
    Case("half a token", of(baselines=0.5), ValueError, r"baselines=0\.5 does not fit inputs of torch\.int64"),
    Case(
        "attention text",
        of(attention_baselines="zero"),
        ValueError,
        "'zero' is unknown; use 'uniform', 'sink', a number or",
    ),
    Case(
        "attention bool",
        of(attention_baselines=True),
        TypeError,
        "None, a number, 'uniform', 'sink' or one tensor per layer",
    ),
    Case("attention dict", of(attention_baselines={0: 0.1}), TypeError, "one tensor per layer"),
    Case("attention texts", of(attention_baselines=["uniform"] * 3), TypeError, "one tensor per layer"),
    Case(
        "attention count", of(attention_baselines=[torch.zeros(FULL)]), ValueError, "1 attention_baselines for 3 layers"
    ),
    Case("attention one", of(attention_baselines=torch.zeros(FULL)), ValueError, "1 attention_baselines for 3 layers"),
    Case(
        "attention shape",
        of(attention_baselines=[torch.zeros(FULL)] * 2 + [torch.zeros(2, HEADS, LENGTH, LENGTH)]),
        ValueError,
        r"attention_baselines\[2\] has shape \(2, 4, 6, 6\).*\(3, 4, 6, 6\) is needed",
    ),
    Case(
        "attention dimensions",
        of(attention_baselines=[torch.zeros(LENGTH, LENGTH)] * LAYERS),
        ValueError,
        r"attention_baselines\[0\] has shape \(6, 6\); \(B, H, Tq, Tk\) = \(3, 4, 6, 6\)",
    ),
    # forward functions
    Case("model output", of_forward(lambda m, i: m(i)), TypeError, r"a tensor, got SequenceClassifierOutput.*\.logits"),
    Case("model", lambda m: LayerAttAttr(m, attention_layers(m)).attribute(IDS, target=1), TypeError, r"\.logits"),
    Case("tuple", of_forward(lambda m, i: m(i, return_dict=False)), TypeError, "must return a tensor, got tuple"),
    Case("nothing", of_forward(lambda m, i: None), TypeError, "must return a tensor, got NoneType"),
    Case("array", of_forward(lambda m, i: logits(m, i).detach().numpy()), TypeError, "a tensor, got ndarray"),
    Case(
        "classes", of_forward(lambda m, i: logits(m, i).argmax(-1)), TypeError, "a tensor of torch.int64.*no gradient"
    ),
    Case(
        "mean",
        of_forward(lambda m, i: logits(m, i)[:, :2].mean(0)),
        ValueError,
        r"\(2,\) for [13] examples; dimension 0",
    ),
    Case("scalar", of_forward(lambda m, i: logits(m, i).sum()), ValueError, r"shape \(\) for [13] examples"),
    Case("fewer rows", of_forward(lambda m, i: logits(m, i)[:1]), ValueError, r"shape \(1, 3\) for [23] examples"),
    Case("more rows", of_forward(lambda m, i: logits(m, i).repeat(2, 1)), ValueError, r"\([26], 3\) for [13] examples"),
    Case("detached", of_forward(lambda m, i: logits(m, i).detach()), ValueError, r"no gradient .*leave \.detach\(\)"),
    Case("no_grad", of_forward(without_gradient), ValueError, r"encoder 0: .*no gradient .*torch\.no_grad\(\) out of"),
    Case(
        "other model",
        of_forward(lambda m, i: OTHER(i).logits),
        UnsupportedModelError,
        "did not pass through .*and 2 more",
    ),
    Case("no model", of_forward(lambda m, i: i[:, :3] / 2), UnsupportedModelError, "did not pass through"),
    Case(
        "model run twice",
        of_forward(lambda m, i: logits(m, i) - logits(m, i.flip(1))),
        UnsupportedModelError,
        r"passed through AttentionLayer\(encoder 0.* more than once \(2 times\); .* must run the model once",
    ),
    Case(
        "mixes examples",
        of_forward(centred),
        UnsupportedModelError,
        "examples of one batch must not influence each other|cannot be read faithfully",
    ),
    *(
        Case(
            f"{value} in example {i}",
            of_forward(spoiled(value, i)),
            ValueError,
            rf"returned {value} for example {i} of 3",
        )
        for value in (float("nan"), float("inf"), -float("inf"))
        for i in range(BATCH)
    ),
    # the delta and attention space
    Case(
        "delta of one map",
        lambda m: LayerAttAttr(probabilities(m), attention_layers(m)).compute_convergence_delta(
            torch.zeros(FULL), None, IDS, target=1
        ),
        ValueError,
        "1 attribution maps for 3 layers",
    ),
    Case(
        "attention missing",
        lambda m: LayerAttAttr(probabilities(m), attention_layers(m)).attention_forward(torch.zeros(FULL), IDS),
        TypeError,
        r"first 3 arguments must be attention tensors \(B, H, Tq, Tk\)",
    ),
    Case(
        "attention of another shape",
        lambda m: LayerAttAttr(probabilities(m), attention_layers(m)[1]).attention_forward(
            torch.zeros(1, 4, 6, 6), IDS
        ),
        ValueError,
        r"shape \(1, 4, 6, 6\) given for AttentionLayer\(encoder 1.*has \(3, 4, 6, 6\)",
    ),
)


@pytest.fixture(scope="module")
def bert() -> Model:
    return tiny_bert()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_mistake_is_named_and_leaves_the_model_alone(bert, case):
    bert.classifier.bias.requires_grad_(False)  # a pattern, to be kept
    with unchanged(bert), pytest.raises(case.error, match=case.message):
        case.call(bert)


def test_model_works_after_every_mistake(bert):
    expected = attribute(tiny_bert())
    for case in CASES:
        with pytest.raises(case.error):
            case.call(bert)
    for actual, map_ in zip(attribute(bert), expected, strict=True):
        assert torch.equal(actual, map_)


EARLY = ("no inputs", "list too short", "method", "no steps", "tolerance 0", "max_nodes", "both", "attention count")


@pytest.mark.parametrize("name", EARLY)
def test_what_needs_no_model_is_said_before_it_runs(bert, name):
    runs: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bert, "forward", lambda *args, **kwargs: runs.append(args))
        with pytest.raises((ValueError, TypeError)):
            next(case for case in CASES if case.name == name).call(bert)
    assert not runs


# ----------------------------------------------------------------------- errors from inside of the forward


class BoomError(Exception):
    pass


@pytest.mark.parametrize("kind", [BoomError, KeyboardInterrupt])
@pytest.mark.parametrize("call", [1, 2, 3, 4, 5, 6])
def test_error_in_the_middle_of_the_forward_passes_through(kind, call):
    model = tiny_bert()
    model.bert.embeddings.requires_grad_(False)
    calls = 0

    def last_layer(module: nn.Module, args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise kind("in the middle")

    handle = model.bert.encoder.layer[2].attention.self.register_forward_pre_hook(last_layer)
    with unchanged(model), pytest.raises(kind, match="in the middle"):
        attribute(model, n_steps=9, internal_batch_size=4)
    assert calls == call
    handle.remove()
    for actual, expected in zip(attribute(model), attribute(tiny_bert()), strict=True):
        assert torch.equal(actual, expected)


NO_MEMORY = [
    MemoryError("in the middle"),
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", [1, 2, 3, 4, 5, 6])
def test_memory_that_runs_out_once_halves_the_rows(error, call):
    """Call 1 is the batch by itself, 2 one example, 3 the examples as they are, 4 verifies, with 3 rows."""
    model = tiny_bert()
    expected = attribute(model, n_steps=9, internal_batch_size=4)
    rows: list[int] = []

    def last_layer(module: nn.Module, args: Any, kwargs: Any) -> None:
        rows.append(len(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]))
        if len(rows) == call:
            raise error

    handle = model.bert.encoder.layer[2].attention.self.register_forward_pre_hook(last_layer, with_kwargs=True)
    with unchanged(model):
        if call == 2:  # fewer rows there are not
            with pytest.raises(torch.OutOfMemoryError, match="internal_batch_size"):
                attribute(model, n_steps=9, internal_batch_size=4)
            assert len(rows) == call
        else:
            for actual, maps in zip(attribute(model, n_steps=9, internal_batch_size=4), expected, strict=True):
                torch.testing.assert_close(actual, maps, rtol=0, atol=1e-6)
            assert call == 4 or rows[call] <= max(1, rows[call - 1] // 2)
    handle.remove()


@pytest.mark.parametrize("build", [tiny_bart, tiny_llama])
def test_error_restores_models_of_several_configs_and_kinds(build):
    model = build()
    layers = [layer for kind in ("encoder", "decoder", "cross") for layer in layers_of(model, kind)]

    def forward(ids: Tensor) -> Tensor:
        model(ids)
        raise BoomError("afterwards")

    with unchanged(model), pytest.raises(BoomError):
        LayerAttAttr(forward, layers).attribute(IDS, target=1)
    with unchanged(model), pytest.raises(BoomError):
        LayerAttAttr(forward, layers).attention(IDS)
    with unchanged(model), pytest.raises(BoomError):
        LayerAttAttr(forward, layers[0]).attention_forward(torch.zeros(FULL), IDS)


def layers_of(model: Model, kind: str) -> list[Any]:
    try:
        return attention_layers(model, kind)
    except ValueError:
        return []


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_success_leaves_the_model_as_it_was_too(implementation):
    model = tiny_bert(attn_implementation=implementation)
    model.bert.encoder.layer[1].requires_grad_(False)
    with unchanged(model):
        attribute(model)
        attribute(model, n_steps=None, baselines=7)
        LayerAttAttr(probabilities(model), attention_layers(model)).attention(IDS)


def test_the_same_model_cannot_be_attributed_inside_its_own_attribution():
    model = tiny_bert()
    with unchanged(model), AttentionControl(attention_layers(model)):
        with pytest.raises(RuntimeError, match="is being attributed already"):
            attribute(model)
        with pytest.raises(RuntimeError, match="is being attributed already"):
            LayerAttAttr(probabilities(model), attention_layers(model)).attention(IDS)
    attribute(model)


# ------------------------------------------------------------------------------------------------- modes


def test_inference_mode_is_refused(bert):
    expected = pytest.raises(ValueError, match=r"torch\.inference_mode forbids; use torch\.no_grad")
    with unchanged(bert), expected, torch.inference_mode():
        attribute(bert)


def test_inputs_made_in_inference_mode_are_refused(bert):
    with torch.inference_mode():
        ids = IDS.clone()
    with unchanged(bert), pytest.raises(ValueError, match=r"input was made under torch\.inference_mode; clone it"):
        attribute(bert, ids)
    attribute(bert, ids.clone())


def test_parameters_made_in_inference_mode_are_refused():
    with torch.inference_mode():
        model = tiny_bert()
    with pytest.raises(ValueError, match=r"parameters were made under torch\.inference_mode"):
        attribute(model)


def test_dropout_in_training_mode_is_warned_about_before_it_is_refused():
    model = tiny_bert().train()
    warned = pytest.warns(UserWarning, match=r"training mode.*model\.eval\(\)")
    refused = pytest.raises(UnsupportedModelError, match="output changes when its attention is computed eagerly")
    with unchanged(model), warned, refused:
        attribute(model)


def test_ceiling_leaves_the_model_alone(bert):
    with unchanged(bert), pytest.warns(ConvergenceWarning):
        attribute(bert, n_steps=None, tolerance=1e-7, max_nodes=5)


@pytest.mark.parametrize("ids", [IDS + VOCAB, IDS.float() + 0.5, IDS[:, None, None]])
def test_errors_of_the_model_itself_come_through(bert, ids):
    with unchanged(bert), pytest.raises((IndexError, RuntimeError, ValueError)):
        attribute(bert, ids)


def test_copies_are_attributed_by_themselves(bert):
    twin = copy.deepcopy(bert)
    with torch.no_grad():
        twin.classifier.weight.mul_(-1)
    with unchanged(bert):
        assert not torch.equal(attribute(twin)[0], attribute(bert)[0])
