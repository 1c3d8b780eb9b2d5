"""Log lines tell no secret, forge nothing, and hold up nobody: not with a blocked reader, not with a full disk."""

from __future__ import annotations

import asyncio
import base64
import errno
import fcntl
import json
import logging
import os
import re
import resource
import threading
import urllib.parse
import warnings
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from bot.app.logs import (
    LINE_MOST,
    REDACTED,
    TEXT_MOST,
    LineWriter,
    Logs,
    Secrets,
    Throttle,
    escape_controls,
    is_secret_name,
    make_plain,
    speaking_of,
    utc_stamp,
)
from bot.core.errors import ConfigError

CANARY = "c4n4ry/+ s3cr3t\u00e9'"
START = 1_767_323_045_678_901_234  # 2026-01-02T03:04:05.678901Z


class Paper:
    """A pipe whose reading end is read only when asked."""

    def __init__(self) -> None:
        self.reader, self.fd = os.pipe()
        self._parts: list[bytes] = []

    def text(self, until: threading.Thread | None = None) -> str:
        """Everything written once the writing end is closed."""
        os.close(self.fd)
        while part := os.read(self.reader, 1 << 20):
            self._parts.append(part)
        os.close(self.reader)
        return b"".join(self._parts).decode()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def paper() -> Iterator[Paper]:
    """A pipe with room for what a small test says."""
    yield Paper()


def logs_on(paper: Paper, *, style: Any = "json", level: str = "debug", secrets: Secrets | None = None) -> Logs:
    return Logs(style=style, level=level, fd=paper.fd, secrets=secrets, now=lambda: START, mono=lambda: 0, cache=False)


def test_a_line_is_one_json_object_with_a_utc_stamp(paper: Paper) -> None:
    """Stamp, level and event come first, then what was said; numbers stay numbers, what is not finite is text."""
    with logs_on(paper):
        structlog.get_logger().info(
            "order accepted", coid="s-1-7", price=Decimal("1.50"), qty=3, iv=float("nan"), ok=True
        )
    text = paper.text()
    assert text == (
        '{"ts":"2026-01-02T03:04:05.678901Z","level":"info","event":"order accepted","coid":"s-1-7",'
        '"price":"1.50","qty":3,"iv":"nan","ok":true}\n'
    )


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (951_782_400_000_001_999, "2000-02-29T00:00:00.000001Z"),
    ],
)
def test_stamps_are_utc_to_the_microsecond(ns: int, text: str) -> None:
    """An instant is written in UTC, cut to the microsecond, before 1970 too."""
    assert utc_stamp(ns) == text


def test_context_goes_with_every_line_of_a_task(paper: Paper) -> None:
    """Book, underlying, order and epoch are named by each line inside, in tasks started there too, and by none after."""

    async def child() -> None:
        structlog.get_logger().info("inside")

    async def main() -> None:
        with speaking_of(book="main", underlying="CME:ES", epoch=3):
            with speaking_of(coid="s-3-1"):
                await asyncio.create_task(child())
            logging.getLogger("lib").warning("from a library")
        structlog.get_logger().info("outside")

    with logs_on(paper):
        asyncio.run(main())
    inside, library, outside = (line for line in paper.lines() if line.get("logger") != "asyncio")
    assert {name: inside[name] for name in ("book", "underlying", "epoch", "coid")} == {
        "book": "main",
        "underlying": "CME:ES",
        "epoch": 3,
        "coid": "s-3-1",
    }
    assert (library["logger"], library["book"], "coid" in library) == ("lib", "main", False)
    assert "book" not in outside


def test_what_libraries_say_goes_the_same_way(paper: Paper) -> None:
    """Records of `logging` and warnings become lines, with their logger's name; a broken format string loses no line."""
    before = logging.getLogger().handlers[:]
    with logs_on(paper):
        logging.getLogger("aiomqtt").info("connected to %s", "broker")
        logging.getLogger("aiomqtt").info("%d words", "three")
        logging.getLogger("aiomqtt").log(35, "a level of its own")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert logging.getLogger().handlers == before
    connected, broken, own, warned = paper.lines()
    assert (connected["event"], connected["logger"], connected["level"]) == ("connected to broker", "aiomqtt", "info")
    assert "%d words" in broken["event"]
    assert "three" in broken["event"]
    assert own["level"] == "warning"
    assert (warned["logger"], warned["level"]) == ("py.warnings", "warning")


