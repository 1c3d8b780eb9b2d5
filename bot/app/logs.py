"""A log line is commentary for people and their tools; law: writing one never waits, never fails and never tells a secret.

Lines go through one pipeline of plain functions, ours and those of libraries that use `logging`: context, level, stamp in
UTC, traceback without locals, values made plain and bounded, secrets taken out by name, by value and by shape, control
characters escaped. A thread of its own writes them from a bounded queue: when the reader is slow, gone or its disk is full,
lines are dropped and counted, and the count is the first line that gets through. One event name may not flood the rest.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import logging
import math
import os
import queue
import re
import select
import threading
import time
import traceback
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import PurePath
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import msgspec
import structlog

from bot.core.errors import ConfigError
from bot.domain.units import NS_PER_SECOND, Nanos

Style = Literal["json", "console"]
Entry = MutableMapping[str, Any]
Processor = Callable[[Any, str, Entry], Any]

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
REDACTED = "[redacted]"

TEXT_MOST = 4_096
ITEMS_MOST = 100
DEPTH_MOST = 6
LINE_MOST = 32_768
"""Bounds of one line: what a feed sends may be logged, not poured."""


# Secrets


class Secrets:
    """The values that must never be told. A value shorter than 4 characters is sought by its key's name alone: taken out
    by value it would take half of every line with it."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._forms: set[str] = set()
        self.longest = 0
        self._pattern: re.Pattern[str] | None = None
        self._names: dict[str, tuple[str, bool]] = {}
        for value in values:
            self.add(value)

    def add(self, value: str) -> None:
        """Know a value and what it becomes in a URL, in base64, in hex, in JSON and inside a `repr`."""
        value = value.strip()
        if len(value) < 4:
            return
        raw = value.encode("utf-8", "surrogatepass")
        forms = {
            value,
            raw.hex(),
            urllib.parse.quote(raw),
            urllib.parse.quote(raw, safe=""),
            urllib.parse.quote_plus(raw),
        }
        forms |= {base64.b64encode(raw).decode().rstrip("="), base64.urlsafe_b64encode(raw).decode().rstrip("=")}
        forms |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
        # Which quotes are escaped depends on what else stands in the text; with both kinds in it, the single ones are.
        forms |= {repr(value)[1:-1], repr(value + "'\"")[1:-4], repr(raw)[2:-1], repr(raw + b"'\"")[2:-4]}
        self._forms |= forms
        self._names.clear()
        self.longest = max(map(len, self._forms))
        longest_first = sorted(self._forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(re.escape(form) for form in longest_first))

    def name(self, key: str) -> tuple[str, bool]:
        """A key as it may be shown, and whether it names a secret."""
        known = self._names.get(key)
        if known is None:
            known = (_clean(key, self), is_secret_name(key))
            if len(self._names) < 1000 and len(key) < 100:  # keys made up by a feed must not fill memory
                self._names[key] = known
        return known

    def hide(self, text: str) -> str:
        """The text without the known values, and without what looks like a password, a token or a login in a URL."""
        if self._pattern is not None:
            text = self._pattern.sub(REDACTED, text)
        if "=" in text or ":" in text:
            text = _LOGIN.sub(rf"\1{REDACTED}@", text)
            text = _NAMED.sub(rf"\1\2{REDACTED}", text)
        return text


_SECRET_WORDS = frozenset(
    ("pwd", "key", "auth", "bearer", "cookie", "cookies", "private", "signature", "hmac", "jwt", "otp"),
)
_SECRET_PARTS = ("password", "passwd", "passphrase", "secret", "token", "apikey", "authorization", "credential")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_LOGIN = re.compile(r"(://[^\s/@:]*:)[^\s/@]+@")
_NAMED = re.compile(
    r"(?i)((?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|authorization)[\"']?)(\s*[=:]\s*(?:bearer\s+|basic\s+)?[\"']?)"
    r"(?!\[redacted\])[^\s\"',;&}]+"
)


def is_secret_name(name: str) -> bool:
    """True when a key of this name holds a secret: `api_key`, `authToken`, `mqtt-password`; not `monkey` or `keyboard`."""
    joined = name.lower().replace("_", "").replace("-", "")
    if any(part in joined for part in _SECRET_PARTS):
        return True
    return any(word.lower() in _SECRET_WORDS for word in _WORDS.findall(name))


# Plain, bounded values

_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def escape_controls(text: str) -> str:
    """The text with control, direction, zero-width and surrogate characters written out as `\\xNN` or `\\uNNNN`.

    >>> escape_controls("up\\x1b[2Jand\\nFORGED")
    'up\\\\x1b[2Jand\\\\x0aFORGED'
    """
    return text if text.isprintable() else _CONTROL.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _clean(text: str, secrets: Secrets) -> str:
    return escape_controls(_cut(text, secrets))


