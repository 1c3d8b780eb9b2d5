"""An explanation says why an order was made, or why none was, in plain words from the record; law: it shows what was seen
then, never what is known now.

An order is explained from the journal alone: the evidence its decision kept, what limits and venue said, what it left.
"Stay" is not a fact, so an instant without an order is recomputed: the run is assembled anew from its config, replayed to
the instant and asked. That replay is held against the journal fact by fact: it is `proved`, or the first difference is named.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from bot.app import config as configs
from bot.app import risk, wiring
from bot.app.config_text import PREFIX
from bot.app.runs import CONFIG, INSTRUMENTS, JOURNAL, StoredRun
from bot.app.wiring import Run
from bot.core.errors import ConfigError, EvenkeelError, NotDelivered
from bot.core.ports import Band, BandInput, Hedge, HedgePolicy
from bot.core.quiet import FOREVER
from bot.domain.book import trade_value
from bot.domain.instruments import Instrument, OptionContract, Perpetual
from bot.domain.orders import Fill, Order, QuoteRef
from bot.domain.units import DAYS_PER_YEAR, NEVER, NS_PER_SECOND, Nanos, iso
from bot.engine import limits
from bot.engine.account import Account, Slot
from bot.engine.journal import (
    Adjusted,
    Ended,
    Executed,
    Fact,
    Header,
    JournalReader,
    JournalWriter,
    Ordered,
    Refused,
    Skipped,
    Started,
    Step,
    TargetSet,
    VenueSaid,
)
from strategies.policies.decide import Decision, decide

Row: TypeAlias = dict[str, Any]
ZERO: Final = Decimal(0)
MAIN: Final = "dynamic"


# --------------------------------------------------------------------------- an order


def explain_order(stored: StoredRun, order_id: str) -> Row:
    """Why an order was made and what became of it, ready for JSON; `render` turns it into words.

    `order_id` is the id or a unique beginning or end of it (`static-000001`, `dynamic-000017`, `17`); the id of a fill
    names its order. Where several accounts match, dynamic's is meant. ConfigError when none or several match.
    """
    steps = list(stored.steps())
    order = find_order(steps, order_id, stored.run_id)
    before, at = _state_before(steps, order)
    universe = {item.id: item for item in _instruments(stored)}
    config, config_fault = _own_config(stored)
    target_step, target = before.target_of(order.instrument) or (None, None)
    fills = [_fill_row(ts, fill, order, universe) for ts, fill in _fills(steps, order)]
    return {
        "kind": "order",
        "run_id": stored.run_id,
        "order_id": order.id,
        "account": order.account,
        "instrument": order.instrument,
        "ts": iso(order.ts),
        "ts_ns": order.ts,
        "journal_step": at.seq,
        "rows_seen": at.tape,
        "reason": order.reason,
        "target": None if target is None else _target_row(target_step, target, order.instrument),
        "evidence": None if target is None else _evidence_row(target, target_step),
        "held": {key: float(q) for key, q in sorted(before.positions.items())},
        "working": before.working_rows(),
        "limits": _limits_row(order, before, universe, config),
        "limits_unknown": config_fault,
        "order": _order_row(order),
        "venue": _venue_rows(steps, order),
        "fills": fills,
        "left": _left_row(order, before, target, fills, universe, config),
    }


def find_order(steps: Sequence[Step], text: str, run_id: str) -> Order:
    """The order a word names; ConfigError with what was found when it is none or several."""
    orders = {f.order.id: f.order for step in steps for f in step.facts if isinstance(f, Ordered)}
    word = text.strip().split("/")[0]
    for names in (
        [key for key in orders if key == word],
        [key for key in orders if word.isdigit() and key.rpartition("-")[2].lstrip("0") == word.lstrip("0")],
        [key for key in orders if word and (key.startswith(word) or key.endswith(word))],
    ):
        own = [key for key in names if orders[key].account == MAIN]
        if len(names) == 1 or len(own) == 1:
            return orders[(own if len(own) == 1 else names)[0]]
        if names:
            raise ConfigError(
                f"run {run_id}: expected the id of one order, found {len(names)} for {text!r}: {_listed(names)}"
            )
    raise ConfigError(f"run {run_id}: expected the id of an order of it ({_listed(list(orders))}), found {text!r}")


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "it made none"
    return ", ".join(names[:6]) + (f" and {len(names) - 6:,} more" if len(names) > 6 else "")


class History:
    """What the journal's facts add up to for one account: holdings, working orders, last targets."""

    def __init__(self, account: str) -> None:
        self.account = account
        self.positions: dict[str, Decimal] = {}
        self.open: dict[str, tuple[Order, Decimal]] = {}
        self.targets: dict[str, tuple[Step, TargetSet]] = {}

    def take(self, fact: Fact, step: Step) -> None:
        """Count one fact in."""
        if fact.account != self.account:
            return
        match fact:
            case Started():
                self.positions = dict(fact.positions)
            case TargetSet():
                for line in fact.lines:
                    self.targets[line.instrument] = (step, fact)
            case Ordered(order=order):
                self.open[order.id] = (order, order.quantity)
            case Executed(fill=fill):
                self._add(fill.instrument, fill.quantity)
                self._work_off(fill)
            case VenueSaid(what="rejected" | "cancelled"):
                self.open.pop(fact.order_id, None)
            case Ended(event=event):
                if event.quantity:
                    self.positions.pop(event.instrument, None)
                if event.deliver is not None:
                    self._add(event.deliver, event.deliver_quantity)
            case Adjusted():
                self.positions = dict(fact.after)
            case _:
                return

    def target_of(self, instrument: str) -> tuple[Step, TargetSet] | None:
        """The last change of what the account's strategies want to hold of an instrument, and its step."""
        return self.targets.get(instrument)

    def working(self, instrument: str) -> Decimal:
        """Signed contracts of open orders."""
        return sum((left for order, left in self.open.values() if order.instrument == instrument), ZERO)

    def working_rows(self) -> list[Row]:
        """The open orders."""
        return [
            {"order_id": order.id, "instrument": order.instrument, "left": float(left), "since": iso(order.ts)}
            for order, left in self.open.values()
        ]

    def _add(self, instrument: str, quantity: Decimal) -> None:
        held = self.positions.get(instrument, ZERO) + quantity
        self.positions[instrument] = held
        if not held:
            del self.positions[instrument]

    def _work_off(self, fill: Fill) -> None:
        if fill.order_id not in self.open:
            return
        order, left = self.open.pop(fill.order_id)
        if left != fill.quantity:
            self.open[fill.order_id] = (order, left - fill.quantity)


