"""Whatever the feed, the latencies and the policies: batching, pace and segments change no fact, and books sum."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.paper import PaperOptions
from bot.core.ports import HedgePolicy
from bot.domain.costs import BasisPoints, SquareRootImpact
from bot.domain.market import Quote, Trade
from bot.domain.orders import Allocation
from bot.engine import desk
from bot.engine.journal import Executed, Transferred
from bot.engine.limits import LimitSettings
from strategies.policies.delta_band import DeltaBand
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.static_hedge import StaticHedge
from tests.simulation.bench import (
    BY_MODEL,
    IMPLIED,
    MINUTE,
    SECOND,
    START,
    STOCK,
    Bench,
    batch,
    hedger,
    option,
    quote,
    trade_batch,
)

D = Decimal
CALL = option(100, days=9)

quantities = st.integers(-60, 60).map(D)
lots = st.sampled_from([D(1), D("0.5"), D(10), None])


@given(st.dictionaries(st.sampled_from("abcdef"), quantities, min_size=1))
def test_crossing_keeps_the_net_and_leaves_one_side(gaps: dict[str, Decimal]) -> None:
    """Crossings take no book past its gap, the net is unchanged, and what is left has one sign."""
    crossings, left = desk.cross(gaps)
    assert sum(left.values()) == sum(gaps.values())
    assert not (any(q > 0 for q in left.values()) and any(q < 0 for q in left.values()))
    for book, gap in gaps.items():
        bought = sum((c.quantity for c in crossings if c.buyer == book), D(0))
        sold = sum((c.quantity for c in crossings if c.seller == book), D(0))
        assert gap == left[book] + bought - sold
        assert abs(left[book]) <= abs(gap)
        assert (bought == 0) if gap <= 0 else (sold == 0)
    assert all(c.quantity > 0 for c in crossings)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.sampled_from([1, -1]), lots, st.data())
def test_cumulative_allocation_sums_never_takes_back_and_ends_exact(
    weights: list[int], sign: int, lot: Decimal | None, data: st.DataObject
) -> None:
    """Over partial fills each part has the fill's sign, parts sum to it, and a whole order gives each its own."""
    unit = lot if lot is not None else D(1)
    allocations = [Allocation(f"b{i}", sign * w * unit) for i, w in enumerate(weights)]
    total = sum(a.quantity for a in allocations)
    whole = sum(weights)
    cuts = sorted(data.draw(st.sets(st.integers(1, whole), max_size=8)) | {whole})
    already: dict[str, Decimal] = {}
    for cut in cuts:
        filled = sign * cut * unit
        shares = desk.allocate(D(filled), allocations, lot, already)
        assert sum(shares.values()) == filled
        for a in allocations:
            part = shares[a.book] - already.get(a.book, D(0))
            assert part * sign >= 0
            exact = filled * a.quantity / total
            assert abs(shares[a.book]) <= abs(a.quantity)
            if lot is not None:
                assert part % lot == 0
            if not already:
                assert abs(shares[a.book] - exact) < unit
        already = shares
    assert already == {a.book: a.quantity for a in allocations}


# --------------------------------------------------------------------------- whole runs

