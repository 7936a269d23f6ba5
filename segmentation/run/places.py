"""Folders of the user's that outlive a run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache(name: str = "") -> Path:
    """Return the folder for what can be made again: on a disk, where ``/tmp`` may be memory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "segmentation" / name


def scratch() -> Path:
    """Return a folder for what waits on disk: the cache, or /tmp if it is read-only."""
    wanted = cache("spill")
    try:
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir())
    return wanted if os.access(wanted, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
