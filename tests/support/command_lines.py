"""The arguments of each verb that needs no root, to run it as a user does.

`{trace}` and `{other}` are traces, `{spool}` is a directory of traces, and `{out}` is written.
"""

from __future__ import annotations

from typing import Final

ROOTLESS: Final = {
    "explain": "{trace}",
    "timeline": "{trace}",
    "evictions": "{trace}",
    "whatif": "{trace}",
    "report": "{trace} -f -o {out}",
    "export": "{trace} {other} --to dataset -o {out}",
    "info": "{trace}",
    "push": "{spool} {out}",
    "fleet": "{trace} {other} --workers 2 --report {out}",
    "doctor": "",
    "unit": "",
    "dashboard": "",
    "alerts": "",
    "completion": "bash",
}
