"""Everything that is proven of an action, in the table's order."""

from collections.abc import Iterator

from tiphys.service.conform.also import also
from tiphys.service.conform.between import between
from tiphys.service.conform.kills import kills
from tiphys.service.conform.marked import marked
from tiphys.service.conform.properties import Property, properties
from tiphys.service.conform.trial import Trial
from tiphys.service.conform.undone import undone


def every_property(trial: Trial) -> Iterator[Property]:
    """Give what is proven of a trial's action."""
    yield from properties(trial)
    yield from also(trial)
    yield from undone(trial)
    yield from marked(trial)
    yield from between(trial)
    yield from kills(trial)
