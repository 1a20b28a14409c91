"""Rows of many layers, examples and nodes in one batch give what each gives alone."""

import random
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from families import FAMILIES, HEADS, LENGTH, stack
from torch import Tensor, nn
from transformers.models.bert import modeling_bert

from captum_attattr import LayerAttAttr, UnsupportedModelError, attention_layers
from captum_attattr.attribution.facts import learn
from captum_attattr.attribution.inputs import fixed_rule
from captum_attattr.attribution.integration import Integrator
from captum_attattr.attribution.late_branching import BlockCall, CleanRun, RowDimension
from captum_attattr.attribution.quadrature import AdaptiveIntegral, FixedIntegral
from captum_attattr.attribution.rows import Chunk, Row
from captum_attattr.attribution.sweep import Sweep
from captum_attattr.model.attention_control import AttentionControl, LayerCall
from captum_attattr.model.attention_layers import AttentionLayer, block_stacks

FAMILY = {family.name: family for family in FAMILIES}
Gradients = dict[int, tuple[float, Tensor]]
Start = Callable[[int, Tensor, Tensor, "Tensor | None"], Any]


class Case:
    """A tiny model in float64, its inputs, and F: the probability of its first class."""

    def __init__(self, name: str, kinds: Sequence[str] | None = None, batch: int = 3, padding: int | None = 2) -> None:
        torch.manual_seed(0)
        self.name = name
        self.model = FAMILY[name].build().double()
        self.inputs = {
            key: value.double() if value.is_floating_point() else value
            for key, value in FAMILY[name].inputs(batch, padding).items()
        }
        self.batch = batch
        self.layers = [layer for kind in kinds or FAMILY[name].kinds for layer in attention_layers(self.model, kind)]

    def __call__(self, rows: Tensor) -> Tensor:
        output = self.model(**{key: value[rows] for key, value in self.inputs.items()})[0]
        return output.flatten(1).softmax(-1)[:, 0]

    def rows(self, seed: int = 0, count: int | None = None) -> list[Row]:
        """Two nodes for most layers of most examples, in no order."""
        draw = random.Random(seed)
        rows = [
            Row(example, layer, draw.random())
            for example in range(self.batch)
            for layer in range(len(self.layers))
            for _ in range(draw.choice([0, 1, 2, 3]))
        ]
        draw.shuffle(rows)
        return rows[:count]


@contextmanager
def prepared(
    layers: list[AttentionLayer],
    evaluate: Callable[[Tensor], Tensor],
    batch: int,
    start: Start | None = None,
    late: bool = True,
    backward: bool = True,
) -> Iterator[Sweep]:
    """A sweep whose examples have been run as they are; what is learned is learned from the first one."""
    examples = range(batch)
    with torch.no_grad():
        own = evaluate(torch.tensor(examples))
    with AttentionControl(layers) as control:
        facts = learn(control, evaluate, own, 0)
        if not late:
            facts.branching = None
        sweep = Sweep(control, evaluate, start, facts, own, torch.device("cpu"), multiply=False)
        sweep.run_clean(examples, backward=backward)
        yield sweep


def by_attention(sweep: Sweep, rows: list[Row], chunk: Chunk) -> dict[int, Tensor]:
    """dF/dA for each row, by the row's number."""
    found = {
        number: sweep.edges[rows[number].example, layer].maps(part.values[i : i + 1])[0]
        for layer, part in chunk.layers.items()
        for i, number in enumerate(part.rows)
        if rows[number].layer == layer
    }
    assert sorted(found) == list(range(len(rows)))
    return found


def run(sweep: Sweep, rows: list[Row]) -> Gradients:
    """F and its gradient by the attention for each row, by the row's number."""
    chunk = sweep.run(rows)
    return {number: (float(chunk.outputs[number]), map_) for number, map_ in by_attention(sweep, rows, chunk).items()}


def run_again_uncut(sweep: Sweep, rows: list[Row]) -> Gradients:
    """The same with all rows run from the start."""
    sweep.facts.branching = None
    sweep.edges.clear()
    return run(sweep, rows)


