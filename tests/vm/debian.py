"""Debian's kernel packages, by series, from the mirror that this machine itself uses.

All that apt needs and fetches is in a folder of ours: neither the lists, the packages nor the settings of the
machine change. Signatures are checked by Debian's own keyring.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vm.errors import NotRunError
from vm.programs import call

SUITES: Final[Mapping[str, tuple[str, ...]]] = {
    "6.1": ("bookworm", "bookworm-security"),
    "6.12": ("trixie", "trixie-security"),
    "6.18": ("trixie-backports",),
    "7.3": ("trixie-backports",),
}
"""Series -> the suites that have it. Versions age off a mirror within weeks, a series within years."""

_ETC_APT: Final = Path("/etc/apt")
_KEYRINGS: Final = (
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),  # until Debian 12
)


@dataclass(frozen=True)
class Mirrors:
    """Where this machine gets Debian from: the URIs of the archive, and of its security updates."""

    archive: str
    security: str

    def of(self, suite: str) -> str:
        """The URI that has a suite."""
        return self.security if suite.endswith("-security") else self.archive


def find_mirrors(etc_apt: Path = _ETC_APT) -> Mirrors:
    """By the suites that the machine's sources want of each URI. NotRunError where none is Debian's."""
    suites: defaultdict[str, set[str]] = defaultdict(set)
    for uri, suite in _sources(etc_apt):
        suites[uri.rstrip("/")].add(suite)
    security = [uri for uri, names in suites.items() if any(name.endswith("-security") for name in names)]
    # An archive of somebody else has a suite of Debian's name, too, but no updates to it.
    archives = [uri for uri, names in suites.items() if {f"{name}-updates" for name in names} & names]
    archives += [uri for uri in suites if uri.endswith("/debian") and uri not in archives]
    if not archives:
        raise NotRunError(f"the sources in {etc_apt} name no mirror of Debian")
    sibling = f"{archives[0].removesuffix('/debian')}/debian-security"
    return Mirrors(archives[0], security[0] if security else sibling)


def _sources(etc_apt: Path) -> Iterator[tuple[str, str]]:
    """Each (URI, suite) with packages, of both formats that sources.list(5) knows."""
    parts = etc_apt / "sources.list.d"
    for file in [etc_apt / "sources.list", *sorted(parts.glob("*.list"))]:
        if file.is_file():
            yield from _of_lines(file.read_text())
    for file in sorted(parts.glob("*.sources")):
        yield from _of_stanzas(file.read_text())


def _of_lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        found = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)", line)
        if found:
            yield found[1], found[2]


def _of_stanzas(text: str) -> Iterator[tuple[str, str]]:
    without_comments = re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)
    for stanza in re.split(r"\n\s*\n", without_comments):
        unfolded = re.sub(r"\n[ \t]+", " ", stanza)
        fields = {name.lower(): value.split() for name, value in re.findall(r"^(\S+):(.*)$", unfolded, re.M)}
        if "deb" not in fields.get("types", []) or fields.get("enabled") == ["no"]:
            continue
        yield from ((uri, suite) for uri in fields.get("uris", []) for suite in fields.get("suites", []))


class Archive:
    """The packages of some suites for one architecture. `folder` keeps the lists."""

    def __init__(self, folder: Path, mirrors: Mirrors, suites: Sequence[str], architecture: str) -> None:
        keyring = next((path for path in _KEYRINGS if path.exists()), None)
        if keyring is None:
            raise NotRunError("no keyring of Debian's archive: apt-get install debian-archive-keyring")
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        sources = folder / "debian.sources"
        stanzas = [f"Types: deb\nURIs: {mirrors.of(suite)}\nSuites: {suite}\n" for suite in suites]
        sources.write_text(
            "\n".join(f"{stanza}Components: main\nSigned-By: {keyring}\n" for stanza in stanzas)
        )
        settings = {
            "Dir::Etc::SourceList": sources,
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State::Lists": folder / "lists",
            "Dir::State::Status": "/dev/null",
            "Dir::Cache": folder / "cache",
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "root",  # the folder may be one that the user _apt cannot enter
            "Acquire::Languages": "none",
            "Acquire::Retries": 3,
        }
        self._options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        self._architecture = architecture
        self._suites = " and ".join(suites)
        self._run("apt-get", "-qq", "--error-on=any", "update")

    def newest(self, series: str) -> list[str]:
        """The packages of the newest kernel of a series, the one with the image first. NotRunError."""
        pattern = rf"linux-(image|binary)-({re.escape(series)}\.\d[^-]*(?:-\d+)?)-{self._architecture}"
        listed = self._run("apt-cache", "search", "--names-only", f"^linux-(image|binary)-{series}[.]")
        found = [re.fullmatch(pattern, line.split(" ")[0]) for line in listed.splitlines()]
        kernels = [(match[2], match[1]) for match in found if match]
        if not kernels:
            raise NotRunError(f"the mirror has no kernel {series} for {self._architecture} in {self._suites}")
        version = max((version for version, _ in kernels), key=_by_number)
        # From 6.19 on linux-image is empty, and depends on the image, the modules and the configuration.
        if (version, "binary") not in kernels:
            return [f"linux-image-{version}-{self._architecture}"]
        return [f"linux-{part}-{version}-{self._architecture}" for part in ("binary", "modules", "base")]

    def unpack(self, packages: Sequence[str], target: Path) -> None:
        """Fetch packages and unpack them, without installing anything. NotRunError where that fails."""
        target.mkdir(parents=True, exist_ok=True)
        for package in packages:
            self._run("apt-get", "-qq", "download", package, cwd=target)
            for file in target.glob("*.deb"):
                call("dpkg-deb", "--extract", file, target)
                file.unlink()

    def _run(self, program: str, *words: str, cwd: Path | None = None) -> str:
        return call(program, *self._options, *words, cwd=cwd)


def _by_number(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
