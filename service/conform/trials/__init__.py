"""What each catalogued action is tried with, one module an action."""

from collections.abc import Mapping

from tiphys.service.conform.trial import Trial
from tiphys.service.conform.trials import (
    delete_failed_job,
    delete_failed_pods,
    raise_memory_limit,
    restart_pod,
    rollout_restart,
    rollout_undo,
    scale_workload,
)

_MODULES = (
    delete_failed_job,
    delete_failed_pods,
    raise_memory_limit,
    restart_pod,
    rollout_restart,
    rollout_undo,
    scale_workload,
)
TRIALS: Mapping[str, Trial] = {module.TRIAL.action: module.TRIAL for module in _MODULES}
"""By the action's name."""