rows = st.tuples(
    st.integers(0, 240),  # when, in half seconds
    st.sampled_from(["stock", "stock", "stock", "call", "print"]),
    st.integers(-6, 6),  # ticks away
    st.sampled_from([2, 2, 2, 0, -1]),  # half spread in cents; -1: a side withdrawn
    st.integers(0, 9),  # size shown
)
policies = st.sampled_from(["band", "centre", "interval", "static"])
brokers = st.builds(
    PaperOptions,
    latency=st.sampled_from([0, SECOND, 7 * SECOND // 2]),
    jitter=st.sampled_from([0, 2 * SECOND]),
    report_latency=st.sampled_from([0, SECOND]),
    beyond=st.sampled_from(["ignore", "partial", "impact"]),
    impact=st.just(SquareRootImpact()),
    stale_after=st.sampled_from([None, 5 * SECOND]),
    on_bad_quote=st.sampled_from(["wait", "reject"]),
    commissions=st.just({"*": BasisPoints(bp=D("1.5"))}),
)


def policy_of(name: str) -> HedgePolicy:
    made: dict[str, HedgePolicy] = {
        "band": DeltaBand(half_width=4.0),
        "centre": DeltaBand(half_width=6.0, to="centre"),
        "interval": FixedInterval(interval="7s"),
        "static": StaticHedge(),
    }
    return made[name]


def events_of(drawn: list[tuple[int, str, int, int, int]]) -> list[Quote | Trade]:
    """A valid feed: the walk of the stock, quotes of its call around the model, prints."""
    events: list[Quote | Trade] = [quote(STOCK.id, 0, 99.98, 100.02), quote(CALL.id, 0, 1.2, 1.3)]
    price = 100.0
    for at, kind, ticks, half, size in sorted(drawn, key=lambda row: row[0]):
        ts = START + at * SECOND // 2
        price = round(price + 0.05 * ticks, 2)
        if kind == "print":
            events.append(Trade(instrument=STOCK.id, ts_event=ts, ts_recv=ts, price=price))
            continue
        who, mid = (STOCK.id, price) if kind == "stock" else (CALL.id, max(0.3, round(1.25 + 0.5 * (price - 100), 2)))
        ask = None if half < 0 else round(mid + 0.01 * half, 2)
        bid = round(mid - 0.01 * max(half, 0), 2)
        events.append(quote(who, at * SECOND // 2, bid, ask, sizes=(float(size), float(size + 1))))
    return events


def run_of(
    events: list[Quote | Trade],
    *,
    cut: int,
    names: list[str],
    broker: PaperOptions,
    quantity: int,
    implied: bool,
    **rest: Any,
) -> Bench:
    """A run of these events, `cut` quotes a batch (0: one event at a time, not in columns)."""
    run = Bench(
        {
            "dynamic": [
                hedger(policy_of(n), book=book, name=book) for book, n in zip(("main", "b"), names, strict=False)
            ],
            "shadow": [hedger(policy_of(names[-1]))],
        },
        instruments=[STOCK, CALL],
        openings=[(CALL.id, quantity)],
        valuation=IMPLIED if implied else BY_MODEL,
        paper=broker,
        seed=5,
        begin="two_sided",
        end=START + MINUTE,
        remark=10 * SECOND,
        report_grid=15 * SECOND,
        closing_grace=30 * SECOND,
        **rest,
    )
    if not cut:
        return run.play(events)
    pieces: list[list[Quote] | list[Trade]] = []
    for event in events:
        last: Any = pieces[-1] if pieces else None
        if last is not None and type(last[0]) is type(event) and len(last) < cut:
            last.append(event)
        else:
            pieces.append([event])  # type: ignore[arg-type]  # a list of one kind
    for piece in pieces:
        columns: Any = piece
        made = batch(run.universe, columns) if isinstance(piece[0], Quote) else trade_batch(run.universe, columns)
        run.loop.take(made, "bench")
    run.loop.finish()
    return run


@settings(max_examples=120, deadline=None)
@given(
    drawn=st.lists(rows, min_size=20, max_size=60),
    names=st.lists(policies, min_size=1, max_size=2),
    broker=brokers,
    quantity=st.sampled_from([-3, 2, 11]),
    implied=st.booleans(),
    cuts=st.lists(st.integers(1, 70), min_size=1, max_size=3),
)
def test_batching_changes_no_fact_of_any_run(
    drawn: list[tuple[int, str, int, int, int]],
    names: list[str],
    broker: PaperOptions,
    quantity: int,
    implied: bool,
    cuts: list[int],
) -> None:
    """One event at a time, one row a batch or many: the same chain of facts, the same tape, the same P&L path."""
    events = events_of(drawn)
    known: dict[str, Any] = {"names": names, "broker": broker, "quantity": quantity, "implied": implied}
    plain = run_of(events, cut=0, **known)
    for cut in cuts:
        other = run_of(events, cut=cut, **known)
        assert other.journal.steps == plain.journal.steps
        assert other.journal.chain == plain.journal.chain
        assert other.loop.tape.rows == plain.loop.tape.rows
        assert other.loop.sampler.instants == plain.loop.sampler.instants


@settings(max_examples=120, deadline=None)
@given(
    drawn=st.lists(rows, min_size=20, max_size=80),
    names=st.lists(policies, min_size=1, max_size=2),
    broker=brokers,
    quantity=st.sampled_from([-9, 4]),
    bound=st.sampled_from([None, 40, 150]),
)
def test_books_sum_and_money_is_an_identity_in_any_run(
    drawn: list[tuple[int, str, int, int, int]],
    names: list[str],
    broker: PaperOptions,
    quantity: int,
    bound: int | None,
) -> None:
    """Positions are the sum of fills and transfers by book, the P&L identity is exact, and limits hold at every order."""
    checks = LimitSettings(max_position=None if bound is None else D(bound))
    run = run_of(
        events_of(drawn), cut=7, names=names, broker=broker, quantity=quantity, implied=False, checks=checks
    )  # fmt: skip
    for account in run.accounts:
        fills, crossed = run.facts(Executed, account.name), run.facts(Transferred, account.name)
        for book in ("main", "b"):
            traded = sum((f.allocations.get(book, D(0)) for f in fills), D(0))
            passed = sum((t.quantity * ((t.buyer == book) - (t.seller == book)) for t in crossed), D(0))
            assert account.held(book, STOCK.id) == traded + passed
        assert account.ledger.book.quantity(STOCK.id) == sum((f.fill.quantity for f in fills), D(0))
        assert account.ledger.book.sums_agree()
        if run.loop.started_at is None:
            continue
        pnl = account.ledger.pnl(lambda key: run.valuation.mark(key, run.loop.now), run.loop.convert)
        assert pnl is not None
        assert pnl.total == pnl.options + pnl.hedge - pnl.spread_cost - pnl.commission - pnl.impact + pnl.financing
        assert pnl.spread_cost >= 0
        assert pnl.impact >= 0
        for f in fills:
            assert broker.stale_after is None or f.fill.ts - f.fill.quote_ts <= broker.stale_after
            assert f.fill.quote_ts <= f.fill.ts
        if bound is not None:
            position = D(0)
            for f in fills:
                position += f.fill.quantity
                assert abs(position) <= bound
