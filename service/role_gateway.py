"""Wires the gateway: the webhook, the API and the stop switch; it reads no cluster, no metrics."""

from datetime import timedelta

from fastapi import FastAPI

from tiphys.service import answers_api, api, pauses_api, wishes_api
from tiphys.service.api_people import Doors, HeaderDoor
from tiphys.service.approvals import Approvals
from tiphys.service.errors import ArgoUnavailableError
from tiphys.service.events_out import EventMetrics, EventsOut, open_http, receiver_of
from tiphys.service.gauges import Lookout, StandingMetrics, read_standing
from tiphys.service.holds import Holds
from tiphys.service.kubernetes_api import connect
from tiphys.service.people import People
from tiphys.service.process import Process
from tiphys.service.run_stops import RunStops
from tiphys.service.stop_switch import StopSwitch
from tiphys.service.undos import Undos
from tiphys.service.views import Views
from tiphys.service.webhook import Webhook, WebhookMetrics
from tiphys.service.wishes import Wishes


async def open_gateway(process: Process) -> tuple[FastAPI, Webhook]:
    """Give the API, and the webhook, which is routed past its framework."""
    app = FastAPI(
        title="Tiphys",
        version="0.1.0",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    settings, ledger = process.settings, process.ledger
    people = People(settings.people)
    own = await process.enter(connect(settings.gateway_kubeconfig))
    stop = StopSwitch(own, settings.stop_namespace)
    validity = timedelta(seconds=process.policy.approval.expiry_seconds)
    bus = await process.bus()

    async def kubernetes() -> None:
        if await stop.read() is None:
            raise ArgoUnavailableError("the stop switch cannot be read")

    process.health.show("stop switch", kubernetes)
    process.health.show("database", ledger.database.ping)
    standing = Lookout("the database", lambda: read_standing(ledger.database))
    StandingMetrics(last=lambda: standing.last)
    process.run("standing", standing.run())
    desk = api.Office(
        views=Views(ledger.database, ledger.audit, ledger.incidents, process.cases, process.runs),
        ledger=ledger,
        approvals=Approvals(ledger, process.runs, validity),
        audit=ledger.audit,
        holds=Holds(ledger.database, ledger.audit),
        run_stops=RunStops(ledger, process.runs),
        undos=Undos(ledger, process.runs),
        wishes=Wishes(ledger, settings.cluster),
        wake=process.wake,
        stop=stop,
        token=settings.api_token,
        doors=_doors(process, people),
    )
    api.install(app, desk)
    for more in (answers_api, pauses_api, wishes_api):
        app.include_router(more.router)
    if (receiver := receiver_of(settings)) is not None:
        http = await process.enter(open_http())
        process.run("events", EventsOut(ledger, receiver, EventMetrics(), http).run())
    if settings.slack_bot_token is not None:
        from tiphys.service.slack.wiring import open_slack  # a second of imports

        await open_slack(process, app, desk, people)
    return app, Webhook(settings, bus, WebhookMetrics())


def _doors(process: Process, people: People) -> Doors:
    """Give every way in."""
    settings = process.settings

    async def readable() -> None:
        people.check()

    if people.known:
        process.health.show("people", readable)
    if settings.people_header is None:
        return Doors(people)
    secret = settings.people_proxy_secret
    header = HeaderDoor(people, settings.people_header, settings.people_proxies, secret)
    return Doors(people, header)
