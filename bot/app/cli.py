"""The command line: verbs over runs; law: numbers to stdout, words to stderr, and every fault is one sentence and an exit code.

Exit codes: 0 well; 1 a fault of our own; 2 configuration, book or command line; 3 data; 4 named but not delivered yet;
5 plug-in; 6 journal; 7 halted; 8 no such run; 9 storage; 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.exceptions

from bot import __version__
from bot.core.errors import ConfigError, EvenkeelError

app = typer.Typer(
    name="evenkeel",
    help="Keeps an options book on an even keel.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
book_app = typer.Typer(help="Look at a book file.", no_args_is_help=True)
config_app = typer.Typer(help="Check, show and migrate configurations.", no_args_is_help=True)
plugins_app = typer.Typer(help="Feeds, brokers, strategies and policies.", no_args_is_help=True)
journal_app = typer.Typer(help="Prove a run's journal.", no_args_is_help=True)
app.add_typer(book_app, name="book")
app.add_typer(config_app, name="config")
app.add_typer(plugins_app, name="plugins")
app.add_typer(journal_app, name="journal")

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="a TOML file, or the name of a shipped example")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")]
Runs = Annotated[
    Path | None, typer.Option("--runs", help="the folder of stored runs; ./runs and ./config/runs by default")
]


def main() -> None:
    """The entry point: runs a verb and turns faults into a sentence and an exit code."""
    sys.exit(run_verb(lambda: app(standalone_mode=False)))


def run_verb(verb: Callable[[], Any]) -> int:
    """The exit code of a verb."""
    try:
        code = verb()
    except EvenkeelError as fault:
        print(f"evenkeel: {fault}", file=sys.stderr)  # noqa: T201  the command line prints
        return fault.exit_code
    except typer.Exit as ended:
        return int(ended.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        print("evenkeel: interrupted", file=sys.stderr)  # noqa: T201
        return 130
    except typer.exceptions.TyperException as fault:
        show = getattr(fault, "show", None)
        if show is not None:
            show()  # usage, on stderr, as the command line's users know it
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        print("evenkeel: out of memory", file=sys.stderr)  # noqa: T201
        return 1
    except Exception as fault:  # noqa: BLE001  the last line of defence: our own fault, said in one sentence
        if os.environ.get("EVENKEEL_TRACEBACK"):
            traceback.print_exc()
        kind = type(fault).__name__
        print(f"evenkeel: a fault of our own, {kind}: {fault} (EVENKEEL_TRACEBACK=1 shows where)", file=sys.stderr)  # noqa: T201
        return 1
    return code if isinstance(code, int) else 0


# --------------------------------------------------------------------------- running


@app.command()
def backtest(
    config: ConfigPath,
    as_json: AsJson = False,
    store: Annotated[bool, typer.Option("--store/--no-store", help="keep the run in the runs folder")] = True,
    report: Annotated[bool, typer.Option("--report/--no-report", help="write the HTML report beside the run")] = False,
) -> None:
    """Replay a session and say what hedging did: dynamic, static and none on the same ticks."""
    from bot.app import runs, terminal  # noqa: PLC0415  verbs import what they need, so that others start fast

    loaded = _load(config)
    with terminal.progress(loaded, quiet=as_json) as step:
        _, document, folder = runs.execute(loaded, store=store, progress=step)
    _show_run(document, folder, as_json=as_json, report=report)


@app.command()
def run(
    config: ConfigPath,
    as_json: AsJson = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="write the HTML report beside the run")] = False,
) -> None:
    """Trade until the feeds or the session end; SIGTERM and SIGINT end it cleanly. Recorded feeds go at their own pace.

    With storage.durability = "live" this is the daemon: started again, it goes on where its journal ended.
    """
    from bot.app import runs, terminal  # noqa: PLC0415

    loaded = _load(config)
    if loaded.storage.durability == "live":
        from bot.app import service  # noqa: PLC0415

        service.serve(loaded)
        return
    speeds = {feed.pace for feed in loaded.feeds}
    if len(speeds) > 1:
        raise ConfigError(f"{loaded.path.name}: feeds: expected one pace for all feeds of a run, found {len(speeds)}")
    terminal.set_up_logging()
    with terminal.progress(loaded, quiet=as_json) as step:
        _, document, folder = runs.execute(
            loaded, speed=speeds.pop(), progress=step, live_id=True, attend=terminal.attend
        )
    _show_run(document, folder, as_json=as_json, report=report)


LiveName = Annotated[
    str, typer.Argument(metavar="[RUN]", help="a live run's folder, or its config; the only one in runs/ when left out")
]


@app.command()
def status(where: LiveName = "", as_json: AsJson = False) -> None:
    """Say how a live session stands."""
    from bot.app import terminal, words  # noqa: PLC0415

    found = words.read_status(words.live_folder(where))
    if as_json:
        _print_json(found)
    else:
        terminal.show_status(found)


@app.command()
def kill(
    level: Annotated[str, typer.Argument(help="alert, no_new_risk, hedge_only, cancel_all or flatten; or 1 to 5")],
    where: LiveName = "",
    cause: Annotated[str, typer.Option("--cause", help="why, for the record")] = "",
    wait: Annotated[float, typer.Option("--wait", help="seconds to wait for the session to stand there")] = 5.0,
) -> None:
    """Pull a rung of the kill ladder. It holds until a person clears it (`evenkeel tell clear`), restarts included."""
    from bot.app import words  # noqa: PLC0415
    from bot.engine.kill import rung_of  # noqa: PLC0415

    try:
        rung = rung_of(level)
    except ValueError as fault:
        raise ConfigError(str(fault)) from fault
    folder = words.live_folder(where)
    words.leave_word(folder, "kill", f"{rung.word}: {cause or 'the command line'}")
    if not words.wait_for_rung(folder, int(rung), seconds=wait):
        typer.echo(f"{folder.name}: left word; no living session has taken it yet, the next one will")
        raise typer.Exit(1)
    typer.echo(f"{folder.name}: {words.read_status(folder)['kill']}")


@app.command()
def tell(
    verb: Annotated[
        str,
        typer.Argument(
            help="halt, resume, clear, tighten, enable, approve, decline, drill, balance, reconcile, accept_clock"
        ),
    ],
    argument: Annotated[str, typer.Argument(help="what the verb needs, such as max_position=100")] = "",
    where: Annotated[str, typer.Option("--run", help="the live run's folder, or its config")] = "",
) -> None:
    """Leave a word for a live session; what came of it is in its journal, log and status."""
    from bot.app import words  # noqa: PLC0415

    if verb not in words.VERBS:
        raise ConfigError(f"tell: expected one of {', '.join(words.VERBS)}, found {verb!r}")
    folder = words.live_folder(where)
    words.leave_word(folder, verb, argument)
    typer.echo(f"{folder.name}: told {verb} {argument}".rstrip())


def _show_run(document: dict[str, Any], folder: Path | None, *, as_json: bool, report: bool) -> None:
    from bot.app import terminal  # noqa: PLC0415

    page: Path | None = None
    if report and folder is not None:
        from bot.app.report import write_report  # noqa: PLC0415
        from bot.app.runs import StoredRun  # noqa: PLC0415

        page = write_report(StoredRun(folder), folder / "report.html")
    if as_json:
        _print_json(document)
        return
    terminal.show_result(document)
    if folder is not None:
        terminal.say(f"run kept in {folder}")
    if page is not None:
        terminal.say(f"report: {page}")


@app.command()
def risk(
    config: ConfigPath,
    at: Annotated[
        str | None, typer.Option("--at", help="an instant with its zone; the session's first by default")
    ] = None,
    scenario: Annotated[str | None, typer.Option("--scenario", help="such as spot=-5%,vol=+3,days=1")] = None,
    add: Annotated[
        list[str] | None, typer.Option("--add", help="a hypothetical order such as '-5 CME:ESH2020'")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Greeks by contract, expiry, underlying and total, pins ahead and a stress grid. Nothing is sent."""
    from bot.app import risk as risks  # noqa: PLC0415
    from bot.app import terminal  # noqa: PLC0415

    loaded = _load(config)
    document = risks.risk(
        loaded,
        at=None if at is None else _instant(at, "--at"),
        scenario=None if scenario is None else risks.parse_scenario(scenario),
        add=add or [],
    )
    if as_json:
        _print_json(document)
    else:
        terminal.show(risks.render_risk(document))


