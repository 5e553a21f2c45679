"""Makes small bugs of a file, one for each place of its syntax tree where one fits.

A bug is a change of the text, not of the tree, so that everything else in the file stays as it is
and a diff shows the bug alone. The tree says where the change goes, and the tokens say where
exactly.

| kind        | the bug                                                                            |
| ----------- | ---------------------------------------------------------------------------------- |
| `drop-call` | a call that is a statement, awaited or not, becomes `pass`                         |
| `compare`   | `<` and `<=`, `>` and `>=`, `==` and `!=`, `is` and `is not`, `in` and `not in`    |
| `logic`     | `and` and `or`                                                                     |
| `negate`    | the condition of an `if`, which also swaps its branches                            |
| `drop-one`  | `+ 1` and `- 1` are left out                                                       |
| `return`    | `not` what a function that returns `bool` would return; `None` for what others do  |
| `constant`  | a whole number is one more                                                         |

No bug is made twice: where `compare` turns a whole condition around, `negate` and `return` do not.
Nothing is made of annotations, of messages, of docstrings, and of what only type checkers read.

An id reads `file:line:kind:hash`. The hash tells apart the statements of a function, whatever their
lines, so that an id is found again (`Mutant.key`) when lines above it have come or gone.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple, TypeAlias, final

KINDS: Final = ("drop-call", "compare", "logic", "negate", "drop-one", "return", "constant")

# How an operator is written, and how its counterpart is.
_COUNTERPARTS: Final[dict[type[ast.cmpop], tuple[str, str]]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
_NEGATED_BY_COMPARE: Final = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
_Conditional: TypeAlias = ast.If | ast.IfExp


@final
@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug of one file."""

    file: str
    line: int
    kind: str
    digest: str
    start: int
    """Where the change begins and ends, in characters of the file."""
    end: int
    new: str

    @property
    def id(self) -> str:
        """Its name, for people and for the command line."""
        return f"{self.file}:{self.line}:{self.kind}:{self.digest}"

    @property
    def key(self) -> tuple[str, str, str]:
        """What stays the same when its line moves."""
        return self.file, self.kind, self.digest

    def plant(self, source: str) -> str:
        """Return the text of the file with the bug."""
        return source[: self.start] + self.new + source[self.end :]


def read_key(name: str) -> tuple[str, str, str]:
    """Return the key of the mutant that has this id, or had it when lines were elsewhere."""
    file, _, kind, digest = name.split(":")
    return file, kind, digest


def find_mutants(file: str, source: str) -> list[Mutant]:
    """Find all bugs that can be made of a file, in the order of their lines."""
    finder = _Finder(file, source)
    finder.visit(ast.parse(source))
    return sorted(finder.found, key=lambda mutant: (mutant.start, mutant.end))


class _Token(NamedTuple):
    text: str
    start: int
    end: int


