"""TLS from end to end: the job's certificate is asked for, and a client without one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import certificates, segment
from tests.cluster.processes import Standing, assert_equal, job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def options_of(folder: Path, role: str) -> list[str]:
    return [
        "--tls-ca-file",
        str(folder / "ca.pem"),
        "--tls-cert",
        str(folder / f"{role}.pem"),
        "--tls-key",
        str(folder / f"{role}-key.pem"),
    ]


def config_of(folder: Path, target: Path) -> str:
    target.write_text(
        f"kind: tls\nca_file: {folder}/ca.pem\ncertificate: {folder}/client.pem\n"
        f"key: {folder}/client-key.pem\n"
    )
    return str(target)


def test_end_to_end(
    python: Path, shared_cache: Path, ratings: Path, expected: Path, tmp_path: Path, capsys
) -> None:
    made, others = tmp_path / "certificates", tmp_path / "others"
    for folder in (made, others):
        assert certificates.main(["--out", str(folder), "--quiet"]) == 0
    cluster = Standing(python, tmp_path / "c", shared_cache)
    try:
        address = cluster.start_scheduler("--protocol", "tls", *options_of(made, "scheduler"))
        assert address.startswith("tls://")
        for _ in range(2):
            cluster.start_worker(*options_of(made, "worker"))
        config = config_of(made, tmp_path / "tls.yaml")
        out = tmp_path / "out"
        data = ["--data", str(ratings), "--quiet"]
        run = job(
            tmp_path / "job", *data, "--out", str(out), "--cluster", config, "--address", address
        )
        assert run.wait(300) == 0, run.text() + cluster.logs()
        assert "warning" not in run.text()
        assert_equal(out, expected)

        refused = tmp_path / "refused"
        # Without any certificate, with another authority's, and in the open.
        assert segment.main([*data, "--out", str(refused), "--address", address]) == 2
        assert "needs ca_file: take --cluster tls" in capsys.readouterr().err
        other = config_of(others, tmp_path / "others.yaml")
        arguments = [*data, "--out", str(refused), "--cluster", other, "--address", address]
        assert segment.main(arguments) == 4
        assert "the certificates don't fit one another" in capsys.readouterr().err
        plain = address.replace("tls://", "tcp://")
        assert segment.main([*data, "--out", str(refused), "--address", plain]) == 4
        assert "nobody answers there" in capsys.readouterr().err
        assert not refused.exists()
    finally:
        cluster.end()
