"""Decisions about a part of a text: answers, tags, masked words. A table of tasks and inputs, and each task's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Any

import pytest
import torch
import transformers
from device import place
from torch import Tensor, nn
from toy import PAD, SEP, bert_config, tiny_tokenizer, unchanged

from captum_attattr import (
    Archive,
    Explanation,
    LayerAttAttr,
    attention_layers,
    attribution_tree,
    compare_attributions,
    explain,
    explain_dataset,
    explain_generation,
    explain_iter,
    faithfulness,
    find_patterns,
    head_importance,
    load_tree,
    plot_attention,
    plot_flow,
    plot_tokens,
    plot_tree,
    removal_effects,
    save_tree,
    token_scores,
    tree_text,
    write_report,
)
from captum_attattr.plots.canvas.pages import figure_page
from captum_attattr.trees.growth import paper
from captum_attattr.trees.maps import Maps

quiet = partial(explain, progress=False)


@dataclass(frozen=True)
class Case:
    """A tiny model of a task.

    Attributes:
        model: makes it.
        texts: that it takes.
        targets: one for each text.
        contrast: of all texts.
        logit, log_probability: of a target at positions, by hand, out of the model's output.
        told: what the views call the decision.
    """

    model: Callable[[], nn.Module]
    texts: list[Any]
    targets: list[Any]
    contrast: Any
    logit: Callable[[Any, list[int], int], Tensor]
    log_probability: Callable[[Any, list[int], int], Tensor]
    told: Callable[[Explanation], str]

    def value(self, output: str, raw: Any, positions: list[int], target: int) -> Tensor:
        if output == "logit":
            return self.logit(raw, positions, target)
        found = self.log_probability(raw, positions, target)
        return found if output == "log_probability" else found.exp()


@cache
def tiny(name: str, seed: int = 0, **changes: Any) -> Any:
    """A model whose attention matters."""
    torch.manual_seed(seed)
    if isinstance(changes.get("id2label"), tuple):
        changes["id2label"] = dict(changes["id2label"])
    changes["vocab_size"] = MASK + 1
    if "Question" in name:
        changes["num_labels"] = 2
    model = getattr(transformers, name)(bert_config(**changes)).eval()
    with torch.no_grad():
        for block in model.bert.encoder.layer:
            block.attention.output.dense.weight.mul_(3)
        for head in ("qa_outputs", "classifier"):
            if hasattr(model, head):
                getattr(model, head).weight.mul_(8)
    return place(model)


TOKENIZER = tiny_tokenizer(mask_token="[MASK]")
MASK = TOKENIZER.mask_token_id
TAGS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}
CASES = {
    "question_answering": Case(
        model=lambda: tiny("BertForQuestionAnswering"),
        texts=[("a b good", "film man work a film plot"), ("b", "plot good bad work"), ("c a", "man a b plot bad c")],
        targets=["man work", (4, 5), "plot"],
        contrast="a",
        logit=lambda raw, at, _: raw.start_logits[0, at[0]] + raw.end_logits[0, at[1]],
        log_probability=lambda raw, at, _: (
            raw.start_logits[0].log_softmax(-1)[at[0]] + raw.end_logits[0].log_softmax(-1)[at[1]]
        ),
        told=lambda one: f"answer {one.label}",
    ),
    "token_classification": Case(
        model=lambda: tiny("BertForTokenClassification", num_labels=4, id2label=tuple(TAGS.items())),
        texts=["a b good film man work", ("plot good", "bad work"), "man a b"],
        targets=[(2, "B-PER"), (5, 3), (3, "O")],
        contrast="O",
        logit=lambda raw, at, target: raw.logits[0, at[0], target],
        log_probability=lambda raw, at, target: raw.logits[0, at[0]].log_softmax(-1)[target],
        told=lambda one: f"entity {one.label} of {one.tokens[one.positions[0]]}",
    ),
    "masked_lm": Case(
        model=lambda: tiny("BertForMaskedLM"),
        texts=["a b [MASK] film man [MASK]", ("plot [MASK]", "bad work"), "[MASK] b"],
        targets=["good", (2, "film"), 5],
        contrast="work",
        logit=lambda raw, at, target: raw.logits[0, at[0], target],
        log_probability=lambda raw, at, target: raw.logits[0, at[0]].log_softmax(-1)[target],
        told=lambda one: f"word {one.label}",
    ),
}
TASKS = pytest.mark.parametrize("task", CASES)


def run(case: Case, explanation: Explanation) -> Any:
    with torch.no_grad():
        return case.model()(**place(explanation.inputs))


@contextmanager
def idle(model: nn.Module) -> Iterator[nn.Module]:
    """A model that must not run, and is left as it is."""
    ran: list[Any] = []
    handle = model.register_forward_pre_hook(lambda *_: ran.append(1))
    try:
        yield model
    finally:
        handle.remove()
    assert not ran


def asked(case: Case) -> list[Any]:
    """Targets that a text at which the contrast stands allows."""
    return [{}, {"target": case.targets}]


# ------------------------------------------------------------------------------------------------ F, and the maps


@TASKS
@pytest.mark.parametrize("output", ["probability", "logit", "log_probability"])
def test_f_is_the_models_own_output(task, output):
    case = CASES[task]
    for targets in asked(case):
        for one in quiet(case.model(), TOKENIZER, case.texts, output=output, n_steps=2, **targets):
            expected = case.value(output, run(case, one), one.positions, one.target)
            assert one.value == pytest.approx(float(expected), abs=1e-5)
            assert one.task == task
            likely = case.value("probability", run(case, one), one.positions, one.target)
            assert one.probability == pytest.approx(float(likely), abs=1e-5)


def at_target(case: Case, one: Explanation, output: str) -> Callable[..., Tensor]:
    """F as a user would write it, of one example."""

    def forward(*tensors: Tensor) -> Tensor:
        raw = case.model()(**dict(zip(one.inputs, tensors, strict=True)))
        rows = range(len(tensors[0]))
        parts = [type(raw)({name: value[row : row + 1] for name, value in raw.items()}) for row in rows]
        return torch.stack([case.value(output, part, one.positions, one.target) for part in parts])

    return forward


@TASKS
@pytest.mark.parametrize(
    "options", [{}, {"path": "joint", "baseline": "sink"}, {"output": "logit", "layers": [2]}], ids=str
)
def test_the_maps_are_those_of_a_forward_function_of_ones_own(task, options):
    case = CASES[task]
    one = quiet(case.model(), TOKENIZER, case.texts[:1], n_steps=6, **options)[0]
    forward = at_target(case, one, options.get("output", "probability"))
    layers = [attention_layers(case.model())[i] for i in options.get("layers", range(3))]
    first, *further = place(one.inputs).values()
    baseline = options.get("baseline")
    found = LayerAttAttr(forward, layers).integrate(
        first,
        additional_forward_args=tuple(further),
        n_steps=6,
        path=options.get("path", "layer"),
        attention_baselines=baseline,
    )
    torch.testing.assert_close(one.attributions, torch.cat(found.attributions).cpu(), atol=1e-6, rtol=1e-5)


@TASKS
def test_one_map_is_the_integral_with_gates(task):
    """The last layer's map by a middle sum over gates that scale its probabilities."""
    case = CASES[task]
    one = quiet(case.model(), TOKENIZER, case.texts[:1], output="logit", layers=[2])[0]
    model, steps = case.model(), 400
    clean = one.attention[0].to(next(model.parameters()).device)
    block = model.bert.encoder.layer[2].attention.self
    inputs = {name: tensor.to(clean.device) for name, tensor in one.inputs.items()}
    seen: list[Tensor] = []
    handle = block.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args or [kwargs["hidden_states"]])[0]), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    values = block.value(seen[0]).unflatten(-1, (clean.shape[0], -1)).transpose(1, 2).detach()
    total = torch.zeros_like(clean)
    for step in range(steps):
        gated = (clean * (step + 0.5) / steps).requires_grad_()
        context = (gated @ values).transpose(1, 2).flatten(2)
        handle = block.register_forward_hook(lambda *_, context=context: (context, None))
        value = case.value("logit", model(**inputs), one.positions, one.target)
        handle.remove()
        total += torch.autograd.grad(value, gated)[0] / steps
    torch.testing.assert_close(one.attributions[0], (clean * total).cpu(), atol=2e-4, rtol=2e-3)