def _state_before(steps: Sequence[Step], order: Order) -> tuple[History, Step]:
    """What stood when an order was decided, and the step it was decided in."""
    history = History(order.account)
    for step in steps:
        for fact in step.facts:
            if isinstance(fact, Ordered) and fact.order.id == order.id:
                return history, step
            history.take(fact, step)
    raise EvenkeelError(f"order {order.id} is not in the journal it was found in")


def _instruments(stored: StoredRun) -> list[Instrument]:
    return msgspec.json.decode((stored.folder / INSTRUMENTS).read_bytes(), type=list[Instrument])


def _own_config(stored: StoredRun) -> tuple[configs.Config | None, str]:
    """The config as the run kept it, or why it cannot be read."""
    try:
        return configs.load_config(stored.folder / CONFIG, env=_without_overrides(os.environ), files=False), ""
    except ConfigError as fault:
        return None, f"the run's own config cannot be read: {fault}"


def _without_overrides(env: Mapping[str, str]) -> dict[str, str]:
    """An environment without overrides of config keys: a run's own copy has them written in."""
    return {key: value for key, value in env.items() if not key.startswith(PREFIX)}


def _seconds(later: Nanos, earlier: Nanos) -> float:
    return (later - earlier) / NS_PER_SECOND


def _quote_row(quote: QuoteRef | None, now: Nanos) -> Row | None:
    if quote is None:
        return None
    return {"bid": quote.bid, "ask": quote.ask, "ts": iso(quote.ts), "age_seconds": _seconds(now, quote.ts)}


def _target_row(step: Step | None, target: TargetSet, instrument: str) -> Row:
    line = next(line for line in target.lines if line.instrument == instrument)
    return {
        "set_at": None if step is None else iso(step.ts),
        "strategy": target.strategy,
        "book": target.book,
        "unrounded": line.unrounded,
        "quantity": float(line.quantity),
        "reason": target.reason,
    }


def _evidence_row(target: TargetSet, step: Step | None) -> Row | None:
    seen = target.evidence
    if seen is None or step is None:
        return None
    return {
        "underlying": seen.underlying,
        "spot": seen.spot,
        "quote": _quote_row(seen.quote, step.ts),
        "vols": dict(seen.vols),
        "oldest_vol_age_seconds": None if seen.vol_age is None else seen.vol_age / NS_PER_SECOND,
        "delta": seen.delta,
        "gamma": seen.gamma,
        "vega_per_point": None if seen.vega is None else seen.vega / 100.0,
        "theta_per_day": None if seen.theta is None else seen.theta / DAYS_PER_YEAR,
        "band": {"lo": seen.lo, "hi": seen.hi},
        "held": float(seen.held),
        "working": float(seen.working),
        "policy": seen.policy,
    }


def _order_row(order: Order) -> Row:
    return {
        "quantity": float(order.quantity),
        "type": order.kind,
        "limit": None if order.limit is None else float(order.limit),
        "tif": order.tif,
        "closing": order.closing,
        "books": {part.book: float(part.quantity) for part in order.allocations},
        "quote": _quote_row(order.reference, order.ts),
    }


def _venue_rows(steps: Sequence[Step], order: Order) -> list[Row]:
    return [
        {"ts": iso(step.ts), "after_seconds": _seconds(step.ts, order.ts), "what": fact.what, "text": fact.text}
        for step in steps
        for fact in step.facts
        if isinstance(fact, VenueSaid) and fact.account == order.account and fact.order_id == order.id
    ]


def _fills(steps: Sequence[Step], order: Order) -> list[tuple[Nanos, Fill]]:
    return [
        (step.ts, fact.fill)
        for step in steps
        for fact in step.facts
        if isinstance(fact, Executed) and fact.account == order.account and fact.fill.order_id == order.id
    ]


def _fill_row(heard: Nanos, fill: Fill, order: Order, universe: Mapping[str, Instrument]) -> Row:
    item = universe[fill.instrument]
    at_mid, at_touch, at_price = (trade_value(item, fill.quantity, p) for p in (fill.mid, fill.touch, fill.price))
    return {
        "fill_id": fill.id,
        "ts": iso(fill.ts),
        "after_seconds": _seconds(fill.ts, order.ts),
        "heard_after_seconds": _seconds(heard, order.ts),
        "quantity": float(fill.quantity),
        "price": float(fill.price),
        "mid": float(fill.mid),
        "touch": float(fill.touch),
        "quote_ts": iso(fill.quote_ts),
        "quote_age_seconds": _seconds(fill.ts, fill.quote_ts),
        "spread_cost": float(at_touch - at_mid),
        "impact": float(at_price - at_touch),
        "commission": float(fill.commission),
        "currency": fill.currency,
    }


