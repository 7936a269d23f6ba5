"""Container and Kubernetes files: checked against the operator's schema and the program's options.

These tests can't run any of them, without a container engine and a Kubernetes.
"""

from __future__ import annotations

import inspect
import re
import shlex
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml

from jobs import segment

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


def test_the_program_and_dask_accept_the_commands() -> None:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))["services"]
    jobs = [compose["job"]["command"]]
    jobs += [
        c["args"]
        for d in load_documents()
        if d["kind"] == "Job"
        for c in d["spec"]["template"]["spec"]["containers"]
    ]
    for *run, module, arguments in ((*c[:3], c[3:]) for c in jobs):
        assert (*run, module) == ("python", "-m", "jobs.segment")
        parsed = segment.make_parser().parse_args(arguments)
        assert parsed.address.startswith("tcp://")
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
