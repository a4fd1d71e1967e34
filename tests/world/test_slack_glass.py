"""The glass that one breaks alone, in Slack: offered where it helps, for a reason, seen by all."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tiphys.policies.approval import RiskLevel
from tiphys.policies.lifecycle import State
from tiphys.policies.rule import RuleName
from tiphys.sandbox.slack import Slack
from tiphys.sandbox.slack_api import serving_slack
from tiphys.service.reviews import Reviews
from tiphys.service.roles import Role
from tiphys.service.slack.card import Button

sys.path.insert(0, str(Path(__file__).parent))

from slack_bench import Chat, chat_of, first_card, told, until


@pytest.fixture
def pair(bench: Any) -> Any:
    """The bench, with two people for high risk, as out of the box."""
    settings = {**bench.policy.settings, RuleName.RISK: RiskLevel(low="auto", medium="auto")}
    bench.policy = type(bench.policy)(**{**vars(bench.policy), "settings": settings})
    return bench


@pytest_asyncio.fixture
async def slack() -> AsyncGenerator[Slack]:
    async with serving_slack(Slack()) as found:
        yield found


@pytest_asyncio.fixture(params=["socket", "signed"])
async def chat(request: Any, pair: Any, slack: Slack, tmp_path: Path) -> AsyncGenerator[Chat]:
    async with chat_of(pair, slack, tmp_path, signed=request.param == "signed") as found:
        yield found


@pytest_asyncio.fixture
async def socket(pair: Any, slack: Slack, tmp_path: Path) -> AsyncGenerator[Chat]:
    async with chat_of(pair, slack, tmp_path) as found:
        yield found


async def form_of(slack: Slack, user: str) -> Any:
    """Click on the card's button, and give the form that opens."""
    before = len(slack.views)
    await slack.click(user, await first_card(slack), Button.BREAK_GLASS)
    return await until(lambda: len(slack.views) > before and slack.views[before])


async def untouched(bench: Any, incident: Any) -> bool:
    """Whether nobody has decided, nor is anything to be reviewed."""
    waits = (await bench.get(incident)).state == State.AWAITING_APPROVAL
    return waits and await bench.rows("approvals") == [] == await bench.rows("reviews")


async def test_one_alone_breaks_it_for_a_reason_and_the_card_and_thread_say_so(
    pair: Any, slack: Slack, chat: Chat
) -> None:
    incident = await pair.asked()
    form = await form_of(slack, "UBOB")
    assert "Everybody is paged" in str(form.view)
    answer = await slack.submit(form, "   ")
    assert answer == {"response_action": "errors", "errors": {"reason": "Say why."}}
    assert await untouched(pair, incident)
    await slack.submit(form, "all is down & <!channel>")
    assert "approved by bob, who broke the glass: all is down" in await told(slack, "UBOB")
    [row] = await pair.rows("approvals")
    assert (row["by"], row["verdict"]) == ("bob", "break_glass")
    assert chat.woken
    [review] = await Reviews(pair.of(Role.GATEWAY)[0]).all()
    assert (review.by, review.reason) == ("bob", "all is down & <!channel>")
    card = await first_card(slack)
    said = "broke the glass and approved alone: all is down"
    await until(lambda: said in card.words())
    [reply] = await until(lambda: slack.replies(card))
    assert "break glass: all is down" in reply.words()
    assert "bob" in reply.words()
    assert "<!channel>" not in str([m.text for m in slack.channels["C0OPS"]])
    assert (await pair.run(pair.decide, incident)).state == State.LAUNCHING
    await until(lambda: "launching" in card.words())
    assert said in card.words(), "what was started alone goes on saying so"
    assert slack.refused == []


async def test_it_is_not_there_where_one_approver_is_enough(
    bench: Any, slack: Slack, tmp_path: Path
) -> None:
    async with chat_of(bench, slack, tmp_path):
        await bench.asked()
        card = await first_card(slack)
        card.button(Button.APPROVE)
        with pytest.raises(KeyError):
            card.button(Button.BREAK_GLASS)


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ("USTRANGER", "does not know you"),
        ("UEVE", "eve has not the role approver"),
        ("UFAR", "far has not the role approver"),
    ],
)
async def test_who_may_not_is_told_why_and_it_is_recorded(
    pair: Any, slack: Slack, socket: Chat, user: str, why: str
) -> None:
    incident = await pair.asked()
    if user == "USTRANGER":
        await slack.click(user, await first_card(slack), Button.BREAK_GLASS)
        assert slack.views == []
    else:
        await slack.submit(await form_of(slack, user), "I want to")
    assert why in await told(slack, user)
    assert await untouched(pair, incident)
    [refused] = [r for r in await pair.records(incident) if r.event == "chat_refused"]
    assert (refused.body["identity"], refused.body["what"]) == (user, "break_glass")


async def test_it_is_bound_to_the_plan_that_was_shown(
    pair: Any, slack: Slack, socket: Chat
) -> None:
    incident = await pair.asked()
    form = await form_of(slack, "UBOB")
    digest = form.view["private_metadata"]
    kept = digest.index('"bound": "') + len('"bound": "')
    words = ("the plan has changed since", "bound to no plan", "bound to no plan")
    for number, bound in enumerate(("0" * 64, digest[kept : kept + 12], "")):
        form.view["private_metadata"] = f"{digest[:kept]}{bound}{digest[kept + 64 :]}"
        await slack.submit(form, "now")
        assert words[number] in await told(slack, "UBOB", number)
    assert await untouched(pair, incident)


async def test_a_late_form_decides_nothing(pair: Any, slack: Slack, socket: Chat) -> None:
    incident = await pair.asked()
    form = await form_of(slack, "UBOB")
    pair.clock.forward(7 * 24 * 3600)
    await slack.submit(form, "now")
    assert "Nothing was done" in await told(slack, "UBOB")
    assert await untouched(pair, incident)


async def test_a_form_sent_twice_and_by_two_people_on_two_replicas_breaks_it_once(
    pair: Any, slack: Slack, tmp_path: Path
) -> None:
    incident = await pair.asked()
    async with chat_of(pair, slack, tmp_path), chat_of(pair, slack, tmp_path):
        await until(lambda: len(slack.sockets.connections) == 2)
        bobs, anns = await form_of(slack, "UBOB"), await form_of(slack, "UANN")
        await asyncio.gather(*(slack.submit(form, "now") for form in (bobs, bobs, anns)))
        said = [await told(slack, *who) for who in (("UBOB", 0), ("UBOB", 1), ("UANN", 0))]
    assert sum("Nothing was done" in words for words in said) == 2
    assert len(await pair.rows("approvals")) == len(await pair.rows("reviews")) == 1
    assert (await pair.get(incident)).state == State.PROPOSED
    assert (await pair.verify()).problem is None


async def test_a_denied_plan_is_not_started_by_a_form_that_was_open(
    pair: Any, slack: Slack, socket: Chat
) -> None:
    incident = await pair.asked()
    form = await form_of(slack, "UBOB")
    await pair.approvals.deny(incident.id, by="ann", reason="not now")
    await slack.submit(form, "now")
    assert "Nothing was done" in await told(slack, "UBOB")
    assert (await pair.get(incident)).state == State.ACKNOWLEDGED
    assert await pair.rows("reviews") == []