def _limits_row(
    order: Order, before: History, universe: Mapping[str, Instrument], config: configs.Config | None
) -> list[Row]:
    """Each configured limit asked again with what the journal knows of that moment."""
    if config is None:
        return []
    settings = wiring.limit_settings(config)
    quote = order.reference
    mid = None if quote is None else quote.mid
    view = limits.LimitView(
        instrument=universe[order.instrument],
        price=math.nan if mid is None else mid,
        quote_age_ns=None if quote is None else order.ts - quote.ts,
        held=before.positions.get(order.instrument, ZERO) + before.working(order.instrument),
        open_orders=len(before.open),
    )
    rows: list[Row] = []
    for code, check in limits.build(settings):
        refusal = check(order, view)
        rows.append(
            {
                "limit": code,
                "bound": _bound(code, settings),
                "passed": True,
                "note": "" if refusal is None else f"cannot be shown from the journal alone ({refusal.text})",
            }
        )
    return rows


def _bound(code: str, settings: limits.LimitSettings) -> str:
    if code == "frozen":
        return "underlying neither frozen nor halted"
    if code == "restricted":
        return ", ".join(settings.restricted) or "nothing is restricted"
    if code == "stale":
        return f"quote at most {(settings.stale_after or 0) / NS_PER_SECOND:g} s old"
    name = code if code == "price_collar" else f"max_{code}"
    return f"{name} {getattr(settings, name)}"


def _left_row(
    order: Order,
    before: History,
    target: TargetSet | None,
    fills: Sequence[Row],
    universe: Mapping[str, Instrument],
    config: configs.Config | None,
) -> Row:
    filled = sum(fill["quantity"] for fill in fills)
    held = float(before.positions.get(order.instrument, ZERO))
    per_contract, why = _per_contract(order, before, target, universe, config)
    seen = None if target is None else target.evidence
    delta = None if seen is None else seen.delta
    net_before = net_after = None
    if per_contract is not None and delta is not None:
        net_before = delta + held * per_contract
        net_after = net_before + filled * per_contract
    return {
        "filled": filled,
        "unfilled": float(order.quantity) - filled,
        "held_before": held,
        "held_after": held + filled,
        "net_delta_before": net_before,
        "net_delta_after": net_after,
        "net_delta_unknown": why or "the decision kept no delta" if net_before is None else None,
        "cost": sum(fill["spread_cost"] + fill["impact"] + fill["commission"] for fill in fills),
    }


def _per_contract(
    order: Order,
    before: History,
    target: TargetSet | None,
    universe: Mapping[str, Instrument],
    config: configs.Config | None,
) -> tuple[float | None, str]:
    """Delta of one hedge contract in units of the underlying, or why the journal does not tell."""
    item, seen = universe[order.instrument], None if target is None else target.evidence
    if isinstance(item, OptionContract) or seen is None:
        return None, "the order is not a linear hedge with evidence"
    if config is None:
        return None, "the run's config cannot be read"
    hedges = [hedge for hedge in wiring.hedges_of(config, ()) if hedge.instrument == item.id]
    if any(hedge.beta is not None for hedge in hedges):
        return None, "the hedge is a proxy with a beta"
    others = [k for k in before.positions if not isinstance(universe[k], OptionContract) and k != item.id]
    if others:
        return None, f"the account also holds {', '.join(sorted(others))}"
    multiplier = float(item.multiplier)
    if isinstance(item, Perpetual) and item.inverse:
        mid = None if order.reference is None else order.reference.mid
        return (None, "the hedge had no two-sided quote") if mid is None else (multiplier / mid, "")
    return multiplier, ""


# --------------------------------------------------------------------------- an instant


class Recorder(JournalWriter):
    """A journal that keeps its steps to be compared, and writes no file."""

    def __init__(self, header: Header) -> None:
        super().__init__(None, header)
        self.steps: list[Step] = []

    def append(self, ts: Nanos, tape: int, facts: list[Fact]) -> None:
        """Keep one step."""
        self.steps.append(Step(seq=self.seq, ts=ts, tape=tape, facts=facts))
        super().append(ts, tape, facts)


Answers: TypeAlias = dict[str, tuple[BandInput, Band]]
"""What a policy was last asked and answered, by underlying."""


class WatchedPolicy:
    """A policy that trades exactly as the one it holds and remembers what it was last asked and answered, by underlying."""

    def __init__(self, policy: HedgePolicy, under: WatchedPolicy | None = None) -> None:
        self._policy = policy
        self._top = self if under is None else under
        self.name = policy.name
        self.underlying = ""
        self.asked: Answers = {}

    def band(self, x: BandInput) -> Band:
        """The policy's own answer."""
        band = self._policy.band(x)
        self._top.asked[self._top.underlying] = (x, band)
        return band

    def stays(self, want: float, held: float, per_contract: float) -> bool:
        """False, which says nothing: a glance would leave no answer to show."""
        return False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._policy, name)
        if name != "prepared":
            return found
        return lambda plan: WatchedPolicy(found(plan), self._top)  # what solved the book is watched too


class WatchedView:
    """A strategy's view that tells a watched policy which underlying is being decided."""

    def __init__(self, view: Any, policy: WatchedPolicy) -> None:
        self._view = view
        self._policy = policy

    @property
    def now(self) -> Nanos:
        """The view's clock, which the loop sets."""
        return int(self._view.now)

    @now.setter
    def now(self, ts: Nanos) -> None:
        self._view.now = ts

    def net_delta(self, underlying: str) -> tuple[float, float]:
        """The view's own answer."""
        self._policy.underlying = underlying
        found: tuple[float, float] = self._view.net_delta(underlying)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)


