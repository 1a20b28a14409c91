"""The attack: its figures by a plain loop over single texts, controls, choice, transfer, resumption, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from toy import WORDS, tiny_bart, tiny_bert, tiny_tokenizer, wavering_bert

from captum_attattr import AttackReport, Trigger, attack, insert_trigger

TEXTS = [
    "a b c",
    "good film",
    ("bad plot", "man"),
    "d e f g h",
    "work man film",
    ("a good", "b bad c"),
    "i j",
    "k l m n",
]
LABELS = [0, 1, 2, 0, 1, 2, 0, 1]
TRIGGERS = [
    Trigger(("good", "bad"), (0.0, 1.0), (0, 0), 0.9, 0, 1, 3, 1, sources=2),
    Trigger(("z",), (0.5,), (1,), 0.5, 2, 0, 4, 0),
    Trigger(("film", "plot", "man"), (0.0, 0.5, 1.0), (0, 0, 0), 0.3, 1, 1, 5, 2),
]
SPECIAL = Trigger(("[CLS]", "[SEP]"), (0.0, 1.0), (0, 0), 0.5, 0, 1, 3, 1)


@pytest.fixture(scope="module")
def toy():
    return wavering_bert(), tiny_tokenizer(model_max_length=24)


@pytest.fixture(scope="module")
def report(toy):
    return attack(*toy, TEXTS, LABELS, TRIGGERS, control_seeds=3, batch_size=3, progress=False)


def never(*_, **__):
    raise AssertionError("the model was asked")


def plain_predictions(toy, trigger, texts=TEXTS):
    """One text after the other, its tokens as `insert_trigger` gives them."""
    model, tokenizer = toy
    found = []
    for text in texts:
        tokens = insert_trigger(trigger, text, tokenizer).tokens if trigger else None
        parts = (text,) if isinstance(text, str) else text
        inputs = tokenizer(*parts, return_tensors="pt")
        if tokens:
            ids = torch.tensor([tokenizer.convert_tokens_to_ids(list(tokens))])
            split = tokens.index("[SEP]")
            types = torch.tensor([[int(i > split) for i in range(len(tokens))]])
            inputs = {"input_ids": ids, "token_type_ids": types}
        with torch.no_grad():
            found.append(int(model(**inputs).logits.argmax()))
    return found


def test_predictions_are_those_of_a_plain_loop(toy, report):
    victim = report.victims[0]
    assert victim.clean == plain_predictions(toy, None)
    outcomes = [outcome for outcome, _ in victim.triggers()]
    assert [outcome.trigger for outcome in outcomes] == TRIGGERS
    for outcome in outcomes:
        assert outcome.predictions == plain_predictions(toy, outcome.trigger)
    assert any(outcome.predictions != victim.clean for outcome in outcomes)


def test_figures_follow_from_the_predictions(report):
    victim = report.victims[0]
    gold, clean = np.array(LABELS), np.array(victim.clean)
    assert victim.class_names == ["LABEL_0", "LABEL_1", "LABEL_2"]
    for outcome in victim.outcomes:
        found = np.array(outcome.predictions)
        for i, of in enumerate(("all", *victim.class_names)):
            rows = np.ones(len(gold), bool) if of == "all" else gold == i - 1
            measure = victim.measure(outcome, of)
            assert measure.rows == rows.sum()
            assert measure.accuracy == accuracy_score(gold[rows], found[rows])
            assert measure.drop == pytest.approx(accuracy_score(gold[rows], clean[rows]) - measure.accuracy)
            assert measure.flip_rate == (found != clean)[rows].mean()
            assert 0 <= measure.low <= measure.accuracy <= measure.high <= 1
            assert victim.flipped(outcome, of) == list(np.flatnonzero((found != clean) & rows))
        assert victim.flipped(outcome) == list(np.flatnonzero(found != clean))
    clean_measure = victim.measure(victim.outcomes[0])
    assert (clean_measure.drop, clean_measure.drop_error, clean_measure.flip_rate) == (0, 0, 0)


def test_controls_take_the_places_of_the_trigger_with_other_words(report):
    for outcome, controls in report.victims[0].triggers():
        assert [control.trigger for control in controls] == [outcome.trigger] * 3
        for control in controls:
            assert len(control.tokens) == len(outcome.tokens)
            assert not set(control.tokens) & set(outcome.tokens)
            assert set(control.tokens) <= {word for text in TEXTS for word in " ".join(text).split() + list(WORDS)}
    words = [tuple(control.tokens) for _, controls in report.victims[0].triggers() for control in controls]
    assert len(set(words)) > len(words) // 2


def test_random_words_are_of_the_vocabulary_and_the_same_for_the_same_seed(toy):
    def drawn():
        report = attack(*toy, TEXTS, LABELS, TRIGGERS, vocabulary=["p q", "r s"], control_seeds=2, progress=False)
        return [control.tokens for _, controls in report.victims[0].triggers() for control in controls]

    assert {token for tokens in drawn() for token in tokens} <= set("pqrs")
    assert drawn() == drawn()


def test_the_best_are_chosen_on_the_selection_rows_alone(toy):
    chosen_on = ["a a a", "b good b", "c film", "man man"], [0, 1, 0, 1]
    report = attack(*toy, TEXTS, LABELS, TRIGGERS, None, selection=chosen_on, k=np.int64(2), progress=False)
    drops = [accuracy_score(chosen_on[1], plain_predictions(toy, each, chosen_on[0])) for each in TRIGGERS]
    best = sorted(range(3), key=lambda i: drops[i])[:2]
    choice = report.choice
    assert (choice.rows, choice.candidates, choice.best) == (4, 3, best)
    assert choice.accuracy == drops
    assert [outcome.trigger for outcome, _ in report.victims[0].triggers()] == [TRIGGERS[i] for i in best]
    first = attack(*toy, TEXTS, LABELS, TRIGGERS, None, selection=chosen_on, k=2, candidates=1, progress=False)
    assert first.choice.best == [0]
    by_class = attack(
        *toy, TEXTS, LABELS, TRIGGERS, None, selection=chosen_on, choose_by="LABEL_1", k=1, progress=False
    )
    rows = [text for text, label in zip(*chosen_on, strict=True) if label == 1]
    assert by_class.choice.accuracy == [
        accuracy_score([1] * len(rows), plain_predictions(toy, each, rows)) for each in TRIGGERS
    ]


def test_transfer_meets_the_same_triggers_by_the_names_of_the_labels(toy):
    names = ["LABEL_2", "LABEL_0", "LABEL_1"]
    other = wavering_bert(seed=11, id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})
    rows = ["good a", "bad b c"], [1, 0]
    report = attack(
        *toy,
        TEXTS,
        LABELS,
        TRIGGERS,
        control_seeds=1,
        transfer={"same rows": (other, toy[1]), "own rows": (*toy, *rows)},
        progress=False,
    )
    assert [victim.name for victim in report.victims] == ["model", "same rows", "own rows"]
    second = report.victims[1]
    assert [second.class_names[second.classes.index(gold)] for gold in second.gold] == [f"LABEL_{i}" for i in LABELS]
    assert second.clean == plain_predictions((other, toy[1]), None)
    assert len(report.victims[2].gold) == 2
    assert all(len(victim.outcomes) == 7 for victim in report.victims)
    for name in ("same rows", "own rows"):
        assert name in report.table()


def test_a_trigger_that_changes_nothing_is_reported_as_that(toy):
    nothing = Trigger((), (), (), 0.1, 0, 0, 0, 0, rules="reference")
    report = attack(*toy, TEXTS, LABELS, [nothing], progress=False)
    victim = report.victims[0]
    ((outcome, controls),) = victim.triggers()
    assert victim.verdict(outcome, controls) == "changes nothing"
    assert outcome.predictions == victim.clean
    assert "changes nothing" in report.table()


def test_reports_come_back_from_their_file(report, tmp_path):
    path = report.save(tmp_path / "report.json")
    assert AttackReport.load(path) == report
    content = json.loads(path.read_text())
    assert content["figures"][1]["all"]["accuracy"] == report.victims[0].measure(report.victims[0].outcomes[1]).accuracy


def test_an_interrupted_attack_is_resumed(toy, tmp_path, report):
    first = attack(*toy, TEXTS, LABELS, TRIGGERS, control_seeds=3, batch_size=3, resume=tmp_path, progress=False)
    assert first == report
    (file,) = tmp_path.iterdir()
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[: len(lines) // 2]))
    again = attack(*toy, TEXTS, LABELS, TRIGGERS, control_seeds=3, batch_size=3, resume=tmp_path, progress=False)
    assert again == report
    with pytest.raises(ValueError, match="belongs to another run"):
        attack(*toy, TEXTS, LABELS, TRIGGERS[:1], control_seeds=3, batch_size=3, resume=tmp_path, progress=False)


def test_long_rows_make_room_for_the_trigger(toy):
    model, tokenizer = toy
    long = " ".join(WORDS[:30])
    with pytest.raises(ValueError, match=r"texts\[0\] has 32 tokens and the model takes 24"):
        attack(*toy, [long], [0], TRIGGERS, progress=False)
    report = attack(*toy, [long, "a b"], [0, 1], TRIGGERS, control_seeds=1, truncate=True, progress=False)
    outcome = next(report.victims[0].triggers())[0]
    tokens = insert_trigger(TRIGGERS[0], long, tokenizer, 24).tokens
    assert len(tokens) == 24
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(list(tokens))])
    with torch.no_grad():
        assert outcome.predictions[0] == int(model(ids).logits.argmax())


def test_model_is_left_as_it_was(toy, unchanged):
    model, tokenizer = toy
    model.train()
    try:
        with unchanged(model):
            attack(model, tokenizer, TEXTS, LABELS, TRIGGERS, control_seeds=1, progress=False)
    finally:
        model.eval()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"triggers": []}, ValueError, "triggers is empty"),
        ({"triggers": TRIGGERS[0]}, TypeError, "must be a list of Trigger, not Trigger"),
        ({"triggers": ["good"]}, TypeError, r"triggers\[0\] must be a Trigger, not str: 'good'"),
        ({"triggers": [Trigger((), (), (), 1.0, 0, 0, 0, 0)]}, ValueError, r"triggers\[0\] holds no word"),
        ({"labels": LABELS[:3]}, ValueError, "3 labels for 8 examples"),
        ({"labels": [9] * 8}, ValueError, "label 9 of texts"),
        ({"control": "words"}, ValueError, "control='words' is unknown"),
        ({"k": 0}, ValueError, "k=0 must be"),
        ({"triggers": [SPECIAL]}, ValueError, "holds special tokens only"),
        ({"transfer": [1]}, TypeError, "transfer must be a dict of models by their names, not list"),
        ({"resume": 3}, TypeError, "resume must be a string or a path, not int"),
        ({"resume": __file__}, ValueError, "resume must be a folder, and"),
        ({"control_seeds": True}, ValueError, "control_seeds=True must be"),
        ({"candidates": 1.5}, ValueError, "candidates=1.5 must be"),
        ({"vocabulary": []}, ValueError, "vocabulary must be a list of texts"),
        ({"vocabulary": ["good bad"]}, ValueError, "vocabulary holds no token beside the trigger's"),
        ({"selection": (["x y", TEXTS[3]], [0, 1])}, ValueError, r"first selection\[0\]\[1\] = examples\[3\]"),
        ({"selection": ["x y"]}, TypeError, r"selection must be \(examples, labels\)"),
        ({"selection": (["x y"], [0]), "choose_by": "LABEL_1"}, ValueError, "choose_by='LABEL_1' must be 'all' or"),
        ({"transfer": {"other": 3}}, TypeError, r"transfer\['other'\] must be"),
        ({"examples": []}, ValueError, "examples is empty"),
    ],
)
def test_senseless_input(toy, changes, error, message):
    given = {"examples": TEXTS, "labels": LABELS, "triggers": TRIGGERS, "progress": False} | changes
    with pytest.raises(error, match=message):
        attack(*toy, given.pop("examples"), given.pop("labels"), given.pop("triggers"), **given)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b", "a"], "class of victim 'model' is called 'a', as another is: give it another name"),
        (["a", "all", "b"], "class of victim 'model' is called 'all', as all its rows are"),
    ],
)
def test_classes_that_a_report_could_not_tell_apart_are_refused_at_once(names, message, monkeypatch):
    model = wavering_bert(id2label=dict(enumerate(names)), label2id={})
    monkeypatch.setattr(model, "forward", never)
    with pytest.raises(ValueError, match=message):
        attack(model, tiny_tokenizer(), TEXTS, LABELS, TRIGGERS, progress=False)


def test_two_models_of_one_name_and_scores_are_refused(toy):
    with pytest.raises(ValueError, match="two models are called 'model'"):
        attack(*toy, TEXTS, LABELS, TRIGGERS, transfer={"model": toy}, progress=False)
    with pytest.raises(TypeError, match="name must be a string, not int: 3"):
        attack(*toy, TEXTS, LABELS, TRIGGERS, name=3, progress=False)
    with pytest.raises(TypeError, match="a name in transfer must be a string, not int: 3"):
        attack(*toy, TEXTS, LABELS, TRIGGERS, transfer={3: toy}, progress=False)
    with pytest.raises(ValueError, match="the model gives a score"):
        attack(tiny_bert(num_labels=1), toy[1], ["a"], [0.5], TRIGGERS, progress=False)


class Own(torch.nn.Module):
    """A module of one's own around a classifier, which no class tells what it does."""

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        return self.inner(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits


def test_a_task_is_said_for_a_model_of_one_s_own(toy):
    model, tokenizer = toy
    selection = (["film a b", "c d"], [0, 1])
    given = {"selection": selection, "k": 1, "control_seeds": 1, "progress": False}
    expected = attack(model, tokenizer, TEXTS, LABELS, TRIGGERS, transfer={"other": toy}, **given)
    own = (Own(model).eval(), tokenizer)
    found = attack(*own, TEXTS, LABELS, TRIGGERS, transfer={"other": own}, task="classification", **given)
    for one, two in zip(found.victims, expected.victims, strict=True):
        assert [o.predictions for o in one.outcomes] == [o.predictions for o in two.outcomes]
    with pytest.raises(ValueError, match="next_token"):
        attack(*own, TEXTS, LABELS, TRIGGERS, task="next_token", **given)


def test_an_encoder_decoder_is_attacked_too():
    tokenizer = tiny_tokenizer(model_max_length=20)
    texts = ["a b c", "good film"]
    report = attack(tiny_bart(), tokenizer, texts, [0, 1], TRIGGERS[:1], control_seeds=1, progress=False)
    assert len(report.victims[0].outcomes) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"vocabulary": ["good"], "triggers": [TRIGGERS[0]]},
        {"truncate": 4},
        {"transfer": {"other": (wavering_bert(num_labels=2), tiny_tokenizer(model_max_length=24))}},
        {"triggers": [Trigger(("xyzzy",), (0.0,), (0,), 0.5, 0, 1, 3, 1)]},
    ],
)
def test_what_is_wrong_is_said_before_the_first_row_is_read(toy, tmp_path, changes, monkeypatch):
    monkeypatch.setattr(toy[0], "forward", never)
    given = {"triggers": TRIGGERS, "selection": (["x y"], [0]), "resume": tmp_path / "run"} | changes
    with pytest.raises(ValueError, match=r"no token beside|no room|transfer\['other'\]: label 'LABEL_2'|no token for"):
        attack(*toy, TEXTS, LABELS, given.pop("triggers"), progress=False, **given)
    assert not (tmp_path / "run").exists()


def test_models_of_any_name_can_be_resumed(toy, tmp_path):
    given = {"selection": (["x y"], [0]), "control_seeds": 1, "resume": tmp_path / "run", "progress": False}
    first = attack(*toy, TEXTS, LABELS, TRIGGERS, name="selection", transfer={"../a/b": toy}, **given)
    assert attack(*toy, TEXTS, LABELS, TRIGGERS, name="selection", transfer={"../a/b": toy}, **given) == first
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_single_row_makes_a_file_that_every_reader_of_json_takes(toy, tmp_path):
    report = attack(*toy, TEXTS[:1], LABELS[:1], TRIGGERS, control_seeds=1, progress=False)
    path = report.save(tmp_path / "report.json")
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content["figures"][0]["all"]["drop_error"] is None
    assert AttackReport.load(path) == report


def test_table_says_what_its_words_mean(toy, report):
    assert "of 3 draws" in report.table()
    assert "by chance 1 time in 4" in report.table()
    assert "stronger" not in attack(*toy, TEXTS, LABELS, TRIGGERS, None, progress=False).table()
