"""The scenario feed: its script alone decides its rows; regimes, gaps, crowds, bonds, deals and failures are as written."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from adapters.scenario import (
    BondQuotes,
    CorporateScript,
    Crowd,
    DealScript,
    NoticeScript,
    Outage,
    Regime,
    ScenarioFeed,
    ScenarioOptions,
    Shock,
    Underlying,
)
from bot.core.errors import ConfigError, DataError
from bot.core.events import Corporate, FeedEvent, Notice
from bot.core.notices import DealNotice, read_notice
from bot.domain.convertible import ConvertibleModel, ConvertibleTerms
from bot.domain.deals import Collar
from bot.domain.instruments import ConvertibleBond, Instrument, OptionContract, Universe, occ_id
from bot.domain.market import QuoteBatch
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_YEAR, Nanos, parse_instant, utc_date
from bot.pricing import black, deal
from bot.pricing.convertible_shelf import Shelf, called

START: Nanos = parse_instant("2025-01-06T14:30:00Z")
DAY, HOUR = NS_PER_DAY, 60 * NS_PER_MINUTE
ONE, TWO = Underlying(id="SIM:ONE", spot=100.0, vol=0.3), Underlying(id="SIM:TWO", spot=50.0, vol=0.2)
BOND = ConvertibleBond(
    id="BOND:ONE28",
    underlying="SIM:ONE",
    multiplier=Decimal(10),
    reference=START,
    terms=ConvertibleTerms(maturity=3.0, ratio=9.0, face=1000.0, coupons=((1.0, 20.0), (2.0, 20.0), (3.0, 20.0))),
    model=ConvertibleModel(vol=0.3, rate=0.03, spread=0.02),
)


def script(**more: Any) -> ScenarioOptions:
    known: dict[str, Any] = {"start": START, "end": START + 10 * DAY, "underlyings": (ONE, TWO), "step": HOUR}
    return ScenarioOptions(**(known | more))


def play(options: ScenarioOptions, extra: Sequence[Instrument] = ()) -> tuple[list[FeedEvent], Universe]:
    feed = ScenarioFeed(options, wanted=extra)
    universe = Universe([*feed.instruments(""), *extra])
    feed.bind(universe)

    async def gather() -> list[FeedEvent]:
        async with feed:
            return [event async for event in feed.events()]

    return asyncio.run(gather()), universe


def rows(events: Sequence[FeedEvent], universe: Universe, key: str) -> dict[str, np.ndarray]:
    """The quotes of one instrument as columns."""
    k = universe.index(key)
    batches = [e for e in events if isinstance(e, QuoteBatch)]
    chosen = [b.instrument == k for b in batches]
    return {
        name: np.concatenate([getattr(b, name)[rows] for b, rows in zip(batches, chosen, strict=True)])
        for name in ("ts_recv", "bid", "ask", "bid_size")
    }


def mids(events: Sequence[FeedEvent], universe: Universe, key: str) -> np.ndarray:
    found = rows(events, universe, key)
    return np.asarray(0.5 * (found["bid"] + found["ask"]))


def digest(events: Sequence[FeedEvent]) -> list[Any]:
    """What was yielded, row by row, however it was cut."""
    out: list[Any] = []
    for e in events:
        if isinstance(e, QuoteBatch):
            out += list(
                zip(
                    e.ts_recv.tolist(),
                    e.instrument.tolist(),
                    map(repr, e.bid.tolist()),
                    map(repr, e.ask.tolist()),
                    strict=True,
                )
            )
        else:
            out.append(msgspec.json.encode(e))
    return out


FULL: dict[str, Any] = {
    "correlation": ((1.0, 0.5), (0.5, 1.0)),
    "regimes": (Regime(at=START + 3 * DAY, vols={"SIM:ONE": 0.9}, correlation=((1.0, -0.9), (-0.9, 1.0))),),
    "shocks": (Shock(at=START + 5 * DAY, moves={"SIM:TWO": -0.2}),),
    "bonds": (BondQuotes(instrument=BOND.id, wander=0.5, every=3),),
    "deals": (
        DealScript(
            target="SIM:TGT",
            acquirer="SIM:ONE",
            ratio=0.5,
            break_price=40.0,
            expected_close=START + 30 * DAY,
            at=START + 8 * DAY,
        ),
    ),
    "outages": (Outage(instrument="SIM:ONE", start=START + DAY, end=START + 2 * DAY),),
    "notices": (NoticeScript(at=START + 4 * DAY, namespace="other/3", payload={"word": 1}),),
}


@pytest.mark.parametrize("batch_rows", [1, 7, 4096])
def test_the_script_alone_decides_the_rows(batch_rows: int) -> None:
    """Any batching, and a second asking, give the same rows and announcements in the same order; times never go back."""
    whole, _ = play(script(**FULL), [BOND])
    cut, _ = play(script(**FULL, batch_rows=batch_rows), [BOND])
    assert digest(cut) == digest(whole)
    times = [t for e in cut for t in (e.ts_recv.tolist() if isinstance(e, QuoteBatch) else [e.ts_recv])]
    assert times == sorted(times)


def test_another_seed_is_another_session_and_a_bond_more_changes_no_price() -> None:
    """Streams are apart: leaving the bond and the deal out leaves the shares alone."""
    full, universe = play(script(**FULL), [BOND])
    bare, other = play(script(**{k: v for k, v in FULL.items() if k not in {"bonds", "deals"}}))
    np.testing.assert_array_equal(mids(full, universe, "SIM:TWO"), mids(bare, other, "SIM:TWO"))
    seeded, third = play(script(**FULL, seed=2), [BOND])
    assert (mids(seeded, third, "SIM:TWO") != mids(full, universe, "SIM:TWO")).mean() > 0.9


def test_vols_and_correlations_are_those_of_the_regime() -> None:
    """Before the change 0.3, 0.2 and +0.8, after it 0.6, 0.2 and -0.5: each within 4 standard errors over 20,000 steps."""
    change = START + 20_000 * HOUR
    options = script(
        end=START + 40_000 * HOUR,
        correlation=((1.0, 0.8), (0.8, 1.0)),
        regimes=(Regime(at=change, vols={"SIM:ONE": 0.6}, correlation=((1.0, -0.5), (-0.5, 1.0))),),
        underlyings=tuple(msgspec.structs.replace(u, tick=Decimal("0.0001")) for u in (ONE, TWO)),
    )
    events, universe = play(options)
    moves = np.diff(np.log([mids(events, universe, key) for key in ("SIM:ONE", "SIM:TWO")]), axis=1)
    for part, vols, rho in ((moves[:, :20_000], (0.3, 0.2), 0.8), (moves[:, 20_000:], (0.6, 0.2), -0.5)):
        n = part.shape[1]
        found = part.std(axis=1) * math.sqrt(NS_PER_YEAR / HOUR)
        np.testing.assert_allclose(found, vols, rtol=4.0 / math.sqrt(2 * n))
        assert np.corrcoef(part)[0, 1] == pytest.approx(rho, abs=4.0 * (1.0 - rho**2) / math.sqrt(n))


def test_a_shock_gaps_once_by_what_is_written() -> None:
    """A fall of 20 % at an instant is between two quotes and stays."""
    options = script(
        underlyings=(msgspec.structs.replace(ONE, vol=0.0), TWO),
        shocks=(Shock(at=START + DAY + 1, moves={"SIM:ONE": -0.2}),),
    )
    events, universe = play(options)
    found = rows(events, universe, "SIM:ONE")
    middle = mids(events, universe, "SIM:ONE")
    assert set(middle[found["ts_recv"] <= START + DAY]) == {100.0}
    assert set(middle[found["ts_recv"] > START + DAY]) == {80.0}


def test_jumps_leave_the_mean_and_add_their_variance() -> None:
    """With 50 jumps a year of deviation 5 %, the realised variance is vol^2 + 50 x 0.05^2 within 4 standard errors."""
    item = msgspec.structs.replace(ONE, intensity=50.0, jump_vol=0.05, tick=Decimal("0.0001"))
    events, universe = play(script(end=START + 20_000 * HOUR, underlyings=(item,)))
    moves = np.diff(np.log(mids(events, universe, "SIM:ONE")))
    years = len(moves) * HOUR / NS_PER_YEAR
    error = math.sqrt(3.0 * 50.0 * 0.05**4 / years)
    assert (moves**2).sum() / years == pytest.approx(0.3**2 + 50.0 * 0.05**2, abs=4.0 * error + 0.01 * 0.09)


@pytest.mark.parametrize(("quantity", "sign"), [(-40_000.0, 1.0), (40_000.0, -1.0)])
def test_hedgers_raise_the_vol_they_are_short_of_and_lower_the_vol_they_are_long_of(
    quantity: float, sign: float
) -> None:
    """Realised vol against the same draws without the crowd is 1 - coefficient S quantity gamma / adv, to its mean."""
    expiry = START + 400 * DAY
    item = msgspec.structs.replace(ONE, tick=Decimal("0.0001"), half_spread=0.5)
    crowd = Crowd(
        underlying="SIM:ONE", quantity=quantity, strike=100.0, expiry=expiry, vol=0.3, coefficient=0.05, adv=10_000.0
    )
    length = {"end": START + 60 * DAY, "step": 10 * NS_PER_MINUTE, "underlyings": (item,)}
    plain, universe = play(script(**length))
    pushed, _ = play(script(**length, crowds=(crowd,)))
    quiet, loud = (np.diff(np.log(mids(e, universe, "SIM:ONE"))) for e in (plain, pushed))
    S = mids(pushed, universe, "SIM:ONE")[:-1]
    tau = (expiry - rows(pushed, universe, "SIM:ONE")["ts_recv"][:-1]) / NS_PER_YEAR
    gamma = black.bsm(S, 100.0, tau, 0.3).gamma
    feedback = -0.05 * S * quantity * gamma / 10_000.0
    np.testing.assert_array_equal(np.sign(feedback), sign)
    expected = math.sqrt(float(np.mean(((1.0 + feedback) * quiet) ** 2) / np.mean(quiet**2)))
    found = loud.std() / quiet.std()
    assert abs(expected - 1.0) > 0.02
    assert found == pytest.approx(expected, rel=0.005)


def test_a_bond_is_quoted_round_its_model_and_follows_its_notices() -> None:
    """Its middle is the model's value; after a call it is that of the called bond; after its redemption it is no more."""
    effective = START + 8 * DAY
    payload = {"instrument": BOND.id, "what": "call", "effective": "2025-01-14T14:30:00Z", "price": 101.0}
    options = script(
        bonds=(BondQuotes(instrument=BOND.id, half_spread=0.2, tick=Decimal("0.001"), richness=0.5),),
        notices=(NoticeScript(at=START + 4 * DAY, namespace="convertible/1", payload=payload),),
        corporates=(CorporateScript(at=effective, what="redemption", instrument=BOND.id, cash=Decimal(101)),),
    )
    events, universe = play(options, [BOND])
    found, shelf = rows(events, universe, BOND.id), Shelf()
    assert found["ts_recv"].max() < effective
    spots = dict(
        zip(rows(events, universe, "SIM:ONE")["ts_recv"].tolist(), mids(events, universe, "SIM:ONE"), strict=True)
    )
    after = called(BOND.terms, at=BOND.years(effective), price=1010.0)
    for ts, bid, ask in zip(*(found[name].tolist() for name in ("ts_recv", "bid", "ask")), strict=True):
        terms = None if ts < START + 4 * DAY else after
        value = float(shelf.value(BOND, spots[ts], ts, terms=terms).price) + 0.5
        assert 0.5 * (bid + ask) == pytest.approx(value, abs=0.02)  # the path lies within half a tick of its quote
        assert ask - bid == pytest.approx(0.4, abs=0.003)
    assert [e.what for e in events if isinstance(e, Corporate)] == ["redemption"]


