"""The lines of a recorder on stderr: notices, warnings, and a line for each kill at once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tracer.render.words.escape import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracer.capture.observer import Sigkilled
    from tracer.watch.first_verdicts import FirstVerdict


class KillLines:
    """Prints on stderr. The words of a kill import Arrow, so they are imported with the first kill."""

    def notice(self, message: str) -> None:
        print(f"memcg-tracer: {visible(message)}", file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        self.notice(f"warning: {message}")

    def killed(self, kill: dict[str, Any], place: str) -> None:
        from tracer.render.words.kill_notice import kill_notice

        self.notice(kill_notice(kill, place))

    def sigkilled(self, kills: Sequence[Sigkilled]) -> None:
        from tracer.render.words.kill_notice import sigkill_notices

        for line in sigkill_notices(kills):
            self.notice(line)

    def judged(self, verdict: FirstVerdict) -> None:
        from tracer.render.words.kill_notice import judged_notice

        self.notice(judged_notice(verdict.kill, verdict.place, verdict.cause, verdict.summary))
