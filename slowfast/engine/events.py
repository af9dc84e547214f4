"""The lines of ``OUTPUT_DIR/log.jsonl``: every event, when it is written, and its fields.

Each line is a JSON object with ``event`` (the name), ``time`` (seconds since 1970) and exactly the fields listed here.
A number that is not finite is null. Lines are only ever appended: a run that continues in the middle of an epoch may
write a step or an epoch that is there already, and the last line counts.
``slowfast.utils.logging.read_events(OUTPUT_DIR, name)`` returns the events of one name.
"""

from __future__ import annotations

from typing import NamedTuple


class Event(NamedTuple):
    """When an event is written, and what its fields mean."""

    when: str
    fields: dict[str, str]


_TRAINING = {
    "step": "optimisation steps since the start of the training",
    "epoch": "the epoch, counted from 1",
    "loss": "mean over the clips",
    "top1": "percent of the clips, augmented and mixed; a mixed clip is right with either of its classes",
    "clips_per_sec": "clips trained on per second, over all processes",
    "wait_share": "share of the time (0 to 1) spent waiting for the data loader",
    "bad_videos": "videos skipped because they cannot be decoded",
}

_ACCURACY = {
    "top1": "percent of the videos",
    "top5": "percent of the videos",
    "mean_class": "mean over the classes of their top-1 (percent)",
}

_VALIDATION = {
    "step": _TRAINING["step"],
    "epoch": "epochs done",
    **_ACCURACY,
    "num_videos": "videos counted",
    "bad_videos": "how many of them cannot be decoded and count as wrong",
}

EVENTS: dict[str, Event] = {
    "start": Event(
        "once per command, before anything else",
        {
            "command": "the arguments of the process, a list",
            "git_commit": "commit of the code, -dirty behind it if it was changed; null outside a repository",
            "python": "version",
            "versions": "versions of the packages that matter, null for those that are not installed",
            "device": "type and name of the main process's device",
            "world_size": "number of processes",
        },
    ),
    "train_step": Event(
        "every LOG_PERIOD steps and after the last step of an epoch; of the main process's clips since the line before",
        {**_TRAINING, "lr": "learning rate of this step", "grad_norm": "norm of this step's gradient before clipping"},
    ),
    "train_epoch": Event(
        "after every epoch; of the clips of all processes",
        {**_TRAINING, "peak_memory_mib": "most memory of a process so far: allocated on its GPU, else resident (MiB)"},
    ),
    "nonfinite": Event(
        "after a step whose loss or gradient is not finite",
        {
            "epoch": "the epoch, counted from 1",
            "step": "the step in it, counted from 0",
            "path": "file with the losses and the videos of every process",
        },
    ),
    "bad_video": Event(
        "at the end of an epoch, for every training video that was skipped",
        {"epoch": "the epoch, counted from 1", "path": "the file", "reason": "why it cannot be decoded"},
    ),
    "val": Event("every TRAIN.EVAL_PERIOD epochs and after the last one", _VALIDATION),
    "val_ema": Event("with SOLVER.EMA_DECAY, after each val; of the averaged weights", _VALIDATION),
    "checkpoint": Event(
        "whenever a checkpoint is complete on disk",
        {
            "epoch": "epochs done",
            "steps": "steps done in the next epoch, 0 between epochs",
            "path": "the file",
            "best": "whether its validation top-1 is the best so far, so that it is best.pyth too",
        },
    ),
    "test": Event(
        "after a test",
        {
            **_ACCURACY,
            "num_videos": "videos counted",
            "interval95": "95 % interval, [low, high] in percent, of each accuracy",
            "interval_method": "how each interval was computed",
            "num_classes": "classes of the model",
            "num_classes_with_videos": "classes that any video has, over which mean_class is taken",
            "num_views": "views scored, over all videos",
            "views_per_video": "temporal clips x spatial crops",
            "bad_videos": "path and reason of the videos that cannot be decoded and count as wrong, a list",
            "protocol": "frames, views, resolution, sampling and how the views are combined, in words",
            "view_protocol": "the part of it that says which views there are",
            "ensemble_method": "DATA.ENSEMBLE_METHOD",
            "checkpoint": "the file tested",
            "checkpoint_time": "when that file was written (seconds since 1970)",
            "epoch": "epochs that the checkpoint was trained for, null for weights only",
            "weights": "model, or ema for averaged ones",
            "precision": "fp32, bf16 or fp16",
        },
    ),
}
