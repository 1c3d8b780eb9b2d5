"""A strategy sees a live chain and its equity, hears notices, remembers, and gives figures of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec
import numpy as np
import pytest

from bot.core.events import Corporate, Notice, Target
from bot.core.ports import Chain, StrategyView
from bot.domain.instruments import Spot
from bot.domain.units import NEVER
from bot.engine.journal import Alarmed, Ended, Executed, Remembered
from tests.simulation.bench import DAY, IMPLIED, MINUTE, START, STOCK, Bench, Script, minutes, option, quote

D = Decimal
CALL, PUT, SOON = option(100), option(90, cp=-1), option(100, days=1)


class Listener(Script):
    """A script that hears everything there is to hear."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails
        self.heard: list[str] = []
        self.restored = b""

    def notice(self, view: StrategyView, notice: Notice) -> Sequence[Target]:
        self.heard.append(notice.namespace)
        view.gauge("notices", float(len(self.heard)))
        return [self.want(STOCK.id, len(self.heard))]

    def corporate(self, view: StrategyView, event: Corporate) -> Sequence[Target]:
        self.heard.append(event.what)
        return ()

    def restore(self, view: StrategyView, memory: bytes) -> None:
        self.restored = memory

    def figures(self, view: StrategyView) -> Mapping[str, Mapping[str, float | str | None]]:
        if self.fails:
            raise RuntimeError("no figures today")
        return {"heard": {"count": float(len(self.heard))}}


class Count(msgspec.Struct, frozen=True):
    """A memory."""

    seen: int


def chain_at(run: Bench) -> Chain:
    view = run.account.slots[0].view
    view.now = run.loop.now
    return view.chain(STOCK.id)


def test_a_tradable_contract_is_listed_valued_bought_and_settled() -> None:
    """An option nobody held at the start can be chosen from the chain, bought, and is settled at its expiry."""
    run = Bench([Script([(MINUTE, SOON.id, 2)])], instruments=[STOCK, SOON], tradable=[SOON.id], end=START + 2 * DAY)
    quotes = [quote(SOON.id, 0, 1.0, 1.2), *minutes([100.0] * 3), quote(STOCK.id, DAY - 1, 102.9, 103.1)]
    run.play(quotes)
    assert [f.fill.price for f in run.facts(Executed)] == [D("1.2")]
    assert [f.event.value for f in run.facts(Ended)] == [D(3)]
    assert run.pnl().total == D(200) * (D(3) - D("1.2"))


def test_a_chain_holds_what_lives_with_unit_greeks_and_nan_for_what_is_unknown() -> None:
    """Quotes, vols and Greeks stand in order of id; a contract without a quote has no vol; expired ones are gone."""
    run = Bench(
        [Script()], instruments=[STOCK, CALL, PUT, SOON], tradable=[CALL.id, PUT.id, SOON.id], valuation=IMPLIED
    )
    run.play([quote(CALL.id, 0, 2.2, 2.4), *minutes([100.0, 100.0])], finish=False)
    found = chain_at(run)
    assert found.ids == tuple(sorted([CALL.id, PUT.id, SOON.id]))
    row = found.ids.index(CALL.id)
    assert 0.1 < found.vol[row] < 0.3
    assert found.price[row] == pytest.approx(2.3, abs=1e-3)
    assert 0.5 < found.delta[row] < 0.6
    assert (found.bid[row], found.ask[row]) == (2.2, 2.4)
    other = found.ids.index(PUT.id)
    assert math.isnan(found.vol[other])
    assert math.isnan(found.delta[other])
    assert found.quote_ts[other] == NEVER
    run.play([quote(STOCK.id, 2 * DAY, 99.9, 100.1)], finish=False)
    assert chain_at(run).ids == tuple(sorted([CALL.id, PUT.id]))


def test_equity_is_cash_and_holdings_at_marks() -> None:
    """Buying at the touch costs half the spread of equity and nothing else."""
    run = Bench([Script([(0, STOCK.id, 10)])])
    run.account.ledger.book.add_cash("USD", D(5000))
    run.play(minutes([100.0, 101.0]), finish=False)
    assert run.account.equity(run.loop.now) == D(5000) + 10 * (D(101) - D("100.01"))


def test_equity_is_unknown_while_an_exchange_rate_is() -> None:
    """A holding in a currency nobody priced leaves the equity unknown, not zero."""
    foreign = Spot(id="XETR:UND", currency="EUR", lot=D(1))
    run = Bench([Script()], instruments=[STOCK, foreign], openings=[(foreign.id, 1)], needed=[foreign.id])
    run.play([quote(foreign.id, 0, 99.0, 101.0), *minutes([100.0, 100.0])], finish=False)
    assert run.loop.started_at is not None
    assert run.account.equity(run.loop.now) is None


def test_notices_reach_who_hears_them_and_their_targets_are_traded() -> None:
    """Each notice is told once, at its instant, and its target becomes an order."""
    deaf, ear = Script(name="deaf"), Listener()
    run = Bench([deaf, ear])
    events = [
        *minutes([100.0]),
        Notice(ts_recv=START + MINUTE, namespace="deal/1"),
        quote(STOCK.id, 2 * MINUTE, 99, 101),
    ]
    run.play(events, finish=False)
    assert ear.heard == ["deal/1"]
    assert run.held() == 1
    run.loop.finish()
    assert run.loop.sampler.table().gauges["dynamic", "script", "notices"][-1] == 1.0


def test_corporate_events_are_told_after_holdings_were_adjusted() -> None:
    """A dividend is heard once and paid once."""
    ear = Listener()
    run = Bench([ear], openings=[(STOCK.id, 10)])
    run.play([*minutes([100.0]), Corporate(ts_recv=START + MINUTE, what="dividend", instrument=STOCK.id, cash=D(1))])
    assert ear.heard == ["dividend"]
    assert run.account.ledger.book.cash() == {"USD": D(10)}


def test_figures_are_kept_and_a_fault_in_them_is_an_alarm() -> None:
    """A strategy that cannot report stops nothing but its report."""
    good, bad = Listener(), Listener(fails=True)
    run = Bench({"dynamic": [good], "other": [bad]}).play(minutes([100.0, 100.0]))
    assert run.accounts[0].slots[0].figures == {"heard": {"count": 0.0}}
    assert run.accounts[1].slots[0].figures == {}
    assert [f.alarm.code for f in run.facts(Alarmed, "other")] == ["figures"]


def test_memory_is_journalled_when_it_changes_and_handed_to_a_fresh_object() -> None:
    """The same memory twice is one fact, and a restarted strategy is given the last one."""
    run = Bench([Listener()]).play(minutes([100.0]), finish=False)
    slot = run.account.slots[0]
    for seen in (1, 1, 2):
        slot.view.memory("script", Count(seen))
    fresh = Listener()
    slot.restart(fresh)
    assert fresh.restored == b'{"seen":2}'
    run.loop.finish()
    assert [bytes(f.memory) for f in run.facts(Remembered)] == [b'{"seen":1}', b'{"seen":2}']


def test_gauges_are_nan_before_they_were_first_set() -> None:
    """A gauge is a column over all samples."""

    class Late(Script):
        def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
            view.gauge("floor", 90.0)
            return ()

    run = Bench([Late([(2 * MINUTE, STOCK.id, 1)])], end=START + 5 * MINUTE).play(minutes([100.0] * 6))
    column = run.loop.sampler.table().gauges["dynamic", "script", "floor"]
    assert np.isnan(column[0])
    assert column[-1] == 90.0