@app.command()
def report(
    run_name: Annotated[
        str, typer.Argument(metavar="RUN", help="a run, the beginning of its name, a folder, or latest")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="where the page goes; beside the run by default")] = None,
    runs: Runs = None,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained HTML page about a run."""
    from bot.app import terminal  # noqa: PLC0415
    from bot.app.report import write_report  # noqa: PLC0415
    from bot.app.runs import find, storage_faults  # noqa: PLC0415

    stored = find(runs, run_name)
    with storage_faults(out or stored.folder):
        page = write_report(stored, out or stored.folder / "report.html")
    if as_json:
        _print_json({"run_id": stored.run_id, "report": str(page)})
    else:
        terminal.say(f"report: {page}")


@app.command()
def export(
    run_name: Annotated[str, typer.Argument(metavar="RUN")],
    fills: Annotated[
        Path | None, typer.Option("--fills", help="CSV: ts_ns,instrument,signed_qty,price,commission")
    ] = None,
    events: Annotated[Path | None, typer.Option("--events", help="Parquet: every fact of the journal")] = None,
    orders: Annotated[
        Path | None,
        typer.Option("--orders", help="CSV: each order with its rule, what that saw, and what became of it"),
    ] = None,
    account: Annotated[str, typer.Option("--account", help="whose fills and orders")] = "dynamic",
    runs: Runs = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's fills, orders or facts to a file."""
    from bot.app import audit as audits  # noqa: PLC0415
    from bot.app import export as exports  # noqa: PLC0415
    from bot.app import terminal  # noqa: PLC0415
    from bot.app.runs import find, storage_faults  # noqa: PLC0415

    if fills is None and events is None and orders is None:
        raise ConfigError("export: expected --fills FILE, --orders FILE or --events FILE, found neither")
    stored = find(runs, run_name)
    written: dict[str, str] = {"run_id": stored.run_id}
    with storage_faults(fills or orders or events or Path()):
        if fills is not None:
            exports.export_fills(stored, fills, account=account)
            written["fills"] = str(fills)
        if orders is not None:
            audits.export_orders(stored, orders, account=account)
            written["orders"] = str(orders)
        if events is not None:
            exports.export_events(stored, events)
            written["events"] = str(events)
    if as_json:
        _print_json(written)
    else:
        terminal.say(", ".join(f"{key}: {value}" for key, value in written.items()))


