"""pandas at a limit that its data nearly fills: the text of its libraries does not fit beside them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from applications.rerun import MIB, assert_reads_nothing_again_at_the_upper_end

pytestmark = pytest.mark.kernel

LIMIT_BYTES = 120 * MIB
DATA_BYTES = 108 * MIB
ROUNDS = 1
PACKAGES = ("numpy", "numpy.libs", "pandas", "dateutil", "six", "pytz")
WORK = f"""
import io, re
import numpy, pandas

def anon_bytes():
    with open("/proc/self/status") as status:
        return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", status.read())[1])

data = b"x" * ({DATA_BYTES} - anon_bytes())
choose = numpy.random.default_rng(5)
for number in range({ROUNDS}):
    begin = pandas.Timestamp("2026-01-01")
    times = pandas.date_range(begin, periods=997, freq="min")
    frame = pandas.DataFrame({{"key": choose.integers(0, 31, 997), "x": choose.random(997)}}, index=times)
    frame.groupby("key")["x"].agg(["mean", "std", "median"])
    frame.resample("1h").mean().rolling(5).std()
    frame.sort_values(["key", "x"]).merge(frame.sample(97, random_state=1), on="key")
    frame.pivot_table(index="key", values="x", aggfunc="max")
    pandas.read_csv(io.StringIO(frame.to_csv()), parse_dates=[0])
    numpy.linalg.svd(choose.random((31, 31)))
"""


def own_packages(folder: Path) -> None:
    """Make the modules of pandas and of what it imports available in a folder, with copies of the libraries
    among them, so that no other cgroup is charged for their page cache."""
    site = Path(pd.__file__).parents[1]
    for found in (path for name in PACKAGES for path in (site / name, site / f"{name}.py")):
        if found.is_dir():
            without = shutil.ignore_patterns("tests")
            shutil.copytree(found, folder / found.name, ignore=without, copy_function=_copy_or_link)
        elif found.exists():
            _copy_or_link(found, folder / found.name)


def _copy_or_link(source: str | Path, target: str | Path) -> None:
    if ".so" in Path(source).suffixes:
        shutil.copyfile(source, target)
    else:
        Path(target).symlink_to(source)


def test_pandas_reads_its_libraries_again_and_not_at_the_suggested_limit(
    disk_dir: Path, tmp_path: Path
) -> None:
    own_packages(disk_dir)
    work = ["env", f"PYTHONPATH={disk_dir}", "OPENBLAS_NUM_THREADS=1", sys.executable, "-S", "-c", WORK]
    tight, wide = assert_reads_nothing_again_at_the_upper_end(
        work, tmp_path / "trace", LIMIT_BYTES, tmp_path, disk_dir
    )
    assert wide.progress.state == "held"
    # The disk decides which share of the time this takes, and so whether it counts as thrashing.
    assert tight.progress.lost is not None
    assert (tight.progress.lost.reread_ms or 0) > 0
    most = tight.progress.files[0]
    assert most.path is not None
    assert most.path.startswith(f"{disk_dir}/")
    assert ".so" in Path(most.path).name
    assert most.executable is False
    # Nothing of this cgroup was evicted before the trace, so that the kernel's own count is the same.
    assert tight.refaulted_bytes == pytest.approx(tight.kernel_refaulted_bytes, rel=0.05)
    assert {one.comm for one in tight.progress.delayed} <= {Path(sys.executable).name}
