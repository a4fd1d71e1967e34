"""What is taken out, one at a time: rules over the syntax tree of one module. Pure.

A mutant is the module's text with one piece of it replaced. Every rule weakens: a check that stops
the step no longer does, a clause of it always holds, a fence is left out of a write, a step of an
action says that all is well and does nothing.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

LONGEST = 72
"""Characters of what is taken out, in the table."""
_STOPS = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_FENCES = {"preconditions", "resourceVersion", "uid"}
"""What a write names so that the API server can refuse it."""
_WRITES = "cluster"
"""The only module that writes to Kubernetes."""
_IDLE = ("release_conn(", "sleep(", "sys.std")
"""Calls that guard nothing: giving a connection back, pacing, printing."""
_SAID = {"precheck": "AS_PLANNED", "act": "ACTED", "verify": "VERIFIED"}
_ACTION = "Action"


class Rule(StrEnum):
    """Why a piece of code is taken out."""

    CALL = "call left out"
    CHECK = "check removed"
    CLAUSE = "clause removed"
    FENCE = "fence removed"
    STEP = "step does nothing"


@dataclass(frozen=True)
class Mutant:
    """One module with one piece replaced."""

    module: str
    function: str
    """Its qualified name."""
    line: int
    rule: Rule
    gone: str
    """What is taken out, shortened."""
    text: str
    """The whole module's, after."""
    fires: tuple[int, ...]
    """Lines that a run must come by to tell the mutant from the original."""

    @property
    def name(self) -> str:
        """Say which it is, in words that stay while other lines move."""
        return f"{self.module}.{self.function}: {self.rule}: {self.gone}"


@dataclass(frozen=True)
class _Module:
    name: str
    text: str

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Give where a node begins and ends, in characters."""
        lines = self.text.splitlines(keepends=True)

        def place(line: int, column: int) -> int:
            before = sum(map(len, lines[: line - 1]))
            return before + len(lines[line - 1].encode()[:column].decode())

        assert isinstance(node, ast.expr | ast.stmt)
        assert node.end_lineno
        assert node.end_col_offset is not None
        return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)

    def source(self, node: ast.AST) -> str:
        """Give a node's own text."""
        begin, end = self.span(node)
        return self.text[begin:end]

    def instead(self, node: ast.AST, text: str) -> str:
        """Give the module's text with a node replaced."""
        begin, end = self.span(node)
        return self.text[:begin] + text + self.text[end:]


@dataclass(frozen=True)
class _Edit:
    rule: Rule
    node: ast.AST
    """What the table shows."""
    place: ast.AST
    instead: str
    fires: tuple[int, ...]


def mutants(module: str, text: str, functions: frozenset[str]) -> Iterator[Mutant]:
    """Give every mutant of the named functions of a module."""
    here, seen = _Module(module, text), set[str]()
    for name, function, owner in functions_of(ast.parse(text)):
        if name not in functions:
            continue
        for edit in _edits(here, function, owner):
            begin = here.span(edit.node)[0]
            after = here.instead(edit.place, edit.instead)
            if after not in seen:
                seen.add(after)
                gone = _short(here.source(edit.node))
                line = text.count("\n", 0, begin) + 1
                yield Mutant(module, name, line, edit.rule, gone, after, edit.fires)


