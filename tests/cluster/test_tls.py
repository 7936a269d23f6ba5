"""TLS from end to end: the scheduler accepts the job's certificate, and no client without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import certificates, segment
from tests.cluster.processes import RunningCluster, assert_equal, start_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def tls_options(folder: Path, role: str) -> list[str]:
    return [
        "--tls-ca-file",
        str(folder / "ca.pem"),
        "--tls-cert",
        str(folder / f"{role}.pem"),
        "--tls-key",
        str(folder / f"{role}-key.pem"),
    ]


def write_config(folder: Path, target: Path) -> str:
    target.write_text(
        f"kind: tls\nca_file: {folder}/ca.pem\ncertificate: {folder}/client.pem\n"
        f"key: {folder}/client-key.pem\n"
    )
    return str(target)


def test_end_to_end(
    python: Path, shared_cache: Path, ratings: Path, expected: Path, tmp_path: Path, capsys
) -> None:
    tls_folder, others = tmp_path / "certificates", tmp_path / "others"
    for folder in (tls_folder, others):
        assert certificates.main(["--out", str(folder), "--quiet"]) == 0
    cluster = RunningCluster(python, tmp_path / "c", shared_cache)
    try:
        address = cluster.start_scheduler(
            "--protocol", "tls", *tls_options(tls_folder, "scheduler")
        )
        assert address.startswith("tls://")
        for _ in range(2):
            cluster.start_worker(*tls_options(tls_folder, "worker"))
        config = write_config(tls_folder, tmp_path / "tls.yaml")
        out = tmp_path / "out"
        data = ["--data", str(ratings), "--quiet"]
        run = start_job(
            tmp_path / "job", *data, "--out", str(out), "--cluster", config, "--address", address
        )
        assert run.wait(300) == 0, run.read_log() + cluster.logs()
        assert "warning" not in run.read_log()
        assert_equal(out, expected)

        refused = tmp_path / "refused"
        # Without a certificate, with one of another authority, and unencrypted.
        assert segment.main([*data, "--out", str(refused), "--address", address]) == 2
        assert "needs ca_file; pass --cluster tls" in capsys.readouterr().err
        other = write_config(others, tmp_path / "others.yaml")
        arguments = [*data, "--out", str(refused), "--cluster", other, "--address", address]
        assert segment.main(arguments) == 4
        assert "the scheduler's certificate is not accepted (" in capsys.readouterr().err
        plain = address.replace("tls://", "tcp://")
        assert segment.main([*data, "--out", str(refused), "--address", plain]) == 4
        assert "no scheduler answered" in capsys.readouterr().err
        assert not refused.exists()
    finally:
        cluster.end()
