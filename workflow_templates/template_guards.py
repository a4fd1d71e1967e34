"""What a change of a pod template may touch without moving anybody's privilege. Pure.

It is said twice: in Python, so that such a change is never planned, and in CEL, so that the API
server refuses it with an action's own token. A test holds the two against each other. Both are
symmetrical, since what act changes must be open to rollback too.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from tiphys.workflow_templates.action import Guard
from tiphys.workflow_templates.mark import ANNOTATION, Trace
from tiphys.workflow_templates.pointers import at, equal

CHANGEABLE = (
    "affinity", "containers", "imagePullSecrets", "initContainers", "nodeSelector",
    "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "volumes",
)  # fmt: skip
"""Fields of a pod's spec that may change; accounts and what is the host's may not."""
ORDINARY = (
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "name",
    "persistentVolumeClaim", "projected", "secret",
)  # fmt: skip
"""Fields of an ordinary volume: https://kubernetes.io/docs/concepts/security/pod-security-standards/"""

Json = dict[str, Any]


def moved(one: Any, other: Any) -> str | None:
    """Name what differs in privilege between two pod specs, or None."""
    for key in sorted({*one, *other} - {*CHANGEABLE}):
        if not equal(one.get(key), other.get(key)):
            return f"spec.{key}"
    for present, intended in ((one, other), (other, one)):
        for container in _containers(intended):
            if not _as_before(container, present):
                return f"the securityContext of container {container['name']}"
        for volume in cast("list[Json]", intended.get("volumes") or []):
            known = any(equal(volume, old) for old in present.get("volumes") or [])
            if not known and not {*volume} <= {*ORDINARY}:
                return f"volume {volume['name']}"
    return None


def _containers(spec: Mapping[str, Any]) -> Iterator[Json]:
    for key in ("containers", "initContainers"):
        yield from cast("Sequence[Json]", spec.get(key) or ())


def _as_before(container: Json, spec: Mapping[str, Any]) -> bool:
    old = [one for one in _containers(spec) if one["name"] == container["name"]]
    context = container.get("securityContext")
    if old:
        return any(equal(context, one.get("securityContext")) for one in old)
    add = at(context, "/capabilities/add")
    mount = at(context, "/procMount") or "Default"
    return not at(context, "/privileged") and add is None and mount == "Default"


NOTES = (
    ("notes", "has(object.metadata.annotations) ? object.metadata.annotations : {}"),
    ("noted", "has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}"),
)
"""The annotations of the object, after and before."""
TERMS = (
    ("fresh", "object.spec.template.spec"),
    ("prior", "oldObject.spec.template.spec"),
    (
        "containers",
        """variables.fresh.containers
           + (has(variables.fresh.initContainers) ? variables.fresh.initContainers : [])""",
    ),
    (
        "before",
        """variables.prior.containers
           + (has(variables.prior.initContainers) ? variables.prior.initContainers : [])""",
    ),
    *NOTES,
)
_COUNTED = "deprecated.daemonset.template.generation"
"""The API server counts a DaemonSet's pod templates there, and takes nobody else's value."""
MARKS = [f".{trace.value}" for trace in Trace if trace is not Trace.ENDS]
_PLAIN = """(!has(c.securityContext)
    || ((!has(c.securityContext.privileged) || !c.securityContext.privileged)
    && (!has(c.securityContext.capabilities) || !has(c.securityContext.capabilities.add))
    && (!has(c.securityContext.procMount) || c.securityContext.procMount == 'Default')))"""


def guards(resource: str) -> tuple[Guard, ...]:
    """Let a write change the pod template, as `moved` allows, and the run's mark.

    One direction is enough here, since rollback is judged as well.
    """
    return (*workload_guards(resource), *_of_pods(resource))


def annotation_guards(resource: str, key: str) -> tuple[Guard, ...]:
    """Let a write change one annotation of the pod template, and the run's mark."""
    fresh, prior = "object.spec.template", "oldObject.spec.template"

    def kept(one: str, other: str) -> str:
        """Say that the metadata of one template, but for the annotation, are in the other."""
        return f"""{one}.metadata.all(k, k == 'annotations' || (k in {other}.metadata
            && {one}.metadata[k] == {other}.metadata[k]))
            && (!has({one}.metadata.annotations) || {one}.metadata.annotations.all(k, k == '{key}'
            || (has({other}.metadata.annotations) && k in {other}.metadata.annotations
            && {one}.metadata.annotations[k] == {other}.metadata.annotations[k])))"""

    return (
        *workload_guards(resource),
        Guard(
            resource,
            f"""{fresh}.spec == {prior}.spec
                && {kept(fresh, prior)}
                && {kept(prior, fresh)}""",
            f"of the pod template only the annotation {key} changes",
        ),
    )


def workload_guards(resource: str) -> tuple[Guard, ...]:
    """Let a write change the pod template, whatever it is, and the run's mark."""
    return (
        Guard(
            resource,
            """oldObject.spec.all(k, k in object.spec) && object.spec.all(k, k == 'template'
               || (k in oldObject.spec && object.spec[k] == oldObject.spec[k]))""",
            "only the pod template changes",
        ),
        *metadata_guards(resource),
    )


def metadata_guards(resource: str) -> tuple[Guard, ...]:
    """Let a write change the run's mark, and nothing else of the metadata; it needs `NOTES`."""
    free = f"k == '{ANNOTATION}'"
    if resource == "apps/daemonsets":
        free = f"k in ['{ANNOTATION}', '{_COUNTED}']"
    return (
        Guard(
            resource,
            f"""oldObject.metadata.all(k, k in object.metadata) && object.metadata.all(k,
                k in ['annotations', 'managedFields', 'resourceVersion', 'generation']
                || (k in oldObject.metadata && object.metadata[k] == oldObject.metadata[k]))
                && variables.noted.all(k, k in variables.notes)
                && variables.notes.all(k, {free} || (k in variables.noted
                && variables.notes[k] == variables.noted[k]))""",
            "of the metadata only the run's mark changes",
        ),
        Guard(
            resource,
            f"""'{ANNOTATION}' in variables.notes && {MARKS}.exists(ending,
                'tiphys-' + variables.notes['{ANNOTATION}'] == variables.run + ending)""",
            "every change bears the mark of its run",
        ),
    )


def _of_pods(resource: str) -> tuple[Guard, ...]:
    return (
        Guard(
            resource,
            f"""variables.fresh.all(k, k in {[*CHANGEABLE]} || (k in variables.prior
                && variables.fresh[k] == variables.prior[k]))
                && variables.prior.all(k, k in {[*CHANGEABLE]} || k in variables.fresh)""",
            "the account, the host's namespaces and the like do not change",
        ),
        Guard(
            resource,
            f"""variables.containers.all(c, variables.before.exists(p, p.name == c.name)
                ? variables.before.exists(p, p.name == c.name
                && has(p.securityContext) == has(c.securityContext)
                && (!has(c.securityContext) || p.securityContext == c.securityContext))
                : {_PLAIN})""",
            "no container gains a privilege",
        ),
        Guard(
            resource,
            f"""!has(variables.fresh.volumes) || variables.fresh.volumes.all(v,
                v.all(k, k in {[*ORDINARY]}) || (has(variables.prior.volumes)
                && variables.prior.volumes.exists(p, p == v)))""",
            "no volume of the host is added",
        ),
    )
