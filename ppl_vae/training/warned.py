"""A warning that points at the line of the user's script, however deep in here it arises."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

_HOME = str(Path(__file__).parents[1])


def warn(message: str) -> None:
    """Warn as of the first caller outside this library."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HOME):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level + 1)
