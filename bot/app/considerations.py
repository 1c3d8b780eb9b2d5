"""Considerations are what dynamic hedging is warned of, as numbers of one account; law: each is measured in the run, and what
was not is null. They are cost, liquidity, model risk, speed, slippage, frequency, counterparties and upside given up.

Money is in the base currency. Model figures are those of the options held at the instant of the stress table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bot.app.wiring import Run
from bot.core.ports import Hedge
from bot.domain.instruments import OptionContract
from bot.domain.units import NS_PER_DAY, NS_PER_SECOND, Nanos, parse_instant
from bot.engine import comparison
from bot.engine.account import Account
from bot.engine.model_check import Check, CheckSettings
from bot.engine.sampler import Table

SECOND_PRICER: Final = "tree"
MOST_LEGS: Final = 200
"""Options a second pricer is asked about at most: the largest by |quantity x multiplier|; a tree is slow."""
IDLE: Final = "none"
ONCE: Final = "static"


def considerations(
    run: Run, books: Mapping[str, Mapping[str, Any]], stress: Mapping[str, Any], owed: Sequence[Any]
) -> Any:
    """By account, the figures; `books`, `stress` and `owed` are those parts of the result."""
    beside = {account.name: account for account in run.accounts}
    other = beside.get(ONCE if books[IDLE]["cash_only"] else IDLE) if IDLE in beside else None
    return {
        account.name: {
            "transaction_cost": _cost(books[account.name]),
            "frequency": _frequency(run, books[account.name]),
            "liquidity": _liquidity(account),
            "execution": _execution(account),
            "slippage": _slippage(books[account.name]),
            "upside": _upside(run, account, other),
            "model": _model(run, account, stress["accounts"].get(account.name, {}).get("at")),
            "counterparty": _counterparty(owed) if account is run.accounts[0] else None,
        }
        for account in run.accounts
        if account.name != IDLE
    }


def _cost(book: Mapping[str, Any]) -> dict[str, float | None]:
    pnl = book["pnl"]
    total = pnl["spread_cost"] + pnl["commission"] + pnl["impact"]
    return {
        "total": _known(total),
        "spread": _known(pnl["spread_cost"]),
        "commission": _known(pnl["commission"]),
        "impact": _known(pnl["impact"]),
        "bp_of_turnover": _known(1e4 * total / book["turnover"]) if book["turnover"] else None,
    }


def _frequency(run: Run, book: Mapping[str, Any]) -> dict[str, float | None]:
    start, end = run.loop.started_at or 0, run.loop.ended_at or run.loop.now
    days = (end - start) / NS_PER_DAY
    return {
        "orders": book["orders"],
        "fills": book["fills"],
        "orders_a_day": _known(book["orders"] / days) if days > 0.0 else None,
        "turnover": _known(book["turnover"]),
    }


def _liquidity(account: Account) -> dict[str, float | None]:
    """Orders against the size displayed on their side when they left."""
    needs = np.asarray(account.noted.needs, dtype=np.float64)
    told = needs[np.isfinite(needs)]
    return {
        "largest_order_over_display": _known(told.max()) if told.size else None,
        "median_order_over_display": _known(float(np.median(told))) if told.size else None,
        "orders_beyond_display": int((told > 1.0).sum()),
        "orders_without_display": int(needs.size - told.size),
    }


def _execution(account: Account) -> dict[str, float | None]:
    """How long orders waited for their fills, and what the market moved against them meanwhile."""
    waits = np.asarray(account.noted.waits, dtype=np.float64) / NS_PER_SECOND
    return {
        "delay_cost": _known(float(sum(account.delays))),
        "median_seconds": _known(float(np.median(waits))) if waits.size else None,
        "longest_seconds": _known(waits.max()) if waits.size else None,
    }


def _slippage(book: Mapping[str, Any]) -> dict[str, float | None]:
    """Against the middle at the decision: moved before arrival, half the spread, impact."""
    total = sum(book["slippage"].values())
    return {
        "total": _known(total),
        "bp_of_turnover": _known(1e4 * total / book["turnover"]) if book["turnover"] else None,
    }


def _upside(run: Run, account: Account, other: Account | None) -> dict[str, float | str | None]:
    """What another account gained where it gained, and how much of that this one did not have.

    The other is `none`; where that holds cash alone, `static`, which acted once and held on.
    """
    nothing: dict[str, float | str | None] = {"of": None, "gains": None, "given_up": None}
    if other is None or other is account:
        return nothing
    loop, table = run.loop, run.loop.sampler.table()
    span = loop.started_at or 0, loop.ended_at or loop.now, run.config.session.effectiveness_interval
    own, theirs = (
        comparison.steps_at(loop.sampler.instants, table.tracks[a.name].pnl[:, 0], *span) for a in (account, other)
    )
    gains = theirs > 0.0
    if not gains.any():
        return {**nothing, "of": other.name}
    made = float(theirs[gains].sum())
    return {"of": other.name, "gains": _known(made), "given_up": _known(made - float(own[gains].sum()))}


def _counterparty(owed: Sequence[Mapping[str, Any]]) -> dict[str, float | str | None]:
    """What the counterparties of the book owed at most, and who most."""
    known = [row for row in owed if row["peak"] is not None]
    if not known:
        return {"largest": None, "name": None}
    most = max(known, key=lambda row: row["peak"])
    return {"largest": most["peak"], "name": most["counterparty"]}


# --------------------------------------------------------------------------- proxies


def proxies(run: Run) -> list[dict[str, Any]]:
    """Each proxy of `dynamic` against what it stands for, over the effectiveness intervals: beta, correlation and basis.

    The realised beta is the covariance of both returns over the variance of the underlying's; the basis P&L is what the
    holding gained beyond its beta's share of the underlying's moves, in the proxy's currency.
    """
    account, loop = run.accounts[0], run.loop
    hedges = [h for slot in account.slots for h in getattr(slot.strategy, "hedges", ()) if isinstance(h, Hedge)]
    return [_proxy(run, loop.sampler.table(), account.name, h, h.beta) for h in hedges if h.beta is not None]


def _proxy(run: Run, table: Table, account: str, hedge: Hedge, beta: float) -> dict[str, Any]:
    price = np.asarray(table.prices[hedge.instrument])
    spot = run.loop.sampler.spot_path(hedge.underlying)
    held = table.tracks[account].states.held(hedge.instrument) * float(run.universe.get(hedge.instrument).multiplier)
    moved = np.diff(price) - beta * price[:-1] / spot[:-1] * np.diff(spot)
    span = run.loop.started_at or 0, run.loop.ended_at or run.loop.now, run.config.session.effectiveness_interval
    own, other = (comparison.steps_at(run.loop.sampler.instants, np.log(path), *span) for path in (price, spot))
    variance = float(np.var(other)) if len(other) > 1 else 0.0
    covariance = float(np.mean((own - own.mean()) * (other - other.mean()))) if variance else math.nan
    deviation = float(np.std(own)) * math.sqrt(variance)
    return {
        "underlying": hedge.underlying,
        "instrument": hedge.instrument,
        "beta": beta,
        "beta_realised": _known(covariance / variance) if variance else None,
        "correlation": _known(covariance / deviation) if deviation else None,
        "basis_pnl": _known(float(np.sum(held[:-1] * moved))),
        "intervals": len(own),
    }


# --------------------------------------------------------------------------- model risk


def _model(run: Run, account: Account, at: str | None) -> dict[str, Any]:
    """Delta and value of the options held: by the model, by a second pricer, and with vols of bids and asks."""
    names = [
        *("delta", "delta_second_pricer", "delta_at_bid_vols", "delta_at_ask_vols"),
        *("value", "value_second_pricer", "value_at_bids", "value_at_asks"),
    ]
    table = run.loop.sampler.table()
    if at is None:
        return {"legs": 0, **dict.fromkeys(names)}
    now: Nanos = parse_instant(at)
    sample = int(np.searchsorted(table.instants, now))
    held = table.tracks[account.name].states[sample].quantities
    legs = [(item, float(q)) for key, q in held.items() if isinstance(item := run.universe.get(key), OptionContract)]
    legs = sorted(legs, key=lambda leg: -abs(leg[1] * float(leg[0].multiplier)))[:MOST_LEGS]
    sums = dict.fromkeys(names, 0.0)
    for underlying in dict.fromkeys(item.underlying for item, _ in legs):
        mine = [(item, q) for item, q in legs if item.underlying == underlying]
        for name, value in _of_slice(run, table, sample, underlying, mine).items():
            sums[name] += value
    found = {name: _known(value) if legs else None for name, value in sums.items()}
    return {"legs": len(legs), "second_pricer": SECOND_PRICER, **found}


def _of_slice(
    run: Run, table: Table, sample: int, underlying: str, legs: Sequence[tuple[OptionContract, float]]
) -> dict[str, float]:
    """The sums of one underlying; NaN where a vol, a price or a quote is not known."""
    valuation, part = run.loop.valuation, table.parts[underlying]
    rows = np.array([part.rows[item.id] for item, _ in legs], dtype=np.int64)
    s, vol = part.part(rows), table.vols[underlying][sample][rows]
    weight = np.array([q for _, q in legs]) * s.multiplier
    now, spot = int(table.instants[sample]), float(run.loop.sampler.spot_path(underlying)[sample])
    units = valuation.units(s, spot, now, vol)
    second = Check(CheckSettings(pricer=SECOND_PRICER)).second(
        s.market,
        spot,
        s.strike,
        s.expiry_clock - s.clock.at(now),
        vol,
        cp=s.cp,
        expiry=s.expiry_clock,
        style=np.array([item.style == "american" for item, _ in legs]),
        alive=(s.expiry > now) & np.isfinite(vol) & (vol > 0.0),
    )
    bid, ask = _quotes(run, [item.id for item, _ in legs], sample)
    with np.errstate(divide="ignore", invalid="ignore"):
        at_bid = valuation.units(s, spot, now, np.maximum(vol + (bid - units.price) / units.vega, 0.0), second=False)
        at_ask = valuation.units(s, spot, now, np.maximum(vol + (ask - units.price) / units.vega, 0.0), second=False)
    return {
        "delta": _sum(weight * units.delta),
        "delta_second_pricer": _sum(weight * second.delta),
        "delta_at_bid_vols": _sum(weight * at_bid.delta),
        "delta_at_ask_vols": _sum(weight * at_ask.delta),
        "value": _sum(weight * units.price),
        "value_second_pricer": _sum(weight * second.price),
        "value_at_bids": _sum(weight * bid),
        "value_at_asks": _sum(weight * ask),
    }


def _quotes(run: Run, keys: Sequence[str], sample: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sides = [run.loop.sampler.quotes(key) for key in keys]
    return np.array([bid[sample] for bid, _ in sides]), np.array([ask[sample] for _, ask in sides])


def _sum(values: NDArray[np.float64]) -> float:
    return float(np.sum(values))


def _known(value: float) -> float | None:
    return round(float(value), 6) + 0.0 if math.isfinite(value) else None
