"""Files of ``cluster_config/``: found, overridden by the environment, and held to a schema."""

from __future__ import annotations

import difflib
import importlib
import os
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from segmentation.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_ADDRESS = re.compile(r"(?:tcp|tls)://(?:\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):(\d{1,5})")


class Rule(NamedTuple):
    """What a key may hold: a test, and what is said where it fails."""

    holds: Callable[[Any], bool]
    told: str


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 100_000


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_bytes(value: Any) -> bool:
    return value == "auto" or parse_memory(value) is not None


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1e6


def _is_dashboard(value: Any) -> bool:
    port = value.rpartition(":")[2] if isinstance(value, str) else "0"
    fine = port.isascii() and port.isdigit() and int(port) < 65_536
    return fine and (isinstance(value, str) or value is False)


def is_address(value: Any) -> bool:
    """Tell whether a value is the address of a scheduler, with its port."""
    found = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    return found is not None and 0 < int(found.group(1)) < 65_536


def _is_adaptive(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"minimum", "maximum"}
        and isinstance(value["minimum"], int)
        and _is_count(value["maximum"])
        and 1 <= value["minimum"] <= value["maximum"]
    )


COUNT = Rule(_is_count, "give a number from 1 on")
AUTO = Rule(lambda v: v == "auto" or _is_count(v), "give a number from 1 on, or auto")
TEXT = Rule(_is_text, "give a text")
TEXTS = Rule(_is_texts, "give a list of texts")
BYTES = Rule(_is_bytes, "give bytes with a unit, as in 2 GiB, or auto")
SECONDS = Rule(_is_seconds, "give a number of seconds")
DASHBOARD = Rule(_is_dashboard, "give an address such as 127.0.0.1:0, or false")
ADDRESS = Rule(is_address, "give tcp:// or tls://, a host and a port")
ADAPTIVE = Rule(_is_adaptive, "give minimum and maximum, two numbers from 1 on, of jobs or workers")
PORT = Rule(lambda v: _is_count(v) and v < 65_536, "give a port, 1 to 65535")
FLAG = Rule(lambda v: isinstance(v, bool), "give true or false")
OPTIONS = Rule(lambda v: isinstance(v, dict), "give names and values")

_WAIT = {"wait_seconds": SECONDS}
_CERTIFICATES = {"ca_file": TEXT, "certificate": TEXT, "key": TEXT}
_BATCH = {
    "jobs": COUNT,
    "workers_per_job": COUNT,
    "threads_per_worker": COUNT,
    "memory_per_worker": BYTES,
    "walltime": TEXT,
    "queue": TEXT,
    "account": TEXT,
    "interface": TEXT,
    "local_directory": TEXT,
    "shared_directory": TEXT,
    "log_directory": TEXT,
    "python": TEXT,
    "prologue": TEXTS,
    "directives": TEXTS,
    "adaptive": ADAPTIVE,
    "dashboard": DASHBOARD,
    **_WAIT,
}
#: kind → its keys.
KINDS: dict[str, dict[str, Rule]] = {
    "threads": {"threads": AUTO, "memory_limit": BYTES, "dashboard": DASHBOARD},
    "local": {
        "workers": AUTO,
        "threads_per_worker": AUTO,
        "memory_limit": BYTES,
        "dashboard": DASHBOARD,
    },
    "remote": {"address": ADDRESS, "workers": COUNT, **_WAIT},
    "tls": {"address": ADDRESS, "workers": COUNT, **_CERTIFICATES, **_WAIT},
    "ssh": {
        "hosts": TEXTS,
        "user": TEXT,
        "port": PORT,
        "key_file": TEXT,
        "known_hosts": TEXT,
        "python": TEXT,
        "workers_per_host": COUNT,
        "threads_per_worker": COUNT,
        "memory_per_worker": BYTES,
        "local_directory": TEXT,
        "dashboard": DASHBOARD,
        "encrypted": FLAG,
        **_CERTIFICATES,
        **_WAIT,
    },
    "slurm": _BATCH,
    "pbs": _BATCH,
    "lsf": _BATCH,
    "sge": _BATCH,
    "kubernetes": {
        "name": TEXT,
        "namespace": TEXT,
        "image": TEXT,
        "workers": COUNT,
        "threads_per_worker": COUNT,
        "memory_per_worker": BYTES,
        "environment": OPTIONS,
        "adaptive": ADAPTIVE,
        **_WAIT,
    },
    "cloud": {"provider": TEXT, "workers": COUNT, "options": OPTIONS, **_WAIT},
}
#: kind → keys without which nothing can be started.
NEEDED = {
    "ssh": ("hosts",),
    "kubernetes": ("image",),
    "cloud": ("provider",),
    "tls": ("ca_file", "certificate", "key"),
    # What the scheduler listens on, which nobody but its user can say.
    **dict.fromkeys(("slurm", "pbs", "lsf", "sge"), ("interface",)),
}