@TASKS
@pytest.mark.parametrize("contrasted", [False, True])
def test_batches_streams_and_archives_are_one_by_one(task, contrasted, tmp_path):
    case = CASES[task]
    model, options = case.model(), {"n_steps": 3} | ({"contrast": case.contrast} if contrasted else {})
    texts = [text for text in case.texts if not contrasted or text is not case.texts[1]]
    single = [quiet(model, TOKENIZER, [text], **options)[0] for text in texts]
    together = quiet(model, TOKENIZER, texts, **options)
    stream = list(explain_iter(model, TOKENIZER, iter(texts), progress=False, **options))
    archive = explain_dataset(model, TOKENIZER, texts, tmp_path, progress=False, **options)
    assert len(Archive(tmp_path)) == len(texts)
    for several in (together, stream, list(archive)):
        for one, other in zip(single, several, strict=True):
            torch.testing.assert_close(one.attributions, other.attributions, atol=1e-6, rtol=1e-4)
            for name in ("target", "label", "positions", "task", "contrast", "contrast_target", "prediction"):
                assert getattr(one, name) == getattr(other, name), name
            assert one.value == pytest.approx(other.value, abs=1e-6)


@TASKS
def test_the_contrast_is_taken_off(task):
    case = CASES[task]
    text, target = case.texts[0], case.targets[0]
    one = quiet(case.model(), TOKENIZER, [text], [target], output="logit", contrast=case.contrast, n_steps=2)[0]
    first = quiet(case.model(), TOKENIZER, [text], [target], output="logit", n_steps=2)[0]
    second = quiet(case.model(), TOKENIZER, [text], [contrast_of(case, first)], output="logit", n_steps=2)[0]
    assert one.value == pytest.approx(first.value - second.value, abs=1e-5)
    assert one.contrast == second.label
    torch.testing.assert_close(one.attributions, first.attributions - second.attributions, atol=1e-5, rtol=1e-4)