@app.command()
def explain(
    run_name: Annotated[str, typer.Argument(metavar="RUN")],
    order_id: Annotated[str | None, typer.Argument(metavar="ORDER_ID")] = None,
    at: Annotated[str | None, typer.Option("--at", help="an instant with its zone: why an order, or why none")] = None,
    runs: Runs = None,
    as_json: AsJson = False,
) -> None:
    """Say in plain words what was behind an order, or behind no order at an instant."""
    from bot.app import explain as explains  # noqa: PLC0415
    from bot.app import terminal  # noqa: PLC0415
    from bot.app.runs import find  # noqa: PLC0415

    if (order_id is None) == (at is None):
        raise ConfigError("explain: expected either ORDER_ID or --at TIME")
    stored = find(runs, run_name)
    if order_id is not None:
        document = explains.explain_order(stored, order_id)
    else:
        document = explains.explain_at(stored, _instant(at or "", "--at"))
    if as_json:
        _print_json(document)
    else:
        terminal.show(explains.render(document))


@app.command()
def tca(
    run_name: Annotated[str, typer.Argument(metavar="RUN")],
    account: Annotated[str, typer.Option("--account", help="whose orders")] = "dynamic",
    window: Annotated[int, typer.Option("--window", help="hedges a rolling figure looks back on")] = 20,
    intervals: Annotated[
        int, typer.Option("--intervals", help="report-grid intervals the rolling effectiveness looks back on")
    ] = 30,
    adv: Annotated[str | None, typer.Option("--adv", help="contracts a day to scale impact by")] = None,
    pool: Annotated[list[str] | None, typer.Option("--pool", help="another run whose fills enter the fits")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="write the analysis as a page")] = None,
    broker: Annotated[Path | None, typer.Option("--broker", help="write the fitted [broker] table")] = None,
    runs: Runs = None,
    as_json: AsJson = False,
) -> None:
    """Transaction cost analysis: each hedge against its decision and the model, rolling, and what the fills tell the broker."""
    from bot.app import tca as costs  # noqa: PLC0415
    from bot.app import terminal  # noqa: PLC0415
    from bot.app.runs import find  # noqa: PLC0415

    stored, others = find(runs, run_name), [find(runs, name) for name in pool or []]
    volume = None if adv is None else _volume(adv)
    document = costs.document(stored, account=account, window=window, intervals=intervals, adv=volume, pooled=others)
    if html is not None:
        costs.write_page(document, html)
    if broker is not None:
        costs.write_broker(document["broker"], broker)
    if as_json:
        _print_json(document)
    else:
        terminal.show(costs.render(document))


