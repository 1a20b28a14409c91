"""Head importance by one process and by two (`torchrun`, gloo), one thread each: the same scores, and how much faster.

Without --worker this script runs itself, once alone and once under torchrun, in turn, and prints the ratio of the
times that the scoring itself took (loading the model is not counted).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed


def worker(args: argparse.Namespace) -> None:
    """Score the heads, and write seconds and scores from the first process."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from captum_attattr import head_importance
    from captum_attattr.tasks import task

    torch.set_num_threads(1)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        torch.distributed.init_process_group("gloo")
    model = AutoModelForSequenceClassification.from_pretrained(args.model, trust_remote_code=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
    rows = task(args.task).read(args.data_dir, "dev")[: args.rows]
    data = [row.text for row in rows], [row.label for row in rows]
    head_importance(model, tokenizer, data[0][:8], data[1][:8], progress=False)  # warm
    if several:
        torch.distributed.barrier()
    begin = time.perf_counter()
    importance = head_importance(model, tokenizer, *data, progress=False)
    seconds = time.perf_counter() - begin
    if int(os.environ.get("RANK", "0")) == 0:
        Path(args.worker).write_text(json.dumps({"seconds": seconds, "scores": importance.scores.tolist()}))


def run(processes: int, argv: list[str]) -> dict[str, Any]:
    """Return seconds and scores of a run by so many processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        launcher = [sys.executable, *(torchrun if processes > 1 else []), __file__]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*launcher, *argv, "--worker", str(result)], check=True, env=environment)
        return dict(json.loads(result.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a fine-tuned classifier")
    parser.add_argument("--task", default="sst-2")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args)
        return
    ratios, gaps = [], []
    for _ in range(args.repeats):
        one, two = run(1, sys.argv[1:]), run(2, sys.argv[1:])
        ratios.append(one["seconds"] / two["seconds"])
        scores = torch.tensor(one["scores"]), torch.tensor(two["scores"])
        gaps.append(float((scores[0] - scores[1]).abs().max()))
        print(f"one {one['seconds']:.2f} s, two {two['seconds']:.2f} s, {ratios[-1]:.2f} times", flush=True)
    print(f"two processes are {statistics.median(ratios):.2f} times as fast; largest difference {max(gaps):.1e}")


if __name__ == "__main__":
    main()