def contrast_of(case: Case, one: Explanation) -> Any:
    """The contrast as a target of the same token."""
    return case.contrast if one.task == "question_answering" else (one.positions[0], case.contrast)


# ------------------------------------------------------------------------------------------- what is built on them


@TASKS
def test_files_views_and_trees_say_what_was_decided(task, tmp_path):
    case = CASES[task]
    one, other, _ = quiet(case.model(), TOKENIZER, case.texts, case.targets, n_steps=8)
    loaded = Explanation.load(one.save(tmp_path / "one.safetensors"))
    assert (loaded.task, list(loaded.positions), loaded.label) == (task, list(one.positions), one.label)
    assert one.label in repr(loaded)
    tree = attribution_tree(one, 0.01)
    assert tree.graph["root"] in one.positions
    assert tree.graph["class_token"] is None
    for name in ("tree.json", "tree.graphml"):
        assert load_tree(save_tree(tree, tmp_path / name)).graph == tree.graph
    told, place_ = case.told(one), one.telling.place
    assert f"({place_})" in tree_text(tree)
    figures = [plot_tree(tree, one), plot_flow(one), plot_attention(one)]
    for figure in figures:
        plain = (
            figure.layout.title.text.replace("<b>", "").replace("</b>", "").replace("\u2068", "").replace("\u2069", "")
        )
        assert told in plain
        assert f"({place_})" in plain
    assert told in figure_page(plot_tokens([one, other]))
    report = write_report(one, tmp_path / "report.html").read_text("utf-8")
    assert place_ in report.split("</h1>")[0]
    assert told in report
    scored = token_scores(case.model(), TOKENIZER, case.texts[:1], case.targets[:1], progress=False)[0]
    assert (scored.task, list(scored.positions)) == (task, list(one.positions))
    assert one.label in scored.table()


@TASKS
def test_effects_and_faithfulness_run_the_same_f(task):
    case = CASES[task]
    model = case.model()
    found = quiet(model, TOKENIZER, case.texts, case.targets, output="logit")
    with unchanged(model):
        effects = removal_effects(model, TOKENIZER, found[0], top=8)
    assert effects.value == pytest.approx(found[0].value, abs=1e-5)
    assert effects.spearman > 0.5
    measured = faithfulness(model, TOKENIZER, found, progress=False)
    torch.testing.assert_close(measured.full, torch.tensor([one.value for one in found]).double(), atol=1e-5, rtol=1e-5)
    compared = compare_attributions(model, TOKENIZER, case.texts, ["attention"], progress=False)
    assert compared.names == ["attention", "random"]
    with pytest.raises(ValueError, match="of another model"):
        removal_effects(tiny(type(model).__name__, seed=1), TOKENIZER, found[0])


@TASKS
@pytest.mark.parametrize(
    "attribution", ["attattr_joint", "gradient_attention", "attention", "alti", "chefer", "rollout", "attnlrp"]
)
def test_other_attributions(task, attribution):
    case = CASES[task]
    one = quiet(case.model(), TOKENIZER, case.texts[:1], case.targets[:1], attribution=attribution)[0]
    assert one.attribution == attribution
    assert one.token_scores().shape == (len(one.tokens),)


@TASKS
def test_what_is_of_whole_texts_refuses_them(task):
    case = CASES[task]
    model = case.model()
    with unchanged(model):
        for function in (
            lambda: head_importance(model, TOKENIZER, case.texts, [0] * len(case.texts)),
            lambda: find_patterns(model, TOKENIZER, case.texts),
        ):
            with pytest.raises(TypeError, match=f"is a model for {task.replace('_', ' ')}"):
                function()
        with pytest.raises(ValueError, match=r"is for .* and writes none: use explain"):
            explain_generation(model, TOKENIZER, "a b")


