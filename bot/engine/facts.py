"""A fact is what happened to an account, once and for ever; law: its bytes are never rewritten, and folding the facts of a
journal in order gives the account's state again.

`state.py` folds them. What changes positions or money has a fact of its own kind, or is followed by a `Restated` in the
same record.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TypeAlias

import msgspec

from bot.core.events import Alarm, Corporate, Evidence, Lifecycle, TargetLine
from bot.domain.book import PositionKey
from bot.domain.orders import Fill, Order, OrderStatus, Refusal
from bot.domain.units import Nanos


class _Fact(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="fact"):
    account: str
    v: int = 1


class Started(_Fact, frozen=True, gc=False, kw_only=True, tag="started"):
    """The session is ready: every leg has its price; opening positions by instrument, with the mark they enter at."""

    positions: dict[str, Decimal]
    marks: dict[str, Decimal]


class TargetSet(_Fact, frozen=True, gc=False, kw_only=True, tag="target"):
    """A strategy changed what it wants to hold."""

    strategy: str
    book: str
    lines: tuple[TargetLine, ...]
    reason: str
    evidence: Evidence | None = None


class Skipped(_Fact, frozen=True, gc=False, kw_only=True, tag="skipped"):
    """A strategy was due to decide and could not, with the reason."""

    strategy: str
    underlying: str
    reason: str


class Ordered(_Fact, frozen=True, gc=False, kw_only=True, tag="order"):
    """An order was released to the venue."""

    order: Order


class Refused(_Fact, frozen=True, gc=False, kw_only=True, tag="refused"):
    """A limit refused an order before it left."""

    refusal: Refusal


class VenueSaid(_Fact, frozen=True, gc=False, kw_only=True, tag="venue"):
    """The venue accepted, rejected, cancelled or amended an order, or nobody knows."""

    order_id: str
    what: str
    text: str = ""


class Executed(_Fact, frozen=True, gc=False, kw_only=True, tag="fill"):
    """A fill, with the books it was allocated to."""

    fill: Fill
    allocations: dict[str, Decimal]


class Transferred(_Fact, frozen=True, gc=False, kw_only=True, tag="transfer"):
    """Two strategies of one account crossed opposite targets at mid."""

    instrument: str
    seller: str
    buyer: str
    quantity: Decimal
    price: Decimal


class Ended(_Fact, frozen=True, gc=False, kw_only=True, tag="lifecycle"):
    """An option ended: exercise, assignment, expiry or settlement."""

    event: Lifecycle


class Adjusted(_Fact, frozen=True, gc=False, kw_only=True, tag="corporate"):
    """A corporate event changed holdings or froze an underlying."""

    event: Corporate
    before: dict[str, Decimal]
    after: dict[str, Decimal]


class Alarmed(_Fact, frozen=True, gc=False, kw_only=True, tag="alarm"):
    """Something a person should see."""

    alarm: Alarm


class Remembered(_Fact, frozen=True, gc=False, kw_only=True, tag="memory"):
    """A strategy's memory changed."""

    strategy: str
    memory: msgspec.Raw


class Controlled(_Fact, frozen=True, gc=False, kw_only=True, tag="control"):
    """A person's word was carried out."""

    verb: str
    argument: str = ""


class Closed(_Fact, frozen=True, gc=False, kw_only=True, tag="closed"):
    """The session ended: what is held and owed then."""

    positions: dict[str, Decimal]
    cash: dict[str, Decimal]
    marks: dict[str, Decimal]


class Financed(_Fact, frozen=True, gc=False, kw_only=True, tag="financed"):
    """Interest, borrow or funding was booked: `amount` received, negative when paid."""

    currency: str
    amount: Decimal


class Froze(_Fact, frozen=True, gc=False, kw_only=True, tag="froze"):
    """Trading on `key` (an instrument or underlying) stopped for a cause; an empty `text` takes the cause away."""

    key: str
    cause: str
    text: str = ""


class Asked(_Fact, frozen=True, gc=False, kw_only=True, tag="asked"):
    """A strategy asked to be woken at `ts` under a name."""

    strategy: str
    ts: Nanos
    name: str


