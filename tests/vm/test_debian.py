"""The mirrors of Debian in both formats of apt's sources."""

from __future__ import annotations

from pathlib import Path

import pytest
from vm.debian import Mirrors, find_mirrors
from vm.errors import NotRunError

STANZAS = """\
# what the installer wrote
Types: deb deb-src
URIs: http://mirror.test/debian/
Suites: trixie
 trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp

Types: deb
URIs: http://security.test/debian-security
Suites: trixie-security
Components: main
"""

LINES = """\
# deb http://old.test/debian trixie trixie-updates
deb [signed-by=/usr/share/keyrings/debian.gpg arch=amd64] http://mirror.test/debian trixie main
deb http://mirror.test/debian trixie-updates main
deb-src http://sources.test/debian trixie-updates main
deb http://security.test/debian-security trixie-security main
"""

OTHERS = """\
Types: deb
URIs: https://docker.test/linux/debian
Suites: trixie
Components: stable

Types: deb
Enabled: no
URIs: http://switched-off.test/debian
Suites: trixie trixie-updates
Components: main
"""


@pytest.mark.parametrize(("name", "text"), [("debian.sources", STANZAS), ("debian.list", LINES)])
def test_find_mirrors_in_both_formats(tmp_path: Path, name: str, text: str) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / name).write_text(text)
    (parts / "a-third-party.sources").write_text(OTHERS)
    assert find_mirrors(tmp_path) == Mirrors(
        "http://mirror.test/debian", "http://security.test/debian-security"
    )


def test_find_mirrors_without_security_derives_its_uri(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://mirror.test/debian trixie main\n")
    mirrors = find_mirrors(tmp_path)
    assert mirrors.uri_for("bookworm") == "http://mirror.test/debian"
    assert mirrors.uri_for("bookworm-security") == "http://mirror.test/debian-security"


def test_find_mirrors_without_debian_raises(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://archive.test/somewhere noble main\n")
    with pytest.raises(NotRunError, match="name no mirror of Debian"):
        find_mirrors(tmp_path)
