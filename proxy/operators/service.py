"""A running service, as the commands of its operators reach it: over HTTP, with the operator's key."""

import http.client
import json
import socket
import ssl
from typing import Any
from urllib.parse import SplitResult, urlsplit

from proxy.settings import Settings

#: Seconds for an answer: whoever shows a wrong key waits for a while.
TIMEOUT = 30.0
#: Bytes of the largest answer that is read.
LARGEST = 32 * 1024 * 1024
#: Where a service that listens on all addresses of its machine is reached from there.
HERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
#: What is told beside a 401.
KEY_SENT = "the ADMIN_API_KEY that is set here was sent: it comes from the environment, .env or assets/env"
NO_KEY = "no ADMIN_API_KEY is set here: put it into the environment, .env or assets/env"


class WrongAddress(Exception):
    """The service cannot be there; the text says why."""


class NoService(Exception):
    """The service was not reached, or something else answered; the text says what to do."""


class Refused(Exception):
    """The service refuses what is asked for, in its own words."""


class RunningService:
    """The service at `url`. Raises WrongAddress for what is no address.

    Args:
        key: ADMIN_API_KEY; None: the service may know by other means whom it can trust.
    """

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._parts = parts_of(self.url)

    @classmethod
    def of(cls, settings: Settings, url: str | None) -> "RunningService":
        """The one that these settings start, unless there is an address. Raises WrongAddress."""
        key = settings.admin_api_key
        return cls(url or url_of(settings), key.get_secret_value() if key else None)

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Its answer. Raises NoService, Refused."""
        try:
            connection = self._connection()
            try:
                status, told = self._exchange(connection, method, path, body)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoService(f"{self.url}: {self._why(error)}") from None
        if status == 200 and isinstance(told, dict):
            return told
        raise self._refused(status, told)

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT)

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: object
    ) -> tuple[int, object]:
        headers = {"Content-Type": "application/json", "User-Agent": "gigachat-proxy"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}".encode().decode("latin-1")
        sent = None if body is None else json.dumps(body)
        connection.request(method, self._parts.path + path, body=sent, headers=headers)
        answer = connection.getresponse()
        text = answer.read(LARGEST)
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, None

    def _why(self, error: Exception) -> str:
        """What went wrong with the connection, and what to do."""
        if isinstance(error, ConnectionRefusedError):
            return "nothing listens there: start the service, or say where it is with --url"
        if isinstance(error, socket.gaierror):
            return "there is no such host"
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted ({error.verify_message}): SSL_CERT_FILE may name its authority"
        if isinstance(error, ssl.SSLError):
            return f"TLS fails ({error.reason or error}): is it http:// perhaps?"
        if isinstance(error, TimeoutError):
            return f"no answer within {TIMEOUT:g} s"
        if isinstance(error, http.client.HTTPException | ConnectionError):
            return "what answers there speaks no HTTP: is it https:// perhaps?"
        # Whatever it is about, it may repeat the key.
        return "ADMIN_API_KEY cannot be sent" if isinstance(error, ValueError) else str(error)

    def _refused(self, status: int, told: object) -> NoService | Refused:
        words = told.get("status") if isinstance(told, dict) else None
        if not isinstance(words, str):
            return NoService(f"{self.url}: what answers there ({status}) is no gigachat-proxy, or an older one")
        if status == 401:
            return Refused(f"{words} ({KEY_SENT if self._key else NO_KEY})")
        return Refused(words)


def parts_of(url: str) -> SplitResult:
    """Raises WrongAddress."""
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
    if not is_right or parts.username is not None or parts.query or parts.fragment:
        raise WrongAddress("an address looks like http://127.0.0.1:8078")
    return parts


def url_of(settings: Settings) -> str:
    """Raises WrongAddress."""
    if not settings.port:
        raise WrongAddress("PORT=0 takes any free port: say where the service is with --url")
    host = HERE.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
