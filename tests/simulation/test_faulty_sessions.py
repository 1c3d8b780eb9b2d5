"""Seeded sessions with a venue that rejects, repeats itself, falls silent and answers late: the invariants hold in each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import Any

import pytest

from adapters.paper import PaperBroker, PaperOptions
from bot.core.events import Amend, Filled, Rejected, Target, TargetLine, Unknown, VenueEvent
from bot.core.ports import Capabilities, InLoopBroker, StrategyView
from bot.core.quiet import FOREVER
from bot.domain.costs import PerContract, SquareRootImpact
from bot.domain.instruments import Universe
from bot.domain.market import MarketView, Quote
from bot.domain.orders import Order
from bot.engine.journal import Executed, Ordered, Refused, Step, Transferred, VenueSaid
from bot.engine.limits import LimitSettings
from strategies.policies.delta_band import DeltaBand
from tests.simulation.bench import BY_MODEL, SECOND, START, STOCK, Bench, Script, batch, hedger, option, quote

D = Decimal
CALL = option(100, days=9)
SEEDS = range(24)
LENGTH = 240
"""Seconds of a session."""
LIMITS = LimitSettings(
    max_order_quantity=D(90), max_position=D(90), max_open_orders=2, stale_after=12 * SECOND, price_collar=0.01
)  # fmt: skip
STALE = 8 * SECOND
FINAL = {"rejected", "cancelled"}


class FaultyVenue:
    """The paper venue behind a bad line: seeded by order id it rejects, says UNKNOWN first, and repeats fills."""

    def __init__(self, options: PaperOptions, seed: int) -> None:
        self.inner = PaperBroker(options, seed=seed)
        self.capabilities: Capabilities = self.inner.capabilities
        self._seed = seed
        self._own: list[tuple[int, VenueEvent]] = []

    @property
    def watching(self) -> bool:
        return self.inner.watching

    def attach(self, universe: Universe, market: MarketView, account: str) -> None:
        self.inner.attach(universe, market, account)

    def accept(self, order: Order, now: int) -> None:
        fate = random.Random(f"{self._seed} {order.id}").random()
        if fate < 0.15:
            said = Rejected(ts_recv=now + SECOND, account=order.account, order_id=order.id, code="mood", text="no")
            self._own.append((now + SECOND, said))
            return
        if fate < 0.30:
            doubt = Unknown(ts_recv=now + SECOND, account=order.account, order_id=order.id, text="timeout")
            self._own.append((now + SECOND, doubt))
        self.inner.accept(order, now)

    def drop(self, order_id: str, now: int, reason: str) -> None:
        self.inner.drop(order_id, now, reason)

    def change(self, amend: Amend, now: int) -> None:
        self.inner.change(amend, now)

    def on_instant(self, now: int) -> None:
        self.inner.on_instant(now)

    def next_due(self) -> int:
        return min([self.inner.next_due(), *(at for at, _ in self._own)], default=FOREVER)

    def take_due(self, now: int) -> list[VenueEvent]:
        due = [event for at, event in self._own if at <= now]
        self._own = [(at, event) for at, event in self._own if at > now]
        for event in self.inner.take_due(now):
            due.append(event)
            if isinstance(event, Filled) and random.Random(f"{self._seed} {event.fill.id}").random() < 0.3:
                due.append(event)
        return due


def market_of(seed: int) -> list[Quote]:
    """A walk with silent stretches, withdrawn sides and small sizes."""
    rng = random.Random(seed)
    price, at, quotes = 100.0, 0, [quote(STOCK.id, 0, 99.99, 100.01, sizes=(50.0, 50.0))]
    while at < LENGTH + 60:
        at += 25 if rng.random() < 0.03 else rng.choice([0, 1, 1, 2])
        price = round(price + rng.choice([-0.06, -0.02, 0.0, 0.02, 0.06]), 2)
        side = rng.random()
        quotes.append(
            quote(
                STOCK.id,
                at * SECOND,
                None if side < 0.05 else round(price - 0.01, 2),
                None if side > 0.95 else round(price + 0.01, 2),
                sizes=(float(rng.randint(0, 40)), float(rng.randint(0, 40))),
            )
        )
    return quotes


class Dice(Script):
    """A strategy that wants something else every few quotes: at the market or at a limit, small or far too large."""

    def __init__(self, book: str, seed: int) -> None:
        super().__init__(book=book, name=f"dice {book}", ticks=True)
        self._rng = random.Random(f"{book} {seed}")

    def wake(self, view: StrategyView) -> Sequence[Target]:
        if self._rng.random() > 0.12:
            return ()
        quantity = D(self._rng.choice([-200, -50, -20, -5, 0, 5, 20, 50, 200]))
        middle = view.market.mid(0 if view.universe[0].id == STOCK.id else 1)
        rest: dict[str, Any] = {}
        if middle == middle and self._rng.random() < 0.5:  # noqa: PLR0124  NaN test
            away = self._rng.choice([-3.0, -0.05, 0.0, 0.05])
            rest = {
                "kind": "limit",
                "limits": {STOCK.id: D(str(round(middle + away, 2)))},
                "tif": self._rng.choice(["gtc", "ioc"]),
            }
        line = TargetLine(STOCK.id, quantity, float(quantity))
        return [Target(book=self.book, lines=(line,), reason="dice", **rest)]

    def stop(self, view: StrategyView) -> Sequence[Target]:
        return [Target(book=self.book, lines=(TargetLine(STOCK.id, D(0), 0.0),), reason="the end", closing=True)]


@cache
def session(seed: int, rows: int = 37) -> Bench:
    """One session of two dicing strategies and a hedger in one account, over the bad line."""
    rng = random.Random(f"venue {seed}")
    options = PaperOptions(
        latency=rng.choice([0, SECOND // 2, 3 * SECOND]),
        jitter=rng.choice([0, SECOND]),
        report_latency=rng.choice([0, SECOND // 3]),
        beyond=rng.choice(["partial", "impact", "ignore"]),
        impact=SquareRootImpact(),
        stale_after=STALE,
        commissions={"*": PerContract(rate=D("0.005"))},
    )
    venue = FaultyVenue(options, seed)
    assert isinstance(venue, InLoopBroker)
    run = Bench(
        {"dynamic": [Dice("a", seed), Dice("b", seed), hedger(DeltaBand(half_width=8.0))]},
        instruments=[STOCK, CALL],
        openings=[(CALL.id, 1)],
        valuation=BY_MODEL,
        broker=venue,
        checks=LIMITS,
        end=START + LENGTH * SECOND,
        remark=15 * SECOND,
        report_grid=15 * SECOND,
        closing_grace=30 * SECOND,
    )
    quotes = market_of(seed)
    for i in range(0, len(quotes), rows):
        run.loop.take(batch(run.universe, quotes[i : i + rows]), "bench")
    run.loop.finish()
    return run


def facts(run: Bench) -> list[tuple[Step, Any]]:
    return [(step, fact) for step in run.journal.steps for fact in step.facts]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_position_is_the_sum_of_fills_in_every_book(seed: int) -> None:
    """Retold from the journal alone, each book holds its allocations and transfers, and the account their sum."""
    run = session(seed)
    books = {"a": D(0), "b": D(0), "main": D(0)}
    seen: set[str] = set()
    for _, fact in facts(run):
        if isinstance(fact, Executed):
            assert fact.fill.id not in seen
            seen.add(fact.fill.id)
            assert sum(fact.allocations.values()) == fact.fill.quantity
            for book, part in fact.allocations.items():
                assert part * fact.fill.quantity > 0
                books[book] += part
        elif isinstance(fact, Transferred):
            books[fact.seller] -= fact.quantity
            books[fact.buyer] += fact.quantity
    assert seen
    assert books == {book: run.account.held(book, STOCK.id) for book in books}
    assert sum(books.values()) == run.held()


@pytest.mark.parametrize("seed", SEEDS)
def test_no_order_passes_a_breached_limit(seed: int) -> None:
    """Each order that left was, by the journal and the quotes of then, inside every bound or only reducing."""
    run = session(seed)
    quotes = market_of(seed)
    left: dict[str, Decimal] = {}
    held, doubted = D(0), set[str]()
    for step, fact in facts(run):
        if isinstance(fact, Ordered):
            order, before = fact.order, held + sum(left.values())
            after = before + order.quantity
            reduces = abs(after) <= abs(before) and (after == 0 or (after > 0) == (before > 0))
            assert reduces or (abs(order.quantity) <= 90 and abs(after) <= 90)
            assert len(left) < 2
            assert not doubted
            last = max(q.ts_recv for q in quotes if q.ts_recv <= step.ts)
            assert step.ts - last <= 12 * SECOND
            left[order.id] = order.quantity
        elif isinstance(fact, Executed):
            held += fact.fill.quantity
            doubted.discard(fact.fill.order_id)
            left[fact.fill.order_id] -= fact.fill.quantity
            if not left[fact.fill.order_id]:
                del left[fact.fill.order_id]
        elif isinstance(fact, VenueSaid):
            (doubted.add if fact.what == "unknown" else doubted.discard)(fact.order_id)
            if fact.what == "unknown" and fact.order_id not in left:
                doubted.discard(fact.order_id)
            if fact.what in FINAL:
                left.pop(fact.order_id, None)
    assert set(left) == set(run.account.open_ids)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_fill_comes_from_a_stale_or_one_sided_quote_nor_beats_it(seed: int) -> None:
    """Each fill cites a quote that was received, was two-sided, young enough and not better than paid."""
    run = session(seed)
    quotes = market_of(seed)
    for _, fact in facts(run):
        if not isinstance(fact, Executed):
            continue
        fill = fact.fill
        assert 0 <= fill.ts - fill.quote_ts <= STALE
        cited = [q for q in quotes if q.ts_recv == fill.quote_ts][-1]
        assert cited.bid is not None
        assert cited.ask is not None
        touch = D(str(cited.ask if fill.quantity > 0 else cited.bid))
        assert fill.touch == touch
        order = run.account.orders[fill.order_id].order
        side = 1 if fill.quantity > 0 else -1
        assert fill.price * side >= touch * side or fill.price == order.limit
        assert order.limit is None or fill.price * side <= order.limit * side


@pytest.mark.parametrize("seed", SEEDS)
def test_money_is_an_identity_and_the_run_ends(seed: int) -> None:
    """total = options + hedge - costs + financing, cash is what was paid, and nothing is left to happen."""
    run = session(seed)
    pnl = run.pnl()
    assert pnl.total == pnl.options + pnl.hedge - pnl.spread_cost - pnl.commission - pnl.impact + pnl.financing
    paid = sum(
        (-f.fill.quantity * f.fill.price - f.fill.commission for _, f in facts(run) if isinstance(f, Executed)), D(0)
    )
    assert run.account.ledger.book.cash().get("USD", D(0)) == paid
    assert run.loop.done
    assert not [s for s in run.account.slots if s.disabled]
    assert run.held() == 0 or "not_closed" in run.alarms() or run.facts(Refused)


def test_the_sessions_see_every_fault() -> None:
    """Over the seeds there are fills, transfers, rejects, doubts, cancels, refusals of several kinds and shared fills."""
    said = {fact.what for seed in SEEDS for fact in session(seed).facts(VenueSaid)}
    assert {"accepted", "rejected", "cancelled", "unknown"} <= said
    codes = {fact.refusal.code for seed in SEEDS for fact in session(seed).facts(Refused)}
    assert {"order_quantity", "position", "open_orders", "frozen", "price_collar"} <= codes
    assert any(session(seed).facts(Transferred) for seed in SEEDS)
    assert any(len(fact.allocations) > 1 for seed in SEEDS for fact in session(seed).facts(Executed))
    assert any(
        len(session(seed).account.orders[f.fill.order_id].fill_ids) > 1
        for seed in SEEDS
        for f in session(seed).facts(Executed)
    )


@pytest.mark.parametrize("seed", list(SEEDS)[::6])
def test_a_session_told_twice_or_in_other_batches_is_the_same(seed: int) -> None:
    """Same seed, other batch sizes: byte-identical facts."""
    assert session(seed).journal.chain == session(seed, 1).journal.chain == session(seed, 1000).journal.chain
