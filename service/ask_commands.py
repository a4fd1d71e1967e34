"""`tiphys status` and `tiphys ask`: the whole at a glance, and what the evidence says."""

from typing import Annotated

import typer

from tiphys.service.commands import AsJson, DataDir, Url, client, console, show_json
from tiphys.service.rendering import incidents_table
from tiphys.service.telling import plain


def status(url: Url = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Say what is open, and whether anything is stopped."""
    found = client(url, data_dir).get("/api/status")
    if as_json:
        show_json(found)
        return
    stop = found["stop"]
    words = {True: f"stopped: {stop['reason']}", False: "not stopped"}
    console.print(words.get(stop["engaged"], f"whether it is stopped: {stop['reason']}"))
    counts = ", ".join(f"{n} {state.replace('_', ' ')}" for state, n in found["states"].items())
    console.print(f"{found['open']} open incidents{': ' if counts else ''}{counts}")
    if found["incidents"]:
        console.print(incidents_table(found["incidents"]))


def ask(
    incident: str,
    question: Annotated[list[str], typer.Argument(help="In your own words.")],
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask about an incident; answered from its evidence alone, with citations."""
    asked = " ".join(question)
    found = client(url, data_dir).get(f"/api/incidents/{incident}/answers", question=asked)
    if as_json:
        show_json(found)
        return
    for cited in found["found"]:
        console.print(plain(cited["sentence"]))
        asked_of = plain(cited["question"], 160)
        console.print(f"  {plain(cited['evidence'])}, {cited['source']}: {asked_of}", style="dim")
    if not found["found"]:
        console.print("nothing in this incident's evidence speaks of that")
