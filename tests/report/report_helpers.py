"""A small run to report, and a browser to open its page in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from run_helpers import QUIET, tiny_settings

from clreplay.incremental.run import run_experiment


def small_run(folder: Path, **changes) -> Path:
    """Two memories of the digits in five steps, one order, two networks."""
    from dataclasses import replace

    return run_experiment(replace(tiny_settings(), class_orders=1, **changes), folder, QUIET)


def browser(place: Path, width: int):
    """Headless Chromium; the test is skipped where there is none."""
    binary, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if binary is None or driver is None:
        pytest.skip("no Chromium with its driver here (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = binary
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    for flag in [*flags.split(), "disable-component-update", "disable-sync", f"user-data-dir={place}"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    return found
