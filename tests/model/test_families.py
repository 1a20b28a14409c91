"""Every family of the table builds, runs, and is attributed or refused as the table says."""

import ast
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
import transformers
from families import FAMILIES, Family, pixels, sound, speech, tiles
from families_table import BEGIN, END, main, section, table
from torch import Tensor, nn
from transformers import PreTrainedModel

import captum_attattr
from captum_attattr import LayerAttAttr, UnsupportedModelError, attention_layers

SUPPORTED = [family for family in FAMILIES if family.route != "refused"]
REFUSED = [family for family in FAMILIES if family.route == "refused"]
PADDED = [family for family in SUPPORTED if family.inputs not in (pixels, tiles, speech, sound)]

KINKED = {"DistilBERT"}  # a ReLU before its classifier, which no rule integrates fast

TOLERANCE = 1e-3
"""`attribute`'s own default."""


def kinds_of(families: list[Family]) -> pytest.MarkDecorator:
    """Run a test for every kind of attention of every family."""
    pairs = [(family, kind) for family in families for kind in family.kinds]
    return pytest.mark.parametrize(("family", "kind"), pairs, ids=[f"{f.name}-{kind}" for f, kind in pairs])


each = pytest.mark.parametrize("family", SUPPORTED, ids=lambda family: family.name)


