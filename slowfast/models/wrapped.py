"""Networks of torchvision and transformers, behind the contract of models, with their own parameter names.

``B`` clips, ``C`` channels, ``T`` frames, ``K`` classes.
"""

import inspect
import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from slowfast.models.beside import add_emim
from slowfast.models.build import MODEL_REGISTRY, Model, construct
from slowfast.ops.layers import Conv3d
from slowfast.utils.errors import UserError

logger = logging.getLogger(__name__)

KINETICS = ([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989])
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
MIDDLE = ([0.45] * 3, [0.225] * 3)
HALF = ([0.5] * 3, [0.5] * 3)

# Path of the classifier, path of the module that gives the map before pooling ("" for none), and the data under which
# weights were published: mean and standard deviation, frames and side (px).
TORCHVISION = {
    "r3d_18": ("fc", "layer4", KINETICS, 16, 112),
    "mc3_18": ("fc", "layer4", KINETICS, 16, 112),
    "r2plus1d_18": ("fc", "layer4", KINETICS, 16, 112),
    "s3d": ("classifier.1", "features", KINETICS, 16, 224),
    "mvit_v1_b": ("head.1", "", MIDDLE, 16, 224),
    "mvit_v2_s": ("head.1", "", MIDDLE, 16, 224),
    "swin3d_t": ("head", "norm", IMAGENET, 32, 224),
    "swin3d_s": ("head", "norm", IMAGENET, 32, 224),
    "swin3d_b": ("head", "norm", IMAGENET, 32, 224),
}
# Class without its endings, names of frames and side in its configuration, name of its input, and the data.
TRANSFORMERS = {
    "timesformer": ("Timesformer", "num_frames", "image_size", "pixel_values", MIDDLE, 8, 224),
    "videomae": ("VideoMAE", "num_frames", "image_size", "pixel_values", IMAGENET, 16, 224),
    "vivit": ("Vivit", "num_frames", "image_size", "pixel_values", HALF, 32, 224),
    "vjepa2": ("VJEPA2", "frames_per_clip", "crop_size", "pixel_values_videos", IMAGENET, 64, 256),
}
BLOCK = re.compile(r"(features\.\d+(\.\d+)?|((stages|layers?)\.\d+\.)?(blocks|layers?)\.\d+(\.\d+)?|layer\d+\.\d+)\.")


def preferred_data(normalization: tuple[list, list], frames: int, side: int) -> dict[str, Any]:
    """Return the settings of the data under which a network was published."""
    mean, std = normalization
    return {"DATA.MEAN": mean, "DATA.STD": std, "DATA.NUM_FRAMES": frames, "DATA.TRAIN_CROP_SIZE": side}


