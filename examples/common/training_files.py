"""The files that the published code's fine-tuning leaves, beside those of the Trainer."""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import EvalPrediction, TrainerCallback

from captum_attattr.heads.metrics import score  # so that a model is measured here as it is when it is pruned
from common.atomic_files import write_bytes, write_json, write_text
from common.training_data import TaskData


class PublishedFiles(TrainerCallback):
    """Measure, and after every epoch write what the published script writes.

    ``opt.json``, the flags; ``model.{epoch}.bin``, a state dict; ``dev.{epoch}.pred``, a prediction on every line;
    ``dev.txt``, a JSON list of the epochs' results. "dev" is the evaluated split; for MNLI it is
    "dev_matched". An evaluation without training has the epoch 0.
    """

    def __init__(self, args: argparse.Namespace, data: TaskData, order: Sequence[int]) -> None:
        """Take what the files hold.

        Args:
            args: the flags of the script.
            data: the task's examples, labels and metric.
            order: the index of the model's output for each class of the task.
        """
        self.args, self.data = args, data
        self.written = [data.written[order.index(output)] for output in range(len(data.written))]
        self.folder = Path(args.output_dir)
        self.predictions: Any = None
        self.ended = False

    def measure(self, prediction: EvalPrediction) -> dict[str, float]:
        """Return the task's metric, and keep the predictions for their file."""
        self.predictions = prediction.predictions
        return {self.data.metric: score(self.data.metric, prediction.predictions, prediction.label_ids)}

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Write the flags."""
        if state.is_world_process_zero:
            write_json(self.folder / "opt.json", vars(self.args))

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        """Write the weights."""
        if state.is_world_process_zero:
            content = io.BytesIO()  # since torch.save does not say why it could not write to a file
            torch.save(_plain_weights(model), content)
            write_bytes(self.folder / f"model.{_epoch(state.epoch)}.bin", content.getbuffer())

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Note that further evaluations belong to no epoch."""
        self.ended = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Write the predictions, and the results so far."""
        if self.ended or not state.is_world_process_zero:
            return
        data, values = self.data, self.predictions
        lines = [self.written[row.argmax()] for row in values] if self.written else values.reshape(-1).tolist()
        write_text(self.folder / f"{data.segment}.{_epoch(state.epoch)}.pred", "\n".join(map(str, lines)) + "\n")
        results = [
            {
                "epoch": (epoch := _epoch(entry.get("epoch"))),
                "eval_loss": entry["eval_loss"],
                "eval_result": entry[f"eval_{data.metric}"],
                "eval_segment": data.segment,
                "model": str(self.folder / f"model.{epoch}.bin") if epoch else self.args.bert_model,
                "model_recover_path": self.args.model_recover_path,
                "task_name": self.args.task_name,
            }
            for entry in state.log_history  # which holds the epochs before a training was resumed too
            if "eval_loss" in entry
        ]
        write_json(self.folder / f"{data.segment}.txt", results)

    def best_epoch(self, state: Any) -> float:
        """Return the epoch that --keep_best keeps: the first with the highest metric."""
        key = f"eval_{self.data.metric}"
        entries = [entry for entry in state.log_history if key in entry][:-1]  # the last is of the kept weights
        return float(max(entries, key=lambda entry: float(entry[key]))["epoch"])


def _plain_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a model, low-rank updates merged."""
    weights = model.state_dict()
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            for key in [key for key in weights if key.startswith(f"{name}.parametrizations.")]:
                del weights[key]
            weights[f"{name}.weight"] = module.weight.detach()
    return {name: value.cpu() for name, value in weights.items()}


def _epoch(passed: float | None) -> int:
    """Return how many epochs were begun: the last one may have been cut short."""
    return math.ceil((passed or 0) - 1e-6)