class Subject:
    """A family's model and F: a class's probability, or a fixed random projection of the real tokens' output."""

    def __init__(self, family: Family, kind: str) -> None:
        torch.manual_seed(0)
        self.family = family
        self.model: PreTrainedModel = family.build()
        self.names = list(family.inputs(1, None))
        with torch.no_grad():
            shape = self.output(*family.inputs(1, None).values()).shape[1:]
        self.projection = torch.randn(shape, generator=torch.Generator().manual_seed(1)) / shape.numel() ** 0.5
        self.lattr = LayerAttAttr(self, attention_layers(self.model, kind))

    def output(self, *inputs: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True)))[0]

    def __call__(self, *inputs: Tensor) -> Tensor:
        output = self.output(*inputs)
        if self.family.task == "classification":
            return output.softmax(-1)[:, 1]
        return (output[:, : len(self.projection)] * self.projection.to(output)).flatten(1).sum(1)

    def inputs(self, batch: int, padding: int | None = None) -> tuple[Tensor, ...]:
        return tuple(self.family.inputs(batch, padding).values())

    def maps(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """By a fixed rule, so that rounding cannot change the choice of the nodes."""
        return self.lattr.attribute(inputs, n_steps=3)


def assert_close_maps(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """To 1e-5 of each map's largest entry."""
    for ours, theirs in zip(actual, expected, strict=True):
        largest = float(theirs.abs().max())
        assert largest > 0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@torch.no_grad()
def test_family_is_valid(family: Family) -> None:
    """No padding, batch or implementation changes the output of the model itself."""
    torch.manual_seed(0)
    model = family.build()
    output = model(**family.inputs(3, None))[0]
    assert output.isfinite().all()
    for implementation in [None, "eager"] if family.route == "interface" else [None]:
        if implementation:
            model.set_attn_implementation(implementation)
            assert model.config._attn_implementation == implementation
        single = model(**family.inputs(1, None))[0]
        torch.testing.assert_close(single, output[:1], rtol=0, atol=1e-5)
        if family.route != "refused":
            padded = model(**family.inputs(3, 4))[0][:, : output.shape[1]]
            torch.testing.assert_close(padded, output, rtol=0, atol=1e-5)


@each
def test_layers_are_those_of_the_table(family: Family) -> None:
    model = family.build()
    for kind, count in family.layers.items():
        layers = attention_layers(model, kind)
        assert [layer.index for layer in layers] == list(range(count))
        assert {(layer.kind, layer.route) for layer in layers} == {(kind, family.route)}
    for kind in {"encoder", "decoder", "cross"} - family.layers.keys():
        with pytest.raises(ValueError, match=f"no {kind} attention"):
            attention_layers(model, kind)


@kinds_of(SUPPORTED)
@torch.no_grad()
def test_own_attention_reproduces_the_output(family: Family, kind: str) -> None:
    subject = Subject(family, kind)
    inputs = subject.inputs(3, 4)
    real = slice(len(subject.projection))  # what padding itself is turned into is not defined
    own = subject.output(*inputs)[:, real]
    attention = subject.lattr.attention(inputs)
    read = LayerAttAttr(subject.output, subject.lattr.layers).attention_forward
    torch.testing.assert_close(read(*attention, *inputs)[:, real], own, rtol=0, atol=1e-5)
    changed = read(attention[0] * 0, *attention[1:], *inputs)[:, real]
    assert (changed - own).flatten(1).abs().amax(1).min() > 1e-3


@kinds_of(SUPPORTED)
def test_attributions_are_complete(
    family: Family, kind: str, unchanged: Callable[[nn.Module], AbstractContextManager[None]]
) -> None:
    """They add up to F(A) - F(B), to the tolerance of their absolute sum; nothing fails to converge (a warning)."""
    subject = Subject(family, kind)
    inputs = subject.inputs(2, 3)
    with torch.no_grad():
        values = subject(*inputs)
    with unchanged(subject.model):
        result = subject.lattr.integrate(inputs)
    assert result.converged.all()
    torch.testing.assert_close(result.output, values, rtol=0, atol=1e-5)
    for layer, maps in enumerate(result.attributions):
        gained = result.output - result.start[layer]
        off = (maps.double().flatten(1).sum(1) - gained).abs()
        assert (off <= TOLERANCE * maps.abs().flatten(1).sum(1) + 4e-6 * result.output.abs()).all()
        torch.testing.assert_close(result.delta[layer].abs().double(), off, rtol=1e-3, atol=1e-6)
        assert gained.abs().max() > 1e-4


@kinds_of(SUPPORTED)
def test_estimated_error_is_honest(family: Family, kind: str) -> None:
    subject = Subject(family, kind)
    inputs = subject.inputs(1)
    result = subject.lattr.integrate(inputs)
    smooth = family.name not in KINKED
    truths = subject.lattr.attribute(inputs, **{"n_steps": 24} if smooth else {"tolerance": TOLERANCE / 50})
    for maps, truth, estimate in zip(result.attributions, truths, result.error[:, 0].tolist(), strict=True):
        error = float((maps - truth).norm() / truth.norm())
        assert estimate <= TOLERANCE
        assert error <= 3 * estimate
        assert error <= (TOLERANCE if smooth else 2 * TOLERANCE)


@kinds_of(PADDED)
def test_padding_changes_no_attribution_and_gets_none(family: Family, kind: str) -> None:
    subject = Subject(family, kind)
    plain, padded = subject.maps(subject.inputs(2)), subject.maps(subject.inputs(2, 4))
    queries, keys = plain[0].shape[-2:]
    assert padded[0].shape[-1] > keys
    assert_close_maps(tuple(map_[..., :queries, :keys] for map_ in padded), plain)
    for map_ in padded:
        assert not map_[..., :queries, keys:].any()
        assert map_[..., queries:, :].abs().max() <= 1e-6 * map_.abs().max() if queries < map_.shape[-2] else True


@kinds_of(SUPPORTED)
def test_batch_gives_what_its_examples_give_alone(family: Family, kind: str) -> None:
    subject = Subject(family, kind)
    both = subject.inputs(2)
    alone = [subject.maps(tuple(tensor[i : i + 1] for tensor in both)) for i in range(2)]
    assert_close_maps(subject.maps(both), tuple(torch.cat(pair) for pair in zip(*alone, strict=True)))


@pytest.mark.parametrize("family", REFUSED, ids=lambda family: family.name)
def test_refusal_says_why(family: Family) -> None:
    model = family.build()
    names = list(family.inputs(1, None))
    assert family.reason
    with pytest.raises(UnsupportedModelError, match=family.reason):
        LayerAttAttr(
            lambda *inputs: model(**dict(zip(names, inputs, strict=True)))[0].flatten(1), attention_layers(model)
        ).attribute(tuple(family.inputs(2, None).values()), target=0)


def test_only_this_room_imports_transformers() -> None:
    """At any depth, and the commands, which load models; importing the package does not: whoever has a model did."""
    package = Path(captum_attattr.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert path.parent.name in ("model", "commands") or not any(
                name.split(".")[0] == "transformers" for name in names
            ), path
    code = "import sys, captum_attattr; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ------------------------------------------------------------------------------------- the table of the guide

PAGE = Path(__file__).parents[2] / "docs/guide/models.md"


def test_the_guide_has_this_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    if f"Checked with transformers {transformers.__version__}," not in text:
        pytest.skip("the page has the table of another release of transformers: routes differ")
    begin, end = section(text)
    assert text[begin:end] == "\n" + table(), "run: python tests/families_table.py --write docs/guide/models.md"


def names_in(part: str) -> list[str]:
    return [
        name
        for line in part.splitlines()
        if line.startswith(("| ", "- "))
        for name in line.removeprefix("| ").removeprefix("- ").split(" | ")[0].split(": ")[0].split(", ")
    ]


def test_table_names_every_family_once() -> None:
    supported, rest = table().split("`mask_heads`")
    uncut, refused = rest.split("Refused")
    names = names_in(supported) + names_in(refused)
    assert sorted(names) == sorted(["families", *(family.name for family in FAMILIES)])
    assert len(set(names)) == len(names)
    assert sorted(names_in(uncut)) == sorted(family.name for family in SUPPORTED if family.uncut)


def test_table_is_written_between_the_markers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    page.chmod(0o640)
    for _ in range(2):  # and again, over itself
        main(["--write", str(page)])
        assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\n{table()}{END}\nafter\n"
    assert page.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [page]
    main([])
    assert capsys.readouterr().out == table()


@pytest.mark.parametrize("text", ["nothing", f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}"])
def test_file_without_markers_is_left_alone(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(SystemExit):
        main(["--write", str(page)])
    assert f"page.md: the text needs one {BEGIN}" in capsys.readouterr().err
    assert page.read_text() == text
