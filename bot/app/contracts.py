"""Contract resolution turns a trader's words into instruments: exact ids, exact instants, nothing guessed in silence.

Law: the same words give the same instrument, field by field, wherever they are resolved; what the tables below do not
know must be said by the caller or is refused with BookError. Every table value can be overridden.

Instants (New York time unless said otherwise). The listed date stays in the id; the last trading day is the last
session on or before it, so that old monthlies dated Saturday end on Friday and holidays on the session before.

| contract | last trade | expiry | settles |
|---|---|---|---|
| US equity option | close of the last trading day (16:00 or the early close) | the same | the same |
| index option, PM (SPXW, ...) | the same close, 16:00 though the class trades to 16:15 | the same | a minute after |
| index option, AM (SPX, monthly NDX, RUT, VIX) | Cboe close of the session before (16:15) | 09:30 of the day | +1 min |
| ES-type quarterly option | 09:30 of the third Friday of Mar, Jun, Sep, Dec | the same | the same |
| ES-type option of another date | 16:00 of the day, or the stock exchange's early close | the same | the same |
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Final, Literal, NoReturn, TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from bot.app.calendars import EARLIEST, LATEST, NEW_YORK, Calendars, at, named
from bot.core.errors import BookError
from bot.domain.calendar import Sessions
from bot.domain.instruments import (
    MONTH_CODES,
    Deliverable,
    Future,
    Index,
    Instrument,
    OptionContract,
    Perpetual,
    Settlement,
    SettlementTime,
    Spot,
    Style,
    future_id,
    occ_id,
    parse_occ,
)
from bot.domain.units import NS_PER_MINUTE, NS_PER_SECOND, Nanos, iso

Kind: TypeAlias = Literal["option", "index_option", "future_option", "stock", "index", "future", "perpetual"]
KINDS: Final[tuple[Kind, ...]] = (
    "option",
    "index_option",
    "future_option",
    "stock",
    "index",
    "future",
    "perpetual",
)
OPTION_KINDS: Final = frozenset({"option", "index_option", "future_option"})

_FUTURE = re.compile(r"^([A-Z0-9]{1,4}?)(?:([FGHJKMNQUVXZ])(\d{4}|\d{2})|((?:19|20)\d{2})(0[1-9]|1[0-2]))$")
_TICKER = re.compile(r"^[A-Z][A-Z0-9.]{0,5}$")
_ADJUSTED = re.compile(r"^[A-Z.]+\d$")
_LONDON: Final = ZoneInfo("Europe/London")


class FutureProduct(msgspec.Struct, frozen=True, gc=False):
    """What the tables know of a futures root: where it trades, its size, and the rule of its last trading instant."""

    venue: str
    multiplier: Decimal
    tick: Decimal
    ends: Callable[[int, int, Calendars], Nanos]
    calendar: str = "CME-GLOBEX"
    underlying: str | None = None
    lot: Decimal = Decimal(1)
    option_close: time | None = None


class IndexClass(msgspec.Struct, frozen=True, gc=False):
    """What the tables know of an index option root: its index, when it settles, its exercise style."""

    index: str
    session: SettlementTime
    style: Style = "european"
    otherwise: str | None = None  # the root of dates that are not standard monthly ones


def resolve_instrument(
    text: str,
    *,
    kind: Kind | None = None,
    expiry: date | Nanos | None = None,
    multiplier: Decimal | None = None,
    currency: str | None = None,
    calendar: str | None = None,
    underlying: str | None = None,
    deliverable: tuple[Deliverable, ...] = (),
    calendars: Calendars = named,
) -> Instrument:
    """The instrument a word names: an OCC symbol, `VENUE:SYMBOL`, a futures month, an index or a US ticker.

    `kind` settles words that mean two things (ES is a future and a share). Known venues: US, INDEX, SIM, FX, the
    futures exchanges of the table and BINANCE perpetuals; another venue needs `kind`. Raises BookError.

    >>> resolve_instrument("ESH20").id
    'CME:ESH2020'
    """
    word = " ".join(text.split()).upper() if ":" in text else text.strip().upper()
    if not word:
        raise BookError("instrument: expected a symbol, found nothing")
    if _is_occ(word):
        return _resolve_occ(
            word,
            kind=kind,
            multiplier=multiplier,
            currency=currency,
            underlying=underlying,
            deliverable=deliverable,
            calendars=calendars,
        )
    if kind in OPTION_KINDS:
        raise BookError(f"{text!r}: expected an OCC symbol such as 'GOOG  151224C00750000' for an option")
    if deliverable:
        raise BookError(f"{text!r}: only an option has a deliverable")
    return _resolve_linear(
        word,
        kind=kind or _kind_of(word),
        expiry=expiry,
        multiplier=multiplier,
        currency=currency,
        calendar=calendar,
        calendars=calendars,
    )


def option_contract(
    root: str,
    expiration: date | Nanos,
    cp: int | str,
    strike: Decimal | str,
    *,
    kind: Kind | None = None,
    underlying: str | None = None,
    settlement: Settlement | None = None,
    session: SettlementTime | None = None,
    style: Style | None = None,
    multiplier: Decimal | None = None,
    currency: str | None = None,
    tick: Decimal | None = None,
    deliverable: tuple[Deliverable, ...] = (),
    calendars: Calendars = named,
) -> OptionContract:
    """The listed option of a root (or the symbol of its underlying), expiration, side and strike.

    `expiration` is the listed date, or the exact instant, which then is last trade and expiry both (the id carries its
    New York date). `cp` is +1/call/c or -1/put/p. A futures month as root (ESH2020) names the underlying future. An
    adjusted root (AAPL1) is refused unless a deliverable is given. Raises BookError.

    >>> option_contract("ES", date(2020, 3, 20), "call", "3220").underlying
    'CME:ESH2020'
    """
    terms = _Terms(
        root=_plain_root(root),
        given=root.strip().upper(),
        listed=expiration if isinstance(expiration, date) else _local_date(expiration),
        instant=None if isinstance(expiration, date) else expiration,
        underlying=underlying,
        session=session,
        deliverable=deliverable,
        calendars=calendars,
    )
    side = _side(cp)
    price = _strike(strike)
    family = _family(terms, kind)
    resolved = _resolve_family(family, terms)
    instants = resolved.instants if terms.instant is None else _exact_instants(terms.instant, resolved)
    try:
        return OptionContract(
            id=occ_id(resolved.root, terms.listed, side, price),
            currency=currency or "USD",
            multiplier=multiplier if multiplier is not None else resolved.multiplier,
            tick=tick if tick is not None else resolved.tick,
            lot=Decimal(1),
            calendar=resolved.calendar,
            underlying=resolved.underlying,
            cp=side,
            strike=price,
            style=style or resolved.style,
            settlement=settlement or ("cash" if resolved.cash else "physical"),
            session=session or resolved.session,
            last_trade=instants[0],
            expiry=instants[1],
            settles=instants[2],
            deliverable=deliverable,
        )
    except ValueError as fault:
        raise BookError(f"option on {root!r}: {fault}") from fault


def future(
    root: str,
    year: int,
    month: int,
    *,
    expiry: Nanos | None = None,
    venue: str | None = None,
    multiplier: Decimal | None = None,
    tick: Decimal | None = None,
    currency: str = "USD",
    calendar: str | None = None,
    calendars: Calendars = named,
) -> Future:
    """The dated future of a root and contract month; an unknown root needs venue, multiplier and expiry.

    >>> future("ES", 2020, 3).expiry == at(date(2020, 3, 20), time(9, 30), NEW_YORK)
    True
    """
    root = root.strip().upper()
    product = FUTURES.get(root)
    if product is None and (venue is None or multiplier is None or expiry is None):
        _refuse_future(root)
    if not 1 <= month <= 12 or not EARLIEST.year < year < LATEST.year:
        raise BookError(f"future {root}: expected a contract month, found {year}-{month}")
    ends = expiry if expiry is not None else _last_trading_instant(root, year, month, calendars)
    try:
        return Future(
            id=future_id(venue or (product.venue if product else ""), root, year, month),
            currency=currency,
            multiplier=multiplier if multiplier is not None else (product.multiplier if product else Decimal(1)),
            tick=tick if tick is not None else (product.tick if product else None),
            lot=product.lot if product else Decimal(1),
            calendar=calendar or (product.calendar if product else "24/7"),
            expiry=ends,
            underlying=product.underlying if product else None,
        )
    except ValueError as fault:
        raise BookError(f"future {root!r}: {fault}") from fault


def parse_future(text: str) -> tuple[str | None, str, int, int] | None:
    """Venue (None when not given), root, year and month of a futures word; None when it is not one.

    >>> parse_future("ES202003"), parse_future("CME:ESH20")
    ((None, 'ES', 2020, 3), ('CME', 'ES', 2020, 3))
    """
    venue, _, symbol = text.strip().upper().rpartition(":")
    found = _FUTURE.fullmatch(symbol)
    if found is None:
        return None
    root, code, coded_year, year, month = found.groups()
    if code is None:
        return venue or None, root, int(year), int(month)
    whole = int(coded_year) if len(coded_year) == 4 else _century(int(coded_year))
    return venue or None, root, whole, MONTH_CODES.index(code) + 1


def parse_deliverable(text: str) -> tuple[Deliverable, ...]:
    """The lines of what one adjusted contract delivers, written `US:TWX=100+CASH:USD=33.50`; BookError otherwise.

    >>> parse_deliverable("US:TWX=100")[0].quantity
    Decimal('100')
    """
    lines = []
    for part in text.split("+"):
        name, separator, amount = part.partition("=")
        name = name.strip().upper()
        quantity = _decimal(amount.strip())
        if not separator or not re.fullmatch(r"[A-Z0-9]+:[A-Z0-9._/-]+", name) or quantity is None or quantity <= 0:
            raise BookError(f"deliverable: expected VENUE:SYMBOL=QUANTITY joined by +, found {part.strip()!r}")
        lines.append(Deliverable(name, quantity))
    names = [line.instrument for line in lines]
    if len(set(names)) < len(names):
        raise BookError(f"deliverable: an instrument is named twice in {text!r}")
    return tuple(lines)


def is_adjusted_root(root: str) -> bool:
    """True for an OCC root with the digit of a corporate action (AAPL1, GOOG7) that is no root of the tables."""
    root = root.strip().upper()
    return bool(_ADJUSTED.fullmatch(root)) and root not in INDEX_CLASSES and _future_root(root) is None


def third_friday(year: int, month: int) -> date:
    """The third Friday of a month, holiday or not.

    >>> third_friday(2020, 3)
    datetime.date(2020, 3, 20)
    """
    first = date(year, month, 1)
    return first + timedelta(days=(4 - first.weekday()) % 7 + 14)


# --------------------------------------------------------------------------- options, by family


class _Terms(msgspec.Struct, frozen=True, kw_only=True):
    root: str
    given: str
    listed: date
    instant: Nanos | None
    underlying: str | None
    session: SettlementTime | None
    deliverable: tuple[Deliverable, ...]
    calendars: Calendars

    def sessions(self, calendar: str) -> Sessions:
        return self.calendars(calendar, self.listed - timedelta(days=14), self.listed)


class _Resolved(msgspec.Struct, frozen=True, kw_only=True):
    root: str
    underlying: str
    style: Style
    cash: bool
    session: SettlementTime
    multiplier: Decimal
    tick: Decimal
    calendar: str
    instants: tuple[Nanos, Nanos, Nanos]


def _equity_option(terms: _Terms) -> _Resolved:
    root = terms.root
    if not _TICKER.fullmatch(root):
        raise BookError(f"option root: expected a ticker of 1 to 6 characters, found {terms.given!r}")
    if is_adjusted_root(root) and not terms.deliverable:
        raise BookError(f"option root {root}: adjusted contract, give its deliverable (such as US:{root[:-1]}=100)")
    if terms.session == "am":
        raise BookError(f"option root {root}: an equity option settles at the close (pm), found am")
    closes = _stock_close(terms)
    return _Resolved(
        root=root,
        underlying=_equity_underlying(terms),
        style="american",
        cash=False,
        session="pm",
        multiplier=Decimal(100),
        tick=Decimal("0.01"),
        calendar=_equity_option_calendar(terms),
        instants=(closes, closes, closes),
    )


def _equity_option_calendar(terms: _Terms) -> str:
    venue = _equity_underlying(terms).partition(":")[0]
    if venue == "US":
        return "XCBO" if terms.root in LATE_ETFS else "XNYS"
    if venue != "SIM" and terms.instant is None:
        raise BookError(f"option on {terms.given}: {venue} sessions are not known, give the expiry as an instant")
    return "24/7"


def _equity_underlying(terms: _Terms) -> str:
    if terms.underlying is not None:
        return resolve_instrument(terms.underlying, kind=_venue_kind(terms.underlying)).id
    if ":" in terms.given:
        return terms.given
    if not is_adjusted_root(terms.root):
        return f"US:{terms.root}"
    shares = [line.instrument for line in terms.deliverable if not line.instrument.startswith("CASH:")]
    if not shares:
        raise BookError(f"option root {terms.root}: delivers cash only, which is not modelled")
    own = f"US:{terms.root[:-1]}"
    return own if own in shares else shares[0]


def _venue_kind(text: str) -> Kind | None:
    return None if ":" in text else "stock"


def _index_option(terms: _Terms) -> _Resolved:
    root, kind = _index_class(terms)
    am = (terms.session or kind.session) == "am"
    return _Resolved(
        root=root,
        underlying=terms.underlying.strip().upper() if terms.underlying else kind.index,
        style=kind.style,
        cash=True,
        session="am" if am else "pm",
        multiplier=Decimal(100),
        tick=Decimal("0.05"),
        calendar="XCBO",
        instants=_am_instants(terms) if am else _pm_instants(terms),
    )


def _index_class(terms: _Terms) -> tuple[str, IndexClass]:
    kind = INDEX_CLASSES.get(terms.root)
    if kind is None:
        # An index outside the table: Cboe's usual terms, AM or PM must be said.
        if terms.session is None:
            known = ", ".join(sorted(INDEX_CLASSES))
            raise BookError(f"index option root: expected one of {known}, or am or pm said, found {terms.given!r}")
        return terms.root, IndexClass(f"INDEX:{terms.root}", terms.session)
    if kind.otherwise is not None and terms.session != "am" and not _is_opening_monthly(terms):
        return kind.otherwise, INDEX_CLASSES[kind.otherwise]
    return terms.root, kind


def _is_opening_monthly(terms: _Terms) -> bool:
    """True for a standard monthly date, unless the caller's instant is not that day's opening."""
    return _is_standard_monthly(terms) and terms.instant in {None, _third_friday_open(terms)}


def _is_standard_monthly(terms: _Terms) -> bool:
    """True for the third Friday, the Saturday after it, or the session before when that Friday is a holiday."""
    listed = terms.listed
    friday = third_friday(listed.year, listed.month)
    if listed in {friday, friday + timedelta(days=1)}:
        return True
    return (
        friday - timedelta(days=4) <= listed < friday
        and terms.calendars("XNYS", listed, friday).on_or_before(friday) == listed
    )


def _am_instants(terms: _Terms) -> tuple[Nanos, Nanos, Nanos]:
    stock = terms.sessions("XNYS")
    day = stock.on_or_before(terms.listed)
    opens = stock.open_of(day)
    return terms.sessions("XCBO").close_of(stock.before(day)), opens, opens + NS_PER_MINUTE


def _pm_instants(terms: _Terms) -> tuple[Nanos, Nanos, Nanos]:
    closes = _stock_close(terms)
    return closes, closes, closes + NS_PER_MINUTE


def _future_option(terms: _Terms) -> _Resolved:
    month = _month_given(terms)
    root = terms.root
    product_root = _future_root(root)
    if product_root is None:
        _refuse_future(root)
    if month is not None and month[1] != product_root:
        raise BookError(f"option root {root}: delivers a future of {product_root}, found {month[1]}")
    product = FUTURES[product_root]
    if product.underlying is None:
        return _commodity_option(terms, root, product)
    quarterly = root == product_root and _is_quarterly(terms)
    am = quarterly if terms.session is None else terms.session == "am"
    closes = _third_friday_open(terms) if am else _stock_close(terms)
    # With the instant given, it decides which quarterly future is delivered.
    ends = closes if terms.instant is None else terms.instant
    if month is not None:
        _check_delivered(root, month, ends, terms.calendars)
    return _Resolved(
        root=root,
        underlying=_future_id_of(month) if month else _delivered_quarterly(product_root, ends, terms.calendars),
        style="american" if quarterly else "european",
        cash=False,
        session="am" if am else "pm",
        multiplier=product.multiplier,
        tick=_option_tick(product_root, product),
        calendar=product.calendar,
        instants=(closes, closes, closes),
    )


def _commodity_option(terms: _Terms, root: str, product: FutureProduct) -> _Resolved:
    """An option whose month and future differ by product rules: the future must be named."""
    month = _month_given(terms)
    if month is None:
        raise BookError(
            f"option on {root}: name the future it delivers as underlying, such as {root}{MONTH_CODES[3]}2020"
        )
    if product.option_close is None and terms.instant is None:
        raise BookError(f"option on {root}: give the expiry as an instant with its zone")
    days = terms.sessions("CME-GLOBEX")
    closes = at(days.on_or_before(terms.listed), product.option_close or time(16), NEW_YORK)
    _check_delivered(root, month, closes if terms.instant is None else terms.instant, terms.calendars)
    return _Resolved(
        root=root,
        underlying=_future_id_of(month),
        style="american",
        cash=False,
        session="pm",
        multiplier=product.multiplier,
        tick=product.tick,
        calendar=product.calendar,
        instants=(closes, closes, closes),
    )


def _month_given(terms: _Terms) -> tuple[str | None, str, int, int] | None:
    """The futures month a caller named, as the underlying or as the root."""
    for text in (terms.underlying, terms.given):
        month = parse_future(text) if text else None
        if month is not None and _future_root(month[1]) is not None:
            return month
    if terms.underlying and _future_root(terms.underlying.rpartition(":")[2].strip().upper()) is None:
        raise BookError(f"future option: expected a futures month such as CME:ESH2020, found {terms.underlying!r}")
    return None


def _check_delivered(root: str, month: tuple[str | None, str, int, int], ends: Nanos, calendars: Calendars) -> None:
    """Refuse an option that outlives the future it delivers."""
    stops = _last_trading_instant(month[1], month[2], month[3], calendars)
    if stops < ends:
        raise BookError(
            f"option on {root}: ends at {iso(ends)}, after its future {_future_id_of(month)} at {iso(stops)}"
        )


def _future_id_of(month: tuple[str | None, str, int, int]) -> str:
    venue, root, year, number = month
    return future_id(venue or FUTURES[root].venue, root, year, number)


def _is_quarterly(terms: _Terms) -> bool:
    return terms.listed.month % 3 == 0 and terms.listed.weekday() != 5 and _is_opening_monthly(terms)


def _third_friday_open(terms: _Terms) -> Nanos:
    return at(terms.sessions("XNYS").on_or_before(terms.listed), time(9, 30), NEW_YORK)


def _delivered_quarterly(root: str, ends: Nanos, calendars: Calendars) -> str:
    """The id of the first quarterly future that still trades when the option ends."""
    day = _local_date(ends)
    year, month = day.year, (day.month + 2) // 3 * 3
    while _last_trading_instant(root, year, month, calendars) < ends:
        year, month = (year, month + 3) if month < 12 else (year + 1, 3)
    return future_id(FUTURES[root].venue, root, year, month)


def _option_tick(root: str, product: FutureProduct) -> Decimal:
    return Decimal("0.05") if root in {"ES", "NQ", "MES", "MNQ", "RTY", "M2K"} else product.tick


def _stock_close(terms: _Terms) -> Nanos:
    days = terms.sessions("XNYS")
    return days.close_of(days.on_or_before(terms.listed))


def _resolve_family(family: Kind, terms: _Terms) -> _Resolved:
    if not EARLIEST.year < terms.listed.year <= LATEST.year:
        raise BookError(
            f"option on {terms.given!r}: expected an expiration from {EARLIEST.year + 1} to {LATEST.year}, "
            f"found {terms.listed}"
        )
    try:
        return _FAMILIES[family](terms)
    except ValueError as fault:
        raise BookError(f"option on {terms.given!r}: {fault}") from fault


def _exact_instants(instant: Nanos, resolved: _Resolved) -> tuple[Nanos, Nanos, Nanos]:
    """The caller's expiry; an AM contract still stops trading when the table says, if that is earlier."""
    last_trade = min(instant, resolved.instants[0]) if resolved.session == "am" else instant
    return last_trade, instant, instant + (NS_PER_MINUTE if resolved.cash else 0)


