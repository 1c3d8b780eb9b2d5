"""Contract resolution: words to exact ids and exact instants."""

from __future__ import annotations

import importlib.util
import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from bot.app.contracts import (
    future,
    is_adjusted_root,
    option_contract,
    parse_deliverable,
    parse_future,
    resolve_instrument,
    third_friday,
)
from bot.core.errors import BookError, EvenkeelError
from bot.domain.instruments import Future, Index, OptionContract, Perpetual, Spot
from bot.domain.units import iso, parse_instant


def _realdata_root() -> Path:
    where = Path(__file__).resolve().parents[1] / "realdata.py"
    spec = importlib.util.spec_from_file_location("realdata", where)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root: Path = module.data_root()
    return root


def instants(option: OptionContract) -> tuple[str, str, str]:
    """Last trade, expiry and settlement as text."""
    return iso(option.last_trade), iso(option.expiry), iso(option.settles)


@pytest.mark.parametrize(
    ("root", "listed", "expiry"),
    [
        ("GOOG", "2015-12-24", "2015-12-24T18:00:00Z"),
        ("GOOG", "2015-12-31", "2015-12-31T21:00:00Z"),
        ("TWX", "2014-07-19", "2014-07-18T20:00:00Z"),
        ("AAPL", "2014-04-19", "2014-04-17T20:00:00Z"),
        ("AAPL", "2019-04-19", "2019-04-18T20:00:00Z"),
        ("SPY", "2023-09-01", "2023-09-01T20:00:00Z"),
    ],
)
def test_equity_options_end_with_their_last_session(root: str, listed: str, expiry: str) -> None:
    """Early closes, Saturday monthlies and Good Fridays end at the close of the last session on or before the date."""
    option = option_contract(root, date.fromisoformat(listed), "call", "100")
    assert instants(option) == (expiry, expiry, expiry)
    assert option.underlying == f"US:{root}"
    assert option.id == f"{root:<6}{listed[2:].replace('-', '')}C00100000"
    assert (option.style, option.settlement, option.session, option.multiplier) == (
        "american",
        "physical",
        "pm",
        Decimal(100),
    )


@pytest.mark.parametrize(
    ("root", "listed", "canonical", "session", "last_trade", "expiry"),
    [
        ("SPX", "2019-05-17", "SPX", "am", "2019-05-16T20:15:00Z", "2019-05-17T13:30:00Z"),
        ("SPX", "2008-12-20", "SPX", "am", "2008-12-18T21:15:00Z", "2008-12-19T14:30:00Z"),
        ("SPX", "2008-03-22", "SPX", "am", "2008-03-19T20:15:00Z", "2008-03-20T13:30:00Z"),
        ("SPX", "2019-04-18", "SPX", "am", "2019-04-17T20:15:00Z", "2019-04-18T13:30:00Z"),
        ("SPX", "2021-01-04", "SPXW", "pm", "2021-01-04T21:00:00Z", "2021-01-04T21:00:00Z"),
        ("SPXW", "2019-05-17", "SPXW", "pm", "2019-05-17T20:00:00Z", "2019-05-17T20:00:00Z"),
        ("SPXW", "2018-12-24", "SPXW", "pm", "2018-12-24T18:00:00Z", "2018-12-24T18:00:00Z"),
        ("INDEX:NDX", "2020-03-20", "NDX", "am", "2020-03-19T20:15:00Z", "2020-03-20T13:30:00Z"),
        ("VIX", "2020-03-18", "VIX", "am", "2020-03-17T20:15:00Z", "2020-03-18T13:30:00Z"),
    ],
)
def test_index_options_settle_am_or_pm_by_root_and_date(
    root: str, listed: str, canonical: str, session: str, last_trade: str, expiry: str
) -> None:
    """Standard monthlies settle on the opening after a last session, weeklies on the close; both a minute later."""
    option = option_contract(root, date.fromisoformat(listed), "p", Decimal("3700"))
    assert (option.id[:6].rstrip(), option.session) == (canonical, session)
    assert instants(option)[:2] == (last_trade, expiry)
    assert option.settles == option.expiry + 60_000_000_000
    assert (option.style, option.settlement, option.calendar) == ("european", "cash", "XCBO")


