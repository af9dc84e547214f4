"""Video Motion Prompts (arXiv 2407.03179): a layer of two numbers in front of any backbone.

The mathematics is that of the paper's released code. ``B`` clips, ``T`` frames that come out, ``H W`` size (px).
"""

from collections.abc import Sequence

import torch
from torch import nn

from slowfast.models.build import Model
from slowfast.utils.errors import UserError

ALPHA, BETA, EPS, GAMMA = 5.0, 0.45, 0.1, 0.6
# Weights of red, green and blue in the luma of ITU-R BT.601. The released code takes its RGB frames for BGR.
GREYS = {"rgb": (0.299, 0.587, 0.114), "released": (0.114, 0.587, 0.299)}


class MotionPrompt(nn.Module):
    """Frames weighted by what changed since the frame before.

    The signed difference D of two grey frames in [0, 1] becomes attention A = sigmoid(a (D - b)), with the slope
    a = 5 / (0.45 |tanh m| + 0.1) and the shift b = 0.6 tanh n, and multiplies the later of the two in its normalised
    values. Pixels that stay the same get sigmoid(-a b), which is not 0.

    Args:
        std: of the normalisation of the clips, per channel; their mean falls out of differences.
        grey: key of ``GREYS``.
        init: values of ``m`` and ``n``; empty draws them from a normal distribution, as released.
    """

    def __init__(self, std: Sequence[float], grey: str = "rgb", init: Sequence[float] = ()) -> None:
        super().__init__()
        m, n = torch.tensor(init).float().split(1) if len(init) else torch.normal(1e-5, 1.0, (2,)).split(1)
        self.m, self.n = nn.Parameter(m.clone()), nn.Parameter(n.clone())  # (1,) each
        self.weights = [weight * scale for weight, scale in zip(GREYS[grey], std)]

    @property
    def slope(self) -> torch.Tensor:
        return ALPHA / (BETA * self.m.tanh().abs() + EPS)

    @property
    def shift(self) -> torch.Tensor:
        return GAMMA * self.n.tanh()

    def differences(self, clips: torch.Tensor) -> torch.Tensor:
        """Return D (B, T, H, W), at least float32, of normalised RGB clips (B, 3, T + 1, H, W)."""
        if clips.shape[2] < 2:
            raise UserError(f"motion prompts need 2 frames or more (VMP.ENABLE), found clips {tuple(clips.shape)}")
        # In half precision the differences of neighbouring frames, and the slope times them, would be lost.
        x = clips.float() if clips.dtype in (torch.float16, torch.bfloat16) else clips
        grey = sum(weight * x[:, channel] for channel, weight in enumerate(self.weights))  # (B, T + 1, H, W)
        return grey.diff(dim=1)

    def attention(self, differences: torch.Tensor) -> torch.Tensor:
        """Return A of differences D, of any shape."""
        return (self.slope * (differences - self.shift)).sigmoid()

    def forward(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the prompts (B, 3, T, H, W) of clips (B, 3, T + 1, H, W), and the variation of A over time.

        The variation is the mean squared difference of successive maps, a mean over B, T - 1, H and W; 0 where T is 1.
        """
        attention = self.attention(self.differences(clips))
        variation = attention.diff(dim=1).square().mean() if attention.shape[1] > 1 else attention.new_zeros(())
        later = clips[:, :, 1:]
        return (attention[:, None] * later).to(clips.dtype), variation

    def scalars(self) -> dict[str, float]:
        """Return ``m``, ``n``, slope, shift and the attention of pixels that do not change."""
        values = torch.cat([self.m, self.n, self.slope, self.shift, (-self.slope * self.shift).sigmoid()])
        return dict(zip(("m", "n", "slope", "shift", "attention_of_stills"), values.tolist()))


class Prompted(Model):
    """A backbone behind a :class:`MotionPrompt`, under the names of the released checkpoints."""

    def __init__(self, prompt: MotionPrompt, model: Model, penalty_weight: float = 0.0) -> None:
        super().__init__()
        self.vmps, self.model = prompt, model
        self.penalty_weight, self.variation = penalty_weight, 0.0
        self.preferred = model.preferred
        self.SECTIONS, self.TRAINING_ONLY = (*model.SECTIONS, "VMP"), (*model.TRAINING_ONLY, "VMP.PENALTY", "VMP.INIT")

    @property
    def head(self) -> nn.Module:
        return self.model.head

    def prompts(self, clips: torch.Tensor) -> torch.Tensor:
        """Return what the backbone sees of clips (B, 3, T + 1, H, W); keep the penalty of a training step."""
        prompts, variation = self.vmps(clips)
        # No part of the graph of an evaluation, and none that a later step could use.
        is_training = self.training and torch.is_grad_enabled()
        self.penalty = self.penalty_weight * variation if is_training else 0.0
        if is_training:
            self.variation = variation.detach()
        return prompts

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.model(self.prompts(clips))

    def forward_features(self, clips: torch.Tensor) -> torch.Tensor:
        return self.model.forward_features(self.prompts(clips))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        groups = self.model.layer_groups()
        return [[*self.vmps.parameters(), *groups[0]], *groups[1:]] if groups else []

    def stage_of(self, name: str) -> str:
        return self.model.stage_of(name.removeprefix("model."))

    def position_grids(self, name: str) -> list[tuple[int, ...]]:
        inner = name.removeprefix("model.")
        return self.model.position_grids(inner) if inner != name else []

    def scalars(self) -> dict[str, float]:
        variation = float(self.variation)
        measured = {"variation": variation, "penalty": self.penalty_weight * variation}
        return self.vmps.scalars() | measured | self.model.scalars()


def with_prompts(model: Model, cfg) -> Model:
    """Put the layer that VMP describes in front of a model."""
    vmp, data, aug = cfg.VMP, cfg.DATA, cfg.AUG
    if data.DATASET == "ImageFolder" or data.SOURCE == "image":
        raise UserError("VMP.ENABLE is True, but still images do not move; allowed: False")
    if vmp.PENALTY and data.NUM_FRAMES < 2:
        raise UserError(f"VMP.PENALTY {vmp.PENALTY:g} compares prompts of 2 frames or more, DATA.NUM_FRAMES is 1")
    if aug.RE_PROB and aug.RE_MODE == "pixel":
        problem = "noise of its own in every frame would be one large motion; allowed: AUG.RE_MODE const, AUG.RE_PROB 0"
        raise UserError(f"AUG.RE_MODE is pixel with VMP.ENABLE: {problem}")
    return Prompted(MotionPrompt(data.STD, vmp.GREY, vmp.INIT), model, vmp.PENALTY)
