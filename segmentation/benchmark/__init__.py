"""Time the program next to its peers, on the same data in the same run.

:func:`benchmark_job` times the whole job, :func:`benchmark_estimators` K-Means and PCA alone, and
:func:`benchmark_scaling` fits a cost model of the job and checks it. Each writes its results to a
folder: a table, a JSON record and, for the whole job, a figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmentation.benchmark.cost_model import benchmark_scaling
    from segmentation.benchmark.estimator_report import benchmark_estimators
    from segmentation.benchmark.job_report import benchmark_job

__all__ = ["benchmark_estimators", "benchmark_job", "benchmark_scaling"]

_MODULES = {
    "benchmark_estimators": "estimator_report",
    "benchmark_job": "job_report",
    "benchmark_scaling": "cost_model",
}


def __getattr__(name: str) -> Any:
    # The processes of the peers import this package, and must not pay for importing the reports.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
