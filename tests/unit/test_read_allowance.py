"""An investigation reads so much of the cluster and no more."""
# ruff: noqa: ARG002 - the port's signature

import asyncio
from collections.abc import Sequence

import pytest

from tiphys.agents.ports import UnansweredError
from tiphys.agents.read_allowance import Allowance, AllowedReader
from tiphys.policies.model import Object


class Cluster:
    """Has as many objects, and as long a log, as it is told."""

    def __init__(self, objects: int = 1, log: str = "line") -> None:
        self.asked = 0
        self._objects = objects
        self._log = log

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        self.asked += 1
        return None

    async def list(
        self,
        api_version: str,
        kind: str,
        namespace: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Sequence[Object]:
        self.asked += 1
        return [{}] * self._objects

    async def logs(
        self, namespace: str, pod: str, container: str, *, previous: bool, tail_lines: int
    ) -> str:
        self.asked += 1
        return self._log


async def read_log(reader: AllowedReader) -> str:
    return await reader.logs("shop", "web-1", "app", previous=False, tail_lines=9)


async def test_the_question_too_many_is_not_asked() -> None:
    cluster = Cluster()
    reader = AllowedReader(cluster, Allowance(calls=3))
    with reader.investigation():
        await reader.get("v1", "Pod", "shop", "web-1")
        await reader.list("v1", "Pod", "shop")
        await read_log(reader)
        for again in (reader.get("v1", "Pod", "shop", "web-1"), reader.list("v1", "Pod", "")):
            with pytest.raises(UnansweredError, match="asked Kubernetes 3 questions"):
                await again
    assert cluster.asked == 3


async def test_more_objects_than_allowed_are_no_answer() -> None:
    reader = AllowedReader(Cluster(objects=4), Allowance(objects=7))
    with reader.investigation():
        assert len(await reader.list("v1", "Pod", "")) == 4
        with pytest.raises(UnansweredError, match="may read 7 objects"):
            await reader.list("v1", "Pod", "")


async def test_more_of_logs_than_allowed_is_no_answer() -> None:
    reader = AllowedReader(Cluster(log="ü" * 6), Allowance(log_bytes=20))
    with reader.investigation():
        assert len(await read_log(reader)) == 6
        with pytest.raises(UnansweredError, match="may read 20 bytes of logs"):
            await read_log(reader)


async def test_each_investigation_counts_for_itself_and_what_it_starts_with_it() -> None:
    reader = AllowedReader(Cluster(), Allowance(calls=4))

    async def one() -> int:
        with reader.investigation() as spent:
            await asyncio.gather(*(reader.list("v1", "Pod", "") for _ in range(4)))
            return spent.calls

    assert await asyncio.gather(one(), one(), one()) == [4, 4, 4]


async def test_nobody_reads_without_being_counted() -> None:
    cluster = Cluster()
    with pytest.raises(UnansweredError, match="by investigations only"):
        await AllowedReader(cluster, Allowance()).get("v1", "Pod", "shop", "web-1")
    assert cluster.asked == 0