def _cut(text: str, secrets: Secrets) -> str:
    """The text without secrets, cut to its bound. Only so much is searched as can be shown: a feed may send a megabyte."""
    size, seen = len(text), TEXT_MOST + secrets.longest
    shown = secrets.hide(text[:seen])
    if size > seen:
        shown = shown[: len(shown) - secrets.longest]  # a secret that was cut in two at the end is no longer recognised
    if size > TEXT_MOST:
        shown = f"{shown[:TEXT_MOST]}... ({size} characters)"
    return shown


def make_plain(value: Any, secrets: Secrets, depth: int = 0, *, most: int = ITEMS_MOST) -> Any:
    """The value as text, numbers, lists and dicts, without secrets, bounded in depth, in `most` items and in length."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _clean(str(value), secrets)
    if isinstance(value, int):
        return int(value) if -(1 << 63) <= value < 1 << 63 else _clean(_shown(value), secrets)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if depth < DEPTH_MOST and isinstance(value, Mapping):
        items = list(value.items())
        plain = {}
        for key, item in items[:most]:
            name, secret = secrets.name(str(key))
            plain[name] = REDACTED if secret else make_plain(item, secrets, depth + 1, most=most)
        return plain if len(items) <= most else {**plain, "...": len(items)}
    if depth < DEPTH_MOST and isinstance(value, list | tuple | set | frozenset):
        several = list(value)
        made = [make_plain(item, secrets, depth + 1, most=most) for item in several[:most]]
        return made if len(several) <= most else [*made, f"... ({len(several)} items)"]
    return _clean(_shown(value), secrets)


def _shown(value: Any) -> str:
    try:
        return str(value) if isinstance(value, Decimal | PurePath | date | BaseException) else repr(value)
    except Exception as fault:  # noqa: BLE001  what cannot be shown must not stop the one who logs it
        return f"<{type(value).__name__} that cannot be shown: {type(fault).__name__}>"


# The thread that writes


class LogStats(NamedTuple):
    """Lines written, dropped for want of room, lost to a fault of the disk or reader, held back as a flood; and waiting."""

    written: int
    dropped: int
    failed: int
    suppressed: int
    waiting: int


class LineWriter:
    """Writes lines to a file descriptor from a thread. Law: `put` never waits and never raises.

    At most `capacity` lines and `most_bytes` bytes wait; a tenth of both is kept free for urgent lines. A write that fails
    loses its lines, counted, and the next is tried as if nothing had been.
    """

    def __init__(self, fd: int, *, capacity: int = 10_000, most_bytes: int = 8 << 20) -> None:
        if capacity < 10 or most_bytes < LINE_MOST:
            raise ConfigError(
                f"log: expected room for 10 lines and {LINE_MOST} bytes, found {capacity} and {most_bytes}"
            )
        self._fd = fd
        self._capacity = capacity
        self._most_bytes = most_bytes
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()  # its put may be interrupted by another put
        self._lock = (
            threading.RLock()
        )  # re-entrant for the same reason: a finalizer or signal handler may log inside it
        self._bytes = 0
        self._lines = 0
        self._dropped = 0
        self._told = 0
        self._written = 0
        self._failed = 0
        self._torn = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def put(self, line: bytes, *, urgent: bool = False) -> bool:
        """Take a line, newline included; False when there was no room and it was dropped."""
        share = 1.0 if urgent else 0.9
        with self._lock:
            if self._lines >= self._capacity * share or self._bytes + len(line) > self._most_bytes * share:
                self._dropped += 1
                return False
            self._lines += 1
            self._bytes += len(line)
        self._queue.put(line)
        return True

    def close(self, timeout: float = 1.0) -> bool:
        """Write what waits, at most for `timeout` seconds; True when all was written. What comes later is not written."""
        self._queue.put(None)
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def stats(self, suppressed: int = 0) -> LogStats:
        """The counts so far."""
        with self._lock:
            return LogStats(self._written, self._dropped, self._failed, suppressed, self._lines)

    def _run(self) -> None:
        going = True
        while going:
            lines, going = self._take()
            with self._lock:
                self._lines -= len(lines)
                self._bytes -= sum(map(len, lines))
                missing = self._dropped - self._told
            report = [_drop_report(missing)] if missing else []
            if not self._write(b"".join(report + lines)):
                with self._lock:
                    self._failed += len(lines)
                continue
            with self._lock:
                self._written += len(lines)
                self._told += missing

    def _take(self) -> tuple[list[bytes], bool]:
        """Lines to write at once, waiting for the first; False after the last."""
        lines: list[bytes] = []
        size = 0
        item = self._queue.get()
        while item is not None:
            lines.append(item)
            size += len(item)
            if size >= 65_536:
                return lines, True
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return lines, True
        return lines, False

    def _write(self, data: bytes) -> bool:
        """Write it all; False when the reader or disk refused, perhaps in the middle of a line."""
        if self._torn:
            data = b"\n" + data
        view = memoryview(data)
        while view:
            try:
                done = os.write(self._fd, view)
            except BlockingIOError:  # someone made our descriptor non-blocking: a terminal's is shared with its shell
                self._wait_for_room()
                continue
            except OSError as fault:
                self._torn = self._torn or 0 < len(view) < len(data)
                if fault.errno in (errno.EBADF, errno.EPIPE):
                    self._torn = False  # nobody will see where it was cut
                return False
            view = view[done:]
        self._torn = False
        return True

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll(1000)


def _drop_report(count: int) -> bytes:
    return msgspec.json.encode({"level": "warning", "event": "log lines dropped", "dropped": count}) + b"\n"


# The pipeline


class Throttle:
    """Holds back an event name that comes too often: `burst` lines at once, then `rate` a second; the rest are counted and
    the count goes with the next line of that name. Law: no event costs a line a tick for long."""

    def __init__(
        self, *, mono: Callable[[], Nanos], rate: float = 10.0, burst: float = 50.0, names: int = 1_000
    ) -> None:
        self.suppressed = 0
        self._mono = mono
        self._rate = rate
        self._burst = burst
        self._names = names
        self._state: dict[str, list[float]] = {}

    def __call__(self, logger: Any, method: str, entry: Entry) -> Entry:
        """The entry, or `DropEvent`."""
        name = str(entry.pop("_kind", entry.get("event", "")))[:200]
        now = self._mono() / NS_PER_SECOND
        state = self._state.get(name)
        if state is None:
            if len(self._state) >= self._names:
                self._state.pop(
                    next(iter(self._state)), None
                )  # the oldest: names made up per line must not fill memory
            state = self._state[name] = [self._burst, now, 0.0]
        tokens = min(self._burst, state[0] + max(0.0, now - state[1]) * self._rate)
        state[1] = now
        if tokens < 1.0:
            state[0] = tokens
            state[2] += 1
            self.suppressed += 1
            raise structlog.DropEvent
        state[0] = tokens - 1.0
        if state[2]:
            entry["suppressed"] = int(state[2])
            state[2] = 0.0
        return entry


class Logs:
    """The process's logging, for as long as it is entered: structlog and `logging` both go through it.

    `style` "json" for machines, one object a line; "console" for people. Lines go to descriptor `fd`, standard output unless
    told. On leaving, what waits is written for at most a second and both libraries are as they were. `cache` False: loggers
    made once at the top of a module follow the next `Logs` too, at the cost of a lookup a line.
    """

    def __init__(
        self,
        *,
        style: Style,
        level: str = "info",
        fd: int = 1,
        secrets: Secrets | None = None,
        now: Callable[[], Nanos] = time.time_ns,
        mono: Callable[[], Nanos] = time.monotonic_ns,
        writer: LineWriter | None = None,
        cache: bool = True,
    ) -> None:
        if level not in LEVELS:
            raise ConfigError(f"log level: expected one of {', '.join(LEVELS)}, found {level!r}")
        if style not in ("json", "console"):
            raise ConfigError(f"log style: expected json or console, found {style!r}")
        self.secrets = secrets if secrets is not None else Secrets()
        self.writer = writer if writer is not None else LineWriter(fd)
        self._throttle = Throttle(mono=mono)
        self._level = LEVELS[level]
        self._render = self._json if style == "json" else _Console(colours=os.isatty(fd))
        self._now = now
        self._cache = cache
        self._handler: _Route | None = None
        self._before: tuple[list[logging.Handler], int] = ([], 0)

    def __enter__(self) -> Self:
        structlog.configure(
            processors=self._processors(),
            wrapper_class=structlog.make_filtering_bound_logger(self._level),
            logger_factory=lambda *_: _Sink(self.writer),
            cache_logger_on_first_use=self._cache,
        )
        root = logging.getLogger()
        self._before = (root.handlers[:], root.level)
        self._handler = _Route()
        root.handlers[:] = [self._handler]
        root.setLevel(self._level)
        logging.captureWarnings(True)
        self.writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.captureWarnings(False)
        root = logging.getLogger()
        root.handlers[:], level = self._before
        root.setLevel(level)
        structlog.reset_defaults()
        self.writer.close()

    def stats(self) -> LogStats:
        """The counts so far."""
        return self.writer.stats(self._throttle.suppressed)

    def _processors(self) -> list[Any]:
        return [
            structlog.contextvars.merge_contextvars,
            self._throttle,
            structlog.stdlib.add_log_level,
            self._stamp,
            _traceback_as_text,
            self._plain,
            self._render,
        ]

    def _stamp(self, logger: Any, method: str, entry: Entry) -> Entry:
        if "ts" in entry:
            entry["at"] = entry.pop("ts")  # when it happened, by the one who says it; `ts` is when it was said
        entry["ts"] = utc_stamp(self._now())
        return entry

    def _plain(self, logger: Any, method: str, entry: Entry) -> Entry:
        trace = entry.pop("traceback", "")
        try:
            plain: Entry = make_plain(entry, self.secrets)
        except Exception as fault:  # noqa: BLE001  a value that breaks when it is looked at must not stop who logs it
            plain = {"ts": entry["ts"], "level": entry["level"], "event": "line lost", "fault": type(fault).__name__}
        if trace:
            lines = self.secrets.hide(trace).splitlines()  # before it is split: a secret may have several lines
            plain["traceback"] = [escape_controls(line[:TEXT_MOST]) for line in lines[-ITEMS_MOST:]]
        head = {name: plain.pop(name, None) for name in ("ts", "level", "event")}
        return {**head, **plain}

    def _json(self, logger: Any, method: str, entry: Entry) -> tuple[tuple[bytes], dict[str, bool]]:
        line = msgspec.json.encode(entry)
        if len(line) > LINE_MOST:
            short = {name: entry[name] for name in ("ts", "level", "event")}
            line = msgspec.json.encode({**short, "truncated": len(line)})
        return (line + b"\n",), {"urgent": LEVELS.get(method, 40) >= 40}


def utc_stamp(ns: Nanos) -> str:
    """An instant as ISO 8601 in UTC to the microsecond, `2026-01-02T03:04:05.678901Z`."""
    second, rest = divmod(ns, NS_PER_SECOND)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


@contextlib.contextmanager
def speaking_of(
    *, book: str | None = None, underlying: str | None = None, coid: str | None = None, epoch: int | None = None
) -> Iterator[None]:
    """Every line written inside, in this task and those it starts, names these."""
    named = {"book": book, "underlying": underlying, "coid": coid, "epoch": epoch}
    with structlog.contextvars.bound_contextvars(**{name: it for name, it in named.items() if it is not None}):
        yield


def _traceback_as_text(logger: Any, method: str, entry: Entry) -> Entry:
    """Write out `exc_info` line by line, without the locals of any frame."""
    found = entry.pop("exc_info", None)
    if found is True:
        fault = _being_handled()
    elif isinstance(found, tuple):
        fault = found[1]
    else:
        fault = found
    if isinstance(fault, BaseException):
        entry["fault"] = type(fault).__name__
        told = traceback.TracebackException.from_exception(fault, limit=-30, capture_locals=False)
        entry["traceback"] = "".join(told.format())
    return entry


def _being_handled() -> BaseException | None:
    import sys  # noqa: PLC0415  for this one question

    return sys.exc_info()[1]


class _Sink:
    """The end of the pipeline: every method hands its line to the writer."""

    def __init__(self, writer: LineWriter) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = writer.put
        self.msg = self.log = self.warn = self.fatal = self.exception = self.err = self.failure = writer.put


class _Console:
    """One line for a person: time, level, event, then names and values; tracebacks below, set in."""

    def __init__(self, *, colours: bool) -> None:
        self._paint = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[1;31m"} if colours else {}

    def __call__(self, logger: Any, method: str, entry: Entry) -> tuple[tuple[bytes], dict[str, bool]]:
        """The line as bytes, and whether it is urgent."""
        stamp, level, event = entry.pop("ts"), str(entry.pop("level")), entry.pop("event")
        trace = entry.pop("traceback", [])
        paint = self._paint.get(level, "")
        words = " ".join(f"{name}={value}" for name, value in entry.items())
        text = f"{stamp} {paint}{level:<8}{_RESET if paint else ''} {event}{'  ' if words else ''}{words}\n"
        text += "".join(f"    | {line}\n" for line in trace)
        return (text[:LINE_MOST].encode("utf-8", "backslashreplace"),), {"urgent": LEVELS.get(level, 40) >= 40}


_RESET = "\x1b[0m"


class _Route(logging.Handler):
    """Sends what libraries say through `logging` down the same pipeline."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record under its logger's name."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError, IndexError):
            text = f"{record.msg} {record.args}"  # the library's own mistake in a format string loses no line
        level = record.levelname.lower() if record.levelname.lower() in LEVELS else _nearest(record.levelno)
        # One kind of line is one format text, whatever values it was given.
        said = {
            "logger": record.name,
            "_kind": f"{record.name} {record.msg}",
            **({"exc_info": record.exc_info} if record.exc_info else {}),
        }
        getattr(structlog.get_logger(), level)(text, **said)


def _nearest(number: int) -> str:
    """The name of the highest level not above a number."""
    return next((name for name, level in reversed(LEVELS.items()) if level <= number), "debug")
