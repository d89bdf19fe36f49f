"""Pictures of the pages that ``stepline report`` writes: ``python plots/report_page.py`` (needs the extra ``browser``).

The top of one page on a light ground, timeline and pipeline of another on a dark one, as a headless Chromium shows them
from the file, without network.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from common import FOLDER
from playwright.sync_api import Browser, sync_playwright

WIDTH = 1240
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PAGES = (
    ("report", "zero-offload-10b-v100", (), "light", "h1", "#binds"),
    ("report-timeline", "lecture-4096", ("--recorded",), "dark", "#timeline", "#communication"),
)
"""File, scenario, options, ground, the element at which the picture begins, and the one before which it ends."""


def made(folder: Path, scenario: str, options: tuple[str, ...]) -> Path:
    """The page of a scenario."""
    path = folder / f"{scenario}.html"
    command = [sys.executable, "-m", "sim", "report", scenario, *options, "--out", str(path)]
    subprocess.run(command, check=True, cwd=Path(__file__).parent.parent, stderr=subprocess.DEVNULL)
    return path


def picture(browser: Browser, path: Path, scheme: str, first: str, last: str) -> bytes:
    """The part of a page between two elements."""
    context = browser.new_context(viewport={"width": WIDTH, "height": 1000}, color_scheme=scheme, offline=True)
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready=yes]", state="attached")
    page.wait_for_timeout(300)
    top, bottom = (
        page.evaluate("(at) => document.querySelector(at).getBoundingClientRect().top", at) for at in (first, last)
    )
    clip = {"x": 0, "y": max(0, top - 20), "width": WIDTH, "height": bottom - top - 4}
    return page.screenshot(full_page=True, clip=clip)


def main() -> None:
    """Draw all of them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        for name, scenario, options, scheme, first, last in PAGES:
            path = made(Path(folder), scenario, options)
            (FOLDER / f"{name}.png").write_bytes(picture(browser, path, scheme, first, last))
            print(f"{FOLDER / name}.png")
        browser.close()


if __name__ == "__main__":
    main()
