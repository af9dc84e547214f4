"""Architectures and published weights by name, and the files of the latter from the Hugging Face Hub.

The published weights are UniFormer's (arXiv 2201.09450), as its authors publish them under the MIT licence.
"""

import hashlib
import logging
import os
from dataclasses import dataclass
from typing import Any

from slowfast.models.wrapped import IMAGENET, TORCHVISION, TRANSFORMERS, preferred_data
from slowfast.utils.errors import UserError
from slowfast.utils.files import full_path

logger = logging.getLogger(__name__)

HUB_PREFIX = "hf-hub:"
# Looked for here first, and to be put here where there is no network; relative to the repository.
LOCAL_FOLDER = "pretrained"

_B = {"UNIFORMER.DEPTH": [5, 8, 20, 7]}
_JOINT = {"UNIFORMER.STAGE3_ATTENTION": ["joint"], "UNIFORMER.STAGE4_ATTENTION": ["joint"]}
_PUBLISHED = {**_JOINT, "UNIFORMER.TEMPORAL_DOWNSAMPLE": True}
_STILL = {
    "MODEL.MODEL_NAME": "Uniformer2d", "EMIM.MOTION": False, "DATA.NUM_FRAMES": 1, "DATA.TEST_SHORT_SIDE": 256,
    "DATA.MEAN": [0.485, 0.456, 0.406], "DATA.STD": [0.229, 0.224, 0.225], "DATA.TEST_INTERPOLATION": "bicubic",
    "TEST.NUM_SPATIAL_CROPS": 1,
}  # fmt: skip
_TINY = {
    "UNIFORMER.EMBED_DIM": [48, 64, 96, 96], "UNIFORMER.DEPTH": [1, 1, 1, 1], "UNIFORMER.HEAD_DIM": 32,
    "UNIFORMER.MLP_RATIO": 2.0, "UNIFORMER.DROP_DEPTH_RATE": 0.0, "UNIFORMER.INIT_STD": 0.08,
    "UNIFORMER.STAGE3_ATTENTION": ["emim"], "UNIFORMER.STAGE4_ATTENTION": ["joint"],
    "EMIM.WINDOW": [3, 3], "EMIM.ZERO_INIT_MOTION": False, "DATA.TRAIN_CROP_SIZE": 64, "DATA.TEST_CROP_SIZE": 64,
}  # fmt: skip


def _dense(name: str, frames: int, rate: int, side: int, test_side: int) -> dict[str, Any]:
    """Return the settings of a network for Kinetics: clips and crops of its training, thirty views of its test."""
    clips = {"DATA.FRAME_SAMPLING": "dense", "DATA.NUM_FRAMES": frames, "DATA.SAMPLING_RATE": rate}
    crops = {"DATA.TRAIN_CROP_SIZE": side, "DATA.TEST_CROP_SIZE": test_side}
    return {"MODEL.MODEL_NAME": name, **clips, **crops, "TEST.NUM_ENSEMBLE_VIEWS": 10, "TEST.NUM_SPATIAL_CROPS": 3}


def _wrapped(name: str, normalization: tuple[list, list], frames: int, side: int) -> dict[str, Any]:
    """Return the settings of a network of another library."""
    crop = {"DATA.TEST_CROP_SIZE": side}
    return {"MODEL.MODEL_NAME": name, **preferred_data(normalization, frames, side), **crop}


_TSN = _wrapped("timm/resnet50", IMAGENET, 8, 224)
_SLOWFAST = _dense("SlowFast", 32, 2, 224, 256)

# Settings over the defaults. S and B are sizes; emim has EMIM in every other block of stages 3 and 4, joint attention
# in all of them, uniformer too, behind a stem that halves the frame rate. SlowFast's numbers are frames and step of its
# slow pathway.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "emim_s": {},
    "emim_b": _B,
    "joint_s": _JOINT,
    "joint_b": _JOINT | _B,
    "uniformer_s": _PUBLISHED,
    "uniformer_b": _PUBLISHED | _B,
    "emim_s_image": _STILL,
    "uniformer_s_image": _STILL | _JOINT,
    "uniformer_b_image": _STILL | _JOINT | _B,
    "slowfast_r50_4x16": {**_SLOWFAST, "MODEL.ARGS": {"alpha": 8, "fusion_kernel": 5}},
    "slowfast_r50_8x8": _SLOWFAST,
    "x3d_s": _dense("X3D", 13, 6, 160, 182),
    "x3d_m": _dense("X3D", 16, 5, 224, 256),
    **{name: _wrapped(f"torchvision/{name}", *data[-3:]) for name, data in TORCHVISION.items()},
    **{name: _wrapped(f"transformers/{name}", *data[-3:]) for name, data in TRANSFORMERS.items()},
    "tsn_r50": _TSN,
    "tsm_r50": _TSN | {"MODEL.ARGS": {"shift": 8}},
    "emim_tiny": _TINY,
    "joint_tiny": _TINY | _JOINT,
}