def functions_of(
    tree: ast.AST, prefix: str = "", owner: ast.ClassDef | None = None
) -> Iterator[tuple[str, ast.FunctionDef, ast.ClassDef | None]]:
    """Give a module's functions and methods; what is defined inside one belongs to it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node, owner
        elif isinstance(node, ast.ClassDef):
            yield from functions_of(node, f"{prefix}{node.name}.", node)


def _edits(here: _Module, function: ast.FunctionDef, owner: ast.ClassDef | None) -> Iterator[_Edit]:
    if owner is not None and any(_called(base) == _ACTION for base in owner.bases):
        yield from _idle_step(function, owner)
    says = "" if function.returns is None else here.source(function.returns)
    may_be_none = "None" in says
    for statement in _statements(function):
        at = (statement.lineno,)
        yield from _of_statement(here, statement)
        if isinstance(statement, ast.Return) and isinstance(statement.value, ast.IfExp):
            yield from _either(here, statement.value, at)
        for node in _expressions(statement):
            yield from _of_expression(here, node, at)
            if here.name == _WRITES:
                yield from _fences(here, node, at)
        last = statement is function.body[-1] or _in_handler(function, statement)
        if says == "bool":
            yield from _answer(here, statement)
        if may_be_none and last and isinstance(statement, ast.Return):
            yield from _last_word(statement)


# --- steps ----------------------------------------------------------------------------------------


def _idle_step(function: ast.FunctionDef, owner: ast.ClassDef) -> Iterator[_Edit]:
    """Let a step of an action say that all is well, and do nothing."""
    said = _SAID.get(function.name)
    if function.name == "rollback":
        said = "UNDONE" if _is_reversible(owner) else "NOTHING_TO_RESTORE"
    body = [one for one in function.body if not _is_docstring(one)]
    if said and body:
        whole = ast.Expr(ast.Constant(None), lineno=body[0].lineno, col_offset=body[0].col_offset)
        whole.end_lineno, whole.end_col_offset = body[-1].end_lineno, body[-1].end_col_offset
        words = "from tiphys.workflow_templates.action import Report, Result"
        instead = f'{words}; return Report(Result.{said}, "all is well", {{}})'
        yield _Edit(Rule.STEP, whole, whole, instead, (body[0].lineno,))


def _is_reversible(owner: ast.ClassDef) -> bool:
    return any(
        isinstance(node, ast.Assign)
        and _called(node.targets[0]) == "reversible"
        and isinstance(node.value, ast.Constant)
        and bool(node.value.value)
        for node in owner.body
    )


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


# --- statements -----------------------------------------------------------------------------------


def _of_statement(here: _Module, statement: ast.stmt) -> Iterator[_Edit]:
    if isinstance(statement, ast.If) and isinstance(statement.body[-1], _STOPS):
        never = f"({here.source(statement.test)}) and False"
        fires = (statement.body[0].lineno,)
        yield _Edit(Rule.CHECK, statement.test, statement.test, never, fires)
        for clause, instead in _weaker(here, statement.test, refuses=True):
            yield _Edit(Rule.CLAUSE, clause, clause, instead, fires)
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        called = here.source(statement.value)
        if not any(word in called for word in _IDLE):
            yield _Edit(Rule.CALL, statement, statement, "pass", (statement.lineno,))

    if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.BoolOp):
        last = statement.value.values[-1]
        if isinstance(statement.value.op, ast.And) and isinstance(last, ast.Compare | ast.UnaryOp):
            for clause, instead in _weaker(here, statement.value, refuses=False):
                yield _Edit(Rule.CLAUSE, clause, clause, instead, (statement.lineno,))


def _answer(here: _Module, statement: ast.stmt) -> Iterator[_Edit]:
    """Let what answers yes or no answer always the same, or without one of its clauses."""
    if not isinstance(statement, ast.Return) or statement.value is None:
        return
    at = (statement.lineno,)
    if not isinstance(statement.value, ast.Constant):
        for word in ("True", "False"):
            yield _Edit(Rule.CHECK, statement, statement.value, word, at)
    for refuses in (True, False):
        for clause, instead in _weaker(here, statement.value, refuses=refuses):
            yield _Edit(Rule.CLAUSE, clause, clause, instead, at)


def _last_word(statement: ast.Return) -> Iterator[_Edit]:
    """Let what says a deviation say that there is none."""
    plain = isinstance(statement.value, ast.Constant) and statement.value.value is None
    if statement.value is not None and not plain and not isinstance(statement.value, ast.IfExp):
        yield _Edit(Rule.CHECK, statement, statement.value, "None", (statement.lineno,))


# --- expressions ----------------------------------------------------------------------------------


def _either(here: _Module, node: ast.IfExp, at: tuple[int, ...]) -> Iterator[_Edit]:
    """Let what gives something or nothing give always the same."""
    if not (_is_none(node.body) or _is_none(node.orelse)):
        return
    for arm in (node.body, node.orelse):
        yield _Edit(Rule.CHECK, node, node, f"({here.source(arm)})", at)
    for clause, instead in _weaker(here, node.test, refuses=_is_none(node.orelse)):
        yield _Edit(Rule.CLAUSE, clause, clause, instead, at)


def _of_expression(here: _Module, node: ast.AST, at: tuple[int, ...]) -> Iterator[_Edit]:
    if isinstance(node, ast.comprehension):
        for test in node.ifs:
            yield _Edit(Rule.CHECK, test, test, f"(({here.source(test)}) or True)", at)
            for clause, instead in _weaker(here, test, refuses=False):
                yield _Edit(Rule.CLAUSE, clause, clause, instead, at)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _weaker(here: _Module, test: ast.expr, *, refuses: bool) -> Iterator[tuple[ast.expr, str]]:
    """Give each clause of a test whose removal lets more pass, and what stands for it then."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield from _weaker(here, test.operand, refuses=not refuses)
    elif isinstance(test, ast.BoolOp):
        weakens = isinstance(test.op, ast.Or) is refuses
        for clause in test.values:
            yield from _weaker(here, clause, refuses=refuses)
            if weakens:
                word = "and False" if refuses else "or True"
                yield clause, f"(({here.source(clause)}) {word})"


