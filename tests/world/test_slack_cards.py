"""Cards follow the database: posted once, true in place, whatever Slack or a replica does."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import update

from tiphys.policies.lifecycle import Move
from tiphys.sandbox.slack import Message, Slack
from tiphys.sandbox.slack_api import serving_slack
from tiphys.service.database import stamp
from tiphys.service.incidents import Step
from tiphys.service.slack.card import Button
from tiphys.service.slack.poster import Poster
from tiphys.service.tables import cards, incidents, proposals

sys.path.insert(0, str(Path(__file__).parent))

from slack_bench import poster_of


@pytest_asyncio.fixture
async def slack() -> AsyncGenerator[Slack]:
    async with serving_slack(Slack()) as found:
        yield found


@pytest_asyncio.fixture
async def poster(bench: Any, slack: Slack) -> AsyncGenerator[Poster]:
    async with poster_of(bench, slack) as found:
        yield found


def only(slack: Slack) -> Message:
    [message] = slack.posts()
    return message


def again(poster: Poster) -> None:
    """Let the time pass that the poster waits before it asks Slack again."""
    poster._not_before = 0.0


# --- in place -------------------------------------------------------------------------------------


async def test_what_needs_a_human_gets_a_card_and_nothing_else_does(
    bench: Any, slack: Slack, poster: Poster
) -> None:
    await bench.open("pod shop/quiet")
    waits, lost = await bench.asked(), await bench.escalated("pod shop/lost")
    await poster.round()
    assert {m.metadata["event_payload"]["incident"] for m in slack.posts() if m.metadata} == {
        waits.id,
        lost.id,
    }
    await poster.round()
    assert len(slack.posts()) == 2
    assert all(m.edits == 0 for m in slack.posts())


async def test_a_card_says_what_became_of_it_whoever_decided(
    bench: Any, slack: Slack, poster: Poster
) -> None:
    incident = await bench.asked()
    await poster.round()
    assert only(slack).button(Button.APPROVE)
    await bench.approvals.deny(incident.id, by="ann", reason="not during the sale")
    await poster.round()
    assert "denied by ann: not during the sale" in only(slack).words()
    with pytest.raises(KeyError):
        only(slack).button(Button.APPROVE)
    [reply] = slack.replies(only(slack))
    assert "not during the sale" in reply.words()
    assert "(ann)" in reply.words()


async def test_a_card_ends_with_its_incident(bench: Any, slack: Slack, poster: Poster) -> None:
    incident = await bench.escalated()
    await poster.round()
    await bench.end_alerts(incident)
    await bench.run(bench.settle, incident)
    await poster.round()
    assert "closed" in only(slack).words()
    [row] = await bench.rows("cards")
    assert row["over"]


async def test_a_card_that_somebody_deleted_comes_back(
    bench: Any, slack: Slack, poster: Poster
) -> None:
    incident = await bench.escalated()
    await poster.round()
    slack.channels["C0OPS"].clear()
    async with bench.ledger.person(incident.id) as entry:
        await entry.move(Step(Move.ACKNOWLEDGE, "ann has it", "ann", acknowledged_by="ann"))
    await poster.round()
    assert "in the hands of ann" in only(slack).words()


# --- once -----------------------------------------------------------------------------------------


async def test_replicas_post_one_card(bench: Any, slack: Slack) -> None:
    made = [await bench.escalated(f"pod shop/p{n}") for n in range(6)]
    async with poster_of(bench, slack) as one, poster_of(bench.replica(), slack) as two:
        for _ in range(3):
            await asyncio.gather(one.round(), two.round())
    assert len(slack.posts()) == len(made)


async def test_a_restart_posts_nothing_again(bench: Any, slack: Slack) -> None:
    await bench.escalated()
    for _ in range(3):
        async with poster_of(bench, slack) as poster:
            await poster.round()
    assert only(slack).edits == 0


async def test_a_post_of_which_nobody_heard_is_found_again(
    bench: Any, slack: Slack, poster: Poster
) -> None:
    await bench.escalated()
    slack.lose.add("chat.postMessage")
    await poster.round()
    assert poster.trouble
    assert (await bench.rows("cards"))[0]["ts"] is None
    again(poster)
    await poster.round()
    assert (await bench.rows("cards"))[0]["ts"] == only(slack).ts
    assert not poster.trouble


async def test_a_replica_that_died_amid_a_post_is_taken_over_without_a_second_card(
    bench: Any, slack: Slack
) -> None:
    await bench.escalated()
    async with poster_of(bench, slack) as first:
        await first.round()
    # As it stands in the database between Slack's answer and ours.
    async with bench.database.transaction() as tx:
        values = {"ts": None, "posting_at": bench_time(bench), "holder": "dead", "shown": ""}
        await tx.execute(update(cards).values(**values, held_until="2000-01-01T00:00:00.000000Z"))
    async with poster_of(bench, slack) as second:
        await second.round()
    assert (await bench.rows("cards"))[0]["ts"] == only(slack).ts


def bench_time(bench: Any) -> str:
    return stamp(bench.clock())


async def test_a_card_in_another_replicas_hands_is_left_alone_until_its_claim_is_over(
    bench: Any, slack: Slack, poster: Poster
) -> None:
    await bench.escalated()
    cards_of = poster._cards
    held = await cards_of.claim((await bench.rows("incidents"))[0]["id"], bench.clock())
    assert held is not None
    await poster.round()
    assert slack.posts() == []
    bench.clock.forward(91)
    if bench.database.sqlite:  # PostgreSQL measures claims by its own clock
        await poster.round()
        assert only(slack)
        assert not await cards_of.save(held, over=False)


async def test_without_the_right_to_read_the_channel_a_card_comes_twice_rather_than_never(
    bench: Any, slack: Slack, poster: Poster
) -> None:
    slack.scopes -= {"channels:history", "groups:history"}
    await bench.escalated()
    slack.lose.add("chat.postMessage")
    await poster.round()
    again(poster)
    await poster.round()
    assert len(slack.posts()) == 2
    assert (await bench.rows("cards"))[0]["ts"] == slack.posts()[-1].ts


# --- Slack's trouble ------------------------------------------------------------------------------


async def test_slack_is_asked_again_when_it_said_and_not_before(
    bench: Any, slack: Slack, poster: Poster
) -> None:
    await bench.escalated()
    slack.limit("chat.postMessage", 30)
    await poster.round()
    await poster.round()
    assert len(slack.refused) == 1
    assert 29 < poster._not_before - time.monotonic() <= 30
    again(poster)
    await poster.round()
    assert only(slack)


async def test_slack_away_is_waited_for_and_holds_nothing_else_up(
    bench: Any, slack: Slack, poster: Poster
) -> None:
    incident = await bench.asked()
    slack.down = True
    await poster.round()
    assert poster.trouble
    with pytest.raises(Exception, match="Slack did not answer"):
        poster.check()
    await bench.approvals.approve(incident.id, by="ann", reason="")
    slack.down = False
    again(poster)
    await poster.round()
    poster.check()
    assert "approved by ann" in only(slack).words()


async def test_one_incident_that_cannot_be_read_keeps_no_other_from_its_card(
    bench: Any, slack: Slack, poster: Poster
) -> None:
    broken, well = await bench.escalated("a"), await bench.escalated("b")
    async with bench.database.transaction() as tx:
        one = incidents.c.id == broken.id
        await tx.execute(update(incidents).where(one).values(body='{"id": 1}'))
    await poster.round()
    assert well.id in only(slack).words()


async def test_a_record_of_another_version_still_gets_a_card(
    bench: Any, slack: Slack, poster: Poster
) -> None:
    incident = await bench.asked()
    async with bench.database.transaction() as tx:
        await tx.execute(update(proposals).values(decision='{"answer": "proposal"}'))
    await poster.round()
    assert incident.id in only(slack).words()
