"""A control is a person's word to an account while it runs; law: it is carried out or refused with an alarm, and what was
carried out is on the record.

| verb | argument | what it does |
|---|---|---|
| `kill` | `LEVEL` or `LEVEL: cause` | goes up the kill ladder, never down |
| `clear` | | off the ladder; losses are measured from here |
| `halt`, `resume` | | no order of any sort leaves; orders leave again |
| `tighten` | `name=value`, `name@underlying=value` | a limit comes down; wider is refused |
| `enable` | book | a throttled book trades again |
| `approve`, `decline` | ticket | an order that waits is sent, or not |
| `drill` | | tells what each rung would do, and does nothing |
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from bot.core.events import Alarm, Control
from bot.domain.instruments import ConvertibleBond, OptionContract
from bot.domain.orders import Order
from bot.domain.units import Nanos
from bot.engine import gate as gates
from bot.engine import kill, limits
from bot.engine.account import Account, Outlet
from bot.engine.journal import Controlled
from bot.engine.kill import MEANING, KillState, Rung


def pull(account: Account, rung: Rung, cause: str) -> bool:
    """Stand on a rung from this moment on; True when it is higher than before. Asks nobody and cannot fail."""
    return account.gate.pull(rung, cause)


def read_kill(item: Control) -> tuple[Rung, str]:
    """The rung a person asks for, and the cause with who asked."""
    rung, cause = kill.read_pull(item.argument)
    return rung, f"{cause or 'asked for'} by {item.operator or 'a person'}"


def carry_out_pull(account: Account, now: Nanos, outlet: Outlet) -> None:
    """Cancel and flatten as the rung says: asked again at each valuation, so that what failed once is not forgotten."""
    _cancel_what_adds(account, outlet, again=False)
    if account.gate.kill.rung >= Rung.FLATTEN:
        account.flatten(now, outlet)


def cancel_at_last(account: Account, outlet: Outlet) -> None:
    """Ask for what a rung cancels where its proper way failed, asked for before or not."""
    _cancel_what_adds(account, outlet, again=True)


def _cancel_what_adds(account: Account, outlet: Outlet, *, again: bool) -> None:
    """Cancel open orders that passed on a lower rung; on the middle rungs not those that bring a position home."""
    rung = account.gate.kill.rung
    if rung < Rung.NO_NEW_RISK:
        return
    for order_id in list(account.open_ids):
        state = account.orders[order_id]
        if state.passed >= rung or (state.cancelling and not again) or _may_stay(account, state.order, rung):
            continue
        state.cancelling = True
        outlet.cancel(account, order_id, f"kill: {account.gate.kill.words}")


def _may_stay(account: Account, order: Order, rung: Rung) -> bool:
    """True for what the middle rungs let rest, told by positions alone."""
    if rung >= Rung.CANCEL_ALL:
        return False
    if rung >= Rung.HEDGE_ONLY and isinstance(account.universe.get(order.instrument), OptionContract | ConvertibleBond):
        return False
    held = account.ledger.book.quantity(order.instrument)
    after = held + order.quantity
    return abs(after) <= abs(held) and (after == 0 or (after > 0) == (held > 0))


def record_pull(account: Account, rung: Rung, cause: str, now: Nanos) -> None:
    """Put a pulled rung on the record and tell a person."""
    account.pending.append(Controlled(account=account.name, verb=kill.PULL, argument=kill.write_pull(rung, cause)))
    text = f"account {account.name}: {rung.word}: {cause or 'asked for'}: {MEANING[rung]}"
    account.alarm(Alarm(code="kill", text=text, ts=now, action=rung.word))


def obey(account: Account, item: Control, now: Nanos, outlet: Outlet, *, speaks: bool = True) -> bool:
    """Carry out a person's word; True when it meant this account. `speaks` False leaves the alarms of refusals to another."""
    verb, argument = item.verb, item.argument.strip()
    who = item.operator or "a person"
    match verb:
        case "kill":
            return _kill(account, item, now, outlet, speaks=speaks)
        case "clear":
            account.gate.clear()
            _tell(account, "cleared", f"account {account.name}: the kill ladder was cleared by {who}", now)
        case "halt":
            account.halted = item.argument or f"halted by {who}"
            account.pending.append(Controlled(account=account.name, verb=verb, argument=account.halted))
        case "resume":
            account.halted = ""
            account.pending.append(Controlled(account=account.name, verb=verb, argument=item.argument))
        case "tighten":
            return _tighten(account, argument, now, speaks=speaks)
        case "enable":
            return _enable(account, argument, now)
        case "approve" | "decline":
            return _decide(account, item, now, outlet)
        case "drill":
            drill(account, now)
        case "mode":
            if speaks:
                text = f"mode {argument!r}: the mode is {account.gate.mode.words}; it changes by a restart only"
                _tell(account, "refused_control", text, now)
        case _:
            account.pending.append(Controlled(account=account.name, verb=verb, argument=item.argument))
    return True


