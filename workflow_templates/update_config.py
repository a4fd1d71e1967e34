"""update-config: set one key of a ConfigMap to a listed value and restart who reads it."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from pydantic import Field

from tiphys.policies.model import Change, Object, ObjectReference, Risk
from tiphys.workflow_templates import config_guards, mark, template_guards
from tiphys.workflow_templates.action import (
    Action,
    NotApplicableError,
    Parameters,
    Related,
    Report,
    Right,
    Run,
)
from tiphys.workflow_templates.config_guards import VALUES, listed, opted_in
from tiphys.workflow_templates.config_use import others, takes
from tiphys.workflow_templates.fenced import Fenced, Values, deviation
from tiphys.workflow_templates.in_order import InOrder, Part
from tiphys.workflow_templates.mark import Trace
from tiphys.workflow_templates.object_patch import fenced_patch
from tiphys.workflow_templates.pointers import at, escape, operations
from tiphys.workflow_templates.rollout_restart import RESTART, replaced, restart
from tiphys.workflow_templates.rollouts import obstacle
from tiphys.workflow_templates.workloads import healthy

_RESOURCES = ("daemonsets", "deployments", "statefulsets")
_CONFIG = Related("v1", "ConfigMap", named_by="configmap")


class UpdateConfigParameters(Parameters):
    """Which key, and what it shall be; the policy lists the values that it may be."""

    configmap: str = Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")
    """In the target's namespace."""
    key: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")
    """Of `data`; it is there already."""
    value: str = Field(pattern=r"^[^\r\n]{1,256}$")
    """Word for word, at most 256 characters on one line."""


