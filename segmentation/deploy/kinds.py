"""Each kind of cluster, started by Dask's own deployment classes or found where it stands."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from segmentation.deploy import config as parts
from segmentation.deploy import jobqueue
from segmentation.deploy.config import parse_memory
from segmentation.deploy.tls import key_pair_problem, validity_problem
from segmentation.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Cloud providers' classes: kind → the package's class, its extra package, workers' option.
PROVIDERS = {
    "coiled": ("coiled", "Cluster", "coiled"),
    "aws-ec2": ("dask_cloudprovider.aws", "EC2Cluster", "dask-cloudprovider[aws]"),
    "aws-fargate": ("dask_cloudprovider.aws", "FargateCluster", "dask-cloudprovider[aws]"),
    "azure": ("dask_cloudprovider.azure", "AzureVMCluster", "dask-cloudprovider[azure]"),
    "google": ("dask_cloudprovider.gcp", "GCPCluster", "dask-cloudprovider[gcp]"),
}
#: A forwarded port leads to it from loopback; that is not where it listens.
_PLAIN_PODS = (
    "what the operator starts is neither encrypted nor asks who somebody is: pods that reach its "
    "scheduler can read the ratings and run programs on its workers: keep them out by a network "
    "policy (cluster_config/kubernetes/job.yaml has one)"
)
#: What a job that was killed has started by SSH ends itself: its scheduler after so long without a
#: task, and workers that reach none.
_IDLE, _UNREACHED = "1 hour", "1 minute"
_LOOPBACK_NAMES = {"localhost", "localhost.localdomain", "ip6-localhost"}


class Deployment(NamedTuple):
    """A cluster to connect to.

    ``target`` is an address or a cluster object, ``security`` what :class:`distributed.Client`
    needs, ``expected`` the workers to wait for, ``warning`` what a person should know of it.
    """

    target: Any
    security: Any
    expected: int
    dashboard: str | None = None
    warning: str | None = None


def is_loopback(address: str) -> bool:
    """Tell whether an address, or a host's name, is of this machine alone."""
    host = address.partition("://")[2] or address
    host = host.rpartition(":")[0] if host.count(":") == 1 or "]" in host else host
    host = host.strip("[]")
    if host.lower() in _LOOPBACK_NAMES or address.startswith("inproc://"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def unencrypted_warning(address: str) -> str | None:
    """Say what it means to talk to a scheduler in the open; None where nobody else can listen."""
    if not address.startswith("tcp://") or is_loopback(address):
        return None
    return (
        f"{address} is neither encrypted nor does it ask who you are: whoever reaches it can read "
        "the ratings and run programs on its workers: use tls:// (see segmentation certificates)"
    )


@contextmanager
def deploy(config: Mapping[str, Any], name: str) -> Iterator[Deployment]:
    """Start a cluster of any kind but the embedded ones, and end it, or find one that stands.

    Raises
    ------
    UsageError
        If its package is not installed, or keys are missing that only it can tell.
    ClusterError
        If it can't be started.
    """
    kind = config["kind"]
    if kind in ("remote", "tls"):
        yield _found(config, name)
        return
    start = {"ssh": _ssh, "kubernetes": _kubernetes, "cloud": _cloud}.get(
        kind, jobqueue.start_cluster
    )
    with contextlib.ExitStack() as stack:
        try:
            cluster, expected = start(config, name, stack)
            stack.callback(_close, cluster)
            adaptive = config.get("adaptive")
            if kind in jobqueue.CLASSES:
                jobqueue.submit_jobs(cluster, config)
            elif adaptive:
                cluster.adapt(**adaptive)
                expected = adaptive["minimum"]
        except (UsageError, KeyboardInterrupt):
            raise
        except Exception as error:
            # Each of these classes has its own: what they say is what there is to say.
            told = " ".join(str(error).split()) or type(error).__name__
            raise ClusterError(
                f"cluster {name!r} can't be started: {told[:400]}: check its file"
            ) from error
        yield Deployment(
            cluster,
            getattr(cluster, "security", None),
            expected,
            _link(cluster),
            _PLAIN_PODS if kind == "kubernetes" else None,
        )


def _close(cluster: Any) -> None:
    # It is being left in any case, and may have lost what it would have to tell.
    with contextlib.suppress(Exception):
        cluster.close()


def _link(cluster: Any) -> str | None:
    try:
        found = cluster.dashboard_link
    except Exception:
        return None
    return str(found) if found else None


def _found(config: Mapping[str, Any], name: str) -> Deployment:
    address = config.get("address")
    if not address:
        raise UsageError(
            f"--cluster {name}: has no address: add --address, or the key address to its file"
        )
    return Deployment(address, security(config, address), int(config.get("workers") or 1))


def security(config: Mapping[str, Any], address: str) -> Any:
    """Return the certificates that a client shows, from the file or Dask's configuration.

    Raises
    ------
    UsageError
        If one is missing for ``tls://``, or named for ``tcp://``.
    ClusterError
        If the own certificate is not good any more.
    """
    from distributed import Security

    keys = {"ca_file": "tls_ca_file", "certificate": "tls_client_cert", "key": "tls_client_key"}
    given = {keys[key]: str(Path(config[key]).expanduser()) for key in keys if config.get(key)}
    if not address.startswith("tls://"):
        if given:
            raise UsageError(
                f"{address}: certificates are named, and the address is not tls://: mend either"
            )
        return None
    found = Security(**given, require_encryption=True)
    for key, option in keys.items():
        path = getattr(found, option)
        if path is None and address == "tls://":
            raise UsageError(
                f"{key} is missing where a host is not this machine: name ca_file, certificate and "
                "key in the cluster's file (segmentation certificates makes them), or say "
                "encrypted: false"
            )
        if path is None:
            raise UsageError(
                f"{address}: needs {key}: take --cluster tls, or a file like it (segmentation "
                "certificates makes what it names)"
            )
        if "\n" not in path and not Path(path).is_file():
            raise UsageError(
                f"{key}: {path}: no such file: name it in the cluster's file, or make it with "
                "segmentation certificates"
            )
    for path in (found.tls_client_cert, found.tls_ca_file):
        if (told := validity_problem(path)) is not None:
            raise ClusterError(
                f"{path}: the certificate {told}: make new ones (segmentation certificates)"
            )
    if not any("\n" in getattr(found, option) for option in keys.values()):
        certificate, key = found.tls_client_cert, found.tls_client_key
        if (told := key_pair_problem(certificate, key)) is not None:
            raise UsageError(
                f"{key}: is not the key of {certificate}, or one of them can't be read ({told}): "
                "name a pair, unencrypted, or make one with segmentation certificates"
            )
    return found


def _ssh(config: Mapping[str, Any], name: str, stack: contextlib.ExitStack) -> tuple[Any, int]:
    """Start a scheduler on the first host and workers on all, by each host's SSH server."""
    import dask
    from distributed import SSHCluster

    parts.import_extra("asyncssh", "segmentation[ssh]")
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)
    hosts = config["hosts"]
    encrypted = config.get("encrypted", not all(map(is_loopback, hosts)))
    options: dict[str, Any] = {
        "host": hosts[0],
        "port": 0,
        "idle_timeout": _IDLE,
        **parts.dashboard_options(config),
    }
    if encrypted:
        # Read on each host; the job's own configuration is what they inherit.
        paths = security(config, "tls://")
        # Each by itself: the branch holds other settings that have to stay.
        tls = "distributed.comm.tls"
        role = {f"{tls}.ca-file": paths.tls_ca_file, "distributed.comm.require-encryption": True}
        for part in ("scheduler", "worker", "client"):
            role[f"{tls}.{part}.cert"] = paths.tls_client_cert
            role[f"{tls}.{part}.key"] = paths.tls_client_key
        stack.enter_context(dask.config.set(role))
        options["protocol"] = "tls://"
    connect = {
        "username": config.get("user"),
        "port": config.get("port"),
        "client_keys": [config["key_file"]] if config.get("key_file") else None,
        "known_hosts": config.get("known_hosts"),
    }
    each = int(config.get("workers_per_host") or 1)
    worker = {
        "nthreads": parts.threads_per_worker(config),
        "memory_limit": config.get("memory_per_worker", "auto"),
        "n_workers": each,
        "local_directory": config.get("local_directory"),
        # Their pages ask nobody who they are; and unless told so they listen everywhere.
        "dashboard_address": parts.LOOPBACK,
        "death_timeout": _UNREACHED,
        "host": "127.0.0.1" if all(map(is_loopback, hosts)) else None,
    }
    cluster = SSHCluster(
        [hosts[0], *hosts],
        connect_options={key: value for key, value in connect.items() if value is not None},
        worker_options={key: value for key, value in worker.items() if value is not None},
        scheduler_options=options,
        remote_python=config.get("python") or "python3",
    )
    return cluster, each * len(hosts)


