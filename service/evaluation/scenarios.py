"""Runs the first decision of sandbox scenarios: the simulated world, the real agents over HTTP.

Only the decision is judged, not the healing after it: that is what the acceptance tests play.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tiphys.agents.graph import Agents
from tiphys.agents.model_reasoner import Sources
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import Case
from tiphys.policies.model import Alert, Decision, NoAction, Proposal
from tiphys.policies.parse import parse
from tiphys.sandbox.scenario import End, Scenario, ScenarioError, load
from tiphys.sandbox.world import CLUSTER, World
from tiphys.service.alertmanager import Alertmanagers
from tiphys.service.evaluation.cases import UnreadableSetError
from tiphys.service.evaluation.deciders import Opener
from tiphys.service.evaluation.judging import Judged, Mark, Verdicts, Wanted, mark
from tiphys.service.kubernetes_api import connect
from tiphys.service.kubernetes_reader import KubernetesReader
from tiphys.service.prometheus import Prometheus
from tiphys.service.scenario_policy import let_read, policy_text

NOTHING: Final = "nothing"
HUMAN: Final = "escalate"
_POLL_SECONDS: Final = 0.05
_ALERT_SECONDS: Final = 30.0
"""How long a scenario's alert is waited for."""
_STORY_SECONDS: Final = 8.0
"""How long the rest of a fault is waited for; some of its steps wait for being healed."""


def read_scenario(path: Path) -> Scenario:
    """Read a scenario; raises `UnreadableSetError`."""
    try:
        return load(path)
    except (OSError, UnicodeDecodeError, ScenarioError) as error:
        raise UnreadableSetError(str(error)) from error


async def played(scenarios: Sequence[Scenario], opened: Opener) -> Verdicts:
    """Decide each scenario in a world of its own."""
    return Verdicts("scenarios", [await _played(one, opened) for one in scenarios])


async def _played(scenario: Scenario, opened: Opener) -> Judged:
    expect = scenario.expect
    other = NOTHING if expect.end is End.NO_ACTION else HUMAN
    wanted = Wanted(expect.action or other, expect.acceptable, expect.harmful, NOTHING, HUMAN)
    with tempfile.TemporaryDirectory() as folder:
        try:
            decision = await _decided(scenario, Path(folder), opened)
        except TimeoutError:
            why = f"no alert fired within {_ALERT_SECONDS:g} s"
            return Judged(scenario.name, wanted.right, "(none)", Mark.ABSTAINED, "nobody", why)
    deed = decision.action if isinstance(decision, Proposal) else (
        NOTHING if isinstance(decision, NoAction) else HUMAN
    )  # fmt: skip
    by = decision.decided_by.playbook or decision.decided_by.reasoner
    return Judged(scenario.name, wanted.right, deed, mark(deed, wanted), by, decision.reason)


async def _decided(scenario: Scenario, folder: Path, opened: Opener) -> Decision:
    async with AsyncExitStack() as stack:
        world = World(scenario, folder)
        stack.push_async_callback(world.stop)
        await world.start()
        let_read(world, parse(policy_text(scenario), f"{scenario.name}: policy"))
        source = Alertmanagers([world.alertmanager_url], cluster=CLUSTER)
        stack.push_async_callback(source.close)
        api = await stack.enter_async_context(connect(world.kubeconfigs["agents"]))
        prometheus = Prometheus(world.prometheus_url)
        stack.callback(prometheus.close)
        reader = KubernetesReader(api)
        reasoner = await stack.enter_async_context(opened(Sources(reader, prometheus)))
        books = reasoner if isinstance(reasoner, Playbooks) else Playbooks.load()
        agents = Agents(prometheus, reader, source, reasoner, books, None, _now, hold_seconds=1)
        await world.strike()
        alerts, begun = await _watched(world, source)
        case = Case(
            scenario.name, 1, CLUSTER, True, scenario.title, alerts, episodes_last_hour=begun
        )
        return (await agents.investigate(case)).decision


async def _watched(world: World, source: Alertmanagers) -> tuple[Sequence[Alert], int]:
    """Wait for the alerts; give them and how often they began. Raises `TimeoutError`."""
    clock = asyncio.get_running_loop()
    started = clock.time()
    last: Sequence[Alert] = ()
    begun, firing = 0, False
    while True:
        now = [listed.alert for listed in (await source.listing()).alerts.values()]
        begun += bool(now) and not firing
        firing, last = bool(now), now or last
        passed = clock.time() - started
        if last and (passed > _STORY_SECONDS or (world.fault_over and firing)):
            return last, begun
        if passed > _ALERT_SECONDS:
            raise TimeoutError
        await asyncio.sleep(_POLL_SECONDS)


def _now() -> datetime:
    return datetime.now(UTC)
