"""The child of `watch` that writes events of pods to the API server of Kubernetes:
`python -m tracer.watch.pod_events_child HOST PORT ACCOUNT`.

ACCOUNT is the folder with the token and the certificate authority of the pod's service account. The standard
input is a JSON array of objects:

    namespace, name    of the event
    is_there           whether the server has the event, so that its count, time and message are changed
    body               the event, as it is made

The child prints a JSON array for each event that was tried: name, state, and the reason or null. The state is
`sent`; `refused`, if no later attempt can succeed; or `later`. The last line is an object:

    error              null, or the reason why the server cannot be used now
    retry_after_s      the pause that the server asks for, or null

The recorder never loads ssl or http.client. The official client (`kubernetes` on PyPI) is not used:
docs/watch.md has the reason.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from tracer.kernel.process.children import end_with_parent, stand_back

_WITHIN_S: Final = 10.0
"""The time that the server has for each part of an answer."""
_MOST_BYTES: Final = 64 << 10
_MOST_TOKEN_BYTES: Final = 64 << 10
_MOST_WORDS: Final = 300
_CHANGED: Final = ("count", "lastTimestamp", "message")
_REFUSED: Final = frozenset({400, 404, 413, 422})
_DENIED: Final = 403
_FAILED: Final = 500
"""The status if an admission webhook fails (k8s.io/apiserver, `pkg/admission/plugin/webhook`). A webhook can
be set for some namespaces only."""
_EXISTS: Final = 409
_NOT_FOUND: Final = 404


class UnavailableError(Exception):
    """The server cannot be used now. `retry_after_s` is the pause that it asks for."""

    def __init__(self, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(_in_one_line(why))
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Answer:
    """An answer of the server. `document` is {} unless the body is a JSON object."""

    status: int
    document: Mapping[str, Any]
    retry_after_s: float | None

    @property
    def is_of_kubernetes(self) -> bool:
        """Return whether an error comes from the API, and from no proxy or other server before it."""
        return self.document.get("kind") == "Status"

    @property
    def is_of_ending_namespace(self) -> bool:
        """Return whether the namespace is being deleted, so that no object can be made in it."""
        details = self.document.get("details")
        causes = details.get("causes") if isinstance(details, dict) else None
        return isinstance(causes, list) and any(
            isinstance(cause, dict) and cause.get("reason") == "NamespaceTerminating" for cause in causes
        )

    def words(self) -> str:
        """Return the status with the message of the server."""
        return _in_one_line(f"{self.status} {self.document.get('message') or 'without a message'}")


class ApiServer:
    """A connection to the API server. Its certificate and name are verified.

    Raises UnavailableError, as all methods do.
    """

    def __init__(self, host: str, port: int, account: Path, within_s: float = _WITHIN_S) -> None:
        self._account = account
        try:
            context = ssl.create_default_context(cafile=str(account / "ca.crt"))
        except OSError as error:
            raise UnavailableError(f"{account / 'ca.crt'}: {error.strerror or error}") from error
        # The certificates of many clusters lack an extension that RFC 5280 asks for, and Python 3.13 began to
        # require it (bpo-107361). The chain and the name are verified all the same.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self._http = http.client.HTTPSConnection(host, port, timeout=within_s, context=context)
        self._is_used = False

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def send(self, event: Mapping[str, Any]) -> tuple[str, str | None]:
        """Make or change an event; return its state and the reason.

        An event has the same name at each attempt. So an attempt whose answer was lost leaves no second one.
        """
        is_there = bool(event["is_there"])
        answer = self._write(event, is_there=is_there)
        if answer.status == (_NOT_FOUND if is_there else _EXISTS):  # it has expired, or an answer was lost
            is_there = not is_there
            answer = self._write(event, is_there=is_there)
        if answer.status in (200, 201):
            return "sent", None
        if answer.is_of_kubernetes:
            if answer.status == _DENIED:
                return "refused" if answer.is_of_ending_namespace else "later", answer.words()
            if answer.status in (_EXISTS, _FAILED) or (answer.status == _NOT_FOUND and is_there):
                return "later", answer.words()
            if answer.status in _REFUSED:
                return "refused", answer.words()
        raise UnavailableError(answer.words(), answer.retry_after_s)

    def _write(self, event: Mapping[str, Any], *, is_there: bool) -> Answer:
        path = f"/api/v1/namespaces/{quote(event['namespace'], safe='')}/events"
        if not is_there:
            return self._ask("POST", path, event["body"], "application/json")
        change = {name: event["body"][name] for name in _CHANGED}
        path += f"/{quote(event['name'], safe='')}"
        return self._ask("PATCH", path, change, "application/merge-patch+json")

    def _ask(self, method: str, path: str, body: Any, content_type: str) -> Answer:
        headers = {
            "Authorization": f"Bearer {self._token()}",
            "Accept": "application/json",
            "Content-Type": content_type,
            "User-Agent": "memcg-tracer",
        }
        text = json.dumps(body).encode()
        while True:
            try:
                self._http.request(method, path, text, headers)
                answer = self._http.getresponse()
                read = answer.read(_MOST_BYTES)
                break
            except (ConnectionError, http.client.BadStatusLine) as error:
                self._http.close()
                if not self._is_used:  # else the server may have closed the connection since the last answer
                    raise UnavailableError(_reason(error)) from error
                self._is_used = False
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._http.close()
                raise UnavailableError(_reason(error)) from error
        self._is_used = True
        if not answer.isclosed():  # an answer longer than what is read
            self._http.close()
        return Answer(answer.status, _document(read), _seconds(answer.headers.get("Retry-After")))

    def _token(self) -> str:
        """Read the token, which the kubelet replaces before it expires."""
        path = self._account / "token"
        try:
            with path.open("rb") as file:
                token = file.read(_MOST_TOKEN_BYTES).decode("ascii").strip()
        except (OSError, ValueError) as error:
            raise UnavailableError(f"{path}: {_reason(error)}") from error
        if not token or not token.isprintable():
            raise UnavailableError(f"{path} has no token")
        return token


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of the API server is not valid: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "the API server does not answer in time"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the API server closed the connection without an answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


def _document(read: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(read)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _seconds(words: str | None) -> float | None:
    """Return a Retry-After in seconds; None for a date, which the API server does not give."""
    return float(words) if words is not None and words.isascii() and words.isdigit() else None


def _in_one_line(words: str) -> str:
    return " ".join(words.split())[:_MOST_WORDS]


def send_all(api: ApiServer, events: list[dict[str, Any]]) -> None:
    """Send events in their order, and print what became of each. Raises UnavailableError.

    Once the server does not take an event in a namespace, its other events are left for later.
    """
    closed: set[str] = set()
    for event in events:
        if event["namespace"] in closed:
            continue
        state, why = api.send(event)
        if state == "later":
            closed.add(event["namespace"])
        print(json.dumps([event["name"], state, why]), flush=True)


def main(arguments: list[str]) -> int:
    """Send the events of the standard input; return the exit status."""
    end_with_parent()
    stand_back()
    host, port, account = arguments
    end: dict[str, Any] = {"error": None, "retry_after_s": None}
    try:
        api = ApiServer(host, int(port), Path(account))
        try:
            send_all(api, json.load(sys.stdin))
        finally:
            api.close()
    except UnavailableError as error:
        end = {"error": str(error), "retry_after_s": error.retry_after_s}
    except Exception as error:  # any error: the parent tries again
        end["error"] = _in_one_line(f"{type(error).__name__}: {error}")
    print(json.dumps(end), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
