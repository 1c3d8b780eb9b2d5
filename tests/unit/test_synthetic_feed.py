"""The synthetic feed: one seed one session, quotes that a venue could show, options that their smile explains."""

from __future__ import annotations

import dataclasses
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from adapters.synthetic import (
    Chain,
    HestonParameters,
    Smile,
    SyntheticFeed,
    SyntheticOptions,
    draw_path,
    quote_times,
)
from bot.core.errors import ConfigError, DataError
from bot.core.ports import BindsUniverse, Feed, ListsInstruments
from bot.domain.instruments import OptionContract, Spot, Universe
from bot.domain.market import QuoteBatch
from bot.domain.units import NS_PER_MINUTE, NS_PER_SECOND, NS_PER_YEAR, decimal_of, parse_instant
from bot.pricing import black, implied
from bot.pricing.status import Status

START = parse_instant("2025-03-03T14:30:00Z")
CHAIN = Chain(
    root="XYZ",
    expiries=(date(2025, 3, 21), date(2025, 6, 20)),
    strikes=tuple(Decimal(k) for k in (60, 80, 90, 95, 100, 105, 110, 120, 150)),
    every=4,
)
OPTIONS = SyntheticOptions(
    start=START,
    end=START + 5 * NS_PER_MINUTE,
    seed=3,
    vol=0.3,
    rate=0.04,
    smile=Smile(skew=-0.15, curvature=0.6),
    chain=CHAIN,
    batch_rows=97,
)


@dataclasses.dataclass
class Session:
    universe: Universe
    batches: list[QuoteBatch]
    feed: SyntheticFeed

    def column(self, name: str) -> np.ndarray:
        return np.concatenate([getattr(batch, name) for batch in self.batches])

    def of(self, instrument: str) -> np.ndarray:
        return np.asarray(self.column("instrument") == self.universe.index(instrument))


async def play(options: SyntheticOptions, *, wanted: Any = (), only: Any = None) -> Session:
    feed = SyntheticFeed(options, wanted=wanted)
    universe = Universe([*feed.instruments(""), *wanted] if only is None else only)
    feed.bind(universe)
    batches: list[QuoteBatch] = []
    async with feed:
        async for event in feed.events():
            assert isinstance(event, QuoteBatch)
            batches.append(event)
    return Session(universe, batches, feed)


def rows(session: Session) -> list[tuple[Any, ...]]:
    columns = [np.nan_to_num(session.column(name), nan=-1.0).tolist() for name in sorted(QuoteBatch.__slots__)]
    return list(zip(*columns, strict=True))


def changed(**values: Any) -> SyntheticOptions:
    return msgspec.structs.replace(OPTIONS, **values)


def test_is_a_feed_that_lists_and_binds() -> None:
    """It offers the feed port and both optional ones, does nothing when made and says it is a recording."""
    feed = SyntheticFeed(OPTIONS)
    assert isinstance(feed, Feed)
    assert isinstance(feed, ListsInstruments)
    assert isinstance(feed, BindsUniverse)
    assert feed.recorded


@pytest.mark.parametrize("model", ["gbm", "heston", "merton"])
async def test_one_seed_is_one_session_however_it_is_cut(model: str) -> None:
    """The same options give the same rows at any batch size and on any call; another seed gives others."""
    first, again, single, whole, other = [
        rows(await play(changed(model=model, **more)))
        for more in ({}, {}, {"batch_rows": 1}, {"batch_rows": 10**6}, {"seed": 4})
    ]
    assert first == again == single == whole
    assert first != other


async def test_batches_are_no_longer_than_asked() -> None:
    """No batch has more rows than `batch_rows`, and the report counts every row."""
    session = await play(OPTIONS)
    assert max(len(batch) for batch in session.batches) == 97
    assert session.feed.report().quotes == len(session.column("bid"))
    assert "synthetic" in session.feed.report().notes[0]


@pytest.mark.parametrize("model", ["gbm", "heston", "merton"])
async def test_quotes_are_such_as_a_venue_shows(model: str) -> None:
    """Time never goes back, no quote is crossed, prices are positive and print as decimals on the tick."""
    session = await play(changed(model=model))
    ts, bid, ask = session.column("ts_recv"), session.column("bid"), session.column("ask")
    assert (np.diff(ts) >= 0).all()
    assert not (bid > ask).any()
    assert (ask > 0).all()
    assert (bid[np.isfinite(bid)] > 0).all()
    prices = {float(p) for p in np.concatenate([bid, ask]) if np.isfinite(p)}
    assert all(decimal_of(p) % Decimal("0.01") == 0 for p in prices)
    assert session.column("bid_size")[np.isnan(bid)].max() == 0.0