def test_a_line_below_the_level_is_not_made(paper: Paper) -> None:
    """At level warning, info lines of ours and of libraries cost nothing and are not written."""
    with logs_on(paper, level="warning"):
        structlog.get_logger().info("no")
        logging.getLogger("lib").info("no")
        structlog.get_logger().error("yes")
    assert [line["event"] for line in paper.lines()] == ["yes"]


def test_an_unknown_level_or_style_is_refused() -> None:
    """Words that are not in the list are refused with the list."""
    with pytest.raises(ConfigError, match="log level: expected one of debug, info"):
        Logs(style="json", level="loud")
    with pytest.raises(ConfigError, match="log style"):
        Logs(style="xml")  # type: ignore[arg-type]  # the point of the test


# Secrets


@pytest.mark.parametrize(
    "name",
    ["password", "PASSWORD", "db_password", "passwd", "mqttPassword", "token", "access_token", "authToken", "refreshtokens",
     "secret", "client-secret", "key", "api_key", "apiKey", "APIKEY", "x-api-key", "Authorization", "auth", "cookie",
     "Set-Cookie", "private_key", "hmac", "credentials", "passphrase", "otp"],
)  # fmt: skip
def test_a_name_that_holds_a_secret_is_known(name: str) -> None:
    """Names of secrets are known in every spelling."""
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["monkey", "keyboard", "author", "event", "coid", "strike", "turkey", "book", "ts", "level"]
)
def test_a_harmless_name_is_left_alone(name: str) -> None:
    """Names that only contain such a word are not secrets."""
    assert not is_secret_name(name)


def say_the_canary() -> None:
    """Try every road by which a secret could reach a line."""
    log = structlog.get_logger()
    log.info("by name", password=CANARY, nested={"api_key": [CANARY], "deep": {"token": {"x": CANARY}}})
    log.info("by value", note=f"refused {CANARY}!", items=[1, (CANARY,), {CANARY}], mapping={CANARY: 1})
    log.info(f"in the event {CANARY}")
    log.info("bytes", raw=CANARY.encode(), b64=base64.b64encode(CANARY.encode()).decode())
    log.info("url", url=f"https://x/?t={urllib.parse.quote(CANARY)}&u={urllib.parse.quote_plus(CANARY)}")
    log.info("repr", shown=repr({"plain": CANARY}), path=Path("/run") / CANARY, hexed=CANARY.encode().hex())
    logging.getLogger("lib").error("Authorization: Bearer %s", CANARY)
    local = CANARY
    try:
        raise ValueError(f"cannot log in with {local}")
    except ValueError:
        log.exception("failed")
        logging.getLogger("lib").exception("failed %s", "too")
    with speaking_of(coid=CANARY):
        log.info("in the context")
    log.info("long", text="x" * (TEXT_MOST - 5) + CANARY + "y" * 9000)
    log.info("at the window's end", text="x" * TEXT_MOST + CANARY)
    log.info("in chains", text=(CANARY + " ") * 2000)


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_planted_canary_is_in_no_line(style: str, paper: Paper) -> None:
    """A registered value comes out nowhere: keys, values, texts, bytes, URLs, tracebacks, context, at any cut."""
    with logs_on(paper, style=style, secrets=Secrets([CANARY])):
        say_the_canary()
    text = paper.text()
    raw = CANARY.encode()
    for form in (
        CANARY,
        repr(CANARY)[1:-1],
        urllib.parse.quote(CANARY),
        base64.b64encode(raw).decode()[:-4],
        repr(raw)[2:-1],
    ):
        assert form not in text
    assert "s3cr3t" not in text
    assert text.count(REDACTED) >= 15


