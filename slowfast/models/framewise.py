"""Image networks of timm on the frames of a clip: TSN (arXiv 1608.00859) and, with a shift, TSM (arXiv 1811.08383).

``B`` clips, ``C`` channels, ``T`` frames, ``K`` classes.
"""

import inspect
import logging
import re
from difflib import get_close_matches
from typing import Any, ClassVar

import torch
from torch import nn

from slowfast.models.beside import add_emim
from slowfast.models.build import MODEL_REGISTRY, construct
from slowfast.models.wrapped import Wrapped, preferred_data
from slowfast.utils.errors import UserError

logger = logging.getLogger(__name__)


@MODEL_REGISTRY.register()
class Timm(Wrapped):
    """An image network on every frame, whose logits are averaged.

    ``MODEL.ARGS`` are those of its class, and ``shift``: the share of the channels, 8 for an eighth, that a residual
    branch sees of the next frame, and as many of the frame before; and ``emim``: EMIM between neighbouring frames,
    with the first of EMIM.WINDOW, beside the attention of one in so many blocks of a vision transformer, or with
    ``emim_in_place`` in place of it. 0 is none.
    """

    LIBRARY = "timm"
    num_frames = 0  # of all clips, where frames see each other
    TINY: ClassVar[dict[str, Any]] = {
        "MODEL.MODEL_NAME": "timm/test_resnet",
        "MODEL.ARGS": {"shift": 8, "zero_init_last": False},
        "DATA.NUM_FRAMES": 4,
    }

    @classmethod
    def from_name(cls, name: str, cfg) -> "Timm":
        import timm

        if name not in timm.list_models():
            near = ", ".join(f"timm/{one}" for one in get_close_matches(name, timm.list_models()))
            raise UserError(f"timm has no network {name!r} (MODEL.MODEL_NAME); near it: {near or 'none'}")
        with torch.device("meta"):
            spelled = inspect.signature(type(timm.create_model(name))).parameters
        sizes = {"num_classes": cfg.MODEL.NUM_CLASSES}
        sizes |= {"img_size": cfg.DATA.TRAIN_CROP_SIZE} if "img_size" in spelled else {}

        def make(shift: int = 0, emim: int = 0, emim_in_place: bool = False, **others: Any) -> nn.Module:
            model = timm.create_model(name, **others)
            num_first = getattr(model, "num_prefix_tokens", 0)
            if emim_in_place and num_first:
                rule = "a network without class token (class_token False, global_pool avg)"
                raise UserError(f"MODEL.ARGS: emim_in_place needs {rule}, for that has no place in the grid")
            if emim or emim_in_place:
                grid = getattr(getattr(model, "patch_embed", None), "grid_size", (0, 0))
                blocks = [*getattr(model, "blocks", [model])]
                # The class token no longer sees what the last block adds to the others.
                blocks = blocks[:-1] if getattr(model, "global_pool", "") == "token" else blocks
                add_emim({3: blocks}, emim, cfg, (cfg.DATA.NUM_FRAMES, *grid), emim_in_place, num_first)
            if shift:
                _shift_channels(model, cfg.DATA.NUM_FRAMES, shift)
            return model

        model = construct(make, cfg, [one for one in spelled if one not in ("device", "dtype")], **sizes)
        facts = model.pretrained_cfg
        if not isinstance(facts["classifier"], str):
            raise UserError(f"{cfg.MODEL.MODEL_NAME} has classifiers {', '.join(facts['classifier'])}; allowed: one")
        data = ([*facts["mean"]], [*facts["std"]]), cfg.DATA.NUM_FRAMES, facts["input_size"][-1]
        network = cls(model, facts["classifier"], preferred_data(*data))
        if any(cfg.MODEL.ARGS.get(name) for name in ("shift", "emim")):
            network.num_frames = cfg.DATA.NUM_FRAMES
        return network

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        if clips.shape[2] != (self.num_frames or clips.shape[2]):  # frames of two clips would meet
            allowed = f"with shift or emim those of DATA.NUM_FRAMES, {self.num_frames}"
            raise UserError(f"clips have {clips.shape[2]} frames; allowed: {allowed}")
        logits = self.model(clips.transpose(1, 2).flatten(0, 1))  # (B T, K)
        return logits.view(clips.shape[0], clips.shape[2], logits.shape[1]).mean(1)

    def map_source(self) -> tuple[nn.Module, str]:
        return self.model, "forward_features"

    def as_map(self, x: torch.Tensor, num_clips: int) -> torch.Tensor:
        if x.dim() != 4 or x.shape[1] != self.model.num_features:  # tokens, or channels last
            super().map_source()
        return x.unflatten(0, (num_clips, -1)).transpose(1, 2)  # of (B T, C, H', W')

    def position_grids(self, name: str) -> list[tuple[int, ...]]:
        return [tuple(self.model.patch_embed.grid_size)] if name == "model.pos_embed" else []

    def recompute(self, cfg) -> None:
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.modules()):
            super().recompute(cfg)  # they would count every batch twice
        try:
            self.model.set_grad_checkpointing(True)
        except AssertionError:  # of the networks of timm that cannot
            super().recompute(cfg)
        logger.info("MODEL.CHECKPOINT_NUM: timm recomputes all blocks")


class ChannelShift:
    """Forward pre-hook that shifts one in ``share`` channels a frame back in time, and as many a frame ahead.

    Args:
        num_frames: of a clip; inputs are (B T, C, H, W), or have their channels last.
        share: 8 for an eighth.
        axis: of the channels.
    """

    def __init__(self, num_frames: int, share: int, axis: int) -> None:
        self.num_frames, self.share, self.axis = num_frames, share, axis

    def __call__(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        x = inputs[0].unflatten(0, (-1, self.num_frames)).movedim(self.axis, 2)  # (B, T, C, ...)
        fold = x.shape[2] // self.share
        ahead, back, rest = x.split([fold, fold, x.shape[2] - 2 * fold], dim=2)
        zero = torch.zeros_like(ahead[:, :1])
        shifted = torch.cat(
            [torch.cat([ahead[:, 1:], zero], dim=1), torch.cat([zero, back[:, :-1]], dim=1), rest], dim=2
        )
        return (shifted.movedim(2, self.axis).flatten(0, 1), *inputs[1:])


def _shift_channels(model: nn.Module, num_frames: int, share: int) -> None:
    """Shift channels in front of the residual branch of every block."""
    count = 0
    for name, block in model.named_modules():
        first = getattr(block, "conv1", None) or getattr(block, "norm1", None)
        if re.search(r"\.\d+$", name) and isinstance(first, nn.Module):
            is_first = isinstance(first, (nn.Conv2d, nn.GroupNorm)) or type(first).__name__.endswith("2d")
            axis = 2 if is_first else -1  # of the channels
            first.register_forward_pre_hook(ChannelShift(num_frames, share, axis))
            count += 1
    if not count:
        raise UserError("MODEL.ARGS: shift needs residual blocks that begin with conv1 or norm1, which it has none of")
