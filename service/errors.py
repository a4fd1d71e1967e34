"""Every error of the service under two roots; a class's docstring is its message.

`WorldRefusedError`: something outside did not do what we asked; `retryable` says whether asking
again can help. `UsageError`: the person at the keyboard can mend it; it is shown as one sentence.
"""


class TiphysError(Exception):
    """Something went wrong."""

    retryable = False

    def __init__(self, detail: str = "") -> None:
        # The roots say nothing that a detail does not say better.
        vague = type(self) in {TiphysError, WorldRefusedError, UsageError} and detail
        sentence = "" if vague else (type(self).__doc__ or "").strip().rstrip(".")
        super().__init__(": ".join(part for part in (sentence, detail) if part))
        self.detail = detail


class WorldRefusedError(TiphysError):
    """The outside refused."""


class UsageError(TiphysError):
    """That cannot be done as asked."""


class BrokerUnavailableError(WorldRefusedError):
    """The broker did not acknowledge in time."""

    retryable = True


class StreamFullError(WorldRefusedError):
    """The alert stream or its disk is full."""

    retryable = True


class DatabaseAwayError(WorldRefusedError):
    """The database does not answer."""

    retryable = True


class WorkflowRefusedError(WorldRefusedError):
    """The API server refused the Workflow."""


class ArgoUnavailableError(WorldRefusedError):
    """The Kubernetes API did not answer about Workflows."""

    retryable = True


class NobodyToldError(WorldRefusedError):
    """No Alertmanager took the page."""

    retryable = True


class TargetBusyError(WorldRefusedError):
    """Another run works on this target."""

    retryable = True


class LeaseLostError(WorldRefusedError):
    """Another replica has taken this incident over."""


class DataDirectoryBusyError(UsageError):
    """Another `tiphys serve` uses this data directory."""


class NotMigratedError(UsageError):
    """The database's tables are missing or too old."""


class NoSuchIncidentError(UsageError):
    """There is no such incident."""


class NoSuchHoldError(UsageError):
    """No breaker is tripped and no target frozen under that scope."""


class NotApprovableError(UsageError):
    """This incident has nothing to approve."""


class NoSuchReviewError(UsageError):
    """There is no such open review."""


class NotAllowedError(UsageError):
    """This person may not do that."""


class NothingRunsError(UsageError):
    """There is no run to stop."""


class NoSuchRunError(UsageError):
    """There is no such run."""


class NotRunnableError(UsageError):
    """This cannot be run."""


class AskedAlreadyError(UsageError):
    """Somebody has asked for that, and it is not over."""


class NotUndoableError(UsageError):
    """This run cannot be undone."""


class BadInputError(UsageError):
    """This input cannot be used."""
