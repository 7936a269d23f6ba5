"""Start the cluster that a file of ``cluster_config/`` describes, or connect to it, and check it.

:func:`open_cluster` starts a cluster or connects to a running one, sends the package to workers
that lack it, and yields a :class:`Cluster` with the :class:`Budget` of its workers' memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmentation.deploy.core import Cluster, load_config, open_cluster
    from segmentation.deploy.memory_budget import Budget

__all__ = ["Budget", "Cluster", "load_config", "open_cluster"]


def __getattr__(name: str) -> Any:
    # Lazily, because workers import only some modules of this package.
    if name in ("Cluster", "load_config", "open_cluster"):
        from segmentation.deploy import core

        return getattr(core, name)
    if name == "Budget":
        from segmentation.deploy.memory_budget import Budget

        return Budget
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
