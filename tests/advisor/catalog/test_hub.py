"""A hub that answers without end, drop by drop, or not at all, over a real socket on this machine."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from advisor.catalog import hub
from advisor.errors import QuestionError


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves what `manner` says; notes what it was asked and how much it could send."""

    manner = "endless"
    asked: list[str] = []  # noqa: RUF012
    sent = 0

    def do_GET(self) -> None:
        Hub.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                part = b"x" * 65536 if Hub.manner == "endless" else b"x"
                self.wfile.write(part)
                self.wfile.flush()
                Hub.sent += len(part)
                time.sleep(0.0 if Hub.manner == "endless" else 0.05)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Hub.asked, Hub.sent = [], 0
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    where = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr("huggingface_hub.hf_hub_url", lambda repo, name: f"{where}/{repo}/resolve/main/{name}")
    for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(switch, raising=False)
    yield where
    server.shutdown()
    server.server_close()


def test_a_body_without_end_is_given_up_at_its_bound(address: str) -> None:
    Hub.manner = "endless"
    with pytest.raises(QuestionError, match="larger than 4 MiB"):
        hub.from_hub("some/model")
    assert Hub.sent < 64 * 2**20  # what the sockets' buffers hold beyond the bound
    assert Hub.asked == ["/some/model/resolve/main/config.json"]  # and nothing else is asked of the hub


def test_a_body_that_comes_drop_by_drop_is_given_up_in_time(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub.manner = "dripping"
    monkeypatch.setattr(hub, "TIMEOUT_S", 0.5)
    with pytest.raises(QuestionError, match="cannot be reached"):
        hub.from_hub("some/model")