_FAMILIES: Final[dict[Kind, Callable[[_Terms], _Resolved]]] = {
    "option": _equity_option,
    "index_option": _index_option,
    "future_option": _future_option,
}


def _family(terms: _Terms, kind: Kind | None) -> Kind:
    """The family of an option by its kind, its underlying's venue, or its root."""
    if kind is not None:
        if kind not in OPTION_KINDS:
            raise BookError(
                f"option on {terms.given!r}: expected type option, index_option or future_option, found {kind}"
            )
        return "index_option" if kind == "option" and terms.given.startswith("INDEX:") else kind
    venue = (terms.underlying or terms.given).rpartition(":")[0].strip().upper()
    if venue:
        return "index_option" if venue == "INDEX" else "future_option" if venue in FUTURES_VENUES else "option"
    if terms.root in INDEX_CLASSES:
        return "index_option"
    month = parse_future(terms.underlying or terms.given)
    product = _future_root(month[1] if month else terms.root)
    if product is None or (month is None and FUTURES[product].underlying is None):
        return "option"  # CL, SI, ZB are listed shares too; an equity-index future's root is not taken for a share
    return "future_option"


# --------------------------------------------------------------------------- everything else


def _is_occ(word: str) -> bool:
    try:
        parse_occ(word)
    except ValueError:
        return False
    return True


