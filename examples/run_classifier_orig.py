"""Fine-tunes and evaluates a sequence classifier, with the flags of the published AttAttr code.

The weights after the last epoch are kept, not the best on the held-out examples (that is --keep_best): choosing by
them flatters the figure measured on them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from common.atomic_files import staged, write_json
from common.classifier import output_names
from common.command_line import run_script, writable
from common.low_rank import merge_low_rank
from common.trainable_classifier import load_model, training_header
from common.trained_weights import round_to_half, save_trained, trained_tensors
from common.training_data import encode, read_task_data
from common.training_files import PublishedFiles
from common.training_flags import checkpoints, read_flags
from transformers import Trainer, TrainingArguments


def main(argv: Sequence[str]) -> dict[str, float]:
    """Train and evaluate as the flags say.

    Args:
        argv: the flags.

    Returns:
        The figures of the final evaluation; none without ``--do_eval``.
    """
    args = read_flags(argv)
    data = read_task_data(args)
    try:
        model, tokenizer = load_model(args, data.labels)
    except OSError as error:
        raise OSError(f"--bert_model {args.bert_model!r} cannot be loaded: {error}") from error
    if args.export:
        writable(Path(args.export).parent, f"--export {args.export!r}")
    writable(args.output_dir, f"--output_dir {args.output_dir!r}")
    outputs = output_names(model.config)
    order = [outputs.index(label) for label in data.labels] if data.written else []
    files = PublishedFiles(args, data, order)
    trainer = Trainer(
        model,
        training_arguments(args, data.metric),
        train_dataset=encode(data.train, tokenizer, args.max_seq_length, order) or None,
        eval_dataset=encode(data.held_out, tokenizer, args.max_seq_length, order) or None,
        processing_class=tokenizer,
        compute_metrics=files.measure,
        callbacks=[files],
    )
    if args.do_train:
        left = checkpoints(args.output_dir)  # none without --resume
        trainer.train(resume_from_checkpoint=str(left[-1]) if left else None)
        if args.export:
            round_to_half(model)
        trained = trained_tensors(model)
        merge_low_rank(model)
        if trainer.is_world_process_zero():
            with staged(args.output_dir) as folder:
                model.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
    metrics = trainer.evaluate() if args.do_eval else {}
    if args.keep_best:
        metrics["epoch"] = files.best_epoch(trainer.state)
    if args.do_eval and trainer.is_world_process_zero():
        measured = {name: value for name, value in metrics.items() if not name.endswith(("_runtime", "_per_second"))}
        write_json(Path(args.output_dir) / "eval_results.json", measured, sort_keys=False)
        epoch = f", weights of epoch {metrics['epoch']:g}" if args.do_train else ""
        print(f"{data.metric} {metrics[f'eval_{data.metric}']:.4f} on {len(data.held_out)} rows{epoch}")
    if args.export and trainer.is_world_process_zero():
        save_trained(trained, args.export, training_header(args, argv, data, metrics))
    return metrics


def training_arguments(args: argparse.Namespace, metric: str) -> TrainingArguments:
    """Return the Trainer's settings for the flags, and for the task's metric if it chooses the best epoch."""
    use_cpu = args.no_cuda or not torch.cuda.is_available()
    by_length: dict[str, Any] = {"train_sampling_strategy": "group_by_length" if args.group_by_length else "random"}
    if not hasattr(TrainingArguments, "train_sampling_strategy"):  # transformers 5.0 has an older name for it
        by_length = {"group_by_length": args.group_by_length}
    return TrainingArguments(
        output_dir=args.output_dir,
        per_device_train_batch_size=args.train_batch_size // args.gradient_accumulation_steps,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        per_device_eval_batch_size=args.eval_batch_size,
        learning_rate=args.learning_rate,
        num_train_epochs=args.num_train_epochs,
        warmup_steps=args.warmup_proportion,
        seed=args.seed,
        use_cpu=use_cpu,
        fp16=args.fp16,
        bf16=args.bf16,
        dataloader_pin_memory=not use_cpu,
        eval_strategy="epoch" if args.do_eval else "no",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=args.keep_best,
        metric_for_best_model=metric if args.keep_best else None,
        greater_is_better=True if args.keep_best else None,
        logging_steps=50,
        **by_length,
    )


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
