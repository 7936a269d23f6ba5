"""What several kinds of cluster share: keys of a file as arguments, and optional packages."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from segmentation.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Where pages listen unless a file says otherwise.
LOOPBACK = "127.0.0.1:0"


def threads(config: Mapping[str, Any]) -> int:
    """Return the threads of each worker."""
    return int(config.get("threads_per_worker") or 1)


def package(module: str, extra: str) -> Any:
    """Import a package of an extra.

    Raises
    ------
    UsageError
        If it is not installed; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} is not installed: install {extra}") from error


def pages(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a scheduler is told of its pages: where they are, on loopback unless asked."""
    asked = config.get("dashboard")
    return {"dashboard_address": asked or LOOPBACK, "dashboard": asked is not False}
