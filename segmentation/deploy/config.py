"""Read a file of ``cluster_config/``, apply the environment, and check it against its schema."""

from __future__ import annotations

import difflib
import functools
import importlib
import math
import os
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmentation.errors import UsageError, format_error

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from jsonschema.protocols import Validator

#: Default address of dashboards: this machine only, and any free port.
LOOPBACK = "127.0.0.1:0"
#: The file in ``cluster_config/`` that doesn't describe a cluster.
_SCHEMA = "schema.yaml"
_ADDRESS = re.compile(r"(?:tcp|tls)://(?:\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):(\d{1,5})")


def load_config(name: str) -> dict[str, Any]:
    """Read a cluster's file by its name in ``cluster_config/``, or by its path.

    Keys that the environment sets (``DASK_SEGMENTATION__CLUSTER__KEY``, through Dask's
    configuration) override those of the file.

    Raises
    ------
    UsageError
        If there is no such file, it can't be read as YAML, or its keys or those of the environment
        don't fit ``cluster_config/schema.yaml``.

    Examples
    --------
    >>> load_config("threads")["kind"]
    'threads'
    """
    import yaml

    text, path = _read_file(name)
    try:
        # Nested aliases could multiply a small file to any size.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise UsageError(f"{path}: has an alias (*name): write the value itself")
        config = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{path}: is not YAML: {format_error(error)}") from error
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        # yaml lets through what fails while it makes a date or a number.
        raise UsageError(
            f"{path}: holds a value that can't be read: {format_error(error)}"
        ) from error
    validate(config, path)
    if overrides := _read_overrides():
        config = {**config, **overrides}
        validate(config, "DASK_SEGMENTATION__CLUSTER__ in the environment, or Dask's configuration")
    return dict(config)


def _read_overrides() -> dict[str, Any]:
    """Return the keys of a cluster file that Dask's configuration sets."""
    import dask

    section = dask.config.get("segmentation", None) or {}
    if not isinstance(section, dict):
        section = {"cluster": section}
    unknown = [name for name in section if name != "cluster"]
    overrides = section.get("cluster") or {}
    if isinstance(overrides, dict) and not unknown:
        return {str(key).replace("-", "_"): value for key, value in overrides.items()}
    variable = f"DASK_SEGMENTATION__{unknown[0] if unknown else 'cluster'}".upper()
    raise UsageError(
        f"{variable} in the environment, or the same key in Dask's configuration: names no key of "
        "a cluster file; write it as in DASK_SEGMENTATION__CLUSTER__WORKERS=4"
    )


def _read_file(name: str) -> tuple[str, str]:
    """Return the text of a cluster file, and the path that messages show."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or os.sep in name:
        if not path.is_file():
            raise UsageError(
                "{cluster} {name}: no such file; copy one of cluster_config/ and edit it",
                "cluster",
                name=name,
            )
        try:
            return path.read_text("utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{name}: can't be read as UTF-8 text: {error}") from error
    folder = resources.files("cluster_config")
    names = sorted(
        file.name.removesuffix(".yaml")
        for file in folder.iterdir()
        if file.name.endswith(".yaml") and file.name != _SCHEMA
    )
    if name not in names:
        raise UsageError(
            "{cluster} {name}: choose from {names}, or pass the path of a .yaml file",
            "cluster",
            name=name,
            names=", ".join(names),
        )
    return (folder / f"{name}.yaml").read_text("utf-8"), f"cluster_config/{name}.yaml"


def validate(config: Any, path: str) -> None:
    """Check the content of a cluster file against the schema of its kind.

    Parameters
    ----------
    config
        The parsed content of the file.
    path
        What to call the file in messages.

    Raises
    ------
    UsageError
        If the kind or a key is unknown, a value is not allowed, or a required key is missing. For
        an unknown key, the message suggests the most similar known key.
    """
    definitions = definitions_by_kind()
    kind = config.get("kind") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in definitions:
        raise UsageError(f"{path}: needs a line 'kind: NAME' with one of {', '.join(definitions)}")
    properties = definitions[kind]["properties"]
    # An empty value is the same as a missing key.
    values = {k: v for k, v in config.items() if v is not None or k not in properties}
    errors = list(_validator(kind).iter_errors(values))
    for error in errors:
        if error.validator == "additionalProperties" and not error.path:
            raise _unknown_key(path, next(key for key in values if key not in properties), kind)
    for error in errors:
        if error.path:
            key = error.path[0]
            raise UsageError(
                f"{path}: {key}: {values[key]!r}: expected {_description(properties[key])}"
            )
    for key in definitions[kind].get("required", ()):
        if key not in values:
            raise UsageError(f"{path}: missing key {key!r}: add {_description(properties[key])}")


def _unknown_key(path: str, key: object, kind: str) -> UsageError:
    keys = list(definitions_by_kind()[kind]["properties"])
    matches = difflib.get_close_matches(str(key), keys, n=1)
    hint = f"did you mean {matches[0]}?" if matches else f"known keys are {', '.join(keys)}"
    return UsageError(f"{path}: unknown key {key!r}: {hint}")


def _description(schema: Mapping[str, Any]) -> str:
    """Return the description of a key's values, that of its definition if it is a ``$ref``."""
    if "$ref" in schema:
        schema = _load_schema()["$defs"][schema["$ref"].rpartition("/")[2]]
    return str(schema["description"])


