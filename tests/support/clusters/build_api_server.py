"""Builds kube-apiserver from Debian's source, for `make api-server`.

Debian packages kubectl and etcd, but no kube-apiserver. The newest source with it is that of Debian 12
(Kubernetes 1.20): later ones are cut down to kubectl. It has all that is compiled in, but the OpenAPI
definitions, whose generator it has.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from support.clusters.api_server import BUILT
from vm.debian import Archive, find_mirrors
from vm.errors import NotRunError

_SUITES: Final = ("bookworm", "bookworm-security")
_MODULE: Final = "k8s.io/kubernetes"
_TAGGED: Final = re.compile(r"^// \+k8s:openapi-gen=", re.MULTILINE)
_NOT_SERVED: Final = frozenset({"code-generator", "sample-apiserver"})
_GENERATOR: Final = "./vendor/k8s.io/kube-openapi/cmd/openapi-gen"


def build(program: Path) -> None:
    """Build kube-apiserver. Raises NotRunError without the source, CalledProcessError if Go fails."""
    program.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=program.parent) as directory:
        gopath = Path(directory)
        (gopath / "apt").mkdir()
        archive = Archive(gopath / "apt", find_mirrors(), _SUITES, "amd64", kind="deb-src")
        source = gopath / "src" / _MODULE
        archive.unpack_source("kubernetes", source)
        settings = {
            "GOPATH": directory,
            "GOCACHE": str(gopath / "cache"),
            "GO111MODULE": "off",
            "CGO_ENABLED": "0",
        }

        def run(*command: str) -> None:
            subprocess.run(command, cwd=source, env=os.environ | settings, check=True)

        generator, made = str(gopath / "openapi-gen"), gopath / program.name
        run("go", "build", "-o", generator, _GENERATOR)
        types = ",".join(sorted(set(packages_with_definitions(source))))
        header = "vendor/k8s.io/code-generator/hack/boilerplate.go.txt"
        into = ("-O", "zz_generated.openapi", "-p", f"{_MODULE}/pkg/generated/openapi", "-r", "violations")
        run(generator, "-i", types, *into, "--go-header-file", header)
        run("go", "build", "-tags", "providerless", "-o", str(made), "./cmd/kube-apiserver")
        made.rename(program)


def packages_with_definitions(source: Path) -> Iterator[str]:
    """Yield the Go packages whose types are tagged for the OpenAPI definitions."""
    for tree, prefix in (("staging/src", f"{_MODULE}/vendor"), ("pkg", f"{_MODULE}/pkg")):
        for file in (source / tree).rglob("*.go"):
            package = file.parent.relative_to(source / tree)
            if not _NOT_SERVED.intersection(package.parts) and _TAGGED.search(file.read_text()):
                yield f"{prefix}/{package}"


if __name__ == "__main__":
    try:
        build(BUILT)
    except (NotRunError, subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"make: no kube-apiserver: {error}")
