"""Before ranks of several machines exchange anything: their agents prove to each other that they know one secret.

The first machine listens on the address of --master alone and sends each caller 32 random bytes; the caller answers with its own,
its number and what it is to measure, under an HMAC of the secret; when every machine has called, the first proves the same to each.
Nothing that arrives is trusted, or even taken apart, before its HMAC is right, and nothing is ever unpickled. The secret itself
does not travel. What the ranks send each other afterwards (torch's store, gloo, NCCL) is neither encrypted nor signed.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import socket
import time
from dataclasses import dataclass

from advisor.errors import MachineError

_SIZE = 32  # bytes of a nonce, of a digest and of an HMAC-SHA256
_CALL_S = 3.0  # for one caller to say who it is
_RETRY_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Where `count` machines meet, what they know, and the digest of what all of them must be about to do."""

    host: str
    port: int
    count: int
    secret: bytes
    digest: bytes
    limit_s: float

    def proof(self, who: bytes, nonces: bytes, node: int) -> bytes:
        """HMAC-SHA256(secret, who | both nonces | node | count | digest): good for one call only."""
        said = b"|".join((who, nonces, node.to_bytes(4, "big"), self.count.to_bytes(4, "big"), self.digest))
        return hmac.digest(self.secret, said, hashlib.sha256)


def host(meeting: Meeting) -> socket.socket:
    """Wait until every other machine has proved itself; the listening socket comes back, for torch's store.

    Raises MachineError where the address is not this machine's, or where not all came in time.
    """
    listener = _listener(meeting)
    known: dict[int, tuple[socket.socket, bytes]] = {}
    try:
        _gather(meeting, listener, known)
        for node, (caller, nonces) in known.items():
            with contextlib.suppress(OSError):
                caller.sendall(meeting.proof(b"host", nonces, node))
        listener.settimeout(None)
        return listener
    except BaseException:
        listener.close()
        raise
    finally:
        for caller, _ in known.values():
            caller.close()


def _listener(meeting: Meeting) -> socket.socket:
    listener: socket.socket | None = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(meeting.host, meeting.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        raise MachineError(
            f"cannot listen on {meeting.host}:{meeting.port}: {error.strerror or error}; give --master an address of the first "
            "machine and a free port."
        ) from None


def _gather(meeting: Meeting, listener: socket.socket, known: dict[int, tuple[socket.socket, bytes]]) -> None:
    """Fill `known` with a caller for each other machine; whoever fails the check is hung up on."""
    ends = time.monotonic() + meeting.limit_s
    while len(known) < meeting.count - 1:
        listener.settimeout(max(0.01, ends - time.monotonic()))
        try:
            caller, _ = listener.accept()
        except TimeoutError:
            missing = next(node for node in range(1, meeting.count) if node not in known)
            raise MachineError(
                f"machine {missing} did not join at {meeting.host}:{meeting.port} in {meeting.limit_s:.0f} s with the same secret "
                "and the same question; start the same command on it with its --node-rank."
            ) from None
        found = _checked(meeting, caller)
        if found is None or found[0] in known:
            caller.close()
        else:
            known[found[0]] = (caller, found[1])


def _checked(meeting: Meeting, caller: socket.socket) -> tuple[int, bytes] | None:
    """The machine's number and both nonces where the caller knows the secret, else None."""
    nonce = secrets.token_bytes(_SIZE)
    try:
        caller.sendall(nonce)
        said = _exactly(caller, 2 * _SIZE + 4, until=time.monotonic() + _CALL_S)
    except OSError:
        return None
    theirs, node, proof = said[:_SIZE], int.from_bytes(said[_SIZE : _SIZE + 4], "big"), said[_SIZE + 4 :]
    good = hmac.compare_digest(proof, meeting.proof(b"guest", nonce + theirs, node))
    return (node, nonce + theirs) if good and 0 < node < meeting.count else None


def guest(meeting: Meeting, node: int) -> None:
    """Prove this machine to the first and check its proof. Raises MachineError where it is not there, or knows another secret."""
    where, ends = f"{meeting.host}:{meeting.port}", time.monotonic() + meeting.limit_s
    while True:
        try:
            caller = socket.create_connection((meeting.host, meeting.port), timeout=_CALL_S)
            break
        except OSError as error:
            if time.monotonic() > ends:
                raise MachineError(f"the first machine does not answer at {where}: {error.strerror or error}.") from None
            time.sleep(_RETRY_S)
    with caller:
        try:
            nonces = _exactly(caller, _SIZE, until=ends) + secrets.token_bytes(_SIZE)
            caller.sendall(nonces[_SIZE:] + node.to_bytes(4, "big") + meeting.proof(b"guest", nonces, node))
            answer = _exactly(caller, _SIZE, until=ends)
        except OSError:
            raise MachineError(
                f"the first machine at {where} refused this one: it has another secret or another question; run the same command "
                "with the same secret on each machine, each with its own --node-rank."
            ) from None
    if not hmac.compare_digest(answer, meeting.proof(b"host", nonces, node)):
        raise MachineError(f"who answers at {where} does not know the secret: that is not the first machine.")


def _exactly(peer: socket.socket, size: int, *, until: float) -> bytes:
    """So many bytes. Raises OSError where the peer goes away or is too slow."""
    found = b""
    while len(found) < size:
        peer.settimeout(max(0.01, until - time.monotonic()))
        part = peer.recv(size - len(found))
        if not part:
            raise ConnectionResetError("the other end closed")
        if time.monotonic() > until:
            raise TimeoutError("too slow")
        found += part
    return found
