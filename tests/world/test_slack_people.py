"""What people do in Slack, in both modes: decisions bound to what they saw, and every attack."""

import asyncio
import html
import socket as sockets
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.exc import OperationalError

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Risk
from tiphys.sandbox import installation
from tiphys.sandbox.slack import Slack
from tiphys.sandbox.slack_api import serving_slack
from tiphys.sandbox.slack_blocks import commands, markup, problems
from tiphys.service.database import Database
from tiphys.service.slack.attempts import Pace
from tiphys.service.slack.card import Button
from tiphys.service.stop_switch import StopSwitch

sys.path.insert(0, str(Path(__file__).parent))

import test_undos
from slack_bench import Chat, chat_of, first_card, told, until


@pytest_asyncio.fixture
async def slack() -> AsyncGenerator[Slack]:
    async with serving_slack(Slack()) as found:
        yield found


@pytest_asyncio.fixture(params=["socket", "signed"])
async def chat(request: Any, bench: Any, slack: Slack, tmp_path: Path) -> AsyncGenerator[Chat]:
    async with chat_of(bench, slack, tmp_path, signed=request.param == "signed") as found:
        yield found


@pytest_asyncio.fixture
async def socket(bench: Any, slack: Slack, tmp_path: Path) -> AsyncGenerator[Chat]:
    """In Socket Mode, for what does not depend on how a click arrives."""
    async with chat_of(bench, slack, tmp_path) as found:
        yield found


@pytest_asyncio.fixture
async def signed(bench: Any, slack: Slack, tmp_path: Path) -> AsyncGenerator[Chat]:
    async with chat_of(bench, slack, tmp_path, signed=True) as found:
        yield found


async def state(bench: Any, incident: Any) -> str:
    return str((await bench.get(incident)).state)


# --- decisions ------------------------------------------------------------------------------------


async def test_a_click_approves_exactly_the_plan_that_was_shown(
    bench: Any, slack: Slack, chat: Chat
) -> None:
    incident = await bench.asked()
    card = await first_card(slack)
    await slack.click("UBOB", card, Button.APPROVE)
    assert "approved by bob" in await told(slack, "UBOB")
    [row] = await bench.rows("approvals")
    assert (row["by"], row["verdict"]) == ("bob", "approve")
    assert card.button(Button.APPROVE)["value"] == f"{incident.id}:{row['plan_digest']}"
    assert await state(bench, incident) == State.PROPOSED
    assert chat.woken
    await until(lambda: "approved by bob" in card.words())
    await until(lambda: slack.replies(card))


async def test_a_no_needs_a_reason_and_keeps_it(bench: Any, slack: Slack, chat: Chat) -> None:
    incident = await bench.asked()
    await slack.click("UBOB", await first_card(slack), Button.DENY)
    form = await until(lambda: slack.views and slack.views[-1])
    answer = await slack.submit(form, "   ")
    assert answer == {"response_action": "errors", "errors": {"reason": "Say why."}}
    assert await state(bench, incident) == State.AWAITING_APPROVAL
    await slack.submit(form, "not during the sale")
    assert "in your hands" in await told(slack, "UBOB")
    assert (await bench.get(incident)).reason == "denied by bob: not during the sale"


async def test_whoever_asks_why_is_shown_every_rule(bench: Any, slack: Slack, chat: Chat) -> None:
    await bench.asked()
    await slack.click("UEVE", await first_card(slack), Button.EXPLAIN)
    said = await told(slack, "UEVE")
    assert "needs approval" in said
    assert "allowed" in said


async def test_an_escalated_incident_is_taken_over(bench: Any, slack: Slack, chat: Chat) -> None:
    incident = await bench.escalated()
    await slack.click("UANN", await first_card(slack), Button.ACKNOWLEDGE)
    assert "in your hands" in await told(slack, "UANN")
    assert (await bench.get(incident)).acknowledged_by == "ann"


