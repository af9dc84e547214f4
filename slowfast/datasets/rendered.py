"""Stimuli and gestures of ``slowfast.synthetic``, rendered where a video would be decoded.

Six frames of a stimulus take less time than decoding them does, a gesture takes several times as long.
"""

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from slowfast.config import clip_frames
from slowfast.config.parser import CfgNode
from slowfast.datasets.decoder import FrameReader
from slowfast.datasets.manifest import Record
from slowfast.synthetic.gestures import Gesture, GestureSpec
from slowfast.synthetic.stimuli import QUESTIONS, Stimulus, StimulusSpec
from slowfast.utils.errors import UserError

# What DATA.ARGS describes, by its question.
SPECS = {**dict.fromkeys(QUESTIONS, StimulusSpec), "gesture": GestureSpec}


class Rendered:
    """Clips of one split; those of the training are new ones in every epoch."""

    takes_args = True

    def __init__(self, spec: StimulusSpec | GestureSpec, split: str, cfg: CfgNode) -> None:
        self.spec, self.num_frames, self.size = spec, clip_frames(cfg), cfg.DATA.TRAIN_CROP_SIZE
        self.num_epochs, self.seed = cfg.SOLVER.MAX_EPOCH, cfg.RNG_SEED
        self.class_names = list(spec.class_names)
        split = "val" if split == "test" else split
        count = spec.num_train if split == "train" else spec.num_val
        names = [f"{split}/0/{index:06d}" for index in range(count)]
        labels = [index % len(self.class_names) for index in range(count)]
        self.records = [Record(name, label, None, f"DATA.ARGS:{name}", name) for name, label in zip(names, labels)]

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str) -> "Rendered":
        """Read DATA.ARGS; frames are as many and as large as a clip of the configuration."""
        data = cfg.DATA
        question = data.ARGS.get("question", StimulusSpec.question)
        if str(question) not in SPECS:
            raise UserError(f"DATA.ARGS.question is {question!r}; allowed: {' | '.join(SPECS)}")
        spec = SPECS[question].from_args(data.ARGS)
        if (cfg.MODEL.NUM_CLASSES or len(spec.class_names)) != len(spec.class_names):
            found = f"MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}"
            raise UserError(f"{found}, but DATA.ARGS.question {spec.question} has {len(spec.class_names)} answers")
        for key, allowed in {
            "FRAME_SAMPLING": "dense",
            "SAMPLING_RATE": 1,
            "TEST_CROP_SIZE": data.TRAIN_CROP_SIZE,
        }.items():
            if data[key] != allowed:
                raise UserError(f"DATA.{key} is {data[key]}; allowed for Rendered (DATA.DATASET): {allowed}")
        if cfg.TEST.NUM_ENSEMBLE_VIEWS * cfg.TEST.NUM_SPATIAL_CROPS != 1 or data.MULTI_LABEL:
            raise UserError(
                "TEST.NUM_ENSEMBLE_VIEWS and TEST.NUM_SPATIAL_CROPS must be 1 for Rendered (DATA.DATASET), and "
                "DATA.MULTI_LABEL False: a clip is all there is of a video"
            )
        if data.RANDOM_FLIP and spec.question != "instance":
            raise UserError(f"DATA.RANDOM_FLIP is True; allowed: False, for it changes the answer to {spec.question}")
        if isinstance(spec, StimulusSpec) and spec.token * spec.displacement[1] >= data.TRAIN_CROP_SIZE / 2:
            found = f"DATA.ARGS.displacement is {[*spec.displacement]} tokens of {spec.token} px a frame"
            limit = f"less than {data.TRAIN_CROP_SIZE / 2 / spec.token:g}, half a frame of {data.TRAIN_CROP_SIZE} px"
            raise UserError(f"{found}, which looks like less the other way; allowed: {limit}")
        return cls(spec, split, cfg)

    def at_epoch(self, record: Record, epoch: int) -> Record:
        """Return the clip that stands for a record in an epoch of the training."""
        return replace(record, path=f"train/{epoch}/{record.name.rpartition('/')[2]}")

    def open(self, record: Record) -> FrameReader:
        """Return the reader of a clip, which renders it."""
        return RenderedClip(self.stimulus(record), record.path)

    def stimulus(self, record: Record) -> Stimulus | Gesture:
        """Return the stimulus behind a record: of validation and test the same in every run."""
        split, epoch, index = record.path.split("/")
        if split == "train":
            spec, key = self.spec.at_epoch(int(epoch), self.num_epochs), (self.seed, int(epoch), int(index))
        else:
            spec, key = self.spec.in_test(), (0, int(index))
        seed = np.random.SeedSequence(key, spawn_key=(split == "train",))
        return spec.draw(seed, record.label, self.num_frames, self.size)


class RenderedClip(FrameReader):
    """Frames of a stimulus."""

    def __init__(self, stimulus: Stimulus | Gesture, path: str) -> None:
        self.path, self.num_frames = path, len(stimulus.times)
        self._frames = stimulus.frames()

    def _decode(self, needed: list[int]) -> dict[int, np.ndarray]:
        return {index: self._frames[index] for index in needed}


def clips_of(cfg: CfgNode, num_epochs: int) -> tuple[Rendered, dict[str, list[Record]], dict[str, Any]]:
    """Return what opens the clips of a configuration, its records to write as files, and what decides their frames.

    Those of the training are the clips of the last ``num_epochs`` epochs, when all has grown unless ``grow`` is near 1.
    """
    if cfg.DATA.DATASET != "Rendered":
        raise UserError(f"DATA.DATASET is {cfg.DATA.DATASET!r}; allowed: 'Rendered', whose clips are no files yet")
    end = cfg.SOLVER.MAX_EPOCH
    if num_epochs > end:
        raise UserError(f"--epochs is {num_epochs}; allowed: up to {end}, SOLVER.MAX_EPOCH")
    source, val = (Rendered.from_config(cfg, split) for split in ("train", "val"))
    epochs = range(end - num_epochs, end)
    train = [source.at_epoch(record, epoch) for epoch in epochs for record in source.records]
    facts = {"num_frames": source.num_frames, "size": source.size, "seed": source.seed, "epochs": [epochs.start, end]}
    return source, {"train": train, "val": val.records}, facts | asdict(source.spec)
