"""Writes the tokens and the model's predictions of a task's dev rows, for attribution_tree.py and for oneself.

The file is tokens_and_pred_{N}.json, a list of {index, tokens, pred, golden, pred_logits}; labels are those of the
task's files, logits in the order of the published code. N is the number of rows.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from common.command_line import check_flags, flag_parser, load_model, process, run_script, writable, write_json
from tqdm.auto import tqdm

from captum_attattr.explanations.encoding import TextModel
from captum_attattr.tables import Example
from captum_attattr.tasks import Task, task

BATCH_SIZE = 64


def main(args: argparse.Namespace) -> None:
    """Read, predict, write.

    Args:
        args: the flags.
    """
    what = task(args.task_name)
    rows = what.read(args.data_dir, "dev")[: args.num_examples]
    if process()[0]:  # one process is enough
        return
    folder = writable(args.output_dir)
    model, tokenizer = load_model(args, what)
    entries = predict(TextModel(model, tokenizer, args.max_seq_length), what, rows, not args.quiet)
    path = folder / f"tokens_and_pred_{len(entries)}.json"
    write_json(path, entries, sort_keys=False)
    right = "" if what.regression else f", {sum(e['pred'] == e['golden'] for e in entries)} predicted right"
    print(f"{len(entries)} rows{right}: {path}")


def predict(texts: TextModel, what: Task, rows: list[Example], progress: bool) -> list[dict[str, Any]]:
    """The entries of the file.

    Args:
        texts: model and tokenizer.
        what: the task.
        rows: its rows.
        progress: show a bar.

    Returns:
        An entry for each row, in order.
    """
    items = texts.encode_all([row.text for row in rows])
    # The model may have the task's classes in another order.
    own = [texts.config.label2id[name] for name in what.label_names] or [0]
    names: Any = what.labels
    entries: dict[int, dict[str, Any]] = {}
    with tqdm(total=len(items), desc="predict", unit="row", delay=2, disable=not progress) as bar:
        for batch in texts.batches(items, BATCH_SIZE):
            with torch.no_grad():
                logits = texts.logits(texts.inputs([items[i] for i in batch])).cpu()[:, own]
            for i, row in zip(batch, logits, strict=True):
                label = rows[i].label
                entries[i] = {
                    "index": i,
                    "tokens": texts.tokenizer.convert_ids_to_tokens(items[i].encoding["input_ids"][0].tolist()),
                    "pred": float(row[0]) if what.regression else names[int(row.argmax())],
                    "golden": label if what.regression else names[label],
                    "pred_logits": [row.tolist()],
                }
            bar.update(len(batch))
    return [entries[i] for i in range(len(rows))]


if __name__ == "__main__":
    parser = flag_parser(__doc__)
    parser.add_argument("--num_examples", type=int, default=100, help="how many dev rows, from the first on")
    given = parser.parse_args()
    check_flags(parser, given, "num_examples")
    run_script(lambda: main(given))