def test_a_target_is_quoted_between_break_price_and_offer_and_closes_on_its_terms() -> None:
    """With steady odds it stands at p PV(offer) + (1 - p) S_down; at the close come word and exchange, and no more quotes."""
    close = START + 8 * DAY
    collar = Collar(kind="fixed_value", low=80.0, high=120.0, value=30.0)
    terms: dict[str, Any] = {"cash": 10.0, "collar": collar, "break_price": 32.0, "beta": 0.5, "acquirer_vol": 0.3}
    options = script(
        rate=0.03,
        deals=(
            DealScript(
                target="SIM:TGT",
                acquirer="SIM:ONE",
                expected_close=close,
                at=close,
                probability=0.7,
                wander=0.0,
                **terms,
            ),
        ),
    )
    events, universe = play(options)
    found = rows(events, universe, "SIM:TGT")
    assert found["ts_recv"].max() < close
    A = mids(events, universe, "SIM:ONE")[: len(found["ts_recv"])]
    tau = (close - found["ts_recv"]) / NS_PER_YEAR
    offer = deal.offer_value(deal.DealTerms(cash=10.0, collar=collar), A, tau, rate=0.03, vol=0.3).value
    down = 32.0 * (1.0 + 0.5 * (A / 100.0 - 1.0))
    np.testing.assert_allclose(mids(events, universe, "SIM:TGT"), 0.7 * offer + 0.3 * down, atol=0.03)
    notice = next(e for e in events if isinstance(e, Notice))
    word, done = read_notice(notice), next(e for e in events if isinstance(e, Corporate))
    assert isinstance(word, DealNotice)
    assert (word.what, word.cash, done.what, done.cash) == ("closed", 10.0, "merger", Decimal("10.0"))
    last = mids(events, universe, "SIM:ONE")[rows(events, universe, "SIM:ONE")["ts_recv"] >= close][0]
    assert float(done.conversions[0].ratio) == pytest.approx(30.0 / min(max(last, 80.0), 120.0), abs=1e-3)
    assert events.index(notice) < events.index(done)


