"""Facts about a pool of GPU machines that may be made larger for pods which no node takes.

They are what planning the action says: a pool that must not grow has its obstacle in words.
"""

import asyncio
from collections.abc import Mapping, Sequence

from tiphys.agents.notebook import Notebook
from tiphys.agents.objects import name_of, text, whole
from tiphys.agents.ports import ClusterReader
from tiphys.policies.model import Json, Object, Source
from tiphys.workflow_templates.action import NotApplicableError, Scope
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.gpu_demand import waiting
from tiphys.workflow_templates.pool_sizes import concerns
from tiphys.workflow_templates.pools import STEP, PoolKind
from tiphys.workflow_templates.scale_gpu_pool import KINDS, ScaleGpuPoolParameters

_ACTION = find("scale-gpu-pool")
Found = tuple[dict[str, Json], Object | None]
Seen = tuple[PoolKind, Object, Mapping[str, Sequence[Object]]]
"""A pool with its adapter and everything around it."""


async def pool_facts(cluster: ClusterReader, book: Notebook, pods: Sequence[Object]) -> Found:
    """Give the facts, and the one pool that they are about; nothing where no pod wants GPUs."""
    wanting = waiting(pods)
    if not wanting:
        return {}, None
    found = await book.ask(Source.KUBERNETES, "list pools of GPU machines", _read(cluster), _listed)
    candidates = [
        (pool, around) for kind, pool, around in found if concerns(pool, around, wanting[0], kind)
    ]
    judged = [(pool, *_judged(pool, around)) for pool, around in candidates]
    able = [one for one in judged if not one[2]]
    if not judged:
        return {}, None
    pool, wanted, obstacle = able[0] if able else judged[0]
    if len(able) > 1:
        obstacle = "several pools could grow: " + ", ".join(name_of(one[0]) for one in able)
    facts: dict[str, Json] = {
        "name": name_of(pool),
        "namespace": text(pool, "metadata", "namespace"),
        "machines": whole(pool, "spec", "replicas"),
        "wanted": wanted,
        "obstacle": obstacle,
    }
    return facts, pool


async def _read(cluster: ClusterReader) -> list[Seen]:
    """List every pool, each with what planning wants to see."""
    found: list[Seen] = []
    shared: dict[str, Sequence[Object]] = {}
    for (version, kind), adapter in KINDS.items():
        for pool in await cluster.list(version, kind, ""):
            space = text(pool, "metadata", "namespace")
            own = [r for r in _ACTION.reads if r.scope is Scope.NAMESPACE]
            wide = [r for r in _ACTION.reads if r.scope is Scope.CLUSTER and r.kind not in shared]
            lists = await asyncio.gather(
                *(cluster.list(r.api_version, r.kind, r.place(space)) for r in (*own, *wide))
            )
            named = dict(zip([r.kind for r in (*own, *wide)], lists, strict=True))
            shared |= {r.kind: named[r.kind] for r in wide}
            found.append((adapter, pool, {**shared, **named}))
    return found


def _listed(found: Sequence[Seen]) -> tuple[Json, str]:
    names: list[Json] = [name_of(pool) for _, pool, _ in found]
    return names, f"{len(names)} pools of machines"


def _judged(pool: Object, around: Mapping[str, Sequence[Object]]) -> tuple[int, str]:
    """Give the size that it should have, and what is in the way of one machine more."""
    size = whole(pool, "spec", "replicas")
    why = ""
    for more in range(STEP, 0, -1):
        try:
            _ACTION.changes(pool, around, ScaleGpuPoolParameters(replicas=size + more))
        except NotApplicableError as error:
            why = str(error)
        else:
            return size + more, ""
    return size, why
