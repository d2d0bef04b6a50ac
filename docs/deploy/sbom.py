"""Write the software bill of materials of each file of a release: `python docs/deploy/sbom.py FILE...`.

`make release` runs it. FILE.cdx.json has what FILE itself says that it contains and needs, as CycloneDX 1.6:

* a Debian package: the Python distributions in it, and its Depends and Recommends;
* an archive of an image: its Debian packages, and the Python distributions of its venv;
* a wheel: what it requires; what only an extra requires is optional, and only development, excluded.

The same file gives the same bytes: the serial number follows from its checksum, and the time is
SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Final

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

VENV: Final = "opt/memcg-tracer/"
"""The venv of the image. The Python distributions outside of it are parts of Debian packages."""

_DEVELOPMENT: Final = ("test", "lint", "release")
_RELATIONS: Final = {"Depends": ComponentScope.REQUIRED, "Recommends": ComponentScope.OPTIONAL}


def main(paths: Iterable[Path]) -> None:
    """Write the bill of each file beside it."""
    released = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
    for path in paths:
        bill = path.with_name(f"{path.name}.cdx.json")
        text = f"{JsonV1Dot6(bom(path, released)).output_as_string(indent=2)}\n"
        error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
        assert error is None, error
        bill.write_text(text)
        print(bill)


def bom(path: Path, released: datetime) -> Bom:
    """Return the bill of a .deb, a .tar of an image, or a .whl."""
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    name, version, parts = _READERS[path.suffix](path)
    whole = Component(
        type=ComponentType.CONTAINER if path.suffix == ".tar" else ComponentType.APPLICATION,
        name=name,
        version=version,
        bom_ref=path.name,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=checksum)],
    )
    assert len({part.bom_ref.value for part in parts}) == len(parts), path
    bill = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, checksum), components=parts)
    bill.metadata.timestamp = released
    bill.metadata.component = whole
    bill.register_dependency(whole, parts)
    return bill


Content = tuple[str, str, list[Component]]
"""The name and the version of the whole, and its parts."""


def _of_deb(path: Path) -> Content:
    shown = subprocess.run(["dpkg-deb", "--field", path], check=True, capture_output=True, text=True).stdout
    fields = HeaderParser().parsestr(shown)
    files = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(files)) as archive:
        parts = [*_distributions(_metadata_in(archive, prefix="./"), but=fields["Package"])]
    for relation, scope in _RELATIONS.items():
        relations = dict[str, list[str]]()
        for needed in re.split(r",\s*", fields.get(relation, "")):
            for name in re.findall(r"(?:^|\|)\s*([a-z0-9][a-z0-9+.-]*)", needed):
                relations.setdefault(name, []).append(needed)
        parts += [
            _needed("deb", name, f"debian:{relation}", lines, scope) for name, lines in relations.items()
        ]
    return fields["Package"], fields["Version"], parts


def _of_image(path: Path) -> Content:
    metadata, status, release = dict[str, Message](), "", ""
    with tarfile.open(path) as archive:
        [image] = json.load(_opened(archive, "manifest.json"))
        for layer in image["Layers"]:
            with tarfile.open(fileobj=_opened(archive, layer)) as files:
                for member in files:
                    if not member.isfile():
                        continue
                    if member.name == "var/lib/dpkg/status":
                        status = _opened(files, member).read().decode()
                    elif member.name == "usr/lib/os-release":
                        release = _opened(files, member).read().decode()
                    elif member.name.startswith(VENV) and member.name.endswith(".dist-info/METADATA"):
                        metadata[member.name] = HeaderParser().parsestr(
                            _opened(files, member).read().decode()
                        )
    named = dict(re.findall(r'^(ID|VERSION_ID)="?([^"\n]*)"?$', release, re.MULTILINE))
    distribution = f"{named['ID']}-{named['VERSION_ID']}"
    packages = [HeaderParser().parsestr(text) for text in status.strip().split("\n\n")]
    parts = [
        _component("deb", one["Package"], one["Version"], arch=one["Architecture"], distro=distribution)
        for one in packages
        if one["Status"] == "install ok installed"
    ]
    name, version = image["RepoTags"][0].rpartition("/")[2].split(":")
    return name, version, [*parts, *_distributions(metadata.values(), but=None)]


def _of_wheel(path: Path) -> Content:
    with zipfile.ZipFile(path) as archive:
        [name] = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    requirements = dict[str, list[str]]()
    for requirement in metadata.get_all("Requires-Dist", []):
        found = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert found is not None, requirement
        requirements.setdefault(found[0], []).append(requirement)
    parts = [
        _needed("pypi", name, "python:Requires-Dist", lines, _scope(lines))
        for name, lines in requirements.items()
    ]
    return metadata["Name"], metadata["Version"], parts


_READERS: Final = {".deb": _of_deb, ".tar": _of_image, ".whl": _of_wheel}


def _scope(requirements: Iterable[str]) -> ComponentScope:
    extras = [re.search(r"extra == ['\"]([\w-]+)['\"]", line) for line in requirements]
    if None in extras:
        return ComponentScope.REQUIRED
    is_for_users = any(extra is not None and extra[1] not in _DEVELOPMENT for extra in extras)
    return ComponentScope.OPTIONAL if is_for_users else ComponentScope.EXCLUDED


def _metadata_in(archive: tarfile.TarFile, prefix: str) -> Iterator[Message]:
    for member in archive:
        if member.name.startswith(prefix) and member.name.endswith(".dist-info/METADATA"):
            yield HeaderParser().parsestr(_opened(archive, member).read().decode())


def _distributions(found: Iterable[Message], but: str | None) -> Iterator[Component]:
    """Yield the Python distributions, but the one that the file itself is."""
    for metadata in found:
        if metadata["Name"] != but:
            yield _component("pypi", metadata["Name"], metadata["Version"])


def _component(kind: str, name: str, version: str, **qualifiers: str) -> Component:
    url = _url(kind, name, version, qualifiers)
    return Component(
        type=ComponentType.LIBRARY, name=name, version=version, purl=url, bom_ref=url.to_string()
    )


def _needed(kind: str, name: str, key: str, relations: Iterable[str], scope: ComponentScope) -> Component:
    """Return what is not in the file, but needed beside it, with the versions that will do."""
    url = _url(kind, name, None, {})
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        purl=url,
        bom_ref=url.to_string(),
        scope=scope,
        properties=[Property(name=key, value=relation) for relation in relations],
    )


def _url(kind: str, name: str, version: str | None, qualifiers: dict[str, str]) -> PackageURL:
    return PackageURL(kind, "debian" if kind == "deb" else None, name, version, qualifiers)


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo | str) -> io.BufferedReader:
    file = archive.extractfile(member)
    assert isinstance(file, io.BufferedReader), member
    return file


if __name__ == "__main__":
    main(map(Path, sys.argv[1:]))