def _tell(account: Account, code: str, text: str, now: Nanos) -> None:
    account.alarm(Alarm(code=code, text=text, ts=now))


def _kill(account: Account, item: Control, now: Nanos, outlet: Outlet, *, speaks: bool) -> bool:
    rung, words = read_kill(item)
    stands = account.gate.kill
    if rung < stands.rung or rung is Rung.NONE:
        if speaks:
            text = f"kill {item.argument!r}: the account stands on {stands.rung.word}; it goes down by 'clear' only"
            _tell(account, "refused_control", text, now)
        return True
    pull(account, rung, words)
    record_pull(account, rung, words, now)
    carry_out_pull(account, now, outlet)
    return True


def _tighten(account: Account, words: str, now: Nanos, *, speaks: bool) -> bool:
    gate = account.gate
    try:
        gate.limits = limits.tightened(gate.limits, words)
    except ValueError as fault:
        if speaks:
            _tell(account, "refused_control", str(fault), now)
        return True
    gate.note(gates.TIGHTEN, words)
    gate.rebuild()
    return True


def _enable(account: Account, book: str, now: Nanos) -> bool:
    if book not in account.gate.standing.throttled:
        return False
    account.gate.note(gates.ENABLE, book)
    _tell(account, "enabled", f"account {account.name}: book {book} trades again", now)
    return True


def _decide(account: Account, item: Control, now: Nanos, outlet: Outlet) -> bool:
    expire(account, now)
    kept = account.gate.take(item.argument.strip())
    if kept is None:
        return False
    who = item.operator or "a person"
    account.pending.append(Controlled(account=account.name, verb=item.verb, argument=item.argument))
    if item.verb == "decline":
        account.withdraw(kept, "declined", f"{kept.ticket} was declined by {who}", now)
    elif not account.approve(kept, now, outlet):
        account.withdraw(kept, "approval_void", f"{kept.ticket} was approved by {who}, and is not wanted any more", now)
    return True


def expire(account: Account, now: Nanos) -> None:
    """Drop the orders that nobody approved in time."""
    for kept in account.gate.take_expired(now):
        account.withdraw(kept, "not_approved", f"{kept.ticket} was not approved in time", now)


def on_valuation(account: Account, now: Nanos, outlet: Outlet) -> None:
    """What the gate does at each valuation: contracts valued anew, losses looked at, orders that waited too long dropped."""
    gate = account.gate
    gate.units.revalue(now)
    expire(account, now)
    if gate.limits.daily_loss is not None or gate.limits.drawdown is not None:
        for rung, cause in gate.note_equity(account.equity(now), now):
            if gate.pull(rung, cause):
                account.pulled.append((rung, cause))
    settle_pulls(account, now, outlet)
    carry_out_pull(account, now, outlet)


def settle_pulls(account: Account, now: Nanos, outlet: Outlet) -> None:
    """Record and carry out the rungs that limits pulled."""
    pulls, account.pulled = account.pulled, []
    for rung, cause in pulls:
        record_pull(account, rung, cause, now)
    if pulls:
        carry_out_pull(account, now, outlet)


def drill(account: Account, now: Nanos) -> None:
    """Walk the ladder on paper: for each rung what would be cancelled, closed and refused; nothing is touched."""
    stands = account.gate.standing
    held = account.ledger.quantities()
    for rung in list(Rung)[1:]:
        account.gate.standing = msgspec.structs.replace(stands, kill=KillState(rung, "drill"))
        try:
            refused = [key for key, quantity in sorted(held.items()) if _would_refuse(account, key, quantity, now)]
        finally:
            account.gate.standing = stands
        cancels = len(account.open_ids) if rung >= Rung.CANCEL_ALL else 0
        closes = len(held) if rung >= Rung.FLATTEN else 0
        refusing = ", ".join(refused) or "nothing"
        text = f"{rung.word}: would cancel {cancels}, close {closes}, and refuse to add to {refusing}"
        account.pending.append(Controlled(account=account.name, verb=gates.DRILL, argument=text))
    text = f"account {account.name}: the kill ladder was drilled; positions and orders are as they were"
    _tell(account, "drill", text, now)


def _would_refuse(account: Account, key: str, quantity: Decimal, now: Nanos) -> bool:
    """True when as much again of a holding would not be let out."""
    probe = Order(id="drill", account=account.name, instrument=key, quantity=quantity, ts=now, reason="drill")
    return account.gate.check(probe) is not None