class _Finder(ast.NodeVisitor):
    def __init__(self, file: str, source: str) -> None:
        self.found: list[Mutant] = []
        self._file = file
        self._source = source
        self._lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))
        self._tokens = [
            _Token(token.string, self._starts[token.start[0] - 1] + token.start[1], end)
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if (end := self._starts[token.end[0] - 1] + token.end[1])
        ]
        self._scope: list[str] = []
        self._returns: list[ast.expr | None] = []
        self._statement = ""
        self._seen: Counter[tuple[str, str, str]] = Counter()

    # ── where something stands ──────────────────────────────────────────────────

    def _at(self, line: int, column: int) -> int:
        """Turn a line and a column in bytes, as the tree has them, into a place in the text."""
        before = self._lines[line - 1].encode()[:column].decode()
        return self._starts[line - 1] + len(before)

    def _start(self, node: ast.expr | ast.stmt) -> int:
        return self._at(node.lineno, node.col_offset)

    def _end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._at(node.end_lineno, node.end_col_offset)

    def _text(self, node: ast.expr) -> str:
        return self._source[self._start(node) : self._end(node)]

    def _operator(self, left: ast.expr, right: ast.expr, text: str) -> tuple[int, int]:
        """Find the operator between two operands, which may have brackets around them."""
        words = text.split()
        after, before = self._end(left), self._start(right)
        tokens = [t for t in self._tokens if after <= t.start and t.end <= before]
        (first, *_) = (t for t in tokens if t.text == words[0])
        (last, *_) = (t for t in tokens if t.text == words[-1])
        return first.start, last.end

    # ── making one ──────────────────────────────────────────────────────────────

    def _add(self, kind: str, start: int, end: int, new: str) -> None:
        place = ".".join(self._scope), self._statement, kind
        self._seen[place] += 1
        digest = sha256("\n".join([*place, str(self._seen[place])]).encode()).hexdigest()[:8]
        line = self._source.count("\n", 0, start) + 1
        self.found.append(Mutant(self._file, line, kind, digest, start, end, new))

    def _replace(self, kind: str, node: ast.expr | ast.stmt, new: str) -> None:
        self._add(kind, self._start(node), self._end(node), new)

    def _negate(self, kind: str, node: ast.expr) -> None:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self._replace(kind, node, self._text(node.operand))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            self._replace(kind, node, str(not node.value))
        elif not _is_negated_by_compare(node):
            self._replace(kind, node, f"not ({self._text(node)})")

    # ── statements ──────────────────────────────────────────────────────────────

    def visit(self, node: ast.AST) -> None:
        """Visit a node, and remember the statement that it is, or is part of."""
        if not isinstance(node, ast.stmt):
            super().visit(node)
            return
        around = self._statement
        self._statement = ast.unparse(node).partition("\n")[0]
        super().visit(node)
        self._statement = around

    def visit_Expr(self, node: ast.Expr) -> None:
        """A call that is a statement; a docstring is none."""
        call = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(call, ast.Call):
            self._replace("drop-call", node, "pass")
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        """A condition, but for those of the type checker."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._visit_conditional(node)

    def visit_Return(self, node: ast.Return) -> None:
        """What a function answers."""
        annotation = self._returns[-1]
        is_bool = isinstance(annotation, ast.Name) and annotation.id == "bool"
        value = node.value
        if value is not None and is_bool:
            self._negate("return", value)
        elif value is not None and not _is_none(value):
            self._replace("return", value, "None")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """`x += 1`."""
        if isinstance(node.op, ast.Add | ast.Sub) and _is_one(node.value):
            self._replace("drop-one", node, "pass")
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The value, not the annotation; nor an alias for types."""
        if "TypeAlias" not in ast.unparse(node.annotation) and node.value is not None:
            self.visit(node.value)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Its body."""
        self._scope.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self._scope.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """The defaults and the body."""
        self._visit_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """The defaults and the body."""
        self._visit_function(node)

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        self._scope.append(node.name)
        self._returns.append(node.returns)
        for statement in node.body:
            self.visit(statement)
        self._returns.pop()
        self._scope.pop()

    # ── expressions ─────────────────────────────────────────────────────────────

    def _visit_conditional(self, node: _Conditional) -> None:
        self._negate("negate", node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """The condition of `x if y else z`."""
        self._visit_conditional(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """The conditions of a comprehension."""
        for condition in node.ifs:
            self._negate("negate", condition)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Each comparison of a chain."""
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            old, new = _COUNTERPARTS[type(operator)]
            self._add("compare", *self._operator(left, right, old), new)
            left = right
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Each `and` and `or`."""
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._add("logic", *self._operator(left, right, old), new)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """`x + 1`."""
        if isinstance(node.op, ast.Add | ast.Sub) and _is_one(node.right):
            sign = "+" if isinstance(node.op, ast.Add) else "-"
            start, _ = self._operator(node.left, node.right, sign)
            self._add("drop-one", start, self._end(node), "")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """A whole number."""
        if type(node.value) is int:
            self._replace("constant", node, str(node.value + 1))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """A message: its wording is nobody's promise, and before 3.12 its parts have no places."""


def _is_one(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == 1 and type(node.value) is int


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_negated_by_compare(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Compare)
        and len(node.ops) == 1
        and isinstance(node.ops[0], _NEGATED_BY_COMPARE)
    )
