"""From the lines of one log to the messages of the kernel in them.

Each line is read by its style (`styles`). Quote marks, names of nodes, and whatever a console or a log
shipper adds in front are skipped: up to the kernel's own time stamp if the line has one, or else by the
prefixes of earlier lines.

Mails as they are sent are quoted-printable (RFC 2045, 6.7) or HTML. The kernel prints `gfp_mask=0x`, never
`gfp_mask=3D`, no `=` at the end of a line, and no tag before its time stamp. So a line with one of these
shows that the log, from this line on, is the source of a mail or a page.

Other lines are JSON objects: journalctl -o json, Docker's json-file, exports of Loki and log shippers. The
journal always has the text in the same member. In other objects, the member is learned: if a member has once
held the words of an OOM report, it holds the text of every line.

Consoles, log shippers and people put prefixes of any form before lines. If a line has words that certainly
begin a message of the kernel, the text before them is the prefix. Other lines of the log have the same
prefix, with other numbers in it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tracer.kernel.kmsg.text import shapes, styles
from tracer.kernel.kmsg.text.styles import MOST_CHARACTERS, Record, Stamp

_ENCODING: Final = "Content-Transfer-Encoding"
_QUOTED_MARK: Final = re.compile(
    rf"=3D(?:0x|CONSTRAINT_|0\b)|{_ENCODING}: quoted-printable|=A0(?:kernel:|\[|\d{{1,9}}\.\d{{6}}\])"
    r"|(?:total-vm|rss|pgtables):[^=]{0,64}=$|^.{70,75}=$"
)
_QUOTED: Final = re.compile(r"(?:=[0-9A-F]{2})+")
_NAMES: Final = (
    "a|b|blockquote|body|br|code|div|em|font|html|i|li|ol|p|pre|span|strong|table|td|th|tr|tt|u|ul"
)
_HTML_MARK: Final = re.compile(
    rf"\s*(?:<!DOCTYPE|</?(?:{_NAMES})\b[^>]{{0,400}}>)|(?:.*&nbsp;){{2}}|.*(?:kB|\d|[:)])<br ?/?>$"
)
_TAG: Final = re.compile(rf"</?({_NAMES})\b[^>]{{0,400}}>", re.IGNORECASE)
_INLINE: Final = frozenset({"a", "b", "code", "em", "font", "i", "span", "strong", "tt", "u"})
_MOST_MARKUP_CHARACTERS: Final = 1 << 16


class MarkupReader:
    """A reader of the lines of one log, which learns whether the log is the source of a mail."""

    def __init__(self) -> None:
        self._is_quoted = False
        self._is_html = False
        self._begun = ""

    @property
    def is_broken_softly(self) -> bool:
        """Return whether a line may go on in the next one, so that each line has to be read."""
        return self._is_quoted

    @property
    def is_marked(self) -> bool:
        """Return whether the log was found to be the source of a mail or a page."""
        return self._is_quoted or self._is_html

    def is_plain(self, line: str) -> bool:
        """Return whether a line is plain text, without markup."""
        may_be_quoted = "=3D" in line or "=A0" in line or line.endswith("=") or _ENCODING in line
        if may_be_quoted and not self._is_quoted:
            self._is_quoted = _QUOTED_MARK.search(line) is not None
        if not self._is_html and ("<" in line or "&" in line):
            self._is_html = _HTML_MARK.match(line) is not None
        return not self._is_quoted and not self._is_html

    def lines(self, line: str) -> list[str]:
        """Return the lines of text in a line; an empty list if the line goes on in the next one."""
        if self._is_quoted:
            line = self._begun + line
            self._begun = ""
            if line.endswith("=") and len(line) < _MOST_MARKUP_CHARACTERS:
                self._begun = line[:-1]
                return []
            line = _QUOTED.sub(_unquoted, line)
        if not self._is_html:
            return [line]
        text = _TAG.sub(lambda tag: "" if tag[1].lower() in _INLINE else "\n", line)
        return [html.unescape(part).rstrip() for part in text.split("\n") if part.strip()]


def _unquoted(found: re.Match[str]) -> str:
    encoded = bytes.fromhex(found[0].replace("=", ""))
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return encoded.decode("latin-1")  # the character set of most mails that are not UTF-8


_TEXT_MEMBERS: Final = ("log", "line", "message", "msg", "text", "body")
_TIME_MEMBERS: Final = ("time", "timestamp", "ts", "@timestamp")
_HOST_MEMBERS: Final = ("host", "hostname", "node")
_SINCE_1970: Final = re.compile(r"(\d{10})\.?(\d{6}|\d{3}|\d{9}|(?<=\.)\d{1,9})?")
_MOST_MEMBERS: Final = 64
_MOST_OBJECTS: Final = 4  # in one another
_MOST_LEARNED: Final = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """The text of an object, with its time and host. `is_message`: the text is the kernel's own message,
    without a prefix."""

    text: str
    stamp: Stamp
    host: str | None
    is_message: bool


class ObjectReader:
    """A reader of the objects of one log, which learns the members that hold the text: several, if a text is
    an object again."""

    def __init__(self) -> None:
        self._learned: list[str] = []

    def read(self, line: str, number: int) -> Entry | None:
        """Return the entry in a line; None if the line is not such an object, or is another program's."""
        try:
            entry: Any = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(entry, dict):
            return None
        if "MESSAGE" in entry:
            return _from_journal(entry, number)
        members = dict(_object_members(entry, 1))
        text = self._text(members)
        if text is None:
            return None
        wall = next((_wall(members[name]) for name in _TIME_MEMBERS if name in members), None)
        host = next((members[name] for name in _HOST_MEMBERS if name in members), None)
        return Entry(text.rstrip("\r\n"), Stamp(number, None, wall), host, is_message=False)

    def _text(self, members: Mapping[str, str]) -> str | None:
        for name in self._learned:
            if name in members:
                return members[name]
        for name, value in members.items():
            if shapes.is_of_report(value):
                self._learned = [name, *self._learned[: _MOST_LEARNED - 1]]
                return value
        return next((members[name] for name in _TEXT_MEMBERS if name in members), None)


