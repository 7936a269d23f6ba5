"""The development authority: what it signs fits, keys are private, dates are told."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import certificates as job
from segmentation.deploy import kinds, tls
from segmentation.errors import ClusterError, UsageError


def test_each_pair_fits_and_is_signed(tmp_path: Path, capsys) -> None:
    out = tmp_path / "c"
    assert job.main(["--out", str(out), "--host", "10.1.2.3", "--host", "node-1"]) == 0
    told = capsys.readouterr().out
    assert f"dask scheduler --protocol tls --tls-ca-file {out}/ca.pem" in told
    names = {path.name for path in out.iterdir()}
    assert names == {"ca.pem", "ca-key.pem"} | {n for pair in tls.ROLES.values() for n in pair}
    for name in names:
        mode = stat.S_IMODE(os.stat(out / name).st_mode)
        assert mode == (0o600 if name.endswith("-key.pem") else 0o644), name
    for certificate, key in tls.ROLES.values():
        context = ssl.create_default_context(cafile=str(out / "ca.pem"))
        context.load_cert_chain(out / certificate, out / key)
        assert tls.validity_problem(str(out / certificate)) is None
    from cryptography import x509

    found = x509.load_pem_x509_certificate((out / "worker.pem").read_bytes())
    hosts = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert hosts.get_values_for_type(x509.DNSName) == ["localhost", "node-1"]
    assert "10.1.2.3" in map(str, hosts.get_values_for_type(x509.IPAddress))


def test_what_is_there_is_kept(tmp_path: Path, capsys) -> None:
    arguments = ["--out", str(tmp_path), "--quiet"]
    assert job.main(arguments) == 0
    before = (tmp_path / "ca.pem").read_bytes()
    assert job.main(arguments) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/ca.pem: is there already: add --overwrite, or choose another --out\n"
    )
    assert (tmp_path / "ca.pem").read_bytes() == before
    assert job.main([*arguments, "--overwrite"]) == 0
    assert (tmp_path / "ca.pem").read_bytes() != before
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--days", "0"], "--days 0: from some to 3650"),
        (["--host", " "], "--out, --host: are empty"),
        (["--host", "nö de"], "--host: "),
    ],
)
def test_wrong_usage(tmp_path: Path, capsys, options: list[str], message: str) -> None:
    assert job.main(["--out", str(tmp_path / "c"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "c").exists() or not list((tmp_path / "c").iterdir())


def test_without_the_package_that_makes_them(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        f"from jobs import certificates; sys.exit(certificates.main(['--out', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "install segmentation[tls]" in done.stderr


def expired_pair(folder: Path) -> dict[str, str]:
    tls.make_certificates(folder, ["127.0.0.1"], -1.0)
    return {
        "ca_file": str(folder / "ca.pem"),
        "certificate": str(folder / "client.pem"),
        "key": str(folder / "client-key.pem"),
    }


def test_an_expired_one_is_told_before_it_is_shown(tmp_path: Path) -> None:
    pair = expired_pair(tmp_path)
    with pytest.raises(ClusterError, match=r"client.pem: the certificate expired on 20\d\d-"):
        kinds.security(pair, "tls://127.0.0.1:1")


def test_what_a_client_needs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tls://h:1: needs ca_file: take --cluster tls"):
        kinds.security({}, "tls://h:1")
    with pytest.raises(UsageError, match="ca_file: nowhere.pem: no such file"):
        kinds.security({"ca_file": "nowhere.pem", "certificate": "c", "key": "k"}, "tls://h:1")
    with pytest.raises(UsageError, match="the address is not tls://"):
        kinds.security({"ca_file": "c.pem"}, "tcp://h:1")
    assert kinds.security({}, "tcp://h:1") is None


def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    made, other = tmp_path / "made", tmp_path / "other"
    for folder in (made, other):
        assert job.main(["--out", str(folder), "--quiet"]) == 0
    config = {"ca_file": made / "ca.pem", "certificate": made / "client.pem"}
    found = kinds.security({**config, "key": made / "client-key.pem"}, "tls://h:1")
    assert found.tls_client_key == str(made / "client-key.pem")
    with pytest.raises(UsageError, match=r"other/client-key.pem: is not the key of .*client.pem"):
        kinds.security({**config, "key": other / "client-key.pem"}, "tls://h:1")
    (tmp_path / "bad.pem").write_text("nothing")
    with pytest.raises(UsageError, match=r"bad.pem: is not the key of"):
        kinds.security({**config, "key": tmp_path / "bad.pem"}, "tls://h:1")


@pytest.mark.parametrize(
    ("address", "warned"),
    [
        ("tcp://127.0.0.1:8786", False),
        ("tcp://localhost:8786", False),
        ("tcp://[::1]:8786", False),
        ("inproc://10.0.0.1/1/2", False),
        ("tls://10.0.0.1:8786", False),
        ("tcp://10.0.0.1:8786", True),
        ("tcp://node-1:8786", True),
        ("tcp://[fe80::1]:8786", True),
    ],
)
def test_talking_plainly_beyond_loopback_is_warned_of(address: str, warned: bool) -> None:
    told = kinds.unencrypted_warning(address)
    assert bool(told) == warned
    if told:
        assert "run programs on its workers: use tls://" in told
