"""The jobs: one module per job, as few lines as it can be, and what the jobs share.

A job opens a :class:`~segmentation.pipeline.context.RunContext` and calls the functions of
:mod:`~segmentation.pipeline.stages`, each of which calls one other room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmentation.pipeline.choose_k import run_choose_k
    from segmentation.pipeline.convert import run_convert
    from segmentation.pipeline.segment import run_segment
    from segmentation.pipeline.settings import Execution, Settings

__all__ = ["Execution", "Settings", "run_choose_k", "run_convert", "run_segment"]

_MODULES = {
    "Execution": "settings",
    "Settings": "settings",
    "run_choose_k": "choose_k",
    "run_convert": "convert",
    "run_segment": "segment",
}


def __getattr__(name: str) -> Any:
    # A job must not pay for the imports of the others.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