def explain_at(stored: StoredRun, ts: Nanos, *, account: str = MAIN, env: Mapping[str, str] | None = None) -> Row:
    """What stood at an instant and why it made no order, recomputed from the data, ready for JSON; `render` words it.

    The run is assembled from its config and replayed to `ts` (its own quotes before its timers); nothing is sent. `proof`
    says whether the replay made the same facts as the journal. ConfigError for an unknown account or a config that is
    gone; NotDelivered for a run whose inputs are not kept: live feeds, external venues.
    """
    env = os.environ if env is None else env
    header = JournalReader(stored.folder / JOURNAL).header
    config, config_row = _config_of(stored, header, env)
    run, recorder = _assemble(config, header)
    chosen = _account_of(run, account)
    watched = [_watch(slot) for slot in chosen.slots]
    reached = asyncio.run(risk.replay_to(run.loop, run.feeds, iter((ts,))))
    replayed = _finished(run, recorder, ts, header) if reached.feed_ended else recorder.steps
    replayed = [step for step in replayed if step.ts <= ts]
    steps = list(stored.steps())
    proof = compare([step for step in steps if step.ts <= ts], replayed)
    history = History(account)
    for step in replayed:
        for fact in step.facts:
            history.take(fact, step)
    at = [fact for step in replayed if step.ts == ts for fact in step.facts if fact.account == account]
    return {
        "kind": "instant",
        "run_id": stored.run_id,
        "account": account,
        "ts": iso(ts),
        "ts_ns": ts,
        "proof": proof,
        "config": config_row,
        "data": _data_row(stored, run),
        "session": _session_row(run, reached),
        "positions": {key: float(q) for key, q in sorted(history.positions.items())},
        "working": history.working_rows(),
        "limits": _standing_limits(config, chosen),
        "orders": [f.order.id for f in at if isinstance(f, Ordered)],
        "refusals": [f"{f.refusal.code}: {f.refusal.text}" for f in at if isinstance(f, Refused)],
        "skipped": [f"{f.underlying}: {f.reason}" for f in at if isinstance(f, Skipped)],
        "previous_order": _nearest(steps, account, ts, later=False),
        "next_order": _nearest(steps, account, ts, later=True),
        "underlyings": [
            row
            for slot, policy in zip(chosen.slots, watched, strict=True)
            for row in _slot_rows(run, chosen, slot, policy, history, ts)
        ],
    }


def _assemble(config: configs.Config, header: Header) -> tuple[Run, Recorder]:
    """A fresh run of a config whose journal is kept to be compared."""
    run = wiring.assemble(config, journal=None, run_id=header.run_id)
    _refuse_unrepeatable(run)
    recorder = Recorder(header)
    run.loop.journal = recorder
    return run, recorder


def _finished(run: Run, recorder: Recorder, ts: Nanos, header: Header) -> list[Step]:
    """The steps of a run whose feeds ended by `ts`; the run itself is left as it stood at `ts`.

    A loop told that its feeds ended runs on to the session's end, so before that end another one is told.
    """
    end = run.config.session.end
    if end is None or ts >= end:
        run.loop.finish()
        return recorder.steps
    run.loop.close_open_instant()
    run.loop.run_timers(ts)
    other, record = _assemble(run.config, header)
    asyncio.run(risk.replay_to(other.loop, other.feeds, iter((FOREVER,))))
    other.loop.finish()
    return record.steps


def _config_of(stored: StoredRun, header: Header, env: Mapping[str, str]) -> tuple[configs.Config, Row]:
    """The config to replay: the run's own copy, which has every override written in, else the file it was made from."""
    source = stored.config_path()
    own, own_hash, own_fault = _load(stored.folder / CONFIG, _without_overrides(env))
    found, found_hash, found_fault = _load(source, env)
    row: Row = {"hash": header.config_hash, "used": "the run's own copy", "changed": None}
    if found is None:
        row["changed"] = f"the file it was made from cannot be read now: {found_fault}"
    elif found_hash != header.config_hash:
        row["changed"] = (
            f"{source.name} or a file it names has changed since the run: hash {found_hash[:10]} now, "
            f"{header.config_hash[:10]} then"
        )
    if own is not None and own_hash == header.config_hash:
        return own, row
    if found is not None and (found_hash == header.config_hash or own is None):
        return found, {**row, "used": "the file it was made from"}
    if own is None:
        raise ConfigError(f"run {stored.run_id}: its config cannot be read: {own_fault}; {found_fault}")
    row["changed"] = (
        f"{row['changed'] or ''}; the run's own copy, too, no longer gives its hash: the book or marks file changed"
    ).removeprefix("; ")
    return own, row


def _load(path: Path, env: Mapping[str, str]) -> tuple[configs.Config | None, str, str]:
    try:
        config = configs.load_config(path, env=env)
        return config, configs.config_hash(config), ""
    except ConfigError as fault:
        return None, "", str(fault)


def _account_of(run: Run, name: str) -> Account:
    for account in run.accounts:
        if account.name == name:
            return account
    known = ", ".join(account.name for account in run.accounts)
    raise ConfigError(f"run {run.run_id}: expected an account of it ({known}), found {name!r}")


def _refuse_unrepeatable(run: Run) -> None:
    if not run.recorded:
        raise NotDelivered(
            f"run {run.run_id}: the tape of a live feed is not kept yet, so an instant cannot be recomputed"
        )
    external = [account.name for account in run.accounts if account.in_loop is None]
    if external:
        raise NotDelivered(
            f"run {run.run_id}: account {external[0]} trades at an external venue, whose words are not replayed yet; "
            "explain its orders by their ids"
        )


