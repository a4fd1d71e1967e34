"""The commands that talk to a running service, or to nobody at all (`audit verify`)."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Optional
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from tiphys.service.client import Client, whoami
from tiphys.service.errors import BadInputError, UsageError
from tiphys.service.rendering import incidents_table, print_page
from tiphys.service.settings import Settings
from tiphys.service.telling import plain, sentence

console = Console(highlight=False, markup=False)

Url = Annotated[
    Optional[str], typer.Option(help="Where `tiphys serve` listens.", envvar="TIPHYS_URL")
]
DataDir = Annotated[Optional[Path], typer.Option(help="The data directory of `tiphys serve`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
By = Annotated[
    str, typer.Option(help="Who you are; default: whose TIPHYS_TOKEN it is, or your user name.")
]
Reason = Annotated[str, typer.Option(help="Why; kept in the record.")]

incidents_app = typer.Typer(help="Look at incidents.", no_args_is_help=True)
audit_app = typer.Typer(help="Read, export and verify the record.", no_args_is_help=True)
alerts_app = typer.Typer(help="Send alerts by hand.", no_args_is_help=True)


def client(url: str | None, data_dir: Path | None) -> Client:
    """Find the service as the options and the environment say."""
    settings = Settings() if data_dir is None else Settings(data_dir=data_dir)
    token = settings.token or settings.api_token
    return Client.of(url, settings.data_dir, token.get_secret_value() if token else None)


def named(by: str) -> dict[str, str]:
    """Say who it is: as given; else whoever owns the token, or the user at the keyboard."""
    who = by or ("" if Settings().token else whoami())
    return {"by": who} if who else {}


def show_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


@incidents_app.command("list")
def list_incidents(
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    state: Annotated[Optional[list[str]], typer.Option(help="Only these states.")] = None,
) -> None:
    """List incidents, the newest first."""
    found = client(url, data_dir).get("/api/incidents", state=state)
    if as_json:
        show_json(found)
    elif not found:
        console.print("no incidents")
    else:
        console.print(incidents_table(found))


@incidents_app.command("show")
def show_incident(
    incident: str,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    whole: Annotated[bool, typer.Option("--all", help="All evidence and records, too.")] = False,
) -> None:
    """Tell one incident: what was seen, what follows, what was ruled out, what was done."""
    view = client(url, data_dir).get(f"/api/incidents/{incident}")
    if as_json:
        show_json(view)
    else:
        print_page(console, view, whole=whole)


def approve(
    incident: str,
    url: Url = None,
    data_dir: DataDir = None,
    by: By = "",
    reason: Reason = "",
    digest: Annotated[str, typer.Option(help="Approve only this plan (first digits).")] = "",
) -> None:
    """Approve the plan that an incident waits with."""
    decide("approve", incident, client(url, data_dir), _person(by, reason, digest))


def deny(
    incident: str, url: Url = None, data_dir: DataDir = None, by: By = "", reason: Reason = ""
) -> None:
    """Refuse the plan that an incident waits with; the incident is then yours."""
    decide("deny", incident, client(url, data_dir), _person(by, reason, ""))


def acknowledge(
    incident: str, url: Url = None, data_dir: DataDir = None, by: By = "", reason: Reason = ""
) -> None:
    """Take an escalated incident into your own hands."""
    decide("acknowledge", incident, client(url, data_dir), _person(by, reason, ""))


def abort(
    incident: str, url: Url = None, data_dir: DataDir = None, by: By = "", reason: Reason = ""
) -> None:
    """Stop the run of one incident; what it changed is rolled back."""
    found = client(url, data_dir).post(f"/api/incidents/{incident}/abort", _person(by, reason, ""))
    console.print(f"{found['id']}: its run is told to stop and rolls back")


def _person(by: str, reason: str, digest: str) -> dict[str, str]:
    return {**named(by), "reason": reason, "digest": digest}


def decide(verb: str, incident: str, service: Client, person: dict[str, Any]) -> None:
    """Have a person's word about an incident taken, and say what became of it."""
    found = service.post(f"/api/incidents/{incident}/{verb}", person)
    console.print(f"{found['id']} is {found['state']}: {plain(found['reason'])}")


