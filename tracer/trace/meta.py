"""meta.json, the circumstances of a recording: host, kernel, filters, probes, cost, and its end.

The file may come from anyone, and code that reads it relies on the types and ranges of its values.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypedDict, cast

from tracer.directory import Directory
from tracer.errors import TraceError
from tracer.kernel.meminfo import meminfo_bytes
from tracer.schema import LATEST_NS, MOST_RECORDS, SCHEMA_VERSION
from tracer.trace.layout import META, META_TEMPORARY, open_file
from tracer.version import VERSION

MOST_BYTES: Final = 16 << 20
"""The longest meta.json that is read. A command line has at most 2 MiB."""

MOST_DEPTH: Final = 64
"""The deepest nesting of a meta.json that is read; a recorder writes at most 20 levels."""

_LARGEST: Final = (1 << 63) - 1
_LATEST_YEAR: Final = 2200
_DEEPEST: Final = 20

Check = Callable[[Any], bool]


def wrong_keys(meta: Mapping[str, Any]) -> list[str]:
    """Return the keys whose value has a wrong type or is out of range, sorted.

    Keys that this version does not know may have any value.
    """
    return sorted(key for key, check in _CHECKS.items() if key in meta and not check(meta[key]))


def _integer(least: int, most: int = _LARGEST) -> Check:
    return lambda value: type(value) is int and least <= value <= most  # bool is a subclass of int


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _dict_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _keys(**checks: Check) -> Check:
    """Return a check for a dictionary: each of these keys, if present, must pass its check."""
    return lambda value: (
        isinstance(value, dict) and all(check(value[key]) for key, check in checks.items() if key in value)
    )


def _all_of(*checks: Check) -> Check:
    return lambda value: all(check(value) for check in checks)


def _any_of(*checks: Check) -> Check:
    return lambda value: any(check(value) for check in checks)


def _page_size(value: Any) -> bool:
    return type(value) is int and 1 << 10 <= value <= 1 << 20 and value.bit_count() == 1


def _time(value: Any) -> bool:
    """Return whether a value is a time in ISO 8601 with a time zone."""
    try:
        moment = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return False
    return moment.tzinfo is not None and 1970 < moment.year < _LATEST_YEAR


def _has(*names: str) -> Check:
    """Return a check for a dictionary that must have these keys."""
    return lambda value: isinstance(value, dict) and {*value} >= {*names}


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= _LARGEST


def _plain(value: Any, depth: int = 0) -> bool:
    """Return whether a value consists of strings, finite numbers, booleans and null, has sizes under names
    that end in `_bytes`, and is not nested too deeply."""
    if isinstance(value, dict):
        return depth < _DEEPEST and all(
            _SIZE(inner) if name.endswith("_bytes") else _plain(inner, depth + 1)
            for name, inner in value.items()
        )
    if isinstance(value, list):
        return depth < _DEEPEST and all(_plain(inner, depth + 1) for inner in value)
    return not isinstance(value, int | float) or abs(value) <= _LARGEST


_SIZE: Final = _or_null(_integer(0))
_TEXT: Final = _or_null(_is_text)
_TIME_NS: Final = _integer(0, LATEST_NS)
_CHECKS: Final[Mapping[str, Check]] = {
    "tool_version": _is_text,
    "kernel_release": _is_text,
    "architecture": _is_text,
    "page_size": _page_size,
    "cpus": _integer(1, 1 << 20),
    "boot_id": _TEXT,
    "host_name": _is_text,
    "cgroup_version": _integer(1, 2),
    "cgroup_mount_options": _list_of(_is_text),
    "memory": _keys(total_bytes=_SIZE, swap_total_bytes=_SIZE, swappiness=_SIZE),
    "clock": _all_of(_has("monotonic_ns", "realtime_ns"), _keys(monotonic_ns=_TIME_NS, realtime_ns=_TIME_NS)),
    "command_line": _list_of(_is_text),
    "filters": _all_of(
        _plain,
        _keys(
            asked=_list_of(_is_text),
            cgroups=_or_null(_list_of(_is_text)),
            command=_or_null(_list_of(_is_text)),
            limit_bytes=_SIZE,
            swap_bytes=_SIZE,
            stacks_bytes=_SIZE,
        ),
    ),
    "probes": _dict_of(_or_null(_any_of(_is_text, _keys(hook=_TEXT, meaning=_TEXT, detail=_TEXT)))),
    "cost": _all_of(_plain, _dict_of(lambda _: True)),
    "started": _time,
    "ended": _or_null(_time),
    "end_reason": _TEXT,
    "rows": _or_null(_dict_of(_integer(0))),
    "lost": _or_null(_dict_of(_integer(0, MOST_RECORDS))),  # these become rows of `loss`
    "kernel_log": _is_text,
    "recorder_cgroup": _is_text,
    "unrecorded_categories": _list_of(_is_text),
    "history": _all_of(
        _plain,
        _keys(
            keep_s=_number,
            reason=_is_text,
            fineness=_list_of(
                _all_of(_keys(begin=_time, every_ms=_integer(0, 1 << 32)), _has("begin", "every_ms"))
            ),
        ),
    ),
    "command_status": _integer(-64, 255),
    "kernel_log_left_out": _dict_of(_integer(0)),
    "contents_left_out": _TEXT,
}


FORMAT: Final = "memcg-tracer trace"
"""The marker of a trace, in every version of the schema."""


_ID_DIGITS: Final = 16
_TOO_DEEP: Final = "nested too deeply"


class ClockPair(TypedDict):
    """One instant on CLOCK_MONOTONIC, the clock of BPF programs, and CLOCK_REALTIME, the clock of `time`."""

    monotonic_ns: int
    realtime_ns: int


class Memory(TypedDict):
    """The machine's memory when the recording began; None: /proc does not have the value."""

    total_bytes: int | None  # MemTotal
    swap_total_bytes: int | None
    swappiness: int | None  # vm.swappiness; on v1 each cgroup also has its own value


