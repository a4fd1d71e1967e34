"""Wires Slack into a gateway: cards, buttons and commands, over a socket or signed requests."""

import asyncio
from collections.abc import Awaitable, Callable

from fastapi import FastAPI

from tiphys.service.api import Office
from tiphys.service.errors import BadInputError, TiphysError
from tiphys.service.people import People
from tiphys.service.process import Process
from tiphys.service.settings import Settings
from tiphys.service.slack.app import bolt_app, quiet_logger
from tiphys.service.slack.attempts import Attempts
from tiphys.service.slack.buttons import Buttons
from tiphys.service.slack.cards import Cards
from tiphys.service.slack.envelopes import OnceHandler
from tiphys.service.slack.poster import Poster
from tiphys.service.slack.signed import PATH, SignedRequests
from tiphys.service.slack.slash import Commands
from tiphys.service.slack.workspace import Workspace

PING_SECONDS = 10.0
"""How soon a dead socket is noticed, and how often a new one is tried."""


async def open_slack(process: Process, app: FastAPI, office: Office, people: People) -> None:
    """Start it; Slack being away is no reason not to."""
    settings, ledger = process.settings, process.ledger
    if settings.slack_lacking or settings.slack_bot_token is None:
        raise BadInputError(settings.slack_lacking)
    token = settings.slack_bot_token.get_secret_value()
    workspace = await process.enter(Workspace.opened(settings.slack_api_url, token))
    cards = Cards(ledger.database, settings.slack_channel)
    poster = Poster(office.views, cards, workspace, ledger.clock)
    attempts = Attempts(people, ledger)
    buttons = Buttons(office, attempts, workspace)
    commands = Commands(office, attempts, workspace)
    secret = _signing_secret(settings)
    bolt = bolt_app(workspace, buttons, commands, secret)

    async def cards_true() -> None:
        poster.check()

    process.health.show("Slack cards", cards_true)
    process.run("Slack cards", poster.run())
    if secret:
        route = SignedRequests(bolt, secret, ledger.database, ledger.clock)
        app.add_route(PATH, route.__call__, methods=["POST"], include_in_schema=False)
        return
    assert settings.slack_app_token is not None
    handler = OnceHandler(
        bolt,
        settings.slack_app_token.get_secret_value(),
        logger=quiet_logger(),
        web_client=workspace.client,
        ping_interval=PING_SECONDS,
    )
    handler.client.proxy = workspace.client.proxy
    process.on_close(handler.close_async)
    process.health.show("Slack socket", _connected(handler))
    process.run("Slack socket", _stay(handler))


def _signing_secret(settings: Settings) -> str:
    """Give the secret where requests come signed; an app token means Socket Mode."""
    if settings.slack_app_token is not None or settings.slack_signing_secret is None:
        return ""
    return settings.slack_signing_secret.get_secret_value()


async def _stay(handler: OnceHandler) -> None:
    """Connect, however long it takes; the library then keeps a socket open by itself."""
    await handler.connect_async()
    await asyncio.Event().wait()


def _connected(handler: OnceHandler) -> Callable[[], Awaitable[None]]:
    async def check() -> None:
        if not await handler.client.is_connected():
            raise TiphysError("no socket to Slack is open")

    return check
