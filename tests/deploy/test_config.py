"""Cluster files: the project's own are valid, errors name the key, the environment overrides."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import dask
import jsonschema
import pytest
import yaml

from segmentation.deploy import config, kinds
from segmentation.errors import UsageError

FOLDER = resources.files("cluster_config")
FILES = sorted(
    file.name
    for file in FOLDER.iterdir()
    if file.name.endswith(".yaml") and file.name != "schema.yaml"
)
SCHEMA = yaml.safe_load((FOLDER / "schema.yaml").read_text("utf-8"))


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_the_schema_is_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_kind_has_one_definition_and_every_key_a_description() -> None:
    kinds_of = {
        name: definition["properties"]["kind"]["enum"]
        for name, definition in SCHEMA["$defs"].items()
        if "kind" in definition.get("properties", {})
    }
    assert [kind for names in kinds_of.values() for kind in names] == [
        *("threads", "local", "remote", "tls", "ssh"),
        *("slurm", "pbs", "lsf", "sge", "kubernetes", "cloud"),
    ]
    assert SCHEMA["oneOf"] == [{"$ref": f"#/$defs/{name}"} for name in kinds_of]
    for name in kinds_of:
        definition = SCHEMA["$defs"][name]
        assert definition["additionalProperties"] is False
        for key, schema in definition["properties"].items():
            if key != "kind":
                assert config._description(schema), key
    assert kinds_of["batch"] == list(kinds.jobqueue.CLASSES)
    providers = SCHEMA["$defs"]["cloud"]["properties"]["provider"]["enum"]
    assert providers == list(kinds.PROVIDERS)


@pytest.mark.parametrize("name", FILES)
def test_files_of_the_project_are_valid_and_mention_every_key(name: str) -> None:
    text = (FOLDER / name).read_text("utf-8")
    assert text.startswith("# Precedence: an option of the job")
    loaded = config.load_config(name.removesuffix(".yaml"))
    # With the whole schema, as an editor uses it.
    jsonschema.validate(loaded, SCHEMA)
    keys = set(config.definitions_by_kind()[loaded["kind"]]["properties"])
    # Keys that are commented out have to be valid once they aren't.
    lines = [
        line.removeprefix("# ")
        for line in text.splitlines()
        if line.startswith("# ") and line[2:].partition(":")[0] in keys
    ]
    complete = {**yaml.safe_load(text), **yaml.safe_load("\n".join(lines) or "{}")}
    config.validate(complete, name)
    assert set(complete) == keys, "a key that the file doesn't mention"


def test_other_batch_systems_take_the_keys_of_slurm() -> None:
    content = yaml.safe_load((FOLDER / "slurm.yaml").read_text("utf-8"))
    for kind in ("pbs", "lsf", "sge"):
        config.validate({**content, "kind": kind}, kind)


COUNT_OR_AUTO = "expected an integer from 1 to 100000, or auto"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: threads\nthread: 2\n", "unknown key 'thread': did you mean threads?"),
        ("kind: threads\nthread:\n", "unknown key 'thread': did you mean threads?"),
        ("kind: local\nzzz: 2\n", "unknown key 'zzz': known keys are kind, workers"),
        ("kind: local\n1: 2\n", "unknown key 1: known keys are kind, workers"),
        ("kind: clouds\n", "needs a line 'kind: NAME' with one of threads, local"),
        ("- a\n", "needs a line 'kind: NAME'"),
        ("kind: [a]\n", "needs a line 'kind: NAME'"),
        ("kind: [", "is not YAML"),
        ("kind: threads\nthreads: many\n", f"threads: 'many': {COUNT_OR_AUTO}"),
        ("kind: threads\nthreads: 0\n", f"threads: 0: {COUNT_OR_AUTO}"),
        ("kind: threads\nthreads: true\n", f"threads: True: {COUNT_OR_AUTO}"),
        ("kind: threads\nthreads: 100001\n", f"threads: 100001: {COUNT_OR_AUTO}"),
        ("kind: local\nworkers: 1.5\n", f"workers: 1.5: {COUNT_OR_AUTO}"),
        ("kind: local\nworkers: 2.0\n", f"workers: 2.0: {COUNT_OR_AUTO}"),
        ("kind: threads\ndashboard: true\n", "dashboard: True: expected an address such as"),
        ("kind: threads\ndashboard: a:70000\n", "dashboard: 'a:70000': expected an address"),
        (
            "kind: threads\nmemory_limit: lots\n",
            "memory_limit: 'lots': expected bytes with a unit, as in 2 GiB, or auto",
        ),
        ("kind: threads\nmemory_limit: 0\n", "memory_limit: 0: expected bytes with a unit"),
        ("kind: remote\nadress: tcp://a:1\n", "unknown key 'adress': did you mean address?"),
        (
            "kind: remote\naddress: a:1\n",
            "address: 'a:1': expected tcp:// or tls://, a host and a port",
        ),
        ("kind: remote\nwait_seconds: soon\n", "wait_seconds: 'soon': expected a number of sec"),
        ("kind: remote\nwait_seconds: .nan\n", "wait_seconds: nan: expected a number of seconds"),
        ("kind: remote\nwait_seconds: 0\n", "wait_seconds: 0: expected a number of seconds"),
        ("kind: tls\nca_file: a\ncertificate: b\n", "missing key 'key': add a string"),
        ("kind: tls\nca_file: ' '\n", "ca_file: ' ': expected a string"),
        ("kind: ssh\n", "missing key 'hosts': add a list of at least one host"),
        ("kind: ssh\nhosts: []\n", "hosts: []: expected a list of at least one host"),
        ("kind: ssh\nhosts: a\n", "hosts: 'a': expected a list of at least one host"),
        ("kind: ssh\nhosts: [a]\nport: 70000\n", "port: 70000: expected a port from 1 to 65535"),
        ("kind: ssh\nhosts: [a]\nencrypted: 1\n", "encrypted: 1: expected true or false"),
        ("kind: slurm\n", "missing key 'interface': add a string"),
        ("kind: slurm\ninterface: lo\nqueu: a\n", "unknown key 'queu': did you mean queue?"),
        ("kind: slurm\ninterface: lo\nprologue: a\n", "prologue: 'a': expected a list of strings"),
        (
            "kind: slurm\ninterface: lo\nadaptive: {minimum: 2, maximum: 1}\n",
            "adaptive: {'minimum': 2, 'maximum': 1}: expected minimum and maximum, two integers",
        ),
        (
            "kind: pbs\ninterface: lo\nadaptive: {minimum: 2}\n",
            "adaptive: {'minimum': 2}: expected",
        ),
        ("kind: kubernetes\n", "missing key 'image': add a string"),
        (
            "kind: cloud\nprovider: nimbus\n",
            "provider: 'nimbus': expected one of coiled, aws-ec2, aws-fargate, azure, google",
        ),
    ],
)
def test_an_error_names_the_file_the_key_and_what_is_allowed(
    tmp_path: Path, text: str, message: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as error:
        config.load_config(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_an_empty_value_is_the_same_as_a_missing_key(tmp_path: Path) -> None:
    path = write(tmp_path, "kind: threads\nmemory_limit:\n")
    assert config.load_config(path) == {"kind": "threads", "memory_limit": None}


def test_names_and_paths_that_do_not_exist(tmp_path: Path) -> None:
    names = ", ".join(name.removesuffix(".yaml") for name in FILES)
    with pytest.raises(UsageError, match=f"cluster thread: choose from {names}, or pass the path"):
        config.load_config("thread")
    with pytest.raises(UsageError, match="cluster schema: choose from"):
        config.load_config("schema")
    with pytest.raises(UsageError, match="no such file"):
        config.load_config(str(tmp_path / "none.yaml"))


def test_the_environment_overrides_the_file() -> None:
    with dask.config.set({"segmentation.cluster": {"wait-seconds": 5, "workers": 3}}):
        loaded = config.load_config("remote")
    assert (loaded["wait_seconds"], loaded["workers"]) == (5, 3)
    with dask.config.set({"segmentation.cluster.wokers": 3}):
        with pytest.raises(UsageError, match="DASK_SEGMENTATION__CLUSTER__ .*did you mean workers"):
            config.load_config("remote")


@pytest.mark.parametrize(
    ("section", "variable"),
    [
        ({"segmentation.cluster": "local"}, "DASK_SEGMENTATION__CLUSTER in"),
        ({"segmentation.clustr.threads": 2}, "DASK_SEGMENTATION__CLUSTR in"),
        ({"segmentation": "x"}, "DASK_SEGMENTATION__CLUSTER in"),
    ],
)
def test_an_environment_that_names_no_key_is_refused(section: dict, variable: str) -> None:
    with dask.config.set(section), pytest.raises(UsageError, match=variable) as error:
        config.load_config("threads")
    assert "write it as in DASK_SEGMENTATION__CLUSTER__WORKERS=4" in str(error.value)


@pytest.mark.parametrize(
    ("size", "n_bytes"),
    [("2 GiB", 2 << 30), ("5 kB", 5_000), (7, 7), ("lots", None), (0, None), (True, None)],
)
def test_sizes_with_a_unit(size: object, n_bytes: int | None) -> None:
    assert config.parse_memory(size) == n_bytes


def test_the_dashboard_is_on_loopback_by_default() -> None:
    assert config.build_dashboard_options({}) == {
        "dashboard_address": "127.0.0.1:0",
        "dashboard": True,
    }
    assert config.build_dashboard_options({"dashboard": False})["dashboard"] is False
    public = config.build_dashboard_options({"dashboard": "0.0.0.0:8787"})
    assert public["dashboard_address"] == "0.0.0.0:8787"


def test_a_missing_extra_is_named() -> None:
    with pytest.raises(UsageError, match=r"no_such_module is not installed; install extra\[x\]"):
        config.import_extra("no_such_module", "extra[x]")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2021-13-45", "holds a value that can't be read: "),
        ("!!bool x", "holds a value that can't be read: "),
        ("!!timestamp x", "holds a value that can't be read: "),
        ('!!int ""', "holds a value that can't be read: "),
        ("9" * 5_000, "holds a value that can't be read: "),
        ("&a [*a]", "has an alias (*name): write the value itself"),
    ],
)
def test_values_that_yaml_fails_at(tmp_path: Path, value: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"kind: threads\nthreads: {value}\n")
    with pytest.raises(UsageError) as caught:
        config.load_config(str(path))
    assert str(caught.value).startswith(f"{path}: {message}")