def _watch(slot: Slot) -> WatchedPolicy | None:
    """The slot's policy under watch, None when its strategy has none."""
    policy = getattr(slot.strategy, "policy", None)
    if not isinstance(policy, HedgePolicy):
        return None
    watched = WatchedPolicy(policy)
    slot.strategy.policy = watched  # type: ignore[attr-defined]  # a plug-in's own attribute, read just above
    slot.view = WatchedView(slot.view, watched)  # type: ignore[assignment]  # answers all that the view answers
    return watched


def compare(stored: Sequence[Step], replayed: Sequence[Step]) -> Row:
    """Whether two lists of steps hold the same facts: `proved` with how many, or `differs` with the first difference."""
    for number in range(max(len(stored), len(replayed))):
        then = stored[number] if number < len(stored) else None
        now = replayed[number] if number < len(replayed) else None
        if then is None or now is None or msgspec.json.encode(then) != msgspec.json.encode(now):
            return {"status": "differs", "steps": number, "first_difference": _difference(then, now)}
    return {"status": "proved", "steps": len(stored), "first_difference": None}


def _difference(then: Step | None, now: Step | None) -> Row:
    known = then if then is not None else now
    assert known is not None  # one of two lists is longer, or both have this step
    facts_then, facts_now = _texts(then), _texts(now)
    place = 0
    while place < min(len(facts_then), len(facts_now)) and facts_then[place] == facts_now[place]:
        place += 1
    if place == len(facts_then) == len(facts_now):
        facts_then, facts_now, place = [_stamp(then)], [_stamp(now)], 0
    return {
        "journal_step": known.seq,
        "ts": iso(known.ts),
        "journal": facts_then[place] if place < len(facts_then) else "nothing",
        "replay": facts_now[place] if place < len(facts_now) else "nothing",
    }


def _texts(step: Step | None) -> list[str]:
    return [] if step is None else [msgspec.json.encode(fact).decode() for fact in step.facts]


def _stamp(step: Step | None) -> str:
    return "nothing" if step is None else f"step {step.seq} at {iso(step.ts)} having seen {step.tape} rows"


def _data_row(stored: StoredRun, run: Run) -> Row:
    """Whether the files read now are those read then, by file name and digest: the folder may have moved."""
    then: dict[str, set[str]] = {}
    for name, digest in stored.result().get("feed", {}).get("files", {}).items():
        then.setdefault(Path(name).name, set()).add(digest)
    now = {f"{feed.name}/{name}": digest for feed in run.feeds for name, digest in feed.report().files.items()}
    changed = sorted(name for name, digest in now.items() if digest not in then.get(Path(name).name, set()))
    return {"files": len(now), "changed": changed}


def _session_row(run: Run, reached: risk.Reached) -> Row:
    loop = run.loop
    state = "running"
    if loop.started_at is None:
        state = f"not begun: {loop.not_ready or 'it begins at ' + iso(loop.settings.start)}"
    elif loop.ended_at is not None:
        state = f"ended at {iso(loop.ended_at)}"
    elif reached.feed_ended and reached.ts is not None:
        state = f"running, though the feed ended at {iso(reached.ts)}"
    return {
        "state": state,
        "started": None if loop.started_at is None else iso(loop.started_at),
        "rows_seen": loop.tape.rows,
    }


def _standing_limits(config: configs.Config, account: Account) -> list[Row]:
    settings = wiring.limit_settings(config)
    rows = [{"limit": code, "bound": _bound(code, settings)} for code, _ in account.checks]
    if account.halted:
        rows[0] = {"limit": "frozen", "bound": account.halted}
    elif account.frozen:
        rows[0] = {"limit": "frozen", "bound": "; ".join(f"{k}: {v}" for k, v in sorted(account.frozen.items()))}
    return rows


def _nearest(steps: Sequence[Step], account: str, ts: Nanos, *, later: bool) -> Row | None:
    """The stored run's order next to an instant."""
    orders = [f.order for s in steps for f in s.facts if isinstance(f, Ordered) and f.account == account]
    found = [order for order in orders if (order.ts > ts if later else order.ts <= ts)]
    if not found:
        return None
    order = found[0] if later else found[-1]
    return {
        "order_id": order.id,
        "ts": iso(order.ts),
        "instrument": order.instrument,
        "quantity": float(order.quantity),
    }


# --------------------------------------------------------------------------- a strategy at an instant


def _slot_rows(
    run: Run, account: Account, slot: Slot, policy: WatchedPolicy | None, history: History, now: Nanos
) -> list[Row]:
    """What one strategy sees of each underlying it hedges, and what it would decide."""
    hedges = [hedge for hedge in getattr(slot.strategy, "hedges", ()) if isinstance(hedge, Hedge)]
    live = run.loop.started_at is not None and run.loop.ended_at is None and not slot.disabled
    slot.view.now = now
    last: Answers = {} if policy is None else dict(policy.asked)
    if policy is not None and live:
        policy.asked.clear()
        slot.strategy.wake(slot.view)  # the replay is thrown away: asking changes no run
        if not policy.asked:
            slot.strategy.timer(slot.view, "explain")  # a rule by the clock leaves quotes alone
    policy = policy if live else None
    return [_hedge_row(run, account, slot, hedge, policy, last.get(hedge.underlying), history, now) for hedge in hedges]


