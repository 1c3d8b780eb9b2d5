"""The health server answers this machine's own questions and takes a few words of command; law: it listens on 127.0.0.1
only, a GET changes nothing, and a request that is not exactly as expected is refused before anything hears of it.

    GET /healthz  /readyz  /metrics  /status
    POST /kill/<level>  /tighten  /approve     only when control is switched on, with a bearer token of 256 bits

One request a connection, parsed strictly by hand: for seven routes without sessions, files or templates a web framework
would be the largest part of the daemon, and its server would take the daemon's signals. A browser on this machine is kept
out by the lists of hosts and origins (DNS rebinding), by the token, which no page can know, and by the absence of any CORS
answer. Every request is answered inside one callback of the loop, so that no task can be left behind; slow clients are cut
off by a deadline and, when connections run out, oldest first.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import hmac
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Self, TypeVar

import msgspec

from bot.app.logs import Secrets, make_plain
from bot.core.errors import ConfigError, EvenkeelError

LOOPBACK = "127.0.0.1"
TOKEN_BYTES = 32
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
JSON_TYPE = "application/json"

STATUS_MOST = 10_000
"""Rows of one table on the status page: a book has more contracts than a log line has room."""

LEVELS = ("alert", "no_new_risk", "hedge_only", "cancel_all", "flatten")


# What is asked and answered


class Kill(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rung of the kill ladder, and why."""

    level: str
    reason: str = ""


class Tighten(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit by name and its new value, which must be tighter than the one in force."""

    limit: str
    value: float


class Approve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order that waits for a person, and the person's word."""

    order: str
    approve: bool


Command = Kill | Tighten | Approve
C = TypeVar("C", Kill, Tighten, Approve)


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """What stands behind the routes: plain callables that answer at once.

    `healthy` and `ready` answer why not, by name, empty when all is well. `control` acts and answers what it did; it raises an
    `EvenkeelError` for a command it will not take.
    """

    healthy: Callable[[], Mapping[str, str]]
    ready: Callable[[], Mapping[str, str]]
    metrics: Callable[[], bytes]
    status: Callable[[], Mapping[str, Any]]
    control: Callable[[Command], Mapping[str, Any]] | None = None


class HealthOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the server is reached and what it bears. Sizes in bytes, times in seconds, rates in requests a second.

    `token`: 256 bits or more as hex or URL-safe base64; without one there is no control. `origins`: web origins that may ask,
    none by default. `names`: hosts it answers to, with or without its port.
    """

    port: int = 8787
    token: str | None = None
    names: tuple[str, ...] = (LOOPBACK, "localhost")
    origins: tuple[str, ...] = ()
    protect_reads: bool = False
    head_most: int = 8_192
    headers_most: int = 40
    body_most: int = 4_096
    connections_most: int = 32
    read_seconds: float = 2.0
    write_seconds: float = 5.0
    rate: float = 50.0
    burst: float = 100.0
    bad_token_rate: float = 1.0
    bad_token_burst: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"health port: expected 0 to 65535, found {self.port}")
        if self.token is not None and len(token_bytes(self.token)) < TOKEN_BYTES:
            raise ConfigError("health token: expected 256 bits or more as hex or URL-safe base64, found fewer")
        if self.protect_reads and self.token is None:
            raise ConfigError("health: expected a token where reads are protected, found none")
        small = {"head_most": 256, "headers_most": 4, "body_most": 64, "connections_most": 1}
        for name, least in small.items():
            if getattr(self, name) < least:
                raise ConfigError(f"health {name}: expected {least} or more, found {getattr(self, name)}")
        for name in ("read_seconds", "write_seconds", "rate", "burst", "bad_token_rate", "bad_token_burst"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"health {name}: expected more than 0, found {getattr(self, name)}")

    def __repr__(self) -> str:
        return f"HealthOptions(port={self.port}, token={'set' if self.token else 'none'})"


def token_bytes(token: str) -> bytes:
    """The bits of a token in hex or URL-safe base64. ConfigError for anything else."""
    text = token.strip()
    try:
        if re.fullmatch(r"[0-9a-fA-F]+", text) and len(text) % 2 == 0:
            return bytes.fromhex(text)
        if re.fullmatch(r"[A-Za-z0-9_-]+={0,2}", text):
            return urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
    except binascii.Error:
        pass
    raise ConfigError("health token: expected hex or URL-safe base64, found something else")


class Request(NamedTuple):
    """A request that is well formed. Header names are in lower case and each occurs once."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


class Answer(NamedTuple):
    """A response: status, body and its type; `allow` goes with 405."""

    status: int
    body: bytes
    kind: str = JSON_TYPE
    allow: str = ""


class Refused(Exception):
    """A request that is answered by its status alone: nothing behind the routes heard of it."""

    def __init__(self, status: int, why: str, allow: str = "") -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.allow = allow

    def answer(self) -> Answer:
        """The refusal as a response; never a word of what was sent."""
        return Answer(self.status, msgspec.json.encode({"error": self.why}), allow=self.allow)


_PHRASES = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 409: "Conflict", 411: "Length Required", 413: "Content Too Large", 414: "URI Too Long",
    415: "Unsupported Media Type", 417: "Expectation Failed", 421: "Misdirected Request", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
    503: "Service Unavailable", 505: "HTTP Version Not Supported",
}  # fmt: skip


