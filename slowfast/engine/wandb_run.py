"""A run on Weights & Biases (https://docs.wandb.ai), a package that only those need who ask for it."""

from __future__ import annotations

import importlib.util
import os

import numpy as np

RUN_ID_FILE = "wandb_run_id.txt"
MODES = ("online", "offline")
# The x axis of all charts. W&B's own steps must never decrease, while a resumed run repeats some.
_STEP = "step"


def check_wandb(project: str, mode: str) -> str:
    """Check what can be checked without a network.

    Args:
        project: WANDB.PROJECT.
        mode: WANDB.MODE: online, offline, or "" for what the environment variable WANDB_MODE says, else online.

    Returns:
        The mode.

    Raises:
        ValueError: no project or an unknown mode.
        ImportError: the package is not installed.
    """
    source = "WANDB.MODE" if mode else "the environment variable WANDB_MODE"
    mode = mode or os.environ.get("WANDB_MODE") or "online"
    if mode not in MODES:
        raise ValueError(f"{source} is {mode!r}; allowed: {', '.join(MODES)}")
    if not project:
        raise ValueError("WANDB.PROJECT is empty; it must name a project of yours, which is made if there is none")
    found = importlib.util.find_spec("wandb")
    # The package calls the folder of its data like itself; a folder is no package.
    if found is None or found.origin is None:
        raise ImportError("WANDB.ENABLE is True, but the package is not installed: pip install wandb")
    return mode


class WandbRun:
    """One run on Weights & Biases; all commands with the same output folder continue the same one.

    Args:
        output_dir: folder of the run, where ``wandb_run_id.txt`` keeps its identity and ``wandb/`` the data on their
            way, in offline mode until ``wandb sync`` sends them.
        project: name of the project.
        entity: user or team; "" is the default one of who is logged in.
        name: of the run; "" is the output folder's.
        mode: online or offline.
        config: nested dictionary of settings.

    Raises:
        ValueError: nobody is logged in, or the server refuses the run.
        ConnectionError: the server cannot be reached.
    """

    def __init__(self, output_dir: str, project: str, entity: str, name: str, mode: str, config: dict) -> None:
        import wandb

        self._image = wandb.Image
        run_id = _read_id(output_dir)
        try:
            self._run = wandb.init(
                project=project,
                entity=entity or None,
                name=name or _run_name(output_dir),
                id=run_id,
                resume="allow",
                mode=mode,
                dir=output_dir,
                config=config,
                # Settings may change from one command to the next. The terminal stays what the package makes it.
                allow_val_change=True,
                settings=wandb.Settings(console="off"),
            )
        except wandb.errors.CommError as error:
            raise ConnectionError(
                f"Weights & Biases cannot be reached ({error}); WANDB.MODE offline keeps the data in "
                f"{output_dir}/wandb, and `wandb sync` sends them later"
            ) from error
        except wandb.errors.Error as error:
            raise ValueError(
                f"Weights & Biases refuses the run: {error} (`wandb login` or the environment variable WANDB_API_KEY "
                "logs in; WANDB.MODE offline needs no account)"
            ) from error
        if run_id is None:
            with open(os.path.join(output_dir, RUN_ID_FILE), "w", encoding="utf-8") as file:
                file.write(f"{self._run.id}\n")
        self._run.define_metric("*", step_metric=_STEP)

    @property
    def id(self) -> str:
        """The identity of the run, the last part of its address."""
        return self._run.id

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Draw scalars at a training step."""
        self._run.log({_STEP: step, **scalars})

    def log_image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Show a picture, uint8 (H, W, 3)."""
        self._run.log({_STEP: step, name: self._image(pixels)})

    def finish(self, has_failed: bool) -> None:
        """Send what is left and mark the run as finished or failed."""
        self._run.finish(exit_code=int(has_failed))


def _run_name(output_dir: str) -> str:
    folder, name = os.path.split(os.path.abspath(output_dir))
    return os.path.basename(folder) if name == "output" else name  # exp/NAME/output


def _read_id(output_dir: str) -> str | None:
    path = os.path.join(output_dir, RUN_ID_FILE)
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return file.read().strip() or None
