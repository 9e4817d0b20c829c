"""A headless Chromium and the pages it opens; without a browser these tests are skipped with one clear line."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
# No sandbox inside a container, no GPU, and none of a browser's own traffic: what is left is what the page asks for.
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    if importlib.util.find_spec("playwright") is not None and CHROMIUM is not None:
        return
    reason = "needs Playwright's Python package and a Chromium on the path (or in CHROMIUM)"
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield browser
        browser.close()


class Opened:
    """A page in a browser, with what it printed, threw and requested beside its own file."""

    def __init__(self, page: Any, file: Path) -> None:
        self.page, self.file = page, file
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._requested(request.url))

    def _requested(self, url: str) -> None:
        if url.split("#")[0] != self.file.as_uri() and not url.startswith(("blob:", "data:")):
            self.requests.append(url)

    def go(self, **state: object) -> Any:
        """The page with this state in its address."""
        from urllib.parse import urlencode

        self.page.goto(f"{self.file.as_uri()}#{urlencode(state)}")
        self.page.wait_for_function("document.querySelector('main .view') !== null")
        return self.page

    def figure(self, name: str, *, within: str = "main") -> float:
        """The number behind a figure that is shown."""
        return float(self.page.locator(f"{within} [data-figure='{name}']").first.get_attribute("data-value"))

    def row(self, table: str, label: str) -> dict[str, float]:
        """The figures of one row of a table, by name."""
        found: dict[str, float] = self.page.evaluate(
            """([table, label]) => {
                const rows = [...document.querySelectorAll(`#table-${table} tbody tr`)];
                const cells = rows.find((row) => row.cells[0].textContent === label).querySelectorAll("[data-figure]");
                return Object.fromEntries([...cells].map((cell) => [cell.dataset.figure, Number(cell.dataset.value)]));
            }""",
            [table, label],
        )
        return found


@pytest.fixture
def open_file(chromium: Any) -> Iterator[Callable[..., Opened]]:
    contexts: list[Any] = []

    def opened(file: Path, *, width: int = 1280, scheme: str = "light") -> Opened:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        return Opened(page, file)

    yield opened
    for context in contexts:
        context.close()
