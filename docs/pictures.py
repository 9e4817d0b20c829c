"""Takes the pictures of docs/explore.md and of the README again: one of each view of the explorer, in a real browser.

    python docs/pictures.py

Needs Playwright's Python package and a Chromium on the path (or in CHROMIUM). `tests/browser/test_pictures.py` takes them too and
fails where one is missing or shows another view.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 1180, 800
# The question of the pictures, and what is set in each: name of the file -> state in the address, and whether colours are dark.
QUESTION: dict[str, Any] = {"gpu": "h100-80g-sxm", "gpus": 8, "online": False}
PICTURES: dict[str, tuple[dict[str, object], bool]] = {
    "which-plan": ({"view": "plan", "x": "tpot"}, False),
    "how-many-users": ({"view": "users", "users": 500}, False),
    "why": ({"view": "why", "batch": 64}, False),
    "what-if": ({"view": "whatif", "gpu": "h200-141g-sxm", "weights": "fp8", "users": 256}, False),
    "where": ({"view": "where", "plan": "tp=4,pp=2"}, True),
    "formulas": ({"view": "formulas"}, False),
}


def chromium() -> str:
    """The browser to use; raises SystemExit where there is none."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        raise SystemExit("No Chromium was found: install one, or name it in CHROMIUM.")
    return found


def write_question(out: Path) -> None:
    """The page whose pictures are taken."""
    from advisor.api.explore import explore, write_page
    from advisor.api.question import question

    write_page(explore(question(model="70b", **QUESTION)), out)


def take(browser: Any, file: Path, folder: Path) -> None:
    """One PNG a view in `folder`, of the page in `file`."""
    for name, (state, dark) in PICTURES.items():
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark" if dark else "light")
        page.goto(f"{file.as_uri()}#{urlencode(state)}")
        page.wait_for_selector("main figure, main .formula")
        page.evaluate("scrollTo(0, document.querySelector('nav').getBoundingClientRect().top - 8)")
        page.screenshot(path=folder / f"{name}.png")
        page.close()


def main() -> None:
    """Take all of them."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        file = Path(work) / "advice.html"
        write_question(file)
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        take(browser, file, HERE / "pictures")
        browser.close()


if __name__ == "__main__":
    main()
