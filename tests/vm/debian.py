"""Debian's packages, of kernels by series, from the mirror that this machine uses.

All files of apt are in a separate folder, so that the machine's lists, packages and settings do not change.
Signatures are checked with Debian's keyring.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from vm.errors import NotRunError
from vm.programs import call

SUITES: Final[Mapping[str, tuple[str, ...]]] = {
    "6.1": ("bookworm", "bookworm-security"),
    "6.12": ("trixie", "trixie-security"),
    "6.18": ("trixie-backports",),
    "7.3": ("trixie-backports",),
}
"""Series -> the suites that have it. A version leaves a mirror after weeks, a series after years."""

_ETC_APT: Final = Path("/etc/apt")
_KEYRINGS: Final = (
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),  # until Debian 12
)


@dataclass(frozen=True)
class Mirrors:
    """The URIs of Debian's archive and of its security updates that this machine uses."""

    archive: str
    security: str

    def uri_for(self, suite: str) -> str:
        """Return the URI that has a suite."""
        return self.security if suite.endswith("-security") else self.archive


def find_mirrors(etc_apt: Path = _ETC_APT) -> Mirrors:
    """Find the mirrors by the suites in the machine's sources; raises NotRunError if none is Debian's."""
    suites: defaultdict[str, set[str]] = defaultdict(set)
    for uri, suite in _sources(etc_apt):
        suites[uri.rstrip("/")].add(suite)
    security = [uri for uri, names in suites.items() if any(name.endswith("-security") for name in names)]
    # Another archive may have a suite of Debian's name as well, but has no updates to it.
    archives = [uri for uri, names in suites.items() if {f"{name}-updates" for name in names} & names]
    archives += [uri for uri in suites if uri.endswith("/debian") and uri not in archives]
    if not archives:
        raise NotRunError(f"the sources in {etc_apt} name no mirror of Debian")
    sibling = f"{archives[0].removesuffix('/debian')}/debian-security"
    return Mirrors(archives[0], security[0] if security else sibling)


def _sources(etc_apt: Path) -> Iterator[tuple[str, str]]:
    """Yield each (URI, suite) with packages, in both formats of sources.list(5)."""
    parts = etc_apt / "sources.list.d"
    for file in [etc_apt / "sources.list", *sorted(parts.glob("*.list"))]:
        if file.is_file():
            yield from _from_lines(file.read_text())
    for file in sorted(parts.glob("*.sources")):
        yield from _from_stanzas(file.read_text())


def _from_lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        found = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)", line)
        if found:
            yield found[1], found[2]


def _from_stanzas(text: str) -> Iterator[tuple[str, str]]:
    without_comments = re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)
    for stanza in re.split(r"\n\s*\n", without_comments):
        unfolded = re.sub(r"\n[ \t]+", " ", stanza)
        fields = {name.lower(): value.split() for name, value in re.findall(r"^(\S+):(.*)$", unfolded, re.M)}
        if "deb" not in fields.get("types", []) or fields.get("enabled") == ["no"]:
            continue
        yield from ((uri, suite) for uri in fields.get("uris", []) for suite in fields.get("suites", []))


class Archive:
    """The packages of some suites for one architecture, or their sources; apt's lists are in `folder`."""

    def __init__(
        self,
        folder: Path,
        mirrors: Mirrors,
        suites: Sequence[str],
        architecture: str,
        kind: Literal["deb", "deb-src"] = "deb",
    ) -> None:
        keyring = next((path for path in _KEYRINGS if path.exists()), None)
        if keyring is None:
            raise NotRunError("no keyring of Debian's archive: apt-get install debian-archive-keyring")
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        sources = folder / "debian.sources"
        stanzas = [f"Types: {kind}\nURIs: {mirrors.uri_for(suite)}\nSuites: {suite}\n" for suite in suites]
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
            "APT::Sandbox::User": "root",  # the user _apt may not enter the folder
            "Acquire::Languages": "none",
            "Acquire::Retries": 3,
        }
        self._options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        self._architecture = architecture
        self._suites = " and ".join(suites)
        self._run("apt-get", "-qq", "--error-on=any", "update")

    def newest(self, series: str) -> list[str]:
        """Return the packages of the newest kernel of a series, that of the image first; raises NotRunError
        if there is none."""
        pattern = rf"linux-(image|binary)-({re.escape(series)}\.\d[^-]*(?:-\d+)?)-{self._architecture}"
        listed = self._run("apt-cache", "search", "--names-only", f"^linux-(image|binary)-{series}[.]")
        found = [re.fullmatch(pattern, line.split(" ")[0]) for line in listed.splitlines()]
        kernels = [(match[2], match[1]) for match in found if match]
        if not kernels:
            raise NotRunError(f"the mirror has no kernel {series} for {self._architecture} in {self._suites}")
        version = max((version for version, _ in kernels), key=_by_number)
        # Since 6.19, linux-image is empty, and depends on the image, the modules and the configuration.
        if (version, "binary") not in kernels:
            return [f"linux-image-{version}-{self._architecture}"]
        return [f"linux-{part}-{version}-{self._architecture}" for part in ("binary", "modules", "base")]

    def unpack(self, packages: Sequence[str], target: Path) -> None:
        """Fetch and unpack packages, without installing them; raises NotRunError if that fails."""
        target.mkdir(parents=True, exist_ok=True)
        for package in packages:
            self._run("apt-get", "-qq", "download", package, cwd=target)
            for file in target.glob("*.deb"):
                call("dpkg-deb", "--extract", file, target)
                file.unlink()

    def unpack_source(self, package: str, target: Path) -> None:
        """Fetch and unpack the newest source of a package; raises NotRunError if that fails."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._run("apt-get", "-qq", "--download-only", "source", package, cwd=target.parent)
        [description] = target.parent.glob("*.dsc")
        call("dpkg-source", "--no-check", "--extract", description, target)

    def _run(self, program: str, *words: str, cwd: Path | None = None) -> str:
        return call(program, *self._options, *words, cwd=cwd)


def _by_number(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