@TASKS
def test_a_training_model_stays_so(task):
    case = CASES[task]
    model = case.model().train()
    try:
        one = quiet(model, TOKENIZER, case.texts[:1], n_steps=2)[0]
        assert model.training
    finally:
        model.eval()
    assert one.value == pytest.approx(quiet(model, TOKENIZER, case.texts[:1], n_steps=2)[0].value)


# ---------------------------------------------------------------------------------------------- question answering


def answers(texts: Any, target: Any = None, tokenizer: Any = TOKENIZER, **options: Any) -> list[Explanation]:
    return quiet(tiny("BertForQuestionAnswering"), tokenizer, texts, target, n_steps=2, **options)


PAIR = CASES["question_answering"].texts[0]


def test_the_predicted_answer_is_the_most_probable_span_of_the_context():
    for one in answers(CASES["question_answering"].texts):
        raw = run(CASES["question_answering"], one)
        begins, ends = raw.start_logits[0].softmax(-1), raw.end_logits[0].softmax(-1)
        context = [i for i, part in enumerate(one.segments) if part == 1 and not one.special[i]]
        spans = [(float(begins[i] * ends[j]), [i, j]) for i, j in product(context, context) if i <= j]
        assert one.positions == max(spans)[1]
        assert one.prediction == one.target == one.positions[0] * len(one.tokens) + one.positions[1]


class Spanned(transformers.BertForQuestionAnswering):
    """Answers begin and end where chosen words stand, more or less probably."""

    begins: dict[int, float]
    ends: dict[int, float]

    def forward(self, input_ids: Tensor, **kwargs: Any) -> Any:
        output = super().forward(input_ids, **kwargs)
        for logits, table in ((output.start_logits, self.begins), (output.end_logits, self.ends)):
            logits.mul_(1e-3)
            for token, logit in table.items():
                logits.add_(logit * (input_ids == token))
        return output


@pytest.mark.filterwarnings("ignore::captum_attattr.ConvergenceWarning")
def test_an_answer_of_more_than_30_tokens_is_not_predicted_but_may_be_given():
    torch.manual_seed(0)
    model = place(Spanned(bert_config(num_labels=2, max_position_embeddings=64)).eval())
    man, good, plot = TOKENIZER.convert_tokens_to_ids(["man", "good", "plot"])
    model.begins, model.ends = {man: 9.0}, {good: 3.0, plot: 9.0}
    for between, label in ((29, "man" + " a" * 27 + " good"), (28, "man" + " a" * 27 + " good plot")):
        text = ("b", "man" + " a" * 27 + " good" + " a" * (between - 28) + " plot")
        with torch.no_grad():
            one = quiet(model, TOKENIZER, [text], attribution="attention")[0]
        assert one.label == label
        whole = quiet(model, TOKENIZER, [text], [text[1]], attribution="attention")[0]
        assert whole.positions == [3, 3 + between + 1]


@pytest.mark.parametrize(
    ("texts", "target", "positions"),
    [
        ([PAIR], ["man work"], [[6, 7]]),
        ([PAIR], " work ", [[7, 7]]),
        ([PAIR], (6, 8), [[6, 8]]),
        ([PAIR], [(6, 8)], [[6, 8]]),
        ([PAIR], ["man", "plot"], [[6, 6], [10, 10]]),  # several of one text
        ([PAIR, PAIR], ["man", ["work", "plot", (5, 5)]], [[6, 6], [7, 7], [10, 10], [5, 5]]),
        ([PAIR], (0, 0), [[0, 0]]),  # no answer, as SQuAD 2.0 has it
    ],
    ids=str,
)
def test_answers_are_strings_or_tokens(texts, target, positions):
    found = answers(texts, target)
    assert [one.positions for one in found] == positions
    for one in found:
        first, last = one.positions
        assert one.label == " ".join(one.tokens[first : last + 1])


def test_of_an_answer_that_stands_there_twice_the_more_probable_place_is_taken():
    one, first, second = answers([PAIR], ["film", (5, 5), (9, 9)])
    assert one.value == max(first.value, second.value)
    assert one.positions == max(first, second, key=lambda each: each.value).positions
    against = answers([PAIR], "plot", contrast="film")[0]
    assert against.contrast_target == one.target


WORDS = (PAIR[0].split(), PAIR[1].split())
ENCODED = TOKENIZER(*PAIR, return_tensors="pt")


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        ([WORDS], {"split_into_words": True}),
        (ENCODED, {}),
        ([{name: part[0].tolist() for name, part in ENCODED.items()}], {}),
        (TOKENIZER([PAIR[0], "b"], [PAIR[1], "c"], padding=True), {}),
    ],
    ids=["words", "encoding", "row", "padded rows"],
)
def test_other_forms_of_pairs_have_the_same_answers(texts, options):
    plain = answers([PAIR], "man work")[0]
    given = answers(
        texts,
        ["man work", "c"] if len(texts["input_ids"] if hasattr(texts, "keys") else texts) > 1 else "man work",
        **options,
    )[0]
    assert given.positions == plain.positions
    assert given.label == plain.label
    torch.testing.assert_close(given.attributions, plain.attributions)


