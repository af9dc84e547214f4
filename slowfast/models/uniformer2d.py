"""UniFormer for still images (arXiv 2201.09450), and EMIM in it (arXiv 2510.18705, Table 9).

The same network without the axis of time: two-dimensional convolutions and batch norms under the same parameter names,
those of the published ImageNet models. EMIM attends inside the image, queries, keys and values being those of the same
frame, and has no motion features.

Dimension letters: ``B`` images, ``C`` channels, ``H W`` pixels or tokens.
"""

from __future__ import annotations

import torch

from slowfast.models.build import MODEL_REGISTRY
from slowfast.models.uniformer import Uniformer


@MODEL_REGISTRY.register()
class Uniformer2d(Uniformer):
    """:class:`Uniformer` on clips of one frame (B, 3, 1, H, W); its maps are (B, C_i, H_i, W_i).

    It takes the arguments of :class:`Uniformer`; ``temporal_downsample`` must be False.
    """

    # Of a map: height and width.
    axes = 2

    @classmethod
    def from_config(cls, cfg) -> Uniformer2d:
        """Build from the MODEL, UNIFORMER and EMIM sections.

        Raises:
            ValueError: motion features are on, or any error of :meth:`Uniformer.from_config`.
        """
        if cfg.EMIM.MOTION:
            raise ValueError(
                "EMIM.MOTION is True, but there is no motion in the still images of MODEL.MODEL_NAME Uniformer2d: "
                "set EMIM.MOTION to False"
            )
        return super().from_config(cfg)

    def to_map(self, clips: torch.Tensor) -> torch.Tensor:
        """Return clips of one frame (B, 3, 1, H, W) as images (B, 3, H, W), channels last in memory.

        Raises:
            ValueError: clips of another form, or of more than one frame.
        """
        if clips.dim() != 5 or clips.shape[1:3] != (3, 1):
            raise ValueError(
                f"clips must be (B, 3, 1, H, W) for a model of still images (DATA.NUM_FRAMES 1), "
                f"found {tuple(clips.shape)}"
            )
        return clips.squeeze(2).contiguous(memory_format=torch.channels_last)
