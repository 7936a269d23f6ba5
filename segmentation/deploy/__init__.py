"""Turn a file of ``cluster_config/`` into a checked :class:`distributed.Client`.

:func:`open_cluster` starts a cluster or connects to a running one, sends the package to workers
that lack it, and yields a :class:`Cluster`, whose :class:`Budget` says how much memory there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmentation.deploy.core import Cluster, load_config, open_cluster
    from segmentation.deploy.memory_budget import Budget

__all__ = ["Budget", "Cluster", "load_config", "open_cluster"]


def __getattr__(name: str) -> Any:
    # Workers import modules of this package one by one, and need no cluster of their own.
    if name in ("Cluster", "load_config", "open_cluster"):
        from segmentation.deploy import core

        return getattr(core, name)
    if name == "Budget":
        from segmentation.deploy.memory_budget import Budget

        return Budget
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