async def test_a_verified_run_is_undone_by_whoever_may(
    bench: Any, slack: Slack, kube: Any, chat: Chat
) -> None:
    await test_undos.healed(bench, kube)
    card = await first_card(slack)
    await slack.click("UEVE", card, Button.UNDO)
    form = await until(lambda: slack.views and slack.views[0])
    await slack.submit(form, "because")
    assert "eve has not the role operator" in await told(slack, "UEVE")
    await slack.click("UBOB", card, Button.UNDO)
    form = await until(lambda: len(slack.views) > 1 and slack.views[1])
    await slack.submit(form, "it was wrong")
    assert "undo of scale-workload" in await told(slack, "UBOB")
    [wish] = [r for r in await bench.rows("incidents") if "undo" in r["subject"]]
    assert '"by":"bob"' in wish["body"]
    await slack.submit(form, "once more")
    assert "is about its undo already" in await told(slack, "UBOB", 1)


async def test_a_form_that_slack_does_not_open_is_told_of(
    bench: Any, slack: Slack, socket: Chat
) -> None:
    await bench.asked()
    card = await first_card(slack)
    await slack.click("UBOB", card, Button.DENY, trigger_id="old")
    assert "Slack did not open the form" in await told(slack, "UBOB")


# --- who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ("USTRANGER", "does not know you"),
        ("UEVE", "eve has not the role approver"),
        ("UFAR", "far has not the role approver"),
    ],
)
async def test_who_may_not_is_told_why_and_it_is_recorded(
    bench: Any, slack: Slack, socket: Chat, user: str, why: str
) -> None:
    incident = await bench.asked()
    await slack.click(user, await first_card(slack), Button.APPROVE)
    assert why in await told(slack, user)
    assert await state(bench, incident) == State.AWAITING_APPROVAL
    assert await bench.rows("approvals") == []
    [refused] = [r for r in await bench.records(incident) if r.event == "chat_refused"]
    assert refused.body["identity"] == user
    assert refused.body["what"] == "approve"


async def test_another_workspaces_people_are_not_heard(
    bench: Any, slack: Slack, chat: Chat
) -> None:
    incident = await bench.asked()
    card = await first_card(slack)
    theirs = {"id": "UBOB", "username": "bob", "team_id": "T0OTHER"}
    await slack.click("UBOB", card, Button.APPROVE, user=theirs)
    await slack.click("UBOB", card, Button.APPROVE, team={"id": "T0OTHER", "domain": "x"})
    await slack.command("UBOB", "status", team_id="T0OTHER")
    await slack.click("UBOB", card, Button.EXPLAIN)  # ours is heard after them
    await told(slack, "UBOB")
    assert len(slack.whispers) == 1
    assert await state(bench, incident) == State.AWAITING_APPROVAL


async def test_whoever_clicks_without_end_is_slowed_down(
    bench: Any, slack: Slack, socket: Chat
) -> None:
    await bench.asked()
    card = await first_card(slack)
    await asyncio.gather(*(slack.click("USTRANGER", card, Button.APPROVE) for _ in range(25)))
    said = [await told(slack, "USTRANGER", n) for n in range(25)]
    assert any("too many tries" in words for words in said)
    refused = [r for r in await bench.records() if r.event == "chat_refused"]
    assert len(refused) < 25
    await slack.click("UBOB", card, Button.APPROVE)
    assert "approved by bob" in await told(slack, "UBOB")


def test_the_pace_is_ten_at_once_and_one_in_three_seconds() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    assert [pace.allows("U1") for _ in range(12)] == [True] * 10 + [False] * 2
    assert pace.allows("U2")
    now = 2.9
    assert not pace.allows("U1")
    now = 6.1
    assert [pace.allows("U1") for _ in range(3)] == [True, True, False]


# --- late, stale, twice ---------------------------------------------------------------------------


