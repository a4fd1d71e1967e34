"""Secrets out of text before a model, a log, a chat or the record sees it.

Invariants: every pattern is bounded, so time grows with length only; what was hidden stays hidden
when it is redacted again. Hiding too much is a nuisance, hiding too little a leak: when in doubt,
a value goes.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Final

from tiphys.policies.model import Json

MAX_TEXT: Final = 400
"""Characters of one value that `redact_json` keeps."""
MAX_ITEMS: Final = 60
"""Items of one list or object that `redact_json` keeps."""
MAX_DEPTH: Final = 8

_WORDS: Final = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|token|credential|api[-_.]?key|apikey"
    r"|(?:access|private|account|encryption|signing|master|shared)[-_.]?key"
    r"|connection[-_.]?string|session[-_.]?id|cookie|signature|\bsig\b)"
)
_QUOTE: Final = r"(?:\\{0,3}[\"'])"
_VALUE: Final = (
    rf"(?:(?P<quote>{_QUOTE})(?:(?!(?P=quote))(?:\\.|[^\\\n])){{0,4096}}(?P=quote)?"
    r"|[^\s,;&\"'}\])]+)"
)


def _hidden(kind: str) -> Callable[[re.Match[str]], str]:
    """Keep what the group `keep` holds, hide the rest."""

    def replace(match: re.Match[str]) -> str:
        return f"{match.groupdict().get('keep') or ''}[{kind}]"

    return replace


def _token(match: re.Match[str]) -> str:
    """Hide a long run that looks random; digests of images and plain long names stay."""
    run = match.group()
    if match.string[max(0, match.start() - 7) : match.start()] == "sha256:":
        return run
    if re.fullmatch(r"[0-9a-fA-F]{32,}", run):
        return "[token]"
    classes = (any(map(kind, run)) for kind in (str.islower, str.isupper, str.isdigit))
    return "[token]" if all(classes) and _entropy(run) >= 4.0 else run


def _entropy(text: str) -> float:
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)


_PATTERNS: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]] = (
    (
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}(?:PRIVATE KEY|CERTIFICATE)[A-Z ]{0,10}-----"
            r".{0,20000}?(?:-----END [A-Z0-9 ]{0,60}-----|\Z)",
            re.DOTALL,
        ),
        _hidden("key"),
    ),
    (
        re.compile(
            r"(?P<keep>\b(?:(?:proxy-)?authorization|(?:set-)?cookie|x-[a-z-]{0,30}(?:key|token))"
            r"(?:\\{0,3}[\"'])?\s{0,4}[:=]\s{0,4}(?:\\{0,3}[\"'])?)[^\n\"'\\]+",
            re.IGNORECASE,
        ),
        _hidden("credentials"),
    ),
    (re.compile(r"(?P<keep>://)[^\s\"'<>/]{1,400}@(?=[\w.\[-])"), _hidden("credentials@")),
    (re.compile(r"(?P<keep>://)[^\s\"'<>/:@]{0,200}:[^\s\"'<>]{1,400}@(?=[\w.\[-])"),
     _hidden("credentials@")),
    (re.compile(r"hooks\.slack\.com/[^\s\"'<>]+"), _hidden("token")),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?"), _hidden("token")),
    (
        re.compile(
            r"\b(?:(?:AKIA|ASIA|AGPA|AROA)[0-9A-Z]{12,}|AIza[\w-]{30,}|ya29\.[\w-]{10,}"
            r"|gh[a-z]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{8,}"
            r"|(?:sk|rk|pk)[-_][\w-]{12,}|hf_\w{16,}|npm_\w{16,}|dop_v1_\w{16,}|hv[bs]\.[\w-]{12,}"
            r"|[a-z0-9]{6}\.[a-z0-9]{16})\b"
        ),
        _hidden("token"),
    ),
    (
        re.compile(
            r"(?P<keep>\bname(?:\\{0,3}[\"'])?\s{0,4}[:=]\s{0,4}(?:\\{0,3}[\"'])?"
            rf"[\w.-]{{0,40}}?{_WORDS}[\w.-]{{0,40}}(?:\\{{0,3}}[\"'])?,?\s{{0,20}}"
            rf"(?:\\{{0,3}}[\"'])?value(?:\\{{0,3}}[\"'])?\s{{0,4}}[:=]\s{{0,4}}){_VALUE}",
            re.IGNORECASE,
        ),
        _hidden("secret"),
    ),
    (
        re.compile(
            rf"(?P<keep>{_WORDS}[\w.-]{{0,40}}(?:\\{{0,3}}[\"'])?\s{{0,4}}(?::=|=>|[:=])\s{{0,4}})"
            rf"(?!\[(?:secret|token|credentials|key)\]){_VALUE}",
            re.IGNORECASE,
        ),
        _hidden("secret"),
    ),
    (
        re.compile(
            rf"(?P<keep>(?<![\w-])--?[\w-]{{0,20}}?{_WORDS}[\w-]{{0,20}}\s{{1,4}})(?!\[)[^\s\"']+",
            re.IGNORECASE,
        ),
        _hidden("secret"),
    ),
    (
        re.compile(
            r"(?P<keep>\bbearer\s{1,4})(?!\[)(?=\S{0,40}\d|\S{20})[\w.~+/=-]{6,}", re.IGNORECASE
        ),
        _hidden("token"),
    ),
    (re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"), _hidden("email")),
    (re.compile(r"[A-Za-z0-9+/_=-]{32,}"), _token),
)  # fmt: skip

_ABSTRACT: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "<uuid>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b"), "<address>"),
    (re.compile(r"\b(?=[0-9a-fA-F]*\d)(?:0x)?[0-9a-fA-F]{8,}\b"), "<hex>"),
    (re.compile(r"(?<![\w.])\d{5,}(?![\w.])"), "<number>"),
)
"""Values that tell one line from the next and nothing of the cause; status codes stay."""

_ESCAPES: Final = re.compile(
    r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b\n]{0,400}(?:\x07|\x1b\\))?"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""What a reader does not see: terminals' sequences (ECMA-48), controls, direction marks, characters
without width. A logger that colours names writes them between a password's name and its value."""
_SENSITIVE_KEY: Final = re.compile(_WORDS, re.IGNORECASE)


