"""Children that run a module of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[3]


def test_child_gives_way_for_the_cpu_and_for_memory() -> None:
    script = (
        "import os\n"
        "from contextlib import suppress\n"
        "from pathlib import Path\n"
        "from tracer.kernel.process.children import stand_back\n"
        "with suppress(OSError): os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))\n"
        "with suppress(OSError): Path('/proc/self/oom_score_adj').write_text('-900')\n"
        "stand_back()\n"
        "print(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))\n"
        "print(Path('/proc/self/oom_score_adj').read_text())\n"
    )
    output = subprocess.run([sys.executable, "-c", script], cwd=TOP, capture_output=True, check=True).stdout
    policy, nice, score = map(int, output.split())
    assert policy == os.SCHED_OTHER
    assert nice >= 10
    assert score >= 500
