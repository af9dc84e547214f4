"""Kill a training run again and again at random moments, and compare its end with that of a run left alone.

SIGTERM or SIGKILL, to the process, to its group or to a worker of the loader, within epochs and at their ends:

    python tests/engine/random_kills.py --kills 50 [--seed 0] [--folder FOLDER]

Every step writes a checkpoint, so that many kills fall into the writing of one. The exit status is 0 if all weights,
moments and logged losses are the same bit for bit.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # the order of sums
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "support")]

import yaml
from conftest import SETTINGS
from helpers_engine import assert_same_end

from slowfast.engine.run import main as run
from slowfast.synthetic.scenes import SceneSpec
from slowfast.synthetic.writer import write_dataset
from slowfast.utils.logging import read_events


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=1, help="of the data loader")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", help="keep data and runs there")
    args = parser.parse_args()
    folder = Path(args.folder or tempfile.mkdtemp(prefix="random_kills_"))
    write_dataset(folder / "data", SceneSpec(size=32, num_frames=6), 24, 5, "frames")
    (folder / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    settings = (
        *("DATA.PATH_TO_DATA_DIR", folder / "data", "DATA_LOADER.NUM_WORKERS", args.workers, "LOG_PERIOD", 1),
        *("UNIFORMER.DROP_DEPTH_RATE", 0.3, "SOLVER.EMA_DECAY", 0.9, "SOLVER.MAX_EPOCH", args.epochs),
        *("TRAIN.BATCH_SIZE", 4, "TRAIN.EVAL_PERIOD", 2, "TRAIN.CHECKPOINT_STEPS", 1),
    )
    arguments = ["--cfg", str(folder / "config.yaml"), *map(str, settings), "OUTPUT_DIR"]

    started = time.monotonic()
    assert run(("train",), "", [*arguments, str(folder / "alone")]) == 0
    alone_sec = time.monotonic() - started
    draws, killed = random.Random(args.seed), folder / "killed"
    moments, kinds, num_half_written = [], [], 0
    for _ in range(args.kills):
        command = [sys.executable, ROOT / "tools" / "train_net.py", *arguments, killed]
        process = subprocess.Popen(command, start_new_session=True)
        # Most of the time goes into starting; then training begins, at a moment that differs from run to run.
        if wait_for(draws.choice(["train_step", "train_epoch", "checkpoint", "val"]), process, killed):
            time.sleep(draws.choice([0, draws.uniform(0, max(0.2, alone_sec / args.kills))]))
        kill = draws.choice(["process", "group", "worker"]), draws.choice([signal.SIGTERM, signal.SIGKILL])
        kinds.append(f"{kill[1].name} to {kill[0]}: {end(process, *kill)}")
        moments.append(len(read_events(str(killed), "train_step")))
        num_half_written += any((killed / "checkpoints").glob(".*.tmp"))
    assert run(("train",), "", [*arguments, str(killed)]) == 0

    for kind, count in sorted(Counter(kinds).items()):
        print(f"{count} x {kind}")
    print(f"steps logged at the kills: {moments}; kills while a checkpoint was written: {num_half_written}")
    assert_same_end(killed, folder / "alone", f"epoch_{args.epochs:05d}.pyth")
    print(f"{args.kills} kills: no tensors or losses differ from the run left alone")


def wait_for(event: str, process: subprocess.Popen, out: Path) -> bool:
    """Wait until the run logs another event of this name; return False if it ends first."""
    before = len(read_events(str(out), event))
    while process.poll() is None:
        if len(read_events(str(out), event)) > before:
            return True
        time.sleep(0.01)
    return False


def end(process: subprocess.Popen, target: str, number: signal.Signals) -> str:
    """Send a signal and return the status with which the run ends; a worker that ignores it changes nothing."""
    with suppress(ProcessLookupError, FileNotFoundError, IndexError):
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if target == "group":
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid if target == "process" else int(workers[0]), number)
    try:
        status = process.wait(1 if target == "worker" and number == signal.SIGTERM else 60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return f"went on, then {process.wait()}"
    return f"status {status}"


if __name__ == "__main__":
    main()
