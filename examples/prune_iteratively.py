"""Prunes attention heads in rounds (rank, remove some, train a little, again), and at once with as much training.

A round ranks the heads that are left on training rows, removes a share of all heads and trains on the next rows, with
transformers' Trainer, to which a pruned model is like any other. For every round there is also a model that lost as
many heads at once, by the first ranking, and was then trained on the rows of all rounds so far; and one that lost none.
Time is that of a forward on dev rows, divided by the unpruned model's, which runs in turn.
"""

import argparse
import copy
import sys
from typing import Any

from common.atomic_files import write_json
from common.command_line import load_model, run_script, writable
from common.pruning_rounds import read_flags, read_rows, training_arguments
from transformers import PrinterCallback, Trainer

from captum_attattr import attention_layers, head_importance, prune_heads, save_pruned, tasks
from captum_attattr.heads.labelled_examples import LabelledExamples  # batches for latency and accuracy
from captum_attattr.heads.latency import parameters_and_latency  # as pruning_curve measures it, of one model
from captum_attattr.heads.metrics import score  # the task's metric by its name
from captum_attattr.model.projections import head_count  # of a pruned layer


def main(args: argparse.Namespace) -> None:
    """Prune both ways, write the figures and the model of the rounds, print the table."""
    task, folder = tasks.task(args.task_name), writable(args.output_dir)
    whole, tokenizer = load_model(args, task)
    total = sum(head_count(layer) for layer in attention_layers(whole))
    if round(total * args.share) < 1:
        raise ValueError(f"--share {args.share} of {total} heads is none; it must be at least {1 / total:.3f}")
    data = read_rows(args, task, whole, tokenizer)

    def fit(model: Any, rows: list[Any]) -> float:
        """Train a model, pruned or not, on each row once; return the metric on the dev rows."""
        trainer = Trainer(  # a new one after each pruning: its optimizer must know the new parameters
            model,
            training_arguments(args),
            train_dataset=rows or None,
            eval_dataset=data.dev,
            processing_class=tokenizer,
            compute_metrics=lambda found: {task.metric: score(task.metric, found.predictions, found.label_ids)},
        )
        trainer.remove_callback(PrinterCallback)  # which --quiet would bring in
        if rows:
            trainer.train()
        return float(trainer.evaluate()[f"eval_{task.metric}"])

    def ranking(model: Any) -> list[tuple[int, int]]:
        """Return the heads that a model still has, the least important first."""
        options: dict[str, Any] = {"truncate": args.max_seq_length, "progress": not args.quiet}
        return head_importance(model, tokenizer, *data.ranking, args.method, **options).ranking()

    first = ranking(whole)
    in_rounds, unpruned = copy.deepcopy(whole), copy.deepcopy(whole)
    metric = [[fit(whole, [])] * 3]
    off: dict[str, list[list[tuple[int, int]]]] = {"in rounds": [[]], "at once": [[]]}
    for number in range(1, args.rounds + 1):
        gone, count = off["in rounds"][-1], round(len(first) * args.share * number)
        off["in rounds"].append(gone + ranking(in_rounds)[: count - len(gone)])
        off["at once"].append(first[:count])
        prune_heads(in_rounds, off["in rounds"][-1])  # heads that are gone already are passed over
        prune_heads(at_once := copy.deepcopy(whole), first[:count])
        seen = data.train[: len(data.train) * number // args.rounds]
        new = seen[len(data.train) * (number - 1) // args.rounds :]
        metric.append([fit(in_rounds, new), fit(at_once, seen), fit(unpruned, new)])
    save_pruned(in_rounds, folder / "model")
    tokenizer.save_pretrained(folder / "model")
    timed = LabelledExamples.of(whole, tokenizer, *data.timed, args.eval_batch_size, args.max_seq_length)
    time = {name: parameters_and_latency(timed, heads, not args.quiet)[1] for name, heads in off.items()}
    write_json(folder / "prune_iteratively.json", {"heads off": off, "metric": metric, "time": time})

    print(f"{len(first)} heads | steps | {task.metric}: in rounds | at once | none off | time: in rounds | at once")
    for number, (heads, values) in enumerate(zip(off["in rounds"], metric, strict=True)):
        figures = [f"{value:.3f}" for value in values] + [f"{ratio[number]:.2f}" for ratio in time.values()]
        print(" | ".join([f"{len(heads)} off", f"{number * args.steps}", *figures]))


if __name__ == "__main__":
    run_script(lambda: main(read_flags(sys.argv[1:], __doc__)))
