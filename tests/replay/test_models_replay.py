"""Whatever values the book, pace and batches change no fact of a session: byte for byte, in every account."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.app import config as configs
from bot.app.config import examples_folder
from tests.replay.days import facts, play

HOUR = {"EVENKEEL__SESSION__END": "2025-03-03T15:10:00Z"}
PAID = '[{underlying = "SIM:XYZ", ex = "2025-03-12T14:30:00Z", amount = 0.8}]'
MODELS = {
    "american": ('pricer = "european"', 'pricer = "american"'),
    "surface": ('vol = "implied"', 'vol = "surface"\nsmile = "local_vol"\nsurface = {model = "cubic"}'),
    "ratio": ('vol = "implied"', 'vol = "implied"\nsmile = 1.6'),
    "hull_white": ('vol = "implied"', 'vol = "implied"\nsmile = "minimum_variance"\nhull_white = {a = -0.2, b = 0, c = 0}'),
    "forecast": ('vol = "implied"', 'vol = "forecast"\nforecast = {kind = "ewma", interval = "1m", least = 5}'),
    "trading": ('vol = "implied"', 'vol = "implied"\nday_count = "trading"'),
    "checked": ('vol = "implied"', 'vol = "implied"\ncheck = {pricer = "tree", every = 10}'),
}  # fmt: skip


def session(folder: Path, model: str) -> Path:
    """The built-in session with one part of its pricing exchanged."""
    text = (examples_folder() / "synthetic.toml").read_text(encoding="utf-8")
    before, after = MODELS[model]
    assert before in text
    books = folder / "books"
    books.mkdir()
    for file in (examples_folder() / "books").iterdir():
        (books / file.name).write_bytes(file.read_bytes())
    path = folder / f"{model}.toml"
    path.write_text(text.replace(before, after), encoding="utf-8")
    return path


@pytest.mark.parametrize("model", MODELS)
def test_batches_change_no_fact_under_any_model(model: str, tmp_path: Path) -> None:
    """One row a batch, 700 a batch and the feed's own choice: the same fills, decisions and alarms."""
    path = session(tmp_path, model)
    plain = facts(play(configs.load_config(path, HOUR))[1])
    assert b'"fact":"fill"' in plain
    for rows in ("1", "700"):
        assert facts(play(configs.load_config(path, {**HOUR, "EVENKEEL__FEEDS__0__BATCH_ROWS": rows}))[1]) == plain
