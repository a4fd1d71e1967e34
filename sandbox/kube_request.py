"""A request to the Kubernetes API, understood: which verb on which object, with which body."""

import json
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from tiphys.sandbox.api_error import ApiError
from tiphys.sandbox.patches import PatchType
from tiphys.sandbox.rbac import Access, Identity
from tiphys.sandbox.resources import BY_PLURAL, Obj, Resource

_UNKNOWN = "the server could not find the requested resource"


@dataclass(frozen=True)
class Address:
    """What a path points at; an unknown resource has no `resource`."""

    group: str
    version: str
    plural: str
    namespace: str
    name: str
    subresource: str

    @property
    def resource(self) -> Resource:
        """Look the resource up. Raises `ApiError` 404."""
        found = BY_PLURAL.get((self.group, self.plural))
        known = ("", *found.subresources) if found else ()
        if not found or found.version != self.version or self.subresource not in known:
            raise ApiError(404, "NotFound", _UNKNOWN)
        if bool(self.namespace) > found.namespaced:
            raise ApiError(404, "NotFound", _UNKNOWN)
        return found


def address(path: str) -> Address | None:
    """Read `/api/v1/…` and `/apis/GROUP/VERSION/…`; None for any other path."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    own = len(rest) == 3 and rest[2] in {"status", "finalize"}
    if rest[0] == "namespaces" and len(rest) > 2 and not own:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest, "", "")[:3]
    return Address(group, version, plural, namespace, name, "/".join([subresource, *rest[3:]]))


@dataclass(frozen=True)
class Call:
    """One authenticated request."""

    request: Request
    identity: Identity
    address: Address
    raw: bytes

    @property
    def watching(self) -> bool:
        """Whether a list is to go on as a watch."""
        return self.query("watch") in {"1", "true", "True"}

    @property
    def dry_run(self) -> bool:
        """Whether nothing is to be stored. Raises `ApiError` 400 for an unknown value."""
        value = self.query("dryRun")
        if value not in {"", "All"}:
            raise ApiError(400, "BadRequest", f"Invalid value: {value!r}: dryRun must be All")
        return value == "All"

    @property
    def manager(self) -> str:
        """Give the field manager: as asked for, else the client's name."""
        agent = self.request.headers.get("user-agent", "unknown")
        return self.query("fieldManager") or agent.split("/")[0]

    def query(self, name: str) -> str:
        """Give a query parameter, or the empty string."""
        return self.request.query_params.get(name, "")

    def number(self, name: str) -> int | None:
        """Give a numeric query parameter, or None. Raises `ApiError` 400."""
        text = self.query(name)
        if text and not text.isdigit():
            raise ApiError(400, "BadRequest", f"invalid value for {name}: {text!r}")
        return int(text) if text else None

    def access(self) -> Access:
        """Say what is to be authorized."""
        at = self.address
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(
            self.request.method, "get"
        )
        if not at.name and verb == "get":
            verb = "watch" if self.watching else "list"
        if not at.name and verb == "delete":
            verb = "deletecollection"
        return Access(verb, at.group, at.plural, at.namespace, at.name, at.subresource)

    def body(self) -> Obj:
        """Read a JSON object. Raises `ApiError` 400 or 415."""
        media = self.request.headers.get("content-type", "").split(";")[0].strip()
        if media not in {"", "application/json"}:
            raise _media(["application/json"])
        found = self._json()
        plain = isinstance(found, dict) and isinstance(found.get("metadata") or {}, dict)
        if not plain or not isinstance(found.get("spec") or {}, dict):
            raise ApiError(400, "BadRequest", "the object provided is unrecognized")
        return found

    def patch(self) -> tuple[PatchType, Any]:
        """Read a patch. Raises `ApiError` 400, or 415 for a type that this resource lacks."""
        media = self.request.headers.get("content-type", "").split(";")[0].strip()
        custom = self.address.resource.custom
        known = [kind for kind in PatchType if not (custom and kind is PatchType.STRATEGIC)]
        if media not in known:
            raise _media([str(kind) for kind in known])
        return PatchType(media), self._json()

    def delete_options(self) -> Obj:
        """Read DeleteOptions; a request without a body has none. Raises `ApiError` 400."""
        return self.body() if self.raw.strip() else {}

    def _json(self) -> Any:
        try:
            return json.loads(self.raw)
        except ValueError as error:
            why = f"couldn't get version/kind; json parse error: {error}"
            raise ApiError(400, "BadRequest", why) from error


def _media(known: list[str]) -> ApiError:
    why = "the body of the request was in an unknown format - accepted media types include: "
    return ApiError(415, "UnsupportedMediaType", why + ", ".join(known))