# --------------------------------------------------------------------------- research


Workers = Annotated[int | None, typer.Option("--workers", help="processes; as many as there are cores by default")]
PageOut = Annotated[Path | None, typer.Option("--report", help="write an HTML page with pictures here")]
Tolerance = Annotated[
    str | None, typer.Option("--tolerance", help="risk aversion in words: '1 per 2000 of std' pays 1 to be rid of 2000")
]


@app.command()
def compare(
    config: ConfigPath,
    policies: Annotated[
        str | None, typer.Option("--policies", help="all, or names of accounts and kinds between commas")
    ] = None,
    scenarios: Annotated[
        str | None,
        typer.Option("--scenarios", help="gbm, merton, heston, bates or bootstrap; recorded prices by default"),
    ] = None,
    paths: Annotated[int | None, typer.Option("--paths", help="simulated paths")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="of the paths that policies are scored on")] = None,
    tune_seed: Annotated[int | None, typer.Option("--tune-seed", help="of the paths that widths are tuned on")] = None,
    dates: Annotated[int | None, typer.Option("--dates", help="decisions until the last expiry, simulated")] = None,
    tolerance: Tolerance = None,
    workers: Workers = None,
    report: PageOut = None,
    as_json: AsJson = False,
) -> None:
    """Compare hedging policies on the same prices: cost, risk, worth, each with its error."""
    from bot.app import compare as comparing  # noqa: PLC0415
    from bot.app import terminal  # noqa: PLC0415
    from bot.app.lab_problem import parse_tolerance  # noqa: PLC0415

    loaded = _load(config)
    known = ("gbm", "merton", "heston", "bates", "bootstrap")
    if scenarios is not None and scenarios not in known:
        raise ConfigError(f"--scenarios: expected one of {', '.join(known)}, found {scenarios!r}")
    with terminal.progress(loaded, quiet=as_json) as step:
        document = comparing.compare(
            loaded,
            policies=[name.strip() for name in (policies or "").split(",") if name.strip()],
            world=scenarios,  # type: ignore[arg-type]  # checked against the words it may be just above
            paths=paths,
            seed=seed,
            tune_seed=tune_seed,
            dates=dates,
            aversion=None if tolerance is None else parse_tolerance(tolerance),
            workers=_cores() if workers is None else workers,
            full=report is not None or (as_json and comparing.is_simulated(loaded, scenarios)),
            progress=step,
        )
    if report is not None:
        from bot.app import report_policies  # noqa: PLC0415

        report_policies.write_page(report_policies.comparison_page(document), report)
    if as_json:
        _print_json(document)
        return
    terminal.show(comparing.render(document))
    if report is not None:
        terminal.say(f"report: {report}")


