"""Pages that wait go out in one post; one that is refused silences no other."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from tiphys.agents.ports import UnansweredError
from tiphys.policies.correlation import OWN_LABEL
from tiphys.service.alertmanager import OwnAlert
from tiphys.service.errors import NobodyToldError
from tiphys.service.paging import AlertPager

MINUTE = timedelta(minutes=1)


class Posts:
    """An Alertmanager that keeps what it is given."""

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.taken: list[list[str]] = []

    async def post(self, alerts: Sequence[OwnAlert]) -> None:
        ids = [alert.labels[OWN_LABEL] for alert in alerts]
        if self.refused in ids:
            raise UnansweredError("400")
        self.taken.append(ids)


async def test_pages_of_one_moment_are_one_post(bench: Any) -> None:
    posts = Posts()
    pager = AlertPager(posts)  # type: ignore[arg-type]
    incidents = [await bench.escalated(f"pod shop/p-{i}") for i in range(5)]
    told = await asyncio.gather(*(pager.page(one, until=MINUTE) for one in incidents))
    assert set(told) == {"alertmanager"}
    assert [sorted(ids) for ids in posts.taken] == [sorted(one.id for one in incidents)]
    await pager.page(incidents[0], until=MINUTE)
    assert len(posts.taken) == 2, "the next moment's are the next post"


async def test_a_page_that_is_refused_fails_alone(bench: Any) -> None:
    incidents = [await bench.escalated(f"pod shop/p-{i}") for i in range(3)]
    posts = Posts(refused=incidents[1].id)
    pager = AlertPager(posts)  # type: ignore[arg-type]
    pages = [pager.page(one, until=MINUTE) for one in incidents]
    first, second, third = await asyncio.gather(*pages, return_exceptions=True)
    assert (first, third) == ("alertmanager", "alertmanager")
    assert isinstance(second, NobodyToldError)


async def test_a_cancelled_page_leaves_the_others_alone(bench: Any) -> None:
    incidents = [await bench.escalated(f"pod shop/p-{i}") for i in range(2)]
    posts = Posts()
    pager = AlertPager(posts)  # type: ignore[arg-type]
    gone = asyncio.create_task(pager.page(incidents[0], until=MINUTE))
    stays = asyncio.create_task(pager.page(incidents[1], until=MINUTE))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == "alertmanager"
    with pytest.raises(asyncio.CancelledError):
        await gone