def test_a_broken_deal_falls_to_its_break_price_and_goes_its_own_way() -> None:
    """Before the break the target is far above, at it it is at the break price, after it it moves by a vol of its own."""
    at = START + 5 * DAY
    deals = (
        DealScript(
            target="SIM:TGT",
            cash=50.0,
            break_price=30.0,
            expected_close=START + 60 * DAY,
            outcome="break",
            at=at,
            probability=0.9,
        ),
    )
    events, universe = play(script(deals=deals))
    found, middle = rows(events, universe, "SIM:TGT"), mids(events, universe, "SIM:TGT")
    assert middle[found["ts_recv"] < at].min() > 40.0
    first = middle[found["ts_recv"] >= at][0]
    assert first == pytest.approx(30.0, abs=0.03)
    assert middle[found["ts_recv"] >= at].std() > 0.05
    assert [read_notice(e).what for e in events if isinstance(e, Notice)] == ["broken"]  # type: ignore[union-attr]  # ours


@pytest.mark.parametrize(
    ("what", "bid", "ask"), [("no_bid", True, False), ("no_ask", False, True), ("withdrawn", True, True)]
)
def test_outages_withdraw_sides(what: Any, bid: bool, ask: bool) -> None:
    """A withdrawn side is blank with size 0, inside the outage and nowhere else."""
    options = script(outages=(Outage(instrument="SIM:TWO", start=START + DAY, end=START + 2 * DAY, what=what),))
    events, universe = play(options)
    found = rows(events, universe, "SIM:TWO")
    inside = (found["ts_recv"] >= START + DAY) & (found["ts_recv"] < START + 2 * DAY)
    assert np.isnan(found["bid"][inside]).all() == bid
    assert np.isnan(found["ask"][inside]).all() == ask
    assert np.isfinite(found["bid"][~inside]).all()
    assert (found["bid_size"][inside] == 0.0).all() == bid


