"""Copy one trace to its place: at the URL it is present whole, or not at all.

meta.json marks a trace, so it is written last, after the sizes of all other files were compared there. Until
then, the folder has a claim:

    upload-<trace id>.json      the files of the trace that is being copied, with their lengths and SHA-256

A file that is already there is kept if the claim has its SHA-256 and its length is right, so an interrupted
copy resumes, file by file. Nothing that belongs to another trace is overwritten. If two traces have the same
name, as on two hosts, the second is stored as `<name>-<trace id>`. This needs no lock and no rename: each
pusher writes its claim, then looks for others. If two pushers do so at the same time, at least one sees the
other's claim and gives way. Two pushers of one trace write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tracer.errors import TraceError, TracerError
from tracer.fleet.pushing.finished import FinishedTrace, identity_of
from tracer.fleet.pushing.target import Target, TargetError, encoded
from tracer.trace import layout
from tracer.trace.meta import MOST_BYTES

_CLAIM: Final = re.compile(r"upload-[0-9a-f]{16}\.json")
_FORMAT: Final = "memcg-tracer upload"


class ChangedError(TracerError):
    """The trace was changed or removed while it was copied: it is left for later."""


@dataclass(frozen=True)
class Copied:
    """A trace that the target has whole. `place` is its path there. `sent_bytes` and `sent_files` are what
    this copy sent: nothing if the target already had the trace."""

    place: str
    sent_bytes: int
    sent_files: int

    @property
    def was_there(self) -> bool:
        """Return whether nothing had to be sent."""
        return not self.sent_files


def plain_place(trace: FinishedTrace) -> str:
    """Return the path at the target that a trace gets, unless another trace has it."""
    return "/".join(map(encoded, trace.name))


def place_of(target: Target, trace: FinishedTrace) -> str | None:
    """Return the path at which the target has the whole trace; None: it does not have it."""
    return next((place for place, _ in _whole(target, trace)), None)


def copy(target: Target, trace: FinishedTrace, sent: Callable[[int], None] = lambda _: None) -> Copied:
    """Copy a trace to the target, unless the target has it. `sent` is called with the length of each file
    that is sent.

    Raises TargetError, ChangedError, and TraceError or OSError if a file of the trace cannot be read.
    """
    claim = f"upload-{trace.identity}.json"
    for place, files in _whole(target, trace):
        if claim in files:  # its pusher was killed at the very end
            _clear(target, place, claim)
        return Copied(place, 0, 0)
    plain, own = _places(trace)
    manifest = _manifest(trace)
    if any(_CLAIM.fullmatch(file) for file in target.list(own)):
        place, earlier = own, _claimed(target, own, claim)
        _put_bytes(target, f"{place}/{claim}", manifest)
    else:
        place, earlier = plain, _claimed(target, plain, claim)
        _put_bytes(target, f"{place}/{claim}", manifest)
        if _is_of_others(target, place, claim):
            target.remove(f"{place}/{claim}")
            place, earlier = own, {}
            _put_bytes(target, f"{place}/{claim}", manifest)
    return _send(target, trace, place, claim, earlier=earlier, manifest=manifest, sent=sent)


def take_away(target: Target, place: str) -> None:
    """Remove a trace at the target: meta.json first, so that readers never see a part of it."""
    target.remove(f"{place}/{layout.META}")
    for file in target.list(place):
        if layout.FILE.fullmatch(file) or _CLAIM.fullmatch(file):
            target.remove(f"{place}/{file}")


def is_equal(target: Target, trace: FinishedTrace, place: str) -> bool:
    """Return whether each file at the target has the bytes of the trace: all of it is read back.

    Raises TargetError, and TraceError or OSError if a file of the trace cannot be read.
    """
    if target.read(f"{place}/{layout.META}", MOST_BYTES + 1) != trace.meta:
        return False
    for file in trace.files:
        if _digest(target.chunks(f"{place}/{file}")) != _digest(_chunks(trace, file)):
            return False
    return trace.is_unchanged()


def _places(trace: FinishedTrace) -> tuple[str, str]:
    """Return the place of a trace, and its place if another trace has the first one."""
    plain = plain_place(trace)
    return plain, f"{plain}-{trace.identity}"


def _whole(target: Target, trace: FinishedTrace) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield each place that has the whole trace, and the files there."""
    for place in _places(trace):
        files = target.list(place)
        if layout.META in files and _is_same(target, place, trace, files):
            yield place, files


