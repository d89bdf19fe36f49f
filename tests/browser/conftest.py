"""A headless Chromium for the pages. Where there is none, every test is skipped and says what to install."""

import shutil
from pathlib import Path

import pytest

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
REMEDY = "make test-browser installs what is missing (as root: apt-get install chromium; pip install '.[browser]')"


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason=f"NO BROWSER TESTS: no playwright; {REMEDY}")
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    with playwright.sync_playwright() as driver:
        if found is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip(f"NO BROWSER TESTS: no Chromium; {REMEDY}")
        running = driver.chromium.launch(executable_path=found, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def open_page(browser):
    """Open a file without network; the test fails on any word in the console, any error, any request but the file."""
    said, contexts = [], []

    def opened(path, width=1280, height=900, **more):
        context = browser.new_context(viewport={"width": width, "height": height}, offline=True, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on(
            "request", lambda request: None if request.url == path.as_uri() else said.append(f"asked for {request.url}")
        )
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=yes]", state="attached", timeout=20_000)
        page.evaluate("() => new Promise(requestAnimationFrame)")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not said