def test_missing_rows_are_not_sent() -> None:
    """A missing instrument is silent inside the outage."""
    events, universe = play(script(outages=(Outage(instrument="SIM:TWO", start=START + DAY, end=START + 2 * DAY),)))
    ts = rows(events, universe, "SIM:TWO")["ts_recv"]
    assert not ((ts >= START + DAY) & (ts < START + 2 * DAY)).any()
    assert len(ts) == 241 - 24


def test_options_of_the_run_are_quoted_at_one_vol_until_they_end() -> None:
    """Middles give the vol back; after the expiry there is no quote."""
    expiry = START + 5 * DAY
    option = OptionContract(
        id=occ_id("ONE", utc_date(expiry), 1, Decimal(100)),
        underlying="SIM:ONE",
        cp=1,
        strike=Decimal(100),
        style="european",
        settlement="cash",
        multiplier=Decimal(100),
        last_trade=expiry,
        expiry=expiry,
        settles=expiry,
    )
    item = msgspec.structs.replace(ONE, option_vol=0.35, option_tick=Decimal("0.0001"), tick=Decimal("0.0001"))
    events, universe = play(script(underlyings=(item,)), [option])
    found, middle = rows(events, universe, option.id), mids(events, universe, option.id)
    assert found["ts_recv"].max() < expiry
    S = mids(events, universe, "SIM:ONE")[: len(middle)]
    expected = black.bsm(S, 100.0, (expiry - found["ts_recv"]) / NS_PER_YEAR, 0.35).price
    np.testing.assert_allclose(middle, expected, atol=3e-4)