def _resolve_occ(
    word: str,
    *,
    kind: Kind | None,
    multiplier: Decimal | None,
    currency: str | None,
    underlying: str | None,
    deliverable: tuple[Deliverable, ...],
    calendars: Calendars,
) -> OptionContract:
    if kind is not None and kind not in OPTION_KINDS:
        raise BookError(f"{word!r} is an option, found type {kind}")
    symbol = parse_occ(word)
    contract = option_contract(
        symbol.root,
        symbol.expiration,
        symbol.cp,
        symbol.strike,
        kind=kind,
        underlying=underlying,
        multiplier=multiplier,
        currency=currency,
        deliverable=deliverable,
        calendars=calendars,
    )
    if contract.id[:6].rstrip() != symbol.root:
        raise BookError(
            f"{word!r}: {symbol.root} lists standard monthly dates only, {symbol.expiration} belongs to "
            f"{contract.id[:6].rstrip()}"
        )
    return contract


def _kind_of(word: str) -> Kind:
    venue, _, symbol = word.rpartition(":")
    if venue in FUTURES_VENUES:
        return "future"
    if venue in _VENUE_KINDS:
        return _VENUE_KINDS[venue]
    if venue:
        known = ", ".join(sorted({*_VENUE_KINDS, *FUTURES_VENUES}))
        raise BookError(f"{word!r}: expected a venue of {known}, or its type, found {venue}")
    month = parse_future(symbol)
    if month is not None and month[1] in FUTURES:
        return "future"
    if symbol in FUTURES and FUTURES[symbol].underlying is not None:
        raise BookError(f"{word!r}: names a future and a share; write its month, such as {symbol}H2020, or US:{symbol}")
    return "index" if symbol in INDICES else "stock"


