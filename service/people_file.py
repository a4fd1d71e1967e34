"""From a people file to the people in it, or to every sentence that says what is wrong with it.

Invariants: it is read whole or not at all; two people never share a name, an identity or a token;
it holds only hashes of tokens, and a token that we did not make, so one that may be guessed, is
none.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from tiphys.policies import strict_yaml
from tiphys.policies.model import Noun
from tiphys.policies.people import Person, PersonRole, RoleGrant, same_person
from tiphys.service.errors import BadInputError

FORMAT: Final = "tiphys/people/v1"
API_TOKEN: Final = "api-token"  # noqa: S105 - a name
"""The one person that whoever holds the installation's own `api_token` counts as."""
_TOKEN = re.compile(r"tiphys-person-[A-Za-z0-9_-]{43}")
_PATTERN = r"^(\*|-|[a-z0-9*]([a-z0-9*-]{0,61}[a-z0-9*])?)$"

Namespace = Annotated[str, Field(pattern=_PATTERN)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s,]([^\n\r\t,]*[^\s,])?$")]
Channel = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
Identity = Annotated[str, Field(min_length=1, max_length=320, pattern=r"^\S+$")]


class _Role(Noun):
    role: PersonRole
    namespaces: Annotated[tuple[Namespace, ...], Field(min_length=1)]


class _Token(Noun):
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    note: Annotated[str, Field(max_length=200)] = ""


class _Person(Noun):
    name: Name
    teams: tuple[Name, ...] = ()
    roles: Annotated[tuple[_Role, ...], Field(min_length=1)]
    identities: dict[Channel, Identity | Annotated[tuple[Identity, ...], Field(min_length=1)]] = {}
    tokens: tuple[_Token, ...] = ()


class _File(Noun):
    format: Literal["tiphys/people/v1"]
    people: tuple[_Person, ...]


@dataclass(frozen=True)
class Register:
    """Everybody in one file, by what proves who they are."""

    people: tuple[Person, ...]
    identities: dict[tuple[str, str], Person]
    tokens: dict[str, Person]


def create_token() -> tuple[str, str]:
    """Make a token of 256 random bits; gives it, and the hash that the file keeps."""
    token = f"tiphys-person-{secrets.token_urlsafe(32)}"
    return token, token_hash(token) or ""


def token_hash(token: str) -> str | None:
    """Give a token's hash; None for what we cannot have made."""
    if not _TOKEN.fullmatch(token):
        return None
    return hashlib.sha256(token.encode()).hexdigest()


def identity_key(channel: str, identity: str) -> tuple[str, str]:
    """Give what an identity is found by: addresses have no case, nothing else is altered."""
    return channel, identity.casefold() if channel == "email" else identity


def load(path: Path) -> Register:
    """Read a people file; raises `BadInputError` with every problem that was found."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or 'cannot be read'}") from error
    return parse(data, path.name)


def parse(data: bytes, name: str) -> Register:
    """Read a people file's bytes; see `load`."""
    try:
        document = strict_yaml.read_yaml(data.decode())
    except UnicodeDecodeError as error:
        raise BadInputError(f"{name}: is not UTF-8 text") from error
    except strict_yaml.YamlUnreadableError as error:
        raise BadInputError(f"{name}:{error.line}: {error.problem}") from error
    try:
        given = TypeAdapter(_File).validate_json(json.dumps(document.value), strict=True)
    except ValidationError as error:
        problems = ((p["loc"], _sentence(dict(p))) for p in error.errors(include_url=False))
        raise BadInputError(_told(document, name, problems)) from error
    problems = [*_doubles(given)]
    if problems:
        raise BadInputError(_told(document, name, problems))
    found = [(_person(one), one) for one in given.people]
    return Register(
        people=tuple(person for person, _ in found),
        identities={
            identity_key(channel, identity): person
            for person, one in found
            for channel, identities in one.identities.items()
            for identity in _listed(identities)
        },
        tokens={token.sha256: person for person, one in found for token in one.tokens},
    )


def _person(given: _Person) -> Person:
    grants = tuple(RoleGrant(role=r.role, namespaces=r.namespaces) for r in given.roles)
    return Person(name=given.name, teams=given.teams, grants=grants)


Place = tuple[str | int, ...]


def _doubles(file: _File) -> Iterator[tuple[Place, str]]:
    """Find what would make two people one, or one two."""
    names: list[str] = []
    known: dict[object, str] = {}
    for at, one in enumerate(file.people):
        if same_person(one.name, API_TOKEN):
            yield ("people", at, "name"), f"{API_TOKEN} is what the installation's own token is"
        for other in (n for n in names if same_person(n, one.name)):
            yield ("people", at, "name"), f"{one.name} and {other} are the same name"
        names.append(one.name)
        for key, place, what in _proofs(at, one):
            if key in known:
                yield place, f"{what} is {known[key]}'s already"
            known[key] = one.name


def _proofs(at: int, one: _Person) -> Iterator[tuple[object, Place, str]]:
    for channel, identities in one.identities.items():
        for identity in dict.fromkeys(_listed(identities)):
            place = ("people", at, "identities", channel)
            yield identity_key(channel, identity), place, f"{channel} {identity}"
    for number, token in enumerate(one.tokens):
        yield token.sha256, ("people", at, "tokens", number, "sha256"), "this token"


def _listed(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given


def _told(document: strict_yaml.Document, name: str, problems: Iterable[tuple[Place, str]]) -> str:
    sentences: list[tuple[int, str]] = []
    for path, problem in problems:
        key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
        line = document.line(path)
        sentences.append((line, f"{name}:{line}: {key or 'the file'}: {problem}"))
    return "\n".join(text for _, text in sorted(sentences))


_EXPECTED: Final = {
    "sha256": "expected the 64 digits that `tiphys people token` prints, never the token itself",
    "format": f"expected {FORMAT}",
    "role": f"expected one of {', '.join(PersonRole)}",
}


def _sentence(problem: dict[str, Any]) -> str:
    """Say what was expected; what was given is not repeated, it may be a token."""
    if problem["type"] == "missing":
        return "is missing"
    if problem["type"] == "extra_forbidden":
        return "there is no such key"
    named = [part for part in problem["loc"] if isinstance(part, str)]
    return _EXPECTED.get(named[-1] if named else "", str(problem["msg"]))
