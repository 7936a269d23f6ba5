"""Plain tasks on a client: a function over columns of arguments, with keys that tell the stage."""

from __future__ import annotations

import copy
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def submit_value(client: Any, name: str, value: Any) -> Any:
    """Put a value on the cluster as a task's result, which is computed again where it is lost.

    What is scattered is gone with the workers that hold it.
    """
    return client.submit(_same, value, key=f"{name}-{uuid.uuid4().hex[:8]}")


def _same(value: Any) -> Any:
    return value


def copy_first(pair: tuple[Any, Any]) -> Any:
    """Return a copy of a pair's first.

    Of a result that was put on disk and is back each array is a view of the whole: a part that is
    not a copy would keep all of it in memory.
    """
    return copy.deepcopy(pair[0])


def copy_second(pair: tuple[Any, Any]) -> Any:
    """Return a copy of a pair's second, for the same reason."""
    return copy.deepcopy(pair[1])


def map_tasks(client: Any, name: str, function: Callable[..., Any], *columns: Any) -> list[Any]:
    """Map over columns of arguments; what is no list goes to every task as it is.

    Keys are ``name``, a token that no other call has, and the task's number: what was computed
    before is never taken for what is asked now.
    """
    token = uuid.uuid4().hex[:8]
    n = next(len(column) for column in columns if isinstance(column, list))
    if not n:
        return []
    # All in one message: a submit each takes the scheduler about twice as long.
    found: list[Any] = client.map(
        function,
        *(column if isinstance(column, list) else [column] * n for column in columns),
        key=[f"{name}-{token}-{i}" for i in range(n)],
    )
    return found
