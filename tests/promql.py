"""A reader of alert rules and as much of PromQL as they use; law: it answers as Prometheus 2 does, and refuses what it cannot.

Held to Prometheus' own `promtool` by tests/unit/test_deploy.py wherever that is installed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

Labels = frozenset[tuple[str, str]]
Samples = list[tuple[float, float]]
Store = dict[Labels, Samples]
"""Series by labels, the name among them as `__name__`; samples are (seconds, value), in order."""

Vector = dict[Labels, float]
LOOKBACK = 300.0


class Rule(NamedTuple):
    """One alert: its name, expression, seconds it must hold, labels and annotations."""

    alert: str
    expr: str
    hold: float
    labels: dict[str, str]
    annotations: dict[str, str]


def read_rules(text: str) -> list[Rule]:
    """The rules of a file written in plain blocks: one `groups` list, one `rules` list each, scalars on one line."""
    rules: list[dict[str, Any]] = []
    inside = ""
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        indent = len(line) - len(line.lstrip(" "))
        name, colon, value = bare.removeprefix("- ").partition(":")
        if not colon or "\t" in line:
            raise ValueError(f"line {number}: expected `name: value`, found {bare!r}")
        value = _scalar(value.strip(), number)
        if (indent, bare.startswith("- ")) == (6, True):
            rules.append({name: value})
        elif indent == 8 and name in ("labels", "annotations") and not value:
            inside = name
            rules[-1][name] = {}
        elif indent == 8:
            rules[-1][name] = value
        elif indent == 10:
            rules[-1][inside][name] = value
        elif (indent, name) not in ((0, "groups"), (2, "name"), (4, "interval"), (4, "rules")):
            raise ValueError(f"line {number}: expected a rule's own line, found {bare!r} at column {indent}")
    return [Rule(r["alert"], r["expr"], seconds(r["for"]), r["labels"], r["annotations"]) for r in rules]


def _scalar(value: str, number: int) -> str:
    if value.startswith('"'):
        if len(value) < 2 or not value.endswith('"') or "\\" in value:
            raise ValueError(f"line {number}: expected a closed quote without escapes, found {value}")
        return value[1:-1]
    if value[:1] in tuple("{[&*!|>%@`'#") or ": " in value or " #" in value:
        raise ValueError(f"line {number}: expected a plain value, found {value!r}")
    return value


def seconds(text: str) -> float:
    """A duration such as `30s`, `5m` or `1h` in seconds."""
    found = re.fullmatch(r"(\d+)([smh])", text)
    if found is None:
        raise ValueError(f"duration: expected such as 5m, found {text!r}")
    return int(found[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0}[found[2]]


def make_series(notation: Mapping[str, str], *, every: float) -> Store:
    """Series in promtool's notation: `0x3 5+2x4` is 0 four times, then 5, 7, 9, 11, 13; `_x2` is nothing, two times."""
    store: Store = {}
    for name, text in notation.items():
        labels = _selector(name)
        samples: Samples = []
        step = 0
        for word in text.split():
            found = re.fullmatch(r"(_|-?[0-9.e]+)([+-][0-9.e]+)?(?:x(\d+))?", word)
            if found is None:
                raise ValueError(f"series {name}: expected such as 0+1x5, found {word!r}")
            times = int(found[3] or 0)
            if found[1] == "_":
                step += times or 1
                continue
            for n in range(times + 1):
                samples.append((step * every, float(found[1]) + n * float(found[2] or 0)))
                step += 1
        store[labels] = samples
    return store


def _selector(text: str) -> Labels:
    name, _, rest = text.partition("{")
    pairs = re.findall(r'(\w+)="([^"]*)"', rest)
    return frozenset([("__name__", name), *pairs])


# Expressions

_TOKEN = re.compile(
    r'\s*(\d+(?:\.\d+)?(?![\w.])|\d+[smh]\b|[A-Za-z_:][\w:]*|"[^"]*"|=~|==|!=|>=|<=|[-+*/><=(){}\[\],])'
)

Eval = Callable[[Store, float], Any]


