"""Decisions: contract, tie luck, one score per distinct text, redraws, and resuming after an interruption."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from recsys import contracts
from recsys.errors import InputError
from recsys.evaluation import aligned_texts, decide, decide_in_chunks, own_slates
from recsys.seeding import unit_hash

MOMENT = datetime(2021, 1, 1, tzinfo=UTC)


def make_examples(n=9, users=3):
    rows = []
    for number in range(n):
        slate = [f"i{(number + place) % 20}" for place in range(5)]
        rows.append(
            {
                "example_id": f"e{number}",
                "user_id": f"u{number % users}",
                "cutoff_time": MOMENT,
                "history": [{"item_id": f"i{place}"} for place in range(number % 3 + 1)],
                "target_item_id": slate[number % 5],
                "slate": slate,
            }
        )
    return pl.DataFrame(rows, schema_overrides={"cutoff_time": pl.Datetime("us", "UTC")})


class ByRank:
    """Scores a candidate from the text and its id; counts what it was asked."""

    name = "by-rank"

    def __init__(self, fail_after=10**9):
        self.calls, self.fail_after, self.seen = 0, fail_after, []

    def rank(self, queries, slates):
        self.calls += 1
        if self.calls > self.fail_after:
            raise KeyboardInterrupt
        self.seen += [(query.example_id, query.text, query.history) for query in queries]
        return [
            np.array([unit_hash(query.text, item) for item in slate])
            for query, slate in zip(queries, slates, strict=True)
        ]


class ByText(ByRank):
    """The same scores, offered per text."""

    name = "by-text"

    def score_texts(self, texts, candidate_lists):
        self.calls += 1
        self.seen.append((list(texts), [list(candidates) for candidates in candidate_lists]))
        return [
            np.array([unit_hash(text, item) for item in row]) for text, row in zip(texts, candidate_lists, strict=True)
        ]


def redraws(examples, n=3):
    rows = []
    for example_id, target in examples.select("example_id", "target_item_id").rows():
        for index in range(n):
            slate = [f"i{int(unit_hash(example_id, index, place) * 1000) + 100}" for place in range(3)]
            slate.insert(index, target)
            rows.append((example_id, index, slate, index))
    schema = {"example_id": pl.String, "slate_index": pl.Int32, "slate": pl.List(pl.String), "target_index": pl.Int32}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_decisions_obey_the_contract_and_hold_what_was_scored():
    examples = make_examples()
    texts = [f"text {number}" for number in range(9)]
    recommender = ByRank()
    decisions = decide(recommender, examples, texts, verbalizer="v", seed=7)
    contracts.check(decisions, "decisions")
    assert recommender.seen[2] == ("e2", "text 2", ("i0", "i1", "i2"))
    for row, example in zip(decisions.rows(named=True), examples.rows(named=True), strict=True):
        expected = [unit_hash(f"text {example['example_id'][1:]}", item) for item in example["slate"]]
        assert row["scores"] == expected and (row["verbalizer"], row["recommender"], row["seed"]) == ("v", "by-rank", 7)
        assert example["slate"][row["target_index"]] == example["target_item_id"]
        assert row["rank"] == 1 + sum(score > expected[row["target_index"]] for score in expected)


def test_arms_share_the_luck_of_ties():
    class Constant(ByRank):
        def rank(self, queries, slates):
            return [np.zeros(len(slate)) for slate in slates]

    examples = make_examples()
    first = decide(Constant(), examples, ["a"] * 9, verbalizer="a", seed=1)
    second = decide(Constant(), examples.reverse(), ["b"] * 9, verbalizer="b", seed=2)
    assert first["rank"].to_list() == second["rank"].reverse().to_list()
    assert first["rank"].n_unique() > 1


def test_each_distinct_text_is_scored_once_against_the_union_of_its_slates():
    examples, recommender = make_examples(), ByText()
    texts = ["shared", "other", "shared"] * 3
    slates = redraws(examples)
    decisions = decide(recommender, examples, texts, verbalizer="v", slates=slates)
    asked = recommender.seen[0]
    assert recommender.calls == 1 and asked[0] == ["shared", "other"]
    assert all(len(set(row)) == len(row) for row in asked[1])
    plain = decide(ByRank(), examples, texts, verbalizer="v", slates=slates.sample(fraction=1.0, shuffle=True, seed=0))
    assert decisions.drop("recommender").equals(plain.drop("recommender"))
    assert decisions.height == 27 and decisions["slate_index"].to_list() == [0, 1, 2] * 9


def test_interrupted_and_resumed_equals_uninterrupted_to_the_byte(tmp_path):
    examples, texts = make_examples(23, users=5), [f"t{number}" for number in range(23)]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    steps = []
    complete = decide_in_chunks(
        ByRank(),
        examples,
        texts,
        verbalizer="v",
        folder=whole,
        chunk_size=4,
        progress=lambda done, n: steps.append((done, n)),
    )
    assert steps == [(4, 23), (8, 23), (12, 23), (16, 23), (20, 23), (23, 23)]
    with pytest.raises(KeyboardInterrupt):
        decide_in_chunks(ByRank(fail_after=3), examples, texts, verbalizer="v", folder=broken, chunk_size=4)
    assert len(list(broken.glob("part-*.parquet"))) == 3
    resumed = ByRank()
    again = decide_in_chunks(resumed, examples, texts, verbalizer="v", folder=broken, chunk_size=4)
    assert resumed.calls == 3 and again.equals(complete)
    assert complete.equals(decide(ByRank(), examples, texts, verbalizer="v", chunk_size=5))
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in broken.iterdir())
    assert all((whole / name).read_bytes() == (broken / name).read_bytes() for name in names)


@pytest.mark.parametrize("change", ["texts", "slates", "seed", "digest"])
def test_a_folder_of_other_inputs_is_refused(tmp_path, change):
    examples, texts = make_examples(), ["t"] * 9
    decide_in_chunks(ByRank(), examples, texts, verbalizer="v", folder=tmp_path)
    recommender = ByRank()
    settings = {"verbalizer": "v", "folder": tmp_path}
    if change == "texts":
        texts = ["t"] * 8 + ["changed"]
    elif change == "digest":
        recommender.digest = "other weights"
    else:
        settings[change] = redraws(examples) if change == "slates" else 1
    with pytest.raises(InputError, match="other examples, texts, slates or settings"):
        decide_in_chunks(recommender, examples, texts, **settings)


def test_what_does_not_fit_is_refused():
    examples = make_examples()
    with pytest.raises(InputError, match="2 texts for 9 examples"):
        decide(ByRank(), examples, ["a", "b"], verbalizer="v")
    with pytest.raises(InputError, match="repeated example_id"):
        decide(ByRank(), pl.concat([examples, examples.head(1)]), ["a"] * 10, verbalizer="v")
    with pytest.raises(InputError, match="example e8 and 0 more: have no slate"):
        decide(ByRank(), examples, ["a"] * 9, verbalizer="v", slates=own_slates(examples).head(8))
    with pytest.raises(InputError, match="lacks its target"):
        decide(ByRank(), examples.with_columns(target_item_id=pl.lit("x")), ["a"] * 9, verbalizer="v")

    class Short(ByRank):
        def rank(self, queries, slates):
            return [np.zeros(2) for _ in slates]

    with pytest.raises(InputError, match=r"scores of shape \(2,\) for a slate of 5 \(example e0\)"):
        decide(Short(), examples, ["a"] * 9, verbalizer="v")
    assert decide(ByRank(), examples.head(0), [], verbalizer="v").height == 0


def test_texts_are_aligned_by_example():
    examples = make_examples(3)
    table = pl.DataFrame(
        {"example_id": ["e2", "e0", "e1", "e0"], "verbalizer": ["v", "v", "v", "w"], "text": list("cabx")}
    )
    assert aligned_texts(examples, table, "v") == ["a", "b", "c"]
    with pytest.raises(InputError, match="has no text for 2 of 3 examples"):
        aligned_texts(examples, table, "w")
