"""A certificate authority for development, and certificates that it signs.

Whoever holds a certificate of the authority may use the cluster, and take it over: Dask runs what
it is sent. The authority's own key signs further ones; it is not needed to run anything.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmentation.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

CA, CA_KEY = "ca.pem", "ca-key.pem"
#: role → its certificate and key; Dask asks servers and clients alike for theirs.
ROLES = {role: (f"{role}.pem", f"{role}-key.pem") for role in ("scheduler", "worker", "client")}
MOST_DAYS = 3_650


def make_certificates(
    folder: Path, hosts: Sequence[str], days: float, *, overwrite: bool = False
) -> list[Path]:
    """Make an authority and a certificate each for scheduler, workers and clients.

    Parameters
    ----------
    folder
        Made if need be; keys in it can be read by their owner alone.
    hosts
        Names and addresses that the certificates are good for.
    days
        How long they last.

    Returns
    -------
    list of Path
        The files, the authority's first.

    Raises
    ------
    UsageError
        If ``cryptography`` is not installed, the folder holds certificates, or can't be written.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ImportError as error:
        raise UsageError(
            "certificates are made by the package cryptography, which is not installed: install "
            "segmentation[tls]"
        ) from error

    names = [CA, CA_KEY, *(name for pair in ROLES.values() for name in pair)]
    taken = next((folder / name for name in names if (folder / name).exists()), None)
    if taken and not overwrite:
        raise UsageError(f"{taken}: is there already: add --overwrite, or choose another --out")
    now = datetime.datetime.now(datetime.UTC)
    until = now + datetime.timedelta(days=days)

    def signed(name: str, key: Any, issuer: Any, issuer_key: Any, *, is_ca: bool) -> Any:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if issuer is None else issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            # Clocks of other machines may be a little behind.
            .not_valid_before(min(now, until) - datetime.timedelta(hours=1))
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
            )
            .add_extension(_usage(x509, is_ca=is_ca), True)
        )
        if not is_ca:
            made = made.add_extension(
                x509.SubjectAlternativeName([_alternative(x509, host) for host in hosts]), False
            )
        return made.sign(issuer_key, hashes.SHA256())

    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = signed(
        "segmentation development CA", authority_key, None, authority_key, is_ca=True
    )
    contents = [(CA, authority), (CA_KEY, authority_key)]
    for role, (certificate, key_name) in ROLES.items():
        key = ec.generate_private_key(ec.SECP256R1())
        own = signed(f"segmentation {role}", key, authority, authority_key, is_ca=False)
        contents += [(certificate, own), (key_name, key)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(folder / name, content) for name, content in contents]
    except OSError as error:
        raise UsageError(
            f"{error.filename or folder}: can't be written ({error.strerror}): choose another --out"
        ) from error


def _usage(x509: Any, *, is_ca: bool) -> Any:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(x509: Any, host: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, content: Any) -> Path:
    from cryptography.hazmat.primitives import serialization as forms

    is_key = hasattr(content, "private_bytes")
    data = (
        content.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
        if is_key
        else content.public_bytes(forms.Encoding.PEM)
    )
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    # Never readable by others, not even before a chmod.
    mode = 0o600 if is_key else 0o644
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(partial, path)
    return path


def validity_problem(path: str) -> str | None:
    """Say since when a certificate is not good any more, or from when on; None where it is good."""
    try:
        from cryptography import x509

        found = x509.load_pem_x509_certificate(Path(path).read_bytes())
    except (ImportError, OSError, ValueError):
        return None
    now = datetime.datetime.now(datetime.UTC)
    if now > found.not_valid_after_utc:
        return f"expired on {found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if now < found.not_valid_before_utc:
        return f"is good from {found.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only"
    return None


def key_pair_problem(certificate: str, key: str) -> str | None:
    """Say why a pair is of no use, which Dask would tell as no answer; None where it is."""
    try:
        # An empty password, so that nobody is asked for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError, OSError) as error:
        return str(getattr(error, "reason", None) or error or type(error).__name__)
    return None
