"""A headless Chromium for tests of pages: Debian's, or the one that Playwright installs."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

sync_api = pytest.importorskip("playwright.sync_api")

_HERE = ("127.0.0.1", "localhost", "")


@contextmanager
def chromium(*more):
    """A browser, with ``more`` arguments; where CI runs, it must be there."""
    with sync_api.sync_playwright() as playwright:
        # --no-sandbox: CI runs as root, for whom Chromium's sandbox does not start.
        options = {"executable_path": shutil.which("chromium"), "args": ["--no-sandbox", *more]}
        try:
            browser = playwright.chromium.launch(**options)
        except sync_api.Error:
            if os.environ.get("CI"):
                raise
            pytest.skip("no browser is here: apt install chromium, or playwright install chromium")
        yield browser
        browser.close()


class Visit:
    """A page that is looked at, and what it did that it should not: errors, and requests to other hosts."""

    def __init__(self, browser, **context):
        self._context = browser.new_context(**context)
        self.page = self._context.new_page()
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._note)

    def _note(self, request):
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in _HERE:
            self.elsewhere.append(request.url)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._context.close()


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found