def _resolve_linear(
    word: str,
    *,
    kind: Kind,
    expiry: date | Nanos | None,
    multiplier: Decimal | None,
    currency: str | None,
    calendar: str | None,
    calendars: Calendars,
) -> Instrument:
    venue, _, symbol = word.rpartition(":")
    try:
        if kind == "future":
            return _resolve_future(word, expiry, multiplier, currency, calendar, calendars)
        if expiry is not None:
            raise BookError(f"{word!r}: a {kind} has no expiry, found one")
        if kind == "perpetual":
            return _perpetual(word, multiplier=multiplier, currency=currency, calendar=calendar)
        size = multiplier if multiplier is not None else Decimal(1)
        if kind == "index":
            return Index(
                id=f"{venue or 'INDEX'}:{symbol}",
                currency=currency or "USD",
                multiplier=size,
                tick=Decimal("0.01"),
                lot=Decimal(1),
                calendar=calendar or "XCBO",
            )
        if not venue and not _TICKER.fullmatch(symbol):
            raise BookError(f"instrument: expected an OCC symbol, VENUE:SYMBOL or a ticker, found {word!r}")
        return _spot(venue or "US", symbol, multiplier=size, currency=currency, calendar=calendar)
    except ValueError as fault:
        raise BookError(f"{word!r}: {fault}") from fault


