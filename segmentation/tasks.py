"""Submit tasks, put data on the cluster so that it survives lost workers, and configure Dask."""

from __future__ import annotations

import copy
import threading
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from distributed import Client, Future

_T = TypeVar("_T")

#: Key of Dask's configuration → how many blocks have set it, and its value before the first.
_config_before: dict[str, tuple[int, Any]] = {}
_config_lock = threading.Lock()
_MISSING = object()


def map_tasks(
    client: Client, name: str, function: Callable[..., Any], *columns: Any
) -> list[Future]:
    """Submit one task per row of the columns.

    Parameters
    ----------
    name
        Begins the key of each task, which ends with a token of this call and the task's number: a
        result of another call is never taken for one of this.
    function
        Called with one value of each column.
    columns
        A list holds one value per task; anything else goes to all of them.
    """
    token = uuid.uuid4().hex[:8]
    n_tasks = next(len(column) for column in columns if isinstance(column, list))
    if not n_tasks:
        return []
    # One message for all: one `submit` per task takes the scheduler about twice as long.
    futures: list[Future] = client.map(
        function,
        *(column if isinstance(column, list) else [column] * n_tasks for column in columns),
        key=[f"{name}-{token}-{i}" for i in range(n_tasks)],
    )
    return futures


def submit_value(client: Client, name: str, value: Any) -> Future:
    """Put a value on the cluster as the result of a task, which is run again where it is lost.

    ``Client.scatter`` would keep it only as long as the worker that holds it. Dask warns of such
    values from 10 MB on.
    """
    with set_dask_config({"distributed.admin.large-graph-warning-threshold": "1 GiB"}):
        return client.submit(_identity, value, key=f"{name}-{uuid.uuid4().hex[:8]}")


def _identity(value: _T) -> _T:
    return value


def copy_item(result: tuple[Any, ...], index: int) -> Any:
    """Return a copy of one item of a task's result.

    Every array of a result that was spilled to disk is a view of the whole result: an item that is
    not a copy would keep all of it in memory.
    """
    return copy.deepcopy(result[index])


@contextmanager
def set_dask_config(values: Mapping[str, Any]) -> Iterator[None]:
    """Set Dask's configuration, which all threads share, and restore it afterwards.

    ``dask.config.set`` restores what it found when it began: of two blocks in two threads that
    overlap, the one that ends last would leave the values of the other. Here the first block of a
    key remembers its value, and the last one restores it.
    """
    import dask

    with _config_lock:
        for key in values:
            n_users, before = _config_before.get(key, (0, None))
            if n_users == 0:
                before = dask.config.get(key, _MISSING)
            _config_before[key] = n_users + 1, before
        dask.config.set(dict(values))
    try:
        yield
    finally:
        with _config_lock:
            for key in values:
                n_users, before = _config_before.pop(key)
                if n_users > 1:
                    _config_before[key] = n_users - 1, before
                elif before is not _MISSING:
                    dask.config.set({key: before})
                else:
                    _delete_dask_config(key)


def _delete_dask_config(key: str) -> None:
    """Delete a key, and the sections that are empty without it."""
    import dask

    sections = [dask.config.config]
    *parents, name = key.split(".")
    for parent in parents:
        sections.append(sections[-1][dask.config.canonical_name(parent, sections[-1])])
    for section, written in zip(reversed(sections), (name, *reversed(parents)), strict=True):
        part = dask.config.canonical_name(written, section)
        if section is not sections[-1] and section[part]:
            return
        section.pop(part, None)
