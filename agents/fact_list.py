"""Every fact that a playbook's condition may read, with its meaning; the loader lints by it.

A group is empty where there was nothing to read: then a condition on it has no answer, and the
incident goes to a human. `has(pod.name)` asks first.
"""

from typing import Final

from tiphys.agents.experience import NUMBERS
from tiphys.agents.symptoms import SYMPTOMS
from tiphys.workflow_templates import catalogue

FACTS: Final[dict[str, str]] = {
    "alert.name": "the gravest firing alert's name",
    "alert.names": "the names of all firing alerts of the incident",
    "alert.count": "how many alerts fire",
    "alert.severity": "`critical`, `warning` or `info`",
    "alert.labels.*": "its labels",
    "alert.minutes": "minutes since it began to fire",
    "alert.episodes_last_hour": "how often it began to fire in the last hour",
    "alert.expression_true": "its rule's expression is true just now",
    "alert.value": "the expression's value now, where it is true",
    "attempts.count": "earlier attempts of this incident",
    "attempts.last_action": "the action of the last attempt, or empty",
    "attempts.last_outcome": "how that attempt ended, or empty",
    "resolution.found": "the labels lead to one object that exists",
    "resolution.ambiguous": "the labels lead to several objects",
    "resolution.candidates": "those objects",
    "resolution.missing": "objects that the labels name and the cluster does not have",
    "workload.kind": "`Deployment`, `StatefulSet` or `DaemonSet`",
    "workload.name": "its name",
    "workload.replicas": "replicas wanted",
    "workload.replicas_before": "replicas that it had before; only retold evidence names them",
    "workload.available": "replicas available",
    "workload.ready": "replicas ready",
    "workload.paused": "its rollouts are paused",
    "workload.progressing_reason": "the reason of a Deployment's condition Progressing",
    "workload.seen": "its controller has looked at its newest change",
    "workload.strategy": "`RollingUpdate`, `Recreate` or `OnDelete`",
    "workload.partition": "a StatefulSet's pods with a lower number keep the revision before",
    "workload.misscheduled": "a DaemonSet's pods on nodes that it does not want",
    "workload.rollout_takes": "pods that a rollout may take away at once",
    "workload.operator": "the custom resource above it, as `Kind name`, or empty",
    "rollout.in_progress": "a rollout is under way and can still end by itself",
    "rollout.stuck": "a rollout is under way and cannot end by itself",
    "rollout.completed": "the last rollout was once complete",
    "rollout.minutes": "minutes since the newest revision began, -1 where unknown",
    "rollout.recent": "that is at most an hour, and there is an older revision",
    "rollout.revision": "the newest revision, 0 where the kind keeps none",
    "rollout.previous_revision": "the revision before it, 0 without one",
    "rollout.changed": "fields of the pod template that it changed, such as `image`",
    "rollout.images": "its images",
    "rollout.previous_images": "the images before it",
    "rollout.previous_healthy": "the revision before it was seen serving",
    "rollout.age_of_previous_minutes": "minutes between the two revisions, -1 where unknown",
    "pods.total": "the workload's pods, those that end or have ended left out",
    "pods.ready": "how many of them are ready",
    "pods.failing": "how many are not",
    "pods.failing_names": "the names of those",
    "pods.failing_nodes": "on how many nodes those are",
    "pods.newest_total": "pods of the newest revision",
    "pods.newest_ready": "ready pods of the newest revision",
    "pods.newest_failing": "pods of the newest revision that are not ready",
    "pods.older_ready": "ready pods of older revisions",
    "pods.older_failing": "pods of older revisions that are not ready",
    "pods.outdated_failing": (
        "a StatefulSet's pods that are not ready, of a revision other than the one it wants"
    ),
    "pods.ready_since": "ready pods that were made after the last failing one had fallen out",
    "pods.image": "pods whose image cannot be pulled",
    "pods.config": "pods whose container cannot be created",
    "pods.out_of_memory": "pods whose container was killed for its memory",
    "pods.crash": "pods whose container ends again and again",
    "pods.unschedulable": "pods that no node takes",
    "pods.starting": "pods that are on their way",
    "pods.unready": "pods whose process runs and does not report ready",
    "pods.terminating": "always 0: such pods are not counted",
    "pods.ended": "always 0: such pods are not counted",
    "memory.container": "the one container that was killed for its memory in the last hour",
    "memory.limit_mib": "its memory limit in whole MiB, 0 without one",
    "memory.killed_pods": "in how many pods it was killed",
    "memory.raised_minutes": "minutes since a kept revision raised that limit, -1 where none did",
    "memory.raised_lately": "that is at most a week",
    "garbage.count": "the Deployment's pods that a node ended (evicted, shut down)",
    "garbage.names": "the names of the first of those",
    "garbage.reasons": "why the nodes ended them, such as `Evicted`",
    "garbage.message": "what the kubelet said of one of them",
    "garbage.own_limit": "how many of them went over their own limit of ephemeral storage",
    "garbage.ill_nodes": "nodes that ended them and are not ready or under pressure now",
    "gpu.node": "the node of the GPU that the alert is about",
    "gpu.device": "that GPU: its PCI address, or its UUID where nothing tells the address",
    "gpu.remedy": (
        "what the table of Xids asks for: `nothing`, `restart_application`, `drain_and_reset`, "
        "`replace_node`, `escalate`, or empty"
    ),
    "gpu.reason": "why, naming the codes",
    "gpu.codes": "the codes that ask for it",
    "gpu.seen": "every code of that GPU in the last 24 h",
    "gpu.advice": "what NVIDIA's catalogue says of those codes",
    "gpu.minutes": "minutes since the last of them",
    "gpu.dated": "false: it was there already when the history begins",
    "gpu.ill": "how many of the GPUs in question need something",
    "gpu.users": "how many pods may have used it",
    "gpu.user": "the one pod that used it, as `namespace/name`, or empty",
    "gpu.restarted": "that pod's containers have begun anew since",
    "gpu.unclear": "why nobody can tell what it needs, or empty",
    "pod.name": "the pod in question",
    "pod.phase": "its phase",
    "pod.ready": "it is ready",
    "pod.trouble": "what holds it up: one of the words under `pods`, or `none`",
    "pod.running": "all its containers run",
    "pod.restarts": "restarts of its containers together",
    "pod.container": "the container that holds it up",
    "pod.image": "that container's image",
    "pod.waiting_reason": "why that container waits, or empty",
    "pod.waiting_message": "what the kubelet says about it",
    "pod.exit_code": "how a container last failed, -1 where none did",
    "pod.ended_because": "the reason the kubelet gave, such as `OOMKilled`",
    "pod.scheduling_message": "what the scheduler says about it",
    "pod.node": "the node it is on",
    "pod.age_minutes": "minutes since it was created",
    "pod.controlled_by": "the kind of its controller, or empty",
    "pod.gpus": "GPUs it asks for",
    "pod.log_tail": "the last lines of its log, redacted",
    "node.name": "the node of the pod or of the alert",
    "node.ready": "it is ready",
    "node.reason": "why it is or is not",
    "node.message": "what the kubelet says about it",
    "node.cordoned": "it takes no new pods",
    "node.pressures": "pressures it reports, such as `MemoryPressure`",
    "node.taints": "the keys of its taints",
    "node.driver_upgrade": "how far the GPU operator is with upgrading its driver, or empty",
    "pool.name": "the pool of GPU machines that could take the pods which no node takes",
    "pool.namespace": "its namespace",
    "pool.machines": "how many machines it has",
    "pool.wanted": "how many it should have, at most two more",
    "pool.obstacle": "why it must not have one more, or empty",
    "node.problems": "what else is found wrong with it, such as `ReadonlyFilesystem`",
    "node.others_open": "how many other nodes are ready and take pods",
    "node.others_ill": "other nodes with any of its problems or pressures",
    "node.others_not_ready": "other nodes that are not ready and that nobody has cordoned",
    "autoscaler.present": "an autoscaler owns the workload's replicas",
    "autoscaler.name": "its name",
    "autoscaler.min": "its least replicas",
    "autoscaler.max": "its most replicas",
    "autoscaler.current": "its replicas now",
    "autoscaler.desired": "the replicas it wants",
    "autoscaler.active": "it can read its metrics and change the replicas",
    "autoscaler.obstacle": "why it cannot, or empty",
    "budget.present": "a disruption budget covers the workload's pods",
    "budget.name": "the tightest one",
    "budget.allowed": "disruptions it allows now",
    "budget.wanted": "healthy pods that it wants",
    "budget.healthy": "healthy pods that it sees",
    "budget.expected": "pods that it covers",
    "job.name": "the Job",
    "job.active": "its running pods",
    "job.succeeded": "its pods that succeeded",
    "job.failed": "its pods that failed",
    "job.failed_because": "the reason of its condition Failed",
    "job.failed_message": "its message",
    "job.cronjob": "the CronJob that made it, or empty",
    "job.cronjob_suspended": "somebody has suspended that CronJob",
    "job.later_success": "the last run of that CronJob that ended, where it is later and succeeded",
    "volume.name": "the PersistentVolumeClaim that the alert names",
    "volume.size_gib": "its size in GiB",
    "volume.class": "its StorageClass, or empty",
    "volume.obstacle": "why it cannot be expanded now, or empty",
    "volume.mounted_by": "the running pods that mount it",
    "volume.template_of": "the StatefulSet whose volumeClaimTemplates made it, or empty",
    "volume.raised_minutes": "minutes since somebody set what it asks for, -1 where nobody did",
    "volume.raised_lately": "that is at most a week",
    "namespace.name": "the namespace",
    "namespace.labels.*": "its labels",
    "events.recent": "the latest events of the pod or workload, redacted",
    "metrics.*": (
        "present levels around the workload: `<name>_min`, `_max` and `_series` for `replicas`, "
        "`available`, `generation`, `ready_pods`, `restarts`, `cpu_of_limit`, `memory_of_limit`, "
        "`node_ready`; absent where Prometheus has no series"
    ),
    "analysis.changes": (
        "series that changed, oldest first: component, what, at, before, after, score"
    ),
    "analysis.causes": (
        "likeliest causes, best first: component (with its namespace where that is another), what "
        "(`release`, `scaling`, `configuration`, `node`, `metrics`), since, minutes, evidence, "
        "established, score"
    ),
    "analysis.first": "what changed before all else, in words, or empty",
    "analysis.onset_minutes": "minutes since the trouble began, as early as anything shows it",
    "analysis.began_with_release": (
        "it began within ten minutes after the workload's last release; absent where unknown"
    ),
    "analysis.release_innocent": ("it had clearly begun before that release; absent where unknown"),
    "analysis.silent": "nothing changed out of its noise, nobody changed anything, all was seen",
    "analysis.unseen": "what could not be seen, and so is not known to be healthy",
    "experience.here.*": (
        "what was tried for these alerts on this very object or its owner in the last 90 days, "
        "by action with `_` for `-`, such as `experience.here.restart_pod.tried`; see below"
    ),
    "experience.kind.*": "the same on every object of that kind in the cluster",
    "setting.configmap": "the ConfigMap of the setting whose change began it, or empty",
    "setting.key": "its key, or empty",
    "setting.before": "its value before, or empty",
    **{f"symptoms.{name}": meaning for name, meaning in SYMPTOMS.items()},
    "symptoms.seen": "the symptoms that are true, each with its meaning",
    "gathered.*": "the playbook's own queries by name; absent where Prometheus has no series",
}

_REMEMBERED: Final = ("experience.here.*", "experience.kind.*")
KNOWN: Final = frozenset(fact for fact in FACTS if fact not in _REMEMBERED) | {
    f"{scope.removesuffix('*')}{action.name.replace('-', '_')}.{number}"
    for scope in _REMEMBERED
    for action in catalogue.every()
    for number in NUMBERS
}
"""What the loader lints by: of the experience every action and number, so that none is misspelt."""
