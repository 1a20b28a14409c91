"""A pruned model exported to ONNX gives the same logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy import sentences, tiny_bert

from captum_attattr import prune_heads

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


class Logits(nn.Module):
    """A model of one input and one output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> Any:
        return self.model(input_ids=ids).logits


@pytest.mark.filterwarnings("ignore")  # of the exporter's own
def test_exported_model_gives_the_same_logits(tmp_path: Path) -> None:
    model = tiny_bert()
    prune_heads(model, {0: [1, 2], 1: [0, 1, 2, 3]})
    path = tmp_path / "pruned.onnx"
    torch.onnx.export(Logits(model).eval(), (sentences(),), str(path), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: sentences().numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(sentences()).logits, rtol=1e-4, atol=1e-5)
