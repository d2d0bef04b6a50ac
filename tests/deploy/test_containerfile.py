"""The Containerfile: what it copies exists, and is all that is sent. `make image-check` builds it."""

from __future__ import annotations

import re
import shlex
import subprocess
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path

import yaml

from tracer.version import VERSION

TOP = Path(__file__).parents[2]
TEXT = (TOP / "docs/deploy/Containerfile").read_text()
README = (TOP / "docs/deploy/README.md").read_text()
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in re.sub(r" \\\n\s*", " ", TEXT).splitlines()
    if line and not line.startswith("#")
]


def copied() -> set[str]:
    """Return what is copied from the checkout."""
    words = [shlex.split(rest) for name, rest in INSTRUCTIONS if name == "COPY" and "--from" not in rest]
    return {source for *sources, _ in words for source in sources}


def test_what_is_copied_is_all_that_the_builder_is_sent() -> None:
    assert all((TOP / source).exists() for source in copied())
    sent = {line[1:] for line in (TOP / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sent == copied()
    assert {"pyproject.toml", "README.md", "LICENSE"} <= sent, "the build of the Python package reads them"


def test_image_has_neither_pip_nor_sources() -> None:
    last = INSTRUCTIONS[[name for name, _ in INSTRUCTIONS].index("FROM", 2) :]
    assert [rest for name, rest in last if name == "COPY"] == [
        "--from=build /opt/memcg-tracer /opt/memcg-tracer"
    ]
    assert not any("pip" in rest for name, rest in last if name == "RUN")
    assert ["ENTRYPOINT", '["/usr/local/bin/memcg-tracer"]'] in last


def test_image_has_the_time_of_the_release() -> None:
    """dpkg takes the same time for the files of the package."""
    changelog = (TOP / "docs/deploy/debian/changelog").read_text()
    [newest, *_] = re.findall(r"^ -- .*>  (.*)$", changelog, re.MULTILINE)
    released = int(parsedate_to_datetime(newest).timestamp())
    recipe = subprocess.run(
        ["make", "-n", "image", "BUILDER=/usr/bin/buildah"],
        cwd=TOP,
        check=True,
        capture_output=True,
        text=True,
    )
    assert f"dated=--timestamp={released} " in recipe.stdout
    assert "/usr/bin/buildah build $dated " in recipe.stdout


def test_compiled_python_is_not_compared_with_the_times_of_sources() -> None:
    """All files of the image get one time, which would make every compiled file an old one."""
    assert "pip install --no-cache-dir --no-compile" in TEXT
    assert (
        "-m compileall -q --invalidation-mode unchecked-hash /opt/memcg-tracer/lib /usr/lib/python3*" in TEXT
    )


def test_no_registry_is_named() -> None:
    images = [rest.split()[0] for name, rest in INSTRUCTIONS if name == "FROM"]
    assert images == ["${BASE}", "${BASE}"]
    assert ["ARG", "BASE=debian:trixie-slim"] in INSTRUCTIONS


def test_docker_in_the_readme_is_as_restricted_as_the_pod() -> None:
    [line] = re.findall(r"^docker run (.*?[^\\])$", README, re.MULTILINE | re.DOTALL)
    words = shlex.split(line.replace("\\\n", " "))
    pod = yaml.safe_load((TOP / "docs/deploy/kubernetes/daemonset.yaml").read_text())["spec"]["template"][
        "spec"
    ]
    context = pod["containers"][0]["securityContext"]
    given = {one: [b for a, b in pairwise(words) if a == one] for one in words}
    assert given["--cap-drop"] == context["capabilities"]["drop"]
    assert given["--cap-add"] == context["capabilities"]["add"]
    assert ("--read-only" in words) is context["readOnlyRootFilesystem"]
    assert "no-new-privileges" in given["--security-opt"]
    written = {mount.split(":")[1] for mount in given["-v"] if not mount.endswith(":ro")}
    assert written == {"/var/lib/memcg-tracer", "/var/cache/memcg-tracer"}
    assert words[-2:] == [f"memcg-tracer:{VERSION}", "watch"]
