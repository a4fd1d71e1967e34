"""Wires the agents: what reads, thinks, proposes, tells people; it can change nothing outside."""

from collections.abc import Mapping

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Severity
from tiphys.service.alertmanager import Alertmanagers
from tiphys.service.gauges import LagMetrics, Lookout
from tiphys.service.intake import Intake, IntakeMetrics
from tiphys.service.investigate import Investigate
from tiphys.service.kubernetes_api import connect
from tiphys.service.kubernetes_reader import KubernetesReader
from tiphys.service.overlooked import Overlooked
from tiphys.service.paging import AlertPager
from tiphys.service.pipeline import Stage
from tiphys.service.process import WATCH, Process
from tiphys.service.reasoning import open_agents
from tiphys.service.recheck import Recheck
from tiphys.service.reconcile import GONE_AFTER, ReconcileMetrics, Reconciler
from tiphys.service.reviews import ReviewPages
from tiphys.service.settle import Settle, Waits


async def open_agents_role(process: Process) -> Mapping[State, Stage]:
    """Begin to take alerts in; gives the stages that the agents work on."""
    settings, ledger, cases = process.settings, process.ledger, process.cases
    alertmanagers = _open_alertmanagers(process)
    cluster = await process.enter(connect(settings.kubeconfig))
    agents = await process.enter(open_agents(settings, alertmanagers, cluster))
    reader = KubernetesReader(cluster)
    bus = await process.bus()

    async def kubernetes() -> None:
        await reader.get("v1", "Namespace", "", settings.actions_namespace)

    process.work_needs("database", ledger.database.ping)
    process.work_needs("kubernetes", kubernetes)

    intake = Intake(bus, ledger, IntakeMetrics(), on_change=process.wake)
    process.run("intake", intake.run())
    lag = Lookout("the stream", bus.lag)
    LagMetrics(last=lambda: lag.last)
    process.run("lag", lag.run())
    if alertmanagers:
        interval, counted = settings.reconcile_interval, ReconcileMetrics()
        rounds = Reconciler(alertmanagers, intake, ledger, counted, interval=interval)
        process.run("reconciliation", rounds.run())

    pager = AlertPager(alertmanagers)
    process.run("overlooked", Overlooked(ledger, pager).run())
    process.run("reviews", ReviewPages(ledger, pager).run())
    seconds = settings.investigation_seconds
    investigate = Investigate(ledger, cases, agents, seconds=seconds, watch=WATCH)
    settle = Settle(ledger, cases, agents, pager, _waits(process))
    return {
        State.OPEN: investigate,
        State.INVESTIGATING: investigate,
        State.PROPOSED: Recheck(ledger, cases, agents),
        State.AWAITING_APPROVAL: settle,
        State.MONITORING: settle,
        State.SUSPENDED: settle,
        State.ESCALATED: settle,
        State.ACKNOWLEDGED: settle,
    }


def _open_alertmanagers(process: Process) -> Alertmanagers | None:
    settings = process.settings
    if not settings.alertmanager_urls:
        return None
    alertmanagers = Alertmanagers(
        settings.alertmanager_urls, cluster=settings.cluster, tellers=settings.tellers
    )
    process.on_close(alertmanagers.close)
    return alertmanagers


def _waits(process: Process) -> Waits:
    policy = process.policy
    return Waits(
        acknowledge={grade: policy.deadlines.of(grade) for grade in Severity},
        max_attempts=policy.attempts.per_incident,
        listings=GONE_AFTER if process.settings.alertmanager_urls else 0,
    )
