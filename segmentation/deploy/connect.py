"""A client of a cluster that stands or was started: connected, and closed whatever became of it."""

from __future__ import annotations

import contextlib
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from segmentation.deploy import admission, package_upload
from segmentation.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from segmentation.deploy.kinds import Deployment

#: Until a scheduler answers, seconds.
_CONNECT_SECONDS = 10.0


@contextmanager
def connect(standing: Deployment, name: str) -> Iterator[Any]:
    """Yield a client of a cluster; take back what is ours there, and close it, at the end.

    Raises
    ------
    ClusterError
        If nobody answers, or not as a scheduler of this Dask would.
    """
    from distributed import Client
    from distributed.versions import VersionMismatchWarning

    with contextlib.ExitStack() as stack:
        try:
            options = {"security": standing.security} if standing.security else {}
            with warnings.catch_warnings():
                # Of versions that differ the checks tell, with a remedy.
                warnings.simplefilter("ignore", VersionMismatchWarning)
                made = _in_time(
                    lambda: Client(
                        standing.target, timeout=_CONNECT_SECONDS, name="segmentation", **options
                    )
                )
            client = stack.enter_context(_quiet(made))
        except Exception as error:
            raise ClusterError(_unreachable(standing.target, name, error)) from error
        stack.callback(_withdraw, client)
        yield client


def _in_time(connect: Callable[[], Any]) -> Any:
    """Connect, or give up: who listens and says nothing would be waited for without an end."""
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(connect())
        except BaseException as error:
            answers.append(error)

    thread = threading.Thread(target=run, name="connect", daemon=True)
    thread.start()
    thread.join(2 * _CONNECT_SECONDS)
    if not answers:
        raise TimeoutError("no answer")
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]


@contextmanager
def _quiet(client: Any) -> Iterator[Any]:
    """Close a client whose scheduler may be gone."""
    try:
        # Whatever another client in this process may be the default of.
        with client.as_current():
            yield client
    finally:
        with contextlib.suppress(Exception):
            client.close(timeout=_CONNECT_SECONDS)


def _withdraw(client: Any) -> None:
    # A scheduler that is gone holds nothing of ours.
    for take_back in (admission.stop_watching, package_upload.remove_package):
        with contextlib.suppress(Exception):
            if client.status == "running":
                take_back(client)


def _unreachable(target: Any, name: str, error: BaseException) -> str:
    where = target if isinstance(target, str) else f"cluster {name!r}"
    words = " ".join(str(found) for found in _chain(error))
    if "expired" in words:
        return f"{where}: its certificate has expired: make new ones (segmentation certificates)"
    if "CERTIFICATE_VERIFY_FAILED" in words or "certificate" in words.lower():
        return (
            f"{where}: the certificates don't fit one another (is ca_file the one that signed the "
            "scheduler's?): name the right ones, or make new ones"
        )
    if isinstance(error, (OSError, TimeoutError)):
        told = (
            "" if not where.startswith("tls://") else ", or does it not speak TLS or refuse yours"
        )
        return (
            f"{where}: nobody answers there: is the scheduler up, and the address right{told}? "
            "Start it with: dask scheduler"
        )
    return (
        f"{where}: speaks otherwise than this job ({type(error).__name__}: "
        f"{' '.join(str(error).split())[:200]}): run the same versions of dask and distributed"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
