"""The account that a pod of Kubernetes has for the API server of its cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.errors import UsageError

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""The folder that the kubelet mounts, with the token and the certificate authority."""


@dataclass(frozen=True, slots=True)
class PodAccount:
    """The address of the API server, and the folder with `token` and `ca.crt`."""

    host: str
    port: int
    folder: Path


def pod_account(environment: Mapping[str, str] = os.environ, folder: Path | None = None) -> PodAccount:
    """Return the account of the pod in which this process runs, from `folder`, else `ACCOUNT`.

    Raises UsageError outside of a pod, and in a pod without a token.
    """
    folder = folder or ACCOUNT
    host, port = (environment.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
    if not host or not (port.isascii() and port.isdigit()):
        raise UsageError(
            "--events is for a pod of Kubernetes, and KUBERNETES_SERVICE_HOST and _PORT are not in the "
            "environment: use --exec elsewhere"
        )
    for name in ("token", "ca.crt"):
        if not os.access(folder / name, os.R_OK):
            raise UsageError(
                f"--events needs the token of the pod's service account, and {folder / name} cannot be read: "
                "deploy docs/deploy/kubernetes-events"
            )
    return PodAccount(host, int(port), folder)
