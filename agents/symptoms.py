"""What evidence says, as a closed list of symptoms that playbooks' conditions may read.

A symptom is true only where something says so. False means that nothing does, never that it was
ruled out: an answer rests on symptoms that are true, and uses the others to hold back. Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from tiphys.agents.objects import dig, mapping, text, whole
from tiphys.agents.signatures import Sign, signs_in
from tiphys.policies.model import Json

SYMPTOMS: Final[Mapping[str, str]] = {
    # --- releases and settings ---
    "image_missing": "the image of the newest revision does not exist",
    "image_refused": "a registry refuses the image or does not answer",
    "newest_never_served": "no pod of the newest revision has become ready",
    "previous_served": "the revision before the newest one served",
    "release_began_it": "the trouble began with the newest release, or is in what that changed",
    "earlier_release_began_it": "the trouble began with a release that is not the newest",
    "release_under_way": "a rollout is under way",
    "setting_began_it": "the trouble began when a setting was changed, and that still holds",
    "stale_pods": "what the pods read at their start was put right after they had started",
    "code_fault": "a log shows a fault of the program itself, such as a panic",
    # --- pods ---
    "pod_alone_ill": "one pod is ill by itself",
    "siblings_serve": "the other pods of the same kind serve",
    "every_pod_ill": "every pod is ill in the same way",
    "restart_was_tried": "a new pod was as ill as the one before",
    "scaled_to_zero": "no replica is wanted",
    "on_purpose": "somebody wanted it to be as it is",
    # --- demand ---
    "demand_rose": "demand rose, and nothing but demand",
    "at_its_limit": "what the demand meets is saturated",
    "bottleneck_elsewhere": "time is spent in what is called, or what lies behind is full",
    "at_autoscaler_ceiling": "the autoscaler is at its most replicas",
    "room_on_nodes": "the nodes have room for more",
    "no_room": "there is no room, no quota or no machine for more",
    "budget_of_one_replica": "a disruption budget asks for every replica there is",
    # --- memory ---
    "out_of_memory": "containers are killed at their memory limit",
    "memory_climbs": "memory climbs until the limit, as of a leak",
    "memory_limit_too_small": "what must be held is more than the memory limit, and does not climb",
    # --- volumes ---
    "volume_fills": "a volume is full or fills",
    "volume_fills_slowly": "it has been filling evenly for weeks or with what it is for",
    "volume_fills_suddenly": "something fills it within hours",
    "volume_may_grow": "its class can be expanded",
    "volume_cannot_grow": "its class cannot be expanded, or its storage is full",
    "removable_data": "it holds what could be removed",
    "out_of_inodes": "it is out of inodes",
    # --- nodes ---
    "node_sound": "the node in question is ready and under no pressure",
    "node_ill": "the node's disk, memory, kernel, network or runtime is ill for good",
    "node_gone": "the node's kubelet does not answer",
    "others_sound": "other nodes are well and take pods",
    "node_in_work": "the node is cordoned or drained by somebody, or being upgraded",
    "many_nodes_ill": "several nodes have it at once",
    # --- GPUs ---
    "gpu_application_fault": "the table of Xids asks to restart the one application that used it",
    "gpu_needs_drain": "the table asks to drain the node and reset the GPU",
    "gpu_needs_new_machine": "the table asks for a reboot, or for another machine",
    "gpu_needs_nothing": "the table asks for nothing",
    "gpu_repeats": "an application fault repeats in one place: the device itself is suspect",
    "gpus_wanted": "pods wait for GPUs and all that they could have are taken",
    "pool_may_grow": "the pool of machines is below its limit and machines are to be had",
    "pool_cannot_grow": "the pool is at a limit that somebody set, or no machine is to be had",
    "gpus_idle": "GPUs that pods could have are idle",
    "pods_fit_nowhere": "what the pods ask for exists on no node",
    # --- left-overs ---
    "left_overs": "pods or Jobs in phase Failed lie about",
    "cause_over": "what made them is over",
    "more_left_overs": "more of them are being made",
    "job_made_up_for": "a later run has succeeded",
    "workload_whole": "what they belonged to is whole again",
    # --- not ours to mend ---
    "third_party_fails": "somebody else's service answers errors",
    "names_unresolved": "names do not resolve",
    "certificate_expired": "a certificate has expired or is not trusted",
    "credentials_refused": "credentials are refused",
    "data_unreadable": "data or a schema is broken or lost",
    "storage_ill": "storage cannot be attached or is ill",
    "control_plane_ill": "the control plane is ill",
    "policy_blocks": "a quota, an admission rule or a network policy forbids it",
    # --- quiet ---
    "recovered": "it is over",
    "work_expected": "a maintenance, an upgrade or a rollout explains it and moves on",
    "heals_itself": "it is on its way back by itself",
    "no_harm": "nothing suffers: within its objective, or as always",
    "hint_only": "the alert is a hint, not a failure",
    "all_quiet": "every answer says that something is well, over, or as it should be",
    "unexplained_trouble": "something is said to be in trouble that nothing said explains",
    "taken_back": "what had begun it was already taken back",
    "still_hurts": "something suffers just now",
}  # fmt: skip
"""Every symptom and what it means."""

_BY_SIGN: Final[Mapping[Sign, str]] = {
    Sign.CERTIFICATE: "certificate_expired",
    Sign.CREDENTIALS: "credentials_refused",
    Sign.NAMES: "names_unresolved",
    Sign.PROGRAM: "code_fault",
    Sign.DISK_FULL: "volume_fills",
    Sign.MEMORY: "out_of_memory",
    Sign.DATA: "data_unreadable",
    Sign.POLICY: "policy_blocks",
    Sign.STORAGE: "storage_ill",
}
_MISSING: Final = {Sign.IMAGE_MISSING}
_CONTROLLED: Final = {"ReplicaSet", "DaemonSet"}
"""Kinds whose pods stand for each other; a StatefulSet's hold state and an order."""