def alone(case: Case, rows: list[Row], evaluate: Callable[[Tensor], Tensor] | None = None) -> Gradients:
    """The same by plain autograd: one run of one example for each row, one layer's attention exchanged."""
    found = {}
    with AttentionControl(case.layers) as control:
        for number, row in enumerate(rows):
            leaf: Tensor | None = None

            def visitor(layer: int, call: LayerCall, row: Row = row) -> Tensor | None:
                nonlocal leaf
                if layer != row.layer:
                    return None
                assert call.value is None
                leaf = (row.node * call.tensor.detach()).requires_grad_()
                return leaf

            with control.watch(visitor):
                value = (evaluate or case)(torch.tensor([row.example]))
            assert leaf is not None
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
            found[number] = value.item(), gradient[0]
    return found


def assert_same(actual: Gradients, expected: Gradients, tolerance: float = 1e-10) -> None:
    assert actual.keys() == expected.keys()
    for number, (value, gradient) in expected.items():
        assert actual[number][0] == pytest.approx(value, abs=tolerance)
        size = float(gradient.abs().max())
        torch.testing.assert_close(actual[number][1], gradient, rtol=0, atol=tolerance * max(1.0, size))
    assert max(gradient.abs().max() for _, gradient in expected.values()) > 1e-6


# --------------------------------------------------------------------------------- rows are runs of their own

LATE = {
    "BERT": None,
    "ALBERT": None,
    "ALBERT (groups)": None,
    "ModernBERT": None,
    "MobileBERT": None,
    "Llama": None,
    "Gemma2": None,
    "ViT": None,
    "DeBERTa-v2": None,
    "XLNet": None,
    "BLOOM": None,
    "T5": ("encoder", "decoder", "cross"),
    "BART": ("cross", "encoder", "decoder"),
    "Whisper": ("encoder", "decoder", "cross"),
}
UNCUT = ("XLM", "FlauBERT", "SqueezeBERT")


@pytest.mark.parametrize("name", [*LATE, *UNCUT])
def test_rows_give_what_each_gives_alone(name: str) -> None:
    case = Case(name, LATE.get(name))
    rows = case.rows()
    assert len({row.layer for row in rows}) > 2 < len({row.example for row in rows}) + 1
    expected = alone(case, rows)
    with prepared(case.layers, case, 3) as sweep:
        assert_same(run(sweep, rows), expected)
        assert (sweep.facts.branching is None) == (name in UNCUT)
        assert sweep.facts.space == ("context" if FAMILY[name].route == "interface" else "attention")
        assert_same(run_again_uncut(sweep, rows), expected)


@pytest.mark.parametrize("kind", ["encoder", "decoder", "cross"])
@pytest.mark.parametrize("name", ["T5", "BART"])
def test_one_kind_of_an_encoder_decoder(name: str, kind: str) -> None:
    case = Case(name, [kind])
    rows = case.rows(1)
    expected = alone(case, rows)
    with prepared(case.layers, case, 3) as sweep:
        assert_same(run(sweep, rows), expected)
        assert sweep.facts.branching is not None


@pytest.mark.parametrize("chosen", [[0], [1], [2], [0, 2], [2, 0], [1, 2]], ids=str)
def test_some_layers_in_any_order(chosen: list[int]) -> None:
    case = Case("BERT")
    case.layers = [case.layers[i] for i in chosen]
    rows = [Row(e, layer, 0.3 + e / 10) for e in (2, 0, 1, 1) for layer in range(len(chosen))]
    expected = alone(case, rows)
    with prepared(case.layers, case, 3) as sweep:
        assert_same(run(sweep, rows), expected)
        assert sweep.facts.branching is not None


def test_float32_rows_with_and_without_late_branching() -> None:
    case = Case("BERT")
    case.model.float()
    rows = case.rows()
    with prepared(case.layers, case, 3) as late, torch.no_grad():
        with_it = run(late, rows)
        assert late.facts.branching is not None
        assert_same(with_it, run_again_uncut(late, rows), 1e-6)