def test_labels_are_the_texts_own_characters():
    """Whatever tokens make of them: upper case, accents, blanks."""
    core = tiny_tokenizer()
    from tokenizers.normalizers import Lowercase

    core.backend_tokenizer.normalizer = Lowercase()
    one = answers([("a", "The  FILM   Plot, bad")], "FILM   Plot", core)[0]
    assert one.label == "FILM   Plot"
    assert [one.tokens[i] for i in one.positions] == ["film", "plot"]
    with pytest.raises(ValueError, match=r"not in the context.*upper and lower case"):
        answers([("a", "The FILM")], "film", core)


class Doubled(nn.Module):
    """A module of one's own around a transformer, which gives a tensor (B, T, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny("BertForQuestionAnswering")

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        raw = self.inner(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return torch.stack((raw.start_logits, raw.end_logits), -1)


def test_a_module_of_ones_own_answers_questions():
    one = quiet(Doubled().eval(), TOKENIZER, [PAIR], task="question_answering", n_steps=2)[0]
    plain = answers([PAIR])[0]
    assert (one.positions, one.value) == (plain.positions, pytest.approx(plain.value))


class Beams(transformers.BertForQuestionAnswering):
    """An answer by beams, as XLNet's and XLM's first classes for questions give it."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return transformers.utils.ModelOutput(start_top_log_probs=torch.zeros(1, 5))


BAD_ANSWERS = [
    (["a b"], None, ValueError, r"texts\[0\] has no context: .*pairs, got 'a b'"),
    ([[2, 4, 5, 3]], None, ValueError, r"texts\[0\] has no context"),
    ([("a", "")], None, ValueError, r"texts\[0\] has no context"),
    ([PAIR], "cat", ValueError, r"target 'cat' of texts\[0\] is an answer that is not in the context"),
    ([PAIR], "a b good", ValueError, "not in the context"),  # of the question
    ([PAIR], "Man", ValueError, "upper and lower case"),
    ([PAIR], "", ValueError, "target '' of .* not in the context"),
    ([PAIR, PAIR], ["man", "cat"], ValueError, r"target 'cat' of texts\[1\]"),
    ([PAIR], (2, 3), ValueError, r"\(2, 3\) of texts\[0\].* which has the tokens 5 to 10"),
    ([PAIR], (7, 6), ValueError, "not in the context"),
    ([PAIR], (5, 11), ValueError, "not in the context"),
    ([PAIR], (5, 50), ValueError, "not in the context"),
    ([PAIR], (-2, -1), ValueError, "not in the context"),
    ([PAIR], 6, TypeError, r"must be an answer: a string .*, or \(first token, last token\)"),
    ([PAIR], (6,), TypeError, "must be an answer"),
    ([PAIR], (6, 7.5), TypeError, "must be an answer"),
    ([PAIR], (True, 7), TypeError, "must be an answer"),
    ([PAIR, PAIR], ["man"], ValueError, "target lists 1 entries for 2 texts"),
    ([PAIR, PAIR], ["man", []], ValueError, r"target of texts\[1\] is an empty list: give one or more, or None"),
]


@pytest.mark.parametrize(("texts", "target", "error", "message"), BAD_ANSWERS, ids=str)
def test_answers_that_are_none_are_refused_before_any_work(texts, target, error, message):
    with idle(tiny("BertForQuestionAnswering")) as model, pytest.raises(error, match=message):
        quiet(model, TOKENIZER, texts, target)


def test_other_bad_questions(tmp_path):
    model = tiny("BertForQuestionAnswering")
    with unchanged(model):
        with pytest.raises(ValueError, match=r"contrast 'man' of .* is its target"):
            answers([PAIR], (6, 6), contrast="man")
        with pytest.raises(ValueError, match="is what the model predicts"):
            answers([PAIR], contrast=tuple(answers([PAIR])[0].positions))
        with pytest.raises(
            ValueError, match="does not fit BertForQuestionAnswering, whose task is 'question_answering'"
        ):
            answers([PAIR], task="classification")
        with pytest.raises(ValueError, match="one explanation for each text"):
            explain_dataset(model, TOKENIZER, [PAIR], tmp_path / "a", [["man", "plot"]], progress=False)
        with pytest.raises(ValueError, match="output='score' is a regression's"):
            answers([PAIR], output="score")
    with pytest.raises(Exception, match="Beams gives no start_logits and end_logits"):
        quiet(Beams(bert_config(num_labels=2)).eval(), TOKENIZER, [PAIR])