def _spot(venue: str, symbol: str, *, multiplier: Decimal, currency: str | None, calendar: str | None) -> Spot:
    tick, lot, hours = _SPOT_TERMS.get(venue, (None, None, "24/7"))
    pair = re.fullmatch(r"[A-Z0-9]{2,}?/?(USDT|USDC|USD|EUR|BTC)", symbol) if venue not in {"US", "SIM"} else None
    money = currency or (symbol.replace("/", "")[3:6] if venue == "FX" else pair[1] if pair else "USD")
    return Spot(
        id=f"{venue}:{symbol}",
        currency=money,
        multiplier=multiplier,
        tick=tick,
        lot=lot,
        calendar=calendar or hours,
    )


def _resolve_future(
    word: str,
    expiry: date | Nanos | None,
    multiplier: Decimal | None,
    currency: str | None,
    calendar: str | None,
    calendars: Calendars,
) -> Future:
    month = parse_future(word)
    if month is None:
        venue, _, root = word.rpartition(":")
        if expiry is None:
            raise BookError(f"{word!r}: expected a futures month such as ESH2020, CME:ESH2020 or ES202003")
        day = expiry if isinstance(expiry, date) else _local_date(expiry)
        month = (venue or None, root, day.year, day.month)
        if isinstance(expiry, date) and root in FUTURES:
            ends = _local_date(_last_trading_instant(root, day.year, day.month, calendars))
            if (ends.year, ends.month) != (day.year, day.month):
                raise BookError(f"{word!r}: its months end in the month before; name the month, such as {root}H2020")
    instant = expiry if isinstance(expiry, int) else None
    if month[0] is not None and month[1] in FUTURES and month[0] != FUTURES[month[1]].venue:
        raise BookError(f"{word!r}: expected venue {FUTURES[month[1]].venue} for {month[1]}, found {month[0]}")
    return future(
        month[1],
        month[2],
        month[3],
        expiry=instant,
        venue=month[0],
        multiplier=multiplier,
        currency=currency or "USD",
        calendar=calendar,
        calendars=calendars,
    )


