"""How the actions that published cases name map to the catalogue's: one table, both ways.

A case's word stands for the decision; the catalogue may have several actions for one word, and an
action may contain another (a GPU node that is replaced is drained first).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from tiphys.agents.ports import Answer, Choice


class Deed(StrEnum):
    """What a runbook case may call right, acceptable or harmful."""

    CORDON_DRAIN_NODE = "cordon_drain_node"
    DELETE_FAILED_PODS = "delete_failed_pods"
    ESCALATE = "escalate"
    EXPAND_PVC = "expand_pvc"
    NONE = "none"
    RESTART_POD = "restart_pod"
    ROLLOUT_RESTART = "rollout_restart"
    ROLLOUT_UNDO = "rollout_undo"
    SCALE_DEPLOYMENT = "scale_deployment"
    SCALE_GPU_NODE_POOL = "scale_gpu_node_pool"
    UPDATE_CONFIG = "update_config"


DEED_OF: Final[Mapping[str, Deed]] = {
    "cordon-drain-node": Deed.CORDON_DRAIN_NODE,
    "delete-failed-job": Deed.DELETE_FAILED_PODS,
    "delete-failed-pods": Deed.DELETE_FAILED_PODS,
    "expand-volume": Deed.EXPAND_PVC,
    "raise-memory-limit": Deed.UPDATE_CONFIG,
    "replace-gpu-node": Deed.CORDON_DRAIN_NODE,
    "restart-pod": Deed.RESTART_POD,
    "rollout-restart": Deed.ROLLOUT_RESTART,
    "rollout-undo": Deed.ROLLOUT_UNDO,
    "scale-gpu-pool": Deed.SCALE_GPU_NODE_POOL,
    "scale-workload": Deed.SCALE_DEPLOYMENT,
    "update-config": Deed.UPDATE_CONFIG,
}
"""Every action of the catalogue."""


def deed_of(choice: Choice) -> Deed:
    """Give a choice in a case's words."""
    if choice.answer is Answer.ACT:
        return DEED_OF[choice.action]
    return Deed.NONE if choice.answer is Answer.NOTHING else Deed.ESCALATE