def _kubernetes(
    config: Mapping[str, Any], name: str, stack: contextlib.ExitStack
) -> tuple[Any, int]:
    """Have the operator of dask-kubernetes make a DaskCluster, reached by a forwarded port."""
    operator = parts.import_extra("dask_kubernetes.operator", "segmentation[kubernetes]")
    memory = config.get("memory_per_worker") or "4 GiB"
    amount = {
        "memory": str(parse_memory(memory) or 4 << 30),
        "cpu": str(parts.threads_per_worker(config)),
    }
    workers = int(config.get("workers") or 1)
    options = {
        # Of its own, so that no run joins the cluster of another.
        "name": f"{config.get('name') or 'segmentation'}-{uuid.uuid4().hex[:6]}",
        "namespace": config.get("namespace"),
        "env": config.get("environment"),
    }
    cluster = operator.KubeCluster(
        image=config["image"],
        n_workers=workers,
        resources={"requests": amount, "limits": amount},
        quiet=True,
        **{key: value for key, value in options.items() if value is not None},
    )
    return cluster, workers


def _cloud(config: Mapping[str, Any], name: str, stack: contextlib.ExitStack) -> tuple[Any, int]:
    """Let a cloud's own package start a cluster, with that package's own options."""
    provider = config["provider"]
    if provider not in PROVIDERS:
        raise UsageError(f"{name}: provider: {provider!r}: choose from {', '.join(PROVIDERS)}")
    module, cls, package = PROVIDERS[provider]
    workers = int(config.get("workers") or 1)
    made = getattr(parts.import_extra(module, package), cls)
    return made(n_workers=workers, **(config.get("options") or {})), workers