def _perpetual(word: str, *, multiplier: Decimal | None, currency: str | None, calendar: str | None) -> Perpetual:
    """A perpetual swap; `BTCUSD_PERP` (coin-margined) is inverse: 100 USD a contract for BTC, 10 USD for others."""
    venue, _, symbol = word.rpartition(":")
    if not venue:
        raise BookError(f"{word!r}: expected VENUE:SYMBOL for a perpetual, such as BINANCE:BTCUSDT")
    coin = re.fullmatch(r"([A-Z0-9]+)USD_PERP", symbol)
    if coin is not None:
        base = coin[1]
        return Perpetual(
            id=word,
            currency=currency or "USD",
            multiplier=multiplier if multiplier is not None else Decimal(100 if base == "BTC" else 10),
            tick=Decimal("0.1") if base == "BTC" else None,
            lot=Decimal(1),
            inverse=True,
            settlement_currency=base,
            calendar=calendar or "24/7",
        )
    pair = re.fullmatch(r"[A-Z0-9]+?(USDT|USDC|BUSD|USD)", symbol)
    if pair is None and currency is None:
        raise BookError(f"{word!r}: expected a pair such as BTCUSDT or BTCUSD_PERP, or a currency")
    known = _PERPETUAL_STEPS.get(symbol, (None, None))
    return Perpetual(
        id=word,
        currency=currency or (pair[1] if pair else ""),
        multiplier=multiplier if multiplier is not None else Decimal(1),
        tick=known[0],
        lot=known[1],
        calendar=calendar or "24/7",
    )


# --------------------------------------------------------------------------- last trading instants of futures


def _last_trading_instant(root: str, year: int, month: int, calendars: Calendars) -> Nanos:
    return FUTURES[root].ends(year, month, calendars)


def _equity_end(year: int, month: int, calendars: Calendars) -> Nanos:
    """09:30 New York of the third Friday, or of the session before when it is a holiday (Good Friday 2008)."""
    friday = third_friday(year, month)
    return at(calendars("XNYS", friday - timedelta(days=7), friday).on_or_before(friday), time(9, 30), NEW_YORK)


def _crude_end(year: int, month: int, calendars: Calendars) -> Nanos:
    """14:30 New York, three business days before the 25th of the month before (one more when the 25th is none)."""
    last = date(year, month, 1) - timedelta(days=1)
    anchor = last.replace(day=25)
    days = calendars("XNYS", anchor - timedelta(days=14), anchor)
    count = 3 if days.is_session(anchor) else 4
    return at(_sessions_back(days, anchor, count), time(14, 30), NEW_YORK)


def _metal_end(year: int, month: int, calendars: Calendars) -> Nanos:
    """13:30 New York of the third last business day of the contract month."""
    return at(_from_month_end(year, month, 3, calendars), time(13, 30), NEW_YORK)