class Wrapped(Model):
    """A network of a library as ``model``, whose classifier is at ``head_path`` in it."""

    SECTIONS = ("MODEL.ARGS", "EMIM")
    TRAINING_ONLY = ("EMIM.ZERO_INIT_MOTION", "EMIM.BACKEND")
    NETWORKS: ClassVar[dict[str, tuple]] = {}

    def __init__(self, model: nn.Module, head_path: str, preferred: dict[str, Any], map_path: str = "") -> None:
        super().__init__()
        self.model, self.preferred = model, preferred
        self.head_path, self.map_path = head_path, map_path

    @classmethod
    def from_config(cls, cfg) -> "Wrapped":
        name = cfg.MODEL.MODEL_NAME.partition("/")[2]
        if cls.NETWORKS and name not in cls.NETWORKS:
            known = ", ".join(f"{cls.LIBRARY}/{one}" for one in cls.NETWORKS)
            raise UserError(f"MODEL.MODEL_NAME {cfg.MODEL.MODEL_NAME!r} is none of {known}")
        with torch.device("meta"):
            probe = cls.from_name(name, cfg)
        probe.eval()
        sides = {cfg.DATA[key]: key for key in ("TEST_CROP_SIZE", "TRAIN_CROP_SIZE")}
        for key in sides.values():
            shape = (1, 3, cfg.DATA.NUM_FRAMES, cfg.DATA[key], cfg.DATA[key])
            try:
                with torch.no_grad():
                    probe(torch.empty(shape, device="meta"))
            except Exception as error:  # of a library, which fails somewhere inside
                size = f"clips of DATA.NUM_FRAMES {shape[2]} frames and DATA.{key} {shape[3]} px"
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                raise UserError(f"{cfg.MODEL.MODEL_NAME} cannot take {size} ({reason})") from error
        model = cls.from_name(name, cfg)
        if any(cfg.MODEL.CHECKPOINT_NUM):
            model.recompute(cfg)
        return model

    @classmethod
    def from_name(cls, name: str, cfg) -> "Wrapped":
        """Build the network ``name`` of the library, for classes, frames and side of the configuration."""
        raise NotImplementedError

    @property
    def head(self) -> nn.Module:
        return self.model.get_submodule(self.head_path)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) of clips (B, 3, T, H, W)."""
        return self.model(clips)

    def map_source(self) -> tuple[nn.Module, str]:
        return (self.model.get_submodule(self.map_path), "forward") if self.map_path else super().map_source()

    def recompute(self, cfg) -> None:
        """Recompute the activations of all blocks in the backward pass, where the library can."""
        given = f"MODEL.CHECKPOINT_NUM is {cfg.MODEL.CHECKPOINT_NUM}"
        raise UserError(f"{given}, but {cfg.MODEL.MODEL_NAME} cannot recompute activations; allowed: [0, 0, 0, 0]")

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the stem, the blocks one by one, and all that comes after them, as the last."""
        found = [(name, parameter, BLOCK.search(name)) for name, parameter in self.model.named_parameters()]
        last = max((place for place, (*_, match) in enumerate(found) if match), default=0)
        groups: dict[str, list[nn.Parameter]] = {"": []}
        key = ""
        for place, (name, parameter, match) in enumerate(found):  # between blocks, such as a pooling: with that before
            key = name[: match.end()] if match else ("head" if last and place > last else key)
            groups.setdefault(key, []).append(parameter)
        return [group for group in groups.values() if group] if len(groups) > 2 else []

    def stage_of(self, name: str) -> str:
        inner = name.removeprefix("model.")
        if f"{inner}.".startswith(f"{self.head_path}."):
            return "head"
        match = re.search(r"([a-z]\w*)\.(\d+)", inner)
        return f"{match[1]} {match[2]}" if match else inner.partition(".")[0] or "other"