def load_config(name: str) -> dict[str, Any]:
    """Read a cluster's file by its name in ``cluster_config/``, or by its path.

    What the environment says (``DASK_SEGMENTATION__CLUSTER__KEY``, by Dask's own configuration)
    comes before the file.

    Raises
    ------
    UsageError
        If there is no such file, or a key or value in it is not known.
    """
    import yaml

    text, where = _text(name)
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: is not YAML: {' '.join(str(error).split())}") from error
    validate(config, where)
    if given := _given():
        config = {**config, **given}
        validate(config, "DASK_SEGMENTATION__CLUSTER__ in the environment, or Dask's configuration")
    return dict(config)


def _given() -> dict[str, Any]:
    """Return the keys that the environment sets, by Dask's configuration."""
    import dask

    section = dask.config.get("segmentation", None) or {}
    cluster = (section.get("cluster") or {}) if isinstance(section, dict) else section
    stray = [name for name in section if name != "cluster"] if isinstance(section, dict) else []
    if isinstance(cluster, dict) and not stray:
        return {str(key).replace("-", "_"): value for key, value in cluster.items()}
    named = f"DASK_SEGMENTATION__{stray[0] if stray else 'cluster'}".upper()
    raise UsageError(
        f"{named} in the environment, or the like in Dask's configuration: is no key of a "
        "cluster: write it as in DASK_SEGMENTATION__CLUSTER__WORKERS=4"
    )


def _text(name: str) -> tuple[str, str]:
    """Return what a file says, and what it is called in messages."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or os.sep in name:
        if not path.is_file():
            raise UsageError(
                f"--cluster {name}: no such file: copy one of cluster_config/ and edit it"
            )
        try:
            return path.read_text("utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{name}: can't be read as UTF-8 text: {error}") from error
    folder = resources.files("cluster_config")
    names = [file.name for file in folder.iterdir()]
    known = sorted(n.removesuffix(".yaml") for n in names if n.endswith(".yaml"))
    if name not in known:
        raise UsageError(
            f"--cluster {name}: choose from {', '.join(known)}, or give a .yaml file's path"
        )
    return (folder / f"{name}.yaml").read_text("utf-8"), f"cluster_config/{name}.yaml"


def validate(config: Any, where: str) -> None:
    """Hold a file to its kind's schema.

    Raises
    ------
    UsageError
        If a key is unknown (with the nearest one that is), a value is of the wrong kind, or a key
        without which the cluster can't be started is missing.
    """
    kind = config.get("kind") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise UsageError(f"{where}: needs a line 'kind: ' with one of {', '.join(KINDS)}")
    keys = {"kind": TEXT, **KINDS[kind]}
    for key, value in config.items():
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(keys)}"
            raise UsageError(f"{where}: unknown key {key!r}: {hint}")
        # Left empty it is the same as left out.
        if value is not None and not keys[key].holds(value):
            raise UsageError(f"{where}: {key}: {value!r}: {keys[key].told}")
    for key in NEEDED.get(kind, ()):
        if config.get(key) is None or config[key] == []:
            raise UsageError(f"{where}: {key} is missing: {keys[key].told}")


def parse_memory(value: Any) -> int | None:
    """Return bytes from a size with a unit; None where it is none."""
    from dask.utils import parse_bytes

    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    try:
        limit = int(parse_bytes(value))
    except (ValueError, OverflowError):
        return None
    return limit if limit >= 1 else None


#: Where pages listen unless a file says otherwise.
LOOPBACK = "127.0.0.1:0"


def threads_per_worker(config: Mapping[str, Any]) -> int:
    """Return the threads of each worker."""
    return int(config.get("threads_per_worker") or 1)


def import_extra(module: str, extra: str) -> Any:
    """Import a package of an extra.

    Raises
    ------
    UsageError
        If it is not installed; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} is not installed: install {extra}") from error


def dashboard_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a scheduler is told of its pages: where they are, on loopback unless asked."""
    asked = config.get("dashboard")
    return {"dashboard_address": asked or LOOPBACK, "dashboard": asked is not False}
