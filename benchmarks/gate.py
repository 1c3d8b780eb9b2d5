"""The gate's cost is what one order pays before it may leave, every limit set; law: the bar is a median, and the valuation
that limits lean on is told apart.

Prints one JSON object: medians in microseconds for an order in the underlying and in an option, with nothing and with
some orders open, after a fill, and with no limit set; and what a valuation adds.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import msgspec

from adapters.paper import PaperBroker, PaperOptions
from bot.core.events import Accepted
from bot.domain.book import PositionKey
from bot.domain.instruments import OptionContract, Spot, Universe, occ_id
from bot.domain.orders import Allocation, Fill, Order
from bot.domain.units import NS_PER_DAY, NS_PER_SECOND, nanos
from bot.engine.account import Account
from bot.engine.gate import GateSettings
from bot.engine.limits import LimitSettings
from bot.engine.marks import Marks
from bot.engine.valuation import Valuation, ValuationSettings

START = nanos(datetime(2024, 1, 2, 15, 0, tzinfo=UTC))
STOCK = Spot(id="US:UND", tick=Decimal("0.01"), lot=Decimal(1))
BAR_LINEAR, BAR_OPTION = 3.0, 20.0

EVERYTHING = LimitSettings(
    max_order_quantity=Decimal(10_000),
    max_order_notional=Decimal(10_000_000),
    max_position=Decimal(100_000),
    max_open_orders=1000,
    price_collar=0.05,
    reference_max_age=3600 * NS_PER_SECOND,
    stale_after=3600 * NS_PER_SECOND,
    restricted=("US:NOT",),
    max_delta=50_000.0,
    max_gamma=50_000.0,
    max_vega=5_000_000.0,
    max_stress_loss=50_000_000.0,
    hedge_band=40_000.0,
    orders_per_second=10_000.0,
    cancels_per_second=10_000.0,
    duplicate_window=NS_PER_SECOND,
    max_attempts=1_000_000,
    max_reversals=1_000_000,
    daily_loss=Decimal(1_000_000),
    drawdown=Decimal(1_000_000),
    max_rejects=1000,
)


def contracts(count: int) -> list[OptionContract]:
    """Calls and puts around 100 that expire in 30 to 90 days."""
    found = []
    for i in range(count):
        strike, days, cp = Decimal(90 + 2 * (i % 11)), 30 * (1 + i % 3), 1 if i % 2 else -1
        expiry = START + days * NS_PER_DAY
        key = occ_id(f"U{i // 66}", date(2024, 1, 2) + timedelta(days=days), cp, strike)
        found.append(
            OptionContract(
                id=key,
                underlying=STOCK.id,
                cp=1 if cp > 0 else -1,
                strike=strike,
                style="european",
                settlement="cash",
                multiplier=Decimal(100),
                lot=Decimal(1),
                last_trade=expiry,
                expiry=expiry,
                settles=expiry,
            )
        )
    return list({item.id: item for item in found}.values())


def account_of(limits: LimitSettings, options: Sequence[OptionContract]) -> Account:
    """An account that wrote ten of each option and has a quote of everything."""
    universe = Universe([STOCK, *options])
    marks = Marks(universe)
    valuation = Valuation(universe, marks, ValuationSettings(vol="fixed", vol_value=0.2))
    broker = PaperBroker(PaperOptions(), seed=0)
    broker.attach(universe, marks, "dynamic")
    account = Account(
        "dynamic",
        universe=universe,
        marks=marks,
        valuation=valuation,
        broker=broker,
        strategies=(),
        gate=GateSettings(limits=limits),
    )
    for item in universe:
        marks.fold_quote(universe.index(item.id), START, 99.99, 100.01, math.nan, math.nan)
    for item in options:
        valuation.add(item, now=START)
        account.ledger.open(PositionKey("dynamic", "main", "", item.id), Decimal(-10), Decimal(5))
    account.now = START
    return account


def order(instrument: str, number: int, ts: int, *, limit: Decimal | None = None) -> Order:
    """A buy or a sale of a few contracts."""
    quantity = Decimal((1 + number % 7) * (1 if number % 2 else -1))
    return Order(
        id=f"dynamic-{number:06d}",
        account="dynamic",
        instrument=instrument,
        quantity=quantity,
        ts=ts,
        kind="market" if limit is None else "limit",
        limit=limit,
        allocations=(Allocation("main", quantity),),
    )


def median_us(account: Account, orders: Sequence[Order], before: Callable[[int], None] | None = None) -> float:
    """Median microseconds that the gate takes for an order."""
    check = account.gate.check
    clock = time.perf_counter_ns
    spent = []
    gc.disable()
    try:
        for number, asked in enumerate(orders):
            if before is not None:
                before(number)
            began = clock()
            refusal = check(asked)
            spent.append(clock() - began)
            if refusal is not None:
                raise SystemExit(f"expected every order to pass, found {refusal.code}: {refusal.text}")
    finally:
        gc.enable()
    return statistics.median(spent) / 1000.0


def fill_of(account: Account, number: int) -> None:
    """Book a share bought or sold, as a fill does."""
    q = Decimal(1 if number % 2 else -1)
    fill = Fill(
        id=f"f{number}", order_id=f"o{number}", account="dynamic", instrument=STOCK.id, ts=START, quantity=q,
        price=Decimal(100), commission=Decimal(0), currency="USD", mid=Decimal(100), touch=Decimal(100), quote_ts=START,
    )  # fmt: skip
    account.ledger.fill(fill, {PositionKey("dynamic", "main", "", STOCK.id): q}, first_of_order=True)


def open_some(account: Account, count: int) -> None:
    """Let buys rest far below the market."""

    class _Out:
        def submit(self, account: Account, order: Order) -> None: ...
        def cancel(self, account: Account, order_id: str, reason: str) -> None: ...

    for i in range(count):
        resting = order(STOCK.id, 900_001 + 2 * i, START, limit=Decimal(98) + Decimal(i) / 100)
        named = msgspec.structs.replace(resting, id=f"rest-{i}")
        account._release(named, _Out())  # as `settle_targets` does after the gate
        account.hear(Accepted(ts_recv=START, account="dynamic", order_id=named.id), lambda _: Decimal(1))


def measure(rows: int, options: int) -> dict[str, float]:
    """Every figure, each the median over `rows` orders."""
    held = contracts(options)
    account = account_of(EVERYTHING, held)
    linear = [order(STOCK.id, n, START + n * 1_000_000) for n in range(1, rows + 1)]
    limited = [order(STOCK.id, n, START + n * 1_000_000, limit=Decimal(100)) for n in range(1, rows + 1)]
    optional = [order(held[n % len(held)].id, n, START + n * 1_000_000) for n in range(1, rows + 1)]
    median_us(account, linear[:2000])
    median_us(account, optional[:2000])
    found: dict[str, float] = {
        "orders": rows,
        "options_held": len(held),
        "checks": len(account.gate.checks) + len(account.gate.stateful),
        "linear_us": median_us(account, linear),
        "linear_limit_us": median_us(account, limited),
        "linear_after_a_fill_us": median_us(account, linear, lambda n: fill_of(account, n)),
        "option_us": median_us(account, optional),
    }
    bare = account_of(LimitSettings(), held)
    median_us(bare, linear[:2000])
    found["no_limits_us"] = median_us(bare, linear)
    for count in (1, 10):
        busy = account_of(EVERYTHING, held)
        open_some(busy, count)
        median_us(busy, [o for o in limited[:2000] if o.quantity > 0])
        found[f"linear_{count}_open_us"] = median_us(busy, [o for o in limited if o.quantity > 0])

        def changed(_: int, busy: Account = busy) -> None:
            busy.order_version += 1

        found[f"linear_{count}_open_anew_us"] = median_us(busy, [o for o in limited if o.quantity > 0], changed)
    spent = []
    for n in range(1, 200):
        began = time.perf_counter_ns()
        account.gate.units.revalue(START + n * NS_PER_SECOND)
        account.gate.net_delta(STOCK.id, START + n * NS_PER_SECOND)
        spent.append(time.perf_counter_ns() - began)
    found["revaluation_us"] = statistics.median(spent) / 1000.0
    found["bar_linear_us"], found["bar_option_us"] = BAR_LINEAR, BAR_OPTION
    return found


def _least(values: Sequence[float]) -> float:
    return round(min(values), 3)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=20_000)
    parser.add_argument("--options", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=3, help="times over; the best of the medians is printed")
    given = parser.parse_args()
    runs = [measure(given.orders, given.options) for _ in range(given.repeat)]
    best = {key: _least([run[key] for run in runs]) for key in runs[0]}
    print(json.dumps(best, indent=2))


if __name__ == "__main__":
    main()
