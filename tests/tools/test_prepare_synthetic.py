"""Tools import nothing heavy for a help or a mistake; ``synthetic`` has the options of its spec."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slowfast.config import load_cfg
from slowfast.datasets.build import build_dataset
from slowfast.utils.errors import UserError
from tools.prepare_data import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--num-train", "3", "--num-val", "2", "--size", "32", "--num-frames", "2", "--workers", "1"]


def test_help_imports_nothing_heavy(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tools.prepare_data import main\n"
    code += "try: main(sys.argv[1:])\nexcept SystemExit: print({'torch', 'cv2', 'numpy'} & set(sys.modules))"
    for arguments in (["--help"], ["check", "--help"], ["ssv2", "--help"]):
        command = [sys.executable, "-c", code, *arguments]
        shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        assert shown.endswith("set()\n"), arguments
        assert arguments != ["--help"] or all(name in shown for name in COMMANDS)


def test_a_wrong_key_is_said_before_anything_heavy_is_imported(tmp_path):
    code = f"""
import contextlib, os, runpy, sys
sys.path.insert(0, {str(ROOT)!r})
cfg = ["--cfg", {str(ROOT / "exp/quickstart/config.yaml")!r}, "TRAIN.BATCH", "3"]
study = ["--cfgs", cfg[1], "--seeds", "0", "--out", "none", *cfg[2:]]
calls = [(name, ["--help"]) for name in ("run_net", "train_net", "test_net", "ablate", "benchmark", "list_experiments")]
calls += [("run_net", cfg), ("test_net", cfg), ("ablate", study), ("benchmark", ["flops", *cfg])]
calls += [("test_net", ["--from-scores", "--help"]), ("prepare_data", ["check", *cfg])]
for name, arguments in calls:
    sys.argv = [name, *arguments]
    with contextlib.redirect_stdout(open(os.devnull, "w")):
        try:
            runpy.run_path({str(ROOT)!r} + f"/tools/{{name}}.py", run_name="__main__")
        except SystemExit as ended:
            assert ended.code == (0 if "--help" in arguments else 2), name
print({{"torch", "cv2", "matplotlib", "pandas"}} & set(sys.modules))
"""
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert shown.stdout == "set()\n", shown.stderr
    assert shown.stderr.count("unknown key TRAIN.BATCH; did you mean TRAIN.BATCH_SIZE?") == 5


def test_the_command_of_the_quickstart(tmp_path, capsys):
    """Its options, with few and small clips; the same again leaves the set alone."""
    script = (ROOT / "exp/quickstart/run.sh").read_text().replace("\\\n", " ")
    options = re.search(r"prepare_data.py synthetic --out data/quickstart (.*)", script).group(1).split()
    command = ["synthetic", "--out", str(tmp_path / "set"), *options, *SMALL[:4], *SMALL[6:]]
    assert main(command[:-4] + ["--workers", "1"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/set: 3 train and 2 val clips as mp4, written\n"
    description = json.loads((tmp_path / "set/dataset.json").read_text())
    assert (description["zoom"], description["num_frames"]) == ([0.08, 0.12], 8)
    assert main(command[:-4] + ["--workers", "2"]) == 0
    assert "complete already" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["motion_study/emim", "filmed/pretraining_emim_gestures"])
def test_the_configuration_that_renders_stimuli_reads_them_as_videos(tmp_path, capsys, name):
    few = ["DATA.ARGS.num_train", "3", "DATA.ARGS.num_val", "5"]
    command = ["stimuli", "--cfg", f"configs/{name}.yaml", "--out", str(tmp_path), "--workers", "1", "--epochs", "2"]
    assert main([*command, *few]) == 0
    settings = shlex.split(re.search("read them with (.*)", capsys.readouterr().out)[1])
    rendered = load_cfg(f"configs/{name}.yaml", few)
    written = load_cfg(f"configs/{name}.yaml", [*few, *settings])
    last = rendered.SOLVER.MAX_EPOCH - 1
    for split, drawn, read in (
        ("train", [(epoch, index) for epoch in (last - 1, last) for index in range(3)], [(0, i) for i in range(6)]),
        ("val", range(5), range(5)),
        ("test", range(5), range(5)),
    ):
        renders, videos = (build_dataset(cfg, split) for cfg in (rendered, written))
        assert renders.class_names == videos.class_names and videos.num_videos == len(read)
        for one, other in zip(drawn, read):
            clips = [sample.clips.numpy().astype(float) for sample in (renders[one], videos[other])]
            luma = np.tensordot([0.299, 0.587, 0.114], (clips[0] - clips[1])[0], axes=1)
            assert 10 * np.log10(255**2 / np.mean(luma**2)) > 40  # dB: colour is stored at half the resolution
            assert renders[one].label == videos[other].label
    assert main([*command, *few]) == 0
    assert "complete already" in capsys.readouterr().out
    with pytest.raises(UserError, match="TRAIN_CROP_SIZE is 49; allowed: even sizes"):
        main([*command, *few, "DATA.TRAIN_CROP_SIZE", "49", "DATA.TEST_CROP_SIZE", "49"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["synthetic", "--format", "avi"], ["--format", "avi", "mp4"]),
        (["synthetic", "--noise-std", "loud"], ["--noise-std", "loud"]),
        (["synthetic", "--size", "8"], ["--size", "8 is not allowed, only 32 to 1024"]),
        (["synthetic", "--noise-std", "nan"], ["--noise-std", "nan is not allowed"]),
        (["synthetic", "--num-train", "0"], ["--num-train", "0 is not allowed, only 1 to"]),
        (["synthetic", "--seed", "-3"], ["--seed", "-3"]),
        (["synthetic", "--workers", "0"], ["--workers", "0 is not allowed, only 1 to 256"]),
        (["check", "--timeout", "0"], ["--timeout", "0 is not allowed"]),  # every item would look like one that hangs
        (["ssv2", "--quality", "0"], ["--quality", "0 is not allowed, only 1 to 100"]),
        (["reticulate"], ["reticulate", "synthetic"]),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path, capsys, arguments, words):
    with pytest.raises(SystemExit) as exit_info:
        main([*arguments, "--out", str(tmp_path / "set")])
    message = capsys.readouterr().err
    assert exit_info.value.code == 2 and message.count("\n") == 1
    assert [word for word in words if word not in message] == []


def test_an_option_without_effect_is_a_mistake_of_the_user(tmp_path):
    with pytest.raises(UserError, match="--quality have no effect without --extract-frames"):
        folders = ["--annotations", str(tmp_path), "--videos", str(tmp_path), "--out", str(tmp_path)]
        main(["ssv2", *folders, "--quality", "50"])
