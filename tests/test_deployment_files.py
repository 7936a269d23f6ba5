"""Container and Kubernetes files: checked against the operator's schema and the program's options.

These tests can't run any of them, without a container engine and a Kubernetes.
"""

from __future__ import annotations

import datetime
import inspect
import json
import re
import shlex
from importlib import resources
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
import yaml

from jobs import refresh, segment
from segmentation.datasets.synthetic.writer import write_dataset

ROOT = Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "cluster_config" / "kubernetes"
DOCKER = ROOT / "cluster_config" / "docker"


def load_documents() -> list[dict]:
    return [
        document
        for path in sorted(KUBERNETES.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text("utf-8"))
    ]


def load_schema(kind: str) -> dict:
    """Return the schema that the operator's package publishes for one of its kinds."""
    chart = resources.files("dask_kubernetes") / "operator" / "deployment" / "helm"
    folder = chart / "dask-kubernetes-operator" / "crds"
    definition = yaml.safe_load((folder / f"{kind.lower()}.yaml").read_text("utf-8"))
    (version,) = definition["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    return forbid_unknown_keys(schema)


def forbid_unknown_keys(schema: dict) -> dict:
    """Refuse keys that the schema doesn't name; the API server would drop them silently."""
    if not isinstance(schema, dict):
        return schema
    result = {
        key: forbid_unknown_keys(value) if isinstance(value, dict) else value
        for key, value in schema.items()
    }
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not free:
        result["additionalProperties"] = False
        # Every object has these, and no schema repeats them.
        if "spec" in schema["properties"] and "metadata" not in schema["properties"]:
            result["properties"] = {
                **result["properties"],
                "metadata": {},
                "kind": {},
                "apiVersion": {},
            }
    return result


DASK_DOCUMENTS = [d for d in load_documents() if d["apiVersion"].startswith("kubernetes.dask.org")]


@pytest.mark.parametrize("document", DASK_DOCUMENTS, ids=lambda d: d["kind"])
def test_manifests_fit_the_operators_schema(document: dict) -> None:
    keys = ("apiVersion", "kind", "metadata", "spec")
    jsonschema.validate({key: document[key] for key in keys}, load_schema(document["kind"]))


def test_the_check_itself_can_fail() -> None:
    cluster = next(d for d in DASK_DOCUMENTS if d["kind"] == "DaskCluster")
    broken = {**cluster, "spec": {**cluster["spec"], "workers": 3}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, load_schema("DaskCluster"))
    broken = {**cluster, "spec": {**cluster["spec"], "worker": {"replicas": "four"}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, load_schema("DaskCluster"))


def test_the_jobs_options_make_a_manifest_that_fits() -> None:
    """The keys of kubernetes.yaml, through the operator's own function for manifests."""
    from dask_kubernetes.operator.kubecluster.kubecluster import KubeCluster, make_cluster_spec

    spec = make_cluster_spec(
        name="segmentation",
        image="i",
        n_workers=4,
        resources={"requests": {"memory": "1", "cpu": "1"}, "limits": {"memory": "1"}},
        env={"A": "b"},
    )
    jsonschema.validate(spec, load_schema("DaskCluster"))
    parameters = inspect.signature(KubeCluster.__init__).parameters
    options = {"name", "namespace", "image", "n_workers", "resources", "env", "quiet"}
    assert options <= set(parameters)


def load_commands() -> dict[str, tuple[list[str], list[str]]]:
    """Return the commands of the first run and of each night, by file."""
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))["services"]
    pods = {d["kind"]: d["spec"] for d in load_documents() if d["apiVersion"] == "batch/v1"}
    first, nightly = pods["Job"], pods["CronJob"]["jobTemplate"]["spec"]
    return {
        "compose": (compose["job"]["command"], compose["nightly"]["command"]),
        "kubernetes": tuple(
            pod["template"]["spec"]["containers"][0]["args"] for pod in (first, nightly)
        ),
    }


@pytest.mark.parametrize("kind", ["compose", "kubernetes"])
def test_nights_follow_each_other(
    kind: str, tmp_path: Path, client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of the files, on folders of this machine: three nights, and a retry of one."""
    write_dataset(20_000, 4, tmp_path / "data", client, lambda done, total: None)
    ratings = pd.read_csv(tmp_path / "data" / "ratings.csv").sort_values("timestamp")
    ratings[:-2_000].to_csv(tmp_path / "data" / "ratings.csv", index=False)
    new = tmp_path / "data" / "new"
    new.mkdir()
    ratings[-2_000:-1_000].to_csv(new / "2026-01-31.csv", index=False)
    ratings[-1_000:].to_csv(new / "2026-02-01.csv", index=False)

    def run(job, command: list[str], day: datetime.date) -> Path:
        class Today(datetime.date):
            @classmethod
            def today(cls) -> datetime.date:
                return day

        monkeypatch.setattr("jobs.options.date", Today)
        arguments = [re.sub(r"^/(data|runs)", rf"{tmp_path}/\1", text) for text in command[3:]]
        place = arguments.index("--address")
        del arguments[place : place + 2]
        assert job.main([*arguments, "--quiet"]) == 0
        return tmp_path / "runs" / day.isoformat()

    first, nightly = load_commands()[kind]
    run(segment, first, datetime.date(2026, 1, 30))
    run(refresh, nightly, datetime.date(2026, 1, 31))
    last = run(refresh, nightly, datetime.date(2026, 2, 1))
    written = (last / "run.json").stat().st_mtime_ns
    assert run(refresh, nightly, datetime.date(2026, 2, 1)) == last
    assert (last / "run.json").stat().st_mtime_ns == written
    manifest = json.loads((last / "run.json").read_text())
    assert manifest["rows"]["read"] == 20_000
    assert len(manifest["data"]["merged"]) == 3


def test_the_program_and_dask_accept_the_commands() -> None:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))["services"]
    for first, nightly in load_commands().values():
        for job, command in ((segment, first), (refresh, nightly)):
            assert command[:3] == ["python", "-m", job.__name__]
            assert job.make_parser().parse_args(command[3:]).address.startswith("tcp://")
    from distributed.cli.dask_scheduler import main as scheduler
    from distributed.cli.dask_worker import main as worker

    options = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in (("scheduler", scheduler), ("worker", worker))
    }
    cluster = next(d for d in load_documents() if d["kind"] == "DaskCluster")["spec"]
    for arguments in (
        compose["scheduler"]["command"],
        compose["worker"]["command"],
        *(cluster[name]["spec"]["containers"][0]["args"] for name in ("worker", "scheduler")),
    ):
        assert arguments[0] == "dask"
        assert {a for a in arguments if a.startswith("--")} <= options[arguments[1]], arguments


def test_the_image_copies_files_that_exist() -> None:
    text = (DOCKER / "Dockerfile").read_text("utf-8")
    for line in re.findall(r"(?m)^COPY (.*)$", text):
        *sources, _ = shlex.split(line)
        for source in sources:
            assert (ROOT / source).exists(), source
    assert "--require-hashes --requirement requirements.lock" in text
    assert "USER dask" in text
    # The operator's pods name a program, which an entrypoint would get as an argument.
    assert "ENTRYPOINT" not in text
    from segmentation import __version__

    for path in (*DOCKER.iterdir(), *KUBERNETES.iterdir()):
        for version in re.findall(r"segmentation:(\d[\w.]*)", path.read_text("utf-8")):
            assert version == __version__, path