class Parser:
    """Turns the text of an expression into a function of the series and the time."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None:
                raise ValueError(f"expression: expected a token, found {text[at:]!r}")
            self._tokens.append(found[1])
            at = found.end()
        self._at = 0

    def parse(self) -> Eval:
        """The whole expression."""
        made = self._or()
        if self._at != len(self._tokens):
            raise ValueError(f"expression: expected its end, found {self._peek()!r}")
        return made

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, expected: str = "") -> str:
        token = self._peek()
        if not token or (expected and token != expected):
            raise ValueError(f"expression: expected {expected or 'more'}, found {token or 'its end'!r}")
        self._at += 1
        return token

    def _or(self) -> Eval:
        left = self._and()
        while self._peek() == "or":
            self._take()
            left = _union(left, self._and())
        return left

    def _and(self) -> Eval:
        left = self._compare()
        while self._peek() == "and":
            self._take()
            on = None
            if self._peek() == "on":
                self._take()
                on = self._names()
            left = _both(left, self._compare(), on)
        return left

    def _compare(self) -> Eval:
        left = self._times()
        while self._peek() in ("==", "!=", ">", "<", ">=", "<="):
            left = _filtered(left, self._take(), self._times())
        return left

    def _times(self) -> Eval:
        left = self._atom()
        while self._peek() in ("*", "/"):
            left = _scaled(left, self._take(), self._atom())
        return left

    def _atom(self) -> Eval:
        word = self._take()
        if word == "(":
            inner = self._or()
            self._take(")")
            return inner
        if word[0].isdigit():
            return _number(float(word))
        if word in ("sum", "count", "max"):
            by = self._names() if self._peek() == "by" and self._take() else []
            self._take("(")
            inner = self._or()
            self._take(")")
            return _together(word, by, inner)
        if self._peek() == "(":
            return self._call(word)
        return self._series(word)

    def _call(self, name: str) -> Eval:
        self._take("(")
        inside = [self._or()]
        while self._peek() == ",":
            self._take()
            inside.append(self._or())
        self._take(")")
        if name == "absent":
            return lambda store, now: {} if inside[0](store, now) else {frozenset(): 1.0}
        if name == "histogram_quantile":
            return lambda store, now: _quantile(inside[0](store, now), inside[1](store, now))
        over = {"increase": _increase, "rate": _rate, "deriv": _deriv, "changes": _changes}[name]
        return lambda store, now: {
            _nameless(labels): value
            for labels, (window, span) in inside[0](store, now).items()
            if (value := over(window, now, span)) is not None
        }

    def _series(self, name: str) -> Eval:
        tests: list[tuple[str, str, str]] = []
        if self._peek() == "{":
            self._take()
            while self._peek() != "}":
                label, relation, text = self._take(), self._take(), self._take()
                if relation not in ("=", "=~"):
                    raise ValueError(f"expression: expected = or =~, found {relation!r}")
                tests.append((label, relation, text.strip('"')))
                if self._peek() == ",":
                    self._take()
            self._take("}")
        if self._peek() != "[":
            return lambda store, now: _instant(_chosen(store, name, tests), now)
        self._take()
        span = seconds(self._take())
        self._take("]")
        return lambda store, now: _ranges(_chosen(store, name, tests), now, span)

    def _names(self) -> list[str]:
        self._take("(")
        names: list[str] = []
        while self._peek() != ")":
            names.append(self._take())
            if self._peek() == ",":
                self._take()
        self._take(")")
        return names


def _number(value: float) -> Eval:
    def evaluate(store: Store, now: float) -> float:
        return value

    return evaluate


def _chosen(store: Store, name: str, tests: Iterable[tuple[str, str, str]]) -> Store:
    def fits(labels: Labels) -> bool:
        has = dict(labels)
        return has["__name__"] == name and all(
            has.get(label, "") == text if relation == "=" else bool(re.fullmatch(text, has.get(label, "")))
            for label, relation, text in tests
        )

    return {labels: samples for labels, samples in store.items() if fits(labels)}


def _instant(chosen: Store, now: float) -> Vector:
    last = {labels: [s for s in samples if now - LOOKBACK < s[0] <= now] for labels, samples in chosen.items()}
    return {labels: samples[-1][1] for labels, samples in last.items() if samples}


def _ranges(chosen: Store, now: float, span: float) -> dict[Labels, tuple[Samples, float]]:
    windows = {labels: [s for s in samples if now - span <= s[0] <= now] for labels, samples in chosen.items()}
    return {labels: (window, span) for labels, window in windows.items() if window}


def _nameless(labels: Labels, *others: str) -> Labels:
    return frozenset(pair for pair in labels if pair[0] not in ("__name__", *others))


def _union(left: Eval, right: Eval) -> Eval:
    def evaluate(store: Store, now: float) -> Vector:
        one: Vector = left(store, now)
        known = {_nameless(labels) for labels in one}
        return {**one, **{k: v for k, v in right(store, now).items() if _nameless(k) not in known}}

    return evaluate


def _both(left: Eval, right: Eval, on: list[str] | None) -> Eval:
    def key(labels: Labels) -> Labels:
        return _nameless(labels) if on is None else frozenset(pair for pair in labels if pair[0] in on)

    def evaluate(store: Store, now: float) -> Vector:
        known = {key(labels) for labels in right(store, now)}
        return {labels: value for labels, value in left(store, now).items() if key(labels) in known}

    return evaluate


def _filtered(left: Eval, relation: str, right: Eval) -> Eval:
    holds: Callable[[float, float], bool] = {
        "==": lambda a, b: a == b,
        "!=": lambda a, b: a != b,
        ">": lambda a, b: a > b,
        "<": lambda a, b: a < b,
        ">=": lambda a, b: a >= b,
        "<=": lambda a, b: a <= b,
    }[relation]

    def evaluate(store: Store, now: float) -> Vector:
        a, b = left(store, now), right(store, now)
        if isinstance(b, float):
            return {labels: value for labels, value in a.items() if holds(value, b)}
        other = {_nameless(labels): value for labels, value in b.items()}
        return {k: v for k, v in a.items() if _nameless(k) in other and holds(v, other[_nameless(k)])}

    return evaluate


def _scaled(left: Eval, sign: str, right: Eval) -> Eval:
    def evaluate(store: Store, now: float) -> Vector | float:
        a, b = left(store, now), right(store, now)
        if isinstance(a, float) and isinstance(b, float):
            return a * b if sign == "*" else a / b
        if isinstance(a, float):
            if sign == "/":
                raise ValueError("expression: a number over a vector is not known here")
            a, b = b, a
        if not isinstance(b, float):
            raise ValueError("expression: a product of two vectors is not known here")
        return {_nameless(labels): value * b if sign == "*" else value / b for labels, value in a.items()}

    return evaluate


def _together(how: str, by: list[str], inner: Eval) -> Eval:
    def evaluate(store: Store, now: float) -> Vector:
        groups: dict[Labels, list[float]] = {}
        for labels, value in inner(store, now).items():
            groups.setdefault(frozenset(pair for pair in labels if pair[0] in by), []).append(value)
        fold: Callable[[list[float]], float] = {"sum": sum, "count": lambda v: float(len(v)), "max": max}[how]
        return {labels: fold(values) for labels, values in groups.items()}

    return evaluate


def _increase(window: Samples, now: float, span: float) -> float | None:
    """Prometheus' extrapolated increase of a counter (promql/functions.go, extrapolatedRate)."""
    if len(window) < 2:
        return None
    values = [value for _, value in window]
    rise = values[-1] - values[0] + sum(a for a, b in pairwise(values) if b < a)
    sampled = window[-1][0] - window[0][0]
    to_start, to_end = window[0][0] - (now - span), now - window[-1][0]
    step = sampled / (len(window) - 1)
    if rise > 0 and values[0] >= 0:
        to_start = min(to_start, sampled * values[0] / rise)
    reach = sampled + sum(edge if edge < 1.1 * step else step / 2 for edge in (to_start, to_end))
    return rise * reach / sampled


