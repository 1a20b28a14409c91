"""A data set explained to disk: killed and resumed, on two processes, its peak memory, and one example read.

Each run has a separate process, so that its memory and start-up can be measured.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from captum_attattr import Archive, explain_dataset
from captum_attattr.tasks import task


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a fine-tuned classifier")
    parser.add_argument("--task", default="sst-2")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--n_steps", type=int, help="nodes of a fixed rule; the adaptive one by default")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of every process")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--output", type=Path, required=True, help="an empty folder")
    parser.add_argument("--work", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--of", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def work(args: argparse.Namespace) -> None:
    """Explain the data set in this process, and print the seconds."""
    torch.set_num_threads(args.threads)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.distributed.init_process_group("gloo")
    model = AutoModelForSequenceClassification.from_pretrained(args.model, trust_remote_code=False)
    texts = [row.text for row in task(args.task).read(args.data_dir, args.split)[: args.of]]
    texts = sorted(texts, key=lambda text: -len(str(text)))[: args.rows]  # every run has the largest batches
    begin = time.perf_counter()
    explain_dataset(
        model,
        AutoTokenizer.from_pretrained(args.model, trust_remote_code=False),
        texts,
        args.work,
        n_steps=args.n_steps,
    )
    sys.stdout.write(f"{time.perf_counter() - begin}\n")  # in one piece, beside other processes


def start(args: argparse.Namespace, folder: Path, rows: int, processes: int = 1) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), __file__, "--work", str(folder)]
    given = {"model": args.model, "task": args.task, "data_dir": args.data_dir, "split": args.split, "rows": rows}
    given |= {"of": args.rows, "threads": args.threads, "output": args.output, "n_steps": args.n_steps}
    command += [str(part) for name, value in given.items() if value is not None for part in (f"--{name}", value)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> tuple[float, float]:
    """Wait for a run; return its seconds, of the slowest process, and MiB of peak memory, of the largest."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    output = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"a run failed with status {process.returncode}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(map(float, output.split())), peak / 1024 if peak > before else float("nan")


def kill(process: subprocess.Popen[str], folder: Path, seconds: float) -> int:
    """Kill a run so many seconds after its first new bytes; return how many bytes it leaves."""
    before = written(folder)
    while written(folder) <= before:
        if process.poll() is not None:
            raise SystemExit("a run ended before it was killed")
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return written(folder)


def written(folder: Path) -> int:
    return sum(path.stat().st_size for kind in ("part", "safetensors") for path in folder.glob(f"*.{kind}"))


def same(one: Path, other: Path) -> bool:
    names = [sorted(path.name for path in folder.iterdir()) for folder in (one, other)]
    return names[0] == names[1] and all((one / name).read_bytes() == (other / name).read_bytes() for name in names[0])


def largest_difference(one: Archive, other: Archive) -> float:
    return max(float((a.attributions - b.attributions).abs().max()) for a, b in zip(one, other, strict=True))


def main() -> None:
    args = arguments()
    if args.work:
        work(args)
        return
    args.output.mkdir(parents=True)
    whole, killed, shared = (args.output / name for name in ("whole", "killed", "shared"))

    print("| rows | seconds | peak memory, MiB |\n|---:|---:|---:|")
    # The peak of all children so far is all that the system tells: the largest run comes last.
    for rows in (args.rows // 4, args.rows):
        folder = whole if rows == args.rows else args.output / f"first_{rows}"
        seconds, peak = finish(start(args, folder, rows))
        shown = f"{peak:,.0f}" if peak == peak else "no more than above"
        print(f"| {rows:,} | {seconds:.0f} | {shown} |", flush=True)
        if rows < args.rows:
            shutil.rmtree(folder)
    size = sum(path.stat().st_size for path in whole.iterdir())
    print(f"\n{size / 1e6:,.0f} MB in {len(list(whole.iterdir())) - 1} shards and an index")

    choose = random.Random(args.seed)
    left = [
        kill(start(args, killed, args.rows), killed, choose.uniform(0.05, 0.9) * seconds / args.kills)
        for _ in range(args.kills)
    ]
    rest, _ = finish(start(args, killed, args.rows))
    print(f"killed with {', '.join(f'{bytes_ / size:.0%}' for bytes_ in left)} of the bytes written; ", end="")
    print(f"the rest took {rest:.0f} s; byte for byte the same: {'yes' if same(whole, killed) else 'NO'}", flush=True)

    together, _ = finish(start(args, shared, args.rows, args.processes))
    one, other = Archive(whole), Archive(shared)
    print(f"{args.processes} processes, {args.threads} threads each: {together:.0f} s, ", end="")
    print(f"{seconds / together:.2f} times as fast; largest difference {largest_difference(one, other):.1e}")

    times = []
    for _ in range(200):
        index = choose.randrange(args.rows)
        begin = time.perf_counter()
        _ = one[index]
        times.append(time.perf_counter() - begin)
    print(f"reading one example: {statistics.median(times) * 1e3:.1f} ms, median of {len(times)}")


if __name__ == "__main__":
    main()
