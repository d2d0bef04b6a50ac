"""The child of `watch` that copies traces: `python -m tracer.watch.copying_child SPOOL URL [NAME...]`.

Without names, it checks all traces of the spool. It prints a JSON array for each trace: state, name, and the
URL or the reason. The last line is an object:

    error       null, or the reason why the URL could not be used

The child has a low priority, like the child that completes traces. The recorder never loads fsspec and its
dependencies.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tracer.errors import TracerError
from tracer.kernel.process.children import end_with_parent, stand_back


def main(arguments: list[str]) -> int:
    """Copy the traces of the spool; return the exit status."""
    end_with_parent()
    stand_back()
    from tracer.fleet.pushing.passing import Outcome, Passes
    from tracer.fleet.pushing.target import Target

    spool, url, *names = arguments

    def report(outcome: Outcome) -> None:
        is_known = outcome.state == "there"
        words = None if is_known else outcome.why or outcome.url
        print(json.dumps([outcome.state, outcome.trace.name, words]), flush=True)

    error = None
    try:
        passes = Passes(Path(spool), Target(url), report=report, warn=_warn)
        passes.run({Path(spool, name) for name in names} if names else None)
    except TracerError as failure:
        error = str(failure)
    except Exception as failure:  # any error: the parent tries again
        error = f"{type(failure).__name__}: {' '.join(str(failure).split())[:300]}"
    print(json.dumps({"error": error}), flush=True)
    return 0


def _warn(message: str) -> None:
    print(f"memcg-tracer: warning: {message!a}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
