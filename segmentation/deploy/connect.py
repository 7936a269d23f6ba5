"""Connect a client to a scheduler, and remove the job's plugins from it at the end."""

from __future__ import annotations

import contextlib
import ssl
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from segmentation.deploy import admission, package_upload
from segmentation.errors import ClusterError, format_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client

    from segmentation.deploy.kinds import Deployment

#: Timeout for connecting to a scheduler and for closing the client.
_CONNECT_SECONDS = 10.0
#: The value of OpenSSL's ``X509_V_ERR_CERT_HAS_EXPIRED``.
_CERTIFICATE_HAS_EXPIRED = 10


@contextmanager
def connect(deployment: Deployment, name: str) -> Iterator[Client]:
    """Yield a client of a cluster; at the end, remove the job's plugins there and close it.

    Parameters
    ----------
    deployment
        The cluster to connect to.
    name
        The cluster's name, for messages about a cluster without an address.

    Raises
    ------
    ClusterError
        If no scheduler answers, or the client can't talk to it.
    """
    from distributed import Client
    from distributed.versions import VersionMismatchWarning

    with contextlib.ExitStack() as stack:
        try:
            options = {"security": deployment.security} if deployment.security else {}
            with warnings.catch_warnings():
                # The preflight checks report version mismatches, with a remedy.
                warnings.simplefilter("ignore", VersionMismatchWarning)
                connected = _call_with_timeout(
                    lambda: Client(
                        deployment.target, timeout=_CONNECT_SECONDS, name="segmentation", **options
                    )
                )
            client = stack.enter_context(_closing(connected))
        except Exception as error:
            where = deployment.target
            if not isinstance(where, str):
                where = f"cluster {name!r}"
            raise ClusterError(describe_connection_error(where, error)) from error
        stack.callback(_remove_plugins, client)
        yield client


def _call_with_timeout(connect: Callable[[], Client]) -> Client:
    """Connect in a thread with a timeout: a peer that never answers would block forever."""
    results: list[Client | BaseException] = []

    def run() -> None:
        try:
            results.append(connect())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, name="connect", daemon=True)
    thread.start()
    thread.join(2 * _CONNECT_SECONDS)
    if not results:
        raise TimeoutError("no answer")
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


@contextmanager
def _closing(client: Client) -> Iterator[Client]:
    """Yield a client as the current one, and close it even if its scheduler is gone."""
    try:
        # Another client in this process may be the current one.
        with client.as_current():
            yield client
    finally:
        with contextlib.suppress(Exception):
            client.close(timeout=_CONNECT_SECONDS)


def _remove_plugins(client: Client) -> None:
    # Best-effort: the scheduler may be gone.
    for remove in (admission.stop_watching, package_upload.remove_package):
        with contextlib.suppress(Exception):
            if client.status == "running":
                remove(client)


def describe_connection_error(where: str, error: BaseException) -> str:
    """Return the message for a connection that failed.

    Parameters
    ----------
    where
        The scheduler's address, or the cluster's name.
    error
        The exception that the client raised; its causes tell a TLS failure from a missing answer.
    """
    causes = list(_iterate_chain(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            if cause.verify_code == _CERTIFICATE_HAS_EXPIRED:
                return (
                    f"{where}: the scheduler's certificate has expired; make new ones "
                    "(segmentation certificates)"
                )
            return (
                f"{where}: the scheduler's certificate is not accepted ({cause.verify_message}); "
                "check that ca_file is the authority that signed it, or make new certificates "
                "(segmentation certificates)"
            )
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            reason = getattr(cause, "reason", None) or cause
            return (
                f"{where}: the TLS handshake failed ({reason}); check that the scheduler speaks "
                "TLS and that ca_file signed the certificates on both sides"
            )
    if isinstance(error, OSError):
        checks = "that it is running (dask scheduler) and the address"
        if where.startswith("tls://"):
            checks = "that it is running (dask scheduler), the address, and TLS on both sides"
        return f"{where}: no scheduler answered; check {checks}"
    return (
        f"{where}: the scheduler's answer was not understood ({type(error).__name__}: "
        f"{format_error(error)[:200]}); install the same versions of dask and distributed on both "
        "sides"
    )


def _iterate_chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what caused it or was being handled when it was raised, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
