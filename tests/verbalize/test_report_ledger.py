"""The ledger: numbers follow from artefacts and from nothing else, and every disagreement is found."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.errors import CorruptFileError, InputError
from recsys.storage import read_json, write_json, write_text
from verbalize.report import ledger
from verbalize.report.artefacts import (
    OUTCOME_COLUMNS,
    outcomes_table,
    read_artefact,
    timings_table,
    values_table,
    write_artefact,
)
from verbalize.report.claims import Claim, Estimator, format_claim
from verbalize.report.estimators import estimate

OUTCOMES = "experiments/results/artefacts/outcomes.csv.gz"


def decisions(users: int = 60, per_user: int = 4, lift: float = 0.3) -> pl.DataFrame:
    """Two arms, the learned one with two seeds: it ranks the target first more often by `lift`."""
    generator = np.random.default_rng(7)
    rows = []
    for user in range(users):
        for target in range(per_user):
            base = generator.integers(1, 11)
            rows.append((f"ex-{user}-{target}", f"user-{user}", "titles", "lm", 0, int(base)))
            rows += [
                (
                    f"ex-{user}-{target}",
                    f"user-{user}",
                    "actions",
                    "lm",
                    seed,
                    1 if generator.random() < lift else int(base),
                )
                for seed in (0, 1)
            ]
    frame = pl.DataFrame(
        rows, schema=["example_id", "user_id", "verbalizer", "recommender", "seed", "rank"], orient="row"
    )
    return frame.with_columns(
        slate_index=pl.lit(0, pl.Int32),
        rank=pl.col("rank").cast(pl.Int32),
        scores=pl.lit([0.0] * 10),
        target_index=pl.lit(0),
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one claim of each kind, assembled, and a README that quotes them."""
    write_artefact(outcomes_table(decisions(), "secret", "{verbalizer}"), tmp_path / OUTCOMES)
    write_artefact(
        timings_table({"slow": [10.0, 11.0, 10.5], "fast": [1.0, 1.1, 1.05]}),
        tmp_path / "experiments/results/artefacts/times.csv",
    )
    compare = {"a": "actions", "b": "titles"}
    common = {"artefact": OUTCOMES, "command": "verbalize run experiments/movielens.yaml"}
    ledger.write_claim(
        tmp_path,
        "toy.difference",
        "actions against titles",
        unit="recall@1 difference",
        target=0.0,
        estimator=Estimator("paired_difference", compare),
        **common,
    )
    ledger.write_claim(
        tmp_path,
        "toy.relative",
        "the same, relative",
        unit="fraction",
        target=99.0,
        criterion="value",
        note="the toy is small",
        estimator=Estimator("relative_difference", compare),
        **common,
    )
    ledger.write_claim(
        tmp_path,
        "bench.toy",
        "slow over fast",
        unit="ratio",
        target=5,
        criterion="value",
        command="make bench",
        artefact=tmp_path / "experiments/results/artefacts/times.csv",
        estimator=Estimator("ratio_of_times", {"slow": "slow", "fast": "fast"}),
    )
    ledger.write_claim(
        tmp_path,
        "bench.gpu",
        "on a GPU",
        unit="seconds",
        target=60,
        direction="lower",
        artefact=None,
        command="make bench",
        note="no GPU was at hand",
        estimator=Estimator("seconds", {"arm": "gpu"}),
    )
    write_text(
        "We win by <!-- claim:toy.difference --><!-- /claim --> and\n<!-- claims -->\n<!-- /claims -->\n",
        tmp_path / "README.md",
    )
    assert ledger.main(["readme"], tmp_path) == 0
    return tmp_path


def test_a_measurement_drops_the_reason_for_having_none_and_keeps_its_own_note(root: Path) -> None:
    artefact = root / "experiments/results/artefacts/times.csv"

    def written(note: str | None, measured: bool) -> str:
        return ledger.write_claim(
            root,
            "bench.late",
            "measured late",
            unit="ratio",
            target=1e9,
            artefact=artefact if measured else None,
            command="make bench",
            note=note,
            estimator=Estimator("ratio_of_times", {"slow": "slow", "fast": "fast"}),
        ).note

    assert [written("no time", False), written(None, False), written(None, True)] == ["no time", "no time", ""]
    assert [written("the toy is slow", True), written(None, True)] == ["the toy is slow"] * 2