def test_secrets_of_many_lines_are_taken_out_of_tracebacks(paper: Paper) -> None:
    """A private key that an exception quotes is not told line by line."""
    pem = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqh\nAgEAAoIBAQC7VJTU\n-----END PRIVATE KEY-----"
    with logs_on(paper, secrets=Secrets([pem])):
        try:
            raise ValueError(f"bad key {pem}")
        except ValueError:
            structlog.get_logger().exception("tls")
    assert "MIIEvQ" not in paper.text()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("mqtt://hedger:hunter2@broker:8883/x", "mqtt://hedger:[redacted]@broker:8883/x"),
        ("password=hunter2 next", "password=[redacted] next"),
        ('{"api_key": "hunter2", "n": 1}', '{"api_key": "[redacted]", "n": 1}'),
        ("Authorization: Bearer hunter2", "Authorization: Bearer [redacted]"),
        ("Login(user='a', token='hunter2')", "Login(user='a', token='[redacted]')"),
        ("at 12:30 ratio=3 key figures: 7", "at 12:30 ratio=3 key figures: 7"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_text(text: str, kept: str) -> None:
    """Logins in URLs and named values are hidden in running text, though nobody registered them."""
    assert Secrets().hide(text) == kept


@given(
    secret=st.text(min_size=4, max_size=40).filter(lambda s: len(s.strip()) >= 4 and s.strip() not in REDACTED),
    before=st.text(max_size=20),
    after=st.text(max_size=20),
)
def test_a_registered_value_never_survives(secret: str, before: str, after: str) -> None:
    """Whatever stands around it, a registered value is gone from the text and from its `repr`."""
    secrets = Secrets([secret])
    assert secret.strip() not in secrets.hide(before + secret + after).replace(REDACTED, "\x00")
    assert repr(secret.strip())[1:-1] not in secrets.hide(repr(before + secret + after)).replace(REDACTED, "\x00")


def test_a_secret_that_begins_another_does_not_leave_its_end() -> None:
    """Of two values, one the beginning of the other, the longer is taken out whole, whatever their order."""
    for values in (["abcdef", "abcdefghij"], ["abcdefghij", "abcdef"]):
        assert Secrets(values).hide("<abcdefghij> <abcdef>") == f"<{REDACTED}> <{REDACTED}>"


@pytest.mark.parametrize("shift", range(0, 40, 3))
def test_no_part_of_a_secret_is_left_where_a_text_is_cut(shift: int) -> None:
    """A text is cut to its bound without showing the beginning of a value that reaches over the cut."""
    shown = make_plain("." * shift + (CANARY + " ") * 2000, Secrets([CANARY]))
    assert "c4n" not in shown
    assert shown.startswith("." * shift + REDACTED)


def test_locals_are_in_no_traceback(paper: Paper) -> None:
    """A traceback names files, lines and functions, and shows no variable."""
    with logs_on(paper):
        unregistered = "9f8e7d6c5b"

        def fail() -> None:
            inner = unregistered * 2
            raise KeyError(len(inner))

        try:
            fail()
        except KeyError:
            structlog.get_logger().exception("failed")
    (line,) = paper.lines()
    assert line["fault"] == "KeyError"
    assert line["traceback"][-1] == "KeyError: 20"
    assert any("in fail" in part for part in line["traceback"])
    assert "9f8e7d6c5b9f" not in json.dumps(line)


# What a feed may send


@given(st.text())
def test_no_control_character_survives(text: str) -> None:
    """No terminal code, line break, direction mark or surrogate passes, and what is left can be written as UTF-8."""
    escaped = escape_controls(text)
    escaped.encode()
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\u200b-\u200f\ufeff]", escaped)


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_feed_cannot_forge_a_line(style: str, paper: Paper) -> None:
    """Line breaks and terminal codes in values, names, events and exceptions start no line and reach no terminal."""
    evil = 'x\x1b[2J\r\n{"level":"info","event":"kill cleared"}\u2028\u202e\x9b1m'
    with logs_on(paper, style=style):
        log = structlog.get_logger()
        log.info(evil, **{evil: evil})
        logging.getLogger("lib").info("topic %s", evil)
        try:
            raise ValueError(evil)
        except ValueError:
            log.exception("bad message")
    text = paper.text()
    assert not set("\x1b\r\x9b\u2028\u202e") & set(text)
    starts = [line for line in text.split("\n") if line and not line.startswith("    | ")]
    assert len(starts) == 3
    if style == "json":
        assert [json.loads(line)["level"] for line in starts] == ["info", "info", "error"]
    assert not any(line.startswith('{"level":"info","event":"kill') for line in text.split("\n"))


