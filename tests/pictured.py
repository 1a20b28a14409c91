"""Made-up curves of pruning, analyses of effectiveness and attacks, for tests of their pictures."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from captum_attattr.heads.curves import PruningComparison, PruningCurve
from captum_attattr.heads.effectiveness import Effectiveness
from captum_attattr.triggers.extraction import Trigger
from captum_attattr.triggers.report import AttackReport, Outcome, VictimResult

CLASSES = ["entailment", "neutral", "contradiction"]
WORDS = ["film", "tree", "dull", "queen", "witty", "not"]


def curve(name: str = "attattr", order: str = "least", seed: int = 0, cut: bool = False, **changed: Any) -> Any:
    """A made-up pruning curve of 72 heads in 5 steps."""
    generator = np.random.default_rng(seed)
    values = {
        "name": name,
        "order": order,
        "heads": [0, 18, 36, 54, 72],
        "total": 72,
        "metric_name": "accuracy",
        "metric": np.sort(generator.random(5))[::-1].tolist(),
        "loss": generator.random(5).tolist(),
        "ranking": [],
        "ranking_rows": 200,
        "evaluation_rows": 872,
        "shared_rows": 0,
        "parameters": [1000, 900, 800, 700, 600] if cut else [],
        "latency": [1.0, 0.9, 0.85, 0.7, 0.5] if cut else [],
    }
    return PruningCurve(**(values | changed))


def comparison(cut: bool = True) -> PruningComparison:
    curves = [
        curve(name, order, seed, cut and order == "least")
        for seed, (name, order) in enumerate((n, o) for o in ("least", "most") for n in ("attattr", "taylor"))
    ]
    return PruningComparison(curves, [curve(f"random {i}", seed=10 + i, ranking_rows=0) for i in range(3)])


def effectiveness(**changed: Any) -> Any:
    def curves(shift: float) -> dict[str, dict[str, list[float]]]:
        return {
            score: {mode: [shift + i + j / 10 + k / 100 for k in range(5)] for j, mode in enumerate(("prune", "keep"))}
            for i, score in enumerate(("attribution", "attention"))
        }

    values = {"heads": [0, 1, 2, 3, 4], "metric_name": "accuracy", "metric": curves(0.0), "loss": curves(5.0)}
    return Effectiveness(**(values | {"rows": 50, "options": {"target": "gold", "reduce": "max"}} | changed))


def trigger(*tokens: str, **changed: Any) -> Trigger:
    values = {
        "tokens": tokens,
        "positions": tuple(i / max(len(tokens) - 1, 1) for i in range(len(tokens))),
        "segments": (0,) * len(tokens),
        "score": 0.4321,
        "layer": 3,
        "head": 7,
        "source": 12,
        "target": 0,
    }
    return Trigger(**(values | changed))


def triggers(count: int) -> list[Trigger]:
    return [trigger(WORDS[i % 6], f"word{i}") for i in range(count)]


def victim(
    name: str = "model",
    classes: list[str] = CLASSES,
    given: list[Trigger] | None = None,
    rows: int = 90,
    draws: int = 4,
    seed: int = 0,
) -> VictimResult:
    """Made-up predictions, of which most are right and each outcome changes some others."""
    draw = random.Random(f"{name} {seed}")
    gold = [i % len(classes) for i in range(rows)]
    clean = [g if draw.random() < 0.9 else draw.randrange(len(classes)) for g in gold]

    def changed() -> list[int]:
        share, to = draw.random() / 2, draw.randrange(len(classes))
        return [to if draw.random() < share else value for value in clean]

    outcomes = [Outcome("clean", [], None, clean)]
    for one in triggers(3) if given is None else given:
        outcomes.append(Outcome("trigger", list(one.tokens), one, changed()))
        for _ in range(draws):
            outcomes.append(Outcome("control", [draw.choice(WORDS) for _ in one.tokens], one, changed()))
    return VictimResult(name, list(range(len(classes))), classes, gold, outcomes)


def several() -> AttackReport:
    """Three victims; the second one has other classes, the third one more of them."""
    given = triggers(3)
    return AttackReport(
        [
            victim("first", CLASSES, given),
            victim("second", ["negative", "positive"], given),
            victim("third", [f"class {i}" for i in range(6)], given),
        ]
    )
