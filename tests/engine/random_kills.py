"""Kill a training run again and again at random moments, and compare its end with that of a run left alone.

    python tests/engine/random_kills.py --kills 50 [--seed 0] [--folder FOLDER]

Every step writes a checkpoint, so that many kills fall into the writing of one. The last line says how many of the
weights, moments and logged losses differ; the exit status is 0 if none does.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
import yaml

from slowfast.synthetic.scenes import SceneSpec
from slowfast.synthetic.writer import write_dataset
from slowfast.utils.logging import read_events

SETTINGS = {
    "DATA": {"SOURCE": "frames", "LABEL_PATH_TEMPLATE": "{}.txt", "NUM_FRAMES": 4, "TRAIN_CROP_SIZE": 32,
             "TEST_CROP_SIZE": 32},
    "AUG": {"NUM_SAMPLE": 2, "AA_TYPE": "rand-m7-n2-mstd0.5-inc1"},
    "MODEL": {"NUM_CLASSES": 12},
    "UNIFORMER": {"EMBED_DIM": [8, 8, 16, 16], "DEPTH": [1, 1, 2, 2], "HEAD_DIM": 8, "DROP_DEPTH_RATE": 0.3},
    "EMIM": {"WINDOW": [3, 3]},
    "SOLVER": {"WARMUP_EPOCHS": 0.5, "BASE_LR": 1e-3, "EMA_DECAY": 0.9},
    "TRAIN": {"BATCH_SIZE": 4, "EVAL_PERIOD": 2, "CHECKPOINT_STEPS": 1},
    "LOG_PERIOD": 1,
    "TENSORBOARD": {"ENABLE": False},
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=1, help="of the data loader")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", help="keep data and runs there")
    args = parser.parse_args()
    folder = Path(args.folder or tempfile.mkdtemp(prefix="random_kills_"))
    write_dataset(folder / "data", SceneSpec(size=32, num_frames=6), 24, 5, "frames")
    settings = {**SETTINGS, "DATA_LOADER": {"NUM_WORKERS": args.workers}}
    settings["DATA"] = {**SETTINGS["DATA"], "PATH_TO_DATA_DIR": str(folder / "data")}
    settings["SOLVER"] = {**SETTINGS["SOLVER"], "MAX_EPOCH": args.epochs}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))

    started = time.monotonic()
    finish(start(folder, "alone"))
    alone_sec = time.monotonic() - started
    draws = random.Random(args.seed)
    moments, num_half_written = [], 0
    for _ in range(args.kills):
        process = start(folder, "killed")
        # Most of the time goes into starting; then training begins, at a moment that differs from run to run.
        training_began = wait_for_training(process, folder / "killed")
        time.sleep(draws.uniform(0, max(0.2, alone_sec / args.kills)) if training_began else 0)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        moments.append(len(read_events(str(folder / "killed"), "train_step")))
        num_half_written += any((folder / "killed" / "checkpoints").glob(".*.tmp"))
    finish(start(folder, "killed"))

    differing = compare(folder / "alone", folder / "killed", args.epochs)
    print(json.dumps({"steps_logged_at_kills": moments, "kills_in_a_checkpoint": num_half_written}))
    print(f"{args.kills} kills: {differing or 'no'} tensors or losses differ from the run left alone")
    return 1 if differing else 0


def start(folder: Path, name: str) -> subprocess.Popen:
    command = [sys.executable, ROOT / "tools" / "train_net.py", "--cfg", folder / "config.yaml"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(folder / f"{name}.log", "a") as log:
        return subprocess.Popen(
            [*command, "OUTPUT_DIR", folder / name], stdout=log, stderr=log, env=environment, start_new_session=True
        )


def finish(process: subprocess.Popen) -> None:
    if process.wait() != 0:
        raise RuntimeError(f"training ended with status {process.returncode}")


def wait_for_training(process: subprocess.Popen, out: Path) -> bool:
    """Wait until the run logs another step; return False if it ends first."""
    before = len(read_events(str(out), "train_step"))
    while process.poll() is None:
        if len(read_events(str(out), "train_step")) > before:
            return True
        time.sleep(0.02)
    return False


def compare(alone: Path, killed: Path, epochs: int) -> int:
    """Return the number of tensors of the last checkpoint, and of logged losses, that are not the same bit for bit."""
    paths = [out / "checkpoints" / f"epoch_{epochs:05d}.pyth" for out in (alone, killed)]
    states = [torch.load(path, weights_only=True) for path in paths]
    differing = 0
    for part in ("model_state", "ema_state"):
        differing += sum(not torch.equal(states[0][part][name], states[1][part][name]) for name in states[0][part])
    for moments, others in zip(*(state["optimizer_state"]["state"].values() for state in states)):
        differing += sum(not torch.equal(moments[key], others[key]) for key in moments)
    # Steps that were taken again count with every line they left.
    expected = {event["step"]: event["loss"] for event in read_events(str(alone), "train_step")}
    differing += sum(event["loss"] != expected[event["step"]] for event in read_events(str(killed), "train_step"))
    return differing


if __name__ == "__main__":
    sys.exit(main())
