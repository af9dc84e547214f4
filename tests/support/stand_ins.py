"""Dry runs of experiments on stand-ins: miniature data sets in the official layouts, finished runs to start from.

``python tests/support/stand_ins.py FOLDER [NAME ...]`` makes the stand-ins in FOLDER, then does in this process what
run.sh and test.sh with --dry-run do for every experiment, or for those named; status 1 if one fails.
"""

import contextlib
import io
import itertools
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools"), str(ROOT / "tests" / "support")]

import cv2
import invented_releases
import prepare_data
import torch
from numbered_video import numbered_frame

from slowfast.config import load_cfg
from slowfast.engine.checkpoint import BEST, write_checkpoint
from slowfast.engine.run import main as run
from slowfast.models import build_model

# Lines of a list are repeated, so that it has at least as many videos as the largest batch.
REPETITIONS = 64


def make_data_set(name: str, folder: Path) -> Path:
    """Make a miniature of a data set, by the commands that users type; return the folder of its lists."""
    folder.mkdir()
    if name == "imagenet":
        return make_images(folder)
    release = invented_releases.make(name, folder)
    if name == "ssv1":  # the recipes are for the number of classes of the real one
        with open(release.annotations / "something-something-v1-labels.csv", "a") as file:
            more = 174 - len(invented_releases.BARE_SSV_TEMPLATES)
            file.writelines(f"Invented something {number:03d}\n" for number in range(more))
    with contextlib.redirect_stdout(io.StringIO()):
        prepare_data.main(release.arguments())
    for path in (*release.out.glob("train.*"), *release.out.glob("val.*")):
        path.write_text(path.read_text() * REPETITIONS)
    return release.out


def make_images(folder: Path) -> Path:
    """Make two pictures for each of 1,000 classes and each split, all of them the same file."""
    picture = folder / "picture.jpg"
    assert cv2.imwrite(str(picture), numbered_frame(7))
    for split, label in itertools.product(("train", "val"), range(1000)):
        class_folder = folder / split / f"n{label:08d}"
        class_folder.mkdir(parents=True)
        for name in ("a.jpg", "b.jpg"):
            os.link(picture, class_folder / name)
    return folder


def weights_of(cfg) -> dict[str, torch.Tensor]:
    """Return weights of a model, all zero, which take no room in a file."""
    with torch.device("meta"):
        state = build_model(cfg).state_dict()
    return {name: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape) for name, tensor in state.items()}


def make_run(cfg, folder: Path) -> Path:
    """Make what a finished run leaves in its output folder."""
    state = {"model_state": weights_of(cfg), "ema_state": None, "cfg": cfg.dump(), "class_names": None}
    state |= {"epoch": cfg.SOLVER.MAX_EPOCH, "step": 0, "is_validated": True, "best_top1": 0.0}
    for name in (BEST, f"epoch_{cfg.SOLVER.MAX_EPOCH:05d}.pyth"):
        write_checkpoint(str(folder), name, state)
    return folder


def make_image_weights(path: str, folder: Path) -> Path:
    """Make a file as UniFormer publishes them for ImageNet-1K, S or B by its name."""
    depth = "[3, 4, 8, 3]" if "small" in path else "[5, 8, 20, 7]"
    cfg, made = load_cfg("exp/uniformer_s_in1k_image/config.yaml", ["UNIFORMER.DEPTH", depth]), folder / Path(path).name
    torch.save({"model": weights_of(cfg)}, made)
    return made


def dry_run(name: str, script: str, *settings: str | Path) -> bool:
    """Do what a script of an experiment does with --dry-run; print how it ended and return whether all was well."""
    tasks, log = ("train", "test") if script == "run.sh" else ("test",), io.StringIO()
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        arguments = ["--cfg", f"exp/{name}/config.yaml", "--dry-run", *map(str, settings)]
        is_well = run(tasks, "", arguments) == 0 and "first 2 test items" in log.getvalue()
    print(f"dry run of exp/{name}/{script}: {'ok' if is_well else f'FAILED{os.linesep}{log.getvalue()}'}", flush=True)
    return is_well


def main(folder: Path, wanted: list[str]) -> int:
    os.chdir(ROOT)
    cfgs = {path.parent.name: load_cfg(str(path)) for path in sorted(Path("exp").glob("*/config.yaml"))}
    names = [name for name in wanted or cfgs if name != "quickstart"]  # which makes its data itself
    lists, starts, is_well = {}, {"": ""}, True
    for name in names:
        cfg = cfgs[name]
        data_set, start = Path(cfg.DATA.PATH_TO_DATA_DIR).name, cfg.MODEL.PRETRAINED
        if data_set not in lists:
            lists[data_set] = make_data_set(data_set, folder / data_set)
        if start not in starts:
            earlier = cfgs.get(Path(start).name)
            starts[start] = make_run(earlier, folder / start) if earlier else make_image_weights(start, folder)
        tested = make_run(cfg, folder / "tested")
        data = ("DATA.PATH_TO_DATA_DIR", lists[data_set])
        is_well &= dry_run(name, "run.sh", *data, "OUTPUT_DIR", folder / "new", "MODEL.PRETRAINED", starts[start])
        is_well &= dry_run(name, "test.sh", *data, "OUTPUT_DIR", tested)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