class _FirstMeta(TypedDict):
    """The keys that every meta.json has; a recorder may add more."""

    format: str
    schema_version: int
    tool_version: str
    kernel_release: str
    architecture: str
    page_size: int  # bytes
    cpus: int
    boot_id: str | None
    host_name: str
    cgroup_version: int  # of the memory controller's hierarchy
    clock: ClockPair
    command_line: list[str]
    filters: dict[str, Any]
    probes: dict[str, Any]  # signal -> the chosen hook
    cost: dict[str, Any]  # of the tracing
    started: str  # ISO 8601, UTC
    ended: str | None  # null while recording; stays null if the recorder is killed
    end_reason: str | None
    rows: dict[str, int] | None  # table -> rows; null until the end
    lost: dict[str, int] | None  # stream -> lost records, only streams with losses; null until the end


class Meta(_FirstMeta, total=False):
    """The keys of meta.json; traces of older versions lack the keys below."""

    kernel_log: str  # "read", or the reason why it was not read
    recorder_cgroup: str  # the recorder's own, if it is traced and has a limit
    kernel_log_left_out: dict[str, int]  # lines and reports about kills in cgroups that are not traced
    contents_left_out: str | None  # why a look at the page cache came late or never; null: none did
    memory: Memory
    command_status: int  # of the recorded command; -N: signal N ended it
    cgroup_mount_options: list[str]  # of the filesystem of the hierarchy, as in mountinfo
    history: dict[str, Any]  # of a trace of `watch`: how the trace began, and how fine its rows are
    unrecorded_categories: list[str]  # categories without rows in `charge`: their counters were not found


def begin(
    *,
    command_line: Sequence[str],
    cgroup_version: int,
    cgroup_mount_options: Iterable[str] = (),
    filters: Mapping[str, Any],
    probes: Mapping[str, Any],
) -> Meta:
    """Return the metadata of a recording that begins now on this host."""
    host, clock = os.uname(), read_clocks()
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "tool_version": VERSION,
        "kernel_release": host.release,
        "architecture": host.machine,
        "page_size": os.sysconf("SC_PAGESIZE"),
        "cpus": os.sysconf("SC_NPROCESSORS_ONLN"),
        "boot_id": _text("/proc/sys/kernel/random/boot_id").strip() or None,
        "host_name": host_name(),
        "cgroup_version": cgroup_version,
        "cgroup_mount_options": sorted(cgroup_mount_options),
        "memory": read_memory(),
        "clock": clock,
        "command_line": list(command_line),
        "filters": dict(filters),
        "probes": dict(probes),
        "cost": {},
        "started": utc_time(clock, clock["monotonic_ns"]),
        "ended": None,
        "end_reason": None,
        "rows": None,
        "lost": None,
    }