def _hedge_row(
    run: Run,
    account: Account,
    slot: Slot,
    hedge: Hedge,
    policy: WatchedPolicy | None,
    last: tuple[BandInput, Band] | None,
    history: History,
    now: Nanos,
) -> Row:
    view = slot.view
    found = view.risk(hedge.underlying)
    asked = None if policy is None else policy.asked.get(hedge.underlying)
    decision = None if asked is None or policy is None else _decision(run, hedge, asked, policy.name)
    target = history.target_of(hedge.instrument)
    s = run.loop.valuation.slice(hedge.underlying)
    unknown = found.fault if run.loop.started_at is not None else "the session has not begun"
    greeks = found.greeks
    net = view.net_delta(hedge.underlying)[0]
    return {
        "strategy": slot.strategy.name,
        "book": slot.strategy.book,
        "policy": "" if policy is None else policy.name,
        "underlying": hedge.underlying,
        "instrument": hedge.instrument,
        "spot": _finite(found.spot),
        "quotes": {key: _market_row(run, key, now) for key in _quoted(hedge, found.vols)},
        "vols": {
            key: {"vol": _finite(vol), "age_seconds": _vol_age(int(s.vol_ts[s.rows[key]]), now)}
            for key, vol in found.vols.items()
        },
        "smile": run.config.pricing.smile,
        "delta": None if unknown else _finite(greeks.delta),
        "gamma": None if unknown else _finite(greeks.gamma),
        "vega_per_point": None if unknown else _finite(greeks.vega_per_point),
        "theta_per_day": None if unknown else _finite(greeks.theta_per_day),
        "unhedged_delta": None if unknown else _finite(net),
        "net_delta": None
        if asked is None
        else _finite(net + float(view.held(hedge.instrument)) * asked[0].per_contract),
        "unknown": unknown,
        "held": float(view.held(hedge.instrument)),
        "working": float(view.working(hedge.instrument)),
        "exact_hedge": None if asked is None else _finite(float(asked[0].want)),
        "band": None if asked is None else _band_row(asked[1]),
        "decision": None if decision is None else {"stay": decision.stay, "reason": decision.reason},
        "last_turn": None if last is None or policy is None else _turn_row(run, hedge, last, policy.name),
        "last_target": None if target is None else _target_row(*target, hedge.instrument),
        "next_due": None if policy is None else _next_due(run, policy, now),
        "why": _why(run, account, slot, hedge, asked, decision, unknown) + _not_asked(decision, last, now),
    }


def _market_row(run: Run, key: str, now: Nanos) -> Row:
    """The quote and the last print of an instrument, each with its age."""
    column, marks = run.universe.index(key), run.loop.marks
    printed = marks.last_ts(column)
    return {
        "quote": _quote_row(marks.reference(column), now),
        "last": None if printed == NEVER else {"price": marks.last(column), "age_seconds": _seconds(now, printed)},
    }


def _quoted(hedge: Hedge, vols: Mapping[str, float]) -> list[str]:
    return list(dict.fromkeys((hedge.underlying, hedge.instrument, *vols)))


def _vol_age(ts: Nanos, now: Nanos) -> float | None:
    return None if ts == NEVER else max(0.0, _seconds(now, ts))


def _band_row(band: Band) -> Row:
    return {
        "lo": _finite(float(band.lo)),
        "hi": _finite(float(band.hi)),
        "to": None if band.to is None else _finite(float(band.to)),
    }


def _decision(run: Run, hedge: Hedge, asked: tuple[BandInput, Band], name: str) -> Decision:
    x, band = asked
    lot = hedge.lot if hedge.lot is not None else run.universe.get(hedge.instrument).lot
    return decide(band, float(x.held), lot, policy=name, toward_zero=hedge.toward_zero)


def _turn_row(run: Run, hedge: Hedge, last: tuple[BandInput, Band], name: str) -> Row:
    """The policy's last answer in the run itself, and what followed from it."""
    decision = _decision(run, hedge, last, name)
    return {"ts": iso(int(last[0].now)), "stay": decision.stay, "reason": decision.reason}


