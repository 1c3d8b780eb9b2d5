"""A daemon table says how a live session is reached and how patient it is; law: whatever can act from outside is off unless
it is switched on here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from bot.app.config_parts import Interval, Section, Whole
from bot.domain.units import NS_PER_MINUTE, NS_PER_SECOND

_Patience = Annotated[Interval, Field(ge=NS_PER_SECOND // 100, le=60 * NS_PER_MINUTE)]


class Daemon(Section):
    """How a live session (storage.durability = "live") is reached, logged and how patient it is."""

    health_port: Annotated[Whole, Field(ge=0, le=65_535)] | None = Field(
        default=None, description="loopback port of /healthz, /readyz, /metrics and /status; 0 takes any, absent: none"
    )
    control_token: str | None = Field(
        default=None,
        max_length=64,
        description="name of the secret (256 bits) that POST /kill, /tighten and /approve must bear; absent: no control",
    )
    log: Literal["json", "console"] = Field(default="console", description="lines for machines, or for people")
    ack_timeout: _Patience = Field(default=NS_PER_SECOND, description="an order not answered for so long is UNKNOWN")
    reconcile_every: _Patience = Field(
        default=30 * NS_PER_SECOND, description="between two comparisons with the venue when nothing else asks for one"
    )
    drain: _Patience = Field(default=5 * NS_PER_SECOND, description="for answers, when told to stop")
    dead_man: _Patience = Field(
        default=NS_PER_MINUTE, description="after which a venue that can cancels our orders unless it hears of us"
    )

    @field_validator("control_token")
    @classmethod
    def _names_a_secret(cls, name: str | None) -> str | None:
        if name is not None and not name.isidentifier():
            raise ValueError(f"expected the name of a secret under [secrets], found {name!r}")
        return name
