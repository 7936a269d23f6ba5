"""Make development certificates with trustme, and check the files that a client is configured with.

Anyone who has a certificate that the authority signed, and that certificate's private key, can run
code on the cluster, because Dask runs the code that it receives. The authority's own key is needed
only to sign further certificates.
"""

from __future__ import annotations

import datetime
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from segmentation.deploy.config import import_extra
from segmentation.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

CA, CA_KEY = "ca.pem", "ca-key.pem"
#: Role → the files of its certificate and key. Dask requires a pair from servers and clients.
ROLES = {role: (f"{role}.pem", f"{role}-key.pem") for role in ("scheduler", "worker", "client")}
MAX_DAYS = 3_650
_ORGANIZATION = "segmentation"
#: Other machines' clocks may be behind.
_CLOCK_TOLERANCE = datetime.timedelta(hours=1)


def make_certificates(
    folder: Path, hosts: Sequence[str], days: float, *, overwrite: bool = False
) -> list[Path]:
    """Make an authority, and a certificate each for scheduler, workers and clients.

    Parameters
    ----------
    folder
        The folder to write to, created if missing. Only the owner can read the key files.
    hosts
        Host names and addresses that the certificates are valid for.
    days
        How long the certificates are valid. The authority's own does not expire.
    overwrite
        Whether to replace existing files in the folder.

    Returns
    -------
    list of Path
        The files, the authority's first.

    Raises
    ------
    UsageError
        If ``trustme`` is not installed, a host is not valid, a file exists and ``overwrite`` is
        false, or the folder can't be written.
    """
    trustme = import_extra("trustme", "segmentation[tls]")
    names = [CA, CA_KEY, *(name for pair in ROLES.values() for name in pair)]
    existing = next((folder / name for name in names if (folder / name).exists()), None)
    if existing and not overwrite:
        raise UsageError(
            "{existing} exists already; pass {overwrite}, or choose another {out}",
            "overwrite",
            "out",
            existing=existing,
        )
    now = datetime.datetime.now(datetime.UTC)
    not_after = now + datetime.timedelta(days=days)
    authority = trustme.CA(
        path_length=0, organization_name=_ORGANIZATION, organization_unit_name="development CA"
    )
    contents = {CA: authority.cert_pem, CA_KEY: authority.private_key_pem}
    for role, (certificate, key) in ROLES.items():
        try:
            pair = authority.issue_cert(
                *hosts,
                common_name=f"segmentation {role}",
                organization_name=_ORGANIZATION,
                organization_unit_name=role,
                # Negative ``days`` make an expired certificate, for tests.
                not_before=min(now, not_after) - _CLOCK_TOLERANCE,
                not_after=not_after,
            )
        except ValueError as error:
            raise UsageError(
                "{host}: {error}; pass host names or addresses", "host", error=error
            ) from error
        contents |= {certificate: pair.cert_chain_pems[0], key: pair.private_key_pem}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # All are written before the first is renamed: a full disk leaves the old ones.
        for name, blob in contents.items():
            _write_partial(folder / name, blob.bytes())
        for name in contents:
            os.replace(_partial_path(folder / name), folder / name)
        return [folder / name for name in contents]
    except OSError as error:
        raise UsageError(
            "{place}: can't be written ({reason}); choose another {out}",
            "out",
            place=error.filename or folder,
            reason=error.strerror,
        ) from error


def _partial_path(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _write_partial(path: Path, content: bytes) -> None:
    partial = _partial_path(path)
    partial.unlink(missing_ok=True)
    # The mode is set on creation, so that others can never read a key.
    mode = 0o600 if path.stem.endswith("-key") else 0o644
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def find_validity_problem(path: str) -> str | None:
    """Describe why a certificate is not valid now; return None if it is, or can't be checked.

    A certificate can't be checked if it can't be read or ``cryptography`` is not installed.
    """
    try:
        from cryptography import x509

        certificate = x509.load_pem_x509_certificate(Path(path).read_bytes())
    except (ImportError, OSError, ValueError):
        return None
    now = datetime.datetime.now(datetime.UTC)
    if now > certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    return None


def find_key_pair_problem(certificate: str, key: str) -> str | None:
    """Describe why a certificate and a key can't be used together; return None if they can.

    Without this check, Dask would only report that the scheduler does not answer.
    """
    try:
        # An empty password, so that OpenSSL doesn't prompt for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError, OSError) as error:
        return str(getattr(error, "reason", None) or error or type(error).__name__)
    return None
