"""Cluster files: each of the project's is sound, a typo is named, the environment comes first."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import dask
import pytest
import yaml

from segmentation.deploy import config, jobqueue
from segmentation.deploy import config as parts
from segmentation.errors import UsageError

FILES = sorted(
    f.name for f in resources.files("cluster_config").iterdir() if f.name[-5:] == ".yaml"
)


@pytest.mark.parametrize("name", FILES)
def test_files_of_the_project_are_sound_and_commented(name: str) -> None:
    text = (resources.files("cluster_config") / name).read_text("utf-8")
    assert text.startswith("# What comes before what: an option of the job")
    found = config.load_config(name.removesuffix(".yaml"))
    assert found["kind"] in config.KINDS
    # What is commented out has to be right as well, once it isn't.
    lines = [
        line.removeprefix("# ")
        for line in text.splitlines()
        if line.startswith("# ") and line[2:].partition(":")[0] in config.KINDS[found["kind"]]
    ]
    whole = {**yaml.safe_load(text), **yaml.safe_load("\n".join(lines) or "{}")}
    config.validate(whole, name)
    assert set(whole) - {"kind"} == set(config.KINDS[found["kind"]]), "a key without a comment"


def test_what_each_is_started_with() -> None:
    assert jobqueue._walltime({"kind": "slurm", "walltime": "01:30:00"}) == "01:30:00"
    assert jobqueue._walltime({"kind": "lsf", "walltime": "01:30:00"}) == "01:30"
    assert jobqueue._walltime({"kind": "lsf", "walltime": "01:30"}) == "01:30"
    assert jobqueue._walltime({"kind": "lsf"}) is None
    assert parts.dashboard_options({}) == {"dashboard_address": "127.0.0.1:0", "dashboard": True}
    assert parts.dashboard_options({"dashboard": False})["dashboard"] is False
    assert (
        parts.dashboard_options({"dashboard": "0.0.0.0:8787"})["dashboard_address"]
        == "0.0.0.0:8787"
    )


def test_other_batch_systems_take_slurms_file() -> None:
    text = (resources.files("cluster_config") / "slurm.yaml").read_text("utf-8")
    for kind in ("pbs", "lsf", "sge"):
        config.validate({**yaml.safe_load(text), "kind": kind}, kind)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: remote\nadress: tcp://a:1\n", "unknown key 'adress': did you mean address?"),
        (
            "kind: remote\naddress: a:1\n",
            "address: 'a:1': give tcp:// or tls://, a host and a port",
        ),
        ("kind: tls\nca_file: a\ncertificate: b\n", "key is missing: give a text"),
        ("kind: ssh\nhosts: []\n", "hosts is missing: give a list of texts"),
        ("kind: ssh\nhosts: a\n", "hosts: 'a': give a list of texts"),
        ("kind: ssh\nhosts: [a]\nport: 70000\n", "port: 70000: give a port, 1 to 65535"),
        ("kind: slurm\n", "interface is missing: give a text"),
        ("kind: slurm\ninterface: lo\nqueu: a\n", "unknown key 'queu': did you mean queue?"),
        ("kind: slurm\ninterface: lo\nmemory_per_worker: 4 GoB\n", "give bytes with a unit"),
        (
            "kind: slurm\ninterface: lo\nadaptive: {minimum: 2, maximum: 1}\n",
            "give minimum and max",
        ),
        ("kind: kubernetes\n", "image is missing: give a text"),
        ("kind: remote\nwait_seconds: soon\n", "wait_seconds: 'soon': give a number of seconds"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        config.load_config(str(path))
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_the_environment_comes_before_the_file() -> None:
    with dask.config.set({"segmentation.cluster": {"wait-seconds": 5, "workers": 3}}):
        found = config.load_config("remote")
    assert (found["wait_seconds"], found["workers"]) == (5, 3)
    with dask.config.set({"segmentation.cluster.wokers": 3}):
        with pytest.raises(UsageError, match="DASK_SEGMENTATION__CLUSTER__ .*did you mean workers"):
            config.load_config("remote")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"segmentation.cluster": "local"}, "DASK_SEGMENTATION__CLUSTER in"),
        ({"segmentation.clustr.threads": 2}, "DASK_SEGMENTATION__CLUSTR in"),
        ({"segmentation": "x"}, "DASK_SEGMENTATION__CLUSTER in"),
    ],
)
def test_an_environment_that_names_no_key_is_refused(given: dict, named: str) -> None:
    with dask.config.set(given), pytest.raises(UsageError, match=named) as caught:
        config.load_config("threads")
    assert "write it as in DASK_SEGMENTATION__CLUSTER__WORKERS=4" in str(caught.value)
