"""Kubernetes' quantities, such as `512Mi`: read exactly, written as the API server does. Pure.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from fractions import Fraction

MIB = 1 << 20
_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d+)|([numkMGTPE]|[KMGTPE]i))?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


class NotAQuantityError(ValueError):
    """This is not a quantity as Kubernetes writes it."""


def amount(quantity: object) -> Fraction:
    """Give a quantity as a number, of bytes for memory; raises `NotAQuantityError`."""
    found = _FORM.fullmatch(str(quantity))
    if found is None:
        raise NotAQuantityError(f"{str(quantity)[:40]!r} is not a quantity")
    number, exponent, suffix = found.groups()
    if exponent is not None:
        return Fraction(number) * Fraction(10) ** int(exponent)
    if suffix in _BINARY:
        return Fraction(number) * 2 ** _BINARY[suffix]
    return Fraction(number) * Fraction(10) ** _DECIMAL.get(suffix or "", 0)


def mebibytes(number: int) -> str:
    """Write MiB in the canonical form, which is what the API server stores: 1024 is `1Gi`."""
    for suffix in ("Mi", "Gi"):
        if number % 1024:
            return f"{number}{suffix}"
        number //= 1024
    return f"{number}Ti"


def told(size: Fraction | int) -> str:
    """Say a number of bytes in MiB, for people."""
    return f"{float(size) / MIB:.0f} MiB"
