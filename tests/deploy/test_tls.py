"""Development certificates: pairs fit, keys are private, dates and hosts are as requested."""

from __future__ import annotations

import datetime
import os
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from jobs import certificates as job
from segmentation.deploy import tls
from segmentation.errors import UsageError


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_each_pair_fits_and_is_signed_by_the_authority(tmp_path: Path, capsys) -> None:
    out = tmp_path / "c"
    assert job.main(["--out", str(out), "--host", "10.1.2.3", "--host", "node-1"]) == 0
    output = capsys.readouterr().out
    assert f"dask scheduler --protocol tls --tls-ca-file {out}/ca.pem" in output
    assert {path.name for path in out.iterdir()} == {
        *("ca.pem", "ca-key.pem", "scheduler.pem", "scheduler-key.pem"),
        *("worker.pem", "worker-key.pem", "client.pem", "client-key.pem"),
    }
    for path in out.iterdir():
        mode = stat.S_IMODE(os.stat(path).st_mode)
        assert mode == (0o600 if path.name.endswith("-key.pem") else 0o644), path
    authority = load(out / "ca.pem")
    for role in ("scheduler", "worker", "client"):
        context = ssl.create_default_context(cafile=str(out / "ca.pem"))
        context.load_cert_chain(out / f"{role}.pem", out / f"{role}-key.pem")
        certificate = load(out / f"{role}.pem")
        certificate.verify_directly_issued_by(authority)
        hosts = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert hosts.get_values_for_type(x509.DNSName) == ["localhost", "node-1"]
        addresses = hosts.get_values_for_type(x509.IPAddress)
        assert list(map(str, addresses)) == ["127.0.0.1", "::1", "10.1.2.3"]


def test_certificates_are_valid_for_the_days_requested(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    tls.make_certificates(tmp_path, ["localhost"], 2.5)
    certificate = load(tmp_path / "worker.pem")
    lifetime = certificate.not_valid_after_utc - now
    assert abs(lifetime - datetime.timedelta(days=2.5)) < datetime.timedelta(minutes=1)
    # Other machines' clocks may be behind.
    assert certificate.not_valid_before_utc < now - datetime.timedelta(minutes=59)
    assert tls.find_validity_problem(str(tmp_path / "worker.pem")) is None


def test_an_expired_certificate_has_a_problem(tmp_path: Path) -> None:
    tls.make_certificates(tmp_path, ["127.0.0.1"], -1.0)
    problem = tls.find_validity_problem(str(tmp_path / "client.pem"))
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    assert problem is not None
    assert problem.startswith(f"expired on {yesterday:%Y-%m-%d}")
    assert tls.find_validity_problem(str(tmp_path / "none.pem")) is None


def test_existing_certificates_stay(tmp_path: Path, capsys) -> None:
    arguments = ["--out", str(tmp_path), "--quiet"]
    assert job.main(arguments) == 0
    before = (tmp_path / "ca.pem").read_bytes()
    assert job.main(arguments) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/ca.pem exists already; pass --overwrite, or choose another --out\n"
    )
    assert (tmp_path / "ca.pem").read_bytes() == before
    assert job.main([*arguments, "--overwrite"]) == 0
    assert (tmp_path / "ca.pem").read_bytes() != before
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--days", "0"], "--days 0: choose a number above 0 and up to 3650"),
        (["--days", "nan"], "--days nan: choose a number above 0"),
        (["--host", " "], "--out or --host is empty"),
        (["--host", "nö de"], "--host: "),
    ],
)
def test_wrong_usage(tmp_path: Path, capsys, options: list[str], message: str) -> None:
    assert job.main(["--out", str(tmp_path / "c"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file: can't be written \(.*\); choose another out"):
        tls.make_certificates(tmp_path / "file", ["localhost"], 1)


def test_without_trustme(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['trustme'] = None\n"
        f"from jobs import certificates; sys.exit(certificates.main(['--out', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: trustme is not installed; install segmentation[tls]\n"


def test_a_key_of_another_certificate_has_a_problem(tmp_path: Path) -> None:
    tls.make_certificates(tmp_path, ["localhost"], 1)
    certificate = str(tmp_path / "client.pem")
    assert tls.find_key_pair_problem(certificate, str(tmp_path / "client-key.pem")) is None
    assert tls.find_key_pair_problem(certificate, str(tmp_path / "worker-key.pem")) is not None
    (tmp_path / "bad.pem").write_text("nothing")
    assert tls.find_key_pair_problem(certificate, str(tmp_path / "bad.pem")) is not None
