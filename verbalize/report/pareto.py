"""Which arms or trials no other beats on every count at once."""

import math
from collections.abc import Sequence


def front(points: Sequence[Sequence[float]], maximise: Sequence[bool]) -> list[int]:
    """Places of the points that no other dominates, in the given order. O(n²) for n points.

    A point dominates another if it is at least as good in every coordinate and better in one; equal points are all
    kept. Points with a coordinate that is not finite are never on the front.

    >>> front([(0.3, 100), (0.3, 80), (0.4, 300), (0.2, 90)], [True, False])
    [1, 2]
    """
    signed = [
        tuple(value if up else -value for value, up in zip(point, maximise, strict=True))
        if all(math.isfinite(value) for value in point)
        else None
        for point in points
    ]
    found = [one for one in signed if one is not None]

    def dominated(point: tuple[float, ...]) -> bool:
        return any(other != point and all(o >= p for o, p in zip(other, point, strict=True)) for other in found)

    return [place for place, point in enumerate(signed) if point is not None and not dominated(point)]
