"""A headless chromium for the tests that look at pages as a user sees them."""

import base64
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PROGRAMS = ("chromium", "chromedriver")
HEIGHT = 1000


def missing_programs() -> list[str]:
    """What a browser test lacks here."""
    try:
        import selenium  # noqa: F401
    except ModuleNotFoundError:
        return ["selenium (pip install 'zsg[browser]')"]
    return [
        f"{name} (apt install chromium chromium-driver)"
        for name in PROGRAMS
        if not shutil.which(name)
    ]


@contextmanager
def browser(folder: Path, width: int = 1280, dark: bool = False) -> Iterator["Chrome"]:
    """A window so wide, light or dark; its profile is in `folder`, and it ends with the block."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    profile = folder / f"profile-{width}-{dark}"
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService(shutil.which("chromedriver")))
    try:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {
            "width": width,
            "height": HEIGHT,
            "deviceScaleFactor": 1,
            "mobile": False,
        }
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield driver
    finally:
        driver.quit()


def complaints(driver: "Chrome") -> list[dict[str, Any]]:
    """What the page has written to the console."""
    return driver.get_log("browser")


def keep_picture(driver: "Chrome", name: str) -> None:
    """A picture of the whole page, to be looked at: where ZSG_PICTURES says, or in the
    system's temporary folder."""
    path = (
        Path(
            os.environ.get("ZSG_PICTURES")
            or Path(tempfile.gettempdir()) / "zsg-pictures"
        )
        / name
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    taken = driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"}
    )
    path.write_bytes(base64.b64decode(taken["data"]))
    sys.stdout.write(f"\n{path}\n")
