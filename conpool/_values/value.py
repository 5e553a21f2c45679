"""The base of what identifies where to connect, and how such values are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Self

HIDDEN: Final = "<hidden>"
"""A `repr` shows this in place of a possible secret."""


class Value:
    """Base of the values that identify where to connect: immutable, with one hash for life.

    It is a base class, against our habit, because a class with an `__eq__` of its own could forget
    a field. A subclass is a frozen dataclass without generated methods; it calls `_seal` once with
    *all* its fields, and equality and hash are made of these.
    """

    __slots__ = ("_hash", "_key")

    __match_args__: ClassVar[tuple[str, ...]] = ()
    _hash: int
    _key: tuple[object, ...]

    def _seal(self, **fields: object) -> None:
        for name, content in fields.items():
            object.__setattr__(self, name, content)
        key = tuple(fields.values())
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "_hash", hash(key))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Value) or type(other) is not type(self):
            return NotImplemented
        return self._hash == other._hash and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # Unpickling builds it anew, because the hash of a str differs from process to process.
        return _rebuilt, (type(self), self._arguments())

    def _arguments(self) -> Mapping[str, object]:
        """Return the arguments from which the constructor makes an equal value."""
        return {name: getattr(self, name) for name in type(self).__match_args__}


def _rebuilt(cls: type[Any], arguments: Mapping[str, object]) -> Any:
    return cls(**arguments)


def call_text(name: str, *arguments: str, **options: object) -> str:
    """Write a constructor call without the options that are None, False or empty."""
    said = [
        f"{key}={value if value is HIDDEN else repr(value)}"
        for key, value in options.items()
        if value is not None and value is not False and value != ()
    ]
    return f"{name}({', '.join((*arguments, *said))})"
