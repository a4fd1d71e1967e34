"""Real runs of the catalogue's actions whose end is judged, and kept under a label."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from keeping import keep

from tiphys.policies.model import Outcome, Plan
from tiphys.service.conform import runs
from tiphys.service.conform.worlds import World
from tiphys.service.outcomes import RunView, outcome


class Flown(runs.Flown):
    """A run of ours on its way, or ended."""

    def ends_as(self, expected: Outcome, label: str = "") -> RunView:
        """Wait for the end, and judge it as the service does; a real one is kept under a label."""
        self.ended()
        if label:
            self.keep(label)
        seen = self.view()
        result, why = outcome(seen)
        assert seen.ended
        assert result is expected, f"{result}: {why}: {seen.steps}"
        return seen

    def keep(self, label: str) -> None:
        """Keep the Workflow as it is for the unit tests, if it is real and they are to be made."""
        if self.world.real:
            keep(self.workflow(), label)


def fly(
    world: World,
    plan: Plan,
    variant: str = "",
    *,
    seconds: float = 600,
    key: Ed25519PrivateKey | None = None,
) -> Flown:
    """Launch a plan as the service does."""
    runs.fly(world, plan, variant, seconds=seconds, key=key)
    return Flown(world, plan)