def _object_members(entry: Mapping[str, Any], depth: int) -> Iterator[tuple[str, str]]:
    """Yield the strings and numbers of the objects in an object, and then its own: of one name, the outermost
    counts."""
    members = list(entry.items())[:_MOST_MEMBERS]
    for _, value in members:
        if isinstance(value, dict) and depth < _MOST_OBJECTS:
            yield from _object_members(value, depth + 1)
    for name, value in members:
        if isinstance(value, str | int | float):
            yield name, str(value)


def _wall(time: str) -> str:
    """Return a time; since 1970 in s, ms, us or ns, as log stores give it: in s, with a decimal point."""
    found = _SINCE_1970.fullmatch(time)
    return time if found is None else f"{found[1]}.{found[2] or 0}"


def _from_journal(entry: Mapping[str, Any], number: int) -> Entry | None:
    """Read an object of `journalctl -o json`, in which a message that is not UTF-8 is a list of bytes."""
    if entry.get("_TRANSPORT", "kernel") != "kernel":
        return None
    message, host = entry.get("MESSAGE"), entry.get("_HOSTNAME")
    if isinstance(message, list):
        numbers = [byte for byte in message if isinstance(byte, int) and 0 <= byte < 256]
        message = bytes(numbers).decode("utf-8", "surrogateescape")
    if not isinstance(message, str):
        return None
    since_boot_us = _digits(entry.get("_SOURCE_MONOTONIC_TIMESTAMP"))
    realtime_us = _digits(entry.get("__REALTIME_TIMESTAMP"))
    stamp = Stamp(
        number,
        None if since_boot_us is None else since_boot_us * 1000,
        None if realtime_us is None else f"{realtime_us // 1_000_000}.{realtime_us % 1_000_000:06d}",
    )
    return Entry(message, stamp, host if isinstance(host, str) else None, is_message=True)


def _digits(value: object) -> int | None:
    is_number = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20
    return int(str(value)) if is_number else None


MOST_PREFIX_CHARACTERS: Final = 512
_MOST_PREFIXES: Final = 8
_PROGRAM: Final = re.compile(r"(?<!kernel)\[\d{1,10}\]: ?$")
_RUN: Final = re.compile(r"(\d+)|(\s+)|([^\d\s]+)")


def _prefix_pattern(prefix: str) -> re.Pattern[str]:
    """Return a pattern for this prefix, and for the same prefix with other numbers."""
    return re.compile("".join(map(_generalised, _RUN.finditer(prefix))))


def _generalised(run: re.Match[str]) -> str:
    if run[1] is not None:
        return r"\d{1,20}"
    if run[2] is not None:
        return r"[ \t]{0,40}" if run.start() and len(run[2]) > 1 else r"\s" * len(run[2])
    return re.escape(run[3])


class LearnedPrefixes:
    """The prefixes of one log, the most recently used first."""

    def __init__(self) -> None:
        self._known: list[re.Pattern[str]] = []

    def __bool__(self) -> bool:
        return bool(self._known)

    def end(self, line: str) -> int:
        """Return the end of the prefix of a line; 0 if it has no known prefix."""
        for number, known in enumerate(self._known):
            if (found := known.match(line)) is not None:
                if number:
                    self._known.insert(0, self._known.pop(number))
                return found.end()
        return 0

    def learn(self, prefix: str) -> None:
        """Remember a prefix, and all prefixes that differ from it only in numbers."""
        if prefix and not self.end(prefix):
            self._known.insert(0, _prefix_pattern(prefix))
            del self._known[_MOST_PREFIXES:]