@pytest.mark.parametrize(
    ("root", "listed", "expiry", "underlying", "style"),
    [
        ("ES", "2020-03-20", "2020-03-20T13:30:00Z", "CME:ESH2020", "american"),
        ("ES", "2020-12-18", "2020-12-18T14:30:00Z", "CME:ESZ2020", "american"),
        ("ES", "2008-03-20", "2008-03-20T13:30:00Z", "CME:ESH2008", "american"),
        ("ES", "2020-01-31", "2020-01-31T21:00:00Z", "CME:ESH2020", "european"),
        ("ES", "2020-03-25", "2020-03-25T20:00:00Z", "CME:ESM2020", "european"),
        ("EW", "2020-12-31", "2020-12-31T21:00:00Z", "CME:ESH2021", "european"),
        ("CME:ESM20", "2020-01-17", "2020-01-17T21:00:00Z", "CME:ESM2020", "european"),
        ("NQ", "2020-06-19", "2020-06-19T13:30:00Z", "CME:NQM2020", "american"),
    ],
)
def test_equity_future_options_end_on_the_opening_when_quarterly(
    root: str, listed: str, expiry: str, underlying: str, style: str
) -> None:
    """Quarterly options end at 09:30 New York into their own future, others at 16:00 into the next quarterly one."""
    option = option_contract(root, date.fromisoformat(listed), "c", "3000")
    assert instants(option) == (expiry, expiry, expiry)
    assert (option.underlying, option.style, option.settlement) == (underlying, style, "physical")


def test_the_exact_instant_overrides_the_rule() -> None:
    """An expiry given as an instant is the expiry, and the id carries its New York date."""
    at = parse_instant("2020-03-21T02:00:00Z")
    option = option_contract("ES", at, "c", "3000", kind="future_option")
    assert option.expiry == option.last_trade == at
    assert option.id == "ES    200320C03000000"
    assert option.underlying == "CME:ESM2020"


def test_an_instant_at_the_close_of_a_third_friday_is_the_pm_contract() -> None:
    """On a day that lists both, the instant decides between the opening's contract and the close's."""
    close, opening = parse_instant("2019-05-17T20:00:00Z"), parse_instant("2019-05-17T13:30:00Z")
    pm, am = option_contract("SPX", close, "c", "2900"), option_contract("SPX", opening, "c", "2900")
    assert (pm.id[:4], pm.session, pm.last_trade) == ("SPXW", "pm", close)
    assert (am.id[:4], am.session, iso(am.last_trade)) == ("SPX ", "am", "2019-05-16T20:15:00Z")


def test_every_term_can_be_overridden() -> None:
    """What the caller says stands over the tables."""
    option = option_contract(
        "SPX",
        date(2020, 3, 20),
        -1,
        "3000",
        session="pm",
        style="american",
        settlement="physical",
        multiplier=Decimal(10),
        currency="EUR",
        tick=Decimal("0.5"),
    )
    assert (option.session, option.style, option.settlement) == ("pm", "american", "physical")
    assert (option.multiplier, option.currency, option.tick) == (Decimal(10), "EUR", Decimal("0.5"))
    assert iso(option.expiry) == "2020-03-20T20:00:00Z"


def test_words_that_mean_two_things_are_told_apart_by_kind_or_venue() -> None:
    """ES is an index future and a listed share; the type or the underlying's venue says which."""
    assert option_contract("ES", date(2020, 1, 17), "c", "60", kind="option").underlying == "US:ES"
    assert resolve_instrument("ES    200117C00060000", underlying="US:ES").multiplier == 100
    assert resolve_instrument("ES    200117C00060000").multiplier == 50
    assert resolve_instrument("ES", kind="stock").id == "US:ES"
    assert resolve_instrument("CL    200117C00060000").multiplier == 100
    with pytest.raises(BookError, match="names a future and a share"):
        resolve_instrument("ES")


def test_a_commodity_option_needs_its_future_named() -> None:
    """Where month and future differ by product rules nothing is guessed."""
    with pytest.raises(BookError, match="name the future"):
        option_contract("CL", date(2020, 2, 13), "c", "60", kind="future_option")
    option = option_contract("LO", date(2020, 2, 13), "c", "60", underlying="NYMEX:CLH2020")
    assert (option.id[:2], option.underlying, option.multiplier) == ("LO", "NYMEX:CLH2020", Decimal(1000))
    with pytest.raises(BookError, match="after its future NYMEX:CLH2020"):
        option_contract("LO", date(2020, 3, 13), "c", "60", underlying="CLH2020")
    with pytest.raises(BookError, match="delivers a future of ES, found NQ"):
        option_contract("ES", date(2020, 3, 20), "c", "60", underlying="NQH2020")


