"""Made-up results, for tests of what is drawn from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from captum_attattr import AttributionComparison, Explanation, Faithfulness, GenerationExplanation, ImageExplanation
from captum_attattr.evaluation.compared import Compared
from captum_attattr.heads.importance import METHODS, HeadImportance

Scores = Callable[[tuple[int, ...], torch.Generator], torch.Tensor]


def sparse(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Signed scores, of which a tenth is a hundred times as strong as the others."""
    strong = torch.rand(shape, generator=generator) < 0.1
    return torch.randn(shape, generator=generator) * torch.where(strong, 2e-2, 2e-4)


def explanation(
    layers: int, heads: int, words: int | list[str], /, scores: Scores = sparse, seed: int = 0, **changed: Any
) -> Explanation:
    """A made-up explanation, of the words "word0", "word1" ... or of given ones.

    Attention rows sum to one; attributions are signed and sparse, or what `scores(shape, generator)` makes.
    """
    tokens = words if isinstance(words, list) else [f"word{i}" for i in range(words)]
    size, generator = len(tokens), torch.Generator().manual_seed(seed)
    shape = (layers, heads, size, size)
    values = {
        "tokens": tokens,
        "attributions": scores(shape, generator),
        "attention": torch.randn(shape, generator=generator).softmax(-1),
        "delta": torch.randn(layers, generator=generator) * 1e-4,
        "error": torch.rand(layers, generator=generator) * 1e-2,
        "nodes": torch.full((layers,), 9),
        "target": 1,
        "label": "positive",
        "probability": 0.875,
        "prediction": 1,
        "text": "a text of words",
        "segments": [0] * size,
        "special": [i in (0, size - 1) for i in range(size)],
    }
    return Explanation(**(values | changed))


def pictured(rows: int = 3, columns: int = 4, special: int = 1, **changed: Any) -> ImageExplanation:
    """A made-up explanation of a picture of 8 x 8 pixels a patch."""
    names = [f"patch {row},{column}" for row in range(rows) for column in range(columns)]
    tokens = [*["[CLS]", "[DIST]"][:special], *names]
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (8 * rows, 8 * columns, 3), generator=generator, dtype=torch.uint8)
    given = explanation(3, 4, tokens)
    values = {name: getattr(given, name) for name in ("attributions", "attention", "delta", "error", "nodes")}
    values |= {
        "tokens": tokens,
        **{name: getattr(given, name) for name in ("target", "label", "probability", "prediction", "segments")},
        "text": "flower.png",
        "special": [i < special for i in range(len(tokens))],
        "scheme": "words",
        "picture": picture,
        "grid": (rows, columns),
        "patches": range(special, len(tokens)),
    }
    return ImageExplanation(**(values | changed))


def importance(
    layers: int = 3, heads: int = 4, method: str = "attattr", seed: int = 0, **changed: Any
) -> HeadImportance:
    """A made-up importance; scores of the differences have both signs."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(layers, heads, generator=generator, dtype=torch.float64) - (0.5 if "diff" in method else 0)
    values = {
        "scores": scores,
        "stderr": torch.rand(layers, heads, generator=generator, dtype=torch.float64) / 10,
        "count": 200,
        "method": method,
        "options": METHODS[method].options,
        "labels": ["negative", "positive"],
        "examples": [],
        "model": "digest",
    }
    return HeadImportance(**(values | changed))


def comparison(names: tuple[str, ...] = ("attattr", "attention", "random"), count: int = 20) -> AttributionComparison:
    """A made-up comparison of methods, on texts of one letter each."""
    methods = {}
    for seed, name in enumerate(names):
        generator = torch.Generator().manual_seed(seed)
        measured = faithfulness(count, name, seed)
        pairs = torch.rand(count, 2, generator=generator)
        found = {"top": pairs, "random": pairs * 0.5}
        heads = torch.rand(count, *measured.heads.shape, generator=generator)
        methods[name] = Compared(measured, found, torch.ones(count), torch.ones(count), heads)
    return AttributionComparison(methods, list("a" * count))


def faithfulness(count: int = 20, attribution: str = "attattr", seed: int = 0, **changed: Any) -> Faithfulness:
    """A made-up faithfulness: the more units are kept, the nearer the output is to the whole one."""
    generator = np.random.default_rng(seed)
    fractions, counts = [0.001, 0.01, 0.1, 0.5, 1.0], [1, 2, 4]
    full, empty = 0.9 + 0.05 * generator.random(count), 0.5 + 0.01 * generator.random(count)

    def curve(heights: list[float]) -> Any:
        noise = 0.05 * generator.standard_normal((count, len(heights))) * [0 < height < 1 for height in heights]
        return empty[:, None] + (full - empty)[:, None] * (np.array(heights) + noise)

    keep = curve([0.1, 0.4, 0.8, 0.95, 1])
    values = {
        "fractions": fractions,
        "counts": counts,
        "full": full,
        "empty": empty,
        "keep": keep,
        "delete": curve([0.9, 0.5, 0.2, 0.1, 0]),
        "keep_absolute": keep,
        "keep_top": curve([0.05, 0.08, 0.1]),
        "delete_top": curve([0.95, 0.92, 0.9]),
        "units": [4608] * count,
        "unit": "edge",
        "removal": "zero",
        "attribution": attribution,
        "output": "probability",
        "path": "layer",
        "baseline": "zero",
        "heads": generator.random((3, 4)),
        "layers": [0, 1, 2],
    }
    return Faithfulness(**(values | changed))


def generation(prompt: int | list[str] = 8, answer: int | list[str] = 5, seed: int = 0, **changed: Any) -> Any:
    """A made-up explanation of a generation, of the words "word0" ... and "said0" ... or of given ones."""
    before = prompt if isinstance(prompt, list) else [f"word{i}" for i in range(prompt)]
    tokens = answer if isinstance(answer, list) else [f"said{i}" for i in range(answer)]
    count, whole = len(tokens), len(before) + len(tokens)
    generator = torch.Generator().manual_seed(seed)
    values = {
        "prompt": " ".join(before),
        "answer": " ".join(tokens),
        "prompt_tokens": before,
        "tokens": tokens,
        "ids": list(range(whole)),
        "special": [i == 0 for i in range(whole)],
        "values": torch.full((count,), 0.75),
        "probabilities": torch.full((count,), 0.75),
        "predictions": [0] * count,
        "matrix": sparse((count, whole), generator).tril(len(before) - 1),
        "total_delta": torch.zeros(count),
        "written": "greedy",
        "output": "probability",
        "path": "joint",
        "baseline": "sink",
        "attribution": "attattr_joint",
        "layers": [0, 1],
        "scheme": "words",
        "contrast": [None] * count,
        "contrast_ids": [None] * count,
        "options": {},
    }
    return GenerationExplanation(**(values | changed))


def assert_same_generation(found: GenerationExplanation, expected: GenerationExplanation) -> None:
    """Check every field but what holds a model or whole explanations."""
    for name, value in vars(expected).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(getattr(found, name), value), name
        elif name not in ("kept", "scorer"):
            assert getattr(found, name) == value, name
