"""From a click in Slack to the Workflow in the API server, against the same approval in code.

Real: the adapter over a socket, the database (SQLite, synchronous), gate, signature, launch over
HTTP with admission. Simulated, on loopback: Slack, the API server, and what the agents would read.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "world"))

from conftest import Bench, Clock, a_target, kube
from slack_bench import chat_of, until

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Risk
from tiphys.policies.parse import built_in_text, parse
from tiphys.sandbox.slack import Slack
from tiphys.sandbox.slack_api import serving_slack
from tiphys.service.database import Database
from tiphys.service.pipeline import Pace, Pipeline
from tiphys.service.slack.card import Button

CLICKS, BY_CODE = 100, 20
REACH_SECONDS = 1.0


@asynccontextmanager
async def simulated(directory: Path) -> AsyncGenerator[Any]:
    """The simulated API server, as the tests have it."""
    made: Any = getattr(kube, "__wrapped__", None) or kube.__pytest_wrapped__.obj  # type: ignore[attr-defined]
    world = made(directory)
    yield await anext(world)
    await anext(world, None)


ROOM = """
  launch-rate: {limit: 10000, target_limit: 10000, cluster_limit: 10000}
  budget: {namespace_limit: 10000, cluster_limit: 10000}
"""
"""Instead of what would keep a hundred launches in a row from starting."""


def approvers() -> str:
    """Give a people file with one approver for each click: nobody may click without end."""
    one = "  - name: p{0}\n    roles: [{{role: approver, namespaces: ['*']}}]\n"
    each = "".join((one + "    identities: {{slack: U{0}}}\n").format(n) for n in range(CLICKS))
    return f"format: tiphys/people/v1\npeople:\n{each}"


class Watch:
    """When each Workflow came into the store."""

    def __init__(self, store: Any) -> None:
        self.came: list[float] = []
        store.subscribe(self._see)

    def _see(self, event: str, obj: dict[str, Any]) -> None:
        if event == "ADDED" and obj["kind"] == "Workflow":
            self.came.append(time.perf_counter())


async def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        database = Database.in_directory(directory)
        await database.create()
        text = built_in_text("demo").replace("[shop, research]", '["*"]')
        text = text.replace("namespace-concurrency:\n    limit: 3", ROOM.strip())
        bench = Bench(database, Clock(), parse(text, "bench"))
        slack = Slack()
        async with (
            simulated(directory) as world,
            serving_slack(slack),
            chat_of(bench, slack, directory, people=approvers()) as chat,
        ):
            watch = Watch(world.store)
            stages: Any = {
                State.PROPOSED: bench.recheck,
                State.INSPECTED: bench.judge,
                State.LAUNCHING: bench.launch(world.argo, world.key),
            }
            pace = Pace(poll=timedelta(seconds=0.5), lease=timedelta(seconds=15))
            pipeline = Pipeline(bench.ledger, stages, pace, chat.process.woken)
            clicks, code = await measure(bench, slack, watch, pipeline)
        await database.close()
    show(clicks, code)


async def measure(
    bench: Any, slack: Slack, watch: Watch, pipeline: Pipeline
) -> tuple[list[float], list[float]]:
    """Approve one incident after the other, by clicks and by code."""
    clicks: list[float] = []
    code: list[float] = []
    for number in range(CLICKS + BY_CODE):
        target = a_target(f"cart-{number}", f"shop-{number}")
        incident = await bench.launching(f"pod {number}", target=target, risk=Risk.HIGH)
        assert incident.state == State.AWAITING_APPROVAL, incident.reason
        card = await until(
            lambda i=incident: next((m for m in slack.posts() if i.id in m.words()), None)
        )
        work = asyncio.create_task(pipeline.run())
        began = time.perf_counter()
        if number < CLICKS:
            await slack.click(f"U{number}", card, Button.APPROVE)
        else:
            await bench.approvals.approve(incident.id, by="ann", reason="")
            pipeline.wake()
        await until(lambda n=number: len(watch.came) > n)
        (clicks if number < CLICKS else code).append(watch.came[number] - began)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await end(bench, incident)
    return clicks, code


async def end(bench: Any, incident: Any) -> None:
    """Let the run end and nobody look at it again, so that it holds up no other."""
    async with bench.database.transaction() as tx:
        await bench.incidents.wake(tx, incident.id, bench.clock() + timedelta(days=1))
        run = await bench.runs.of(tx, await bench.incidents.get(tx, incident.id))
        await bench.runs.end(tx, run.name, None, bench.clock())


def show(clicks: list[float], code: list[float]) -> None:
    """Print both and their ratio."""
    for what, found in (("click to Workflow", clicks), ("approval in code to Workflow", code)):
        cuts = statistics.quantiles(found, n=100, method="inclusive")
        print(
            f"{what}: p50 {cuts[49] * 1000:.0f} ms, p99 {cuts[98] * 1000:.0f} ms, "
            f"most {max(found) * 1000:.0f} ms ({len(found)} times)"
        )
    ratio = statistics.median(clicks) / statistics.median(code)
    print(f"a click costs {ratio:.2f} times what the approval itself does")
    late = sum(one > REACH_SECONDS for one in clicks)
    print(f"{late} of {len(clicks)} clicks took more than {REACH_SECONDS:.0f} s")


if __name__ == "__main__":
    asyncio.run(main())