def attention_by_hand(model: nn.Module, inputs: dict[str, Tensor], name: str, leaf: Tensor, patch: Any) -> Tensor:
    """BERT's own eager model with one module's attention exchanged: no part of this package in sight."""
    module = model.get_submodule(name)
    own = modeling_bert.eager_attention_forward

    def exchanged(who: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        if who is not module:
            return own(who, query, key, value, *args, **kwargs)
        return (leaf @ value).transpose(1, 2), leaf

    with patch.context() as context:
        context.setattr(modeling_bert, "eager_attention_forward", exchanged)
        return model(**inputs)[0].softmax(-1)[:, 0]


@pytest.mark.parametrize("start", ["zero", "number", "tensor"])
def test_gradients_are_those_of_a_loop_written_by_hand(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("BERT")
    rows = [Row(e, layer, node) for e in range(3) for layer in range(3) for node in (0.0, 0.4, 1.0)]
    random.Random(0).shuffle(rows)
    other = torch.rand(3, 3, HEADS, LENGTH + 2, LENGTH + 2, dtype=torch.double)  # (layer, example, H, T, T)
    starts: dict[str, tuple[Start | None, Callable[[Row], Any]]] = {
        "zero": (None, lambda row: 0.0),
        "number": (lambda *_: 0.25, lambda row: 0.25),
        "tensor": (
            lambda layer, _, examples, visible: other[layer][examples],
            lambda row: other[row.layer, row.example],
        ),
    }
    case.model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = case.model(**case.inputs, output_attentions=True).attentions

    def by_hand(row: Row) -> tuple[float, Tensor]:
        end, begin = attentions[row.layer][row.example], starts[start][1](row)
        leaf = (begin + row.node * (end - begin)).unsqueeze(0).requires_grad_()
        one = {key: value[row.example : row.example + 1] for key, value in case.inputs.items()}
        value = attention_by_hand(case.model, one, case.layers[row.layer].name, leaf, monkeypatch)
        return value.item(), torch.autograd.grad(value.sum(), leaf)[0][0]

    with prepared(case.layers, case, 3, starts[start][0]) as sweep:
        found = run(sweep, rows)
        clean = dict(sweep.clean)
    assert clean.keys() == {0, 1, 2}
    for number, row in enumerate(rows):
        value, gradient = by_hand(row)
        assert found[number][0] == pytest.approx(value, abs=1e-12)
        torch.testing.assert_close(found[number][1], gradient, rtol=0, atol=1e-12)
    assert sweep.edges.keys() == {(e, layer) for e in range(3) for layer in range(3)}
    for (example, layer), edges in sweep.edges.items():
        end, begin = attentions[layer][example], starts[start][1](Row(example, layer, 1.0))
        torch.testing.assert_close(edges.attention[0], end, rtol=0, atol=1e-12)
        torch.testing.assert_close(edges.difference[0], end - begin, rtol=0, atol=1e-12)
        # The run at node 1, which all layers share.
        value, gradient = by_hand(Row(example, layer, 1.0))
        assert float(clean[example].output) == pytest.approx(value, abs=1e-12)
        shared = edges.maps(clean[example].gradients[layer][None])[0]
        torch.testing.assert_close(shared, gradient, rtol=0, atol=1e-12)
        edges.multiply = True
        multiplied = edges.maps(clean[example].gradients[layer][None])[0]
        torch.testing.assert_close(multiplied, gradient * (end - begin), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize("name", ["BERT", "T5", "Llama"])
def test_order_and_chunks_of_rows_change_nothing(name: str, size: int) -> None:
    case = Case(name)
    rows = case.rows(3)
    with prepared(case.layers, case, 3) as sweep:
        whole = run(sweep, rows)
        order = random.Random(size).sample(range(len(rows)), len(rows))
        again: Gradients = {}
        for start in range(0, len(rows), size):
            numbers = order[start : start + size]
            found = run(sweep, [rows[number] for number in numbers])
            again |= {number: found[i] for i, number in enumerate(numbers)}
        assert_same(again, whole)


def test_the_same_row_twice() -> None:
    case = Case("BERT")
    rows = [Row(1, 2, 0.5), Row(0, 0, 0.5), Row(1, 2, 0.5)]
    with prepared(case.layers, case, 3) as sweep:
        found = run(sweep, rows)
    assert_same({0: found[0]}, {0: found[2]})


def test_values_alone() -> None:
    case = Case("BERT")
    rows = case.rows()
    with prepared(case.layers, case, 3) as sweep:
        chunk = sweep.run(rows, backward=False)
        torch.testing.assert_close(chunk.outputs, sweep.run(rows).outputs)
        assert not chunk.outputs.requires_grad
        assert not chunk.layers


# Rows as many as there are tokens, heads, hidden units, ...
@pytest.mark.parametrize("total", [2, 3, HEADS, 2 * HEADS, LENGTH, LENGTH + 1, 32, 48, 60, 64])
@pytest.mark.parametrize("name", ["BERT", "T5", "XLNet", "DeBERTa"])
def test_number_of_rows_that_is_also_another_size(name: str, total: int) -> None:
    case = Case(name, batch=1, padding=None)
    draw = random.Random(total)
    rows = [Row(0, draw.randrange(len(case.layers)), draw.random()) for _ in range(total)]
    tested = rows if len(rows) < 10 else draw.sample(rows, 10)
    with prepared(case.layers, case, 1) as sweep:
        run(sweep, rows[:1])  # the first chunk holds further rows, which verify it
        found = run(sweep, rows)
    assert_same({i: found[rows.index(row)] for i, row in enumerate(tested)}, alone(case, tested))


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("name", ["BERT", "Llama", "T5"])
def test_short_inputs(name: str, length: int) -> None:
    """One token and two, where the sequence's length is that of the batches that learn the dimensions."""
    case = Case(name, batch=2)
    words = stack(2, lambda generator: torch.randint(3, 60, (length,), generator=generator))
    words[:, -1] = 2
    case.inputs = {"input_ids": words, "attention_mask": torch.ones_like(words)}
    rows = case.rows(4)
    expected = alone(case, rows)
    with prepared(case.layers, case, 2) as sweep:
        assert_same(run(sweep, rows), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    case = Case("BERT")
    rows = case.rows()
    with prepared(case.layers, case, 3) as sweep:
        expected = run(sweep, rows)
    case.model.to(dtype)
    with prepared(case.layers, case, 3) as sweep:
        assert {part.values.dtype for part in sweep.run(rows).layers.values()} == {torch.float32}
        assert sweep.facts.branching is not None
        assert_same({n: (v, g.double()) for n, (v, g) in run(sweep, rows).items()}, expected, 2e-2)


# ----------------------------------------------------------------------------------------- work that is saved


@contextmanager
def counted(blocks: Sequence[nn.Module], dim: int = 0) -> Iterator[list[int]]:
    """The number of rows of every block's run, in order."""
    counts: list[int] = []

    def count(block: nn.Module, args: Any, kwargs: Any) -> None:
        counts.append((args[0] if args else kwargs["hidden_states"]).shape[dim])

    # Registered before late branching's own hooks, these would see the uncut rows: so they watch what is inside.
    handles = [block.register_forward_pre_hook(count, with_kwargs=True) for block in blocks]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


INSIDE = {
    "BERT": lambda model: [layer.attention for layer in model.bert.encoder.layer],
    "ALBERT": lambda model: [model.albert.encoder.albert_layer_groups[0].albert_layers[0]],
    "Llama": lambda model: [layer.input_layernorm for layer in model.model.layers],
    "T5": lambda model: [
        block.layer[0] for part in (model.transformer.encoder, model.transformer.decoder) for block in part.block
    ],
}


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        # (example, layer) of each row, and the rows of each block: those that have branched, and one at least
        ("BERT", [(0, 0), (0, 1), (0, 2)], [1, 2, 3]),
        ("BERT", [(0, 2), (0, 2), (0, 2)], [1, 1, 3]),
        ("BERT", [(0, 0), (0, 0), (0, 0)], [3, 3, 3]),
        ("BERT", [(0, 1), (2, 1), (1, 2), (2, 2)], [1, 2, 4]),
        ("Llama", [(0, 0), (1, 1), (1, 1), (2, 2)], [1, 3, 4]),
        ("ALBERT", [(0, 0), (1, 1), (1, 1), (2, 2)], [1, 3, 4]),
        # After an encoder's last block all rows are needed, for the decoder's cross-attention.
        ("T5", [(0, 0), (1, 1), (0, 2), (0, 3), (1, 5)], [1, 2, 5, 4, 4, 5]),
        ("T5", [(0, 4), (0, 5)], [1, 1, 2, 1, 1, 2]),
    ],
)
def test_rows_of_each_block(name: str, rows: list[tuple[int, int]], expected: list[int]) -> None:
    case = Case(name, ("encoder", "decoder") if name == "T5" else None)
    chunk = [Row(*row, 0.5) for row in rows]
    with prepared(case.layers, case, 3) as sweep:
        sweep.run(chunk)  # and verify
        with counted(INSIDE[name](case.model)) as counts:
            assert max(expected) == len(sweep.run(chunk).outputs)
        assert counts == expected


def test_work_of_a_chunk() -> None:
    """m nodes for each of L layers take m L (L + 1) / 2 runs of a block instead of m L L."""
    case = Case("BERT")
    rows = [Row(0, layer, node / 4) for layer in range(3) for node in range(5)]
    with prepared(case.layers, case, 3) as sweep:
        sweep.run(rows)
        with counted(INSIDE["BERT"](case.model)) as counts:
            sweep.run(rows)
            assert sum(counts) == 5 * 3 * 4 // 2
            counts.clear()
            sweep.facts.branching = None
            sweep.run(rows)
            assert sum(counts) == 5 * 3 * 3


@pytest.mark.parametrize("padded", [[0], [1], [2], [1, 2], [0, 1, 2]], ids=str)
def test_blocks_are_cut_whichever_examples_are_padded(padded: list[int]) -> None:
    """Only padded examples come with a mask: the tensors that a block gets differ from example to example."""
    case = Case("BERT", padding=None)
    for example in padded:
        case.inputs["attention_mask"][example, -1 - example :] = 0
    rows = case.rows(2)
    expected = alone(case, rows)
    with prepared(case.layers, case, 3) as sweep:
        assert_same(run(sweep, rows), expected)
        assert sweep.facts.branching is not None


@pytest.mark.parametrize(
    ("extra", "late"),
    [
        (lambda rows: torch.zeros(5), True),
        (lambda rows: torch.zeros(rows), True),
        (lambda rows: torch.zeros(7, 4 * rows, 2), True),
        (lambda rows: {"nested": [torch.zeros(rows), (torch.zeros(3, rows),)]}, True),
        (lambda rows: torch.zeros(rows).squeeze(), False),
        (lambda rows: torch.zeros(3 * rows + 1), False),
        (lambda rows: torch.zeros(rows, rows), False),
    ],
    ids=["no rows", "rows", "folded", "nested", "squeezed", "one more", "twice"],
)
def test_blocks_are_cut_where_their_arguments_tell_the_rows(extra: Callable[[int], Any], late: bool) -> None:
    case = Case("BERT")
    block = case.model.bert.encoder.layer[1]

    def add(_: nn.Module, args: Any, kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return args, kwargs | {"extra": extra(len(hidden))}

    block.register_forward_pre_hook(add, with_kwargs=True)
    rows = case.rows()
    expected = alone(case, rows)
    with prepared(case.layers, case, 3) as sweep:
        assert_same(run(sweep, rows), expected)
        assert (sweep.facts.branching is not None) == late


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("each", [1, 2, 4])
def test_rows_that_are_several_places_are_copied_whole(dim: int, each: int) -> None:
    """As in tensors whose first dimension is batch times heads."""
    tensor = torch.arange(5.0 * 12 * 7).reshape(5, 12, 7).movedim(1, dim)
    site, path = (nn.Identity(), 0), (1, "hidden")
    examples = [10 + i for i in range(12 // each)]
    clean = CleanRun(examples, {(site, path): RowDimension(dim, each)})
    clean.enter(site, ((), {"hidden": tensor}))
    assert clean.calls == [BlockCall(site, {path: tensor.shape})]
    wanted = [examples[2], examples[0], examples[0]]
    by_row = tensor.unflatten(dim, (12 // each, each))
    expected = by_row.index_select(dim, torch.tensor([2, 0, 0])).flatten(dim, dim + 1)
    assert torch.equal(clean.rows(wanted, site, path), expected)


def test_blocks_are_left_without_hooks(unchanged: Callable[[nn.Module], AbstractContextManager[None]]) -> None:
    case = Case("BERT")
    with unchanged(case.model), prepared(case.layers, case, 3) as sweep:
        sweep.run(case.rows())
        assert not any(block._forward_pre_hooks for stack in block_stacks(case.layers) or [] for block in stack)


# ------------------------------------------------------------------------------------- forwards of other kinds


class HiddenStates(Case):
    """F that also reads a hidden state between the blocks, which late branching would leave short."""

    def __init__(self, which: Sequence[int], batch: int) -> None:
        super().__init__("BERT", batch=batch)
        self.which = which

    def __call__(self, rows: Tensor) -> Tensor:
        inputs = {key: value[rows] for key, value in self.inputs.items()}
        result = self.model(**inputs, output_hidden_states=True)
        return result.logits[:, 0] + sum(result.hidden_states[i][:, 0].square().mean(-1) for i in self.which)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("which", [[0], [1], [2], [3], [0, 1, 2, 3]], ids=str)
def test_forward_that_reads_intermediate_hidden_states(which: list[int], batch: int) -> None:
    case = HiddenStates(which, batch)
    rows = [Row(batch - 1, layer, node) for layer in range(3) for node in (0.0, 0.5)]
    first = [row for row in rows if row.layer == 0]
    expected, of_first = alone(case, rows), alone(case, first)
    with prepared(case.layers, case, batch) as sweep:
        assert_same(run(sweep, rows), expected)
        assert_same(run(sweep, first), of_first)


def test_forward_that_reads_only_what_comes_after_the_blocks_is_cut() -> None:
    for which, late in (([], True), ([3], True), ([1], False), ([2], False)):
        case = HiddenStates(which, 2)
        with prepared(case.layers, case, 2) as sweep:
            run(sweep, [Row(1, 2, 0.5)])
            assert sweep.facts.verified
            assert (sweep.facts.branching is not None) == late


@pytest.mark.parametrize("chosen", [[0, 1, 2], [1, 2], [2], [2, 1, 0]], ids=str)
@pytest.mark.parametrize("which", [1, 2])
def test_hidden_states_between_the_blocks_are_of_the_rows_own_example(which: int, chosen: list[int]) -> None:
    """One row would broadcast, and a first chunk of one example could not tell."""
    case = HiddenStates([], 3)
    case.layers = [case.layers[i] for i in chosen]

    def forward(rows: Tensor) -> Tensor:
        result = case.model(**{key: value[rows] for key, value in case.inputs.items()}, output_hidden_states=True)
        return result.logits[:, 0] * (2 + result.hidden_states[which][:, 0, 0])

    layers = range(len(chosen))
    first = [Row(0, layer, 0.5) for layer in layers]
    rows = [Row(example, layer, 0.2 + example / 10) for layer in layers for example in range(3)]
    single = [Row(1, 0, 0.4), *(Row(2, layer, 0.7) for layer in layers)]
    chunks = [first[-1:], first, rows, single]
    expected = [alone(case, chunk, forward) for chunk in chunks]
    with prepared(case.layers, forward, 3) as sweep:
        for chunk, found in zip(chunks, expected, strict=True):
            assert_same(run(sweep, chunk), found)


def test_output_that_does_not_depend_on_some_layers() -> None:
    case = HiddenStates([], 2)

    def early(rows: Tensor) -> Tensor:
        inputs = {key: value[rows] for key, value in case.inputs.items()}
        return case.model(**inputs, output_hidden_states=True).hidden_states[2][:, 0, 0]

    rows = case.rows()
    with prepared(case.layers, early, 2) as sweep:
        found = run(sweep, rows)
    for number, row in enumerate(rows):
        assert found[number][1].any() == (row.layer < 2)
    below = [row for row in rows if row.layer < 2]
    numbers = [number for number, row in enumerate(rows) if row.layer < 2]
    assert_same({i: found[number] for i, number in enumerate(numbers)}, alone(case, below, early))


@pytest.mark.parametrize("late", [True, False])
def test_gradient_that_is_not_finite_is_no_attribution(late: bool) -> None:
    """A finite F whose derivative is not, as of a root at zero, or of float16 beyond its range."""
    case = Case("BERT")

    def forward(rows: Tensor) -> Tensor:
        values = case(rows)
        return values + (values * 0).sqrt()

    with prepared(case.layers, forward, 3, late=late, backward=False) as sweep:
        for rows, layer, example in (([Row(2, 1, 0.5)], 1, 2), ([Row(1, 2, 0.5), Row(2, 1, 0.5)], 1, 2)):
            message = rf"gradient .* AttentionLayer\(encoder {layer}: .* example {example} is not finite"
            with pytest.raises(ValueError, match=message):
                sweep.run(rows)
            sweep.facts.verified = True
        message = r"gradient .* AttentionLayer\(encoder 0: .* example 1 is not finite"
        with pytest.raises(ValueError, match=message):
            sweep.run_clean([1, 2], backward=True)


def test_two_layers_of_one_model_around_a_second_model() -> None:
    """What another model in the forward function does is its own business."""
    case, second = Case("BERT"), Case("BERT")
    second.model.load_state_dict({key: value * 0.9 for key, value in second.model.state_dict().items()})

    def both(rows: Tensor) -> Tensor:
        return case(rows) * second(rows)

    rows = case.rows()
    expected = alone(case, rows, both)
    with prepared(case.layers, both, 3) as sweep:
        assert_same(run(sweep, rows), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values + torch.rand(()), "output changes when its attention is computed eagerly"),
        (lambda values: values - values.mean(0), "must not influence each other"),
        (lambda values: values.roll(1, 0) if len(values) > 2 else values, "must not influence each other"),
        (lambda values: values[:-1] if len(values) > 2 else values, "values for . rows"),
    ],
    ids=["random", "centred", "rolled", "short"],
)
def test_forwards_that_cannot_be_run_in_rows(change: Callable[[Tensor], Tensor], message: str) -> None:
    case = Case("BERT")
    with pytest.raises(UnsupportedModelError, match=message), prepared(case.layers, lambda r: change(case(r)), 3):
        pass


@pytest.mark.parametrize(
    ("visible", "message"),
    [
        (0, r"attention's shape changes with the batch, from \(4, 7, 7\) to \(4, 8, 8\)"),
        (1, "must not influence each other"),
    ],
    ids=["masked", "seen"],
)
def test_sequence_that_grows_with_the_batch(visible: int, message: str) -> None:
    case = Case("BERT", padding=None)

    def forward(rows: Tensor) -> Tensor:
        ids, mask = (case.inputs[key][rows] for key in ("input_ids", "attention_mask"))
        if len(rows) > 2:
            ids, mask = torch.cat((ids, ids[:, -1:]), 1), torch.cat((mask, mask[:, -1:] * visible), 1)
        return case.model(ids, attention_mask=mask)[0][:, 0]

    with pytest.raises(UnsupportedModelError, match=message), prepared(case.layers, forward, 3):
        pass


# ------------------------------------------------------------------------------------------- from rows to maps


RULES = [("gausslegendre", None, True), ("gausslegendre", 3, False), ("riemann_trapezoid", 3, True)]
"""Method, its nodes, and whether 1 is one of them."""


def lattr_of(case: Case) -> tuple[LayerAttAttr, Any]:
    order = list(case.inputs)

    def forward(*args: Tensor) -> Tensor:
        return case.model(**dict(zip(order, args, strict=True)))[0].softmax(-1)

    return LayerAttAttr(forward, case.layers), tuple(case.inputs.values())


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> list[list[Row]]:
    """The chunks that any sweep runs during a test, rows that verify not counted."""
    seen: list[list[Row]] = []
    original = Sweep.run

    def spy(self: Sweep, rows: Sequence[Row], **options: Any) -> Any:
        seen.append(list(rows))
        return original(self, rows, **options)

    monkeypatch.setattr(Sweep, "run", spy)
    return seen


def assert_same_maps(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
@pytest.mark.parametrize(
    ("method", "n_steps", "shared"), [RULES[0], RULES[1], RULES[2]], ids=["adaptive", "open", "closed"]
)
def test_batch_size_bounds_the_rows_and_changes_nothing(
    limit: int, method: str, n_steps: int | None, shared: bool, chunks: Any
) -> None:
    case = Case("BERT")
    lattr, inputs = lattr_of(case)
    options: dict[str, Any] = {"target": 0, "n_steps": n_steps, "method": method}
    expected = lattr.integrate(inputs, **options)
    chunks.clear()
    result = lattr.integrate(inputs, internal_batch_size=limit, **options)
    assert_same_maps(result.attributions, expected.attributions)
    assert torch.equal(result.nodes, expected.nodes)
    sizes = [len(rows) for rows in chunks]
    assert max(sizes) <= limit
    # At node 1 the rows of an example's layers are one, its run as it is.
    clean = case.batch if shared else 0
    assert result.rows == expected.rows == int(result.nodes.sum()) - (len(case.layers) - 1) * clean
    assert result.rows == sum(sizes) + clean
    assert all(row.node != 1.0 for rows in chunks for row in rows)
    # Chunks are full, whichever layers and examples their rows belong to.
    assert all(size == limit for size in sizes[:-1])


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
def test_no_forward_with_gradients_has_more_rows_than_the_batch_size(limit: int) -> None:
    """Counted where the model begins, so that rows of every purpose count."""
    case = Case("BERT")
    lattr, inputs = lattr_of(case)
    sizes: list[int] = []

    def count(_: nn.Module, args: Any, result: Tensor) -> None:
        if torch.is_grad_enabled():
            sizes.append(len(result))

    def head(_: nn.Module, args: Any) -> None:
        if torch.is_grad_enabled():
            sizes.append(len(args[0]))

    case.model.bert.embeddings.register_forward_hook(count)
    case.model.classifier.register_forward_pre_hook(head)
    lattr.integrate(inputs, target=0, internal_batch_size=limit)
    assert len(sizes) >= 4
    assert max(sizes) <= limit


def test_chunks_mix_layers_and_examples(chunks: Any) -> None:
    lattr, inputs = lattr_of(Case("BERT"))
    lattr.integrate(inputs, target=0, internal_batch_size=10)
    assert max(len({row.layer for row in rows}) for rows in chunks) > 1
    assert max(len({row.example for row in rows}) for rows in chunks) > 1


class OutOfMemory:
    """A device that holds only so many rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.sizes: list[int] = []
        original = Sweep.run

        def run(sweep: Sweep, rows: Sequence[Row], **options: Any) -> Any:
            self.sizes.append(len(rows))
            if len(rows) > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return original(sweep, rows, **options)

        monkeypatch.setattr(Sweep, "run", run)


@pytest.mark.parametrize("most", [1, 2, 5, 11])
def test_chunks_are_halved_when_memory_runs_out(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lattr, inputs = lattr_of(Case("BERT"))
    expected = lattr.integrate(inputs, target=0)
    memory = OutOfMemory(monkeypatch, most)
    result = lattr.integrate(inputs, target=0)
    assert_same_maps(result.attributions, expected.attributions)
    assert torch.equal(result.nodes, expected.nodes)
    assert result.rows == expected.rows == sum(size for size in memory.sizes if size <= most) + 3
    failed = [size for size in memory.sizes if size > most]
    assert 1 <= len(failed) < 12  # the smaller size is kept
    assert memory.sizes[: len(failed)] == failed


def test_a_given_batch_size_is_halved_too(
    monkeypatch: pytest.MonkeyPatch, unchanged: Callable[[nn.Module], AbstractContextManager[None]]
) -> None:
    case = Case("BERT")
    lattr, inputs = lattr_of(case)
    expected = lattr.integrate(inputs, target=0, internal_batch_size=10)
    memory = OutOfMemory(monkeypatch, 3)
    with unchanged(case.model):
        result = lattr.integrate(inputs, target=0, internal_batch_size=10)
    assert_same_maps(result.attributions, expected.attributions)
    assert memory.sizes[:3] == [10, 5, 2]
    assert set(memory.sizes[2:-1]) == {2}


def test_memory_too_small_for_one_row(
    monkeypatch: pytest.MonkeyPatch, unchanged: Callable[[nn.Module], AbstractContextManager[None]]
) -> None:
    case = Case("BERT")
    lattr, inputs = lattr_of(case)
    for given in (None, 1, 6):
        with monkeypatch.context() as context, unchanged(case.model):
            memory = OutOfMemory(context, 0)
            with pytest.raises(torch.OutOfMemoryError, match=r"too small for one row.*internal_batch_size=1.*CUDA out"):
                lattr.integrate(inputs, target=0, internal_batch_size=given)
        assert memory.sizes[-1] == 1


@pytest.mark.parametrize("adaptive", [True, False])
def test_finished_integrals_are_not_kept(adaptive: bool) -> None:
    """What is held follows the rows of a chunk, not the examples, the layers or the nodes."""
    limit, batch = 12, 8
    case = Case("BERT", batch=batch, padding=None)
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    held, made = [], 0

    def make_integral() -> Any:
        nonlocal made
        made += 1
        integral = AdaptiveIntegral(1e-6, 100) if adaptive else FixedIntegral(*fixed_rule("riemann_trapezoid", 5))
        alive.add(integral)
        return integral

    finished = Counter[str]()

    def progress(count: int, rows: int) -> None:
        finished["integrals"] += count
        held.append(len(alive))
        assert len(sweep.edges) <= len(alive)
        assert rows >= finished["rows"]
        finished["rows"] = rows

    with prepared(case.layers, case, batch) as sweep:
        sweep.clean.clear()
        sweep.multiply = True
        result = Integrator(sweep, make_integral, limit=limit, store=torch.device("cpu")).run(progress)
        assert not sweep.edges
        assert not sweep.clean
    assert finished["rows"] == result.rows
    assert made == finished["integrals"] == batch * 3
    assert len(held) > 6
    assert max(held) <= limit // 2 + 1  # each of them has two rows to run at least: the third is the shared one
    assert held[-1] == 0
    assert result.converged.all()
