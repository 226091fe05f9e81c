"""Which tokens are fed together: every branch once, on a trunk that begins with its own prefix, within budget."""

from hypothesis import given
from hypothesis import strategies as st

from recsys.models.packing import PackedRequest, batches_of, prefix_chains, rows_of

few = st.integers(1, 3)  # of so few tokens, many prefixes begin others
prefix = st.lists(few, min_size=1, max_size=5)
request = st.builds(PackedRequest, prefix, st.lists(st.lists(few, min_size=1, max_size=4), max_size=3))
requests = st.lists(request, max_size=8)


@given(prefixes=st.lists(prefix, max_size=12))
def test_a_chain_is_led_by_a_prefix_that_all_its_members_begin(prefixes: list[list[int]]) -> None:
    chains = prefix_chains(prefixes)
    assert sorted(place for chain in chains for place in chain) == list(range(len(prefixes)))
    for first, *others in chains:
        assert all(prefixes[first][: len(prefixes[other])] == prefixes[other] for other in others)
    # No chain could join another: what leads one begins no other chain's leader.
    leaders = [prefixes[chain[0]] for chain in chains]
    assert not any(a is not b and b[: len(a)] == a for a in leaders for b in leaders)
    assert [min(chain) for chain in chains] == sorted(min(chain) for chain in chains)


@given(asked=requests, budget=st.integers(1, 30))
def test_rows_hold_every_branch_once_and_keep_the_budget(asked: list[PackedRequest], budget: int) -> None:
    rows = rows_of(asked, budget)
    held = [pair for row in rows for pair in row.chosen]
    assert sorted(held) == [(i, j) for i, one in enumerate(asked) for j in range(len(one.branches))]
    for row in rows:
        trunk = asked[row.trunk].prefix
        assert asked[row.trunk].branches  # nobody is fed for nothing
        assert all(trunk[: len(asked[i].prefix)] == asked[i].prefix for i, _ in row.chosen)
        assert row.length == len(trunk) + sum(len(asked[i].branches[j]) - 1 for i, j in row.chosen)
        assert row.length <= budget or len(row.chosen) == 1 or row.length == len(trunk)
    batches = batches_of(rows, budget)
    assert sorted(map(id, rows)) == sorted(id(row) for batch in batches for row in batch)
    assert all(len(batch) == 1 or len(batch) * batch[0].length <= budget for batch in batches)


def test_a_growing_chat_is_one_row() -> None:
    turns = [PackedRequest(list(range(1, end)), [[7, 8], [9]]) for end in (4, 8, 12)]
    assert [row.length for row in rows_of(turns, 100)] == [11 + 3]
