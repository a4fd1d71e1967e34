"""Real runs of the catalogue's actions: planned on live objects, signed, and launched as we do."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tiphys.policies.model import Check, DecidedBy, Plan, Target
from tiphys.policies.plan import digest, encode, short_digest, workflow_name
from tiphys.service.argo import Argo, Submission
from tiphys.service.conform.flights import Flight, publish
from tiphys.service.conform.wire import Json, place, place_of
from tiphys.service.conform.worlds import World
from tiphys.service.database import stamp
from tiphys.service.outcomes import RunView, view
from tiphys.workflow_templates import apart
from tiphys.workflow_templates.action import Result, StepName
from tiphys.workflow_templates.catalogue import every, find, template_name
from tiphys.workflow_templates.identities import access, cluster_access
from tiphys.workflow_templates.render import RenderSettings, manifests
from tiphys.workflow_templates.signature import public_hex, sign

HOPELESS = 0.01
"""The share of verify's deadline, 3 s, for a run that shall not be verified."""
_NONE: Json = {"items": []}
"""What a cluster has of a kind that it does not serve."""
Mutation = Callable[[Json], None]


def settings(world: World, share: float = 1.0, prometheus_url: str = "") -> RenderSettings:
    """Give what our installation would decide, but in the world's own namespace."""
    return RenderSettings(
        image=world.step_image,
        public_key=public_hex(world.key),
        namespace=world.actions,
        catalogue_namespace=world.actions,
        prometheus_url=prometheus_url,
        verify_share=share,
        name_prefix=world.actions,
    )


def shop(world: World, action: str = "") -> str:
    """Make a namespace that opted in, where an action may work; without one, every action."""
    publish_all(world)
    space, decided = world.namespace(), settings(world)
    for one in [find(action)] if action else every():
        world.install(*access(one, space, decided.namespace))
        with world.lock:
            if one.name not in world.let_out:
                wide = cluster_access(one, decided.namespace, decided.name_prefix)
                world.install(*wide)
                world.swept += map(place_of, wide)
                world.let_out.add(one.name)
    return space


def related_to(
    world: World, target: Json, action_name: str, chosen: Mapping[str, Any]
) -> dict[str, list[Json]]:
    """Read what an action's planning reads beside its target, by kind."""
    space = target["metadata"].get("namespace", "")
    related: dict[str, list[Json]] = {}
    for kind in find(action_name).reads:
        where, name = kind.place(space), str(chosen.get(kind.named_by) or "")
        found = world.wire.find(place(kind.api_version, kind.kind, where, name)) or _NONE
        found = {"items": [found]} if name and found is not _NONE else found
        named = {"apiVersion": kind.api_version, "kind": kind.kind}
        related[kind.kind] = [{**named, **item} for item in found["items"]]
    return related


def plan_on(world: World, target: Json, action_name: str, attempt: int = 1, **chosen: Any) -> Plan:
    """Plan an action on a live object, as the agents would.

    `hold` and `query` are the plan's check; the rest are the action's parameters.
    """
    check = Check(hold_seconds=chosen.pop("hold", 1), query=chosen.pop("query", ""))
    action, meta = find(action_name), target["metadata"]
    space = meta.get("namespace", "")
    related = related_to(world, target, action_name, chosen)
    typed = action.parameters.model_validate(chosen)
    return Plan(
        incident="inc-1",
        attempt=attempt,
        action=action_name,
        version=action.version,
        target=Target(
            cluster="conformance",
            api_version=target["apiVersion"],
            kind=target["kind"],
            namespace=space,
            name=meta["name"],
            uid=meta["uid"],
        ),
        parameters=chosen,
        changes=action.changes(target, related, typed),
        check=check,
        policy="conformance",
        evidence_hash="0" * 64,
        decided_by=DecidedBy(reasoner="human"),
    )


def publish_all(
    world: World, mutate: Mutation | None = None, variant: str = "", **chosen: Any
) -> str:
    """Publish every action's template, changed and with `variant` behind its name; gives that."""
    with world.lock:
        if variant not in world.published:
            _publish_all(world, mutate, variant, chosen)
            world.published.add(variant)
    return variant


def _publish_all(world: World, mutate: Mutation | None, variant: str, chosen: Json) -> None:
    rendered = cast("list[Json]", deepcopy(manifests(settings(world, **chosen))))
    made = [one for one in rendered if one["kind"] != "ConfigMap"]
    templates = [one for one in made if one["kind"] == "WorkflowTemplate"]
    for one in templates:
        one["metadata"]["name"] += variant
        if mutate is not None:
            mutate(one["spec"])
    world.install(*(one for one in made if one not in templates))
    publish(world, *templates)


class Flown(Flight):
    """A run of ours on its way, or ended."""

    def __init__(self, world: World, plan: Plan) -> None:
        super().__init__(world, workflow_name(plan))
        self.plan = plan
        self.digest = short_digest(plan)

    def view(self) -> RunView:
        """See it as the service does."""
        return view(self.workflow())

    def results(self) -> dict[StepName, Result | None]:
        """Give what each step said."""
        return {step.step: step.result for step in self.view().steps}

    def events(self) -> list[str]:
        """Give the endings of the names of this run's Events, in order of their names."""
        wire = self.world.wire
        found = wire.items(place("v1", "Event", self.plan.target.namespace))
        prefix = f"tiphys-{self.digest}."
        names = [item["metadata"]["name"] for item in found]
        return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def fly(
    world: World,
    plan: Plan,
    variant: str = "",
    *,
    seconds: float = 600,
    key: Ed25519PrivateKey | None = None,
) -> Flown:
    """Launch a plan through the service's own client, as an identity that may do no more."""
    if not variant:
        publish_all(world)
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    not_after = stamp(moment)  # As the launcher writes it.
    submission = Submission(
        name=workflow_name(plan),
        template=template_name(find(plan.action)) + variant,
        parameters={
            "plan": encode(plan),
            "notAfter": not_after,
            "signature": sign(key or world.key, digest(plan), not_after),
            "target": plan.target.uid,
            **apart.parameters(plan.target),
        },
        incident=plan.incident,
    )
    world.ask(lambda api: Argo(api, world.actions).create(submission))
    return Flown(world, plan)
