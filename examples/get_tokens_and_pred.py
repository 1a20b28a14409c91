"""Writes the tokens and the model's predictions of a task's dev rows; attribution_tree.py reads them.

The file is tokens_and_pred_{N}.json, a list of {index, tokens, pred, golden, pred_logits}; labels are those of the
task's files, logits in the order of the published code. N is the number of rows.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from common.atomic_files import write_json
from common.command_line import check_flags, flag_parser, load_model, rank_and_world_size, run_script, writable
from tqdm.auto import tqdm

from captum_attattr import tasks
from captum_attattr.explanations.text_model import TextModel  # so that the tokens are those that are explained
from captum_attattr.tables import Example
from captum_attattr.tasks import Task

BATCH_SIZE = 64


def main(args: argparse.Namespace) -> None:
    """Read the rows, predict, write.

    Args:
        args: the flags.
    """
    task = tasks.task(args.task_name)
    rows = task.read(args.data_dir, "dev")[: args.num_examples]
    if rank_and_world_size()[0]:  # one process is enough
        return
    folder = writable(args.output_dir)
    model, tokenizer = load_model(args, task)
    entries = predict(TextModel(model, tokenizer, args.max_seq_length), task, rows, not args.quiet)
    path = folder / f"tokens_and_pred_{len(entries)}.json"
    write_json(path, entries, sort_keys=False)
    right = "" if task.regression else f", {sum(e['pred'] == e['golden'] for e in entries)} predicted right"
    print(f"{len(entries)} rows{right}: {path}")


def predict(texts: TextModel, task: Task, rows: list[Example], progress: bool) -> list[dict[str, Any]]:
    """Return the entries of the file.

    Args:
        texts: model and tokenizer.
        task: the task.
        rows: its rows.
        progress: show a bar.

    Returns:
        An entry for each row, in order.
    """
    items = texts.encode_all([row.text for row in rows])
    # The model may have the task's classes in another order.
    outputs = [texts.config.label2id[name] for name in task.label_names] or [0]
    entries: dict[int, dict[str, Any]] = {}
    with tqdm(total=len(items), desc="predict", unit="row", delay=2, disable=not progress) as bar:
        for batch in texts.batches(items, BATCH_SIZE):
            with torch.no_grad():
                logits = texts.logits(texts.inputs([items[i] for i in batch])).cpu()[:, outputs]
            for i, scores in zip(batch, logits, strict=True):
                gold = rows[i].label
                entries[i] = {
                    "index": i,
                    "tokens": texts.tokenizer.convert_ids_to_tokens(items[i].encoding["input_ids"][0].tolist()),
                    "pred": float(scores[0]) if task.regression else task.labels[int(scores.argmax())],
                    "golden": gold if task.regression else task.labels[int(gold)],
                    "pred_logits": [scores.tolist()],
                }
            bar.update(len(batch))
    return [entries[i] for i in range(len(rows))]


if __name__ == "__main__":
    parser = flag_parser(__doc__)
    parser.add_argument("--num_examples", type=int, default=100, help="how many dev rows, from the first on")
    given = parser.parse_args()
    check_flags(parser, given, "num_examples")
    run_script(lambda: main(given), given)
