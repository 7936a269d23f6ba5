"""Start a cluster of each kind with Dask's own deployment classes, or find a running one."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from segmentation.deploy import jobqueue
from segmentation.deploy.config import (
    LOOPBACK,
    build_dashboard_options,
    import_extra,
    parse_memory,
    threads_per_worker,
)
from segmentation.deploy.tls import find_key_pair_problem, find_validity_problem
from segmentation.errors import ClusterError, UsageError, format_error
from segmentation.tasks import set_dask_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from distributed import Client, Security
    from distributed.deploy.cluster import Cluster

#: Provider → the module of its cluster class, the class, and the package to install.
PROVIDERS = {
    "coiled": ("coiled", "Cluster", "coiled"),
    "aws-ec2": ("dask_cloudprovider.aws", "EC2Cluster", "dask-cloudprovider[aws]"),
    "aws-fargate": ("dask_cloudprovider.aws", "FargateCluster", "dask-cloudprovider[aws]"),
    "azure": ("dask_cloudprovider.azure", "AzureVMCluster", "dask-cloudprovider[azure]"),
    "google": ("dask_cloudprovider.gcp", "GCPCluster", "dask-cloudprovider[gcp]"),
}
#: The job reaches the scheduler through a forwarded port on loopback, so the address doesn't show
#: that other pods can reach the scheduler too.
_UNENCRYPTED_PODS = (
    "the operator's scheduler is unencrypted and unauthenticated: any pod that reaches it can read "
    "the ratings and run code on the workers; restrict access with a network policy, as in "
    "cluster_config/kubernetes/job.yaml"
)
#: After a job was killed, its SSH scheduler stops once it has been idle for ``_IDLE_TIMEOUT``, and
#: a worker once it has been without a scheduler for ``_DEATH_TIMEOUT``.
_IDLE_TIMEOUT, _DEATH_TIMEOUT = "10 minutes", "1 minute"
_LOOPBACK_NAMES = {"localhost", "localhost.localdomain", "ip6-localhost"}


class Deployment(NamedTuple):
    """A cluster to connect to.

    Parameters
    ----------
    target
        The scheduler's address, or a cluster object.
    security
        The certificates that :class:`distributed.Client` needs; None without TLS.
    expected
        The number of workers to wait for.
    dashboard
        The URL of the dashboard, None if the cluster object doesn't know it.
    warning
        A warning to show before connecting, None if there is none.
    """

    target: str | Cluster
    security: Security | None
    expected: int
    dashboard: str | None = None
    warning: str | None = None


def is_loopback(address: str) -> bool:
    """Tell whether an address or a host name belongs to this machine alone.

    Examples
    --------
    >>> is_loopback("tcp://127.0.0.1:8786"), is_loopback("tcp://10.0.0.1:8786")
    (True, False)
    """
    host = address.partition("://")[2] or address
    host = host.rpartition(":")[0] if host.count(":") == 1 or "]" in host else host
    host = host.strip("[]")
    if host.lower() in _LOOPBACK_NAMES or address.startswith("inproc://"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def format_unencrypted_warning(address: str) -> str | None:
    """Return a warning if other machines may reach an unencrypted scheduler; else None."""
    if not address.startswith("tcp://") or is_loopback(address):
        return None
    return (
        f"{address} is unencrypted and unauthenticated: whoever reaches it can read the ratings "
        "and run code on its workers; use tls:// (see segmentation certificates)"
    )


@contextmanager
def deploy(config: Mapping[str, Any], name: str) -> Iterator[Deployment]:
    """Start a cluster and close it at the end, or find a running one.

    Parameters
    ----------
    config
        A cluster file of any kind but ``threads`` and ``local``.
    name
        The file's name, for messages.

    Raises
    ------
    UsageError
        If a package that the kind needs is not installed, the address of a running cluster is
        missing, or its certificates are missing or don't fit.
    ClusterError
        If the cluster can't be started, or a certificate has expired or is not valid yet.
    """
    kind = config["kind"]
    if kind in ("remote", "tls"):
        yield _find_running(config, name)
        return
    start = _STARTERS.get(kind, jobqueue.start_cluster)
    with contextlib.ExitStack() as stack:
        try:
            cluster, expected = start(config, stack)
            stack.callback(_close, cluster)
            if kind in jobqueue.CLASSES:
                jobqueue.submit_jobs(cluster, config)
            elif adaptive := config.get("adaptive"):
                cluster.adapt(**adaptive)
                expected = adaptive["minimum"]
        except UsageError:
            raise
        except Exception as error:
            # Each deployment class raises different errors.
            raise ClusterError(
                f"cluster {name!r} can't be started: {format_error(error)[:400]}; check its file"
            ) from error
        yield Deployment(
            cluster,
            getattr(cluster, "security", None),
            expected,
            find_dashboard_link(cluster),
            _UNENCRYPTED_PODS if kind == "kubernetes" else None,
        )


def _close(cluster: Cluster) -> None:
    # Best-effort: the cluster may be gone.
    with contextlib.suppress(Exception):
        cluster.close()


def find_dashboard_link(owner: Client | Cluster) -> str | None:
    """Return the URL of the dashboard of a client or cluster; None if it has or knows none."""
    try:
        link = owner.dashboard_link
    except Exception:
        return None
    return str(link) if link else None


def _find_running(config: Mapping[str, Any], name: str) -> Deployment:
    address = config.get("address")
    if not address:
        raise UsageError(
            "{cluster} {name}: has no address; pass {address}, or add the key address to its file",
            "cluster",
            "address",
            name=name,
        )
    return Deployment(address, load_security(config, address), int(config.get("workers") or 1))


#: Key of a cluster file → option of :class:`distributed.Security`.
_SECURITY_OPTIONS = {
    "ca_file": "tls_ca_file",
    "certificate": "tls_client_cert",
    "key": "tls_client_key",
}


def load_security(config: Mapping[str, Any], address: str) -> Security | None:
    """Return the client's certificates from the cluster's file or Dask's configuration.

    Without ``tls://``, return None.

    Parameters
    ----------
    config
        The cluster's file.
    address
        The scheduler's address, or ``tls://`` alone for one that is yet to be started.

    Raises
    ------
    UsageError
        If a file is missing for ``tls://`` or named for ``tcp://``, or certificate and key don't
        match.
    ClusterError
        If a certificate has expired or is not valid yet.
    """
    from distributed import Security

    paths = {
        option: str(Path(config[key]).expanduser())
        for key, option in _SECURITY_OPTIONS.items()
        if config.get(key)
    }
    if not address.startswith("tls://"):
        if paths:
            raise UsageError(
                f"{address}: the cluster's file names certificates, and the address is not tls://; "
                "change one of them"
            )
        return None
    security = Security(**paths, require_encryption=True)
    for key, option in _SECURITY_OPTIONS.items():
        _check_file(key, getattr(security, option), address)
    for path in (security.tls_client_cert, security.tls_ca_file):
        if (problem := find_validity_problem(path)) is not None:
            raise ClusterError(
                f"{path}: the certificate {problem}; make new ones (segmentation certificates)"
            )
    # Dask's configuration may hold PEM text in place of paths.
    if not any("\n" in getattr(security, option) for option in _SECURITY_OPTIONS.values()):
        certificate, key = security.tls_client_cert, security.tls_client_key
        if (problem := find_key_pair_problem(certificate, key)) is not None:
            raise UsageError(
                f"{key} and {certificate} can't be used together ({problem}); name a certificate "
                "and its unencrypted key, or make a pair (segmentation certificates)"
            )
    return security


def _check_file(key: str, path: str | None, address: str) -> None:
    if path is None and address == "tls://":
        raise UsageError(
            f"{key} is missing, and this cluster is encrypted; name ca_file, certificate and key "
            "in the cluster's file (segmentation certificates makes them), or set encrypted: false"
        )
    if path is None:
        raise UsageError(
            "{scheduler}: needs {key}; pass {cluster} tls, or a file like it (segmentation "
            "certificates makes what it names)",
            "cluster",
            scheduler=address,
            key=key,
        )
    if "\n" not in path and not Path(path).is_file():
        raise UsageError(
            f"{key}: {path}: no such file; name it in the cluster's file, or make it (segmentation "
            "certificates)"
        )


def _start_ssh(config: Mapping[str, Any], stack: contextlib.ExitStack) -> tuple[Cluster, int]:
    """Start a scheduler on the first host and workers on all hosts, by SSH."""
    from distributed import SSHCluster

    import_extra("asyncssh", "segmentation[ssh]")
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)
    hosts = config["hosts"]
    is_local = all(map(is_loopback, hosts))
    scheduler = {
        "host": hosts[0],
        "port": 0,
        "idle_timeout": _IDLE_TIMEOUT,
        **build_dashboard_options(config),
    }
    if config.get("encrypted", not is_local):
        _configure_tls(load_security(config, "tls://"), stack)
        scheduler["protocol"] = "tls://"
    connect = {
        "username": config.get("user"),
        "port": config.get("port"),
        "client_keys": [config["key_file"]] if config.get("key_file") else None,
        "known_hosts": config.get("known_hosts"),
    }
    per_host = int(config.get("workers_per_host") or 1)
    worker = {
        "nthreads": threads_per_worker(config),
        "memory_limit": config.get("memory_per_worker", "auto"),
        "n_workers": per_host,
        "local_directory": config.get("local_directory"),
        # Workers' pages are unauthenticated, and by default listen on all interfaces.
        "dashboard_address": LOOPBACK,
        "death_timeout": _DEATH_TIMEOUT,
        "host": "127.0.0.1" if is_local else None,
    }
    cluster = SSHCluster(
        [hosts[0], *hosts],
        connect_options=_without_none(connect),
        worker_options=_without_none(worker),
        scheduler_options=scheduler,
        remote_python=config.get("python") or "python3",
    )
    return cluster, per_host * len(hosts)


def _configure_tls(security: Security, stack: contextlib.ExitStack) -> None:
    """Set the certificates in Dask's configuration, which the remote processes inherit."""
    # Key by key, because setting the whole section would drop its other settings.
    tls = "distributed.comm.tls"
    options = {
        f"{tls}.ca-file": security.tls_ca_file,
        "distributed.comm.require-encryption": True,
    }
    for role in ("scheduler", "worker", "client"):
        options[f"{tls}.{role}.cert"] = security.tls_client_cert
        options[f"{tls}.{role}.key"] = security.tls_client_key
    stack.enter_context(set_dask_config(options))


