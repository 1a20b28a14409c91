"""Warnings point at the line of the user's code that called the package, whichever way it went in."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from captum.attr import NoiseTunnel
from captum.metrics import sensitivity_max
from torch import Tensor
from toy import probabilities, sentences, tiny_bert, tiny_tokenizer

from captum_attattr import (
    ConvergenceWarning,
    LayerAttAttr,
    attention_layers,
    explain,
    explain_dataset,
    explain_iter,
    head_importance,
)
from captum_attattr.exceptions import warn_caller
from captum_attattr.tasks import task

MODEL, TOKENIZER, IDS = tiny_bert(), tiny_tokenizer(), sentences()
TEXTS = ["a good film", "bad plot"]
HARD = {"tolerance": 1e-9, "max_nodes": 5}
QUIET: dict[str, Any] = HARD | {"progress": False}


def training() -> Any:
    """A model in training mode whose dropout does nothing."""
    return tiny_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()


def attribution(model: Any = MODEL) -> LayerAttAttr:
    return LayerAttAttr(probabilities(model), attention_layers(model)[1])


def of_embeddings(model: Any = MODEL) -> tuple[LayerAttAttr, Tensor]:
    lattr = LayerAttAttr(lambda vectors: model(inputs_embeds=vectors).logits, attention_layers(model)[1])
    return lattr, model.bert.embeddings.word_embeddings(IDS).detach()


def through_noise_tunnel(model: Any = MODEL, **options: Any) -> None:
    lattr, vectors = of_embeddings(model)
    NoiseTunnel(lattr).attribute(vectors, nt_samples=1, target=1, **options)


def through_sensitivity() -> None:
    _, vectors = of_embeddings()
    lattr = LayerAttAttr(lambda vectors: MODEL(inputs_embeds=vectors).logits, attention_layers(MODEL))
    sensitivity_max(lattr.attribute, vectors, n_perturb_samples=1, target=1, **HARD)


def through_a_generator() -> None:
    def maps() -> Iterator[Any]:
        yield attribution().attribute(IDS, target=1, **HARD)

    list(maps())


def through_a_context() -> None:
    @contextmanager
    def maps() -> Iterator[Any]:
        yield attribution().attribute(IDS, target=1, **HARD)

    with maps():
        pass


@torch.no_grad()
def under_no_grad() -> None:
    attribution().attribute(IDS, target=1, **HARD)


def delta_in_training_mode() -> None:
    lattr = attribution(training())
    lattr.compute_convergence_delta(torch.zeros(3, 4, 6, 6), None, IDS, target=1)


def torn_journal(folder: Path) -> None:
    path = folder / "run.jsonl"
    options: dict[str, Any] = {"method": "taylor", "resume": path, "progress": False, "batch_size": 1}
    head_importance(MODEL, TOKENIZER, TEXTS, [0, 1], **options)
    path.write_bytes(path.read_bytes()[:-5])
    head_importance(MODEL, TOKENIZER, TEXTS, [0, 1], **options)


def undecided_rows(folder: Path) -> None:
    (folder / "dev.tsv").write_text("question1\tquestion2\tis_duplicate\none\ttwo\t1\nlonely\n")
    task("QQP").read(folder)


WAYS: dict[str, Callable[[Path], object]] = {
    "attribute": lambda _: attribution().attribute(IDS, target=1, **HARD),
    "attribute, by position": lambda _: attribution().attribute(IDS, None, 1, None, **HARD),
    "integrate": lambda _: attribution().integrate(IDS, target=1, **HARD),
    "NoiseTunnel": lambda _: through_noise_tunnel(**HARD),
    "sensitivity_max": lambda _: through_sensitivity(),
    "a generator": lambda _: through_a_generator(),
    "a context": lambda _: through_a_context(),
    "no_grad": lambda _: under_no_grad(),
    "with a bar": lambda _: attribution().attribute(IDS, target=1, show_progress=True, **HARD),
    "explain": lambda _: explain(MODEL, TOKENIZER, TEXTS, **QUIET),
    "explain_iter": lambda _: list(explain_iter(MODEL, TOKENIZER, TEXTS, **QUIET)),
    "explain_iter, next": lambda _: next(explain_iter(MODEL, TOKENIZER, iter(TEXTS), window=2, **QUIET)),
    "explain_dataset": lambda folder: explain_dataset(MODEL, TOKENIZER, TEXTS, folder / "new", **QUIET),
    "head_importance": lambda _: head_importance(MODEL, TOKENIZER, TEXTS, [0, 1], **QUIET),
    "training mode": lambda _: attribution(training()).attribute(IDS, target=1, n_steps=2),
    "training mode, integrate": lambda _: attribution(training()).integrate(IDS, target=1, n_steps=2),
    "training mode, delta": lambda _: delta_in_training_mode(),
    "training mode, NoiseTunnel": lambda _: through_noise_tunnel(training(), n_steps=2),
    "torn journal": torn_journal,
    "undecided rows": undecided_rows,
}


@pytest.mark.parametrize("way", WAYS)
def test_warning_points_at_the_caller(way: str, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        WAYS[way](tmp_path)
    assert caught
    assert {warning.filename for warning in caught} == {__file__}


def test_warning_points_at_the_very_line() -> None:
    with pytest.warns(ConvergenceWarning) as caught:
        attribution().attribute(IDS, target=1, **HARD)
    assert [warning.lineno for warning in caught] == [test_warning_points_at_the_very_line.__code__.co_firstlineno + 2]


@pytest.mark.parametrize("depth", [0, 1, 5])
@pytest.mark.parametrize("package", ["captum_attattr", "captum_attattr.heads.scoring", "captum.log", "torch", "tqdm"])
def test_frames_of_these_packages_are_passed_over(package: str, depth: int) -> None:
    source = "def pass_on(depth):\n    warn('beware') if depth == 0 else pass_on(depth - 1)"
    names: dict[str, Any] = {"__name__": package, "warn": warn_caller}
    exec(compile(source, "inside.py", "exec"), names)
    with pytest.warns(UserWarning, match="^beware$") as caught:
        names["pass_on"](depth)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("package", ["captum_attattr_mine", "mycaptum", "transformers", ""])
def test_frames_of_others_are_the_callers(package: str) -> None:
    names: dict[str, Any] = {"__name__": package, "warn": warn_caller}
    with pytest.warns(UserWarning, match="beware") as caught:
        exec(compile("warn('beware')", "mine.py", "exec"), names)
    assert caught[0].filename == "mine.py"


def test_where_every_frame_is_passed_over_the_outermost_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Everything:
        def __contains__(self, name: str) -> bool:
            return True

    monkeypatch.setattr("captum_attattr.exceptions._PASSED_THROUGH", Everything())
    with pytest.warns(UserWarning, match="beware") as caught:
        warn_caller("beware")
    assert caught[0].filename != __file__