def test_a_merged_tree_grows_from_the_word_of_the_answer():
    one = answers([PAIR], "work", output="logit")[0]
    maps = Maps.of(one, True, True, None, None)
    assert maps.readers == [7]
    assert paper(maps, 0.01, None).root == 7


def test_padding_and_separators_are_not_of_the_context():
    assert TOKENIZER.pad_token_id == PAD
    one = answers([PAIR])[0]
    assert one.inputs["input_ids"][0, -1] == SEP
    assert len(one.tokens) - 1 not in one.positions


# ------------------------------------------------------------------------------------------------------------- tags


def tagger() -> Any:
    return CASES["token_classification"].model()


def tags(texts: Any, target: Any = None, model: Any = None, **options: Any) -> list[Explanation]:
    return quiet(model or tagger(), TOKENIZER, texts, target, **{"n_steps": 2} | options)


class Tagged(transformers.BertForTokenClassification):
    """Labels of chosen logits: each word's label is told by the word, whatever stands beside it."""

    table: dict[int, list[tuple[int, float]]]

    def forward(self, input_ids: Tensor, **kwargs: Any) -> Any:
        output = super().forward(input_ids, **kwargs)
        output.logits = output.logits * 1e-3
        for token, pairs in self.table.items():
            for label, logit in pairs:
                output.logits[..., label] += logit * (input_ids == token)
        return output


def tagged(**words: tuple[str, float]) -> Tagged:
    """A model that labels words, each with a logit."""
    torch.manual_seed(0)
    model = Tagged(bert_config(num_labels=4, id2label=TAGS)).eval()
    names = {name: i for i, name in TAGS.items()}
    ids = TOKENIZER.convert_tokens_to_ids
    model.table = {ids(word): [(names[name], logit)] for word, (name, logit) in words.items()}
    return place(model)


NAMES = {"a": ("B-PER", 4.0), "b": ("I-PER", 9.0), "c": ("B-LOC", 5.0), "film": ("O", 7.0), "man": ("O", 7.0)}


def test_the_strongest_entity_is_explained():
    model = tagged(**NAMES)
    one = tags(["film a b man c"], model=model)[0]
    assert (one.positions, one.label, one.tokens[3]) == ([3], "I-PER", "b")
    assert one.telling == ("entity", "b", "token 3")
    assert tags(["film a man c"], model=model)[0].label == "B-LOC"


def test_a_predicted_label_goes_before_one_that_is_more_probable_and_not_predicted():
    model = tagged(**NAMES)
    man, c = TOKENIZER.convert_tokens_to_ids(["man", "c"])
    model.table = {man: [(0, 5.0), (3, 4.9)], c: [(3, 0.9)]}
    one = tags(["man c"], model=model)[0]
    other = tags(["man c"], (1, "B-LOC"), model)[0]
    assert (one.positions, one.label) == ([2], "B-LOC")
    assert other.probability > one.probability


def test_where_no_word_is_an_entity_the_most_probable_label_of_one_is_explained_and_not_called_a_choice(tmp_path):
    one = tags(["film man"], model=tagged(**NAMES))[0]
    assert one.label != "O"
    assert TAGS[one.prediction] == "O"
    assert "does not choose entity" in write_report(one, tmp_path / "x.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("film a b man c", [(2, "B-PER"), (5, "B-LOC")]),
        ("a a b c c", [(1, "B-PER"), (2, "B-PER"), (4, "B-LOC"), (5, "B-LOC")]),
        ("b b film b", [(1, "I-PER"), (4, "I-PER")]),
        ("film man", []),
        (("a b", "film c"), [(1, "B-PER"), (5, "B-LOC")]),
    ],
    ids=str,
)
def test_all_entities(text, found):
    model = tagged(**NAMES)
    several = tags([text, "c"], "all entities", model)
    assert [(one.positions[0], one.label) for one in several] == [*found, (1, "B-LOC")]
    streamed = list(explain_iter(model, TOKENIZER, [text, "c"], "all entities", n_steps=1, progress=False))
    assert [one.positions for one in streamed] == [one.positions for one in several]
    scored = token_scores(model, TOKENIZER, [text, "c"], "all entities", n_steps=2, progress=False)
    assert [one.positions for one in scored] == [one.positions for one in several]


