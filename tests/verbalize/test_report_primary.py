"""Claims listed together: the adjustment and the shuffle decide the verdict, and both are recomputed."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import polars as pl
import pytest

from recsys.comparison import compare
from recsys.controls import surviving_gain
from recsys.errors import InputError
from recsys.significance import holm
from recsys.storage import read_json, write_json, write_text
from verbalize.report import ledger
from verbalize.report.artefacts import outcomes_table, read_artefact, write_artefact
from verbalize.report.claims import Claim, Estimator
from verbalize.report.console import render_console
from verbalize.report.data import ReportData, Shown
from verbalize.report.estimators import RECOMMENDER, decisions_of
from verbalize.report.html import render_html
from verbalize.report.primary import p_of
from verbalize.report.views import claim_verdict

ARTEFACT = "experiments/results/artefacts/toy.csv"
HITS = {  # of 100 users with one target each
    "learned": range(4, 43),
    "template": range(30),  # 13 users won and 4 lost: an interval above 0, a p of about 0.03
    "constant": range(3, 43),
    "nothing": range(0),
    "shuffled": range(4, 31),  # 27 of the 39 hits stay when texts change owners
}


def decided(hits: dict[str, Iterable[int]]) -> pl.DataFrame:
    rows = [
        (f"e{user}", f"u{user}", arm, "lm", 0, 0, [0.0] * 10, 1 if user in set(found) else 5)
        for arm, found in hits.items()
        for user in range(100)
    ]
    names = ["example_id", "user_id", "verbalizer", "recommender", "seed", "slate_index", "scores", "rank"]
    return pl.DataFrame(rows, schema=names, orient="row")


def enter(root: Path, rivals: dict[str, str], shuffled: str | None = None, **settings: object) -> None:
    """A ledger of claims toy.<name>, learned against each rival, listed together."""
    for name, rival in rivals.items():
        ledger.write_claim(
            root,
            name,
            f"learned against {rival}",
            unit="recall@1 difference",
            target=0.0,
            estimator=Estimator("paired_difference", {"a": "learned", "b": rival}),
            artefact=ARTEFACT,
            command="c",
            family=list(rivals),
            shuffled=shuffled,
            **settings,  # type: ignore[arg-type]
        )
    ledger.judge_families(root)
    ledger.assemble(root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_artefact(outcomes_table(decided(HITS), "salt", "{verbalizer}"), tmp_path / ARTEFACT)
    return tmp_path


FOUR = {"toy.template": "template", "toy.constant": "constant", "toy.nothing": "nothing", "toy.shuffled": "shuffled"}


def test_an_interval_that_excludes_0_is_not_enough_among_four(root: Path) -> None:
    enter(root, FOUR)
    claims = ledger.load_claims(root)
    rows = decisions_of(read_artefact(root / ARTEFACT), list(HITS))
    p = {name: compare(rows, ("learned", RECOMMENDER), (rival, RECOMMENDER)).p for name, rival in FOUR.items()}
    assert {name: claim.p_holm for name, claim in claims.items()} == pytest.approx(holm(p), abs=1e-6)
    template, nothing = claims["toy.template"], claims["toy.nothing"]
    assert template.low is not None and template.low > 0 and p["toy.template"] < 0.05 <= (template.p_holm or 0)
    assert (template.status, nothing.status) == ("missed", "met")
    assert ledger.verify(root) == []
    assert f"adjusted p {template.p_holm:.3f}" in ledger.listing(claims)


def test_alone_the_same_difference_is_met(root: Path) -> None:
    enter(root, {"toy.template": "template"})
    claim = ledger.load_claims(root)["toy.template"]
    assert claim.status == "met" and claim.p_holm is not None and claim.p_holm < 0.05
    assert replace(claim, family=(), p_holm=None).status == "met"


def test_a_member_without_a_measurement_still_counts(root: Path) -> None:
    enter(root, {"toy.template": "template"})
    alone = ledger.load_claims(root)["toy.template"].p_holm
    for name in ("toy.template", "toy.late"):
        ledger.write_claim(
            root,
            name,
            "s",
            unit="recall@1 difference",
            target=0.0,
            estimator=Estimator("paired_difference", {"a": "learned", "b": "template"}),
            artefact=ARTEFACT if name == "toy.template" else None,
            command="c",
            note="not yet",
            family=["toy.template", "toy.late"],
        )
    found = ledger.judge_families(root)
    assert found["toy.late"].p_holm is None and alone is not None
    assert found["toy.template"].p_holm == pytest.approx(2 * alone, abs=2e-6)


def test_a_gain_that_mostly_survives_the_shuffle_fails(root: Path) -> None:
    enter(root, {"toy.nothing": "nothing", "toy.constant": "constant"}, shuffled="shuffled")
    claims = ledger.load_claims(root)
    assert claims["toy.nothing"].survives == pytest.approx(27 / 39, abs=1e-6)
    assert claims["toy.nothing"].p_holm is not None and claims["toy.nothing"].p_holm < 0.05
    assert claims["toy.nothing"].status == "missed" and "69% of the gain" in claim_verdict(claims["toy.nothing"])
    assert claims["toy.constant"].survives is None  # no gain, so no share of it
    rows = decisions_of(read_artefact(root / ARTEFACT), list(HITS))
    left = surviving_gain(rows, *((arm, RECOMMENDER) for arm in ("learned", "shuffled", "nothing")))
    assert left.fails and left.share == pytest.approx(27 / 39)
    few = {**HITS, "shuffled": range(4, 23)}  # 19 of 39: less than half
    write_artefact(outcomes_table(decided(few), "salt", "{verbalizer}"), root / ARTEFACT)
    enter(root, {"toy.nothing": "nothing", "toy.constant": "constant"}, shuffled="shuffled")
    assert ledger.load_claims(root)["toy.nothing"].status == "met" and ledger.verify(root) == []


def test_an_artefact_without_shuffled_texts_leaves_the_verdict_alone(root: Path) -> None:
    enter(root, {"toy.nothing": "nothing"}, shuffled="learned_shuffled")
    claim = ledger.load_claims(root)["toy.nothing"]
    assert (claim.survives, claim.status) == (None, "met") and ledger.verify(root) == []


@pytest.mark.parametrize("field, value", [("p_holm", 0.01), ("p_holm", None), ("survives", 0.1), ("survives", None)])
def test_an_edited_judgement_is_found(root: Path, field: str, value: float | None) -> None:
    enter(root, FOUR, shuffled="shuffled")
    name = "toy.template" if field == "p_holm" else "toy.nothing"
    path = root / ledger.CLAIMS / f"{name}.json"
    write_json(read_json(path) | {field: value}, path)
    ledger.assemble(root)
    assert [p.where for p in ledger.verify(root) if p.what.startswith(f"{field} is")] == [name]


def test_a_family_cannot_lose_a_member(root: Path) -> None:
    enter(root, FOUR)
    (root / ledger.CLAIMS / "toy.constant.json").unlink()
    ledger.assemble(root)
    assert any("toy.constant is not in the ledger" in p.what for p in ledger.verify(root))
    with pytest.raises(InputError, match="lists all of its claims"):
        Claim("a.b", "", "ratio", Estimator("x"), 1.0, 1.0, 1.0, family=("a.c",))


def test_p_is_of_the_target_where_the_interval_decides(root: Path) -> None:
    table = read_artefact(root / ARTEFACT)
    estimator = Estimator("paired_difference", {"a": "learned", "b": "nothing"})
    at_value = Claim("a.b", "", "recall@1 difference", estimator, 0.39, 0.3, 0.49, target=0.39)
    assert p_of(at_value, table) > 0.5 and p_of(replace(at_value, target=0.0), table) < 0.001
    assert p_of(replace(at_value, criterion="value"), table) < 0.001


def test_reports_and_documents_say_what_the_ledger_says(root: Path) -> None:
    text = "p = <!-- claim:toy.template.p_holm -->?<!-- /claim -->, <!-- claim:toy.nothing.p_value -->?<!-- /claim -->"
    enter(root, FOUR, shuffled="shuffled")
    write_text(text, root / "README.md")
    assert {p.what.partition(" reads")[0] for p in ledger.verify(root)} == {
        "toy.template.p_holm",
        "marker names the unknown claim toy.nothing.p_value",
    }
    assert ledger.main(["readme"], root) == 0
    claims = ledger.load_claims(root)
    p_holm = claims["toy.template"].p_holm
    assert f"p_holm -->{p_holm:.3f}<!--" in (root / "README.md").read_text()
    rows = decisions_of(read_artefact(root / ARTEFACT), list(HITS))
    shown = [
        Shown(
            name,
            compare(rows, ("learned", RECOMMENDER), (rival, RECOMMENDER)),
            p_holm=claims[name].p_holm,
            survives=claims[name].survives,
        )
        for name, rival in FOUR.items()
    ]
    assert [one.verdict for one in shown] == [
        "not significant (Holm)",
        "too small to conclude",
        "survives the shuffle",
        "better",
    ]
    report = ReportData("Toy", claims=tuple(claims.values()), comparisons=tuple(shown))
    for page in (render_console(report), render_html(report)):
        assert f"missed · adjusted p {p_holm:.3f}" in page and "not significant (Holm)" in page
        assert "69% of the gain survives the shuffle" in page


def test_claims_from_before_there_were_families_are_read(root: Path) -> None:
    enter(root, {"toy.nothing": "nothing"})
    value = asdict(ledger.load_claims(root)["toy.nothing"]) | {"seeds": [0]}
    old = {key: one for key, one in value.items() if key not in ("family", "shuffled", "p_holm", "survives")}
    claim = Claim.from_json(old, "old")
    assert (claim.family, claim.shuffled, claim.p_holm, claim.survives) == ((), None, None, None)
    assert Claim.from_json(claim.to_json(), "new") == claim
