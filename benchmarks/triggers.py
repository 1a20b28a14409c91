"""Triggers on real data: how fast they are found and measured, and what they do beside random words.

They are found by attributions of training rows, chosen on other training rows, and measured on the evaluation rows.
The published protocol for the comparison: one example at a time, padded to 128, 64 left steps in 4 batches (see
protocol.py).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from protocol import Protocol
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from captum_attattr import (
    attack,
    compose_triggers,
    explain,
    find_patterns,
    insert_trigger,
    plot_attack,
    triggers_of,
    write_html,
)
from captum_attattr.tasks import task


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def extraction(model: Any, tokenizer: Any, texts: list[Any], protocol_rows: int, repeats: int) -> None:
    """Print rows per second, both ways in turn, and the error of some rows' maps."""
    protocol = Protocol(model, tokenizer)
    few = texts[:: len(texts) // protocol_rows][:protocol_rows]
    with torch.no_grad():
        targets = [int(protocol.logits(text).argmax()) for text in few]
    ratios, speeds = [], []
    for _ in range(repeats):
        theirs, _ = timed(lambda: [protocol.maps(t, c, 64, 16) for t, c in zip(few, targets, strict=True)])
        ours, _ = timed(lambda: find_patterns(model, tokenizer, texts, truncate=128, progress=False))
        speeds.append((len(few) / theirs, len(texts) / ours))
        ratios.append(speeds[-1][1] / speeds[-1][0])
    protocol_speed, speed = (statistics.median(column) for column in zip(*speeds, strict=True))
    print(f"protocol {protocol_speed:.3f} rows/s, find_patterns {speed:.2f} rows/s: ", end="")
    print(f"{statistics.median(ratios):.1f} times faster ({len(texts)} rows)")
    exact = explain(model, tokenizer, few, targets, n_steps=96, progress=False)
    for name, rule in (("64 left", {"method": "riemann_left", "n_steps": 64}), ("default", {})):
        explanations = explain(model, tokenizer, few, targets, progress=False, **rule)
        errors = [
            float((a - b).norm() / b.norm())
            for one, truth in zip(explanations, exact, strict=True)
            for a, b in zip(one.attributions, truth.attributions, strict=True)
        ]
        print(f"error of a layer's map, {name}: median {statistics.median(errors):.0e}, worst {max(errors):.0e}")


def evaluation(model: Any, tokenizer: Any, texts: list[Any], labels: list[Any], triggers: list[Any]) -> None:
    """Time the attack beside a plain loop that tokenizes, pads and runs the same texts in the same batches."""
    order = sorted(range(len(texts)), key=lambda i: -len(tokenizer(*_parts(texts[i]))["input_ids"]))
    ready = [[insert_trigger(t, texts[i], tokenizer, 128).text for i in order] for t in triggers]
    ready.insert(0, [texts[i] for i in order])

    def plain() -> int:
        right = 0
        for condition in ready:
            for start in range(0, len(order), 32):
                batch = [list(_parts(text)) for text in condition[start : start + 32]]
                columns = [list(column) for column in zip(*batch, strict=True)]
                inputs = tokenizer(*columns, padding=True, truncation=True, max_length=128, return_tensors="pt")
                gold = torch.tensor([labels[i] for i in order[start : start + 32]])
                with torch.no_grad():
                    right += int((model(**inputs).logits.argmax(-1) == gold).sum())
        return right

    def ours() -> Any:
        return attack(model, tokenizer, texts, labels, triggers, None, truncate=128, progress=False)

    ratios = []
    for _ in range(5):
        theirs, _ = timed(plain)
        mine, _ = timed(ours)
        ratios.append(mine / theirs)
    median = statistics.median(ratios)
    print(f"attack takes {median:.2f} times the plain loop ({len(texts)} rows, {len(ready)} conditions)")


def _parts(text: Any) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a fine-tuned BERT classifier")
    parser.add_argument("--task", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--evaluation_split", default="dev")
    parser.add_argument("--evaluation_rows", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=500, help="training rows that triggers come from")
    parser.add_argument("--selection_rows", type=int, default=300, help="training rows after them, for the choice")
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--protocol_rows", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--no_speed", action="store_true", help="only the table")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, trust_remote_code=False).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
    data = task(args.task)
    train = data.read(args.data_dir, "train")
    evaluation_rows = data.read(args.data_dir, args.evaluation_split)[: args.evaluation_rows]
    measured = {row.text for row in evaluation_rows}
    source = train[: args.rows]
    others = [row for row in train[args.rows :] if row.text not in measured][: args.selection_rows]
    (texts, labels), (rows, gold), selection = (
        ([row.text for row in part], [int(row.label) for row in part]) for part in (source, evaluation_rows, others)
    )
    patterns = find_patterns(model, tokenizer, texts, labels, truncate=128, resume=args.output / "patterns.jsonl")
    triggers = triggers_of(patterns)
    composed = compose_triggers(triggers)
    report = attack(
        model,
        tokenizer,
        rows,
        gold,
        [*composed, *triggers],
        selection=selection,
        candidates=args.candidates,
        vocabulary=texts,
        truncate=128,
        name=data.name,
        resume=args.output / "attack",
    )
    report.save(args.output / "attack.json")
    write_html(plot_attack(report), args.output / "attack.html")
    print(f"{len(triggers)} triggers from {len(source)} training rows, and {len(composed)} composed\n")
    print(report.table(), "\n")
    if not args.no_speed:
        extraction(model, tokenizer, texts, args.protocol_rows, args.repeats)
        evaluation(model, tokenizer, rows, gold, triggers[:3])


if __name__ == "__main__":
    main()
