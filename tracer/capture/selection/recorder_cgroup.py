"""The recorder's own cgroup: if it is traced and has a limit, the next kill may be the recorder's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tracer.errors import TracerError
from tracer.kernel.cgroups.cgroupfs import Hierarchy, own_path
from tracer.kernel.cgroups.memory_files import read_limit
from tracer.schema import UNLIMITED_BYTES
from tracer.units import size


@dataclass(frozen=True, slots=True)
class RecorderCgroup:
    """The recorder's cgroup; the lowest limit of it and its ancestors, and the cgroup that has this limit
    (`limited_by`)."""

    path: str
    limited_by: str
    limit_bytes: int

    @property
    def warning(self) -> str:
        """Return the warning for the user."""
        return (
            f"the recorder itself runs in {self.path!a}, which is traced: the limit of {self.limited_by!a} "
            f"({size(self.limit_bytes)}) counts its memory, and an OOM kill there may end the recording"
        )


def find_recorder_cgroup(hierarchy: Hierarchy, is_traced: Callable[[str], bool]) -> RecorderCgroup | None:
    """Return the recorder's cgroup if it is traced and a visible limit bounds it, else None."""
    try:
        own = own_path(hierarchy)
    except (TracerError, OSError):
        return None
    if not is_traced(own):
        return None
    limits: list[tuple[int, str]] = []
    path = own
    while path.startswith("/"):
        try:
            limit = read_limit(hierarchy.directory(path), hierarchy.version)
        except OSError:
            limit = None
        if limit is not None and limit < UNLIMITED_BYTES:
            limits.append((limit, path))
        if path == "/":
            break
        path = path.rpartition("/")[0] or "/"
    return RecorderCgroup(own, min(limits)[1], min(limits)[0]) if limits else None
