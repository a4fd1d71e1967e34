"""Facts about the claim that an alert names: how large it is, and whether it may grow."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain

from tiphys.agents.notebook import Notebook
from tiphys.agents.objects import instant, items, mapping, name_of, text
from tiphys.agents.pod_facts import minutes_between
from tiphys.agents.ports import ClusterReader
from tiphys.policies.model import Json, Object, Source
from tiphys.workflow_templates import claims
from tiphys.workflow_templates.quantities import MIB, NotAQuantityError

LATELY_MINUTES = 7 * 24 * 60.0
"""What fills up so soon after it was made larger is not filled by what it is for."""
_MAKER = "kube-controller-manager"
"""It makes claims and binds them; it expands none."""
_READ = (claims.STORAGE_CLASS, ("v1", "Pod"), ("apps/v1", "StatefulSet"))


async def volume_facts(
    cluster: ClusterReader, claim: Object, book: Notebook, now: datetime
) -> dict[str, Json]:
    """Read what is around a claim and give its facts; raises `UnansweredError`."""
    place = text(claim, "metadata", "namespace")
    found = await asyncio.gather(
        *(
            book.ask(
                Source.KUBERNETES,
                f"list {kind} for claim {name_of(claim)}",
                cluster.list(version, kind, "" if kind == "StorageClass" else place),
                _told,
            )
            for version, kind in _READ
        )
    )
    related = {kind: seen for (_, kind), seen in zip(_READ, found, strict=True)}
    return facts_of(claim, related, now)


def _told(found: Sequence[Object]) -> tuple[Json, str]:
    return [name_of(one) for one in found[:50]], f"{len(found)} are there"


def facts_of(
    claim: Object, related: Mapping[str, Sequence[Object]], now: datetime
) -> dict[str, Json]:
    """Give the facts of a claim; `related` maps a kind to its objects."""
    users = claims.mounted_by(claim, related["Pod"])
    minutes = _raised_minutes(claim, now)
    try:
        gib, obstacle = float(claims.size(claim) / (1024 * MIB)), _obstacle(claim, related)
    except NotAQuantityError as error:
        gib, obstacle = 0.0, str(error)
    return {
        "name": name_of(claim),
        "size_gib": gib,
        "class": claims.class_of(claim),
        "obstacle": obstacle,
        "mounted_by": [name_of(pod) for pod in users[:20]],
        "template_of": claims.template_of(claim, related["StatefulSet"]) or "",
        "raised_minutes": minutes,
        "raised_lately": 0 <= minutes <= LATELY_MINUTES,
    }


def _obstacle(claim: Object, related: Mapping[str, Sequence[Object]]) -> str:
    users = claims.mounted_by(claim, related["Pod"])
    owner = claims.operator_of(users, related["StatefulSet"])
    reasons = (
        claims.obstacle(claim),
        claims.expandable(claim, related["StorageClass"]),
        None if users else "no running pod mounts it",
        owner and f"{owner} owns what mounts it: its size is set there",
    )
    return next(filter(None, reasons), "")


def _raised_minutes(claim: Object, now: datetime) -> float:
    """Give the minutes since somebody last set what it asks for; -1 where only its maker did."""
    made = instant(claim, "metadata", "creationTimestamp")
    times = [
        instant(entry, "time")
        for entry in items(claim, "metadata", "managedFields")
        if text(entry, "manager") != _MAKER
        and "f:storage" in mapping(entry, "fieldsV1", "f:spec", "f:resources", "f:requests")
    ]
    later = [t for t in times if t and made and t - made > timedelta(minutes=1)]
    return minutes_between(max(later), now) if later else -1.0


def workload_pod(claim: Object, pods: Sequence[Object]) -> Object | None:
    """Give the pod by which the workload that uses a claim is found: a running one, if there is."""
    name = name_of(claim)
    named = (
        pod
        for pod in pods
        if any(text(v, "persistentVolumeClaim", "claimName") == name
               for v in items(pod, "spec", "volumes"))
    )  # fmt: skip
    return next(chain(claims.mounted_by(claim, pods), named), None)