# Parsing (RFC 9112, its strict side)

_METHOD = re.compile(rb"[A-Z]{1,16}")
_TARGET = re.compile(rb"/[A-Za-z0-9_./-]*")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_VALUE = re.compile(rb"[\t\x20-\x7e]*")
_DIGITS = re.compile(r"[0-9]{1,10}")
TARGET_MOST = 256


def parse_head(head: bytes, options: HealthOptions) -> Request:
    """The request line and headers of `head`, which ends before the blank line. Refused when anything is not as it must be."""
    lines = head.split(b"\r\n")
    if any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines):
        raise Refused(400, "a bare line break or NUL in the head")
    method, path = _request_line(lines[0])
    if len(lines) - 1 > options.headers_most:
        raise Refused(431, "too many headers")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name):
            raise Refused(400, "a malformed header")  # folded lines and blanks before the colon among them
        if not _VALUE.fullmatch(value):
            raise Refused(400, "a malformed header value")
        key = name.decode().lower()
        if key in headers:
            raise Refused(400, "a header twice")
        headers[key] = value.decode().strip(" \t")
    return Request(method, path, headers)


def _request_line(line: bytes) -> tuple[str, str]:
    words = line.split(b" ")
    if len(words) != 3:
        raise Refused(400, "a malformed request line")
    method, target, version = words
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Refused(505 if version.startswith(b"HTTP/") else 400, "another protocol")
    if not _METHOD.fullmatch(method):
        raise Refused(400, "a malformed method")
    if len(target) > TARGET_MOST:
        raise Refused(414, "a target too long")
    if not _TARGET.fullmatch(target) or b"//" in target or b"/." in target:
        raise Refused(400, "a target that is no plain path")  # escapes, queries, other hosts, and ways up the tree
    return method.decode(), target.decode()


def body_length(request: Request, options: HealthOptions) -> int:
    """How many bytes of body follow. Refused when that is unclear or too much."""
    headers = request.headers
    if "transfer-encoding" in headers:
        raise Refused(501, "a transfer encoding")
    if "expect" in headers:
        raise Refused(417, "an expectation")
    if "upgrade" in headers:
        raise Refused(501, "an upgrade")
    text = headers.get("content-length")
    if text is None:
        if request.method == "POST":
            raise Refused(411, "no length")
        return 0
    if not _DIGITS.fullmatch(text):
        raise Refused(400, "a malformed length")
    length = int(text)
    if length > options.body_most:
        raise Refused(413, "a body too large")
    if length and request.method != "POST":
        raise Refused(400, "a body where there is none")
    return length


