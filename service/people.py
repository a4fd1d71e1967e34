"""Who somebody is, from what they prove: a token, or an identity that a channel vouches for.

Invariants: without a file nobody is known; a file that cannot be read any more lets nobody in but
those whom the last good one knew, to look and to engage the stop switch, whatever else they might:
so a revocation with a slip in it revokes at once, and nobody is locked out of stopping.
"""

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from tiphys.policies.model import Incident
from tiphys.policies.people import Person, PersonRole
from tiphys.service.errors import BadInputError, NotAllowedError
from tiphys.service.people_file import Register, identity_key, parse, token_hash

REREAD_SECONDS = 2.0
"""How old what we know of the file may be."""

log = structlog.get_logger()


class People:
    """Everybody in one file, which is read again when it has changed."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Read it; raises `BadInputError`. None: nobody is known."""
        self._path = path
        self._clock = clock
        self._register = Register((), {}, {})
        self._data = b""
        self._read_at = clock()
        self.trouble = ""
        """Why the file as it is now cannot be used; empty while it can."""
        if path is not None:
            self._data = _bytes(path)
            self._register = parse(self._data, str(path))

    @property
    def known(self) -> bool:
        """Whether there is a file, so that everybody must prove who they are."""
        return self._path is not None

    def of_token(self, token: str) -> Person | None:
        """Give whose token it is."""
        digest = token_hash(token)
        return self._now(self._fresh().tokens.get(digest)) if digest else None

    def of_identity(self, channel: str, identity: str) -> Person | None:
        """Give whom a channel's own name for somebody means, such as `slack`, `U024BE7LH`."""
        return self._now(self._fresh().identities.get(identity_key(channel, identity)))

    def may_stop(self, person: Person) -> bool:
        """Tell whether they may engage the stop switch: as the last good file says."""
        known = next((one for one in self._fresh().people if one.name == person.name), person)
        return known.may(PersonRole.OPERATOR)

    def check(self) -> None:
        """Raise `BadInputError` while the file cannot be used."""
        self._fresh()
        if self.trouble:
            raise BadInputError(self.trouble)

    def _now(self, person: Person | None) -> Person | None:
        if person is None or not self.trouble:
            return person
        return person.at_most(PersonRole.VIEWER)

    def _fresh(self) -> Register:
        now = self._clock()
        if self._path is None or now - self._read_at < REREAD_SECONDS:
            return self._register
        self._read_at = now
        try:
            data = _bytes(self._path)
            if data != self._data or self.trouble:
                self._register = parse(data, str(self._path))
                log.info("the people file was read again", people=len(self._register.people))
            self._data, self.trouble = data, ""
        except BadInputError as error:
            if not self.trouble:
                log.error("the people file cannot be used: nobody may do anything but look "
                          "and stop", error=str(error))  # fmt: skip
            self.trouble = str(error)
        return self._register


def namespace_of(incident: Incident) -> str | None:
    """Give the namespace an incident is about, empty for none; None while nobody can tell."""
    if incident.target is not None:
        return incident.target.namespace
    if incident.wants is not None:
        return incident.wants.namespace
    kind, _, place = incident.subject.partition(" ")
    namespace, slash, _ = place.partition("/")
    if kind == "namespace" and place and not slash:
        return place
    if slash and kind not in {"instance", "undo"}:
        return namespace
    return "" if kind in {"node", "persistentvolume"} else None


def may_over(person: Person, role: PersonRole, namespace: str | None) -> bool:
    """Tell whether they have a role there; where nobody knows the namespace, in all of them."""
    return person.may_everywhere(role) if namespace is None else person.may(role, namespace)


def demand(person: Person, role: PersonRole, namespace: str | None) -> None:
    """Raise `NotAllowedError` where they may not."""
    if not may_over(person, role, namespace):
        where = "everywhere" if namespace is None else namespace or "outside any namespace"
        raise NotAllowedError(f"{person.name} has not the role {role} {where}".rstrip())


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or 'cannot be read'}") from error
