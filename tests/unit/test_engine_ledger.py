"""A ledger's P&L is an identity of exact decimals, by currency, with the opening ticket apart when asked."""

from __future__ import annotations

from decimal import Decimal

import pytest

from adapters.paper import PaperOptions
from bot.core.events import Funding, FxQuote
from bot.domain.book import PositionKey
from bot.domain.costs import PerTicket, SquareRootImpact
from bot.domain.instruments import Perpetual, Spot, Universe
from bot.domain.orders import Fill
from bot.engine.ledger import Ledger, convert_sum
from tests.simulation.bench import BY_MODEL, DAY, MINUTE, START, STOCK, Bench, Script, future, minutes, option, quote

D = Decimal
EUR = Spot(id="XETR:SAP", currency="EUR", tick=D("0.01"), lot=D(1))
INVERSE = Perpetual(id="X:BTCUSD", currency="USD", multiplier=D(100), inverse=True, settlement_currency="BTC", lot=D(1))


def fill(instrument: str, quantity: str, price: str, mid: str, touch: str, **rest: object) -> Fill:
    known: dict[str, object] = {
        "id": "f", "order_id": "o", "account": "a", "instrument": instrument, "ts": START, "quantity": D(quantity),
        "price": D(price), "commission": D(0), "currency": "USD", "mid": D(mid), "touch": D(touch), "quote_ts": START,
    }  # fmt: skip
    return Fill(**(known | rest))  # type: ignore[arg-type]  # the fields of a fill, by name


def key(instrument: str, book: str = "main") -> PositionKey:
    return PositionKey("a", book, "", instrument)


def test_a_round_trip_by_hand() -> None:
    """Buy 10 at 100.05 (mid 100, touch 100.02), sell at 101.98 (mid 102, touch 101.98), one dollar a ticket."""
    ledger = Ledger("a", Universe([STOCK]), "USD")
    buy = fill(STOCK.id, "10", "100.05", "100", "100.02", commission=D(1))
    sell = fill(STOCK.id, "-10", "101.98", "102", "101.98", commission=D(1), order_id="p")
    ledger.fill(buy, {key(STOCK.id): D(10)}, first_of_order=True)
    ledger.fill(sell, {key(STOCK.id): D(-10)}, first_of_order=True)
    ledger.finance("USD", D("0.5"))
    pnl = ledger.pnl(lambda _: D(999), lambda _: D(1))
    assert pnl is not None
    found = [pnl.options, pnl.hedge, pnl.spread_cost, pnl.impact, pnl.commission, pnl.financing]
    assert found == [0, 20, D("0.40"), D("0.30"), 2, D("0.5")]
    assert pnl.total == D("17.80") == ledger.book.cash()["USD"]
    assert [ledger.trades, ledger.units_traded] == [2, 20]


def test_closing_trades_are_counted_apart() -> None:
    """The close of a session is no rebalance."""
    ledger = Ledger("a", Universe([STOCK]), "USD")
    ledger.fill(fill(STOCK.id, "4", "1", "1", "1"), {key(STOCK.id): D(4)}, first_of_order=True)
    ledger.fill(fill(STOCK.id, "-3", "1", "1", "1", closing=True), {key(STOCK.id): D(-3)}, first_of_order=True)
    ledger.fill(fill(STOCK.id, "-1", "1", "1", "1", closing=True), {key(STOCK.id): D(-1)}, first_of_order=False)
    assert [ledger.trades, ledger.units_traded, ledger.closing_trades, ledger.closing_units] == [1, 4, 1, 4]


def test_an_inverse_perpetual_makes_coin() -> None:
    """q m (1/a - 1/b) in the settlement currency, the spread a cost on both sides."""
    ledger = Ledger("a", Universe([INVERSE]), "BTC")
    bought = fill(INVERSE.id, "3", "50100", "50000", "50100", currency="BTC")
    ledger.fill(bought, {key(INVERSE.id): D(3)}, first_of_order=True)
    pnl = ledger.pnl(lambda _: D(60000), lambda _: D(1))
    assert pnl is not None
    exact = D(300) * (1 / D(50100) - 1 / D(60000))
    assert pnl.total == pytest.approx(exact, rel=D("1e-20"))
    assert pnl.spread_cost > 0


def test_two_currencies_sum_at_their_marked_rate_and_stop_without_one() -> None:
    """P&L in EUR converts at the rate; a missing rate or mark gives None, never a partial sum."""
    ledger = Ledger("a", Universe([STOCK, EUR]), "USD")
    ledger.fill(fill(STOCK.id, "1", "100", "100", "100"), {key(STOCK.id): D(1)}, first_of_order=True)
    ledger.fill(fill(EUR.id, "1", "50", "50", "50", currency="EUR"), {key(EUR.id): D(1)}, first_of_order=True)
    marks = {STOCK.id: D(103), EUR.id: D(60)}
    rates = {"USD": D(1), "EUR": D("1.1")}
    pnl = ledger.pnl(marks.get, rates.get)
    assert pnl is not None
    assert pnl.total == pnl.hedge == 14
    assert ledger.pnl(marks.get, {"USD": D(1)}.get) is None
    assert ledger.pnl({STOCK.id: D(103)}.get, rates.get) is None
    assert convert_sum({"EUR": D(0), "USD": D(2)}, {"USD": D(1)}.get) == 2


def test_rates_come_from_fx_quotes_either_way_round() -> None:
    """EUR in USD is taken as it is, JPY from USD in JPY is turned round, an unrelated pair is nobody's rate."""
    run = Bench([Script()]).play(
        [
            FxQuote(ts_recv=START, base="EUR", quote="USD", rate=D("1.25")),
            FxQuote(ts_recv=START, base="USD", quote="JPY", rate=D(125)),
            FxQuote(ts_recv=START, base="GBP", quote="CHF", rate=D(2)),
        ],
        finish=False,
    )
    assert [run.loop.convert(c) for c in ("USD", "EUR", "JPY", "GBP")] == [1, D("1.25"), D("0.008"), None]