def test_entities_begin_with_words_not_with_pieces():
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "wolf", "##gang", "lives", "##s"]
    tokenizer = transformers.BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)})
    torch.manual_seed(0)
    model = Tagged(bert_config(num_labels=4, id2label=TAGS)).eval()
    model.table = {4: [(1, 3.0)], 5: [(3, 9.0)], 6: [(0, 9.0)]}  # the piece alone would be a place
    one = quiet(model, tokenizer, ["wolfgang lives"], n_steps=1)[0]
    assert (one.positions, one.label) == ([1], "B-PER")
    assert one.telling.word == "wolfgang"
    piece = quiet(model, tokenizer, ["wolfgang lives"], [(2, "B-LOC")], n_steps=1)[0]
    assert piece.telling == ("entity", "wolfgang", "token 2")


@pytest.mark.parametrize(
    ("texts", "target", "expected"),
    [
        (["a b"], (1, "B-LOC"), [([1], 3)]),
        (["a b"], (2, 1), [([2], 1)]),
        (["a b", "c a b"], (2, None), [([2], None), ([2], None)]),
        (["a b"], [(1, "O"), (2, "O")], [([1], 0), ([2], 0)]),
        (["a b", "c"], [[(1, "O"), (2, "O")], (1, "B-PER")], [([1], 0), ([2], 0), ([1], 1)]),
    ],
    ids=str,
)
def test_tags_are_named_by_token_and_label(texts, target, expected):
    found = tags(texts, target)
    assert [one.positions for one in found] == [positions for positions, _ in expected]
    for one, (_, label) in zip(found, expected, strict=True):
        assert one.target == (one.prediction if label is None else label)


BAD_TAGS = [
    ((7, "B-PER"), ValueError, r"token 7 of texts\[0\] is beyond the text, whose tokens are 1 to 3"),
    ((-1, "B-PER"), ValueError, r"token -1 of texts\[0\] is beyond the text"),
    ((0, "B-PER"), ValueError, r"token 0 of texts\[0\] is the special token '\[CLS\]'; those of the text are 1 to 3"),
    ((4, "B-PER"), ValueError, r"is the special token '\[SEP\]'"),
    ((1, "PER"), ValueError, r"target 'PER' of texts\[0\] is unknown; the model has \['B-LOC'"),
    ((1, 4), ValueError, "target 4 .* out of range: the model has 4"),
    ((1, 0.5), TypeError, "must be an integer or a name"),
    ("B-PER", TypeError, r"target 'B-PER' of texts\[0\] must be \(token index, label\), 'all entities', or None"),
    (1, TypeError, r"must be \(token index, label\)"),
    ((1,), TypeError, r"must be \(token index, label\)"),
    (("1", "O"), TypeError, r"must be \(token index, label\)"),
    ([(1, "O"), (9, "O")], ValueError, "token 9 of .* is beyond the text"),
    ([[]], ValueError, r"target of texts\[0\] is an empty list: give one or more, or None"),
]


@pytest.mark.parametrize(("target", "error", "message"), BAD_TAGS, ids=str)
def test_tags_that_are_none_are_refused_before_any_work(target, error, message):
    with idle(tagger()) as model, pytest.raises(error, match=message):
        quiet(model, TOKENIZER, ["a b c"], target)


def test_other_bad_tags(tmp_path):
    model = tagged(**NAMES)
    with pytest.raises(ValueError, match=r"contrast 'B-PER' of .* is its target"):
        tags(["a b"], (1, "B-PER"), contrast="B-PER")
    with pytest.raises(ValueError, match="is what the model predicts"):
        tags(["a film"], model=model, contrast="B-PER")
    for target in ("all entities", [[(1, "O"), (2, "O")]]):
        with pytest.raises(ValueError, match=r"one explanation for each text|2 decisions are asked for; here one"):
            explain_dataset(model, TOKENIZER, ["a c"], tmp_path / "x", target, progress=False)
    only = tiny("BertForTokenClassification", num_labels=1, id2label=((0, "O"),))
    with pytest.raises(ValueError, match="has no entity: the model has no label but 'O'"):
        tags(["a b"], model=only)


# ------------------------------------------------------------------------------------------------------------ masks


def masked(texts: Any, target: Any = None, **options: Any) -> list[Explanation]:
    return quiet(tiny("BertForMaskedLM"), TOKENIZER, texts, target, **{"n_steps": 2} | options)


TWO = "a b [MASK] film man [MASK]"