def _rate(window: Samples, now: float, span: float) -> float | None:
    rise = _increase(window, now, span)
    return None if rise is None else rise / span


def _changes(window: Samples, now: float, span: float) -> float | None:
    return float(sum(a[1] != b[1] for a, b in pairwise(window)))


def _deriv(window: Samples, now: float, span: float) -> float | None:
    if len(window) < 2:
        return None
    mean_t = sum(t for t, _ in window) / len(window)
    mean_v = sum(v for _, v in window) / len(window)
    return sum((t - mean_t) * (v - mean_v) for t, v in window) / sum((t - mean_t) ** 2 for t, _ in window)


def _quantile(q: float, buckets: Vector) -> Vector:
    """Prometheus' quantile of a histogram: linear inside the bucket it falls in."""
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, value in buckets.items():
        bound = float(dict(labels)["le"].replace("+Inf", "inf"))
        groups.setdefault(_nameless(labels, "le"), []).append((bound, value))
    return {labels: _quantile_of(q, sorted(rows)) for labels, rows in groups.items()}


def _quantile_of(q: float, rows: list[tuple[float, float]]) -> float:
    total = rows[-1][1]
    if total == 0:
        return math.nan
    rank = q * total
    at = next(n for n, (_, seen) in enumerate(rows) if seen >= rank)
    if at == len(rows) - 1:
        return rows[-2][0]
    start, before = (0.0, 0.0) if at == 0 else rows[at - 1]
    bound, seen = rows[at]
    return start + (bound - start) * (rank - before) / (seen - before)


def firing(rule: Rule, store: Store, *, at: float, every: float) -> list[tuple[dict[str, str], float]]:
    """The labels and values with which an alert fires at second `at`, asked each `every` seconds from 0 on."""
    evaluate = Parser(rule.expr).parse()
    since: dict[Labels, float] = {}
    found: Vector = {}
    for step in range(int(at / every) + 1):
        now = step * every
        found = {_nameless(labels): value for labels, value in evaluate(store, now).items()}
        since = {labels: since.get(labels, now) for labels in found}
    fires = [(labels, found[labels]) for labels in found if at - since[labels] >= rule.hold]
    return sorted((({**dict(labels), **rule.labels}, value) for labels, value in fires), key=str)