@app.command()
def sweep(
    config: ConfigPath,
    sets: Annotated[list[str] | None, typer.Option("--set", help="key=value,value: every combination is run")] = None,
    draws: Annotated[
        list[str] | None, typer.Option("--random", help="key=lo..hi, with :log or :whole at its end")
    ] = None,
    points: Annotated[int | None, typer.Option("--points", help="draws of --random")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="of those draws")] = None,
    workers: Workers = None,
    dask: Annotated[str | None, typer.Option("--dask", help="a Dask scheduler's address, or local")] = None,
    account: Annotated[str, typer.Option("--account", help="whose figures are shown")] = "dynamic",
    out: Annotated[Path | None, typer.Option("--out", help="the folder of results; beside the runs by default")] = None,
    report: PageOut = None,
    as_json: AsJson = False,
) -> None:
    """Run a config at many points of its own keys, each a real backtest; run it again to go on where it was stopped."""
    from rich.console import Console  # noqa: PLC0415

    from bot.app import sweeping, terminal  # noqa: PLC0415

    loaded = _load(config)
    asked = sweeping.points_of(
        loaded,
        sets=sweeping.parse_grid(sets or []),
        draws=sweeping.parse_random(draws or []),
        count=points,
        seed=seed,
    )
    place = sweeping.folder_of(loaded) if out is None else out
    try:
        with sweeping.bar_of(loaded.name, quiet=as_json, console=Console(file=sys.stderr)) as told:
            document, folder = sweeping.run_sweep(
                loaded, asked, folder=place, workers=workers, dask=dask, progress=told
            )
    except KeyboardInterrupt:
        terminal.say(f"interrupted; the answers so far are kept in {place}: the same command goes on from there")
        raise
    if report is not None:
        from bot.app import report_policies  # noqa: PLC0415

        report_policies.write_page(report_policies.sweep_page(document, account), report)
    if as_json:
        _print_json(document)
    else:
        for part in sweeping.render(document, account):
            terminal.show(part)
        terminal.say(f"results: {folder / sweeping.RESULTS}, {folder / sweeping.TABLE}")
        if report is not None:
            terminal.say(f"report: {report}")
    if any(row["fault"] for row in document["points"]):
        raise typer.Exit(3)


@app.command()
def advise(
    config: ConfigPath,
    tolerance: Tolerance = None,
    at: Annotated[
        str | None, typer.Option("--at", help="an instant with its zone; the session's first by default")
    ] = None,
    paths: Annotated[int | None, typer.Option("--paths", help="simulated paths behind cost and risk")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="of those paths")] = None,
    dates: Annotated[int | None, typer.Option("--dates", help="decisions until the last expiry")] = None,
    workers: Workers = None,
    report: PageOut = None,
    as_json: AsJson = False,
) -> None:
    """Say how to hedge this book at these costs and this vol: the policy, its band today, cost and risk until expiry."""
    from bot.app import advise as advising  # noqa: PLC0415
    from bot.app import terminal  # noqa: PLC0415
    from bot.app.lab_problem import parse_tolerance  # noqa: PLC0415

    document = advising.advise(
        _load(config),
        aversion=None if tolerance is None else parse_tolerance(tolerance),
        at=None if at is None else _instant(at, "--at"),
        paths=paths,
        seed=seed,
        dates=dates,
        workers=_cores() if workers is None else workers,
        full=report is not None,
    )
    if report is not None:
        from bot.app import report_policies  # noqa: PLC0415

        report_policies.write_page(report_policies.advice_page(document), report)
    if as_json:
        _print_json(document)
        return
    terminal.show(advising.render(document))
    if report is not None:
        terminal.say(f"report: {report}")


