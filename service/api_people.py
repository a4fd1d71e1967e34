"""Who asks the API, and whether they may: every route names the least role it needs.

Invariants: a route that names no role is refused to everybody; where people are known everybody
proves who they are, on loopback too, and nobody decides in another's name; a proxy's header counts
only from that proxy, and from anybody else it is refused, not ignored. Without a people file it is
as it was: off loopback the installation's one token, on loopback only requests that name this host,
so that a web page elsewhere cannot reach us through somebody's browser; who it is the body says.
"""

import hmac
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from fastapi import Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import SecretStr

from tiphys.policies.model import Incident
from tiphys.policies.people import Person, PersonRole, RoleGrant, same_person
from tiphys.service.errors import NoSuchIncidentError, NotAllowedError
from tiphys.service.people import People, demand, may_over, namespace_of
from tiphys.service.people_file import API_TOKEN

HERE = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?", re.IGNORECASE)
"""The Host header of a request that was meant for this machine."""
SECRET_HEADER = "X-Tiphys-Proxy-Secret"  # noqa: S105 - a name
"""What a trusted proxy sends beside the person's name, where a secret is configured."""
INSTALLATION = Person(name=API_TOKEN, grants=(RoleGrant(role=PersonRole.ADMIN),))
"""Whoever holds `api_token`: one person, however many hold it."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Door(Protocol):
    """One way to prove who one is: a token, a proxy's header; OIDC would be another."""

    def person(self, request: Request) -> Person | None:
        """Say who asks; None where this proof is not offered. Raises `HTTPException`."""
        ...


class BearerDoor:
    """A person's own token, or the installation's."""

    def __init__(self, people: People, token: SecretStr | None) -> None:
        self._people = people
        self._token = token

    def person(self, request: Request) -> Person | None:
        """See `Door`."""
        given = bearer(request)
        if given is None:
            return None
        if self._token and same_secret(given, self._token):
            return INSTALLATION
        if found := self._people.of_token(given):
            return found
        raise HTTPException(401, "nobody has this bearer token")


@dataclass(frozen=True)
class HeaderDoor:
    """A proxy that has asked people who they are, and says so in a header."""

    people: People
    header: str
    proxies: Sequence[Network]
    secret: SecretStr | None = None

    def person(self, request: Request) -> Person | None:
        """See `Door`."""
        given = request.headers.getlist(self.header)
        if not given:
            return None
        peer = request.client.host if request.client else ""
        if not _among(peer, self.proxies):
            raise HTTPException(403, f"{self.header} is not taken from {peer or 'an unknown peer'}")
        secrets = request.headers.getlist(SECRET_HEADER)
        if self.secret and not (len(secrets) == 1 and same_secret(secrets[0], self.secret)):
            raise HTTPException(403, f"{self.header} came without the proxy's {SECRET_HEADER}")
        if len(given) > 1 or not given[0]:
            raise HTTPException(403, f"{self.header} must name one person")
        # A page elsewhere must not act through somebody's browser and what the proxy knows of it.
        if request.method != "GET" and request.headers.get("sec-fetch-site") == "cross-site":
            raise HTTPException(403, "another site asked for this")
        channel = "email" if "@" in given[0] else "login"
        if found := self.people.of_identity(channel, given[0]):
            return found
        raise HTTPException(403, f"nobody in the people file has that {channel}")