@pytest.mark.parametrize(("root", "adjusted"), [("AAPL1", True), ("GOOG7", True), ("EW1", False), ("SPXW", False)])
def test_adjusted_roots_are_known_by_their_digit(root: str, adjusted: bool) -> None:
    """A trailing digit marks an adjusted equity root, but not a weekly root of the tables."""
    assert is_adjusted_root(root) is adjusted


def test_adjusted_contracts_need_a_deliverable() -> None:
    """An adjusted root is refused until what it delivers is given."""
    with pytest.raises(BookError, match="AAPL1: adjusted contract"):
        resolve_instrument("AAPL1 140719C00100000")
    deliverable = parse_deliverable("US:AAPL=100 + CASH:USD=33.50")
    option = resolve_instrument("AAPL1140719C00100000", deliverable=deliverable)
    assert isinstance(option, OptionContract)
    assert (option.id, option.underlying, option.deliverable) == ("AAPL1 140719C00100000", "US:AAPL", deliverable)
    spun = option_contract("TWX1", date(2014, 7, 19), "c", "70", deliverable=parse_deliverable("US:TIME=12"))
    assert spun.underlying == "US:TIME"


@pytest.mark.parametrize("text", ["", "AAPL=100", "US:AAPL", "US:AAPL=0", "US:AAPL=x", "US:AAPL=1+US:AAPL=2"])
def test_deliverables_that_cannot_be_read_are_refused(text: str) -> None:
    """A deliverable names each instrument once with a positive quantity."""
    with pytest.raises(BookError, match="deliverable"):
        parse_deliverable(text)


@pytest.mark.parametrize("word", ["ESH20", "ESH2020", "ES202003", "CME:ESH2020", "cme:esh20", " esh2020 "])
def test_one_future_by_many_names(word: str) -> None:
    """Every usual way to write the March 2020 future names the same instrument."""
    contract = resolve_instrument(word)
    assert isinstance(contract, Future)
    assert (contract.id, iso(contract.expiry)) == ("CME:ESH2020", "2020-03-20T13:30:00Z")
    assert (contract.multiplier, contract.tick, contract.calendar) == (Decimal(50), Decimal("0.25"), "CME-EQUITY")


@pytest.mark.parametrize(
    ("word", "ends"),
    [
        ("ESH2008", "2008-03-20T13:30:00Z"),
        ("CLH2020", "2020-02-20T19:30:00Z"),
        ("CLK2020", "2020-04-21T18:30:00Z"),
        ("NGH2020", "2020-02-26T19:30:00Z"),
        ("GCJ2020", "2020-04-28T17:30:00Z"),
        ("ZNH2020", "2020-03-20T17:01:00Z"),
        ("6EH2020", "2020-03-16T14:16:00Z"),
        ("BTCH2020", "2020-03-27T16:00:00Z"),
        ("VXH2020", "2020-03-18T13:00:00Z"),
    ],
)
def test_futures_stop_trading_by_their_products_rule(word: str, ends: str) -> None:
    """The last trading instant follows the exchange's rule of the product."""
    contract = resolve_instrument(word)
    assert isinstance(contract, Future) and iso(contract.expiry) == ends


def test_a_future_by_root_and_expiry() -> None:
    """A product with an expiry date names its month; where months end in the month before, the month must be said."""
    assert resolve_instrument("ES", kind="future", expiry=date(2020, 3, 20)).id == "CME:ESH2020"
    with pytest.raises(BookError, match="end in the month before"):
        resolve_instrument("CL", kind="future", expiry=date(2020, 2, 20))
    with pytest.raises(BookError, match="expected a futures month"):
        resolve_instrument("ES", kind="future")


def test_unknown_futures_need_their_terms() -> None:
    """A root outside the tables is taken with venue, size and expiry, and refused without."""
    own = future("XX", 2030, 6, venue="EUREX", multiplier=Decimal(10), expiry=parse_instant("2030-06-21T10:00:00Z"))
    assert (own.id, own.multiplier, own.calendar) == ("EUREX:XXM2030", Decimal(10), "24/7")
    with pytest.raises(BookError, match=r"did you mean MES\?"):
        future("MESS", 2030, 6)


