"""Made the files beside it, with version 0.1 of the package: run in a checkout of that version as

PYTHONPATH=.:tests python make.py FOLDER
"""

import sys
from pathlib import Path

from captum_attattr.dataset_run import DatasetRun
from toy import tiny_bert, tiny_tokenizer

import captum_attattr
from captum_attattr import (
    attack,
    attribution_tree,
    compare_pruning,
    effectiveness_analysis,
    explain,
    explain_dataset,
    extract_triggers,
    head_importance,
    save_tree,
    save_triggers,
)

TEXTS = ["a b c", "good film", ("bad plot", "man"), "work a d e"]
LABELS = [0, 1, 2, 1]

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    model, tokenizer = tiny_bert(), tiny_tokenizer()
    quiet = {"progress": False}
    explanations = explain(model, tokenizer, TEXTS, n_steps=4, **quiet)
    explanations[0].save(folder / "explanation.safetensors")
    explanations[2].save(folder / "pair.safetensors")
    journal = folder / "importance.jsonl"
    importance = head_importance(model, tokenizer, TEXTS, LABELS, batch_size=2, n_steps=4, resume=journal, **quiet)
    importance.save(folder / "importance.safetensors")
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))
    random = head_importance(model, tokenizer, TEXTS, LABELS, "random", seed=1, **quiet)
    random.save(folder / "random.safetensors")
    comparison = compare_pruning(
        model, tokenizer, TEXTS, LABELS, [importance], steps=3, random_seeds=1, structural=False, **quiet
    ).save(folder / "comparison.json")
    effectiveness_analysis(model, tokenizer, TEXTS, LABELS, n_steps=4, **quiet).save(folder / "effectiveness.json")
    tree = attribution_tree(explanations[3], 0.01)
    save_tree(tree, folder / "tree.json")
    save_tree(tree, folder / "tree.graphml")
    triggers = extract_triggers(explanations, min_score=0.0)
    save_triggers(triggers, folder / "triggers.json")
    report = attack(model, tokenizer, TEXTS, LABELS, triggers[:1], vocabulary=["a", "b", "c"], **quiet).save(
        folder / "attack.json"
    )
    options = {"batch_size": 1, "n_steps": 4, "shard_bytes": 5000, **quiet}
    explain_dataset(model, tokenizer, TEXTS, folder / "archive", **options)
    done, explained = [], DatasetRun._explain

    def stops(self, items):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(items)
        return explained(self, items)

    DatasetRun._explain = stops
    try:
        explain_dataset(model, tokenizer, TEXTS, folder / "unfinished", **options)
    except KeyboardInterrupt:
        print(captum_attattr.__file__)