def test_the_opening_ticket_of_each_instrument_is_shown_apart() -> None:
    """All fills of an instrument's first order are left out of commission; later orders and closes are not."""
    ledger = Ledger("a", Universe([STOCK, EUR]), "USD")
    ledger.set_opening_apart(True)
    for instrument, order, closing in (
        (STOCK.id, "1", False), (STOCK.id, "1", False), (EUR.id, "2", False), (STOCK.id, "3", False), (EUR.id, "4", True),
    ):  # fmt: skip
        made = fill(instrument, "1", "10", "10", "10", order_id=order, commission=D(7), closing=closing)
        ledger.fill(made, {key(instrument): D(1)}, first_of_order=False)
    pnl = ledger.pnl(lambda _: D(10), lambda _: D(1))
    assert pnl is not None
    assert [ledger.opening_ticket, pnl.commission, pnl.total] == [21, 14, -14]


def test_the_identity_of_a_run_with_every_cost() -> None:
    """total = options + hedge - spread - commission - impact + financing, and the sampled path ends at the same sum."""
    contract = option(100, days=5)
    script = Script([(i * MINUTE, STOCK.id, q) for i, q in enumerate((30, -10, 25, 0, 7), start=1)])
    run = Bench(
        [script],
        instruments=[STOCK, contract],
        openings=[(contract.id, 3)],
        valuation=BY_MODEL,
        paper=PaperOptions(beyond="impact", impact=SquareRootImpact(), commissions={"*": PerTicket(amount=D("1.25"))}),
        financing_rate=0.05,
        borrow_rate=0.03,
    ).play([quote(STOCK.id, i * MINUTE, 99.5 + i, 100.5 + i, sizes=(5.0, 5.0)) for i in range(8)])
    pnl = run.pnl()
    assert pnl.total == pnl.options + pnl.hedge - pnl.spread_cost - pnl.commission - pnl.impact + pnl.financing
    assert all((pnl.spread_cost > 0, pnl.commission == D("6.25"), pnl.impact > 0, pnl.financing != 0))
    path = run.loop.sampler.table().tracks["dynamic"].pnl
    assert path[-1, 0] == pytest.approx(float(pnl.total), abs=1e-6)
    assert run.account.ledger.book.sums_agree()


def test_interest_accrues_on_cash_and_borrow_on_short_stock() -> None:
    """A day at 10% on the proceeds of a sale, less 5% on what the short stock is worth, act/365."""
    run = Bench([Script([(0, STOCK.id, -10)])], financing_rate=0.10, borrow_rate=0.05, report_grid=DAY)
    run.play(
        [quote(STOCK.id, 0, 100.0, 100.0), quote(STOCK.id, DAY, 110.0, 110.0), quote(STOCK.id, DAY + 1, 110.0, 110.0)]
    )
    expected = 1000 * 0.10 / 365 - 1100 * 0.05 / 365
    assert float(run.pnl().financing) == pytest.approx(expected, abs=1e-6)


def test_a_future_is_not_financed_only_its_gain_is() -> None:
    """A bought or taken-over future of 5,000 notional costs no principal: interest falls on the change of its value."""
    es = future(multiplier=50)
    run = Bench(
        [Script([(0, es.id, 1)], watches=(es.id,))], instruments=[es], needed=[es.id], financing_rate=0.10, report_grid=DAY,
        openings=[(es.id, 2)], books={es.id: "held"},
    )  # fmt: skip
    run.play([quote(es.id, 0, 100.0, 100.0), quote(es.id, DAY, 101.0, 101.0), quote(es.id, DAY + 1, 101.0, 101.0)])
    assert run.held(es.id) == 3
    assert float(run.pnl().financing) == pytest.approx(3 * 50 * 0.10 / 365, abs=1e-6)


@pytest.mark.parametrize(
    ("contract", "rate", "paid"),
    [
        (Perpetual(id="X:LIN", multiplier=D(2), lot=D(1)), 0.001, D("-0.60")),
        (INVERSE, 0.001, D("-0.003")),
    ],
)
def test_funding_is_paid_by_longs_in_the_settlement_currency(contract: Perpetual, rate: float, paid: Decimal) -> None:
    """Rate times notional: linear 3 x 2 x 100, inverse 3 x 100 / 100 coin, shorts receive it."""
    for side in (1, -1):
        run = Bench(
            [Script([(0, contract.id, 3 * side)], watches=(contract.id,))], instruments=[contract], needed=[contract.id]
        )
        run.play([quote(contract.id, 0, 100.0, 100.0), quote(contract.id, 1, 100.0, 100.0)], finish=False)
        run.loop.take(Funding(ts_recv=START + MINUTE, instrument=contract.id, rate=rate), "a")
        currency = contract.settlement_currency or "USD"
        amounts = dict(run.account.ledger.amounts())
        assert float(amounts["cost", "financing", currency]) == pytest.approx(float(paid) * side)


def test_funding_without_a_price_is_alarmed_not_guessed() -> None:
    """A holding whose instrument has no mark books no funding and says so."""
    perpetual = Perpetual(id="X:LIN", lot=D(1))
    run = Bench([Script()], instruments=[STOCK, perpetual], openings=[(perpetual.id, 1)], marks_in={perpetual.id: D(5)})
    run.play(minutes([100.0, 100.0]), finish=False)
    run.loop.take(Funding(ts_recv=START + 2 * MINUTE, instrument=perpetual.id, rate=0.01), "a")
    run.loop.finish()
    assert "no_funding_price" in run.alarms()
