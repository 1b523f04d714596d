"""Hosts of a test: network namespaces with addresses of their own, behind one bridge.

Needs root, Linux and the command `ip`; where one of them is missing the test is skipped.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


class Host:
    """A machine as far as the network is concerned: it has an address, and a cable that can be pulled."""

    def __init__(self, network: Network, number: int) -> None:
        self.name = f"{network.name}-{number}"
        self.address = f"{network.prefix}.{10 + number}"
        self._cable = f"{network.name}{number}"
        self._processes: list[subprocess.Popen[str]] = []
        _ip("netns", "add", self.name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("link", "set", self._cable, "master", network.name, "up")
        for command in (("link", "set", "lo", "up"), ("link", "set", "eth0", "up")):
            _ip("-n", self.name, *command)
        _ip("-n", self.name, "address", "add", f"{self.address}/24", "dev", "eth0")

    def start(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a module of the tests on this host."""
        command = ["ip", "netns", "exec", self.name, sys.executable, "-m", module, *arguments]
        process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)
        self._processes.append(process)
        return process

    def pull_cable(self) -> None:
        """Let nothing in or out; nobody is told."""
        _ip("link", "set", self._cable, "down")

    def plug_in(self) -> None:
        """Undo `pull_cable`."""
        _ip("link", "set", self._cable, "up")

    def remove(self) -> None:
        """End its processes and the host."""
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        _ip("netns", "delete", self.name)


class Network:
    """A bridge that hosts are plugged into; this machine has the address `gateway` on it."""

    def __init__(self) -> None:
        self.name = f"dur{secrets.token_hex(3)}"
        self.prefix = f"10.{secrets.randbelow(120) + 130}.{secrets.randbelow(254) + 1}"
        self.gateway = f"{self.prefix}.1"
        self.hosts: list[Host] = []

    def add_host(self) -> Host:
        """Return a new host."""
        host = Host(self, len(self.hosts))
        self.hosts.append(host)
        return host


@contextmanager
def network() -> Iterator[Network]:
    """Yield a network without hosts; skips the test where there can be none."""
    if sys.platform != "linux" or os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root, Linux and the command ip (Debian: iproute2) for hosts with addresses of their own")
    made = Network()
    try:
        _ip("link", "add", made.name, "type", "bridge")
    except RuntimeError as error:
        pytest.skip(f"this machine lets nobody make network namespaces: {error}")
    try:
        _ip("address", "add", f"{made.gateway}/24", "dev", made.name)
        _ip("link", "set", made.name, "up")
        yield made
    finally:
        for host in made.hosts:
            host.remove()
        _ip("link", "delete", made.name)


def _ip(*arguments: str) -> None:
    command: Sequence[str] = ["ip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
