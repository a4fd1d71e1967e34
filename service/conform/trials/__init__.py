"""What each catalogued action is tried with, one module an action."""

from collections.abc import Mapping

from tiphys.service.conform.trial import Trial
from tiphys.service.conform.trials import restart_pod, rollout_undo, scale_workload

TRIALS: Mapping[str, Trial] = {
    module.TRIAL.action: module.TRIAL for module in (restart_pod, rollout_undo, scale_workload)
}
"""By the action's name."""
