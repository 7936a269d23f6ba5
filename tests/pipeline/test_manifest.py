"""The manifest: one record, written and read back."""

from __future__ import annotations

import json

import numpy as np

from segmentation.pipeline.manifest import RunManifest, library_versions

MANIFEST = RunManifest(
    job="segment",
    settings={"k": 5},
    data={"fingerprint": "abc"},
    rows={"read": 3},
    cluster={"kind": "threads"},
    versions={"python": "3.11"},
    users=2,
    items=0,
    warnings=[],
    kmeans={"inertia": np.float64(1.5), "silhouette": float("nan")},
)


def test_it_comes_back_as_it_was_written() -> None:
    values = json.loads(json.dumps(MANIFEST.to_json()))
    assert values["status"] == "complete"
    assert values["kmeans"] == {"inertia": 1.5, "silhouette": None}
    assert values["items"] == 0
    assert values["warnings"] == []
    assert RunManifest.from_json(values).to_json() == values


def test_results_that_a_job_does_not_have_are_left_out() -> None:
    assert not {"pca", "choose_k", "parquet"} & set(MANIFEST.to_json())


def test_fields_of_other_versions_are_ignored() -> None:
    values = {**MANIFEST.to_json(), "invented": 1}
    del values["job"], values["versions"]
    manifest = RunManifest.from_json(values)
    assert (manifest.job, manifest.versions) == ("segment", {})


def test_versions_are_those_that_are_installed() -> None:
    import dask

    import segmentation

    versions = library_versions()
    assert versions["dask"] == dask.__version__
    assert versions["segmentation"] == segmentation.__version__
    assert versions["scikit-learn"] != "not installed"