def is_sensitive(name: str) -> bool:
    """Tell whether something of that name usually holds a secret."""
    return _SENSITIVE_KEY.search(name) is not None


def seen(text: str) -> str:
    """Leave out what a reader of the text would not see, so that it is judged as it is read."""
    return text if text.isascii() and text.isprintable() else _ESCAPES.sub("", text)


def redact(text: str) -> str:
    """Hide keys, tokens, passwords, credentials in URLs and mail addresses."""
    hidden = _hide(text)
    read = seen(hidden)
    # As it came first: what is left out may have taken a part of a secret's name with it.
    return hidden if read == hidden else _hide(read)


def _hide(text: str) -> str:
    for pattern, replace in _PATTERNS:
        text = pattern.sub(replace, text)
    return text


def abstract(text: str) -> str:
    """Redact, then put placeholders for times, addresses, ids and long numbers."""
    text = redact(text)
    for pattern, placeholder in _ABSTRACT:
        text = pattern.sub(placeholder, text)
    return text


def redact_json(value: Json, change: Callable[[str], str] = redact, depth: int = 0) -> Json:
    """Redact every text in a value, keys too, and bound its lengths and its depth."""
    if isinstance(value, str):
        return _cut(change(value))
    if isinstance(value, dict):
        if depth >= MAX_DEPTH:
            return "[too deep]"
        return {
            _cut(change(key)): "[secret]"
            if isinstance(item, str) and is_sensitive(key)
            else redact_json(item, change, depth + 1)
            for key, item in list(value.items())[:MAX_ITEMS]
        }
    if isinstance(value, list):
        if depth >= MAX_DEPTH:
            return "[too deep]"
        return [redact_json(item, change, depth + 1) for item in value[:MAX_ITEMS]]
    return value


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
