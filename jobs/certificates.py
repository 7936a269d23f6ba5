"""Certificates for a cluster that speaks TLS, signed by a certificate authority made for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jobs import entrypoint

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

_HERE = ("localhost", "127.0.0.1", "::1")


def make_parser() -> argparse.ArgumentParser:
    """Return the job's options."""
    made = entrypoint.parser("certificates", __doc__ or "")
    made.add_argument(
        "--out",
        metavar="FOLDER",
        default="certificates",
        help="where they go; keys can be read by you alone (default: certificates)",
    )
    made.add_argument(
        "--host",
        metavar="NAME",
        action="append",
        default=[],
        help="a name or address that they are good for, beside this machine's loopback; may be "
        "given several times",
    )
    made.add_argument(
        "--days",
        type=float,
        default=30.0,
        metavar="N",
        help="how long they last (default: 30)",
    )
    made.add_argument("--overwrite", action="store_true", help="replace those that are there")
    return made


def job(arguments: argparse.Namespace) -> None:
    """Run the job as the options say."""
    from pathlib import Path

    from segmentation.deploy import tls
    from segmentation.errors import UsageError

    if not 0 < arguments.days <= tls.MOST_DAYS:
        raise UsageError(f"--days {arguments.days:g}: from some to {tls.MOST_DAYS}")
    if not arguments.out.strip() or not all(host.strip() for host in arguments.host):
        raise UsageError("--out, --host: are empty: name a folder and hosts, or leave them out")
    folder = Path(arguments.out)
    hosts = list(dict.fromkeys([*_HERE, *arguments.host]))
    try:
        made = tls.make_certificates(folder, hosts, arguments.days, overwrite=arguments.overwrite)
    except ValueError as error:
        raise UsageError(f"--host: {error}: give names or addresses") from error
    if arguments.quiet:
        return
    for path in made:
        print(path)
    print(
        f"""
Scheduler, workers and job each take ca.pem and their own pair:

dask scheduler --protocol tls --tls-ca-file {folder}/ca.pem --tls-cert {folder}/scheduler.pem --tls-key {folder}/scheduler-key.pem
dask worker tls://HOST:8786 --tls-ca-file {folder}/ca.pem --tls-cert {folder}/worker.pem --tls-key {folder}/worker-key.pem
segmentation segment --cluster tls --address tls://HOST:8786"""  # noqa: E501 - to be copied
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return entrypoint.run(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