async def test_the_underlying_comes_first_at_each_step_to_the_end() -> None:
    """Each step has one underlying quote ahead of its options, options come each fourth step, the last step is the end."""
    session = await play(OPTIONS)
    ours = session.of("SIM:XYZ")
    ts, instrument = session.column("ts_recv"), session.column("instrument")
    assert ts[ours].tolist() == list(range(OPTIONS.start, OPTIONS.end + 1, NS_PER_SECOND))
    firsts = np.flatnonzero(np.diff(ts, prepend=-1) > 0)
    assert (instrument[firsts] == session.universe.index("SIM:XYZ")).all()
    assert np.unique(ts[~ours]).tolist() == ts[ours][::4].tolist()
    assert (~ours).sum() == len(ts[ours][::4]) * 36


async def test_options_are_quoted_around_their_smile() -> None:
    """The model value at the feed's own path and smile lies inside every two-sided quote, whose implied vol is the smile's."""
    session = await play(OPTIONS)
    _, path_ts, spots, _ = next(draw_path(OPTIONS))
    for item in session.universe:
        if not isinstance(item, OptionContract):
            continue
        mine = session.of(item.id)
        ts, bid, ask = (session.column(name)[mine] for name in ("ts_recv", "bid", "ask"))
        spot = spots[np.searchsorted(path_ts, ts)]
        tau = (item.expiry - ts) / NS_PER_YEAR
        forward = spot * np.exp(OPTIONS.rate * tau)
        k = np.log(float(item.strike) / forward)
        smile = np.clip(0.3 - 0.15 * k + 0.6 * k * k, 0.075, 1.2)
        value = black.bsm(spot, float(item.strike), tau, smile, rate=OPTIONS.rate, cp=item.cp).price
        both = np.isfinite(bid)
        assert (bid[both] < value[both]).all()
        assert (value < ask).all()
        if abs(float(item.strike) - 100) <= 10 and both.all():
            found, status = implied.vol(
                0.5 * (bid + ask), forward, float(item.strike), tau, discount=np.exp(-OPTIONS.rate * tau), cp=item.cp
            )
            assert (status == Status.OK).all()
            assert np.abs(found - smile).max() < 0.01


async def test_wings_are_wider_and_worthless_ones_lose_their_bid() -> None:
    """Relative to its price a wing is quoted wider than the money; what is worth less than its half spread has no bid."""
    session = await play(OPTIONS)

    def spread(instrument: str) -> tuple[float, float]:
        bid, ask = session.column("bid")[session.of(instrument)][0], session.column("ask")[session.of(instrument)][0]
        return ask - bid, 0.5 * (ask + bid)

    near, mid = spread("XYZ   250620C00100000")
    wing, low = spread("XYZ   250620C00120000")
    assert wing / low > near / mid
    dead = session.of("XYZ   250321P00060000")
    assert np.isnan(session.column("bid")[dead]).all()
    assert np.isfinite(session.column("ask")[dead]).all()
    assert session.column("ask")[dead].max() < 1.0


async def test_only_bound_options_are_quoted_those_of_the_book_beyond_the_chain_too() -> None:
    """A bound contract on the underlying is quoted whether listed or not; a listed one that is not bound is not."""
    own = OptionContract(
        id="XYZ   250919C00103000",
        underlying="SIM:XYZ",
        cp=1,
        strike=Decimal(103),
        style="american",
        settlement="cash",
        last_trade=parse_instant("2025-09-19T20:00:00Z"),
        expiry=parse_instant("2025-09-19T20:00:00Z"),
        settles=parse_instant("2025-09-19T20:00:00Z"),
    )
    session = await play(OPTIONS, only=[Spot(id="SIM:XYZ"), own])
    assert set(session.column("instrument").tolist()) == {0, 1}


def test_the_books_own_definition_wins() -> None:
    """An instrument the book describes is listed as the book describes it, so that one universe holds both."""
    listed = {item.id: item for item in SyntheticFeed(OPTIONS).instruments("")}
    assert len(listed) == 37
    call = listed["XYZ   250321C00100000"]
    assert isinstance(call, OptionContract)
    assert call.expiry == parse_instant("2025-03-21T20:00:00Z")
    mine = msgspec.structs.replace(call, settlement="cash", multiplier=Decimal(10))
    feed = SyntheticFeed(OPTIONS, wanted=[mine])
    assert mine in feed.instruments("")
    assert len(Universe([*feed.instruments(""), mine])) == 37
    assert [item.id for item in feed.instruments("C00100000")] == ["XYZ   250321C00100000", "XYZ   250620C00100000"]


async def test_a_contract_is_quoted_until_its_expiry() -> None:
    """Before its expiry instant an option is quoted, at it and after no more, while the underlying goes on."""
    expiry = parse_instant("2025-03-21T20:00:00Z")
    options = changed(start=expiry - 10 * NS_PER_SECOND, end=expiry + 10 * NS_PER_SECOND, chain=CHAIN)
    session = await play(options)
    ts = session.column("ts_recv")
    assert ts[session.of("XYZ   250321C00100000")].max() == expiry - 2 * NS_PER_SECOND
    assert ts[session.of("XYZ   250620C00100000")].max() == expiry + 10 * NS_PER_SECOND


