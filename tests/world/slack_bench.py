"""A simulated Slack and the real adapter beside a bench, for the tests of chat."""

import asyncio
import contextlib
import html
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from tiphys.sandbox.loopback import serving
from tiphys.sandbox.slack import Message, Slack
from tiphys.service.api import Office
from tiphys.service.approvals import Approvals
from tiphys.service.holds import Holds
from tiphys.service.people import People
from tiphys.service.process import Process
from tiphys.service.roles import Role
from tiphys.service.run_stops import RunStops
from tiphys.service.settings import Settings
from tiphys.service.slack.cards import Cards
from tiphys.service.slack.poster import Poster
from tiphys.service.slack.signed import PATH
from tiphys.service.slack.wiring import open_slack
from tiphys.service.slack.workspace import Workspace
from tiphys.service.undos import Undos
from tiphys.service.views import Views
from tiphys.service.wishes import Wishes

CHANNEL = "C0OPS"


def views_of(bench: Any) -> Views:
    ledger, runs, cases = bench.of(Role.GATEWAY)
    return Views(ledger.database, ledger.audit, ledger.incidents, cases, runs)


@contextlib.asynccontextmanager
async def poster_of(bench: Any, slack: Slack) -> AsyncGenerator[Poster]:
    """One replica's poster; it looks when a test tells it to."""
    async with Workspace.opened(f"{slack.url}/api/", slack.bot_token) as workspace:
        cards = Cards(bench.users[Role.GATEWAY], CHANNEL)
        yield Poster(views_of(bench), cards, workspace, bench.clock)


async def until(true: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until something is true, and give it."""
    async with asyncio.timeout(seconds):
        while not (found := true()):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)
    return found


PEOPLE = """
format: tiphys/people/v1
people:
  - name: ann
    roles: [{role: admin, namespaces: ["*"]}]
    identities: {slack: [UANN]}
  - name: bob
    roles: [{role: approver, namespaces: [shop]}]
    identities: {slack: [UBOB]}
  - name: eve
    roles: [{role: viewer, namespaces: ["*"]}]
    identities: {slack: [UEVE]}
  - name: far
    roles: [{role: approver, namespaces: [elsewhere]}]
    identities: {slack: [UFAR]}
"""


@dataclass
class Chat:
    """One replica of a gateway with Slack in it."""

    process: Process
    url: str
    woken: list[str]


@contextlib.asynccontextmanager
async def chat_of(
    bench: Any,
    slack: Slack,
    directory: Path,
    *,
    signed: bool = False,
    stop: Any = None,
    people: str = PEOPLE,
) -> AsyncGenerator[Chat]:
    """The real adapter, wired as a gateway wires it; `signed`: no Socket Mode."""
    (directory / "people.yaml").write_text(people)
    given: dict[str, Any] = {
        "data_dir": directory,
        "slack_bot_token": slack.bot_token,
        "slack_app_token": None if signed else slack.app_token,
        "slack_signing_secret": slack.signing_secret,
        "people": directory / "people.yaml",
        "slack_channel": CHANNEL,
        "slack_api_url": f"{slack.url}/api/",
    }
    if not bench.database.sqlite:
        url = bench.users[Role.GATEWAY].engine.url
        given["database_url"] = url.render_as_string(hide_password=False)
    process = Process(Settings(**given), bench.policy)
    app, woken = FastAPI(), list[str]()
    await process.open()
    process.ledger.clock = bench.clock
    try:

        def wake() -> None:
            woken.append("woken")
            process.wake()

        ledger, runs = process.ledger, process.runs
        validity = timedelta(seconds=bench.policy.approval.expiry_seconds)
        office = Office(
            views=Views(ledger.database, ledger.audit, ledger.incidents, process.cases, runs),
            ledger=ledger,
            approvals=Approvals(ledger, runs, validity),
            audit=ledger.audit,
            holds=Holds(ledger.database, ledger.audit),
            run_stops=RunStops(ledger, runs),
            undos=Undos(ledger, runs),
            wishes=Wishes(ledger, "sandbox"),
            wake=wake,
            stop=stop,
            token=None,
        )

        await open_slack(process, app, office, People(directory / "people.yaml"))
        async with serving(app) as url:
            slack.request_url = f"{url}{PATH}" if signed else ""
            if not signed:
                await slack.sockets.here.wait()
            yield Chat(process, url, woken)
    finally:
        await process.close()


async def told(slack: Slack, user: str, number: int = 0) -> str:
    """What one person was told, once they were."""

    def mine() -> list[Any]:
        return [w for w in slack.whispers if w.user == user]

    found = await until(lambda: len(mine()) > number and mine()[number])
    texts = [b["text"]["text"] for b in found.blocks if "text" in b]
    return html.unescape(" ".join(texts))


async def first_card(slack: Slack) -> Message:
    """The first card, once it is there."""
    return await until(lambda: slack.posts() and slack.posts()[0])
