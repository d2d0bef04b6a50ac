"""Which files have tests of a marker: a guest collects only those, since all would take it minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

import pytest
from vm.errors import NotRunError
from vm.python_disk import CHECKOUT


def files_with_tests(markers: Sequence[str]) -> dict[str, list[str]]:
    """Return for each marker the files with tests of it, relative to the checkout.

    pytest compiles the tests of all files meanwhile, which a guest would have to do otherwise.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    collect = [sys.executable, "-m", "vm.marked_tests", *markers]
    collected = subprocess.run(
        collect, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    if collected.returncode:
        raise NotRunError(f"pytest cannot collect the tests: {collected.stderr.strip().splitlines()[-1:]}")
    found: dict[str, list[str]] = json.loads(collected.stdout)
    return found


class Collector:
    """A plugin of pytest that keeps the files with tests of some markers."""

    def __init__(self, markers: Sequence[str]) -> None:
        self.files: dict[str, dict[str, None]] = {marker: {} for marker in markers}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for marker in item.iter_markers():
                if marker.name in self.files:
                    self.files[marker.name][item.nodeid.partition("::")[0]] = None


def main() -> int:
    """Print the files for the markers that are the arguments, as JSON."""
    collector = Collector(sys.argv[1:])
    with redirect_stdout(sys.stderr):
        status = pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider"], plugins=[collector])
    print(json.dumps({marker: list(files) for marker, files in collector.files.items()}))
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
