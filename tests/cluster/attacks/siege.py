"""Every attack there is, section by section, and the day on which all of them come."""

from collections.abc import Sequence
from dataclasses import dataclass

import against_actions
import against_cluster
import against_machines
import against_nodes
import against_runs
import against_templates
import against_workflows
import legitimate
from attack import Outcome, Section
from fort import Fort


@dataclass(frozen=True)
class Day:
    """What came of everything that was asked."""

    refused: Sequence[Outcome]
    let_through: Sequence[Outcome]


def day(fort: Fort) -> Day:
    """Let everybody come."""
    peaceful = [("what goes through", "", legitimate.requests())]
    return Day(fort.judge(sections()), fort.judge(peaceful))


def sections() -> list[Section]:
    """Give the document's sections with their attacks."""
    return [
        *against_workflows.sections(),
        *against_templates.sections(),
        *against_runs.sections(),
        *against_actions.sections(),
        *against_nodes.sections(),
        *against_machines.sections(),
        *against_cluster.sections(),
    ]