class Rang(_Fact, frozen=True, gc=False, kw_only=True, tag="rang"):
    """A timer asked for at `ts` has rung, and was not asked for again under its name: a restart rings it no more."""

    strategy: str
    ts: Nanos
    name: str


class Began(_Fact, frozen=True, gc=False, kw_only=True, tag="began"):
    """A process took the book over: its release and configuration, the epoch of its lease, and how many began before it."""

    release: str
    config_hash: str
    epoch: int = 0
    start: int = 0
    mode: str = "live"


class Reconciled(_Fact, frozen=True, gc=False, kw_only=True, tag="reconciled"):
    """The venue's word was compared with ours: fills found that were missed, and what stays unexplained by instrument.

    `elsewhere` is what the account holds and the venue does not, by instrument, fixed when the book was first taken there.
    """

    found: int
    differences: dict[str, Decimal]
    elsewhere: dict[str, Decimal] = {}
    why: str = ""


class Balanced(_Fact, frozen=True, gc=False, kw_only=True, tag="balanced"):
    """A person explained a difference: a quantity entered into a book at a price, without an order of ours."""

    book: str
    instrument: str
    quantity: Decimal
    price: Decimal
    operator: str = ""


class LedgerState(msgspec.Struct, frozen=True, kw_only=True):
    """All an account's ledger knows: positions, cash, flows at mid and costs, by currency, and its counters."""

    positions: list[tuple[PositionKey, Decimal]]
    cash: dict[str, Decimal]
    at_mid: dict[str, dict[str, Decimal]]
    costs: dict[str, dict[str, Decimal]]
    delay: dict[str, Decimal] = {}
    trades: int = 0
    units_traded: Decimal = Decimal(0)
    closing_trades: int = 0
    closing_units: Decimal = Decimal(0)
    turnover: Decimal = Decimal(0)
    opening_ticket: Decimal = Decimal(0)
    opening_orders: dict[str, str] = {}
    opened_on_margin: dict[str, Decimal] = {}


class OrderRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One order's standing: what was filled, how much each book got, which fills were applied."""

    order: Order
    status: OrderStatus
    filled: Decimal = Decimal(0)
    allocated: dict[str, Decimal] = {}
    fill_ids: list[str] = []


class AccountState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an account is, as of one record: what `Account.restored` goes on from."""

    ledger: LedgerState
    orders: list[OrderRecord] = []
    order_count: int = 0
    fill_count: int = 0
    last_fill: Nanos = 0
    targets: list[tuple[str, str, Decimal]] = []
    opened: list[tuple[str, str, Decimal]] = []
    causes: dict[str, dict[str, str]] = {}
    halted: str = ""
    memories: dict[str, msgspec.Raw] = {}
    timers: list[tuple[str, Nanos, str]] = []
    refusals: dict[str, int] = {}
    started_at: Nanos | None = None
    closed: bool = False
    epoch: int = 0
    starts: int = 0
    elsewhere: dict[str, Decimal] | None = None
    differences: dict[str, Decimal] = {}
    standing: msgspec.Raw = msgspec.Raw(b"{}")
    config_hash: str = ""
    v: int = 1


class Restated(_Fact, frozen=True, gc=False, kw_only=True, tag="restated"):
    """The ledger, targets and opening quantities after something that is not a fill changed them."""

    ledger: LedgerState
    targets: list[tuple[str, str, Decimal]] = []
    opened: list[tuple[str, str, Decimal]] = []


class Snapshotted(_Fact, frozen=True, gc=False, kw_only=True, tag="snapshot"):
    """The account as it stood after all facts before this one."""

    state: AccountState


Fact: TypeAlias = (
    Started
    | TargetSet
    | Skipped
    | Ordered
    | Refused
    | VenueSaid
    | Executed
    | Transferred
    | Ended
    | Adjusted
    | Alarmed
    | Remembered
    | Controlled
    | Closed
    | Financed
    | Froze
    | Asked
    | Rang
    | Began
    | Reconciled
    | Balanced
    | Restated
    | Snapshotted
)