def test_written_claims_verify_and_state_what_the_artefact_says(root: Path) -> None:
    assert ledger.verify(root) == []
    claim = ledger.load_claims(root)["toy.difference"]
    wide = (
        decisions()
        .group_by("example_id", "verbalizer")
        .agg(hit=(pl.col("rank") == 1).mean())
        .pivot(on="verbalizer", index="example_id")
    )
    assert claim.value == pytest.approx((wide["actions"] - wide["titles"]).mean(), abs=1e-6)
    assert claim.low is not None and claim.high is not None and 0 < claim.low < claim.value < claim.high
    assert (claim.n, claim.seeds, claim.status) == (240, (0, 1), "met")
    assert 0 < claim.n_effective <= 240


def test_missed_and_unmeasured_claims_are_listed_not_hidden(root: Path) -> None:
    claims = ledger.load_claims(root)
    assert {i: c.status for i, c in claims.items()} == {
        "toy.difference": "met",
        "toy.relative": "missed",
        "bench.toy": "met",
        "bench.gpu": "not measured",
    }
    text = ledger.listing(claims)
    assert "MISSED  toy.relative" in text and "why: the toy is small" in text and "4 claims, 1 missed" in text
    assert "**missed**" in (root / "README.md").read_text() and "no GPU was at hand" in (root / "README.md").read_text()


@pytest.mark.parametrize(
    "field, value",
    [("value", 0.5), ("low", -1.0), ("high", 1.0), ("n", 1000), ("n_effective", 5000.0), ("seeds", [0, 1, 2])],
)
def test_an_edited_number_is_found(root: Path, field: str, value: object) -> None:
    path = root / ledger.CLAIMS / "toy.difference.json"
    write_json(read_json(path) | {field: value}, path)
    ledger.assemble(root)
    assert any(p.where == "toy.difference" and p.what.startswith(field) for p in ledger.verify(root))
    assert ledger.main(["verify"], root) == 1


def test_an_edited_artefact_is_found_and_a_missing_one_too(root: Path) -> None:
    table = read_artefact(root / OUTCOMES)
    write_artefact(
        table.with_columns(rank=pl.when(pl.col("arm") == "actions").then(1).otherwise("rank").cast(pl.Int32)),
        root / OUTCOMES,
    )
    assert {p.where for p in ledger.verify(root)} == {"toy.difference", "toy.relative"}
    (root / OUTCOMES).unlink()
    assert "its artefact experiments/results/artefacts/outcomes.csv.gz is missing" in {
        p.what for p in ledger.verify(root)
    }


def test_documents_and_assembly_are_checked(root: Path) -> None:
    readme = root / "README.md"
    good = readme.read_text()
    readme.write_text(
        good.replace("We win by <!-- claim:toy.difference -->+0.", "We win by <!-- claim:toy.difference -->+9.")
    )
    assert ["toy.difference reads" in str(p) for p in ledger.verify(root)] == [True]
    readme.write_text(good + "<!-- claim:no.such -->+1<!-- /claim --> <!-- claim:toy.difference --> lost")
    assert [p.what for p in ledger.verify(root)] == [
        "marker names the unknown claim no.such",
        "1 claim marker(s) without a partner",
    ]
    readme.write_text(good.replace("| met |", "| perfect |"))
    assert [p.what for p in ledger.verify(root)] == ["the table of claims is not the ledger's"]
    assert ledger.main(["readme"], root) == 0 and readme.read_text() == good
    (root / ledger.ASSEMBLED).unlink()
    assert [p.where for p in ledger.verify(root)] == [str(ledger.ASSEMBLED)]


def test_broken_claim_files_are_named(root: Path) -> None:
    path = root / ledger.CLAIMS / "toy.difference.json"
    value = read_json(path)
    for broken in (
        "{",
        json.dumps(value | {"colour": 1}),
        json.dumps({k: v for k, v in value.items() if k != "unit"}),
        json.dumps(value | {"value": None}),
        json.dumps(value | {"value": "high"}),
    ):
        path.write_text(broken)
        (problem,) = ledger.verify(root)
        assert "Remedy" in problem.what
    write_json(value | {"id": "toy.other"}, path)
    assert "named after its id" in ledger.verify(root)[0].what


