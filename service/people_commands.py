"""The commands about people: their file, their tokens, and the reviews of who broke the glass."""

from pathlib import Path
from typing import Annotated

import typer

from tiphys.service.commands import (
    AsJson,
    By,
    DataDir,
    Url,
    client,
    console,
    decide,
    named,
    show_json,
)
from tiphys.service.telling import plain

people_app = typer.Typer(help="Who people are to Tiphys.", no_args_is_help=True)
reviews_app = typer.Typer(help="Look at who broke the glass.", invoke_without_command=True)


@people_app.command("check")
def check_people(file: Path) -> None:
    """Read a people file and say what is wrong with it: file, line, key, what was expected."""
    from tiphys.service.people_file import load

    found = load(file)
    console.print(f"{file}: good; {len(found.people)} people, {len(found.tokens)} tokens")
    for person in found.people:
        roles = "; ".join(f"{g.role} in {', '.join(g.namespaces)}" for g in person.grants)
        console.print(f"  {plain(person.name)}: {roles}")


@people_app.command("token")
def make_token(name: str) -> None:
    """Make a token for somebody: it is shown this once, the file keeps only its hash."""
    from tiphys.service.people_file import create_token

    token, digest = create_token()
    console.print(f"{token}", soft_wrap=True)
    console.print(f"\n{plain(name)} keeps that as TIPHYS_TOKEN; nobody can show it again.")
    console.print(f"Below `tokens:` of {plain(name)} in the people file goes:\n")
    console.print(f"      - sha256: {digest}", soft_wrap=True)


def break_glass(
    incident: str,
    reason: Annotated[str, typer.Option(help="Why it cannot wait; announced and kept.")],
    url: Url = None,
    data_dir: DataDir = None,
    by: By = "",
    digest: Annotated[str, typer.Option(help="Approve only this plan (first digits).")] = "",
) -> None:
    """Approve alone, in an emergency, what needs two; others are told and somebody reviews it."""
    body = {**named(by), "reason": reason, "digest": digest, "break_glass": True}
    decide("approve", incident, client(url, data_dir), body)


@reviews_app.callback()
def list_reviews(
    context: typer.Context,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    closed: Annotated[bool, typer.Option("--closed", help="Those that are closed, too.")] = False,
) -> None:
    """List who broke the glass and nobody else has looked at yet."""
    if context.invoked_subcommand:
        return
    found = client(url, data_dir).get("/api/reviews", closed=closed)
    if as_json:
        show_json(found)
        return
    for one in found:
        console.print(f"{one['plan_digest'][:12]} {one['incident_id']}", style="bold")
        console.print(f"  {plain(one['what'])}, approved alone by {plain(one['by'])}")
        console.print(f"  {one['at'][:19]} {plain(one['reason'])}")
        if one["closed_by"]:
            console.print(f"  closed by {plain(one['closed_by'])}: {plain(one['closed_reason'])}")
    if not found:
        console.print("nothing waits for a review")


@reviews_app.command("close")
def close_review(
    digest: Annotated[str, typer.Argument(help="The plan, as `tiphys reviews` names it.")],
    reason: Annotated[str, typer.Option(help="What you found; kept in the record.")],
    url: Url = None,
    data_dir: DataDir = None,
    by: By = "",
) -> None:
    """Say that you have looked; nobody closes their own."""
    body = {**named(by), "reason": reason}
    one = client(url, data_dir).post(f"/api/reviews/{digest}/close", body)
    console.print(f"closed the review of {plain(one['what'])}, approved by {plain(one['by'])}")