def _cores() -> int:
    from bot.lab.sweep import usable_cores  # noqa: PLC0415

    return usable_cores()


# --------------------------------------------------------------------------- looking


@book_app.command("check")
def book_check(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="an instant: contracts expired by then are faults")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read a book file and say what is in it, or every bad row."""
    from bot.app import terminal  # noqa: PLC0415
    from bot.app.book_file import load_book  # noqa: PLC0415

    loaded = load_book(file, start=None if as_of is None else _instant(as_of, "--as-of"))
    document = terminal.describe_book(loaded)
    if as_json:
        _print_json(document)
    else:
        terminal.show_book(document)


@config_app.command("check")
def config_check(config: ConfigPath, as_json: AsJson = False) -> None:
    """Read a configuration and say that it is well, or every fault of it."""
    from bot.app import config as configs  # noqa: PLC0415
    from bot.app import terminal, wiring  # noqa: PLC0415

    loaded = _load(config)
    wiring.refuse_undelivered(loaded)
    book = wiring.read_book(loaded)
    document = {
        "config": loaded.path.name,
        "name": loaded.name,
        "config_hash": configs.config_hash(loaded),
        "session": wiring.describe_window(loaded.session.start, loaded.session.end),
        "positions": len(book.positions),
        "notes": list(book.notes),
    }
    if as_json:
        _print_json(document)
    else:
        terminal.say(f"{document['config']} is well: {document['session']}, {document['positions']} positions")


@config_app.command("show")
def config_show(config: ConfigPath, as_json: AsJson = False) -> None:
    """Print the resolved configuration, secrets hidden."""
    from bot.app import config as configs  # noqa: PLC0415

    loaded = _load(config, files=False)
    text = configs.show(loaded)
    if as_json:
        import tomllib  # noqa: PLC0415

        _print_json(tomllib.loads(text))
    else:
        sys.stdout.write(text)


@config_app.command("schema")
def config_schema(as_json: AsJson = True) -> None:
    """Print the JSON schema of configurations."""
    from bot.app import config as configs  # noqa: PLC0415

    _print_json(configs.schema())


@config_app.command("migrate")
def config_migrate(
    config: Annotated[Path, typer.Argument(metavar="CONFIG")],
    write: Annotated[bool, typer.Option("--write", help="replace the file; the old one is kept as .bak")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a configuration of an earlier schema to this one."""
    from bot.app import config as configs  # noqa: PLC0415
    from bot.app import terminal  # noqa: PLC0415

    try:
        text = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{config}: cannot be read: {fault}") from fault
    migrated, notes = configs.migrate(text, config.name)
    if write and migrated != text:
        config.with_suffix(config.suffix + ".bak").write_text(text, encoding="utf-8")
        config.write_text(migrated, encoding="utf-8")
    if as_json:
        _print_json({"config": config.name, "changed": migrated != text, "notes": notes, "text": migrated})
        return
    if not write:
        sys.stdout.write(migrated)
    for note in notes:
        terminal.say(note)


@plugins_app.command("list")
def plugins_list(
    config: Annotated[Path | None, typer.Option("--config", help="whose allow-list counts")] = None,
    as_json: AsJson = False,
) -> None:
    """List what is installed, what is allowed and what is broken."""
    import msgspec  # noqa: PLC0415

    from bot.app import plugins, terminal  # noqa: PLC0415

    allow = () if config is None else _load(config).plugins.allow
    found = [msgspec.to_builtins(item) for item in plugins.list_plugins(allow)]
    if as_json:
        _print_json({"plugins": found})
    else:
        terminal.show_plugins(found)


JournalName = Annotated[str, typer.Argument(metavar="RUN", help="a run, or the folder or file of a live one")]


