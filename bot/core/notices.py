"""A notice's payload is a Struct of its namespace, which ends in its version; law: a payload is understood whole or refused.

`convertible/1` is word of one bond, `deal/1` of one merger. A notice says what was announced; what it does to holdings comes
as a Corporate event when it is done (`redemption`, `conversion`, `merger`), so an account that hears no notices is served too.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final, Literal, TypeAlias

import msgspec

from bot.core.errors import DataError
from bot.core.events import Notice
from bot.domain.units import Nanos, Rate

CONVERTIBLE: Final = "convertible/1"
DEAL: Final = "deal/1"


class ConvertibleNotice(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """Word of one convertible bond.

    what         what it says
    call         the issuer redeems at `effective` at `price`, per cent of face with accrued interest within; until then the
                 holder may convert
    recall       lenders want their shares back: from `effective` no more than `shares` may be short
    borrow       from now no more than `shares` may be short (None: any number), at `rate` a year (None: as before)
    credit       the spread or hazard of its model is `credit` from now on
    default      the issuer defaulted: nothing is converted, called or put any more, the claim is what it is quoted at
    """

    instrument: str
    what: Literal["call", "recall", "borrow", "credit", "default"]
    effective: Nanos | None = None
    price: float | None = None
    shares: Decimal | None = None
    rate: Rate | None = None
    credit: float | None = None
    text: str = ""

    def __post_init__(self) -> None:
        needs = {"call": ("effective", "price"), "recall": ("effective", "shares"), "credit": ("credit",)}
        for name in needs.get(self.what, ()):
            if getattr(self, name) is None:
                raise ValueError(f"{self.instrument}: {self.what}: expected {name}, found none")
        for name in ("price", "shares", "credit"):
            _expect_not_negative(self.instrument, name, getattr(self, name))
        if self.rate is not None and not math.isfinite(self.rate):
            raise ValueError(f"{self.instrument}: rate: expected a finite number, found {self.rate}")


class DealNotice(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """Word of the merger of one target. Of what `amended` and `closed` leave out, the terms known before go on.

    what         what it says
    announced    the deal is on (again)
    amended      other terms: `cash` a share, `ratio` of the acquirer a share (both fixed: a collar falls away), another
                 `expected_close`, another `break_price`
    broken       it is off
    closed       it is done on `cash` and `ratio`; the exchange itself comes as a Corporate event
    """

    target: str
    what: Literal["announced", "amended", "broken", "closed"]
    cash: float | None = None
    ratio: float | None = None
    expected_close: Nanos | None = None
    break_price: float | None = None
    text: str = ""

    def __post_init__(self) -> None:
        for name in ("cash", "ratio", "break_price"):
            _expect_not_negative(self.target, name, getattr(self, name))


Payload: TypeAlias = ConvertibleNotice | DealNotice
_KINDS: Final[dict[str, type[ConvertibleNotice] | type[DealNotice]]] = {
    CONVERTIBLE: ConvertibleNotice,
    DEAL: DealNotice,
}


def notice_of(payload: Payload, ts: Nanos) -> Notice:
    """The payload as the event that carries it.

    >>> notice_of(DealNotice(target="US:TGT", what="broken"), 0).namespace
    'deal/1'
    """
    namespace = CONVERTIBLE if isinstance(payload, ConvertibleNotice) else DEAL
    return Notice(ts_recv=ts, namespace=namespace, payload=msgspec.Raw(msgspec.json.encode(payload)))


def read_notice(notice: Notice) -> Payload | None:
    """The payload of a notice, None for a namespace that is not of this page.

    Errors: DataError for a payload that its namespace does not know, and for another version of a namespace that is known.
    """
    kind = _KINDS.get(notice.namespace)
    if kind is None:
        known = {name.partition("/")[0]: name for name in _KINDS}
        word = notice.namespace.partition("/")[0]
        if word in known:
            raise DataError(f"notice {notice.namespace!r}: expected version {known[word]!r}, found another")
        return None
    try:
        return msgspec.json.decode(notice.payload, type=kind)
    except msgspec.DecodeError as fault:
        raise DataError(f"notice {notice.namespace!r}: {fault}") from fault


def _expect_not_negative(of: str, name: str, value: float | Decimal | None) -> None:
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{of}: {name}: expected a number >= 0, found {value}")