async def test_a_click_on_an_earlier_plan_decides_nothing(
    bench: Any, slack: Slack, chat: Chat
) -> None:
    incident = await bench.asked()
    card = await first_card(slack)
    value = card.button(Button.APPROVE)["value"]
    said: list[str] = []
    for bound in ("0" * 64, "", value.split(":")[1][:12], "x"):
        for block in card.blocks:
            for element in block.get("elements", ()):
                if element.get("action_id") == Button.APPROVE:
                    element["value"] = f"{incident.id}:{bound}"
        await slack.click("UBOB", card, Button.APPROVE)
        said.append(await told(slack, "UBOB", len(said)))
    assert "the plan has changed since" in said[0]
    assert all("bound to no plan" in words for words in said[1:])
    assert await state(bench, incident) == State.AWAITING_APPROVAL
    assert await bench.rows("approvals") == []


async def test_a_late_click_decides_nothing(bench: Any, slack: Slack, socket: Chat) -> None:
    incident = await bench.asked()
    card = await first_card(slack)
    bench.clock.forward(7 * 24 * 3600)
    await slack.click("UBOB", card, Button.APPROVE)
    assert "Nothing was done" in await told(slack, "UBOB")
    assert await state(bench, incident) == State.AWAITING_APPROVAL


async def test_a_double_click_on_two_replicas_decides_once(
    bench: Any, slack: Slack, tmp_path: Path
) -> None:
    incident = await bench.asked()
    async with chat_of(bench, slack, tmp_path), chat_of(bench, slack, tmp_path):
        await until(lambda: len(slack.sockets.connections) == 2)
        card = await first_card(slack)
        await asyncio.gather(
            slack.click("UBOB", card, Button.APPROVE),
            slack.click("UBOB", card, Button.APPROVE),
            slack.click("UANN", card, Button.APPROVE),
        )
        said = [await told(slack, *who) for who in (("UBOB", 0), ("UBOB", 1), ("UANN", 0))]
    assert len(await bench.rows("approvals")) == 1
    assert sum("Nothing was done" in words for words in said) == 2
    assert await state(bench, incident) == State.PROPOSED
    assert len(slack.posts()) == 1
    assert (await bench.verify()).problem is None


