"""The video backends as test parameters; decord is skipped where it cannot run."""

import pytest

from slowfast.datasets.decoder.decord_reader import import_decord
from slowfast.utils.errors import UserError


def _why_unavailable() -> str:
    try:
        import_decord()
    except UserError as error:
        return str(error)
    return ""


OTHERS = [pytest.param("decord", marks=pytest.mark.skipif(bool(_why_unavailable()), reason=_why_unavailable()))]
BACKENDS = ["pyav", *OTHERS]