def before_message(line: str) -> str | None:
    """Return the text before the words that begin a message of the kernel; "" without such words, None if
    another program quotes them."""
    prefix = line[: max(shapes.anchor(line), 0)]
    if len(prefix) > MOST_PREFIX_CHARACTERS:
        return ""
    return None if _PROGRAM.search(prefix) is not None else prefix


_MOST_LINE_CHARACTERS: Final = 1 << 16
"""The length at which lines are cut; one line may hold many messages."""

_MOST_BYTES: Final = 4  # of a character in UTF-8
_LEAST_PREFIX: Final = 16
_PREFIX_BEGIN: Final = 4
_MOST_RECORD: Final = 1100
"""A longer line holds more than one message (LOG_LINE_MAX, kernel/printk/printk.c)."""

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]{0,20}[mK]")
_SPACE_OF_WINDOWS: Final = "\udca0"  # \xa0 in a log that is not UTF-8
_MARKS: Final = re.compile("[↩↪↵⏎]")
_QUOTES: Final = re.compile(r"(?:[>|] ?)+|`{1,3}(?=[^`\s])")
_ESCAPED_END: Final = re.compile(r"(?:\\r)?\\n(?=(?:<\d{1,3}>)?\[ *\d{1,10}\.\d{6}\])")
_STAMP: Final = re.compile(r"(?:<\d{1,3}>)?\[ *\d{1,10}\.\d{6}\] ?")


def blocks(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, list[str]]]:
    """Yield the text of whole lines of a file that is read in chunks, and these lines without their line
    ends; long lines are cut."""
    rest = b""
    for chunk in chunks:
        first, is_whole, more = chunk.partition(b"\n")
        rest = rest + first if len(rest) < _MOST_LINE_CHARACTERS else rest
        if is_whole:
            others, have_others, last = more.rpartition(b"\n")
            text = rest + have_others + others
            rest = last
            yield text, _lines(text)
    if rest:
        yield rest, _lines(rest)


def _lines(text: bytes) -> list[str]:
    found = text.decode("utf-8", "surrogateescape").split("\n")
    if max(map(len, found)) <= _MOST_LINE_CHARACTERS // _MOST_BYTES:
        return found
    return [line[:_MOST_LINE_CHARACTERS].decode("utf-8", "surrogateescape") for line in text.split(b"\n")]