def _next_due(run: Run, policy: WatchedPolicy, now: Nanos) -> str | None:
    """When a rule that looks at the clock is due next: start + k x interval."""
    interval, start = getattr(policy, "interval", None), run.loop.started_at
    if not interval or start is None:
        return None
    due = start + ((now - start) // interval + 1) * interval
    end = run.loop.settings.end
    return None if end is not None and due >= end else iso(due)


def _why(
    run: Run,
    account: Account,
    slot: Slot,
    hedge: Hedge,
    asked: tuple[BandInput, Band] | None,
    decision: Decision | None,
    unknown: str,
) -> str:
    """The sentence that says why nothing, or something, is done."""
    loop = run.loop
    if loop.started_at is None:
        return f"the session has not begun: {loop.not_ready or 'its start lies ahead'}"
    if loop.ended_at is not None:
        return f"the session ended at {iso(loop.ended_at)}; no strategy is asked after that"
    if slot.disabled:
        return f"the strategy raised and its book is frozen: {slot.disabled}"
    if asked is None or decision is None:
        return unknown or f"strategy {slot.strategy.name} asked its policy nothing about {hedge.underlying}"
    frozen = account.halted or account.frozen.get(hedge.underlying, "")
    if not decision.stay:
        return decision.reason + (f"; but orders are refused: {frozen}" if frozen else "")
    if math.isinf(asked[1].lo) and math.isinf(asked[1].hi):
        last = asked[0].last_hedge_ts
        when = f"it was last due at {iso(int(last))}" if last != NEVER else "it has never been due"
        return f"the rule '{_policy_name(slot)}' asks for nothing now: {when}"
    return decision.reason + (f" (hedging on the last known delta: {unknown})" if unknown else "")


def _not_asked(decision: Decision | None, last: tuple[BandInput, Band] | None, now: Nanos) -> str:
    """What is to be added when a rule would trade now and was not asked: nothing woke it."""
    if decision is None or decision.stay or (last is not None and last[0].now == now):
        return ""
    when = "never yet" if last is None else f"last at {iso(int(last[0].now))}"
    return f"; but nothing woke it at this instant, it was asked {when}"


def _policy_name(slot: Slot) -> str:
    """The name of a slot's rule, its strategy's when it has none."""
    return str(getattr(getattr(slot.strategy, "policy", None), "name", slot.strategy.name))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --------------------------------------------------------------------------- words


def render(document: Row) -> str:
    """An explanation in plain words, a paragraph a line."""
    lines = _order_words(document) if document["kind"] == "order" else _instant_words(document)
    return "\n".join(lines) + "\n"


def _order_words(d: Row) -> list[str]:
    order, target, seen, left = d["order"], d["target"], d["evidence"], d["left"]
    kind = order["type"] if order["limit"] is None else f"limit {_num(order['limit'])}"
    lines = [
        f"Order {d['order_id']} of account {d['account']}, run {d['run_id']}: {_side(order['quantity'])} {d['instrument']}, "
        f"{kind}, {order['tif']}{', to close the session' if order['closing'] else ''}.",
        f"Decided at {d['ts']}, in journal step {d['journal_step']}, having seen {d['rows_seen']:,} rows of market data.",
        f"Why: {d['reason'] or 'no reason was recorded'}.",
    ]
    if target is not None and target["set_at"] != d["ts"]:
        lines.append(
            f"The target was set earlier, at {target['set_at']}, and was not yet held; what was seen is of then."
        )
    lines += ["What was seen:", *_evidence_words(seen, order)]
    lines.append(f"  Held by the account: {_holdings(d['held'])}.")
    lines.append(f"  Working orders: {_working(d['working'])}.")
    lines.append(f"Limits checked: {_limit_words(d['limits'], d['limits_unknown'])}.")
    if target is not None:
        lines.append(
            f"Target of {target['strategy']} for book {target['book']}: hold {_num(target['unrounded'], 4)} before rounding, "
            f"{_num(target['quantity'])} after."
        )
    lines.append(f"So the order was to {_side(order['quantity'])}; it saw {_quote_words(order['quote'])}.")
    lines += [f"Venue: {_venue_words(said)}." for said in d["venue"]] or ["Venue: said nothing apart from fills."]
    lines += [f"Fill {_fill_words(fill)}." for fill in d["fills"]] or ["It was not filled."]
    return [*lines, *_left_words(left, d["instrument"])]


def _evidence_words(seen: Row | None, order: Row) -> list[str]:
    if seen is None:
        return [f"  No evidence was kept: {'a close needs none' if order['closing'] else 'the strategy gave none'}."]
    vols = ", ".join(f"{key} {_percent(vol)}" for key, vol in seen["vols"].items()) or "none"
    age = seen["oldest_vol_age_seconds"]
    return [
        f"  {seen['underlying']} at {_num(seen['spot'], 6)}; the hedge instrument: {_quote_words(seen['quote'])}.",
        f"  Vols: {vols}; the oldest {_seconds_words(age)} old.",
        f"  Greeks of the options: delta {_num(seen['delta'], 4)}, gamma {_num(seen['gamma'], 4)}, vega per point "
        f"{_num(seen['vega_per_point'], 2)}, theta per day {_num(seen['theta_per_day'], 2)}.",
        f"  Rule: {seen['policy']}; it asks to hold {_band_words(seen['band'])}; the book held {_num(seen['held'])} with "
        f"{_num(seen['working'])} working.",
    ]


def _instant_words(d: Row) -> list[str]:
    proof = d["proof"]
    lines = [
        f"Account {d['account']} of run {d['run_id']} at {d['ts']}; session: {d['session']['state']}; "
        f"{d['session']['rows_seen']:,} rows of market data seen.",
        _proof_words(proof),
    ]
    if d["config"]["changed"]:
        lines.append(f"Config: {d['config']['changed']}. Used: {d['config']['used']}.")
    if d["data"]["changed"]:
        lines.append(f"Data: these files are not those of the run: {', '.join(d['data']['changed'])}.")
    lines.append(f"Held: {_holdings(d['positions'])}. Working orders: {_working(d['working'])}.")
    if d["orders"]:
        lines.append(f"Orders made at this very instant: {', '.join(d['orders'])}.")
    lines += [f"Refused at this instant: {text}." for text in d["refusals"]]
    lines += [f"Skipped at this instant: {text}." for text in d["skipped"]]
    for row in d["underlyings"]:
        lines += _hedge_words(row)
    lines.append(f"Limits in force: {_limit_words(d['limits'], '')}.")
    lines.append(f"Order before: {_neighbour(d['previous_order'])}; next: {_neighbour(d['next_order'])}.")
    return lines


def _proof_words(proof: Row) -> str:
    if proof["status"] == "proved":
        return f"Proved: the replay made the same facts as the journal in all {proof['steps']:,} steps up to here."
    first = proof["first_difference"]
    return (
        f"NOT proved: after {proof['steps']:,} equal steps, step {first['journal_step']} at {first['ts']} differs. "
        f"The journal has {first['journal']}; the replay made {first['replay']}."
    )


def _hedge_words(row: Row) -> list[str]:
    quotes = "; ".join(f"{key} {_market_words(seen)}" for key, seen in row["quotes"].items())
    vols = ", ".join(
        f"{key} {_percent(item['vol'])} ({_seconds_words(item['age_seconds'])} old)"
        for key, item in row["vols"].items()
    )
    lines = [
        f"{row['underlying']}, hedged in {row['instrument']} by {row['strategy']} for book {row['book']}:",
        f"  Why: {row['why']}.",
        f"  Quotes: {quotes}.",
        f"  Vols: {vols or 'none'}.",
        f"  Greeks of the options: delta {_num(row['delta'], 4)}{_smile_words(row['smile'])}, gamma "
        f"{_num(row['gamma'], 4)}, vega per point {_num(row['vega_per_point'], 2)}, theta per day "
        f"{_num(row['theta_per_day'], 2)}" + (f"; unknown because {row['unknown']}." if row["unknown"] else "."),
        f"  Held {_num(row['held'])}, working {_num(row['working'])}, exact hedge {_num(row['exact_hedge'], 4)}, net delta "
        f"with the hedge {_num(row['net_delta'], 4)}.",
    ]
    if row["band"] is not None:
        lines.append(f"  Rule: {row['policy']}; it asks to hold {_band_words(row['band'])}.")
    if row["last_turn"] is not None:
        lines.append(f"  Last asked in the run at {row['last_turn']['ts']}: {row['last_turn']['reason']}.")
    if row["next_due"] is not None:
        lines.append(f"  Next due at {row['next_due']}.")
    last = row["last_target"]
    if last is not None:
        lines.append(
            f"  Last target: {_num(last['quantity'])} ({_num(last['unrounded'], 4)} before rounding) set at {last['set_at']}: "
            f"{last['reason']}."
        )
    return lines


def _smile_words(rule: str | float) -> str:
    """What to say of a delta that counts on vols to move with spot."""
    return "" if rule == "sticky_strike" else f" (smile rule {rule})"


def _band_words(band: Row) -> str:
    lo, hi = band["lo"], band["hi"]
    if lo is None and hi is None:
        return "whatever is held"
    if lo == hi:
        return f"exactly {_num(lo, 4)}"
    return f"{'anything' if lo is None else _num(lo, 4)} to {'anything' if hi is None else _num(hi, 4)}"


def _left_words(left: Row, instrument: str) -> list[str]:
    words = [
        f"It left {_num(left['held_after'])} {instrument} held (from {_num(left['held_before'])})"
        + (f", {_num(left['unfilled'])} unfilled" if left["unfilled"] else "")
        + f", and cost {_num(left['cost'], 2)} in all."
    ]
    if left["net_delta_after"] is None:
        return [*words, f"Net delta left: not told, {left['net_delta_unknown']}."]
    return [
        *words,
        f"Net delta, by the Greeks of the decision: {_num(left['net_delta_before'], 4)} before, "
        f"{_num(left['net_delta_after'], 4)} after.",
    ]


def _fill_words(fill: Row) -> str:
    return (
        f"{fill['fill_id']} at {fill['ts']}, {_seconds_words(fill['after_seconds'])} after the decision: "
        f"{_side(fill['quantity'])} at {_num(fill['price'])}, against the quote of {fill['quote_ts']} "
        f"({_seconds_words(fill['quote_age_seconds'])} old): middle {_num(fill['mid'])}, touch {_num(fill['touch'])}; "
        f"spread cost {_num(fill['spread_cost'], 2)}, impact {_num(fill['impact'], 2)}, "
        f"commission {_num(fill['commission'], 2)} {fill['currency']}"
    )


def _venue_words(said: Row) -> str:
    text = f": {said['text']}" if said["text"] else ""
    return f"{said['what']} at {said['ts']}, {_seconds_words(said['after_seconds'])} after the decision{text}"


def _limit_words(rows: Sequence[Row], unknown: str) -> str:
    if unknown:
        return f"unknown, {unknown}"
    words = []
    for row in rows:
        verdict = "" if "passed" not in row else " (passed)" if not row["note"] else f" ({row['note']})"
        words.append(f"{row['bound']}{verdict}")
    return "; ".join(words) or "none"


def _neighbour(order: Row | None) -> str:
    return "none" if order is None else f"{order['order_id']} at {order['ts']} ({_side(order['quantity'])})"


def _market_words(seen: Row) -> str:
    last = seen["last"]
    if last is None:
        return _quote_words(seen["quote"])
    words = f"last print {last['price']:.10g}, {_seconds_words(last['age_seconds'])} old"
    return words if seen["quote"] is None else f"{_quote_words(seen['quote'])}, {words}"


def _quote_words(quote: Row | None) -> str:
    if quote is None:
        return "no quote yet"
    bid, ask = (("none" if side is None else f"{side:.10g}") for side in (quote["bid"], quote["ask"]))
    return f"{bid} / {ask}, {_seconds_words(quote['age_seconds'])} old"


def _holdings(held: Mapping[str, float]) -> str:
    return ", ".join(f"{_num(quantity)} {key}" for key, quantity in held.items()) or "nothing"


def _working(rows: Sequence[Row]) -> str:
    return ", ".join(f"{r['order_id']} ({_side(r['left'])} {r['instrument']} left)" for r in rows) or "none"


def _side(quantity: float) -> str:
    return f"{'buy' if quantity > 0 else 'sell'} {_num(abs(quantity))}"


def _seconds_words(seconds: float | None) -> str:
    return "an unknown time" if seconds is None else f"{seconds:,.3f}".rstrip("0").rstrip(".") + " s"


def _percent(vol: float | None) -> str:
    return "unknown" if vol is None else f"{100 * vol:.2f}%"


def _num(value: float | None, digits: int = 8) -> str:
    if value is None:
        return "unknown"
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits > 2 else text
