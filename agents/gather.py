"""Asks the questions that the alert's playbook adds to the standard ones."""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from tiphys.agents.notebook import Notebook
from tiphys.agents.objects import text
from tiphys.agents.on_call import firing
from tiphys.agents.playbook_file import PLACE, Gather
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import Case, Metrics, Sample, UnansweredError
from tiphys.agents.promql import pods_named_like, quoted
from tiphys.agents.state import State, written
from tiphys.policies.model import Json, Object, Source


class PlaceUnknownError(Exception):
    """A query names something that the alert and the cluster do not tell."""


def places(labels: Mapping[str, str], facts: Object) -> dict[str, str]:
    """Give the quoted values of a query's placeholders; what is unknown is left out."""
    kind = text(facts, "workload", "kind").lower()
    name = text(facts, "workload", "name")
    known = {k: v for k, v in labels.items() if v}
    known |= {"workload": name} if name else {}
    known |= {kind: name} if kind and name else {}
    for place, path in (("pod", "pod"), ("node", "node"), ("namespace", "namespace")):
        found = text(facts, path, "name")
        known |= {place: found} if found else {}
    result = {k: quoted(v) for k, v in known.items()}
    if name:
        result["workload_pods"] = pods_named_like(name)
    return result


def fill(query: str, known: Mapping[str, str]) -> str:
    """Put quoted values into a query; raises `PlaceUnknownError`."""
    missing = sorted({place for place in PLACE.findall(query) if place not in known})
    if missing:
        raise PlaceUnknownError(f"nobody knows {', '.join(missing)} of this alert")
    return PLACE.sub(lambda found: known[found[1]], query)


class Gatherer:
    """A node of the graph, after the cluster was read."""

    def __init__(
        self, metrics: Metrics | None, playbooks: Playbooks, clock: Callable[[], datetime]
    ) -> None:
        self._metrics = metrics
        self._playbooks = playbooks
        self._clock = clock

    async def look(self, case: Case, facts: Object) -> State:
        """Give `facts.gathered`: the greatest value of each query that has one."""
        book = Notebook(self._clock)
        playbook = self._playbooks.match(case)
        asked: Sequence[Gather] = playbook.book.gather if playbook else ()
        gathered: dict[str, Json] = {}
        if self._metrics is not None and asked:
            known = places(firing(case)[0].labels, facts)
            answers = await asyncio.gather(*(self._ask(g, known, book) for g in asked))
            gathered = {g.name: v for g, v in zip(asked, answers, strict=True) if v is not None}
        state = State(facts={"gathered": gathered})
        state.update(written("gather", book))
        return state

    async def _ask(self, gather: Gather, known: Mapping[str, str], book: Notebook) -> float | None:
        assert self._metrics is not None
        try:
            query = fill(gather.query, known)
            samples = await book.ask(
                Source.PROMETHEUS, query, self._metrics.instant(query), lambda s: _told(gather, s)
            )
        except PlaceUnknownError as error:
            book.note(f"{gather.name} was not asked: {error}")
            return None
        except UnansweredError as error:
            book.miss(gather.name, error)
            return None
        values = [s.value for s in samples if math.isfinite(s.value)]
        return max(values, default=None)


def _told(gather: Gather, samples: Sequence[Sample]) -> tuple[Json, str]:
    told: list[Json] = [{"labels": dict(s.labels), "value": s.value} for s in samples[:50]]
    values = ", ".join(f"{s.value:.3g}" for s in samples[:5])
    return told, f"{gather.name}: {values or 'no series'}"