def _start_kubernetes(
    config: Mapping[str, Any], stack: contextlib.ExitStack
) -> tuple[Cluster, int]:
    """Have dask-kubernetes' operator create a DaskCluster, reached through a forwarded port."""
    operator = import_extra("dask_kubernetes.operator", "segmentation[kubernetes]")
    resources = {
        "memory": str(parse_memory(config.get("memory_per_worker")) or 4 << 30),
        "cpu": str(threads_per_worker(config)),
    }
    workers = int(config.get("workers") or 1)
    options = {
        # A unique name, so that no run joins the cluster of another.
        "name": f"{config.get('name') or 'segmentation'}-{uuid.uuid4().hex[:6]}",
        "namespace": config.get("namespace"),
        "env": config.get("environment"),
    }
    cluster = operator.KubeCluster(
        image=config["image"],
        n_workers=workers,
        resources={"requests": resources, "limits": resources},
        quiet=True,
        **_without_none(options),
    )
    return cluster, workers


def _start_cloud(config: Mapping[str, Any], stack: contextlib.ExitStack) -> tuple[Cluster, int]:
    """Start a cluster with the class of a cloud provider; the file's ``options`` are passed on."""
    module, name, package = PROVIDERS[config["provider"]]
    cluster_class = getattr(import_extra(module, package), name)
    workers = int(config.get("workers") or 1)
    return cluster_class(n_workers=workers, **(config.get("options") or {})), workers


def _without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


_STARTERS = {"ssh": _start_ssh, "kubernetes": _start_kubernetes, "cloud": _start_cloud}