@functools.cache
def definitions_by_kind() -> dict[str, dict[str, Any]]:
    """Return each kind's definition in the schema, in the order of the schema."""
    return {
        kind: definition
        for definition in _load_schema()["$defs"].values()
        if "kind" in definition.get("properties", {})
        for kind in definition["properties"]["kind"]["enum"]
    }


@functools.cache
def _load_schema() -> dict[str, Any]:
    import yaml

    text = (resources.files("cluster_config") / _SCHEMA).read_text("utf-8")
    # libyaml parses the schema in 1 ms, PyYAML's own parser in 9 ms.
    parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    return dict(parser.get_single_data())


@functools.cache
def _validator(kind: str) -> Validator:
    from jsonschema import Draft202012Validator, FormatChecker, validators

    # JSON Schema accepts 2.0 as an integer; YAML distinguishes 2 and 2.0, and has NaN and infinity.
    types = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
            "number": lambda _, value: (
                isinstance(value, (int, float))
                and not isinstance(value, bool)
                and math.isfinite(value)
            ),
        }
    )
    formats = FormatChecker(formats=())
    for name, has_format in {
        "memory": lambda value: parse_memory(value) is not None,
        "scheduler-address": is_address,
        "listen-address": _is_listen_address,
        "ascending-range": _is_ascending,
    }.items():
        formats.checks(name)(has_format)
    schema = {"$defs": _load_schema()["$defs"], **definitions_by_kind()[kind]}
    strict = validators.extend(Draft202012Validator, type_checker=types)
    return strict(schema, format_checker=formats)


def is_address(value: object) -> bool:
    """Tell whether a value is a scheduler's address with protocol, host and port.

    Examples
    --------
    >>> is_address("tcp://127.0.0.1:8786"), is_address("127.0.0.1:8786")
    (True, False)
    """
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    return match is not None and 0 < int(match.group(1)) < 65_536


def _is_listen_address(value: object) -> bool:
    port = value.rpartition(":")[2] if isinstance(value, str) else ""
    return port.isascii() and port.isdigit() and int(port) < 65_536


def _is_ascending(value: object) -> bool:
    if not isinstance(value, dict):
        return True
    low, high = value.get("minimum"), value.get("maximum")
    return not (isinstance(low, int) and isinstance(high, int)) or low <= high


def parse_memory(value: object) -> int | None:
    """Convert a memory size to bytes; return None if it is not a positive size.

    Examples
    --------
    >>> parse_memory("2 GiB"), parse_memory("lots")
    (2147483648, None)
    """
    from dask.utils import parse_bytes

    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    try:
        n_bytes = int(parse_bytes(value))
    except (ValueError, OverflowError):
        return None
    return n_bytes if n_bytes >= 1 else None


def threads_per_worker(config: Mapping[str, Any]) -> int:
    """Return the number of threads of each worker, 1 by default."""
    return int(config.get("threads_per_worker") or 1)


def import_extra(module: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency.

    Raises
    ------
    UsageError
        If it can't be imported; the message asks to install ``extra``.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} is not installed; install {extra}") from error


def build_dashboard_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scheduler's options for its dashboard, which is on loopback by default."""
    address = config.get("dashboard")
    return {"dashboard_address": address or LOOPBACK, "dashboard": address is not False}