@dataclass(frozen=True)
class Published:
    """Published weights: a file in a repository of the Hub, and how they were trained."""

    architecture: str
    repository: str
    file: str
    sha256: str
    num_classes: int
    classes: str = ""  # "imagenet", "kinetics400", or "" where the order of the classes is not known
    frames: int = 1
    rate: int = 1  # frames of the video from one frame of a clip to the next

    @property
    def settings(self) -> dict[str, Any]:
        """Settings over the defaults under which the weights are tested."""
        clip = {"DATA.FRAME_SAMPLING": "dense", "DATA.NUM_FRAMES": self.frames, "DATA.SAMPLING_RATE": self.rate}
        views = {"TEST.NUM_ENSEMBLE_VIEWS": 4, "TEST.NUM_SPATIAL_CROPS": 1}
        video = clip | views if self.frames > 1 else {}
        return {**ARCHITECTURES[self.architecture], **video, "MODEL.NUM_CLASSES": self.num_classes}


_VIDEO, _IMAGE = "Sense-X/uniformer_video", "Sense-X/uniformer_image"
ZOO: dict[str, Published] = {
    "uniformer_s_in1k": Published(
        "uniformer_s_image", _IMAGE, "uniformer_small_in1k.pth",
        "fd192c31f8bd77670de8f171111bd51f56fd87e6aea45043ab2edc181e1fa775", 1000, "imagenet",
    ),
    "uniformer_b_in1k": Published(
        "uniformer_b_image", _IMAGE, "uniformer_base_in1k.pth",
        "82c01015818cb897b00a29352043053df53ce4c02c2d012226b3a8a12ccb60eb", 1000, "imagenet",
    ),
    "uniformer_s16_k400": Published(
        "uniformer_s", _VIDEO, "uniformer_small_k400_16x8.pth",
        "d5fd7b0c49ee6a5422ef5d0c884d962c742003bfbd900747485eb99fa269d0db", 400, "kinetics400", 16, 8,
    ),
    "uniformer_b16_k400": Published(
        "uniformer_b", "Andy1621/uniformer", "uniformer_base_k400_16x4.pth",
        "a36e08ecff0a2b11020d6e88046353f80fdeb10b40fe167f2fbc0c1d976fb873", 400, "kinetics400", 16, 4,
    ),
    "uniformer_b32_k400": Published(
        "uniformer_b", _VIDEO, "uniformer_base_k400_32x4.pth",
        "b432450566cdc4f50222e4851b5d304bba4444a699cdbb43fa529ceb18ae1f8e", 400, "kinetics400", 32, 4,
    ),
    "uniformer_s16_k600": Published(
        "uniformer_s", _VIDEO, "uniformer_small_k600_16x8.pth",
        "2a9143a63691c442b23f912ed3489e5800fc5916fb7aa1b25322ad5da2466c6f", 600, "", 16, 8,
    ),
    "uniformer_b32_k600": Published(
        "uniformer_b", _VIDEO, "uniformer_base_k600_32x4.pth",
        "d44685e1d12e5aa413032e7719a8be45b95a19da4e7f76ac0e811f9a6f4825ae", 600, "", 32, 4,
    ),
}  # fmt: skip


def is_remote(source: str) -> bool:
    """Return whether a source of weights is a name of the zoo or of the Hub."""
    return source in ZOO or source.startswith(HUB_PREFIX)


def fetch(source: str, file: str = "model.safetensors") -> str:
    """Return the local path of a file of the Hub, downloaded if need be into the cache that other tools share.

    Args:
        source: a name of ``ZOO``, or ``hf-hub:USER/REPOSITORY[/FILE]``.
        file: the file where ``source`` names none.

    Raises:
        UserError: no such repository or file, no network, or content that is not what was published.
    """
    if source in ZOO:
        repository, file = ZOO[source].repository, ZOO[source].file
    else:
        parts = source.removeprefix(HUB_PREFIX).split("/", 2)
        if len(parts) < 2 or not all(parts):
            raise UserError(f"{source!r} is not of the form {HUB_PREFIX}USER/REPOSITORY[/FILE]")
        repository, file = "/".join(parts[:2]), parts[2] if len(parts) > 2 else file
    path = full_path(os.path.join(LOCAL_FOLDER, file))
    if source not in ZOO or not os.path.isfile(path):
        path = _download(repository, file, f"put it at {path}" if source in ZOO else "name that file instead")
    if source in ZOO and (found := _sha256(path)) != ZOO[source].sha256:
        problem = f"SHA-256 {found}, the published file {ZOO[source].sha256}"
        raise UserError(f"{path} has {problem}: delete it, and it is fetched anew")
    return path


def _download(repository: str, file: str, instead: str) -> str:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        if not isinstance(try_to_load_from_cache(repository, file), str):
            logger.info("fetching %s of %s from the Hugging Face Hub", file, repository)
            # Fails at once without network, where the download itself would try for half a minute.
            get_hf_file_metadata(hf_hub_url(repository, file), timeout=10)
        return hf_hub_download(repository, file)
    except (EntryNotFoundError, RepositoryNotFoundError) as error:
        if not isinstance(error, LocalEntryNotFoundError):
            problem = f"has no {file}" if isinstance(error, EntryNotFoundError) else "does not exist or is private"
            raise UserError(f"{HUB_PREFIX}{repository} {problem} on the Hugging Face Hub") from error
        reason = error
    except Exception as error:  # of its network library, whichever it uses
        reason = error
    why = (str(reason) or type(reason).__name__).splitlines()[0]
    advice = f"download {file} of https://huggingface.co/{repository} elsewhere and {instead}"
    raise UserError(f"the Hugging Face Hub cannot be reached ({why}), and {file} is not in its cache: {advice}")


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