@journal_app.command("verify")
def journal_verify(run_name: JournalName, runs: Runs = None, as_json: AsJson = False) -> None:
    """Prove the chain of a run's journal; the first broken record is named."""
    from bot.app import journals, terminal  # noqa: PLC0415

    document = journals.prove(journals.folder_of(runs, run_name))
    agrees = document["agrees_with_result"] is not False and not (
        document["agrees_with_result"] is None and document["torn_bytes"]
    )
    if as_json:
        _print_json(document)
    else:
        alone = document["agrees_with_result"] is None
        whole = "whole" if alone else "whole, and the result's digest"
        broken = f"{document['torn_bytes']} torn bytes" + ("" if alone else ", NOT the result's digest")
        state = whole if agrees else broken
        terminal.say(f"{document['run_id']}: {document['records']} records, {state}")
    if not agrees:
        raise typer.Exit(6)


@journal_app.command("replay")
def journal_replay(run_name: JournalName, runs: Runs = None, as_json: AsJson = False) -> None:
    """Rebuild the accounts from the journal's facts alone and say how they stand."""
    from bot.app import journals, terminal  # noqa: PLC0415

    document = journals.fold(journals.folder_of(runs, run_name))
    if as_json:
        _print_json(document)
        return
    ended = "the session has ended" if document["ended"] else "the session goes on"
    terminal.say(f"{document['run_id']}: {document['records']} records of release {document['release']}; {ended}")
    for name, account in document["accounts"].items():
        held = ", ".join(f"{quantity} {key}" for key, quantity in account["positions"].items()) or "nothing"
        terminal.say(f"  {name}: {account['orders']} orders, {account['fills']} fills, holds {held}")
        for what in ("halted", "frozen", "differences"):
            if account[what]:
                terminal.say(f"    {what}: {account[what]}")


@journal_app.command("repair")
def journal_repair(run_name: JournalName, runs: Runs = None, as_json: AsJson = False) -> None:
    """Cut a broken journal at its last whole record; what is cut is kept beside it."""
    from bot.app import journals, terminal  # noqa: PLC0415

    document = journals.mend(journals.folder_of(runs, run_name))
    if as_json:
        _print_json(document)
    else:
        terminal.say(
            f"{document['run_id']}: {document['cut_bytes']} bytes cut, {document['records']} records are whole"
        )


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look at this installation: release, libraries, compiled kernels, data root, disk."""
    from bot.app import doctor as doctors  # noqa: PLC0415
    from bot.app import terminal  # noqa: PLC0415

    document = doctors.examine()
    if as_json:
        _print_json(document)
    else:
        terminal.show_doctor(document)
    if any(check["state"] == "bad" for check in document["checks"]):
        raise typer.Exit(1)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Lay out a working folder: example configurations, books, an empty runs folder. Nothing is overwritten."""
    from bot.app import scaffold, terminal  # noqa: PLC0415

    written = scaffold.lay_out(folder)
    if as_json:
        _print_json({"folder": str(folder), "written": written})
    else:
        for name in written:
            terminal.say(f"wrote {name}")
        terminal.say(f"next: evenkeel backtest {folder / 'synthetic.toml'} --report")


@app.command()
def version() -> None:
    """Print the release."""
    print(__version__)  # noqa: T201


# --------------------------------------------------------------------------- parts


def _load(path: Path, *, files: bool = True) -> Any:
    from bot.app import config as configs  # noqa: PLC0415

    if path.exists() or len(path.parts) > 1:
        return configs.load_config(path, files=files)
    example = configs.example_path(path.name)
    if not example.exists():
        return configs.load_config(path, files=files)
    here = {
        "EVENKEEL__STORAGE__RUNS": str(Path("runs").absolute())
    }  # an installed example keeps its runs with the user
    return configs.load_config(example, {**here, **os.environ}, files=files)


def _instant(text: str, option: str) -> int:
    from bot.domain.units import parse_instant  # noqa: PLC0415

    try:
        return parse_instant(text)
    except ValueError as fault:
        raise ConfigError(f"{option}: {fault}") from fault


def _volume(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as fault:
        raise ConfigError(f"--adv: expected contracts a day, found {text!r}") from fault


def _print_json(document: Any) -> None:
    json.dump(document, sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
