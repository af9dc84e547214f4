"""Small invented releases of the four data sets: annotation files as published, and encoded media."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from numbered_video import write_folder, write_video

SSV_TEMPLATES = {  # with the brackets of V2: the label that the three clips of the documentation have
    "Putting [something] onto [something]": 112,
    "Moving [something] up": 45,
    "Closing [something]": 5,
}
BARE_SSV_TEMPLATES = [template.replace("[", "").replace("]", "") for template in SSV_TEMPLATES]


@dataclass
class Release:
    """Folders that the command needs to know, and contents of the lists."""

    command: str
    annotations: Path  # folder of the official text files
    media: Path  # folder of the videos or of the folders of frames: out / "media"
    out: Path  # folder of the lists
    paths: dict[str, str] = field(default_factory=dict)  # by clip id, relative to media
    clips: dict[str, list[tuple[str, int, int]]] = field(default_factory=dict)  # by split: id, frames, label

    def arguments(self, *more: str) -> list[str]:
        flag = "--frames" if self.command == "ssv1" else "--videos"
        folders = ["--annotations", self.annotations, flag, self.media, "--out", self.out, "--workers", "1"]
        order = ["--class-order", "uniformer"] if self.command == "kinetics400" else []
        return [self.command, *map(str, folders), *order, *more]

    def path(self, clip_id: str) -> Path:
        return self.media / self.paths[clip_id]

    def lines(self, split: str) -> list[str]:
        """The list of a split as it should be."""
        as_frames = self.command == "ssv1"
        return [
            f"media/{self.paths[clip_id]} {num_frames} {label}" if as_frames else f"media/{self.paths[clip_id]},{label}"
            for clip_id, num_frames, label in self.clips[split]
        ]


def make(command: str, root: Path) -> Release:
    """Write the release of one of the four commands below `root`."""
    release = Release(command, root / "official", root / "set/media", root / "set")
    release.annotations.mkdir()
    release.media.mkdir(parents=True)
    _RELEASES[command](release)
    return release


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def _ssv1(release: Release) -> None:
    # The labels file is not sorted, the labels are positions in the sorted one: Closing, Moving, Putting.
    _write(release, "something-something-v1-labels.csv", [*BARE_SSV_TEMPLATES])
    putting, moving, closing = BARE_SSV_TEMPLATES
    train = {"30": (putting, 17, 2), "4": (closing, 15, 0), "100": (moving, 16, 1), "5": (closing, 15, 0)}
    val = {"7": (moving, 15, 1), "6": (putting, 18, 2)}
    for split, name, clips in (("train", "train", train), ("val", "validation", val)):
        _write(release, f"something-something-v1-{name}.csv", [f"{id_};{clip[0]}" for id_, clip in clips.items()])
        release.clips[split] = [(id_, num_frames, label) for id_, (_, num_frames, label) in clips.items()]
        for id_, (_, num_frames, _) in clips.items():
            release.paths[id_] = id_
            write_folder(release.media / id_, num_frames)


def _ssv2(release: Release) -> None:
    templates = list(SSV_TEMPLATES)
    labels = dict(zip(SSV_TEMPLATES.values(), BARE_SSV_TEMPLATES))
    names, last = [], "Approaching something"
    for label in range(174):  # in ASCII order, as in the release
        last = labels.get(label, last)
        names.append(labels.get(label, f"{last} {label:03d}"))
    assert names == sorted(names)
    content = {name: str(label) for label, name in reversed(list(enumerate(names)))}
    write_json(release.annotations / "something-something-v2-labels.json", content)
    train = {"910001": (0, 12), "910002": (1, 9), "910003": (2, 6), "910004": (2, 7)}
    val = {"910011": (2, 5), "910012": (0, 8)}
    for split, name, clips in (("train", "train", train), ("val", "validation", val)):
        entries = [{"id": id_, "label": "", "template": templates[number]} for id_, (number, _) in clips.items()]
        write_json(release.annotations / f"something-something-v2-{name}.json", entries)
        release.clips[split] = [
            (id_, num_frames, SSV_TEMPLATES[templates[number]]) for id_, (number, num_frames) in clips.items()
        ]
        for id_, (_, num_frames) in clips.items():
            release.paths[id_] = f"{id_}.webm"
            write_video(release.path(id_), num_frames, "libvpx-vp9", rate=12)
    write_json(release.annotations / "something-something-v2-test.json", [{"id": "910021"}])


def _kinetics400(release: Release) -> None:
    train = [("riding a bike", "AAAAexample1", 10, 20, 0), ("marching", "-BBBexample2", 3, 13, 1)]
    train += [("dodgeball", "_CCCexample3", 101, 111, 2), ("abseiling", "DDDDexample4", 0, 10, 341)]
    val = [("archery", "EEEEexample5", 5, 15, 302), ("zumba", "FFFFexample6", 1000, 1010, 331)]
    for split, clips in (("train", train), ("val", val)):
        rows = [f"{name},{youtube_id},{start},{end},{split},0" for name, youtube_id, start, end, _ in clips]
        _write(release, f"{split}.csv", ["label,youtube_id,time_start,time_end,split,is_cc", *rows])
        release.clips[split] = []
        for number, (name, youtube_id, start, end, label) in enumerate(clips):
            clip_id = f"{youtube_id}_{start:06d}_{end:06d}"
            # As in common copies: a folder per split and class.
            release.paths[clip_id] = f"{split}/{name}/{clip_id}.mp4"
            release.path(clip_id).parent.mkdir(parents=True)
            release.clips[split].append((clip_id, 20 + number, label))
            write_video(release.path(clip_id), 20 + number)
    _write(release, "test.csv", ["youtube_id,time_start,time_end,split", "GGGGexample7,1,11,test"])


def _diving48(release: Release) -> None:
    vocab = [[f"Takeoff{label // 12}", f"{label % 12}Som", "NoTwis", "PIKE"] for label in range(48)]
    write_json(release.annotations / "Diving48_vocab.json", vocab)
    train = {"exampleAAA_00001": (7, 12), "-exampleB_00020": (0, 8), "_exampleC_00311": (47, 10), "D_00001": (7, 9)}
    val = {"D_00002": (7, 6), "E_00003": (20, 11)}
    for split, name, clips in (("train", "train", train), ("val", "test", val)):
        entries = [
            {"vid_name": id_, "label": label, "start_frame": 0, "end_frame": num_frames - 1}
            for id_, (label, num_frames) in clips.items()
        ]
        write_json(release.annotations / f"Diving48_V2_{name}.json", entries)
        release.clips[split] = [(id_, num_frames, label) for id_, (label, num_frames) in clips.items()]
        for id_, (_, num_frames) in clips.items():
            release.paths[id_] = f"{id_}.mp4"
            write_video(release.path(id_), num_frames)


def _write(release: Release, name: str, lines: list[str]) -> None:
    (release.annotations / name).write_text("".join(f"{line}\n" for line in lines))


_RELEASES = {"ssv1": _ssv1, "ssv2": _ssv2, "kinetics400": _kinetics400, "diving48": _diving48}
COMMANDS = tuple(_RELEASES)
