"""A ServiceAccount that may do what an action may, but for one verb."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from tiphys.service.conform.runs import settings
from tiphys.service.conform.snapshot import PROP
from tiphys.service.conform.trial import Stage
from tiphys.service.conform.wire import Json, Wire, place_of
from tiphys.workflow_templates.action import Action, Right
from tiphys.workflow_templates.identities import access, cluster_access


@dataclass(frozen=True)
class Lesser:
    """One such account, in the namespace where Workflows run."""

    name: str
    wire: Wire
    whole: Mapping[str, Json]
    """What its roles lack, by their paths."""

    def give_back(self) -> None:
        """Let it do everything that the action may do."""
        for path, role in self.whole.items():
            self.wire.patch(path, {"rules": role["rules"]})


def lesser_account(stage: Stage, action: Action, right: Right, verb: str) -> Lesser:
    """Make an account with the action's rights without one verb of one of them."""
    name, world = f"lesser-{secrets.token_hex(4)}", stage.world
    meta = {"name": name, "namespace": world.actions}
    world.install({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    whole: dict[str, Json] = {}
    for given in (
        *access(action, stage.namespace, world.actions),
        *cluster_access(action, world.actions, settings(world).name_prefix),
    ):
        place = {k: v for k, v in _dict(given["metadata"]).items() if k == "namespace"}
        own: Json = {**given, "metadata": {**place, "name": name, "labels": {PROP: "lesser"}}}
        if "rules" in own:
            whole[place_of(own)] = own
            kept = [_less(rule, right, verb) for rule in own["rules"]]
            own = {**own, "rules": [rule for rule in kept if rule["verbs"]]}
        else:
            [subject] = own["subjects"]
            own["roleRef"] = {**own["roleRef"], "name": name}
            own["subjects"] = [{**subject, "name": name}]
        world.install(own)
        if place.get("namespace") != stage.namespace:
            world.swept.append(place_of(own))
    return Lesser(name, stage.wire, whole)


def _less(rule: Json, right: Right, verb: str) -> Json:
    ours = rule["apiGroups"] == [right.api_group] and rule["resources"] == [right.resource]
    return {**rule, "verbs": [v for v in rule["verbs"] if not (ours and v == verb)]}


def _dict(value: object) -> Json:
    assert isinstance(value, dict)
    return value
