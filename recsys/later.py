"""Settings that came after others: left out of a configuration's plain form where they have their default.

Keys of stages and of studies are hashes of that form. A setting that is added later must not change the key of what was
made before it existed, or everybody's finished work would be done again.
"""

from dataclasses import Field, field
from typing import Any

_MARK = {"later": True}


def later(default: Any) -> Any:
    """The field of a dataclass, with this immutable default, that `plain` leaves out where it has the default.

    >>> from dataclasses import dataclass, fields
    >>> @dataclass(frozen=True)
    ... class Config:
    ...     steps: int = 1
    ...     warmup: int = later(0)
    >>> [left_out(one, getattr(Config(), one.name)) for one in fields(Config)]
    [False, True]
    """
    return field(default=default, metadata=_MARK)


def left_out(described: Field[Any], value: Any) -> bool:
    """Whether a field with this value is none of what a configuration made before the field existed says."""
    return "later" in described.metadata and value == described.default