def test_artefacts_stay_inside_the_repository(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "times.csv"
    write_artefact(timings_table({"x": [1.0]}), elsewhere)
    with pytest.raises(InputError, match="inside the repository"):
        ledger.write_claim(
            root,
            "bench.out",
            "s",
            unit="seconds",
            estimator=Estimator("seconds", {"arm": "x"}),
            artefact=elsewhere,
            command="c",
        )


def test_outcomes_hide_ids_and_refuse_anything_else() -> None:
    table = outcomes_table(decisions(3), "secret", "{verbalizer} by {recommender}")
    assert list(table.columns) == list(OUTCOME_COLUMNS) and set(table["arm"]) == {"titles by lm", "actions by lm"}
    text = table.write_csv()
    assert "user-" not in text and "ex-" not in text
    assert table["user"].n_unique() == 3 and table["example"].n_unique() == 12
    assert set(table["user"]).isdisjoint(outcomes_table(decisions(3), "other", "{verbalizer}")["user"])
    with pytest.raises(InputError, match="secret"):
        outcomes_table(decisions(3), "")
    with pytest.raises(InputError, match="nothing else"):
        write_artefact(table.with_columns(title=pl.lit("A made-up film")), "never-written.csv")


def test_artefact_files_are_reproducible_and_corruption_is_named(tmp_path: Path) -> None:
    table = outcomes_table(decisions(5), "s")
    for name in ("a.csv", "a.csv.gz"):
        write_artefact(table, tmp_path / name)
        first = (tmp_path / name).read_bytes()
        write_artefact(outcomes_table(decisions(5).sample(fraction=1.0, shuffle=True, seed=1), "s"), tmp_path / name)
        assert (tmp_path / name).read_bytes() == first
        assert read_artefact(tmp_path / name).equals(table)
        (tmp_path / name).write_bytes(first[: len(first) // 2] + b"\xff")
        with pytest.raises(CorruptFileError, match="Remedy"):
            read_artefact(tmp_path / name)


def test_estimators_against_known_answers() -> None:
    values = pl.DataFrame(
        [
            (f"e{i}", f"u{i // 2}", arm, 0, i + gain)
            for i in range(40)
            for arm, gain in (("before", 0.0), ("after", 0.25))
        ],
        schema=["example_id", "user_id", "arm", "seed", "value"],
        orient="row",
    )
    margin = estimate("mean_difference", values_table(values, "s"), {"a": "after", "b": "before"})
    assert (margin.value, margin.low, margin.high, margin.n) == pytest.approx((0.25, 0.25, 0.25, 40))
    times = timings_table({"slow": [6.0, 6.0, 6.0], "fast": [1.0, 3.0, 2.0]})
    ratio = estimate("ratio_of_times", times, {"slow": "slow", "fast": "fast"})
    assert ratio.value == 3.0 and ratio.low == 2.0 and ratio.high == 6.0
    one = estimate("seconds", timings_table({"demo": [900.0]}), {"arm": "demo"})
    assert (one.value, one.low, one.high, one.n) == (900.0, 900.0, 900.0, 1)
    best = outcomes_table(decisions(), "s", "{verbalizer}")
    room = estimate("headroom", best, {"pool": ["titles", "actions"], "choose_by": "mrr"})
    assert room.low <= room.value <= room.high and (room.n, room.n_effective) == (240, 60)
    relative = estimate(
        "relative_difference", outcomes_table(decisions(), "s", "{verbalizer}"), {"a": "titles", "b": "titles"}
    )
    assert (relative.value, relative.low, relative.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "name, parameters, match",
    [
        ("magic", {}, "must be one of"),
        ("paired_difference", {"a": "titles", "b": "nobody"}, "nobody"),
        ("paired_difference", {"a": "titles", "c": "actions"}, "does not fit"),
        ("seconds", {"arm": "titles"}, "does not fit"),
        ("paired_difference", {"a": "titles", "b": "actions", "metric": "luck"}, "luck"),
    ],
)
def test_estimators_refuse_what_they_cannot_estimate(name: str, parameters: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        estimate(name, outcomes_table(decisions(), "s", "{verbalizer}"), parameters)


def test_arms_that_decided_different_examples_are_not_compared() -> None:
    part = decisions().filter(~((pl.col("verbalizer") == "titles") & (pl.col("example_id") == "ex-0-0")))
    with pytest.raises(InputError, match="different examples"):
        estimate("paired_difference", outcomes_table(part, "s", "{verbalizer}"), {"a": "actions", "b": "titles"})


@pytest.mark.parametrize(
    "unit, numbers, expected",
    [
        ("recall@1 difference", (-0.0001, -0.2, 0.1), "+0.000 [−0.200, +0.100]"),
        ("seconds", (1140.4, 1100, 1201), "1,140 s [1,100, 1,201]"),
        ("nats", (0.1234, 0.1, 0.2), "+0.123 nats [+0.100, +0.200]"),
        ("fraction", (-0.5, -0.6, -0.4), "−50.0% [−60.0%, −40.0%]"),
    ],
)
def test_formats(unit: str, numbers: tuple[float, float, float], expected: str) -> None:
    assert format_claim(Claim("a.b", "", unit, Estimator("x"), *numbers)) == expected
