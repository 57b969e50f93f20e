"""A headless browser without a network, for pages in files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--window-size=1200,900",
)


def programs() -> tuple[str, str]:
    """Return where the browser and its driver are; skip the test without them, or fail it in CI."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser is not None and driver is not None:
        return browser, driver
    what = "chromium" if browser is None else "chromedriver"
    missing = f"no {what} here: apt-get install chromium chromium-driver"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


def start(profile: Path) -> Chrome:
    """Return a browser with a new profile, which logs what it asks for and what goes wrong in a page."""
    browser, driver = programs()
    options = ChromeOptions()
    options.binary_location = browser
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Chrome(options=options, service=Service(driver))