@pytest.mark.parametrize(
    ("word", "kind", "identity", "currency", "calendar"),
    [
        ("goog", Spot, "US:GOOG", "USD", "XNYS"),
        ("US:BRK.B", Spot, "US:BRK.B", "USD", "XNYS"),
        ("SPX", Index, "INDEX:SPX", "USD", "XCBO"),
        ("SIM:XYZ", Spot, "SIM:XYZ", "USD", "24/7"),
        ("FX:EURJPY", Spot, "FX:EURJPY", "JPY", "24/7"),
        ("BINANCE:BTCUSDT", Perpetual, "BINANCE:BTCUSDT", "USDT", "24/7"),
    ],
)
def test_linear_instruments(word: str, kind: type, identity: str, currency: str, calendar: str) -> None:
    """Tickers, indices, pairs and perpetuals get their canonical id, currency and hours."""
    found = resolve_instrument(word)
    assert type(found) is kind
    assert (found.id, found.currency, found.calendar) == (identity, currency, calendar)


def test_a_coin_margined_perpetual_is_inverse() -> None:
    """BTCUSD_PERP is 100 dollars a contract, settled in bitcoin; the same pair may be held as spot by saying so."""
    perpetual = resolve_instrument("BINANCE:BTCUSD_PERP")
    assert isinstance(perpetual, Perpetual) and perpetual.inverse
    assert (perpetual.multiplier, perpetual.settlement_currency) == (Decimal(100), "BTC")
    spot = resolve_instrument("BINANCE:BTCUSDT", kind="stock")
    assert isinstance(spot, Spot) and spot.currency == "USDT"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("", "found nothing"),
        ("FOO:BAR", "expected a venue of"),
        ("CBOT:ESH2020", "expected venue CME for ES, found CBOT"),
        ("SPX   210104C03700000", "belongs to SPXW"),
        ("NOT A WORD", "OCC symbol, VENUE:SYMBOL or a ticker"),
        ("AAPL  201332C00100000", "OCC symbol, VENUE:SYMBOL or a ticker"),
        ("AAPL  200320C00000000", "strike"),
        ("US:A\u00e9", "US:A"),
    ],
)
def test_words_that_name_nothing_are_refused(word: str, message: str) -> None:
    """A word without a meaning is refused with what was expected."""
    with pytest.raises(BookError, match=message):
        resolve_instrument(word)


@pytest.mark.parametrize(
    ("cp", "strike", "listed", "message"),
    [
        ("x", "100", date(2020, 3, 20), "cp: expected call, put"),
        ("c", "nan", date(2020, 3, 20), "strike"),
        ("c", "-1", date(2020, 3, 20), "strike"),
        ("c", "0.0001", date(2020, 3, 20), "strike"),
        ("c", "100000", date(2020, 3, 20), "strike"),
        ("c", "100", date(1980, 1, 18), "expected an expiration from 1991"),
        ("c", "100", date(9999, 12, 31), "expected an expiration from 1991"),
    ],
)
def test_option_terms_out_of_range_are_refused(cp: str, strike: str, listed: date, message: str) -> None:
    """Sides, strikes and dates that no listed option has are refused by name."""
    with pytest.raises(EvenkeelError, match=message):
        option_contract("GOOG", listed, cp, strike)


def test_futures_words() -> None:
    """A futures word gives venue, root, year and month; two digits from 70 on are of the last century."""
    assert parse_future("CME:ESZ99") == ("CME", "ES", 1999, 12)
    assert parse_future("6E202012") == (None, "6E", 2020, 12)
    assert parse_future("ES202013") is None and parse_future("GOOG") is None


def test_third_fridays_are_fridays_of_the_third_week() -> None:
    """The third Friday is a Friday between the 15th and the 21st of every month."""
    for month in range(12 * 1995, 12 * 2030):
        day = third_friday(month // 12, month % 12 + 1)
        assert day.weekday() == 4 and 15 <= day.day <= 21


@pytest.mark.real
def test_expiry_instants_agree_with_the_independent_reference() -> None:
    """Each expiry instant of the reference set is what the listed date of its contract resolves to."""
    cases = json.loads((_realdata_root() / "reference.json").read_text())["cases"]
    checked = 0
    for name, case in cases.items():
        root = name.split("_")[0]
        for line in [case, *(sub for sub in case.values() if isinstance(sub, dict))]:
            if "expiry_instant" not in line:
                continue
            option = option_contract(root, date.fromisoformat(line["expiry"]), "call", "750")
            assert iso(option.expiry) == line["expiry_instant"], name
            assert option.multiplier == line["multiplier"], name
            checked += 1
    assert checked >= 8