@dataclass(frozen=True)
class Doors:
    """Every way in."""

    people: People = field(default_factory=lambda: People(None))
    header: HeaderDoor | None = None

    def caller(self, request: Request, token: SecretStr | None) -> "Caller":
        """Say who asks; raises `HTTPException`."""
        if not self.people.known:
            _unnamed(request, token)
            return Caller(None, self.people)
        doors: list[Door] = [BearerDoor(self.people, token)]
        doors += [self.header] if self.header else []
        found = [person for door in doors if (person := door.person(request)) is not None]
        if not found:
            raise HTTPException(401, "say who you are: with your own token as a bearer token")
        if any(person.name != found[0].name for person in found):
            raise HTTPException(403, "the token and the proxy name different people")
        return Caller(found[0], self.people)


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    person: Person | None
    """None: there is no people file; everything is allowed, and a body says who it is."""
    people: People

    def named(self, by: str | None) -> Person:
        """Give who decides; raises `NotAllowedError` where a body says somebody else."""
        if self.person is None:
            if by is None:
                missing = {"type": "missing", "loc": ("body", "by"), "msg": "Field required"}
                raise RequestValidationError([missing])
            return INSTALLATION.model_copy(update={"name": by})
        theirs = by is None or same_person(by, self.person.name) or self.person is INSTALLATION
        if not theirs:
            raise NotAllowedError(f"you are {self.person.name}, not {by}")
        return self.person

    def sees(self, incident: Incident) -> bool:
        """Tell whether they may read of it."""
        return self.person is None or may_over(
            self.person, PersonRole.VIEWER, namespace_of(incident)
        )

    def seen(self, incident: Incident) -> Incident:
        """Give it back; to whom it is not shown it does not exist: `NoSuchIncidentError`."""
        if not self.sees(incident):
            raise NoSuchIncidentError(incident.id)
        return incident

    def visible(self, found: Iterable[Incident], limit: int) -> list[Incident]:
        """Give those they may read of."""
        return [incident for incident in found if self.sees(incident)][:limit]

    def demand(self, role: PersonRole, namespace: str | None) -> None:
        """Raise `NotAllowedError` where they may not; None: a role in all namespaces."""
        if self.person is not None:
            demand(self.person, role, namespace)

    def demand_over(self, role: PersonRole, incident: Incident) -> None:
        """Raise `NoSuchIncidentError` or `NotAllowedError`."""
        self.demand(role, namespace_of(self.seen(incident)))


class Needs:
    """A route's dependency: refuses who has not at least this role in some namespace."""

    def __init__(self, role: PersonRole, *, stops: bool = False) -> None:
        self.role = role
        self._stops = stops
        """Whether what the last good people file says is enough: nobody is locked out of stop."""

    def __call__(self, request: Request) -> Caller:
        """Give who asks."""
        desk: Any = request.app.state.office
        caller: Caller = desk.doors.caller(request, desk.token)
        person = caller.person
        if person is None:
            return caller
        may = caller.people.may_stop(person) if self._stops else person.may(self.role)
        if not may:
            raise HTTPException(403, f"{person.name} has not the role {self.role} anywhere")
        return caller


Viewer = Annotated[Caller, Depends(Needs(PersonRole.VIEWER))]
Operator = Annotated[Caller, Depends(Needs(PersonRole.OPERATOR))]
Approver = Annotated[Caller, Depends(Needs(PersonRole.APPROVER))]
Admin = Annotated[Caller, Depends(Needs(PersonRole.ADMIN))]
Stopper = Annotated[Caller, Depends(Needs(PersonRole.OPERATOR, stops=True))]


def role_of(route: object) -> PersonRole | None:
    """Give the role that a route names."""
    if not isinstance(route, APIRoute):
        return None
    found = [d.call for d in route.dependant.dependencies if isinstance(d.call, Needs)]
    return found[0].role if found else None


def bearer(request: Request) -> str | None:
    """Give the bearer token that was offered; None where nothing was."""
    given = request.headers.getlist("authorization")
    if not given:
        return None
    scheme, _, token = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer":
        raise HTTPException(401, "this needs a bearer token")
    return token


def same_secret(given: str, wanted: SecretStr) -> bool:
    """Compare without telling by the time it takes how much was right."""
    return hmac.compare_digest(given.encode(), wanted.get_secret_value().encode())


def _unnamed(request: Request, token: SecretStr | None) -> None:
    if token is not None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not same_secret(given, token):
            raise HTTPException(401, "this needs the API token as a bearer token")
    # The header itself: the framework's URL names our own address where it makes no sense of it.
    elif not HERE.fullmatch(request.headers.get("host", "")):
        raise HTTPException(403, "without an API token only requests to localhost are answered")


def _among(peer: str, networks: Sequence[Network]) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
