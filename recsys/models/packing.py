"""Which tokens are fed together: requests to rows, rows to batches. Pure bookkeeping, no tensors.

A row is a trunk and branches behind it. A request whose prefix begins another's needs no trunk of its own: its branches
hang on the other's trunk and see only so much of it. The turns of an episode are such requests, as a chat only grows,
and so are the first turns of a game's episodes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recsys.errors import InputError


@dataclass(frozen=True)
class PackedRequest:
    """`branches` continue `prefix`; none may be empty. Token ids."""

    prefix: Sequence[int]
    branches: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Row:
    """Branches `chosen`, as (request, branch), behind the prefix of request `trunk`: `length` fed tokens."""

    trunk: int
    chosen: tuple[tuple[int, int], ...]
    length: int


def prefix_chains(prefixes: Sequence[Sequence[int]]) -> list[list[int]]:
    """Positions in groups, each led by a longest prefix that the others of the group begin; groups in the order of
    their first members. Linear in the number of tokens, after sorting.

    >>> prefix_chains([[1], [4], [1, 2, 3], [1, 2], [1, 9], [4]])
    [[2, 3, 0], [1, 5], [4]]
    """
    # Sorted, what extends a prefix follows it at once; from the end, a trunk is met before all that begins it.
    order = sorted(range(len(prefixes)), key=lambda place: (tuple(prefixes[place]), -place), reverse=True)
    chains: list[list[int]] = []
    trunk: tuple[int, ...] | None = None
    for place in order:
        prefix = tuple(prefixes[place])
        if trunk is None or trunk[: len(prefix)] != prefix:
            chains.append([])
            trunk = prefix
        chains[-1].append(place)
    return sorted(chains, key=min)


def rows_of(requests: Sequence[PackedRequest], budget: int) -> list[Row]:
    """One row per chain of prefixes; more when its branches do not fit into `budget` beside the trunk."""
    rows: list[Row] = []
    chosen: list[tuple[int, int]]
    asking = [number for number, request in enumerate(requests) if request.branches]
    for chain in prefix_chains([requests[number].prefix for number in asking]):
        trunk, chosen, length = asking[chain[0]], [], len(requests[asking[chain[0]]].prefix)
        for request in (asking[place] for place in chain):
            for branch, tokens in enumerate(requests[request].branches):
                if chosen and length + len(tokens) - 1 > budget:
                    rows.append(Row(trunk, tuple(chosen), length))
                    trunk, chosen, length = request, [], len(requests[request].prefix)
                chosen.append((request, branch))
                length += len(tokens) - 1
        rows.append(Row(trunk, tuple(chosen), length))
    return rows


def batches_of(rows: Iterable[Row], budget: int) -> list[list[Row]]:
    """Longest first, as many of similar length together as the padded batch fits into `budget`."""
    batches: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: -row.length):
        if batches and (len(batches[-1]) + 1) * batches[-1][0].length <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def check_requests(requests: Sequence[PackedRequest], positions: int | None) -> None:
    """Raises InputError for an empty prefix, an empty branch or a sequence beyond the model's `positions`."""
    for number, request in enumerate(requests):
        if not request.prefix:
            raise InputError(
                f"request {number}",
                "has an empty prefix, so its first tokens have no distribution",
                "begin the prefix with at least one token",
            )
        if any(not branch for branch in request.branches):
            raise InputError(f"request {number}", "has a branch without tokens", "drop the branch")
        longest = len(request.prefix) + max(map(len, request.branches), default=0)
        if positions is not None and longest > positions:
            raise InputError(
                f"request {number} with {longest} tokens",
                f"exceeds the model's {positions} positions",
                "shorten the text",
            )
