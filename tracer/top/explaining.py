"""The child of the live view that explains a cgroup: `python -m tracer.top.explaining TRACE CGROUP`.

It executes `memcg-tracer explain TRACE -c CGROUP --last --in-view`, whose libraries would take too much
memory in the view.
"""

from __future__ import annotations

import os
import sys

from tracer.kernel.process.children import be_first_victim, become_command, end_with_parent


def main(arguments: list[str]) -> None:
    """Execute the verb, with its errors on stdout as well. The parent decides the priority."""
    end_with_parent()
    be_first_victim()
    os.dup2(1, 2)
    os.environ["MEMCG_TRACER_PROGRESS"] = "off"  # its lines would be a part of the explanation
    trace, cgroup = arguments
    become_command("explain", trace, "-c", cgroup, "--last", "--in-view")


if __name__ == "__main__":
    main(sys.argv[1:])