class UpdateConfig(Action):
    """First the value, then the restart; and back in the same order, so that fresh pods read it."""

    name = "update-config"
    summary = "Set one key of a ConfigMap to a value that policy and owner list, then restart."
    kinds = (("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet"))
    parameters = UpdateConfigParameters
    reads = (
        _CONFIG,
        *(Related("apps/v1", k) for k in ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet")),
        *(Related("batch/v1", kind) for kind in ("CronJob", "Job")),
        Related("v1", "Pod"),
    )
    rights = (
        Right("", "configmaps", ("get", "patch")),
        Right("", "pods", ("list",)),
        *(Right("apps", resource, ("get", "list", "patch")) for resource in _RESOURCES),
        Right("apps", "replicasets", ("list",)),
        Right("batch", "cronjobs", ("list",)),
        Right("batch", "jobs", ("list",)),
    )
    terms = config_guards.TERMS
    guards = (
        *config_guards.GUARDS,
        *(
            guard
            for resource in _RESOURCES
            for guard in template_guards.annotation_guards(f"apps/{resource}", RESTART)
        ),
    )
    reversible = True
    undo = "Put the earlier value back, then the earlier pod template, so that fresh pods read it."

    def changes(
        self, target: Object, related: Mapping[str, Sequence[Object]], parameters: Parameters
    ) -> tuple[Change, ...]:
        """Give the change of the key and of one annotation; raises `NotApplicableError`."""
        wanted = cast("UpdateConfigParameters", parameters)
        return (_setting(target, related, wanted), *restart(target))

    def risk(self, target: Object, parameters: Parameters) -> Risk:
        """High: it changes what the program does, and every pod is replaced."""
        del target, parameters
        return Risk.HIGH

    def blast_radius(self, target: Object, parameters: Parameters) -> str:
        """Say what is set, that nobody else reads it, and how many pods are replaced."""
        wanted = cast("UpdateConfigParameters", parameters)
        name = f"{at(target, '/metadata/namespace')}/{wanted.configmap}"
        return (
            f"Key {wanted.key} of ConfigMap {name} becomes {wanted.value}; nothing else in the "
            f"namespace takes anything of it. {replaced(target)}"
        )

    def precheck(self, run: Run) -> Report:
        """Answer whether key and pod template are still the plan's, and nobody else reads it."""
        return self._both(run).precheck()

    def act(self, run: Run) -> Report:
        """Set the value, then the annotation, each with the mark in one fenced patch."""
        return self._both(run).act()

    def verify(self, run: Run) -> Report:
        """See every pod replaced and ready, the value as it was set, and the alert over."""
        return self._both(run).verify(lambda seen: healthy(seen[-1]), self.deadlines.verify)

    def rollback(self, run: Run) -> Report:
        """Put the earlier value back, then the earlier annotation."""
        return self._both(run).rollback()

    def _both(self, run: Run) -> InOrder:
        wanted = UpdateConfigParameters.model_validate(run.plan.parameters)
        workload = fenced_patch(run, self.deadlines, obstacle)

        def setting(config_map: Object) -> Sequence[Change]:
            lists = [r for r in self.reads if r != _CONFIG]
            place = run.plan.target.namespace
            found = {r.kind: run.cluster.list(r.api_version, r.kind, place) for r in lists}
            related = {**found, _CONFIG.kind: [config_map]}
            return [_setting(workload.read(), related, wanted)]

        config = self._config(run, wanted)
        return InOrder(
            run,
            (
                Part(config, lambda found: _deviation(config, lambda: setting(found))),
                Part(workload, lambda found: _deviation(workload, lambda: restart(found))),
            ),
        )

    def _config(self, run: Run, wanted: UpdateConfigParameters) -> Fenced:
        place = run.plan.target.namespace
        [of] = [change.of for change in run.plan.changes if change.of]

        def write(config_map: Object, values: Values, trace: Trace) -> None:
            text = f"{run.digest}.{trace}"
            patch = [*operations(values), *mark.annotating(config_map, text)]
            run.cluster.patch(config_map, patch)

        return Fenced(
            run=run,
            deadlines=self.deadlines,
            read=lambda: run.cluster.get("v1", "ConfigMap", place, wanted.configmap),
            mark_of=mark.by_annotation,
            write=write,
            of=of,
        )


def _setting(
    target: Object, related: Mapping[str, Sequence[Object]], wanted: UpdateConfigParameters
) -> Change:
    """Give the change of the key, or raise `NotApplicableError`; no value stands in its words."""
    name, key = wanted.configmap, wanted.key
    named = [c for c in related.get(_CONFIG.kind, ()) if at(c, "/metadata/name") == name]
    if not named:
        raise NotApplicableError(f"there is no ConfigMap {name}")
    (found,) = named
    data = f"/data/{escape(key)}"
    present = at(found, data)
    if why := _unfit(found, key, present, wanted.value):
        raise NotApplicableError(f"ConfigMap {name} {why}")
    if not takes(target, name, key):
        raise NotApplicableError(f"its pods do not take key {key} of ConfigMap {name}")
    if users := others(target, related, name):
        shared = ", ".join(users[:5])
        raise NotApplicableError(f"ConfigMap {name} is not its own: {shared} take of it, too")
    of = ObjectReference(
        api_version="v1",
        kind="ConfigMap",
        namespace=str(at(found, "/metadata/namespace")),
        name=name,
        uid=str(at(found, "/metadata/uid")),
    )
    return Change(of=of, path=data, present=present, intended=wanted.value)


def _unfit(config_map: Object, key: str, present: object, value: str) -> str | None:
    """Say why a key may not get a value, or None."""
    if not opted_in(config_map):
        return f"did not opt in with the label {config_guards.OPT_IN}=enabled"
    if at(config_map, "/immutable"):
        return "is immutable"
    if present is None:
        return f"has no key {key} in its data"
    if present == value:
        return f"has that value under {key} already"
    values = listed(config_map, key)
    if value not in values:
        return f"does not list that value in its annotation {VALUES}/{key}"
    if present not in values:
        return f"does not list the present value of {key} in its annotation {VALUES}/{key}"
    return None


def _deviation(fenced: Fenced, plan_now: Callable[[], Sequence[Change]]) -> str | None:
    plan = fenced.run.plan.model_copy(update={"changes": tuple(fenced.changes)})
    return deviation(plan, plan_now)
