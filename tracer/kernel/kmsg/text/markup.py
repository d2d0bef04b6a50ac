"""Lines of a mail as it is sent: in quoted-printable (RFC 2045, 6.7), and in HTML.

The kernel prints `gfp_mask=0x`, never `gfp_mask=3D`, no `=` at the end of a line, and no tag before its time
stamp. So a line with one of these shows that the log, from this line on, is the source of a mail or a page.
"""

from __future__ import annotations

import html
import re
from typing import Final

_ENCODING: Final = "Content-Transfer-Encoding"
_QUOTED_MARK: Final = re.compile(
    rf"=3D(?:0x|CONSTRAINT_|0\b)|{_ENCODING}: quoted-printable"
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
_MOST_CHARACTERS: Final = 1 << 16


class Reader:
    """A reader of the lines of one log, which learns whether the log is the source of a mail."""

    def __init__(self) -> None:
        self._is_quoted = False
        self._is_html = False
        self._begun = ""

    @property
    def is_broken_softly(self) -> bool:
        """Return whether a line may go on in the next one, so that each line has to be read."""
        return self._is_quoted

    def is_plain(self, line: str) -> bool:
        """Return whether a line is plain text, without markup."""
        if not self._is_quoted and ("=" in line or _ENCODING in line):
            self._is_quoted = _QUOTED_MARK.search(line) is not None
        if not self._is_html and ("<" in line or "&" in line):
            self._is_html = _HTML_MARK.match(line) is not None
        return not self._is_quoted and not self._is_html

    def lines(self, line: str) -> list[str]:
        """Return the lines of text in a line; an empty list if the line goes on in the next one."""
        if self._is_quoted:
            line = self._begun + line
            self._begun = ""
            if line.endswith("=") and len(line) < _MOST_CHARACTERS:
                self._begun = line[:-1]
                return []
            line = _QUOTED.sub(_unquoted, line)
        if not self._is_html:
            return [line]
        text = _TAG.sub(lambda tag: "" if tag[1].lower() in _INLINE else "\n", line)
        return [html.unescape(part).rstrip() for part in text.split("\n") if part.strip()]


def _unquoted(found: re.Match[str]) -> str:
    return bytes.fromhex(found[0].replace("=", "")).decode("utf-8", "surrogateescape")
