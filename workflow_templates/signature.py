"""Who may start a run: the launcher signs a plan's digest and its `notAfter`, every step verifies.

Invariant: a stolen API token alone starts nothing; the public key stands in the immutable template.
"""

import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tiphys.policies.plan import signed_message


class ForgedError(Exception):
    """The signature is not the launcher's for this plan and this `notAfter`."""


class KeyUnusableError(Exception):
    """The signing key cannot be used; the message says why."""


def sign(private: Ed25519PrivateKey, plan_digest: str, not_after: str) -> str:
    """Sign `policies.plan.digest(plan)` and `notAfter` as it will be written; 128 hex digits."""
    return private.sign(signed_message(plan_digest, not_after)).hex()


def verify(public_key: str, plan_digest: str, not_after: str, signature: str) -> None:
    """Check a signature against the public key's 64 hex digits; raises `ForgedError`."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), signed_message(plan_digest, not_after))
    except (ValueError, InvalidSignature) as error:
        raise ForgedError("the signature is not the launcher's") from error


def public_hex(private: Ed25519PrivateKey) -> str:
    """Give the public key as the 64 hex digits that templates carry."""
    return private.public_key().public_bytes_raw().hex()


def create_key(path: Path) -> Ed25519PrivateKey:
    """Write a new private key as PEM, mode 0600 from the first byte; never over another file."""
    # Imported here: steps, which never read a key, start 50 ms sooner.
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    return private


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read the private key; raises `KeyUnusableError`, also when others may read the file."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyUnusableError(f"{path} is readable by others; chmod 600 it")
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise KeyUnusableError(f"{path}: {error}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyUnusableError(f"{path} is not an Ed25519 key")
    return private


def load_or_create_key(path: Path) -> Ed25519PrivateKey:
    """Read the key of this installation, or make it where there is none."""
    try:
        return create_key(path)
    except FileExistsError:
        return load_key(path)
