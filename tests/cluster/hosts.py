"""Hosts on one machine: network namespaces with addresses of their own, joined by a bridge."""

from __future__ import annotations

import os
import subprocess
import uuid
from dataclasses import dataclass, field


def ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=check)


def missing_requirement() -> str | None:
    """Return why this machine can't have hosts of its own; None if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"probe{os.getpid()}"
    try:
        created = ip("netns", "add", name, check=False)
    except FileNotFoundError:
        return "no ip on the PATH: install iproute2"
    if created.returncode:
        return f"no network namespaces here: {created.stderr.strip()}"
    ip("netns", "delete", name)
    return None


@dataclass
class Network:
    """A switch in a namespace of its own, so that this machine's addresses are not on it."""

    token: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    hosts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.switch = f"sw{self.token}"
        ip("netns", "add", self.switch)
        self._in(self.switch, "link", "add", "br0", "type", "bridge")
        self._in(self.switch, "link", "set", "br0", "up")

    def _in(self, space: str, *arguments: str) -> None:
        ip("-n", space, *arguments)

    def add(self) -> str:
        """Create a host; return its address, 10.77.0.x."""
        number = len(self.hosts) + 1
        name = f"h{number}x{self.token}"
        ip("netns", "add", name)
        self._in(
            name,
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "name",
            f"p{number}",
            "netns",
            self.switch,
        )
        self._in(name, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self._in(name, "link", "set", device, "up")
        self._in(self.switch, "link", "set", f"p{number}", "master", "br0", "up")
        self.hosts.append(name)
        return f"10.77.0.{number}"

    def on(self, address: str) -> tuple[str, ...]:
        """Return the words to put before a command to run it on a host."""
        return ("ip", "netns", "exec", self.hosts[int(address.rpartition(".")[2]) - 1])

    def set_link(self, address: str, *, up: bool) -> None:
        """Unplug a host's cable from the switch, or plug it in."""
        port = f"p{address.rpartition('.')[2]}"
        self._in(self.switch, "link", "set", port, "up" if up else "down")

    def end(self) -> None:
        for name in [*self.hosts, self.switch]:
            ip("netns", "delete", name, check=False)
