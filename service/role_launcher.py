"""Wires the launcher: gate, launch and watch. It alone holds the key, and reads only Workflows."""

from collections.abc import Mapping
from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tiphys.policies.freeze import FreezeWindows
from tiphys.policies.lifecycle import State
from tiphys.policies.limits import Breaker
from tiphys.service.approvals import Approvals
from tiphys.service.argo import Argo
from tiphys.service.breakers import Breakers
from tiphys.service.calendar_watch import CalendarWatch
from tiphys.service.decide import Decide, Rulebook
from tiphys.service.errors import ArgoUnavailableError, BadInputError
from tiphys.service.kubernetes_api import connect
from tiphys.service.launch import Launch
from tiphys.service.ledger import utc_now
from tiphys.service.pipeline import Stage
from tiphys.service.process import WATCH, Process
from tiphys.service.settings import Settings
from tiphys.service.stop_switch import StopSwitch
from tiphys.service.watch import Watch, WatchTimes
from tiphys.workflow_templates.signature import KeyUnusableError, load_key, load_or_create_key


async def open_launcher(process: Process) -> Mapping[State, Stage]:
    """Give the stages that the launcher works on."""
    settings, ledger, runs, policy = (
        process.settings, process.ledger, process.runs, process.policy
    )  # fmt: skip
    key = _key(settings)
    own = await process.enter(connect(settings.launcher_kubeconfig))
    argo = Argo(own, settings.actions_namespace)
    switch = StopSwitch(own, settings.stop_namespace)

    async def kubernetes() -> None:
        if await switch.read() is None:
            raise ArgoUnavailableError("the stop switch cannot be read")

    process.work_needs("database", ledger.database.ping)
    process.work_needs("stop switch", kubernetes)

    approvals = Approvals(ledger, runs, timedelta(seconds=policy.approval.expiry_seconds))
    not_after = timedelta(seconds=settings.not_after_seconds)
    calendars = _calendars(process)
    rulebook = Rulebook(policy=policy, not_after=not_after, watch=WATCH, calendars=calendars)
    breakers = Breakers(runs, policy.rule(Breaker))
    times = WatchTimes(resolve=WATCH, max_attempts=policy.attempts.per_incident)
    return {
        State.INSPECTED: Decide(ledger, process.cases, runs, approvals, switch, rulebook),
        State.LAUNCHING: Launch(ledger, runs, argo, key, switch),
        State.RUNNING: Watch(ledger, runs, argo, times, breakers),
    }


def _calendars(process: Process) -> CalendarWatch | None:
    """Watch the policy's calendars, where it names any."""
    file, policy = process.settings.policy, process.policy
    if file is None or not policy.rule(FreezeWindows).calendars:
        return None
    watch = CalendarWatch(policy, file.parent, utc_now)
    process.run("calendars", watch.run())
    return watch


def _key(settings: Settings) -> Ed25519PrivateKey:
    """Read the signing key; only the one in the data directory is made where there is none."""
    try:
        if settings.launcher_key is not None:
            return load_key(settings.launcher_key)
        return load_or_create_key(settings.data_dir / "launcher.key")
    except KeyUnusableError as error:
        raise BadInputError(str(error)) from error