def _gas_end(year: int, month: int, calendars: Calendars) -> Nanos:
    """14:30 New York of the third last business day of the month before."""
    before = date(year, month, 1) - timedelta(days=1)
    return at(_from_month_end(before.year, before.month, 3, calendars), time(14, 30), NEW_YORK)


def _bond_end(year: int, month: int, calendars: Calendars) -> Nanos:
    """12:01 Chicago of the eighth last business day of the contract month (seven before the last)."""
    return at(_from_month_end(year, month, 8, calendars), time(13, 1), NEW_YORK)


def _note_end(year: int, month: int, calendars: Calendars) -> Nanos:
    """12:01 Chicago of the last business day of the contract month (2- and 5-year notes)."""
    return at(_from_month_end(year, month, 1, calendars), time(13, 1), NEW_YORK)


def _currency_end(year: int, month: int, calendars: Calendars) -> Nanos:
    """09:16 Chicago, two business days before the third Wednesday."""
    first = date(year, month, 1)
    wednesday = first + timedelta(days=(2 - first.weekday()) % 7 + 14)
    days = calendars("XNYS", wednesday - timedelta(days=14), wednesday)
    count = 2 if days.is_session(wednesday) else 3
    return at(_sessions_back(days, wednesday, count), time(10, 16), NEW_YORK)


def _crypto_end(year: int, month: int, calendars: Calendars) -> Nanos:
    """16:00 London of the last Friday, or of the session before when it is a holiday."""
    last = _month_end(year, month)
    friday = last - timedelta(days=(last.weekday() - 4) % 7)
    return at(calendars("XNYS", friday - timedelta(days=14), friday).on_or_before(friday), time(16), _LONDON)


def _vix_end(year: int, month: int, calendars: Calendars) -> Nanos:
    """09:00 New York, thirty days before the third Friday of the next month."""
    following = third_friday(year + month // 12, month % 12 + 1)
    days = calendars("XNYS", following - timedelta(days=60), following)
    return at(days.on_or_before(days.on_or_before(following) - timedelta(days=30)), time(9), NEW_YORK)


def _from_month_end(year: int, month: int, count: int, calendars: Calendars) -> date:
    last = _month_end(year, month)
    days = calendars("XNYS", last - timedelta(days=31), last)
    return _sessions_back(days, last + timedelta(days=1), count)


def _month_end(year: int, month: int) -> date:
    return date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)


def _sessions_back(days: Sessions, day: date, count: int) -> date:
    for _ in range(count):
        day = days.before(day)
    return day


# --------------------------------------------------------------------------- tables

_D = Decimal
_EQ = "CME-EQUITY"
FUTURES: Final[dict[str, FutureProduct]] = {
    "ES": FutureProduct("CME", _D(50), _D("0.25"), _equity_end, _EQ, "INDEX:SPX"),
    "MES": FutureProduct("CME", _D(5), _D("0.25"), _equity_end, _EQ, "INDEX:SPX"),
    "NQ": FutureProduct("CME", _D(20), _D("0.25"), _equity_end, _EQ, "INDEX:NDX"),
    "MNQ": FutureProduct("CME", _D(2), _D("0.25"), _equity_end, _EQ, "INDEX:NDX"),
    "RTY": FutureProduct("CME", _D(50), _D("0.1"), _equity_end, _EQ, "INDEX:RUT"),
    "M2K": FutureProduct("CME", _D(5), _D("0.1"), _equity_end, _EQ, "INDEX:RUT"),
    "YM": FutureProduct("CBOT", _D(5), _D(1), _equity_end, _EQ, "INDEX:DJI"),
    "MYM": FutureProduct("CBOT", _D("0.5"), _D(1), _equity_end, _EQ, "INDEX:DJI"),
    "CL": FutureProduct("NYMEX", _D(1000), _D("0.01"), _crude_end, option_close=time(14, 30)),
    "NG": FutureProduct("NYMEX", _D(10000), _D("0.001"), _gas_end, option_close=time(14, 30)),
    "GC": FutureProduct("COMEX", _D(100), _D("0.1"), _metal_end, option_close=time(13, 30)),
    "MGC": FutureProduct("COMEX", _D(10), _D("0.1"), _metal_end, option_close=time(13, 30)),
    "SI": FutureProduct("COMEX", _D(5000), _D("0.005"), _metal_end, option_close=time(13, 30)),
    "HG": FutureProduct("COMEX", _D(25000), _D("0.0005"), _metal_end, option_close=time(13, 0)),
    "ZB": FutureProduct("CBOT", _D(1000), _D("0.03125"), _bond_end),
    "ZN": FutureProduct("CBOT", _D(1000), _D("0.015625"), _bond_end),
    "ZF": FutureProduct("CBOT", _D(1000), _D("0.0078125"), _note_end),
    "ZT": FutureProduct("CBOT", _D(2000), _D("0.00390625"), _note_end),
    "6E": FutureProduct("CME", _D(125000), _D("0.00005"), _currency_end),
    "BTC": FutureProduct("CME", _D(5), _D(5), _crypto_end),
    "MBT": FutureProduct("CME", _D("0.1"), _D(5), _crypto_end),
    "VX": FutureProduct("CFE", _D(1000), _D("0.05"), _vix_end, "XCBO"),
}
FUTURES_VENUES: Final = frozenset(product.venue for product in FUTURES.values())
"""Well-known futures; ticks and sizes from the exchanges' contract specifications."""