def split(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of a file that is read in chunks, without their line ends; long lines are cut."""
    for _, found in blocks(chunks):
        yield from found


class Reader:
    """A reader of the lines of one log, which learns the prefixes of that log."""

    def __init__(self) -> None:
        self._before_stamps = LearnedPrefixes()
        self._before_messages = LearnedPrefixes()
        self._objects = ObjectReader()
        self._markup = MarkupReader()

    @property
    def is_broken_softly(self) -> bool:
        """Return whether a line may go on in the next one, so that each line has to be read."""
        return self._markup.is_broken_softly

    @property
    def is_usual(self) -> bool:
        """Return whether the log has neither markup nor prefixes of its own."""
        return not (self._markup.is_marked or self._before_stamps or self._before_messages)

    def read(self, line: str, number: int) -> list[Record]:
        """Return the messages in a line: usually one, none in a line of another program, several if the lines
        of a log were joined into one."""
        if (usual := styles.usual(line, number)) is not None:
            return self.read_usual(line, usual)
        line = _clean(line)
        if line[:1] != "{" and "\\n" in line and len(parts := _ESCAPED_END.split(line)) > 1:
            # The console of a cloud's machine, as a string with escaped line ends.
            return [record for part in parts for record in self.read(part, number)]
        if self._markup.is_plain(line):
            return self._read(line, number)
        return [record for part in self._markup.lines(line) for record in self._read(_clean(part), number)]

    def read_usual(self, line: str, usual: Record) -> list[Record]:
        """Return the messages in a line that is in a usual style, as `read` does."""
        number = usual.stamp.line
        if self._markup.is_plain(line):
            return self._messages(line, usual if usual.row is None else usual.gone_on(usual.text), number)
        return [record for part in self._markup.lines(line) for record in self._read(_clean(part), number)]

    def is_row(self, line: str, usual: Record) -> bool:
        """Return whether a line is a row of a report, and `read` would return only this row.

        False for any other line, and if this log has markup, or prefixes of its own before such a line.
        """
        if usual.row is None or self._markup.is_marked:
            return False
        return self.is_usual or not (self._before_stamps.end(line) or self._before_messages.end(line))

    def is_of_kernel(self, line: str, number: int) -> bool:
        """Return whether a line shows that the kernel wrote it: by its time, a `kernel:`, or its fields."""
        return any(record.prefix for record in self.read(line, number)) or styles.is_dmesg_object(line)

    def _read(self, line: str, number: int) -> list[Record]:
        if line[:1] == "{":
            entry = self._objects.read(line, number)
            return [] if entry is None else self._from_object(entry, number)
        record = styles.read(line, number)
        return [] if record is None else self._messages(line, record, number)

    def _messages(self, line: str, record: Record, number: int) -> list[Record]:
        """Return the messages in a line, of which `record` is the reading in its style."""
        if _is_many(line, record):
            return list(_split(line, record, number))
        found = self._behind_prefix(line, record)
        if found is None or len(found.text) <= MOST_CHARACTERS:
            return [] if found is None else [found]
        return [found.with_text(found.text[:MOST_CHARACTERS])]

    def _from_object(self, entry: Entry, number: int) -> list[Record]:
        if entry.is_message:
            return [Record(entry.stamp, entry.text[:MOST_CHARACTERS], entry.host, prefix=1)]
        return [
            record._replace(
                stamp=record.stamp._replace(wall=record.stamp.wall or entry.stamp.wall),
                host=record.host or entry.host,
                prefix=max(record.prefix, 1),
            )
            for record in self.read(entry.text, number)
        ]

    def _behind_prefix(self, line: str, record: Record) -> Record | None:
        """Return the message after a prefix that hides it, or `record`, the reading of the whole line."""
        if shapes.kind(record.text) not in (None, "header"):  # a header begins with a name, or with a prefix
            return record
        has_bracket = line.find("[", record.prefix, MOST_PREFIX_CHARACTERS) >= 0  # the search takes longer
        stamp = _STAMP.search(line, record.prefix, MOST_PREFIX_CHARACTERS) if has_bracket else None
        if stamp is not None:
            self._before_stamps.learn(line[: stamp.start()])
            return _behind(line, stamp.start(), record, is_whole=True)
        if end := self._before_stamps.end(line):
            return _behind(line, end, record, is_whole=False)
        prefix = before_message(line)
        if prefix is None:
            return None
        self._before_messages.learn(prefix)
        end = self._before_messages.end(line)
        return _behind(line, end, record, is_whole=not line[:end].isspace()) if end else record


def _is_many(line: str, record: Record) -> bool:
    """Return whether a line may hold many messages: the beginning of its prefix occurs again in it.

    A prefix is too long for a name of a process, but not for a path. So a line with a path must be longer
    than a message can be.
    """
    if record.prefix < _LEAST_PREFIX or line.find(line[:_PREFIX_BEGIN], record.prefix) < 0:
        return False
    return len(record.text) > (_MOST_RECORD if shapes.path_word(record.text) is not None else 0)


def _split(line: str, record: Record, number: int) -> Iterator[Record]:
    """Yield the messages of a line that holds many; each has a prefix like the first message."""
    prefix = _prefix_pattern(line[: record.prefix])
    starts = [0, *(found.start() for found in prefix.finditer(line, record.prefix))]
    for start, end in zip(starts, [*starts[1:], len(line)], strict=True):
        part = styles.read(_MARKS.sub("", line[start:end]), number)
        if part is not None:
            yield part.with_text(part.text[:MOST_CHARACTERS])


def _clean(line: str) -> str:
    """Return a line without colours, line end, marks of a quotation, and the non-breaking spaces of a web
    page; the kernel prints no such characters."""
    if "\x1b" in line:
        line = _COLOUR.sub("", line)
    line = line.rstrip("\r\n")
    if "\xa0" in line or _SPACE_OF_WINDOWS in line:
        line = line.replace("\xa0", " ").replace(_SPACE_OF_WINDOWS, " ").rstrip()
    quotes = _QUOTES.match(line) if line[:1] in (">", "|", "`") else None
    return line if quotes is None else line[quotes.end() :]


def _behind(line: str, at: int, outer: Record, *, is_whole: bool) -> Record | None:
    """Return the message that begins at `at` in a line.

    A time or host that it lacks is taken from `outer`, the reading of the whole line. If not `is_whole`, a
    line without a prefix may continue the line before.
    """
    found = styles.read(line[at:], outer.stamp.line)
    if found is None:
        return None
    own, around = found.stamp, outer.stamp
    since_boot_ns = around.since_boot_ns if own.since_boot_ns is None else own.since_boot_ns
    return found._replace(
        stamp=Stamp(own.line, since_boot_ns, own.wall or around.wall or styles.date_in(line[:at])),
        host=found.host or outer.host,
        prefix=max(found.prefix, 1) if is_whole else found.prefix,
    )
