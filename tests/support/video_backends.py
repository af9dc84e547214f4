"""The video backends as test parameters; those that cannot run here are skipped with the reason."""

from __future__ import annotations

import pytest

from slowfast.datasets.decoder import decord_video, torchcodec_video

UNAVAILABLE = {"decord": decord_video.why_unavailable(), "torchcodec": torchcodec_video.why_unavailable()}
OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(why is not None, reason=str(why))) for name, why in UNAVAILABLE.items()
]
BACKENDS = ["pyav", *OTHERS]