def test_hours_cut_weekdays() -> None:
    """With hours a day is quoted from opening to closing, and a weekend not at all."""
    events, universe = play(script(hours=("09:30", "16:00"), step=30 * NS_PER_MINUTE))
    ts = rows(events, universe, "SIM:ONE")["ts_recv"]
    assert len(ts) == 8 * 14 + 1  # eight sessions of fourteen, and the opening of the ninth
    weekday = {utc_date(int(t)).weekday() for t in ts}
    assert max(weekday) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"underlyings": ()}, "at least one"),
        ({"underlyings": (ONE, ONE)}, "once"),
        ({"correlation": ((1.0,),)}, "rows of 2"),
        ({"shocks": (Shock(at=0, moves={"SIM:NO": 0.1}),)}, "SIM:NO"),
        ({"regimes": (Regime(at=2), Regime(at=1))}, "order of time"),
        ({"notices": (NoticeScript(at=0, namespace="deal/1", payload={"nonsense": 1}),)}, "deal/1"),
        ({"notices": (NoticeScript(at=0, namespace="deal/2"),)}, "version"),
        ({"step": 0}, "step"),
        ({"end": START - 1}, "later"),
    ],
)
def test_a_script_that_means_nothing_is_refused(changes: Mapping[str, Any], message: str) -> None:
    """Faults of the script are found before anything runs, in words."""
    with pytest.raises(ValueError, match=message):
        script(**changes)


def test_a_mapping_with_an_unknown_key_is_refused() -> None:
    """Keys are known or refused by name."""
    with pytest.raises(ConfigError, match="sead"):
        ScenarioFeed({"start": 0, "end": 1, "underlyings": [], "sead": 3})


def test_a_bond_that_the_run_does_not_describe_is_named() -> None:
    """A bond needs its terms, a model, and its share in the script."""
    with pytest.raises(DataError, match="BOND:ONE28"):
        play(script(bonds=(BondQuotes(instrument=BOND.id),)))
    bare = msgspec.structs.replace(BOND, model=None)
    with pytest.raises(DataError, match="with a model"):
        play(script(bonds=(BondQuotes(instrument=BOND.id),)), [bare])
