"""Workers that join while a run is under way: looked at as those before, or turned away.

What stands at the gate is a plugin, which each worker sets up before it gets a task. Like the
package it goes by value, since whoever joins may lack whatever it is made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def watch_new_workers(
    client: Any, expected: Mapping[str, Any], warn: Callable[[str], None]
) -> None:
    """Turn away workers that differ from what is ``expected``, and tell who was.

    Parameters
    ----------
    expected
        As for :func:`segmentation.deploy.preflight.check_new_worker`, and ``known``: addresses and
        names of those that were looked at before.
    warn
        Is told, a line for each worker.
    """
    name = _name(client)
    client.subscribe_topic(name, lambda event: warn(f"turned away: {event[1]}"))
    client.register_plugin(_plugin(name, expected), name=name)


def stop_watching(client: Any) -> None:
    """Let workers that join from now on in."""
    client.unregister_worker_plugin(_name(client))


def _name(client: Any) -> str:
    return f"segmentation-gate-{client.id}"


def _plugin(name: str, expected: Mapping[str, Any]) -> Any:
    from distributed import WorkerPlugin

    class Gate(WorkerPlugin):  # type: ignore[misc]
        idempotent = False

        def setup(self, worker: Any) -> None:
            from distributed.core import Status

            # A nanny starts a worker that died anew under its name, at another address.
            if expected["known"] & {worker.address, worker.name}:
                return
            try:
                from segmentation.deploy import preflight

                found = preflight.check_new_worker(worker, expected)
            except Exception as error:
                found = [f"worker {worker.address} can't be looked at ({error!r}): see its log"]
            if found:
                # Nothing that waits for it is begun any more.
                worker.status = Status.paused
                worker.log_event(name, "; ".join(found))
                worker.loop.add_callback(worker.close, nanny=True, reason="segmentation-gate")

    return Gate()
