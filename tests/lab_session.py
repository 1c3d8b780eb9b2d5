"""A session for the research verbs: the yardstick's problem (one call, S = K = 100, vol 20%, a quarter, 20 basis points) as a
book of ten thousand options, and a recorded hour in which its price swings.
"""

from __future__ import annotations

import math
from pathlib import Path

from bot.domain.units import NS_PER_MINUTE, iso, parse_instant
from tests.replay.command import call as call  # noqa: PLC0414  the command line is called the same way everywhere

START = parse_instant("2025-03-03T14:30:00Z")
EXPIRY = "2025-06-02T20:30:00Z"  # a quarter of 365 days later
OPTIONS = 10_000
AVERSION = 1e-4
"""One option at aversion 1 is ten thousand at a ten-thousandth of it."""
TOLERANCE = "1 per 141.42135623730951 of std"


def write_quarter(
    folder: Path,
    *,
    quantity: int = -OPTIONS,
    held: int = 0,
    minutes: int = 60,
    swing: float = 0.5,
    tables: str = "",
    policy: str = 'kind = "fixed_interval"\ninterval = "5m"',
) -> Path:
    """The config of the session; `tables` is more TOML at its end, `held` shares of the underlying held already."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["ts,instrument,bid,ask,bid_size,ask_size"]
    for minute in range(minutes + 1):
        spot = 100.0 + swing * math.sin(minute / 7.0)
        lines.append(f"{iso(START + minute * NS_PER_MINUTE)},SIM:XYZ,{spot - 0.2:.4f},{spot + 0.2:.4f},1000,1000")
    (folder / "quotes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    book = "underlying,type,cp,strike,expiry,style,settlement,multiplier,currency,quantity\n"
    book += f"SIM:XYZ,option,call,100,{EXPIRY},european,cash,1,USD,{quantity}\n"
    if held:
        book += f"SIM:XYZ,stock,,,,,,,USD,{held}\n"
    (folder / "book.csv").write_text(book, encoding="utf-8")
    text = f"""schema_version = 1
name = "quarter"
[session]
start = "{iso(START)}"
end = "{iso(START + minutes * NS_PER_MINUTE)}"
begin = "immediate"
[[feeds]]
kind = "replay"
format = "csv"
files = ["quotes.csv"]
only = ["SIM:XYZ"]
[book]
file = "book.csv"
[pricing]
vol = "fixed"
vol_value = 0.2
mark = "model"
remark = "1m"
[[hedges]]
underlying = "SIM:XYZ"
instrument = "SIM:XYZ"
cost = 0.002
[[strategies]]
kind = "delta_hedger"
[strategies.policy]
{policy}
[storage]
runs = "runs"
{tables}
"""
    path = folder / "quarter.toml"
    path.write_text(text, encoding="utf-8")
    return path
