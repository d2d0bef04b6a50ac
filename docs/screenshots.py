"""Pictures of the page: `python docs/screenshots.py TRACE` writes docs/report.png and docs/report-narrow.png.

The page of the trace is shown by Chromium: on a wide screen, and on a narrow one in dark colours.
`make pictures` draws all pictures.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

BROWSER: Final = (
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
DARK: Final = "--blink-settings=preferredColorScheme=0"
SHOTS: Final = (
    ("report.png", "--window-size=1100,1290", "--blink-settings=preferredColorScheme=1"),
    ("report-narrow.png", "--window-size=400,1620", DARK),
)
"""Name of the picture, and how the page is shown on it."""


def main(trace: str) -> None:
    with tempfile.TemporaryDirectory(prefix="memcg-tracer-page-") as folder:
        page = Path(folder) / "page.html"
        subprocess.run(
            [sys.executable, "-m", "tracer", "report", trace, "-o", str(page)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for name, *how in SHOTS:
            picture = Path(__file__).with_name(name).resolve()
            profile = f"--user-data-dir={folder}/{name}"
            subprocess.run(
                [*BROWSER, *how, profile, f"--screenshot={picture}", page.as_uri()],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
