"""Stand-ins for what experiments need: miniature data sets in the official layouts, and finished runs to start from.

    python tests/support/stand_ins.py FOLDER [NAME ...]

makes them in FOLDER and prints a line per experiment (all, or those named) and script: both names, and KEY VALUE pairs.
"""

import contextlib
import itertools
import os
import shlex
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
from slowfast.engine.checkpoint import save_best, save_checkpoint
from slowfast.models import build_model

# Lines of a list are repeated, so that it has at least as many videos as the largest batch.
REPETITIONS = 64
NUM_CLASSES = {"ssv1": 174, "imagenet": 1000}


def make_data_set(name: str, folder: Path) -> Path:
    """Make a miniature of a data set, by the commands that users type; return the folder of its lists."""
    folder.mkdir()
    if name == "imagenet":
        return make_images(folder)
    release = invented_releases.make(name, folder)
    if name == "ssv1":  # the recipes are for the number of classes of the real one
        with open(release.annotations / "something-something-v1-labels.csv", "a") as file:
            more = NUM_CLASSES[name] - len(invented_releases.BARE_SSV_TEMPLATES)
            file.writelines(f"Invented something {number:03d}\n" for number in range(more))
    with contextlib.redirect_stdout(sys.stderr):
        prepare_data.main(release.arguments())
    for path in (*release.out.glob("train.*"), *release.out.glob("val.*")):
        path.write_text(path.read_text() * REPETITIONS)
    return release.out


def make_images(folder: Path) -> Path:
    """Make two pictures for each of 1,000 classes and each split, all of them the same file."""
    picture = folder / "picture.jpg"
    assert cv2.imwrite(str(picture), numbered_frame(7))
    for split, label in itertools.product(("train", "val"), range(NUM_CLASSES["imagenet"])):
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
    state = {"model_state": weights_of(cfg), "cfg": cfg.dump(), "class_names": None, "best_top1": 0.0}
    state |= {"epoch": cfg.SOLVER.MAX_EPOCH, "progress": {"steps": 0}, "is_validated": True, "ema_state": None}
    save_best(str(folder), state)
    save_checkpoint(str(folder), state)
    return folder


def make_image_weights(path: str, folder: Path) -> Path:
    """Make a file as UniFormer publishes them for ImageNet-1K, S or B by its name."""
    size = "s" if "small" in path else "b"
    cfg = load_cfg("configs/uniformer_s_in1k_image.yaml").clone()
    cfg.defrost()
    cfg.merge_from_file(f"configs/_base_/uniformer_{size}.yaml")
    cfg.MODEL.MODEL_NAME = "Uniformer2d"
    made = folder / Path(path).name
    torch.save({"model": weights_of(cfg)}, made)
    return made


def main(folder: Path, wanted: list[str]) -> None:
    os.chdir(ROOT)
    cfgs = {path.parent.name: load_cfg(str(path)) for path in sorted(Path("exp").glob("*/config.yaml"))}
    sets = {Path(cfg.DATA.PATH_TO_DATA_DIR).name for cfg in cfgs.values()} & {*invented_releases.COMMANDS, "imagenet"}
    lists = {name: make_data_set(name, folder / name) for name in sorted(sets)}
    runs, files = {}, {}
    for name, cfg in cfgs.items():
        data_set = Path(cfg.DATA.PATH_TO_DATA_DIR).name
        if data_set not in lists:
            print(f"{name}: makes its data itself, left out", file=sys.stderr)
            continue
        runs[name] = make_run(cfg, folder / "runs" / name)
        start = cfg.MODEL.PRETRAINED
        if start.endswith(".pth") and start not in files:
            files[start] = make_image_weights(start, folder)
    for name in wanted or runs:
        cfg = cfgs[name]
        start = cfg.MODEL.PRETRAINED
        settings = ["DATA.PATH_TO_DATA_DIR", lists[Path(cfg.DATA.PATH_TO_DATA_DIR).name]]
        weights = ["MODEL.PRETRAINED", files.get(start) or runs[Path(start).name]] if start else []
        for script, more in (
            ("run.sh", ["OUTPUT_DIR", folder / "new", *weights]),
            ("test.sh", ["OUTPUT_DIR", runs[name]]),
        ):
            print(name, script, *map(shlex.quote, map(str, [*settings, *more])))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