class _Bucket:
    """So many at once, then so many a second."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._seen = 0.0

    def take(self, now: float) -> bool:
        self._left = min(self._burst, self._left + max(0.0, now - self._seen) * self._rate)
        self._seen = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Doorkeeper:
    """Decides on one well-formed request at a time, without sockets. `now` is monotonic, in seconds.

    In order: rate, host, origin, path, method, token, type, body; only then the route hears of it. A right token is not
    held up by the rate of others, so that a flood keeps nobody from the kill switch.
    """

    def __init__(self, routes: Routes, options: HealthOptions, *, secrets: Secrets | None = None) -> None:
        self._routes = routes
        self._secrets = secrets if secrets is not None else Secrets()
        self._options = options
        self._requests = _Bucket(options.rate, options.burst)
        self._bad_tokens = _Bucket(options.bad_token_rate, options.bad_token_burst)
        self._token = None if options.token is None else _digest(options.token.strip())
        self.refused: dict[int, int] = {}
        self.answered = 0
        self.listen_on(options.port)

    def listen_on(self, port: int) -> None:
        """Know the port, which belongs to the names it answers to."""
        names = self._options.names
        self._hosts = frozenset(name.lower() for name in names) | {f"{name.lower()}:{port}" for name in names}
        self._origins = frozenset(origin.lower() for origin in self._options.origins)

    def answer(self, request: Request, now: float) -> Answer:
        """The response to a request."""
        try:
            answer = self._decide(request, now)
        except Refused as refusal:
            return self.refuse(refusal)
        self.answered += 1
        return answer

    def refuse(self, refusal: Refused) -> Answer:
        """The response to a request that was refused, counted by its status."""
        self.refused[refusal.status] = self.refused.get(refusal.status, 0) + 1
        return refusal.answer()

    def _decide(self, request: Request, now: float) -> Answer:
        known = self._has_token(request)
        if not known and not self._requests.take(now):
            raise Refused(429, "too many requests")
        self._check_where_from(request)
        segments = request.path.split("/")[1:]
        if request.path in _READS:
            self._check_method(request, "GET")
            if self._options.protect_reads:
                self._check_token(request, known, now)
            return self._read(request.path)
        if self._token is None or self._routes.control is None or segments[0] not in _CONTROLS:
            raise Refused(404, "no such page")
        self._check_method(request, "POST")
        self._check_token(request, known, now)
        return self._act(self._command(segments, request), self._routes.control)

    def _check_where_from(self, request: Request) -> None:
        headers = request.headers
        if headers.get("host", "").lower() not in self._hosts:
            raise Refused(421, "another host")
        if "origin" in headers and headers["origin"].lower() not in self._origins:
            raise Refused(403, "another origin")
        if headers.get("sec-fetch-site", "none").lower() not in ("none", "same-origin") and "origin" not in headers:
            raise Refused(403, "another site")

    def _check_method(self, request: Request, method: str) -> None:
        if request.method != method:
            raise Refused(405, "another method", allow=method)

    def _has_token(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Digests have one length: the comparison tells neither where two tokens differ nor how long ours is.
        same = hmac.compare_digest(_digest(given.strip()), self._token if self._token is not None else _digest(""))
        return same and self._token is not None and scheme.lower() == "bearer"

    def _check_token(self, request: Request, known: bool, now: float) -> None:
        if known:
            return
        if not self._bad_tokens.take(now):
            raise Refused(429, "too many wrong tokens")
        raise Refused(401, "no valid token")

    def _read(self, path: str) -> Answer:
        routes = self._routes
        try:
            if path == "/metrics":
                return Answer(200, routes.metrics(), METRICS_TYPE)
            if path == "/status":
                return Answer(200, msgspec.json.encode(make_plain(routes.status(), self._secrets, most=STATUS_MOST)))
            why = routes.healthy() if path == "/healthz" else routes.ready()
            return Answer(
                503 if why else 200, msgspec.json.encode({"ok": not why, "why": make_plain(why, self._secrets)})
            )
        except Exception as fault:  # whoever answers behind a route must not take the server down
            raise Refused(500, f"the page failed: {type(fault).__name__}") from fault

    def _command(self, segments: list[str], request: Request) -> Command:
        kind = request.headers.get("content-type", JSON_TYPE).partition(";")[0].strip().lower()
        if request.body and kind != JSON_TYPE:
            raise Refused(415, "a type other than JSON")
        fields = _fields(request.body)
        if segments[0] == "kill":
            if len(segments) != 2 or segments[1] not in LEVELS or "level" in fields:
                raise Refused(404, f"no such level: {', '.join(LEVELS)}")
            return _typed({**fields, "level": segments[1]}, Kill)
        if len(segments) != 1:
            raise Refused(404, "no such page")
        if segments[0] == "tighten":
            return _typed(fields, Tighten)
        return _typed(fields, Approve)

    def _act(self, command: Command, control: Callable[[Command], Mapping[str, Any]]) -> Answer:
        try:
            return Answer(200, msgspec.json.encode({"ok": True, **control(command)}))
        except EvenkeelError as refusal:
            raise Refused(409, str(refusal)[:500]) from refusal
        except Exception as fault:
            raise Refused(500, f"the command failed: {type(fault).__name__}") from fault


_READS = frozenset({"/healthz", "/readyz", "/metrics", "/status"})
_CONTROLS = frozenset({"kill", "tighten", "approve"})


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _fields(body: bytes) -> dict[str, Any]:
    """The object of a JSON body, empty for an empty body; a name twice, NaN and infinity are refused."""
    if not body:
        return {}
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_not_a_number)
    except (ValueError, RecursionError):
        raise Refused(400, "a body that is no JSON object") from None
    if not isinstance(found, dict):
        raise Refused(400, "a body that is no JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)


def _not_a_number(text: str) -> NoReturn:
    raise ValueError(text)


def _typed(fields: dict[str, Any], kind: type[C]) -> C:
    try:
        made = msgspec.convert(fields, kind, strict=True)
    except (msgspec.ValidationError, OverflowError):
        raise Refused(400, f"expected {', '.join(kind.__struct_fields__)}") from None
    for value in msgspec.structs.asdict(made).values():
        if isinstance(value, str) and not (len(value) <= 200 and value.isprintable()):
            raise Refused(400, "a text too long or not printable")
        if isinstance(value, float) and not abs(value) < 1e300:
            raise Refused(400, "a number out of range")
    return made


# The server


class _Connection(asyncio.Protocol):
    """One client, one request, one answer, one deadline."""

    def __init__(self, server: HealthServer) -> None:
        self._server = server
        self._data = bytearray()
        self._request: Request | None = None
        self._needed = 0
        self._done = False
        self._deadline: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.admit(self)
        options = self._server.options
        self._deadline = asyncio.get_running_loop().call_later(options.read_seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._done = True
        self._server.dismiss(self)
        if self._deadline is not None:
            self._deadline.cancel()

    def data_received(self, data: bytes) -> None:
        if self._done:
            return  # what comes after an answer is nobody's
        self._data += data
        try:
            if self._request is None:
                self._request = self._head()
            if self._request is not None:
                self._body(self._request)
        except Refused as refusal:
            self._send(self._server.doorkeeper.refuse(refusal))

    def eof_received(self) -> bool:
        if not self._done:
            self._send(self._server.doorkeeper.refuse(Refused(400, "a request cut short")))
        return True

    def _head(self) -> Request | None:
        options = self._server.options
        end = self._data.find(b"\r\n\r\n")
        if end > options.head_most or (end < 0 and len(self._data) > options.head_most):
            raise Refused(431, "a head too large")
        if end < 0:
            if b"\n\n" in self._data:
                raise Refused(400, "a bare line break or NUL in the head")
            return None
        request = parse_head(bytes(self._data[:end]), options)
        self._needed = body_length(request, options)
        del self._data[: end + 4]
        return request

    def _body(self, request: Request) -> None:
        if len(self._data) > self._needed:
            raise Refused(400, "more than one request")
        if len(self._data) == self._needed:
            whole = request._replace(body=bytes(self._data))
            self._send(self._server.doorkeeper.answer(whole, asyncio.get_running_loop().time()))

    def _send(self, answer: Answer) -> None:
        self._done = True
        assert self.transport is not None
        if self._deadline is not None:
            self._deadline.cancel()
        self._data.clear()
        self.transport.write(response(answer))
        self.transport.close()  # after what is written has gone, which a client that does not read can put off
        self._deadline = asyncio.get_running_loop().call_later(self._server.options.write_seconds, self.cut)

    def _too_slow(self) -> None:
        self._send(self._server.doorkeeper.refuse(Refused(408, "too slow")))

    def cut(self) -> None:
        """End it now, whatever is unsent."""
        if self.transport is not None:
            self.transport.abort()


def response(answer: Answer) -> bytes:
    """The bytes of a response; the connection ends with it."""
    head = [
        f"HTTP/1.1 {answer.status} {_PHRASES[answer.status]}",
        f"Content-Type: {answer.kind}",
        f"Content-Length: {len(answer.body)}",
        "Connection: close",
        "Cache-Control: no-store",
        "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options: nosniff",
    ]
    if answer.allow:
        head.append(f"Allow: {answer.allow}")
    if answer.status == 401:
        head.append("WWW-Authenticate: Bearer")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + answer.body


class HealthServer:
    """Serves the routes on 127.0.0.1 while it is entered. `port` is the one it got, which differs when 0 was asked for."""

    def __init__(self, routes: Routes, options: HealthOptions | None = None, *, secrets: Secrets | None = None) -> None:
        self.options = options if options is not None else HealthOptions()
        self.doorkeeper = Doorkeeper(routes, self.options, secrets=secrets)
        self.port = self.options.port
        self._open: dict[_Connection, None] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self.connection, LOOPBACK, self.options.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.doorkeeper.listen_on(self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._open):
            connection.cut()

    async def run(self) -> NoReturn:
        """Serve for ever: the work of a supervised task."""
        async with self:
            await asyncio.Event().wait()
        raise AssertionError("a wait for nothing does not end")

    def connection(self) -> _Connection:
        """What talks to the next client."""
        return _Connection(self)

    def admit(self, connection: _Connection) -> None:
        """Count a client in; past the cap the one that has been here longest is cut off."""
        self._open[connection] = None
        if len(self._open) > self.options.connections_most:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.cut()

    def dismiss(self, connection: _Connection) -> None:
        """Count a client out."""
        self._open.pop(connection, None)

    @property
    def connections(self) -> int:
        """Clients connected now."""
        return len(self._open)
