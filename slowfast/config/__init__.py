"""The configuration: one documented tree of defaults, YAML files over it, ``KEY VALUE`` pairs over those."""

import os

from slowfast.config.defaults import get_cfg
from slowfast.config.parser import CfgNode
from slowfast.utils.files import full_path, path_in_repository

# A folder of exp/ has its settings in this file.
CONFIG_FILE = "config.yaml"


def load_cfg(path: str, overrides: list[str] = ()) -> CfgNode:
    """Return the frozen settings of a YAML file with ``KEY VALUE`` pairs over them, OUTPUT_DIR in full."""
    cfg = get_cfg()
    cfg.merge_from_file(path)
    cfg.merge_from_list(list(overrides))
    cfg.OUTPUT_DIR = full_path(cfg.OUTPUT_DIR or default_output_dir(path))
    cfg.freeze()
    return cfg


def default_output_dir(path: str) -> str:
    """Return the output folder of a configuration that names none, another one for every file.

    ``exp/NAME/config.yaml`` has ``exp/NAME/output``, ``configs/ablation/NAME.yaml`` has ``output/ablation/NAME``, any
    other ``FOLDER/NAME.yaml`` has ``output/FOLDER/NAME``; all but those of files outside the repository and called
    config.yaml are relative to it.
    """
    *folders, name = path_in_repository(path).split(os.sep)
    if name == CONFIG_FILE:
        return os.path.join(os.sep.join(folders), "output")
    if folders[:1] == ["configs"]:
        folders = folders[1:]
    return os.path.join("output", *filter(None, folders), os.path.splitext(name)[0])


def clip_frames(cfg: CfgNode) -> int:
    """Return the frames of a clip as it is read: one more than the backbone sees behind motion prompts."""
    return cfg.DATA.NUM_FRAMES + cfg.VMP.ENABLE


def configuration_name(path: str) -> str:
    """Return the name of a configuration: that of its file, or of its folder if the file is called config.yaml."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.basename(folder) if name == CONFIG_FILE else os.path.splitext(name)[0]


def training_command(path: str) -> str:
    """Return the command that trains the configuration at ``path``, from the folder of the repository."""
    path = path_in_repository(path)
    folder, name = os.path.split(path)
    script = os.path.join(folder, "run.sh")
    if name == CONFIG_FILE and os.path.isfile(full_path(script)):
        return f"bash {script}"
    return f"bash exp/launch.sh tools/run_net.py --cfg {path}"