async def test_what_slack_sends_again_is_done_and_refused_once(
    bench: Any, slack: Slack, socket: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does where an acknowledgement comes late or is lost."""
    await bench.asked()
    card = await first_card(slack)
    monkeypatch.setattr("tiphys.sandbox.slack.ACK_SECONDS", 0.2)
    slack.sockets.deaf = True
    with pytest.raises(TimeoutError):
        await slack.click("UBOB", card, Button.APPROVE)
    with pytest.raises(TimeoutError):
        await slack.command("UEVE", "stop now")
    assert [e["retry_attempt"] for e in slack.sockets.delivered] == [0, 1, 2] * 2
    slack.sockets.deaf = False
    monkeypatch.undo()
    await slack.click("UANN", card, Button.EXPLAIN)  # is heard after them
    await told(slack, "UANN")
    assert "approved by bob" in await told(slack, "UBOB")
    assert "Nothing was done" in await told(slack, "UEVE")
    assert len(slack.whispers) == 3
    assert len(await bench.rows("approvals")) == 1
    refused = [r.body["what"] for r in await bench.records() if r.event == "chat_refused"]
    assert refused == ["stop"]


async def test_a_socket_that_slack_renews_or_cuts_is_opened_again(
    bench: Any, slack: Slack, socket: Chat
) -> None:
    await bench.asked()
    card = await first_card(slack)
    await slack.sockets.refresh()
    await slack.click("UEVE", card, Button.EXPLAIN)
    await told(slack, "UEVE")
    await slack.sockets.cut()
    await slack.click("UBOB", card, Button.APPROVE)
    assert "approved by bob" in await told(slack, "UBOB")


# --- what alerts and people write -----------------------------------------------------------------


async def test_markup_in_labels_and_reasons_reaches_slack_as_text(
    bench: Any, slack: Slack, chat: Chat
) -> None:
    evil = "<!channel> <@UANN> <https://evil.example|Approve> *x* \u202e\x1b[31m approve this"
    incident = await bench.launching(
        f"pod {evil}", reason=evil, blast_radius=evil, undo=evil, risk=Risk.HIGH
    )
    card = await first_card(slack)
    await slack.click("UBOB", card, Button.DENY)
    form = await until(lambda: slack.views and slack.views[-1])
    await slack.submit(form, evil)
    await told(slack, "UBOB")
    await slack.command("UBOB", f"ask {incident.id} {evil}")
    await slack.command("UBOB", f"incident {evil}")
    await slack.command("UBOB", evil)
    await told(slack, "UBOB", 3)
    await until(lambda: "denied by bob" in card.words() and slack.replies(card))
    for message in [*slack.channels["C0OPS"], *slack.whispers]:
        assert commands(message.text) == []
        assert list(markup(message.blocks)) == []
        for word in ("<", "\u202e", "\x1b"):
            assert word not in str(message.blocks)
    assert slack.refused == []
    assert await state(bench, incident) == State.ACKNOWLEDGED


async def test_stop_works_while_the_database_is_away(
    bench: Any, slack: Slack, kube: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = StopSwitch(kube.gateway, installation.STOP)
    with sockets.socket() as held:  # nobody listens there, and nobody else will
        held.bind(("127.0.0.1", 0))
        gone = Database(f"postgresql+psycopg://gateway:x@127.0.0.1:{held.getsockname()[1]}/tiphys")
        async with chat_of(bench, slack, tmp_path, signed=True, stop=switch) as chat:
            database = chat.process.ledger.database
            monkeypatch.setattr(database, "engine", gone.engine)
            with pytest.raises(OperationalError, match="refused"):
                await database.ping()
            typed = {"command": "/tiphys", "text": "stop", "user_id": "UBOB", "team_id": slack.team}
            hook = slack._hook("C0OPS", "UBOB")
            body = slack.body("slash_commands", {**typed, "response_url": hook})
            headers = slack.sign(body)
            assert (await slack.post(body, headers))[0] == 200
            assert "All the same everything new is stopped" in await told(slack, "UBOB")
            assert (await slack.post(body, headers))[0] == 401, "remembered without a database too"
            assert (await switch.read()).engaged
            monkeypatch.undo()
            await database.ping()
        await gone.close()


# --- signed requests ------------------------------------------------------------------------------


async def test_only_what_slack_signed_now_and_once_is_heard(
    bench: Any, slack: Slack, signed: Chat
) -> None:
    payload = {
        "command": "/tiphys",
        "text": "status",
        "user_id": "UANN",
        "team_id": slack.team,
        "channel_id": "C0OPS",
        "response_url": slack._hook("C0OPS", "UANN"),
    }
    body = slack.body("slash_commands", payload)
    good, now = slack.sign(body), time.time()
    forged = [
        {},
        {**good, "X-Slack-Signature": ""},
        {**good, "X-Slack-Signature": "v0=" + "0" * 64},
        {**good, "X-Slack-Signature": good["X-Slack-Signature"].upper()},
        {**good, "X-Slack-Request-Timestamp": str(int(now) + 1)},
        {**good, "X-Slack-Request-Timestamp": "٣" * 10},
        slack.sign(body, secret="another"),
        slack.sign(body, at=now - 301),
        slack.sign(body, at=now + 310),
    ]
    for headers in forged:
        status, _ = await slack.post(body, headers)
        assert status == 401
    assert (await slack.post(body + b"&text=stop", good))[0] == 401
    assert (await slack.post(b"\xff" + body, slack.sign(b"\xff" + body)))[0] == 401
    long = body + b"&x=" + b"x" * 300_000
    assert (await slack.post(long, slack.sign(long)))[0] == 413
    assert slack.whispers == []
    assert (await slack.post(body, good))[0] == 200
    await told(slack, "UANN")
    assert (await slack.post(body, good))[0] == 401
    assert len(slack.whispers) == 1


async def test_a_request_is_not_heard_again_on_another_replica(
    bench: Any, slack: Slack, tmp_path: Path
) -> None:
    payload = {"command": "/tiphys", "text": "help", "user_id": "UANN", "team_id": slack.team}
    body = slack.body("slash_commands", {**payload, "response_url": slack._hook("C0OPS", "UANN")})
    headers = slack.sign(body)
    async with chat_of(bench, slack, tmp_path, signed=True):
        assert (await slack.post(body, headers))[0] == 200
        async with chat_of(bench, slack, tmp_path, signed=True):
            assert (await slack.post(body, headers))[0] == 401


# --- commands -------------------------------------------------------------------------------------


async def test_status_and_incident_say_what_is_there(bench: Any, slack: Slack, chat: Chat) -> None:
    incident = await bench.asked()
    await slack.command("UEVE", "status")
    said = await told(slack, "UEVE")
    assert "1 open incidents: 1 awaiting approval" in said
    assert incident.id in said
    await slack.command("UEVE", f"incident {incident.id}")
    assert incident.id in str(slack.whispers) or await told(slack, "UEVE", 1)
    copy = await until(lambda: len(slack.whispers) > 1 and slack.whispers[1])
    assert problems(copy.blocks) == []
    assert all(block["type"] != "actions" for block in copy.blocks)


async def test_a_question_is_answered_from_the_evidence_or_not_at_all(
    bench: Any, slack: Slack, socket: Chat
) -> None:
    incident = await bench.asked()
    await slack.command("UEVE", f"ask {incident.id} why does it crash?")
    said = await told(slack, "UEVE")
    assert "it crashes" in said
    assert "ev-1" in said
    await slack.command("UEVE", f"ask {incident.id} who won the football?")
    assert "Nothing in this incident's evidence" in await told(slack, "UEVE", 1)


async def test_an_action_is_asked_for_and_stays_text(bench: Any, slack: Slack, chat: Chat) -> None:
    evil = "<!channel> *sale* <@UANN> & `x`"
    await slack.command("UBOB", f"run scale-workload deployment/shop/cart replicas=4 {evil}")
    said = await told(slack, "UBOB")
    assert "scale-workload on Deployment shop/cart. It goes through the same gate" in said
    [row] = await bench.rows("incidents")
    incident = await bench.get(row["id"])
    assert (incident.wants.by, incident.wants.reason) == ("bob", evil)
    assert incident.wants.parameters == {"replicas": 4}
    assert chat.woken
    await slack.command("UBOB", f"incident {incident.id}")
    copy = await until(lambda: len(slack.whispers) > 1 and slack.whispers[1])
    assert problems(copy.blocks) == []
    assert (commands(copy.text), list(markup(copy.blocks))) == ([], [])
    assert commands(slack.whispers[0].text) == []
    assert "none; bob asked for it" in html.unescape(str(copy.blocks))


@pytest.mark.parametrize(
    ("user", "text", "why"),
    [
        ("UBOB", "scale-workload deployment/shop/cart replicas=4", "say what, on what and why"),
        ("UBOB", "", "say what, on what and why"),
        ("UBOB", "scale-workload", "say what, on what and why"),
        ("UBOB", "scale-workload deployment/shop/cart replicas=400 why", "less than or equal"),
        ("UBOB", "scale-workload deployment/shop/cart replicas=1 replicas=2 why", "given twice"),
        ("UBOB", "delete-all deployment/shop/cart why", "there are cordon-drain-node"),
        ("UBOB", "cordon-drain-node node/n1 why", "bob has not the role operator"),
        ("UEVE", "rollout-restart deployment/shop/cart why", "eve has not the role operator"),
        ("UFAR", "rollout-restart deployment/shop/cart why", "far has not the role operator"),
        ("USTRANGER", "rollout-restart deployment/shop/cart why", "does not know you"),
    ],
    ids=[f"refused-{n}" for n in range(10)],
)
async def test_what_is_not_run_is_said_and_recorded(
    bench: Any, slack: Slack, socket: Chat, user: str, text: str, why: str
) -> None:
    await slack.command(user, f"run {text}")
    assert why in await told(slack, user)
    assert await bench.rows("incidents") == []
    [refused] = [r for r in await bench.records() if r.event == "chat_refused"]
    assert refused.body["what"] == "run"


async def test_stop_stops_at_once(bench: Any, slack: Slack, kube: Any, tmp_path: Path) -> None:
    switch = StopSwitch(kube.gateway, installation.STOP)
    async with chat_of(bench, slack, tmp_path, stop=switch):
        await slack.command("UBOB", "stop")
        await told(slack, "UBOB")
        assert (await switch.read()).engaged
        await slack.command("UBOB", "status")
        assert "Stopped" in await told(slack, "UBOB", 1)


@pytest.mark.parametrize("user", ["USTRANGER", "UEVE"])
async def test_who_may_not_stop_does_not(
    bench: Any, slack: Slack, kube: Any, tmp_path: Path, user: str
) -> None:
    switch = StopSwitch(kube.gateway, installation.STOP)
    async with chat_of(bench, slack, tmp_path, stop=switch):
        await slack.command(user, "stop now")
        assert "Nothing was done" in await told(slack, user)
        assert not (await switch.read()).engaged
    assert [r.body["what"] for r in await bench.records() if r.event == "chat_refused"] == ["stop"]


async def test_pause_and_resume_are_by_those_who_may(bench: Any, slack: Slack, chat: Chat) -> None:
    for number, (user, text, says) in enumerate(
        (
            ("UEVE", "pause", "eve has not the role operator"),
            ("UBOB", "pause", "bob has not the role operator"),
            ("UBOB", "pause namespace:shop 30m the sale", "Paused: namespace:shop until"),
            ("UANN", "pause 2h", "Paused: cluster until"),
            ("UEVE", "status", "the sale"),
            ("UBOB", "resume", "bob has not the role"),
            ("UBOB", "resume namespace:shop", "Resumed: namespace:shop"),
            ("UANN", "resume", "Resumed: cluster"),
            ("UANN", "resume", "Nothing was paused"),
            ("UANN", "pause namespace:shop 9000d", "a pause lasts"),
        )
    ):
        await slack.command(user, text)
        await until(lambda n=number: len(slack.whispers) > n)
        whisper = slack.whispers[number]
        assert whisper.user == user
        assert says in str(whisper.blocks), text
    assert await bench.rows("pauses") == []
    assert chat.woken


async def test_stop_has_what_runs_stop_too(
    bench: Any, slack: Slack, kube: Any, tmp_path: Path
) -> None:
    incident = await bench.run(bench.launch(kube.argo, kube.key), await bench.launching())
    assert incident.state == State.RUNNING
    switch = StopSwitch(kube.gateway, installation.STOP)
    async with chat_of(bench, slack, tmp_path, stop=switch):
        await slack.command("UBOB", "stop --runs the whole zone is down")
        assert "bob has not the role operator everywhere" in await told(slack, "UBOB")
        assert not (await switch.read()).engaged
        await slack.command("UANN", "stop --runs the whole zone is down")
        assert "1 runs are told to stop" in await told(slack, "UANN")
    [row] = await bench.rows("run_stops")
    assert (row["by"], row["reason"]) == ("ann", "the whole zone is down")


async def test_what_is_no_command_is_answered_with_those_that_are(
    bench: Any, slack: Slack, socket: Chat
) -> None:
    for text in ("", "help", "dance <!channel>", "ask", "undo tiphys-x"):
        await slack.command("UANN", text)
        assert "tiphys" in await told(slack, "UANN", len(slack.whispers) and 0)
    await until(lambda: len(slack.whispers) == 5)
    assert "<!channel>" not in str(slack.whispers)
    assert slack.refused == []