# --- fences ---------------------------------------------------------------------------------------


def _fences(here: _Module, node: ast.AST, at: tuple[int, ...]) -> Iterator[_Edit]:
    """Leave one fence out of what a write sends."""
    if isinstance(node, ast.Dict):
        parts = list(zip(node.keys, node.values, strict=True))
        for number, (key, value) in enumerate(parts):
            if isinstance(key, ast.Constant) and key.value in _FENCES:
                rest = [one for one in parts if one is not parts[number]]
                words = ", ".join(f"{here.source(k) + ':' if k else '**'} {here.source(v)}"
                                  for k, v in rest)  # fmt: skip
                yield _Edit(Rule.FENCE, value, node, f"{{{words}}}", at)
    if isinstance(node, ast.List | ast.Tuple):
        for one in node.elts:
            if _is_test(one) or (isinstance(one, ast.Constant) and one.value in _FENCES):
                kept = [here.source(other) for other in node.elts if other is not one]
                inside = "".join(f"{item}, " for item in kept)
                whole = f"[{inside}]" if isinstance(node, ast.List) else f"({inside})"
                yield _Edit(Rule.FENCE, one, node, whole, at)


def _is_test(node: ast.expr) -> bool:
    """Say whether it is an operation of a JSON patch that tests."""
    if not isinstance(node, ast.Dict):
        return False
    values = [one.value for one in node.values if isinstance(one, ast.Constant)]
    return "test" in values


# --- the tree -------------------------------------------------------------------------------------


def _statements(function: ast.FunctionDef) -> Sequence[ast.stmt]:
    found = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
    return [node for node in found if node is not function]


def _expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """Give every expression of one statement, not of those inside it."""
    waiting: list[ast.AST] = [
        one for one in ast.iter_child_nodes(statement) if not isinstance(one, ast.stmt)
    ]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.ExceptHandler):
            continue
        yield node
        waiting += [one for one in ast.iter_child_nodes(node) if not isinstance(one, ast.stmt)]


def _in_handler(function: ast.FunctionDef, statement: ast.stmt) -> bool:
    handlers = [node for node in ast.walk(function) if isinstance(node, ast.ExceptHandler)]
    return any(statement is one.body[-1] for one in handlers)


def _called(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 1]}…"