def _clear(target: Target, place: str, claim: str) -> None:
    """Remove the files that only a copy needs. Removal may be forbidden; the trace is still whole."""
    with suppress(TargetError):
        target.remove(f"{place}/{claim}")
        target.clear_temporary(place)


def _is_same(target: Target, place: str, trace: FinishedTrace, files: dict[str, int]) -> bool:
    """Return whether a place has this trace, and all of it.

    The trace may have been completed since: its journals are then Parquet, with the same rows.
    """
    meta = target.read(f"{place}/{layout.META}", MOST_BYTES + 1)
    if meta == trace.meta:
        return all(files.get(file) == size for file, size in trace.files.items())
    return meta is not None and identity_of(meta) == trace.identity


def _is_of_others(target: Target, place: str, claim: str) -> bool:
    """Return whether another trace is at a place or on its way to it.

    It looks for claims first, since a claim is removed only when meta.json is there.
    """
    if any(_CLAIM.fullmatch(file) and file != claim for file in target.list(place)):
        return True
    meta = target.read(f"{place}/{layout.META}", MOST_BYTES + 1)
    return meta is not None and f"upload-{identity_of(meta)}.json" != claim


def _manifest(trace: FinishedTrace) -> bytes:
    files = {file: [size, _digest(_chunks(trace, file))] for file, size in sorted(trace.files.items())}
    document = {"format": _FORMAT, "trace_id": trace.identity, "files": files}
    return json.dumps(document, indent=1).encode() + b"\n"


def _digest(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _claimed(target: Target, place: str, claim: str) -> dict[str, Any]:
    """Return the files of the claim that an earlier copy left."""
    document = target.read(f"{place}/{claim}", MOST_BYTES + 1)
    with suppress(ValueError, RecursionError, KeyError, TypeError):
        found = json.loads(document or b"")["files"]
        if isinstance(found, dict):
            return found
    return {}


def _chunks(trace: FinishedTrace, file: str) -> Iterator[bytes]:
    """Yield the content of a file of the trace. Its errors are not failures of the target."""
    try:
        yield from trace.chunks(file)
    except FileNotFoundError as error:
        raise ChangedError(f"{trace.path} was changed or removed while it was copied") from error
    except OSError as error:
        raise TraceError(f"cannot read {trace.path / file}: {error.strerror}") from error


def _put_bytes(target: Target, path: str, content: bytes) -> None:
    target.put(path, len(content), lambda: [content])


def _send(
    target: Target,
    trace: FinishedTrace,
    place: str,
    claim: str,
    *,
    earlier: dict[str, Any],
    manifest: bytes,
    sent: Callable[[int], None],
) -> Copied:
    wanted = json.loads(manifest)["files"]
    there = target.list(place)
    for file in there:
        if layout.FILE.fullmatch(file) and file not in wanted:
            target.remove(f"{place}/{file}")
    sent_bytes = sent_files = 0
    for file, size in trace.files.items():
        if there.get(file) == size and earlier.get(file) == wanted[file]:
            continue
        target.put(f"{place}/{file}", size, partial(_chunks, trace, file))
        sent(size)
        sent_bytes, sent_files = sent_bytes + size, sent_files + 1
    if not trace.is_unchanged():
        raise ChangedError(f"{trace.path} was changed while it was copied")
    if target.read(f"{place}/{claim}", MOST_BYTES + 1) != manifest:  # another pusher of this trace
        if place_of(target, trace) == place:
            return Copied(place, sent_bytes, sent_files)
        raise ChangedError(f"{trace.path} is being copied by another process, as it was before")
    there = target.list(place)
    for file, size in trace.files.items():
        if there.get(file) != size:
            raise TargetError(
                f"{target.url_of(place)}/{file} has {there.get(file, 0):,} bytes instead of {size:,}: "
                "push again"
            )
    _put_bytes(target, f"{place}/{layout.META}", trace.meta)
    if target.read(f"{place}/{layout.META}", MOST_BYTES + 1) != trace.meta:
        raise TargetError(f"{target.url_of(place)}/{layout.META} is not what was written: push again")
    _clear(target, place, claim)
    return Copied(place, sent_bytes + len(trace.meta), sent_files + 1)
