"""Make development certificates for a cluster that speaks TLS, and an authority that signs them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jobs import entrypoint

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    parser = entrypoint.new_parser("certificates", __doc__ or "")
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        default="certificates",
        help="where the files go; only you can read the keys (default: certificates)",
    )
    parser.add_argument(
        "--host",
        metavar="NAME",
        action="append",
        default=[],
        help="a host name or address that the certificates are valid for, in addition to this "
        "machine's loopback; may be repeated",
    )
    parser.add_argument(
        "--days",
        type=float,
        default=30.0,
        metavar="N",
        help="how long the certificates are valid (default: 30)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the certificates in the folder"
    )
    return parser


def job(arguments: argparse.Namespace) -> None:
    """Create the certificates; print their paths, and the commands that use them."""
    from pathlib import Path

    from segmentation.deploy import tls
    from segmentation.errors import UsageError

    if not 0 < arguments.days <= tls.MAX_DAYS:
        raise UsageError(
            f"--days {arguments.days:g}: choose a number above 0 and up to {tls.MAX_DAYS}"
        )
    if not arguments.out.strip() or not all(host.strip() for host in arguments.host):
        raise UsageError("--out or --host is empty; pass a name, or leave the option out")
    folder = Path(arguments.out)
    hosts = list(dict.fromkeys([*_LOOPBACK_NAMES, *arguments.host]))
    files = tls.make_certificates(folder, hosts, arguments.days, overwrite=arguments.overwrite)
    if arguments.quiet:
        return
    for path in files:
        print(path)
    print(
        f"""
Scheduler, workers and job each use ca.pem and their own pair:

dask scheduler --protocol tls --tls-ca-file {folder}/ca.pem --tls-cert {folder}/scheduler.pem --tls-key {folder}/scheduler-key.pem
dask worker tls://HOST:8786 --tls-ca-file {folder}/ca.pem --tls-cert {folder}/worker.pem --tls-key {folder}/worker-key.pem
segmentation segment --cluster tls --address tls://HOST:8786"""  # noqa: E501 - commands to copy
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return entrypoint.run_job(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
