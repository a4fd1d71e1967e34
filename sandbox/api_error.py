"""How the simulated API server refuses."""

from typing import Any

from tiphys.sandbox.resources import Obj, Resource


class ApiError(Exception):
    """A refusal as the API server puts it: HTTP code, `reason` and message of a Status."""

    def __init__(
        self, code: int, reason: str, message: str, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}

    def status(self) -> Obj:
        """Give the Status object that the server answers with."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }


def about(resource: Resource, name: str) -> dict[str, Any]:
    """Give the `details` of a Status about one object."""
    details = {"name": name, "kind": resource.plural}
    return {**details, "group": resource.group} if resource.group else details


def not_found(resource: Resource, name: str) -> ApiError:
    """Say that there is no such object."""
    return ApiError(
        404, "NotFound", f'{resource.qualified} "{name}" not found', about(resource, name)
    )


def conflict(resource: Resource, name: str, why: str) -> ApiError:
    """Say that a precondition of a write does not hold."""
    text = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", text, about(resource, name))


def invalid(resource: Resource, name: str, why: str) -> ApiError:
    """Say that the object's content is refused."""
    text = f'{resource.kind}.{resource.group} "{name}" is invalid: {why}'
    return ApiError(422, "Invalid", text, about(resource, name))
