"""A journal on its own: proved, folded back into the state it says, or cut at its last whole record.

Law: nothing here runs a strategy or speaks with a venue; a journal that is in use is not touched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from bot.app.plugins import load
from bot.app.runs import INSTRUMENTS, JOURNAL, RESULT, find
from bot.core.errors import JournalError, RunNotFound
from bot.domain.instruments import Instrument, Universe
from bot.engine.account import Account
from bot.engine.journal import JournalReader, repair, verify
from bot.engine.marks import Marks
from bot.engine.recovery import Recovered, digest_of
from bot.engine.valuation import Valuation, ValuationSettings

_OPEN: Final = 20


def folder_of(runs: Path | None, name: str) -> Path:
    """The folder of a run's journal: a stored run's, or a live one's given by path."""
    direct = Path(name)
    if direct.name == JOURNAL:
        direct = direct.parent
    if (direct / JOURNAL).is_file():
        return direct
    if runs is not None and (runs / name / JOURNAL).is_file():
        return runs / name
    return find(runs, name).folder


def prove(folder: Path) -> dict[str, Any]:
    """The proof of a journal's chain, against the result stored beside it when there is one. JournalError when broken."""
    found = verify(folder / JOURNAL)
    document: dict[str, Any] = {
        "run_id": folder.name,
        "records": found.records,
        "facts_digest": found.facts_digest,
        "torn_bytes": found.torn_bytes,
        "agrees_with_result": None,
    }
    if (folder / RESULT).is_file():
        result = msgspec.json.decode((folder / RESULT).read_bytes())
        document["agrees_with_result"] = found.facts_digest == result["facts_digest"] and not found.torn_bytes
    return document


def fold(folder: Path) -> dict[str, Any]:
    """What the journal's facts add up to, account by account. JournalError for a broken one, RunNotFound without its
    instruments."""
    universe = Universe(_instruments(folder))
    marks = Marks(universe)
    valuation = Valuation(universe, marks, ValuationSettings())
    reader = JournalReader(folder / JOURNAL)
    venue = load("brokers", "paper", ())
    accounts: dict[str, Account] = {}
    recovered = Recovered([])
    for step in reader:
        for fact in step.facts:
            if fact.account not in accounts:
                account = Account(
                    fact.account, universe=universe, marks=marks, valuation=valuation, broker=venue({}), strategies=()
                )
                accounts[fact.account] = recovered.accounts[fact.account] = account
        recovered.take(step)
    return {
        "run_id": folder.name,
        "release": reader.header.release,
        "durability": reader.header.durability,
        "records": recovered.records,
        "ended": recovered.closed,
        "accounts": {name: _told(account) for name, account in sorted(accounts.items())},
    }


def _instruments(folder: Path) -> list[Instrument]:
    path = folder / INSTRUMENTS
    if not path.is_file():
        raise RunNotFound(f"{folder}: expected {INSTRUMENTS} beside the journal, found none")
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Instrument])
    except msgspec.MsgspecError as fault:
        raise JournalError(f"{path}: {fault}") from fault


def _told(account: Account) -> dict[str, Any]:
    return {
        "digest": digest_of(account),
        "positions": {key: str(quantity) for key, quantity in account.ledger.quantities().items()},
        "cash": {currency: str(amount) for currency, amount in account.ledger.book.cash().items() if amount},
        "orders": account.order_count,
        "fills": account.fill_count,
        "open_orders": list(account.open_ids)[:_OPEN],
        "frozen": dict(account.frozen),
        "halted": account.halted,
        "strategies": sorted(account.memories),
        "differences": {key: str(gap) for key, gap in account.differences.items()},
    }


def mend(folder: Path) -> dict[str, Any]:
    """Cut a journal at its last whole record, what was cut kept beside it. JournalError when even its header is broken."""
    cut = repair(folder / JOURNAL)
    return prove(folder) | {"cut_bytes": cut}


__all__ = ["fold", "folder_of", "mend", "prove"]