def read_clocks() -> ClockPair:
    """Return both clocks at one instant.

    CLOCK_REALTIME is read between two readings of CLOCK_MONOTONIC, 16 times; the shortest interval is taken.
    """

    def bracket() -> tuple[int, ClockPair]:
        before, realtime, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        return after - before, {"monotonic_ns": (before + after) // 2, "realtime_ns": realtime}

    return min((bracket() for _ in range(16)), key=lambda bracketed: bracketed[0])[1]


def read_memory() -> Memory:
    """Return the machine's memory now."""
    sizes, swappiness = meminfo_bytes(), _text("/proc/sys/vm/swappiness").strip()
    return {
        "total_bytes": sizes.get("MemTotal"),
        "swap_total_bytes": sizes.get("SwapTotal"),
        "swappiness": int(swappiness) if swappiness.isdigit() else None,
    }


def host_name() -> str:
    """Return the name of this host. In a pod, the name of its UTS namespace is the pod's."""
    return os.environ.get("MEMCG_TRACER_HOST") or os.uname().nodename


def utc_time(clock: ClockPair, monotonic_ns: int) -> str:
    """Return a time of CLOCK_MONOTONIC as ISO 8601 in UTC, in microseconds, by the trace's clock pair."""
    realtime_ns = clock["realtime_ns"] + monotonic_ns - clock["monotonic_ns"]
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=realtime_ns // 1000)
    return instant.isoformat(timespec="microseconds")


def write_meta(trace: Directory, meta: Meta, *, is_durable: bool = False) -> None:
    """Replace the trace's meta.json in one step; raises OSError. `is_durable`: it is on disk after that."""
    with suppress(FileNotFoundError):  # it exists only if a failed attempt left it
        trace.unlink(META_TEMPORARY)
    with trace.create(META_TEMPORARY) as file:
        file.write(json.dumps(meta, indent=2).encode() + b"\n")
        if is_durable:
            file.flush()
            os.fsync(file.fileno())
    trace.replace(META_TEMPORARY, META)
    if is_durable:
        trace.sync()


def read_meta(trace: Path) -> Meta:
    """Return the metadata of a trace; raises TraceError if this version cannot read it as a trace."""
    found = _load(trace)
    version = found.get("schema_version")
    if version != SCHEMA_VERSION:
        remedy = f"open it with memcg-tracer {found.get('tool_version')!a}, which wrote it"
        if isinstance(version, int) and version > SCHEMA_VERSION:
            remedy = f"update memcg-tracer to {found.get('tool_version')!a} or newer"
        raise TraceError(f"{trace} is of schema {version!a}, this version reads {SCHEMA_VERSION}: {remedy}")
    if missing := sorted(Meta.__required_keys__ - found.keys()):
        raise TraceError(f"{trace / META} is damaged, it lacks {', '.join(missing)}: restore it from a copy")
    if wrong := wrong_keys(found):
        raise TraceError(
            f"{trace / META} is damaged, no recording writes such {', '.join(wrong)}: restore it from a copy"
        )
    return cast(Meta, found)


def is_trace(path: Path) -> bool:
    """Return whether the directory is a trace, of any version of the schema."""
    try:
        _load(path)
    except TraceError:
        return False
    return True


def is_meta(document: bytes) -> bool:
    """Return whether a document is the meta.json of a trace, of any version of the schema."""
    try:
        found = _parsed(document)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT


def trace_id(meta: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that identify the trace with this meta.json, wherever the trace lies: a
    hash of boot, host, clock pair, start and end.

    Without the end, traces of `watch` would be confused: each trace within `--keep` begins where the history
    begins.
    """
    clock = meta["clock"]
    facts = [meta.get("boot_id"), meta.get("host_name"), clock["monotonic_ns"], clock["realtime_ns"]]
    text = json.dumps([*facts, meta.get("started"), meta.get("ended")])
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]


def _load(trace: Path) -> dict[str, Any]:
    """Return the object in the trace's meta.json; raises TraceError if it lacks the marker of a trace."""
    try:
        with open_file(trace, trace / META) as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise TraceError(f"{trace / META} is longer than {MOST_BYTES:,} bytes: restore it from a copy")
        found = _parsed(content)
    except FileNotFoundError:
        raise TraceError(f"{trace} {_why_no_trace(trace)}") from None
    except NotADirectoryError:
        raise TraceError(
            f"{trace} is not a trace but a file: name the directory that record printed"
        ) from None
    except OSError as error:
        raise TraceError(f"cannot read {trace / META}: {error.strerror}") from error
    except ValueError as error:
        raise TraceError(f"{trace / META} is damaged, it is not JSON: restore it from a copy") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise TraceError(f"{trace} is not a trace of memcg-tracer: name the directory that record printed")
    return found


def _parsed(document: bytes) -> Any:
    """Parse JSON. Raises ValueError for anything else, and for a document that is nested too deeply."""
    try:
        found = json.loads(document)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    level, depth = [found], 0
    while level := [
        inner
        for value in level
        if isinstance(value, (dict, list))
        for inner in (value.values() if isinstance(value, dict) else value)
    ]:
        depth += 1
        if depth > MOST_DEPTH:
            raise ValueError(_TOO_DEEP)
    return found


def _why_no_trace(trace: Path) -> str:
    if not trace.is_dir():
        return "does not exist: name the directory that record printed"
    if any(any(trace.glob(f"{above}/{META}")) for above in ("*", "*/*")):
        return "is a folder of traces: name one of them, or look at all with memcg-tracer fleet"
    return f"is not a trace, it has no {META}: name the directory that record printed"


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="ascii")
    except OSError:
        return ""
