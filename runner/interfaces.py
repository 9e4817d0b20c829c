"""Which network interface the ranks may use: loopback on one machine, the one that leads to --master on several."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from advisor.errors import MachineError

_SIOCGIFADDR = 0x8915  # linux/sockios.h: the IPv4 address of an interface


def loopback() -> str:
    """Its name: `lo` on Linux, `lo0` on macOS."""
    names = [name for _, name in socket.if_nameindex()]
    return "lo" if "lo" in names else "lo0"


def toward(host: str, port: int) -> str:
    """The interface that packets to `host` leave by. Raises MachineError where there is none."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)  # of a datagram socket: chooses the route, sends nothing
            own = str(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            if own in _addresses(name, family):
                return name
    except OSError as error:
        raise MachineError(f"no network of this machine leads to {host}: {error.strerror or error}; check --master.") from None
    raise MachineError(f"the interface that leads to {host} cannot be told; name it in GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME.")


def _addresses(name: str, family: int) -> list[str]:
    if family == socket.AF_INET6:
        lines = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
        return [socket.inet_ntop(family, bytes.fromhex(words[0])) for words in lines if words[-1] == name]
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            found = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        except OSError:  # an interface without an IPv4 address
            return []
    return [socket.inet_ntoa(found[20:24])]