async def test_without_a_chain_the_underlying_is_alone() -> None:
    """Chain-less, a long session is underlying quotes only, and its realised vol is the one asked for."""
    options = SyntheticOptions(
        start=START, end=START + 150_000 * NS_PER_SECOND, vol=0.5, seed=9, tick=Decimal("0.0001")
    )
    session = await play(options)
    mid = 0.5 * (session.column("bid") + session.column("ask"))
    assert len(mid) == 150_001  # more than two blocks of the path
    minutes = np.diff(np.log(mid[::60]))
    assert minutes.std() * np.sqrt(365 * 1440) == pytest.approx(0.5, rel=0.05)
    assert np.abs(np.diff(mid)).max() < 0.1


def test_hours_cut_the_days_to_sessions_in_local_time() -> None:
    """Hours keep quotes to weekdays between local opens and closes, across the change to summer time."""
    options = SyntheticOptions(
        start=parse_instant("2025-03-07T00:00:00Z"),
        end=parse_instant("2025-03-11T00:00:00Z"),
        step=30 * NS_PER_MINUTE,
        hours=("09:30", "16:00"),
    )
    times = quote_times(options)
    assert times[[0, 13, 14, 27]].tolist() == [
        parse_instant(text)
        for text in ("2025-03-07T14:30:00Z", "2025-03-07T21:00:00Z", "2025-03-10T13:30:00Z", "2025-03-10T20:00:00Z")
    ]
    assert len(times) == 28


def test_moneyness_makes_strikes_on_their_step() -> None:
    """A chain by moneyness lists each rounded strike once, in order."""
    chain = msgspec.structs.replace(
        CHAIN, strikes=(), moneyness=(0.9, 1.0, 1.001, 1.1), strike_step=Decimal("2.5"), expiries=(date(2025, 3, 21),)
    )
    ids = [item.id for item in SyntheticFeed(changed(chain=chain)).instruments("XYZ   ")]
    assert [text[13:] for text in ids if text[12] == "C"] == ["00090000", "00100000", "00110000"]


async def test_heston_options_follow_the_variance() -> None:
    """Under Heston the at-the-money level starts near the initial vol and, far out, near the long one."""
    heston = HestonParameters(mean_reversion=20.0, long_variance=0.09, vol_of_variance=0.3)
    flat = changed(model="heston", vol=0.15, heston=heston, smile=Smile(), end=START + 4 * NS_PER_SECOND)
    session = await play(flat)
    levels = []
    for expiry in ("250321", "250620"):
        name = f"XYZ   {expiry}C00100000"
        item = session.universe.get(name)
        assert isinstance(item, OptionContract)
        mine = session.of(name)
        tau = (item.expiry - START) / NS_PER_YEAR
        mid = 0.5 * (session.column("bid")[mine][0] + session.column("ask")[mine][0])
        found = implied.vol(mid, 100.0 * np.exp(0.04 * tau), 100.0, tau, discount=np.exp(-0.04 * tau)).vol
        levels.append(float(found))
    assert 0.15 < levels[0] < levels[1] < 0.3


async def test_settings_of_a_file_are_read_and_their_faults_named() -> None:
    """A mapping, as a configuration gives it, makes the same feed; unknown keys and wrong values are refused by name."""
    settings = msgspec.to_builtins(OPTIONS, builtin_types=(Decimal, date))
    assert rows(await play(settings)) == rows(await play(OPTIONS))
    for fault, name in (
        ({"sede": 1}, "sede"),
        ({"vol": "much"}, "vol"),
        ({"vol": -0.1}, "vol"),
        ({"step": 0}, "step"),
        ({"end": START - 1}, "end"),
        ({"chain": {"root": "XYZ", "expiries": [date(2025, 3, 21)]}}, "strikes or moneyness"),
    ):
        with pytest.raises(ConfigError, match=name):
            SyntheticFeed({**settings, **fault})
    with pytest.raises(ConfigError, match="zone"):
        quote_times(changed(hours=("09:30", "16:00"), zone="Mars/Olympus"))


async def test_an_unbound_feed_refuses_to_play() -> None:
    """Without column numbers, or with a universe that lacks its underlying, the feed says what it expected."""
    feed = SyntheticFeed(OPTIONS)
    with pytest.raises(DataError, match="bind"):
        async for _ in feed.events():
            pass
    with pytest.raises(DataError, match="SIM:XYZ"):
        feed.bind(Universe([Spot(id="SIM:OTHER")]))


async def test_the_digest_names_the_session_and_not_its_batches() -> None:
    """The report's digest is the same for any batching and another for any other option."""
    digests = []
    for options in (OPTIONS, changed(batch_rows=5), changed(seed=8)):
        session = await play(options)
        digests.append(session.feed.report().files)
    assert digests[0] == digests[1] != digests[2]