@pytest.mark.parametrize(
    ("texts", "target", "expected"),
    [
        ([TWO], None, [(3, None)]),
        ([TWO], "film", [(3, "film")]),
        ([TWO], 7, [(3, "d")]),
        ([TWO], (6, "film"), [(6, "film")]),
        ([TWO], (6, None), [(6, None)]),
        ([TWO], "all masks", [(3, None), (6, None)]),
        ([TWO], ["good", "bad", (6, "plot")], [(3, "good"), (3, "bad"), (6, "plot")]),
        ([TWO, "[MASK]  a"], "film", [(3, "film"), (1, "film")]),
        ([TWO, "[MASK] a"], ["all masks", "plot"], [(3, None), (6, None), (1, "plot")]),
        ([("a [MASK]", "b [MASK]")], "all masks", [(2, None), (5, None)]),
        ([[2, 4, MASK, 3]], "film", [(2, "film")]),
    ],
    ids=str,
)
def test_words_at_masks(texts, target, expected):
    found = masked(texts, target)
    assert [one.positions for one in found] == [[position] for position, _ in expected]
    for one, (position, word) in zip(found, expected, strict=True):
        logits = run(CASES["masked_lm"], one).logits[0, position]
        assert one.prediction == int(logits.argmax())
        assert one.label == (TOKENIZER.decode([one.prediction]) if word is None else word)
        assert one.telling.place == f"mask at token {position}"


BAD_MASKS = [
    (["a b"], None, ValueError, r"texts\[0\] has no mask: put '\[MASK\]' where .* in 'a b'"),
    (["[MASK] a", "b"], "film", ValueError, r"texts\[1\] has no mask"),
    ([TWO], (1, "film"), ValueError, r"token 1 of texts\[0\] is 'a', which is no mask; its masks are the tokens 3, 6"),
    ([TWO], (7, "film"), ValueError, r"token 7 of texts\[0\] is '\[SEP\]', which is no mask"),
    ([TWO], (8, "film"), ValueError, r"token 8 of texts\[0\] is beyond the text; its masks are the tokens 3, 6"),
    ([TWO], "good film", ValueError, r"target 'good film' of texts\[0\] is 2 tokens .* one is needed"),
    ([TWO], (3, "good film"), ValueError, "is 2 tokens"),
    ([TWO], MASK + 1, ValueError, "out of range"),
    ([TWO], ("3", "film"), TypeError, r"must be a word or token id for the first mask, \(token index"),
    ([TWO], 0.5, TypeError, "must be a word or token id"),
    ([TWO], (3, "film", 1), TypeError, "must be a word or token id"),
    ([TWO], [[]], ValueError, r"target of texts\[0\] is an empty list: give one or more, or None"),
]


@pytest.mark.parametrize(("texts", "target", "error", "message"), BAD_MASKS, ids=str)
def test_masks_that_are_none_are_refused_before_any_work(texts, target, error, message):
    with idle(tiny("BertForMaskedLM")) as model, pytest.raises(error, match=message):
        quiet(model, TOKENIZER, texts, target)


@pytest.mark.parametrize(
    ("task", "text", "target"),
    [
        ("question_answering", ("a", "b c d e man"), "man"),
        ("token_classification", "a b c d e", (6, "O")),
        ("masked_lm", "a b c d [MASK]", None),
        ("masked_lm", "a [MASK] c d [MASK]", (6, "film")),
    ],
    ids=str,
)
def test_what_was_cut_off_is_told(task, text, target):
    with idle(CASES[task].model()) as model, pytest.raises(ValueError, match=r"; truncate leaves 6 tokens of a text$"):
        quiet(model, TOKENIZER, [text], target, truncate=6)


def test_a_tokenizer_without_a_mask_is_refused():
    with idle(tiny("BertForMaskedLM")) as model, pytest.raises(ValueError, match="the tokenizer has no mask token"):
        quiet(model, tiny_tokenizer(), ["a b"])


def test_a_masked_word_is_contrasted_with_another():
    one = masked([TWO], "film", contrast="plot", output="logit")[0]
    logits = run(CASES["masked_lm"], one).logits[0, 3]
    words = TOKENIZER.convert_tokens_to_ids(["film", "plot"])
    assert one.value == pytest.approx(float(logits[words[0]] - logits[words[1]]), abs=1e-5)
    with pytest.raises(ValueError, match=r"contrast 'film' of texts\[0\] is its target"):
        masked([TWO], "film", contrast="film")


class OwnMasks(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.inner = CASES[name].model()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        return self.inner(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits


@pytest.mark.parametrize("task", ["masked_lm", "token_classification"])
def test_modules_of_ones_own_with_their_task(task):
    case = CASES[task]
    own = OwnMasks(task).eval()
    plain = quiet(case.model(), TOKENIZER, case.texts[:1], case.targets[:1], n_steps=2)[0]
    if task == "token_classification":  # a module has no names of labels
        own.inner.config.id2label = TAGS
    given = quiet(own, TOKENIZER, case.texts[:1], case.targets[:1], task=task, n_steps=2)[0]
    assert (given.value, given.label, given.positions) == (pytest.approx(plain.value), plain.label, plain.positions)
    with pytest.raises(ValueError, match=r"does not fit|do not fit"):
        quiet(own, TOKENIZER, case.texts[:1], task="question_answering")
