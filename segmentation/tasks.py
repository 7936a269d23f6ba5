"""Submitting tasks, and putting data on the cluster so that it survives the loss of a worker."""

from __future__ import annotations

import copy
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client, Future

_T = TypeVar("_T")


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

    ``Client.scatter`` would keep it only as long as the worker that holds it.
    """
    return client.submit(_identity, value, key=f"{name}-{uuid.uuid4().hex[:8]}")


def _identity(value: _T) -> _T:
    return value


def copy_item(result: tuple[Any, ...], index: int) -> Any:
    """Return a copy of one item of a task's result.

    Every array of a result that was spilled to disk is a view of the whole result: an item that is
    not a copy would keep all of it in memory.
    """
    return copy.deepcopy(result[index])