class Hostile:
    """Raises when it is shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


def endless() -> dict[str, Any]:
    """A value that contains itself."""
    value: dict[str, Any] = {}
    value["self"] = value
    return value


@pytest.mark.parametrize(
    "value",
    [Hostile(), endless(), "x" * 10_000_000, list(range(100_000)), {str(n): n for n in range(100_000)}, 10**5000,
     "\ud800", b"\xff" * 10_000, float("inf"), {1: {2: {3: {4: {5: {6: {7: {8: 9}}}}}}}}, object(), -(2**80)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_any_value_makes_one_bounded_line(value: Any, paper: Paper) -> None:
    """Whatever is logged, one JSON line of bounded size comes out and nothing is raised."""
    with logs_on(paper):
        structlog.get_logger().info("seen", value=value, many=[value] * 50)
    text = paper.text()
    assert text.count("\n") == 1
    assert len(text) <= LINE_MOST + 1
    assert json.loads(text)["event"] == "seen"


def test_only_the_beginning_of_a_collection_is_shown() -> None:
    """A hundred items are shown, and how many there were."""
    assert make_plain(list(range(1000)), Secrets())[99:] == [99, "... (1000 items)"]
    shown = make_plain({n: n for n in range(1000)}, Secrets())
    assert (len(shown), shown["99"], shown["..."]) == (101, 99, 1000)
    assert len(make_plain({"positions": {n: [n] for n in range(1000)}}, Secrets(), most=1000)["positions"]) == 1000


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30))  # fmt: skip
def test_plain_values_encode_and_stay_as_they_were(value: Any) -> None:
    """Everything made plain is JSON, and making it plain again changes nothing but escapes."""
    plain = make_plain(value, Secrets())
    json.loads(json.dumps(plain, allow_nan=False).encode())


def test_console_lines_are_for_people(paper: Paper) -> None:
    """In development a line reads from left to right and a traceback stands below it, set in; a pipe gets no colours."""
    with logs_on(paper, style="console"):
        structlog.get_logger().warning("quote refused", reason="crossed", n=3)
    assert paper.text() == "2026-01-02T03:04:05.678901Z warning  quote refused  reason=crossed n=3\n"


# The writer


def test_a_reader_that_does_not_read_stops_nobody() -> None:
    """With the pipe full and its reader asleep every line is taken or dropped at once; later none is torn or uncounted."""
    paper = Paper()
    said = 20_000
    with Logs(style="json", fd=paper.fd, mono=tick(), writer=LineWriter(paper.fd, capacity=1000), cache=False) as logs:

        async def main() -> int:
            beats = 0
            log = structlog.get_logger()
            for number in range(said):  # the pipe holds 64 KiB: most of this has nowhere to go
                log.info("line", number=number)
                if number % 100 == 0:
                    await asyncio.sleep(0)
                    beats += 1
            return beats

        assert asyncio.run(main()) == said // 100
        stats = logs.stats()
        assert stats.dropped > said // 2
        assert stats.waiting <= 1000
        read: list[bytes] = []
        reader = threading.Thread(target=lambda: read.append(drain(paper.reader)))
        reader.start()  # the reader wakes up
    os.close(paper.fd)
    reader.join()
    lines = [json.loads(line) for line in read[0].splitlines()]
    numbers = [line["number"] for line in lines if line["event"] == "line"]
    reported = sum(line["dropped"] for line in lines if line["event"] == "log lines dropped")
    assert numbers == sorted(set(numbers))
    assert reported == logs.stats().dropped
    assert len(numbers) + reported == said
    assert logs.stats().written == len(numbers)
    os.close(paper.reader)


def tick() -> Any:
    """A monotonic clock on which a second passes between any two looks, so that nothing is held back as a flood."""
    seconds = iter(range(10**9))
    return lambda: next(seconds) * 1_000_000_000


def drain(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def test_leaving_does_not_wait_for_a_reader_that_never_reads() -> None:
    """Leaving with a full pipe gives up after its timeout and says so; a reader that wakes up then gets all that was taken."""
    paper = Paper()
    writer = LineWriter(paper.fd, capacity=1000)
    writer.start()
    taken = [writer.put(b"x" * 1000 + b"\n") for _ in range(1000)].count(True)
    assert not writer.close(timeout=0.01)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(drain(paper.reader)))
    reader.start()
    assert writer.close(timeout=60.0)
    os.close(paper.fd)
    reader.join()
    os.close(paper.reader)
    assert read[0].count(b"x\n") == taken


def drain_some(fd: int, least: int) -> bytes:
    got = b""
    while len(got) < least:
        got += os.read(fd, 1 << 16)
    return got


def test_urgent_lines_have_room_of_their_own() -> None:
    """When ordinary lines have filled their share, errors still get in."""
    writer = LineWriter(1, capacity=100)  # never started: nothing is written
    assert [writer.put(b"a\n") for _ in range(100)].count(True) == 90
    assert [writer.put(b"e\n", urgent=True) for _ in range(20)].count(True) == 10
    assert writer.stats() == (0, 20, 0, 0, 100)


def test_waiting_bytes_are_bounded() -> None:
    """Few long lines fill the room as many short ones do."""
    writer = LineWriter(1, capacity=1_000_000, most_bytes=100_000)
    taken = [writer.put(b"x" * 9_999 + b"\n") for _ in range(100)].count(True)
    assert taken == 9
    with pytest.raises(ConfigError, match="log: expected room"):
        LineWriter(1, capacity=1)


def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    """On a device without space every line is lost and counted, and nobody who logs is told."""
    full = os.open("/dev/full", os.O_WRONLY)
    with Logs(style="json", fd=full, mono=tick(), cache=False) as logs:
        for number in range(500):
            structlog.get_logger().error("line", number=number)
    os.close(full)
    assert logs.stats() == (0, 0, 500, 0, 0)


def test_space_that_comes_back_is_used(tmp_path: Path) -> None:
    """After a full disk the next lines are written, each whole on its own line, though one was cut in the middle."""
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (25, hard)
    )  # a write past it fails with EFBIG, after a part of it was done
    try:
        first = LineWriter(fd)
        first.put(b'{"n":1}\n')
        first.start()
        first.close(60.0)
        second = LineWriter(fd)
        second.put(b'{"n":2,"text":"' + b"x" * 100 + b'"}\n')
        second.start()
        while second.stats().failed == 0:  # the thread alone moves this on
            threading.Event().wait(0.001)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    second.put(b'{"n":3}\n')
    assert second.close(60.0)
    os.close(fd)
    lines = path.read_bytes().splitlines()
    assert (lines[0], lines[-1]) == (b'{"n":1}', b'{"n":3}')
    assert (first.stats().written, second.stats().written, second.stats().failed) == (1, 1, 1)


def test_a_reader_that_is_gone_loses_lines_and_nothing_else() -> None:
    """With the reading end closed lines are lost and counted; no signal and no exception comes back."""
    reader, fd = os.pipe()
    os.close(reader)
    with Logs(style="json", fd=fd, mono=tick(), cache=False) as logs:
        structlog.get_logger().info("line")
    with pytest.raises(OSError, match=os.strerror(errno.EPIPE)):
        os.write(fd, b"x")
    os.close(fd)
    assert logs.stats().failed == 1


def test_a_descriptor_that_will_not_wait_is_waited_for() -> None:
    """On a non-blocking pipe the writer waits for room instead of losing lines."""
    paper = Paper()
    fcntl.fcntl(paper.fd, fcntl.F_SETFL, os.O_NONBLOCK)
    writer = LineWriter(paper.fd, capacity=10_000)
    for number in range(500):
        assert writer.put(b"%d " % number + b"x" * 995 + b"\n")
    writer.start()
    got = drain_some(paper.reader, 500 * 996)
    assert writer.close(60.0)
    assert writer.stats().written == 500
    assert got.count(b"\n") >= 499
    os.close(paper.fd)
    os.close(paper.reader)


# Floods


def test_an_event_that_comes_with_every_tick_is_held_back_and_counted() -> None:
    """Fifty lines at once and ten a second: 500 events a second for a minute leave 650 lines that tell of the rest."""
    now = [0]
    throttle = Throttle(mono=lambda: now[0])
    passed: list[dict[str, Any]] = []
    for number in range(30_000):
        now[0] = number * 2_000_000
        try:
            passed.append(dict(throttle(None, "info", {"event": "bad row"})))
        except structlog.DropEvent:
            continue
    assert 640 <= len(passed) <= 651
    assert throttle.suppressed == 30_000 - len(passed)
    told = sum(entry.get("suppressed", 0) for entry in passed)
    assert 0 <= throttle.suppressed - told < 50


def test_one_flood_holds_back_no_other_event() -> None:
    """Another event passes while one is held back; names made up per line fill no memory."""
    throttle = Throttle(mono=lambda: 0, names=100)
    for _ in range(50):
        throttle(None, "info", {"event": "bad row"})
    with pytest.raises(structlog.DropEvent):
        throttle(None, "info", {"event": "bad row"})
    assert throttle(None, "info", {"event": "order"}) == {"event": "order"}
    for number in range(10_000):
        throttle(None, "info", {"event": f"row {number}"})
    assert len(throttle._state) <= 100


def test_a_library_that_logs_each_message_is_one_flood(paper: Paper) -> None:
    """Records of one format text count as one event, whatever values they carry."""
    with logs_on(paper) as logs:
        for number in range(1000):
            logging.getLogger("lib").info("message %d", number)
    assert len(paper.lines()) == 50
    assert logs.stats().suppressed == 950
