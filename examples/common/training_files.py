"""The files that the published code's fine-tuning leaves, beside those of the Trainer."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import EvalPrediction, TrainerCallback

from captum_attattr.files import replacing
from captum_attattr.heads.metrics import score
from common.training_data import TaskData


class PublishedFiles(TrainerCallback):
    """Measures, and after every epoch writes what the published script writes.

    ``opt.json``, the flags; ``model.{epoch}.bin``, a state dict; ``dev.{epoch}.pred``, a prediction on every line;
    ``dev.txt``, a JSON list of the epochs' results. "dev" is what is evaluated; of MNLI "dev_matched". Of an
    evaluation without training the epoch is 0.
    """

    def __init__(self, args: argparse.Namespace, data: TaskData, order: Sequence[int]) -> None:
        """What the files say.

        Args:
            args: the flags of the script.
            data: the task's examples, labels and metric.
            order: which output of the model each class of the task is.
        """
        self.args, self.data = args, data
        self.written = [data.written[order.index(output)] for output in range(len(data.written))]
        self.folder = Path(args.output_dir)
        self.predictions: Any = None
        self.ended = False

    def measure(self, prediction: EvalPrediction) -> dict[str, float]:
        """The task's metric; the predictions are kept for their file."""
        self.predictions = prediction.predictions
        return {self.data.metric: score(self.data.metric, prediction.predictions, prediction.label_ids)}

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Write the flags."""
        if state.is_world_process_zero:
            self._write("opt.json", json.dumps(vars(self.args), sort_keys=True, indent=2))

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        """Write the weights."""
        if not state.is_world_process_zero:
            return
        with replacing(self.folder / f"model.{_epoch(state.epoch)}.bin") as file:
            torch.save(_plain_weights(model), file)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """What is evaluated from now on is no epoch of its own."""
        self.ended = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Write the predictions, and the results so far."""
        if self.ended or not state.is_world_process_zero:
            return
        data, values = self.data, self.predictions
        lines = [self.written[row.argmax()] for row in values] if self.written else values.reshape(-1).tolist()
        self._write(f"{data.segment}.{_epoch(state.epoch)}.pred", "\n".join(map(str, lines)))
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
            for entry in state.log_history  # those before a run was gone on with among them
            if "eval_loss" in entry
        ]
        self._write(f"{data.segment}.txt", json.dumps(results, sort_keys=True, indent=2))

    def best_epoch(self, state: Any) -> float:
        """The epoch that --keep_best keeps: the first of those with the highest metric."""
        key = f"eval_{self.data.metric}"
        entries = [entry for entry in state.log_history if key in entry][:-1]  # the last is of the kept weights
        return float(max(entries, key=lambda entry: float(entry[key]))["epoch"])

    def _write(self, name: str, text: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / name) as file:
            file.write_text(text + "\n", encoding="utf-8")


def _plain_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model, low-rank updates merged."""
    weights = model.state_dict()
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            for key in [key for key in weights if key.startswith(f"{name}.parametrizations.")]:
                del weights[key]
            weights[f"{name}.weight"] = module.weight.detach()
    return {name: value.cpu() for name, value in weights.items()}


def _epoch(passed: float | None) -> int:
    """The number of an epoch that may have been cut short."""
    return math.ceil((passed or 0) - 1e-6)