INDEX_CLASSES: Final[dict[str, IndexClass]] = {
    "SPX": IndexClass("INDEX:SPX", "am", otherwise="SPXW"),
    "SPXW": IndexClass("INDEX:SPX", "pm"),
    "SPXPM": IndexClass("INDEX:SPX", "pm"),
    "SPXQ": IndexClass("INDEX:SPX", "pm"),
    "XSP": IndexClass("INDEX:XSP", "pm"),
    "NDX": IndexClass("INDEX:NDX", "am", otherwise="NDXP"),
    "NDXP": IndexClass("INDEX:NDX", "pm"),
    "RUT": IndexClass("INDEX:RUT", "am", otherwise="RUTW"),
    "RUTW": IndexClass("INDEX:RUT", "pm"),
    "DJX": IndexClass("INDEX:DJX", "am"),
    "OEX": IndexClass("INDEX:OEX", "pm", "american"),
    "XEO": IndexClass("INDEX:OEX", "pm"),
    "VIX": IndexClass("INDEX:VIX", "am"),
    "VIXW": IndexClass("INDEX:VIX", "am"),
}
INDICES: Final = frozenset(kind.index.partition(":")[2] for kind in INDEX_CLASSES.values()) | {"DJI"}

LATE_ETFS: Final = frozenset({"SPY", "QQQ", "IWM", "DIA", "EEM", "EFA", "MDY", "OEF", "VXX", "UVXY", "SVXY"})
"""Funds whose options trade to 16:15; the close still ends tau at 16:00."""

_WEEKLY_ROOTS: Final = (
    (re.compile(r"^(?:EW[1-4]?|E[1-5][A-E])$"), "ES"),
    (re.compile(r"^(?:QN[1-4]|QNE|Q[1-5][A-E])$"), "NQ"),
    (re.compile(r"^(?:LO[1-5]?|ML[1-5])$"), "CL"),
    (re.compile(r"^(?:OG[1-5]?)$"), "GC"),
)
_VENUE_KINDS: Final[dict[str, Kind]] = {
    "US": "stock",
    "SIM": "stock",
    "FX": "stock",
    "INDEX": "index",
    "BINANCE": "perpetual",
}
_SPOT_TERMS: Final[dict[str, tuple[Decimal | None, Decimal | None, str]]] = {
    "US": (_D("0.01"), _D(1), "XNYS"),
    "SIM": (_D("0.01"), _D(1), "24/7"),
    "FX": (None, None, "24/7"),
}
_PERPETUAL_STEPS: Final[dict[str, tuple[Decimal | None, Decimal | None]]] = {
    "BTCUSDT": (_D("0.1"), _D("0.001")),
    "ETHUSDT": (_D("0.01"), _D("0.001")),
}


def _future_root(root: str) -> str | None:
    """The futures product of a root, an option root of the table included; None when the tables do not know it."""
    if root in FUTURES:
        return root
    return next((product for pattern, product in _WEEKLY_ROOTS if pattern.fullmatch(root)), None)


def _refuse_future(root: str) -> NoReturn:
    near = get_close_matches(root, FUTURES, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise BookError(
        f"future {root!r}: expected one of {', '.join(FUTURES)}, or its venue, multiplier and expiry instant{hint}"
    )


# --------------------------------------------------------------------------- words


def _plain_root(root: str) -> str:
    """The option root of a root or an underlying's word: without venue, a futures month reduced to its product."""
    word = root.strip().upper().rpartition(":")[2]
    month = parse_future(word)
    if month is not None and month[1] in FUTURES:
        return month[1]
    return word


def _side(cp: int | str) -> Literal[1, -1]:
    word = cp.strip().lower() if isinstance(cp, str) else cp
    if word in {1, "1", "+1", "c", "call"}:
        return 1
    if word in {-1, "-1", "p", "put"}:
        return -1
    raise BookError(f"cp: expected call, put, c or p, found {cp!r}")


def _strike(strike: Decimal | str) -> Decimal:
    value = strike if isinstance(strike, Decimal) else _decimal(strike)
    if value is None or not value.is_finite() or value <= 0:
        raise BookError(f"strike: expected a positive number, found {strike}")
    whole = value.to_integral_value()
    return whole.quantize(Decimal(1)) if value == whole and value < Decimal(10) ** 12 else value.normalize()


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _century(two_digits: int) -> int:
    """The year of two digits: 70 to 99 are of the last century."""
    return 1900 + two_digits if two_digits >= 70 else 2000 + two_digits


def _local_date(instant: Nanos) -> date:
    return datetime.fromtimestamp(instant // NS_PER_SECOND, NEW_YORK).date()
