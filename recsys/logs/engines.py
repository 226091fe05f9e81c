"""How one function meets many buckets: one after the other here, or as tasks elsewhere (`ray_engine`)."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


class Run:
    """An engine. This one takes the arguments one after the other, in this process.

    `tasks`: into how many arguments work is best divided, where it may be.
    """

    @property
    def tasks(self) -> int:
        return 1

    def __call__(self, function: Callable[[Given], Made], arguments: Iterable[Given]) -> Iterator[Made]:
        """Results in the order of the arguments."""
        return map(function, arguments)
