"""The health server tells what it is asked, obeys only who may command, and refuses every abuse before anything hears of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.app.health import (
    LEVELS,
    Answer,
    Approve,
    Command,
    Doorkeeper,
    HealthOptions,
    HealthServer,
    Kill,
    Request,
    Routes,
    Tighten,
    response,
    token_bytes,
)
from bot.app.logs import Secrets
from bot.core.errors import ConfigError
from bot.testing.virtual_time import World, run

TOKEN = "5f" * 32
PORT = 8787
HOST = f"Host: 127.0.0.1:{PORT}"
AUTH = f"Authorization: Bearer {TOKEN}"


class House:
    """What stands behind the routes, and what it heard."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.asked = 0
        self.why: dict[str, str] = {}

    def routes(self) -> Routes:
        return Routes(
            healthy=lambda: self._answer(self.why),
            ready=lambda: self._answer({"quotes": "CME:ES was never seen"}),
            metrics=lambda: b"evenkeel_up 1\n" if self._answer({}) == {} else b"",
            status=lambda: self._answer({"state": "READY", "api_token": "x", "note": "s3cr3t-value"}),
            control=self._control,
        )

    def _answer(self, what: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        return what

    def _control(self, command: Command) -> Mapping[str, Any]:
        if isinstance(command, Tighten) and command.limit == "unknown":
            raise ConfigError("limit 'unknown': expected one of max_order")
        if isinstance(command, Tighten) and command.limit == "broken":
            raise ZeroDivisionError
        self.commands.append(command)
        return {"did": type(command).__name__}


class Wire(asyncio.Transport):
    """A client's end of a connection, in memory. `reads` False: it never takes what is sent to it."""

    def __init__(self, *, reads: bool = True) -> None:
        super().__init__()
        self.got = bytearray()
        self.closed = False
        self.aborted = False
        self.protocol: Any = None
        self._reads = reads

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.got += data

    def close(self) -> None:
        if self._reads:
            self._lose()

    def abort(self) -> None:
        self.aborted = True
        self._lose()

    def is_closing(self) -> bool:
        return self.closed

    def _lose(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


def connect(server: HealthServer, *, reads: bool = True) -> Wire:
    wire = Wire(reads=reads)
    wire.protocol = server.connection()
    wire.protocol.connection_made(wire)
    return wire


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def reply_of(raw: bytes) -> Reply:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    return Reply(int(first.split(" ")[1]), dict(line.lower().split(": ", 1) for line in rest), body)


def raw(line: str, *headers: str, body: bytes | str = b"") -> bytes:
    data = body.encode() if isinstance(body, str) else body
    return "\r\n".join([line, *headers]).encode("latin-1") + b"\r\n\r\n" + data


def post(path: str, body: str = "", *headers: str, auth: str = AUTH) -> bytes:
    more = [auth] if auth else []
    return raw(f"POST {path} HTTP/1.1", HOST, *more, f"Content-Length: {len(body.encode())}", *headers, body=body)


def ask(data: bytes, options: HealthOptions | None = None, house: House | None = None) -> Reply:
    """What the server answers to these bytes, at once."""

    async def main(world: World) -> bytes:
        routes = (house if house is not None else House()).routes()
        server = HealthServer(routes, options or HealthOptions(token=TOKEN), secrets=Secrets(["s3cr3t-value"]))
        wire = connect(server)
        wire.protocol.data_received(data)
        assert wire.closed
        await asyncio.sleep(0)
        assert server.connections == 0
        return bytes(wire.got)

    return reply_of(run(main))


# What it is for


def test_health_and_readiness_say_why_not() -> None:
    """A page answers 200 when all is well and 503 with the reasons when it is not."""
    house = House()
    well = ask(raw("GET /healthz HTTP/1.1", HOST), house=house)
    assert (well.status, well.json) == (200, {"ok": True, "why": {}})
    house.why = {"journal": "thread is dead"}
    ill = ask(raw("GET /healthz HTTP/1.1", HOST), house=house)
    assert (ill.status, ill.json) == (503, {"ok": False, "why": {"journal": "thread is dead"}})
    assert ask(raw("GET /readyz HTTP/1.1", HOST)).status == 503


def test_metrics_are_text_and_status_tells_no_secret() -> None:
    """Metrics come in Prometheus' own type; secrets are taken out of the status by name and by value."""
    metrics = ask(raw("GET /metrics HTTP/1.1", HOST))
    assert (metrics.status, metrics.body) == (200, b"evenkeel_up 1\n")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    status = ask(raw("GET /status HTTP/1.0", "Host: localhost"))
    assert status.json == {"state": "READY", "api_token": "[redacted]", "note": "[redacted]"}


def test_no_answer_may_be_kept_framed_or_guessed_at() -> None:
    """Every answer, refusals too, forbids caching, framing and guessing of types, and ends the connection."""
    for data in (raw("GET /healthz HTTP/1.1", HOST), raw("GET /nothing HTTP/1.1", HOST), raw("BAD")):
        headers = ask(data).headers
        assert headers["cache-control"] == "no-store"
        assert headers["connection"] == "close"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert not any(name.startswith("access-control") for name in headers)


@pytest.mark.parametrize("level", LEVELS)
def test_each_rung_of_the_kill_ladder_can_be_called(level: str) -> None:
    """A person with the token reaches every rung, with a reason or without."""
    house = House()
    assert ask(post(f"/kill/{level}"), house=house).json == {"ok": True, "did": "Kill"}
    assert ask(post(f"/kill/{level}", '{"reason": "drill"}'), house=house).status == 200
    assert house.commands == [Kill(level), Kill(level, "drill")]


def test_limits_are_tightened_and_orders_approved() -> None:
    """Both commands arrive typed; what is behind them may refuse with its own words, and may break alone."""
    house = House()
    assert ask(post("/tighten", '{"limit": "max_order", "value": 5}'), house=house).status == 200
    assert (
        ask(
            post("/approve", '{"order": "s-1-7", "approve": false}', "Content-Type: application/json; charset=utf-8"),
            house=house,
        ).status
        == 200
    )
    assert house.commands == [Tighten("max_order", 5.0), Approve("s-1-7", False)]
    refused = ask(post("/tighten", '{"limit": "unknown", "value": 5}'))
    assert (refused.status, refused.json["error"]) == (409, "limit 'unknown': expected one of max_order")
    broken = ask(post("/tighten", '{"limit": "broken", "value": 5}'))
    assert (broken.status, broken.json["error"]) == (500, "the command failed: ZeroDivisionError")


def test_a_page_that_breaks_breaks_alone() -> None:
    """A callable that raises makes its own page answer 500, without its words, and the next is answered."""

    def broken() -> dict[str, str]:
        raise RuntimeError("password is hunter2")

    routes = Routes(healthy=broken, ready=dict, metrics=lambda: b"", status=lambda: {"x": object()})
    door = Doorkeeper(routes, HealthOptions())
    answer = door.answer(Request("GET", "/healthz", {"host": "localhost"}), 0.0)
    assert (answer.status, b"hunter2" in answer.body) == (500, False)
    assert door.answer(Request("GET", "/readyz", {"host": "localhost"}), 0.0).status == 200


def test_a_request_may_arrive_in_any_pieces() -> None:
    """Byte by byte or at once, the answer is the same."""

    async def main(world: World) -> bytes:
        house = House()
        server = HealthServer(house.routes(), HealthOptions(token=TOKEN))
        wire = connect(server)
        for byte in post("/kill/flatten", '{"reason": "drill"}'):
            assert not wire.closed
            wire.protocol.data_received(bytes([byte]))
            await asyncio.sleep(0.001)
        assert house.commands == [Kill("flatten", "drill")]
        return bytes(wire.got)

    assert reply_of(run(main)).status == 200


# Abuse

EVIL = "http://evil.example"
NONE = "Content-Length: 0"

ABUSES: dict[str, tuple[bytes, int]] = {
    # Who may command
    "no token": (post("/kill/flatten", auth=""), 401),
    "wrong token": (post("/kill/flatten", auth=f"Authorization: Bearer {'5e' * 32}"), 401),
    "token cut short": (post("/kill/flatten", auth=f"Authorization: Bearer {TOKEN[:-1]}"), 401),
    "token too long": (post("/kill/flatten", auth=f"Authorization: Bearer {TOKEN}5f"), 401),
    "empty token": (post("/kill/flatten", auth="Authorization: Bearer "), 401),
    "basic instead of bearer": (post("/kill/flatten", auth=f"Authorization: Basic {TOKEN}"), 401),
    "token as login": (post("/kill/flatten", auth=f"Authorization: Basic {base64.b64encode(TOKEN.encode()).decode()}"), 401),
    "token in a cookie": (post("/kill/flatten", "", f"Cookie: token={TOKEN}", auth=""), 401),
    "token in the query": (post(f"/kill/flatten?token={TOKEN}", auth=""), 400),
    "two tokens": (post("/kill/flatten", "", AUTH), 400),
    # Browsers on this machine
    "rebound name": (raw("GET /status HTTP/1.1", f"Host: evil.example:{PORT}"), 421),
    "name that begins like ours": (raw("GET /status HTTP/1.1", f"Host: localhost.evil.example:{PORT}"), 421),
    "another port": (raw("GET /status HTTP/1.1", "Host: 127.0.0.1:80"), 421),
    "no host": (raw("GET /status HTTP/1.1"), 421),
    "two hosts": (raw("GET /status HTTP/1.1", HOST, "Host: evil.example"), 400),
    "host in the target": (raw(f"GET http://127.0.0.1:{PORT}/status HTTP/1.1", HOST), 400),
    "foreign origin on a read": (raw("GET /status HTTP/1.1", HOST, f"Origin: {EVIL}"), 403),
    "foreign origin with the token": (post("/kill/flatten", "", f"Origin: {EVIL}"), 403),
    "null origin": (post("/kill/flatten", "", "Origin: null"), 403),
    "own page as origin": (post("/kill/flatten", "", f"Origin: http://127.0.0.1:{PORT}"), 403),
    "cross-site fetch": (raw("GET /metrics HTTP/1.1", HOST, "Sec-Fetch-Site: cross-site"), 403),
    "preflight": (raw("OPTIONS /kill/flatten HTTP/1.1", HOST, f"Origin: {EVIL}", "Access-Control-Request-Method: POST"), 403),
    "form post": (post("/kill/flatten", "reason=x", "Content-Type: application/x-www-form-urlencoded"), 415),
    "text post": (post("/kill/flatten", "{}", "Content-Type: text/plain"), 415),
    # Methods and paths
    "kill by GET": (raw("GET /kill/flatten HTTP/1.1", HOST, AUTH), 405),
    "kill by HEAD": (raw("HEAD /kill/flatten HTTP/1.1", HOST, AUTH), 405),
    "post to a page": (post("/healthz"), 405),
    "delete": (raw("DELETE /status HTTP/1.1", HOST), 405),
    "trace": (raw("TRACE /status HTTP/1.1", HOST), 405),
    "connect": (raw("CONNECT evil.example:443 HTTP/1.1", HOST), 400),
    "method in small letters": (raw("get /status HTTP/1.1", HOST), 400),
    "method override": (raw("GET /kill/flatten HTTP/1.1", HOST, AUTH, "X-HTTP-Method-Override: POST"), 405),
    "up the tree": (raw("GET /../../etc/passwd HTTP/1.1", HOST), 400),
    "up the tree, escaped": (raw("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1", HOST), 400),
    "up and back": (raw("GET /kill/../status HTTP/1.1", HOST), 400),
    "two slashes": (raw("GET //status HTTP/1.1", HOST), 400),
    "slash at the end": (raw("GET /status/ HTTP/1.1", HOST), 404),
    "star": (raw("OPTIONS * HTTP/1.1", HOST), 400),
    "unknown page": (raw("GET /metrics.php HTTP/1.1", HOST), 404),
    "unknown level": (post("/kill/everything"), 404),
    "level of another case": (post("/kill/Flatten"), 404),
    "no level": (post("/kill"), 404),
    "level too many": (post("/kill/alert/flatten"), 404),
    "level in the body": (post("/kill/alert", '{"level": "flatten"}'), 404),
    # Sizes
    "long target": (raw(f"GET /{'a' * 300} HTTP/1.1", HOST), 414),
    "large head": (raw("GET /status HTTP/1.1", HOST, *(f"X-{n}: {'a' * 900}" for n in range(10))), 431),
    "large head without end": (b"GET /status HTTP/1.1\r\nX: " + b"a" * 20_000, 431),
    "many headers": (raw("GET /status HTTP/1.1", HOST, *(f"X-{n}: 1" for n in range(60))), 431),
    "large body announced": (raw("POST /tighten HTTP/1.1", HOST, AUTH, "Content-Length: 1000000"), 413),
    "length beyond numbers": (raw("POST /tighten HTTP/1.1", HOST, AUTH, "Content-Length: 99999999999999999999"), 400),
    "negative length": (raw("POST /tighten HTTP/1.1", HOST, AUTH, "Content-Length: -1"), 400),
    "length with a sign": (raw("POST /kill/alert HTTP/1.1", HOST, AUTH, "Content-Length: +0"), 400),
    "no length": (raw("POST /kill/flatten HTTP/1.1", HOST, AUTH), 411),
    "body of a read": (raw("GET /status HTTP/1.1", HOST, "Content-Length: 2", body="{}"), 400),
    # Smuggling and injection
    "chunked": (raw("POST /kill/flatten HTTP/1.1", HOST, AUTH, "Transfer-Encoding: chunked", body="0\r\n\r\n"), 501),
    "chunked and a length": (post("/kill/flatten", "", "Transfer-Encoding: chunked"), 501),
    "two lengths": (post("/kill/flatten", "", "Content-Length: 5"), 400),
    "second request behind": (raw("GET /status HTTP/1.1", HOST) + post("/kill/flatten"), 400),
    "second request as a body": (raw("POST /kill/alert HTTP/1.1", HOST, AUTH, NONE, body=post("/kill/flatten")), 400),
    "folded header": (raw("GET /status HTTP/1.1", HOST, "X: a", " b"), 400),
    "blank before the colon": (raw("GET /status HTTP/1.1", HOST, "X : a"), 400),
    "bare line feed": (b"GET /status HTTP/1.1\nHost: 127.0.0.1:8787\n\n", 400),
    "line feed in a value": (raw("GET /status HTTP/1.1", HOST, "X: a\nAuthorization: y"), 400),
    "carriage return in a value": (raw("GET /status HTTP/1.1", HOST, "X: a\rb"), 400),
    "NUL in a value": (raw("GET /status HTTP/1.1", HOST, "X: a\0b"), 400),
    "NUL in the target": (raw("GET /sta\0tus HTTP/1.1", HOST), 400),
    "high bytes in a value": (raw("GET /status HTTP/1.1", HOST, "X: \xff\xfe"), 400),
    "header without a name": (raw("GET /status HTTP/1.1", HOST, ": a"), 400),
    "escape codes in a name": (raw("GET /status HTTP/1.1", HOST, "X\x1b[2J: a"), 400),
    "expectation": (post("/kill/flatten", "", "Expect: 100-continue"), 417),
    "upgrade": (raw("GET /status HTTP/1.1", HOST, "Upgrade: h2c", "Connection: Upgrade"), 501),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /status\r\n\r\n", 400),
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "blank line first": (b"\r\n\r\n", 400),
    # Bodies
    "no JSON": (post("/tighten", "limit=5"), 400),
    "list instead of an object": (post("/tighten", "[1, 2]"), 400),
    "deep JSON": (post("/tighten", "[" * 4000), 400),
    "field too many": (post("/tighten", '{"limit": "x", "value": 1, "widen": true}'), 400),
    "field missing": (post("/tighten", '{"limit": "x"}'), 400),
    "field twice": (post("/tighten", '{"limit": "x", "value": 1, "value": 1000}'), 400),
    "number as text": (post("/tighten", '{"limit": "x", "value": "5"}'), 400),
    "not a number": (post("/tighten", '{"limit": "x", "value": NaN}'), 400),
    "infinity": (post("/tighten", '{"limit": "x", "value": Infinity}'), 400),
    "number beyond numbers": (post("/tighten", '{"limit": "x", "value": 1e999}'), 400),
    "digits beyond numbers": (post("/tighten", '{"limit": "x", "value": ' + "9" * 4000 + "}"), 400),
    "bool as number": (post("/tighten", '{"limit": "x", "value": true}'), 400),
    "number as bool": (post("/approve", '{"order": "x", "approve": 1}'), 400),
    "text too long": (post("/kill/alert", json.dumps({"reason": "x" * 201})), 400),
    "escape codes in a text": (post("/kill/alert", json.dumps({"reason": "x\u001b[2J"})), 400),
    "line break in a text": (post("/approve", json.dumps({"order": "x\ny", "approve": True})), 400),
    "broken UTF-8": (raw("POST /tighten HTTP/1.1", HOST, AUTH, "Content-Length: 2", body=b"\xff\xfe"), 400),
}  # fmt: skip


@pytest.mark.parametrize("abuse", ABUSES)
def test_abuse_is_refused_and_nothing_hears_of_it(abuse: str) -> None:
    """Every abuse gets its refusal; no command and no page behind the server is reached, nothing of it is repeated."""
    data, status = ABUSES[abuse]
    house = House()
    reply = ask(data, house=house)
    assert reply.status == status
    assert (house.commands, house.asked) == ([], 0)
    assert set(reply.json) == {"error"}
    assert b"evil" not in reply.body
    assert TOKEN.encode() not in reply.body


def test_the_table_of_abuse_is_long_enough() -> None:
    """There are thirty cases and more."""
    assert len(ABUSES) >= 30


@pytest.mark.parametrize("options", [HealthOptions(), HealthOptions(token=None)], ids=["default", "no token"])
def test_control_is_off_unless_switched_on(options: HealthOptions) -> None:
    """Without a token there are no commands, whatever token is sent, an empty one too."""
    for auth in (AUTH, "", "Authorization: Bearer ", "Authorization: Bearer none"):
        house = House()
        assert ask(post("/kill/flatten", auth=auth), options, house).status == 404
        assert house.commands == []


def test_control_is_off_when_nothing_takes_commands() -> None:
    """A token alone commands nothing where no control stands behind it."""
    routes = Routes(healthy=dict, ready=dict, metrics=lambda: b"", status=dict)
    door = Doorkeeper(routes, HealthOptions(token=TOKEN))
    headers = {"host": "localhost", "authorization": f"Bearer {TOKEN}"}
    assert door.answer(Request("POST", "/kill/alert", headers), 0.0).status == 404


def test_reads_can_be_protected_too() -> None:
    """Where reads need the token they are refused without it."""
    options = HealthOptions(token=TOKEN, protect_reads=True)
    assert ask(raw("GET /status HTTP/1.1", HOST), options).status == 401
    assert ask(raw("GET /status HTTP/1.1", HOST, AUTH), options).status == 200


def test_an_origin_can_be_let_in() -> None:
    """An origin on the list may ask, by its exact name only."""
    options = HealthOptions(token=TOKEN, origins=("http://localhost:9000",))
    assert ask(raw("GET /status HTTP/1.1", HOST, "Origin: http://localhost:9000"), options).status == 200
    assert ask(raw("GET /status HTTP/1.1", HOST, "Origin: http://localhost:90000"), options).status == 403


def door(house: House) -> Doorkeeper:
    return Doorkeeper(house.routes(), HealthOptions(token=TOKEN))


GET = Request("GET", "/healthz", {"host": "localhost"})
KILL = Request("POST", "/kill/flatten", {"host": "localhost", "authorization": f"Bearer {TOKEN}"})
GUESS = KILL._replace(headers={"host": "localhost", "authorization": "Bearer guess"})


def test_a_flood_is_refused_and_keeps_nobody_from_the_kill_switch() -> None:
    """A hundred requests at once and fifty a second are answered; past that a right token still commands at once."""
    house = House()
    keeper = door(house)
    assert [keeper.answer(GET, 5.0).status for _ in range(300)].count(200) == 100
    assert keeper.answer(KILL, 5.0).status == 200
    assert keeper.answer(GET, 5.0).status == 429
    assert [keeper.answer(GET, 6.0).status for _ in range(300)].count(200) == 50
    assert keeper.refused == {429: 451}


def test_an_empty_token_passes_no_flood_where_none_is_configured() -> None:
    """Where there is no token, an empty one is no key to anything, the rate least of all."""
    keeper = Doorkeeper(House().routes(), HealthOptions())
    empty = GET._replace(headers={"host": "localhost", "authorization": "Bearer "})
    assert [keeper.answer(empty, 5.0).status for _ in range(300)].count(200) == 100


def test_tokens_cannot_be_guessed_in_numbers() -> None:
    """Ten wrong tokens at once and one a second are looked at; meanwhile the right one is taken, and guessing stays refused."""
    house = House()
    keeper = door(house)
    assert [keeper.answer(GUESS, 1.0).status for _ in range(50)] == [401] * 10 + [429] * 40
    assert keeper.answer(KILL, 1.0).status == 200
    assert [keeper.answer(GUESS, 2.0).status for _ in range(3)] == [401, 429, 429]
    assert house.commands == [Kill("flatten")]


def test_a_clock_that_goes_back_opens_no_flood() -> None:
    """Going back in time refills no allowance."""
    keeper = door(House())
    for _ in range(100):
        keeper.answer(GET, 1000.0)
    assert keeper.answer(GET, 10.0).status == 429


# Slow and many clients


def test_a_slow_client_is_cut_off_at_its_deadline() -> None:
    """A head or body sent a byte a second is answered 408 after two seconds in all and forgotten."""

    async def main(world: World) -> None:
        for data in (raw("GET /status HTTP/1.1", HOST), post("/kill/flatten", '{"reason": "slow"}')):
            house = House()
            server = HealthServer(house.routes(), HealthOptions(token=TOKEN))
            wire = connect(server)
            began = world.loop.time()
            for byte in data:
                if wire.closed:
                    break
                wire.protocol.data_received(bytes([byte]))
                await asyncio.sleep(1.0)
            assert reply_of(bytes(wire.got)).status == 408
            assert world.loop.time() - began <= 3.0
            assert (house.commands, house.asked, server.connections) == ([], 0, 0)

    run(main)


def test_a_client_that_says_nothing_or_does_not_read_is_cut_off() -> None:
    """Silence ends after two seconds; an answer that is not read is dropped after five more."""

    async def main(world: World) -> None:
        server = HealthServer(House().routes(), HealthOptions())
        silent = connect(server)
        await asyncio.sleep(2.001)
        assert silent.closed
        deaf = connect(server, reads=False)
        deaf.protocol.data_received(raw("GET /status HTTP/1.1", HOST))
        await asyncio.sleep(4.9)
        assert not deaf.aborted
        deaf.protocol.data_received(b"GET /status HTTP/1.1\r\n")
        await asyncio.sleep(0.2)
        assert deaf.aborted
        assert bytes(deaf.got).count(b"HTTP/1.1 200") == 1
        assert server.connections == 0

    run(main)


def test_a_request_cut_short_is_refused() -> None:
    """A client that stops in the middle and closes its side is answered 400."""

    async def main(world: World) -> bytes:
        server = HealthServer(House().routes(), HealthOptions())
        wire = connect(server)
        wire.protocol.data_received(b"GET /status HTTP/1.1\r\nHo")
        wire.protocol.eof_received()
        return bytes(wire.got)

    assert reply_of(run(main)).status == 400


def test_idle_connections_keep_nobody_out() -> None:
    """A thousand silent connections take thirty-two places; the newest is always served."""

    async def main(world: World) -> None:
        house = House()
        server = HealthServer(house.routes(), HealthOptions(token=TOKEN))
        wires = [connect(server) for _ in range(1000)]
        assert server.connections == 32
        wires[-1].protocol.data_received(post("/kill/cancel_all"))
        assert house.commands == [Kill("cancel_all")]
        assert sum(wire.aborted for wire in wires) == 968
        await asyncio.sleep(3)
        assert server.connections == 0

    run(main)


# Any bytes


@settings(max_examples=300)
@given(
    data=st.binary(max_size=400)
    | st.text('GET POST /kil/statuszreadyH:hos\r\n 0123456789.-{}"', max_size=300).map(str.encode)
)
def test_any_bytes_are_answered_or_waited_for(data: bytes) -> None:
    """No bytes raise, and none reach a command."""

    async def main(world: World) -> None:
        house = House()
        server = HealthServer(house.routes(), HealthOptions(token=TOKEN))
        wire = connect(server)
        wire.protocol.data_received(data)
        await asyncio.sleep(10)
        assert wire.closed
        assert reply_of(bytes(wire.got)).status >= 400
        assert house.commands == []

    run(main)


GOOD = post("/tighten", '{"limit": "max_order", "value": 5}', "Content-Type: application/json")


@settings(max_examples=300)
@given(position=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_never_makes_another_command(position: int, byte: int) -> None:
    """A request with one byte changed is refused, waited for, or the same kind of command with that byte in it."""

    async def main(world: World) -> None:
        house = House()
        server = HealthServer(house.routes(), HealthOptions(token=TOKEN))
        wire = connect(server)
        wire.protocol.data_received(GOOD[:position] + bytes([byte]) + GOOD[position + 1 :])
        await asyncio.sleep(10)
        assert wire.closed
        assert all(isinstance(command, Tighten) for command in house.commands)
        assert (reply_of(bytes(wire.got)).status == 200) == (len(house.commands) == 1)

    run(main)


# Options and the real thing


@pytest.mark.parametrize("bits", [TOKEN, TOKEN.upper(), base64.urlsafe_b64encode(b"\xfb" * 32).decode(), "-_" * 22])
def test_a_token_of_256_bits_is_taken(bits: str) -> None:
    """Hex and URL-safe base64 of 32 bytes or more are tokens; what is printed of the options shows none of it."""
    assert len(token_bytes(bits)) >= 32
    assert bits not in repr(HealthOptions(token=bits))


@pytest.mark.parametrize("token", ["", "hunter2", "5f" * 31, "correct horse battery staple", "a" * 42, "é" * 64, " "])
def test_a_weak_token_is_refused(token: str) -> None:
    """A token of fewer bits, or of other signs, ends the start, and the message does not repeat it."""
    with pytest.raises(ConfigError, match="health token: expected") as caught:
        HealthOptions(token=token)
    assert not token.strip() or token not in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [{"port": -1}, {"port": 70_000}, {"connections_most": 0}, {"head_most": 10}, {"rate": 0.0}, {"read_seconds": float("nan")},
     {"protect_reads": True}],
    ids=str,
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    """Sizes, times and rates outside their domain are refused by name."""
    with pytest.raises(ConfigError, match="health"):
        HealthOptions(**bad)


async def fetch(port: int, data: bytes) -> Reply:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    got = await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return reply_of(got)


async def test_over_a_real_socket_on_loopback_only() -> None:
    """On a port of its own it listens on 127.0.0.1 alone, serves, obeys, and frees the port when it is left."""
    house = House()
    token = secrets.token_urlsafe(32)
    server = HealthServer(house.routes(), HealthOptions(port=0, token=token))
    async with server:
        assert server._server is not None
        assert [s.getsockname()[0] for s in server._server.sockets] == ["127.0.0.1"]
        host = f"Host: localhost:{server.port}"
        assert (await fetch(server.port, raw("GET /healthz HTTP/1.1", host))).status == 200
        auth = f"Authorization: Bearer {token}"
        killed = await fetch(server.port, raw("POST /kill/flatten HTTP/1.1", host, auth, "Content-Length: 0"))
        assert killed.json == {"ok": True, "did": "Kill"}
        assert (await fetch(server.port, raw("GET /healthz HTTP/1.1", HOST.replace("8787", "1")))).status == 421
    assert house.commands == [Kill("flatten")]
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_the_server_is_the_work_of_a_supervised_task() -> None:
    """`run` serves until it is cancelled, and a taken port is a fault that is told."""
    first = HealthServer(House().routes(), HealthOptions(port=0))
    task = asyncio.create_task(first.run())
    while first._server is None:
        await asyncio.sleep(0)
    second = HealthServer(House().routes(), HealthOptions(port=first.port))
    with pytest.raises(OSError, match="address already in use"):
        await second.run()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_answer_of_every_status_has_its_phrase() -> None:
    """No refusal can fail for want of words."""
    for status in {status for _, status in ABUSES.values()} | {408, 429, 409, 500, 503}:
        assert response(Answer(status, b"{}")).startswith(f"HTTP/1.1 {status} ".encode())