def holds(url: Url = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List tripped breakers, frozen targets and pauses: where Tiphys stays away."""
    service = client(url, data_dir)
    found = service.get("/api/holds")
    if as_json:
        show_json(found)
        return
    for hold in found:
        console.print(f"{hold['scope']}", style="bold")
        console.print(f"  {hold['kind']} of {plain(hold['what'])} since {hold['at'][:19]}")
        console.print(f"  {plain(hold['reason'])}")
    if not found:
        console.print("no breaker is tripped and no target frozen")
    for pause in service.get("/api/pauses"):
        console.print(told_pause(pause))


def told_pause(pause: dict[str, str]) -> str:
    """Give one sentence about a pause, as the API has it."""
    until = f"{pause['until'][:19]}Z"
    return f"{pause['scope']} is paused by {plain(pause['by'])} until {until}: " + (
        plain(pause["reason"]) or "no reason given"
    )


def release(
    scope: str,
    reason: Annotated[str, typer.Option(help="Why it is safe again; kept in the record.")],
    url: Url = None,
    data_dir: DataDir = None,
    by: By = "",
) -> None:
    """Reset a breaker or unfreeze a target, as `tiphys holds` names it."""
    body = {"scope": scope, **named(by), "reason": reason}
    hold = client(url, data_dir).post("/api/holds/release", body)
    console.print(f"released the {hold['kind']} of {plain(hold['what'])}")


def _promise(found: dict[str, Any]) -> None:
    """Say what will become of a person's wish."""
    console.print(f"{found['id']}: {plain(found['title'])}")
    console.print(f"It goes through the gate and approval: tiphys incidents show {found['id']}")


def undo(
    run: Annotated[str, typer.Argument(help="The run's Workflow, or the beginning of its name.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the plan and the record.")],
    url: Url = None,
    data_dir: DataDir = None,
    by: By = "",
) -> None:
    """Undo a finished run: its changes turned round, through the same gate and approval."""
    body = {**named(by), "reason": reason}
    found = client(url, data_dir).post(f"/api/runs/{quote(run, safe='')}/undo", body)
    _promise(found)


def run(
    what: Annotated[
        tuple[str, str],
        typer.Argument(
            metavar="ACTION TARGET",
            help="One of `tiphys catalogue`, and KIND/NAMESPACE/NAME or node/NAME.",
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why; kept in the plan and the record.")],
    given: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter; several times for several."),
    ] = None,
    url: Url = None,
    data_dir: DataDir = None,
    by: By = "",
) -> None:
    """Have an action done, such as `run rollout-restart deployment/shop/cart`; same gate."""
    from tiphys.service.wishes import read_settings

    wish = {"action": what[0], "target": what[1], "parameters": read_settings(given or ())}
    body = {**wish, **named(by), "reason": reason}
    found = client(url, data_dir).post("/api/runs", body)
    _promise(found)


def catalogue(as_json: AsJson = False) -> None:
    """List every action that exists."""
    from tiphys.service.catalogue_view import catalogue_entries

    entries = [entry.model_dump(mode="json") for entry in catalogue_entries()]
    if as_json:
        show_json(entries)
        return
    for entry in entries:
        kinds = ", ".join(kind.split()[-1] for kind in entry["kinds"])
        console.print(f"{entry['name']}-v{entry['version']} on {kinds}", style="bold")
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=6, justify="right")
        grid.add_column(overflow="fold")
        grid.add_row("does", entry["summary"])
        grid.add_row("undo", entry["undo"])
        grid.add_row("may", "; ".join(entry["rights"]))
        console.print(grid)


@alerts_app.command("send")
def send_alerts(file: Path, url: Url = None, data_dir: DataDir = None) -> None:
    """Post webhook bodies, one JSON object a line (or one whole file), as Alertmanager would."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{file}: {why_unreadable(error)}") from error
    bodies = [text] if _is_json(text) else [line for line in text.splitlines() if line.strip()]
    service, given = client(url, data_dir), Settings().webhook_token
    token = given.get_secret_value() if given else None
    for number, body in enumerate(bodies, start=1):
        try:
            service.post_alerts(body.encode(), token)
        except UsageError as error:
            raise BadInputError(
                f"{file}, post {number} of {len(bodies)}: {error.detail}; "
                f"{number - 1} were accepted before it"
            ) from error
    console.print(f"{len(bodies)} posts accepted")


def why_unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Say why a file cannot be read."""
    return error.strerror or str(error) if isinstance(error, OSError) else "not UTF-8 text"


@alerts_app.command("dead")
def list_dead_letters(url: Url = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List messages that were taken and could not be understood; none is thrown away."""
    found = client(url, data_dir).get("/api/dead-letters")
    if as_json:
        show_json(found)
        return
    for letter in found:
        console.print(f"{letter['id']} {letter['at'][:19]} {plain(letter['reason'], 200)}")
        console.print(f"  {plain(letter['payload'], 400)}")
    if not found:
        console.print("no dead letters")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@audit_app.command("list")
def list_audit(
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    incident: Annotated[Optional[str], typer.Option(help="Only this incident.")] = None,
    after: Annotated[int, typer.Option(help="Only records after this number.")] = 0,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 500,
) -> None:
    """List the record in order."""
    query = {"incident": incident, "after": after, "limit": limit}
    records = client(url, data_dir).get("/api/audit", **query)
    if as_json:
        show_json(records)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("#", "time", "event", "incident", "by", "what"):
        table.add_column(column, overflow="fold")
    for record in records:
        table.add_row(
            str(record["seq"]),
            record["at"][:23],
            record["event"],
            record["incident_id"] or "",
            plain(record["actor"], 40),
            plain(sentence(record), 160),
        )
    console.print(table)


@audit_app.command("show")
def show_audit(number: int, url: Url = None, data_dir: DataDir = None) -> None:
    """Show one record whole."""
    found = client(url, data_dir).get("/api/audit", after=number - 1, limit=1)
    if not found or found[0]["seq"] != number:
        raise UsageError(f"there is no record {number}")
    show_json(found[0])


@audit_app.command("export")
def export_audit(
    file: Annotated[Optional[Path], typer.Argument(help="Default: standard output.")] = None,
    url: Url = None,
    data_dir: DataDir = None,
) -> None:
    """Write the whole record as JSON Lines, for `tiphys audit verify`."""
    lines = client(url, data_dir).lines("/api/audit/export")
    if file is None:
        for line in lines:
            sys.stdout.write(line + "\n")
        return
    console.print(f"{write_lines(file, lines)} records in {file}")


def write_lines(file: Path, lines: Iterable[str]) -> int:
    """Write an export whole or not at all: half a one must not look like a whole one."""
    partial = file.with_name(file.name + ".partial")
    with partial.open("w") as out:
        count = sum(1 for line in lines if out.write(line + "\n"))
    partial.replace(file)
    return count


@audit_app.command("verify")
def verify_audit(file: Path) -> None:
    """Verify an export, offline; names the first bad record and exits with 1 if there is one."""
    from tiphys.service.records import verify

    try:
        with file.open() as lines:
            found = verify(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{file}: {why_unreadable(error)}") from error
    if found.problem:
        console.print(
            f"{file}: {found.problem}; {found.records} good records before it", markup=False
        )
        raise typer.Exit(1)
    console.print(f"{file}: {found.records} records, unbroken; head {found.head}")
