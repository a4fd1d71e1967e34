"""The closed list of actions: what is not here does not exist."""

from collections.abc import Mapping, Sequence

from tiphys.workflow_templates.action import Action
from tiphys.workflow_templates.cordon_drain_node import CordonDrainNode
from tiphys.workflow_templates.delete_failed_job import DeleteFailedJob
from tiphys.workflow_templates.delete_failed_pods import DeleteFailedPods
from tiphys.workflow_templates.expand_volume import ExpandVolume
from tiphys.workflow_templates.raise_memory_limit import RaiseMemoryLimit
from tiphys.workflow_templates.replace_gpu_node import ReplaceGpuNode
from tiphys.workflow_templates.restart_pod import RestartPod
from tiphys.workflow_templates.rollout_restart import RolloutRestart
from tiphys.workflow_templates.rollout_undo import RolloutUndo
from tiphys.workflow_templates.scale_gpu_pool import ScaleGpuPool
from tiphys.workflow_templates.scale_workload import ScaleWorkload
from tiphys.workflow_templates.update_config import UpdateConfig


class UnknownActionError(Exception):
    """The catalogue has no such action."""


class DuplicateActionError(Exception):
    """Two actions of one name."""


def closed(actions: Sequence[Action]) -> Mapping[str, Action]:
    """Give the actions by name; raises `DuplicateActionError`."""
    found: dict[str, Action] = {}
    for action in actions:
        if action.name in found:
            raise DuplicateActionError(f"two actions are named {action.name}")
        found[action.name] = action
    return found


_ACTIONS = closed(
    (
        CordonDrainNode(),
        DeleteFailedJob(),
        DeleteFailedPods(),
        ExpandVolume(),
        RaiseMemoryLimit(),
        ReplaceGpuNode(),
        RestartPod(),
        RolloutRestart(),
        RolloutUndo(),
        ScaleGpuPool(),
        ScaleWorkload(),
        UpdateConfig(),
    )
)


def every() -> Sequence[Action]:
    """List the actions by name."""
    return [_ACTIONS[name] for name in sorted(_ACTIONS)]


def find(name: str) -> Action:
    """Give an action by its name; raises `UnknownActionError`."""
    try:
        return _ACTIONS[name]
    except KeyError:
        raise UnknownActionError(f"the catalogue has no action {name!r}") from None


def always_ask(name: str) -> str:
    """Say why an action always needs a person; empty: it does not. What is not known does."""
    try:
        return find(name).always_ask
    except UnknownActionError as error:
        return str(error)


def template_name(action: Action) -> str:
    """Give the name of the action's WorkflowTemplate, such as `restart-pod-v1`."""
    return f"{action.name}-v{action.version}"
