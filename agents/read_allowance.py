"""How much one investigation may read of the cluster: calls, objects and bytes of logs.

Invariant: what goes over the allowance is not read, and counts as no answer, so that a human is
told; how long all of it may take is bounded by whoever asks for the investigation.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from tiphys.agents.ports import ClusterReader, UnansweredError
from tiphys.policies.model import Object


@dataclass(frozen=True)
class Allowance:
    """The limits of one investigation."""

    calls: int = 300
    """Questions to the API server; a long list, page by page, is one."""
    objects: int = 50_000
    """Objects in all answers together."""
    log_bytes: int = 1 << 20
    """Bytes of all logs together, each of which has at most 64 KiB."""


@dataclass
class Spent:
    """What one investigation has read so far."""

    calls: int = 0
    objects: int = 0
    log_bytes: int = 0


class AllowedReader:
    """A ClusterReader that counts for the investigation in whose context it is asked."""

    def __init__(self, cluster: ClusterReader, allowance: Allowance) -> None:
        self._cluster = cluster
        self._allowance = allowance
        self._spent: ContextVar[Spent | None] = ContextVar("spent", default=None)

    @contextmanager
    def investigation(self) -> Generator[Spent]:
        """Begin to count; what is started inside counts too."""
        token = self._spent.set(spent := Spent())
        try:
            yield spent
        finally:
            self._spent.reset(token)

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        """Read one object; raises `UnansweredError`, also over the allowance."""
        spent = self._ask()
        found = await self._cluster.get(api_version, kind, namespace, name)
        self._take(spent, objects=1)
        return found

    async def list(
        self,
        api_version: str,
        kind: str,
        namespace: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Sequence[Object]:
        """List objects; raises `UnansweredError`, also over the allowance."""
        spent = self._ask()
        found = await self._cluster.list(
            api_version, kind, namespace, label_selector, field_selector
        )
        self._take(spent, objects=len(found))
        return found

    async def logs(
        self, namespace: str, pod: str, container: str, *, previous: bool, tail_lines: int
    ) -> str:
        """Read the end of a log; raises `UnansweredError`, also over the allowance."""
        spent = self._ask()
        found = await self._cluster.logs(
            namespace, pod, container, previous=previous, tail_lines=tail_lines
        )
        self._take(spent, log_bytes=len(found.encode()))
        return found

    def _ask(self) -> Spent:
        """Count a call before it is made."""
        spent = self._spent.get()
        if spent is None:
            raise UnansweredError("the cluster is read by investigations only, and this is none")
        spent.calls += 1
        if spent.calls > self._allowance.calls:
            raise UnansweredError(
                f"this investigation has asked Kubernetes {self._allowance.calls} questions, "
                "and may ask no more"
            )
        return spent

    def _take(self, spent: Spent, objects: int = 0, log_bytes: int = 0) -> None:
        """Count an answer; one that goes over the allowance is not handed on."""
        spent.objects += objects
        spent.log_bytes += log_bytes
        for has, most, what in (
            (spent.objects, self._allowance.objects, "objects"),
            (spent.log_bytes, self._allowance.log_bytes, "bytes of logs"),
        ):
            if has > most:
                raise UnansweredError(f"this investigation may read {most} {what} and no more")