@MODEL_REGISTRY.register()
class Torchvision(Wrapped):
    """Video networks of torchvision.

    ``MODEL.ARGS`` are those of their classes, for ResNets also width, for MViT width and depth, for Swin ``emim``: EMIM
    beside the attention of one in so many blocks of stages 3 and 4, 0 for none, or with ``emim_in_place`` in place of
    it.
    """

    LIBRARY, NETWORKS = "torchvision", TORCHVISION
    TINY: ClassVar[dict[str, Any]] = {
        "MODEL.MODEL_NAME": "torchvision/swin3d_t",
        "MODEL.ARGS": {"embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2], "window_size": [2, 4, 4]},
    }

    @classmethod
    def from_name(cls, name: str, cfg) -> "Torchvision":
        head_path, map_path, *data = TORCHVISION[name]
        sizes = {"num_classes": cfg.MODEL.NUM_CLASSES}
        if name.startswith("mvit"):
            side = (cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE)
            sizes |= {"spatial_size": side, "temporal_size": cfg.DATA.NUM_FRAMES}
        make = _torchvision(name)
        known = {*inspect.signature(make).parameters, *(("dropout", "attention_dropout") if "mvit" in name else ())}
        swin, resnet = {"emim", "emim_in_place"}, {"layers", "zero_init_residual"}
        known |= swin if "swin" in name else resnet if name.endswith("_18") else set()

        def make_with_emim(**args: Any) -> nn.Module:
            every, in_place = args.pop("emim", 0), args.pop("emim_in_place", False)
            model = make(**args)
            for module in model.modules():
                if type(module) is nn.Conv3d:
                    module.__class__ = Conv3d  # the same, but for its speed
            if every or in_place:
                add_emim({3: model.features[4], 4: model.features[6]}, every, cfg, in_place=in_place)
            return model

        model = construct(make_with_emim, cfg, known, **sizes)
        return cls(model, head_path, preferred_data(*data), map_path)

    def position_grids(self, name: str) -> list[tuple[int, ...]]:
        module = self.get_submodule(name.rpartition(".")[0])
        if name.endswith("relative_position_bias_table"):
            return [tuple(2 * size - 1 for size in module.window_size), (15, 13, 13)]
        if name.endswith("spatial_pos"):
            return [tuple(module.spatial_size)]
        return [(len(self.get_parameter(name)),)] if re.search(r"\.(temporal_pos|rel_pos_[htw])$", name) else []

    def as_map(self, x: torch.Tensor, num_clips: int) -> torch.Tensor:
        return x.movedim(-1, 1) if self.map_path == "norm" else x  # Swin has channels last


def _torchvision(name: str) -> Callable[..., nn.Module]:
    """Return the constructor of a network, whose defaults are those of the function of that name in torchvision."""
    from torchvision.models.video import resnet, swin_transformer
    from torchvision.models.video.s3d import S3D

    if name == "s3d":
        return S3D
    if name.startswith("mvit"):
        return _mvit_v2 if name == "mvit_v2_s" else _mvit_v1
    if name.startswith("swin3d"):
        heads, deep = [3, 6, 12, 24] if name != "swin3d_b" else [4, 8, 16, 32], [2, 2, 18, 2]
        sizes = {"embed_dim": 32 * heads[0], "depths": [2, 2, 6, 2] if name == "swin3d_t" else deep, "num_heads": heads}
        window = {"patch_size": [2, 4, 4], "window_size": [8, 7, 7]}
        return partial(swin_transformer.SwinTransformer3d, **window, **sizes, stochastic_depth_prob=0.1)
    convs = {
        "r3d_18": [resnet.Conv3DSimple] * 4,
        "mc3_18": [resnet.Conv3DSimple] + [resnet.Conv3DNoTemporal] * 3,
        "r2plus1d_18": [resnet.Conv2Plus1D] * 4,
    }
    stem = resnet.R2Plus1dStem if name == "r2plus1d_18" else resnet.BasicStem
    return partial(_video_resnet, convs[name], stem)


def _video_resnet(
    conv_makers: list, make_stem: Callable[[], nn.Sequential], num_classes: int, width: int = 64, **others: Any
) -> nn.Module:
    """Return a ResNet of 3-D convolutions (arXiv 1711.11248) with ``width`` channels in its first stage."""
    from torchvision.models.video.resnet import BasicBlock, VideoResNet

    class Narrow(VideoResNet):
        def _make_layer(self, block, conv_builder, planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
            self.inplanes = width if planes == 64 else self.inplanes
            return super()._make_layer(block, conv_builder, planes * width // 64, *args, **kwargs)

    def narrow_stem() -> nn.Sequential:
        stem = make_stem()  # ends with a convolution to 64 channels, a norm and an activation
        last = stem[-3]
        stem[-3] = nn.Conv3d(last.in_channels, width, last.kernel_size, last.stride, last.padding, bias=False)
        stem[-2] = nn.BatchNorm3d(width)
        return stem

    arguments = {"num_classes": num_classes, "layers": [2, 2, 2, 2], **others}
    if width == 64:
        return VideoResNet(BasicBlock, conv_makers, stem=make_stem, **arguments)
    model = Narrow(BasicBlock, conv_makers, stem=narrow_stem, **arguments)
    model.fc = nn.Linear(8 * width, num_classes)
    return model


def _mvit_v1(width: int = 96, depth: tuple = (1, 2, 11, 2), stochastic_depth_prob: float = 0.2, **others) -> nn.Module:
    """Return MViT (arXiv 2104.11227): heads and channels double in the last block before a stage."""
    return _mvit(1, width, depth, stochastic_depth_prob, residual_pool=False, **others)


def _mvit_v2(width: int = 96, depth: tuple = (1, 2, 11, 2), stochastic_depth_prob: float = 0.2, **others) -> nn.Module:
    """Return MViTv2 (arXiv 2112.01526): heads and channels double in the first block of a stage."""
    settings = {"residual_pool": True, "rel_pos_embed": True, "proj_after_attn": True}
    return _mvit(2, width, depth, stochastic_depth_prob, **settings, **others)


def _mvit(version: int, width: int, depth: tuple, stochastic_depth_prob: float, **others) -> nn.Module:
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    stages = [stage for stage, count in enumerate(depth) for _ in range(count)]
    blocks = []
    for before, stage, after in zip([0, *stages], stages, [*stages[1:], stages[-1]]):
        is_first = stage > before
        first, last = (before, stage) if version == 2 else (stage, after)  # of the channels in and out
        pools_query = is_first or version == 2
        blocks.append(
            MSBlockConfig(
                num_heads=2**stage,
                input_channels=width * 2**first,
                output_channels=width * 2**last,
                kernel_q=[3, 3, 3] if pools_query else [],
                kernel_kv=[3, 3, 3],
                stride_q=([1, 2, 2] if is_first else [1, 1, 1]) if pools_query else [],
                stride_kv=[1, 8 // 2**stage, 8 // 2**stage],
            )
        )
    prob = {"stochastic_depth_prob": stochastic_depth_prob, "residual_with_cls_embed": False}
    return MViT(block_setting=blocks, **{"rel_pos_embed": False, "proj_after_attn": False, **others}, **prob)


@MODEL_REGISTRY.register()
class Transformers(Wrapped):
    """Video transformers of Hugging Face; ``MODEL.ARGS`` are those of their configurations."""

    LIBRARY, NETWORKS = "transformers", TRANSFORMERS
    TINY: ClassVar[dict[str, Any]] = {
        "MODEL.MODEL_NAME": "transformers/timesformer",
        "MODEL.ARGS": {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64
        },
        "DATA.NUM_FRAMES": 4,
        "DATA.TRAIN_CROP_SIZE": 64,
        "DATA.TEST_CROP_SIZE": 64,
    }  # fmt: skip

    def __init__(self, model: nn.Module, argument: str, preferred: dict[str, Any], map_path: str) -> None:
        super().__init__(model, "classifier", preferred, map_path)
        self.argument = argument

    @classmethod
    def from_name(cls, name: str, cfg) -> "Transformers":
        try:
            import transformers
        except ImportError as error:
            advice = 'pip install "slowfast-emim[zoo]", in the repository pip install -r requirements-zoo.txt'
            raise UserError(f"{cfg.MODEL.MODEL_NAME} needs the package transformers ({advice})") from error
        prefix, frames, side, argument, *data = TRANSFORMERS[name]
        kind = getattr(transformers, f"{prefix}Config")

        def make(**args: Any) -> Any:
            rate = args.pop("drop_path_rate", 0)
            config = kind(**args)
            if rate:  # declared as an integer, and checked
                object.__setattr__(config, "drop_path_rate", rate)
            return config

        sizes = {frames: cfg.DATA.NUM_FRAMES, side: cfg.DATA.TRAIN_CROP_SIZE, "num_labels": cfg.MODEL.NUM_CLASSES}
        config = construct(make, cfg, inspect.signature(kind).parameters, **sizes)
        model = getattr(transformers, f"{prefix}ForVideoClassification")(config)
        if name == "vjepa2":
            model.vjepa2.predictor = nn.Identity()  # of the pre-training, never called
        has_map = name == "videomae" and config.use_mean_pooling
        map_path = f"videomae.encoder.layer.{config.num_hidden_layers - 1}" if has_map else ""
        return cls(model, argument, preferred_data(*data), map_path)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.model(**{self.argument: clips.transpose(1, 2)}).logits

    def as_map(self, x: torch.Tensor, num_clips: int) -> torch.Tensor:
        side = self.model.config.image_size // self.model.config.patch_size
        return x.mT.unflatten(2, (-1, side, side))  # of tokens (B, T' H' W', C)

    def position_grids(self, name: str) -> list[tuple[int, ...]]:
        config = self.model.config
        if name.endswith("time_embeddings"):
            return [(config.num_frames,)]
        if not name.endswith("position_embeddings"):
            return []
        if hasattr(config, "patch_size"):
            return [(config.image_size // config.patch_size,) * 2]
        frames, side, _ = config.tubelet_size  # ViViT's table is one for space and time
        return [(config.num_frames // frames, config.image_size // side, config.image_size // side), (16, 14, 14)]

    def recompute(self, cfg) -> None:
        self.model.activation_checkpointing_enable()
        logger.info("MODEL.CHECKPOINT_NUM: transformers recomputes all blocks")
