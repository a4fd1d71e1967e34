"""A real service heals, undoes and stops by clicks in a simulated Slack workspace."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest_asyncio

from tiphys.sandbox.scenario import Reference
from tiphys.sandbox.slack import Message, Slack
from tiphys.sandbox.slack_api import serving_slack

SEARCH = Reference(kind="Deployment", namespace="shop", name="search")
ASK_FIRST = {"rules": {"risk": {"low": "approve", "medium": "approve", "high": "approve"}}}
PEOPLE = {
    "format": "tiphys/people/v1",
    "people": [
        {
            "name": name,
            "roles": [{"role": "approver", "namespaces": ["*"]}],
            "identities": {"slack": [user]},
        }
        for name, user in (("ann", "UANN"), ("bob", "UBOB"))
    ],
}


@pytest_asyncio.fixture
async def slack() -> AsyncGenerator[Slack]:
    async with serving_slack(Slack()) as found:
        yield found


def configured(slack: Slack, directory: Path) -> dict[str, str]:
    people = directory / "people.yaml"
    people.write_text(json.dumps(PEOPLE))
    return {
        "TIPHYS_SLACK_BOT_TOKEN": slack.bot_token,
        "TIPHYS_SLACK_APP_TOKEN": slack.app_token,
        "TIPHYS_SLACK_CHANNEL": "C0OPS",
        "TIPHYS_SLACK_API_URL": f"{slack.url}/api/",
        "TIPHYS_PEOPLE": str(people),
    }


async def until(true: Callable[[], Any], seconds: float = 90.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := true()):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)
    return found


def with_button(slack: Slack, action: str, but: Message | None = None) -> Message | None:
    """The first card that has a button."""
    for message in slack.posts():
        if message is not but and action in message.words():
            return message
    return None


async def test_an_incident_is_healed_undone_and_stopped_from_slack(
    on_stage: Callable[..., Any], slack: Slack, tmp_path: Path
) -> None:
    environment = configured(slack, tmp_path)
    async with on_stage("overload", tmp_path, policy=ASK_FIRST, environment=environment) as drama:
        await drama.play.strike()
        card = await until(lambda: with_button(slack, "tiphys_approve"))
        assert "scale-workload-v1 on Deployment shop/search" in card.words()
        assert "/spec/replicas" in card.words()
        [waiting] = await drama.stage.get("/api/approvals")
        incident = waiting["incident"]["id"]
        status = await drama.command("status")
        assert "1 open incidents: 1 awaiting approval" in status.out, status.err
        assert "not stopped" in status.out
        asked = await drama.command("ask", incident, "how", "many", "replicas?")
        assert "replicas" in asked.out, asked.err
        assert "ev-" in asked.out
        nothing = await drama.command("ask", incident, "who won the football?")
        assert "nothing in this incident's evidence" in nothing.out, nothing.err
        began = time.monotonic()
        await slack.click("UBOB", card, "tiphys_approve")
        await until(lambda: drama.workflows)
        assert time.monotonic() - began < 5.0, "bench/approval.py says how long it takes"
        intent = await drama.until_recorded("launch_intended")
        assert intent["body"]["approved_by"] == "bob"
        await until(lambda: "verified" in card.words() and "tiphys_undo" in card.words())
        told = "".join(reply.words() for reply in slack.replies(card))
        assert "approval given" in told
        assert "run ended: verified" in told

        await slack.click("UANN", card, "tiphys_undo")
        form = await until(lambda: slack.views and slack.views[-1])
        await slack.submit(form, "it was a test")
        again = await until(lambda: with_button(slack, "tiphys_approve", but=card))
        assert "undo of scale-workload" in again.words()
        await slack.click("UBOB", again, "tiphys_approve")
        await until(lambda: len(drama.workflows) == 2)
        await until(lambda: "verified" in again.words())

        await slack.command("UANN", "stop an exercise")
        [stop] = await until(lambda: drama.stage.world.store.list("ConfigMap", "tiphys-stop"))
        assert stop["data"] == {"by": "ann", "reason": "an exercise"}
        assert slack.refused == []
    log = (tmp_path / "overload" / "serve.log").read_text()
    assert slack.bot_token not in log
    assert slack.app_token not in log
    assert "ticket=" not in log


async def test_without_slack_its_library_is_not_loaded(
    tiphys: Callable[..., Any], tmp_path: Path
) -> None:
    missing = await tiphys(
        "serve",
        environment={"TIPHYS_SLACK_CHANNEL": "C0OPS", "TIPHYS_DATA_DIR": str(tmp_path)},
    )
    assert missing.code == 2
    assert "Slack needs TIPHYS_SLACK_BOT_TOKEN" in missing.err