def symptoms_of(facts: Mapping[str, Json]) -> dict[str, Json]:
    """Give every symptom, true where the facts say so, and all that are true as `seen`."""
    found: dict[str, bool] = dict.fromkeys(SYMPTOMS, False)
    found |= _spoken(facts)
    found |= _of_rollout(facts)
    found |= _of_pods(facts)
    found |= _of_node(mapping(facts, "node"))
    volume = mapping(facts, "volume")
    found["volume_may_grow"] = bool(volume) and volume.get("obstacle") == ""
    found["volume_cannot_grow"] = bool(volume) and bool(text(volume, "obstacle"))
    pool = mapping(facts, "pool")
    waiting = whole(mapping(facts, "pods"), "unschedulable") > 0
    found["gpus_wanted"] = bool(pool) and waiting
    found["pool_may_grow"] = bool(pool) and pool.get("obstacle") == ""
    found["pool_cannot_grow"] = bool(pool) and bool(text(pool, "obstacle"))
    found["job_made_up_for"] = bool(dig(facts, "job", "later_success"))
    return told(found)


def told(found: Mapping[str, bool]) -> dict[str, Json]:
    """Give the fact group: each symptom, and `seen`, which lists those that are true."""
    seen: list[Json] = [f"{name}: {SYMPTOMS[name]}" for name in SYMPTOMS if found.get(name)]
    return {**{name: bool(found.get(name)) for name in SYMPTOMS}, "seen": seen}


def _spoken(facts: Mapping[str, Json]) -> dict[str, bool]:
    """Read what the pod, its events and the kubelet say."""
    lines = [*_lines(dig(facts, "pod", "log_tail")), *_lines(dig(facts, "events", "recent"))]
    lines.append(text(mapping(facts, "pod"), "waiting_message"))
    signs = signs_in(lines)
    return {symptom: True for sign, symptom in _BY_SIGN.items() if sign in signs}


def _lines(value: Json) -> Sequence[str]:
    return [line for line in value if isinstance(line, str)] if isinstance(value, list) else ()


def _of_rollout(facts: Mapping[str, Json]) -> dict[str, bool]:
    rollout, pods = mapping(facts, "rollout"), mapping(facts, "pods")
    failing = whole(pods, "newest_failing")
    image = whole(pods, "image")
    message = text(mapping(facts, "pod"), "waiting_message")
    older = whole(pods, "older_failing") == 0 and bool(pods)
    return {
        "release_under_way": rollout.get("in_progress") is True,
        "newest_never_served": failing > 0
        and failing == sum(whole(pods, why) for why in ("crash", "out_of_memory", "config"))
        and whole(pods, "newest_ready") == 0
        and (rollout.get("completed") is False or rollout.get("recent") is True),
        "previous_served": bool(whole(rollout, "previous_revision"))
        and rollout.get("previous_healthy") is True
        and older,
        "image_missing": 0 < image == failing and bool(_MISSING & signs_in([message])),
    }


def _of_pods(facts: Mapping[str, Json]) -> dict[str, bool]:
    pods, pod = mapping(facts, "pods"), mapping(facts, "pod")
    failing, ready = whole(pods, "failing"), whole(pods, "ready")
    local = text(pod, "trouble") in {"crash", "unready"}
    owned = text(pod, "controlled_by") in _CONTROLLED
    rollout = mapping(facts, "rollout")
    calm = not (rollout.get("recent") is True or rollout.get("stuck") is True)
    whole_again = bool(pods) and failing == 0 and ready > 0
    return {
        "pod_alone_ill": failing == 1 and local and owned and calm,
        "siblings_serve": failing == 1 and ready > 0,
        "every_pod_ill": failing > 1 and ready == 0,
        "workload_whole": whole_again and ready >= whole(mapping(facts, "workload"), "replicas"),
        "out_of_memory": whole(pods, "out_of_memory") > 0,
    }


def _of_node(node: Mapping[str, Json]) -> dict[str, bool]:
    ready = node.get("ready")
    pressed, problems = dig(node, "pressures"), dig(node, "problems")
    return {
        "node_sound": ready is True and pressed == [] and node.get("cordoned") is False
        and not problems,
        "node_gone": ready is False,
        "node_in_work": node.get("cordoned") is True,
        "many_nodes_ill": bool(dig(node, "others_ill")),
        "others_sound": whole(node, "others_open") > 0,
        "node_ill": bool(problems),
    }  # fmt: skip
