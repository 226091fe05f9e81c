"""A recipe on simulated logs: what the truth is used for, where it never appears, and the claims computed from it."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import Workshop
from tiny_run import Recorder, recipe_of, run
from verbalizers_frames import event, frame

from recsys.errors import InputError
from recsys.logs.engaged import EngagedConfig
from recsys.simulator.source import truth_of
from recsys.storage import read_json, read_parquet
from verbalize.pipeline import Context
from verbalize.recipe_sections import LEARNED
from verbalize.report.ledger import load_claims, verify
from verbalize.runs import RunResult
from verbalize.stages import oracle, samples
from verbalize.stages.evaluate import SHUFFLED
from verbalize.stages.log_files import load_log
from verbalize.verbalizers.actions import (
    DROP,
    DROP_METADATA,
    KEEP,
    KEEP_METADATA,
    ActionConfig,
    action_prompts,
    execute,
)

INLINE = {"users": 60, "works": 60, "days": 60, "seed": 5, "start_anywhere": 1.0}
CLAIMS = [
    {"id": "tiny.lift", "kind": "noise_drop_lift", "statement": "Lift", "target": 2.0, "criterion": "value"},
    {"id": "tiny.recall", "kind": "noise_drop_recall", "statement": "Recall", "target": 0.5, "criterion": "value"},
    {"id": "tiny.share", "kind": "share_of_bayes", "targets": "discovery", "statement": "Share", "target": None},
    {"id": "tiny.template", "kind": "share_of_bayes", "a": "best_template", "statement": "Share", "target": None},
    {"id": "tiny.logit", "kind": "share_of_bayes", "a": "popularity", "statement": "Share", "target": None},
    {"id": "tiny.discovery", "targets": "discovery", "statement": "Learned minus template"},
    {"id": "tiny.known", "targets": "known", "statement": "Learned minus template"},
    {"id": "tiny.all", "statement": "Learned minus template"},
]


def values_of(workshop: Workshop) -> dict[str, Any]:
    values = workshop.values | {"name": "simulated", "seeds": [0], "source": {"kind": "simulator", "inline": INLINE}}
    values["examples"] = values["examples"] | {
        "discovery_only": False,
        "slate": {"policy": "matched", "size": 4, "year_band": 200},
    }
    values["policy"] = values["policy"] | {"actions": {"show_event_type_in_prompt": True}}
    values["sample"] = values["sample"] | {"train": 4, "selection": 4, "report": 16}
    values["templates"], values["train"] = ["titles_metadata"], values["train"] | {"steps": 1}
    values["evaluation"] = values["evaluation"] | {
        "claims": CLAIMS,
        "baselines": ["popularity", "genre_overlap"],
        "untrained": [],
        "register": str(workshop.looks.with_name("simulated.json")),
    }
    return values


@pytest.fixture(scope="module")
def simulated(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Recorder, Path]:
    """The whole recipe on validation users, its claims recorded in a ledger of its own."""
    recorder, root = Recorder(), tmp_path_factory.mktemp("ledger")
    result = run(values_of(workshop), tmp_path_factory.mktemp("runs"), progress=recorder, record_in=root)
    return result, recorder, root


def test_the_oracle_stage_bounds_exactly_what_was_ranked(simulated: tuple[RunResult, Recorder, Path]) -> None:
    result, recorder, _ = simulated
    assert recorder.began()[-3:] == ["evaluate", "oracle", "report"]
    bound = read_parquet(result.stages["oracle"] / oracle.BOUND)
    decisions = read_parquet(result.stages["evaluate"] / "decisions.parquet").filter(pl.col("verbalizer") == LEARNED)
    keys = ["example_id", "slate_index"]
    assert bound.select(keys).sort(keys).equals(decisions.select(keys).sort(keys)) and len(bound) == 2 * 16
    assert bound["bound"].is_between(0.25, 1.0).all()
    assert (bound.filter(pl.col("kind") != "new")["bound"] == 1).all()
    examples = read_parquet(result.stages["examples"] / "examples.parquet").select("example_id", "is_discovery")
    joined = bound.join(examples, on="example_id")
    assert (
        joined["is_discovery"].equals((joined["kind"] == "new").alias("is_discovery")) and joined["is_discovery"].any()
    )


def test_noise_counts_agree_with_texts_and_truth(
    simulated: tuple[RunResult, Recorder, Path], workshop: Workshop
) -> None:
    """Kept events counted from the written texts, noise from the truth: nothing here runs the policy again."""
    result, _, _ = simulated
    noise = read_parquet(result.stages["oracle"] / oracle.NOISE).pivot(
        "arm", index=["example_id", "user_id"], values="value"
    )
    texts = read_parquet(result.stages["evaluate"] / "verbalizations.parquet").filter(pl.col("verbalizer") == LEARNED)
    examples = read_parquet(result.stages["examples"] / "examples.parquet")
    joined = noise.join(texts, on="example_id").join(examples.select("example_id", "history"), on="example_id")
    assert len(joined) == 16
    truth = {
        row[:3]: row[3] for row in truth_of("", INLINE).select("user_id", "item_id", "event_time", "is_noise").rows()
    }
    for row in joined.iter_rows(named=True):
        planted = [truth[row["user_id"], one["item_id"], one["event_time"]] for one in row["history"]]
        assert (row["shown"], row["noise"]) == (len(planted), sum(planted))
        titles = [one["title"] for one in row["history"]]
        kept = sum(row["text"].count(title) for title in set(titles)) if len(set(titles)) == len(titles) else None
        nested = any(a != b and a in b for a in titles for b in titles)
        if kept is not None and not nested:
            assert row["shown"] - row["dropped"] == kept
        assert 0 <= row["noise_dropped"] <= min(row["noise"], row["dropped"])
    facts = read_json(result.stages["oracle"] / "done.json")["facts"]
    assert facts["events"] == {name: joined[name].sum() for name in oracle.COUNTS}


def test_an_evaluation_that_kept_no_actions_is_named(
    simulated: tuple[RunResult, Recorder, Path], workshop: Workshop, tmp_path: Path
) -> None:
    """Asking every policy again took longer than evaluating; a stage of an earlier version says how to get them."""
    result, _, _ = simulated
    examples = read_parquet(result.stages["examples"] / "examples.parquet")
    context = Context(tmp_path, {**result.stages, "evaluate": tmp_path})
    with pytest.raises(InputError, match=r"seed 0.*delete"):
        oracle.noise_of(recipe_of(values_of(workshop)), context, examples, truth_of("", INLINE))


def test_claims_are_recomputed_from_evidence_and_equal_plain_arithmetic(
    simulated: tuple[RunResult, Recorder, Path], workshop: Workshop
) -> None:
    result, _, root = simulated
    claims = load_claims(root)
    assert set(claims) == {claim["id"] for claim in CLAIMS} and verify(root) == []
    events = read_json(result.stages["oracle"] / "done.json")["facts"]["events"]
    if events["dropped"] and events["noise_dropped"]:
        precision, base = events["noise_dropped"] / events["dropped"], events["noise"] / events["shown"]
        assert claims["tiny.lift"].value == pytest.approx(precision / base, abs=2e-6)
        assert claims["tiny.recall"].value == pytest.approx(events["noise_dropped"] / events["noise"], abs=2e-6)
    decisions = read_parquet(result.stages["evaluate"] / "decisions.parquet")
    examples = read_parquet(result.stages["examples"] / "examples.parquet").select("example_id", "is_discovery")
    bound = read_parquet(result.stages["oracle"] / oracle.BOUND).join(examples, on="example_id")
    decisions = decisions.join(examples, on="example_id").with_columns(hit=pl.col("rank") == 1)
    learned = decisions.filter(pl.col("verbalizer") == LEARNED)
    expected = learned.filter("is_discovery")["hit"].mean() / bound.filter("is_discovery")["bound"].mean()  # type: ignore[operator]
    assert claims["tiny.share"].value == pytest.approx(expected, abs=2e-6)
    popular = decisions.filter(pl.col("recommender") == "popularity")["hit"].mean()
    assert claims["tiny.logit"].value == pytest.approx(popular / bound["bound"].mean(), abs=2e-6)  # type: ignore[operator]
    roles = read_json(result.stages["templates"] / "roles.json")
    template = decisions.filter(pl.col("verbalizer") == roles["best_template"])
    for name, wanted in (("discovery", [True]), ("known", [False]), ("all", [True, False])):
        means = [part.filter(pl.col("is_discovery").is_in(wanted))["hit"].mean() for part in (learned, template)]
        assert claims[f"tiny.{name}"].value == pytest.approx(means[0] - means[1], abs=2e-6)  # type: ignore[operator]
    assert claims["tiny.discovery"].n + claims["tiny.known"].n == claims["tiny.all"].n == 16


def test_the_report_tells_discoveries_from_what_was_known(simulated: tuple[RunResult, Recorder, Path]) -> None:
    result, _, _ = simulated
    html = (result.folder / "report.html").read_text()
    for words in ("1 discovery", "3 again", "Recall@1 on discoveries", "Bayes optimum", "Planted noise"):
        assert words in html
    assert "tiny.share" in result.console


def test_truth_is_in_no_table_that_verbalizers_or_recommenders_read(
    simulated: tuple[RunResult, Recorder, Path],
) -> None:
    result, _, root = simulated
    secret = {"is_noise", "member", "phase"}
    for stage, folder in result.stages.items():
        for path in folder.rglob("*.parquet"):
            columns = set(pl.read_parquet_schema(path))
            assert not columns & secret, path
            assert stage == "oracle" or "kind" not in columns or path.name == "items.parquet", path
    assert not list(root.rglob("*.parquet"))


def test_prompts_show_what_tells_noise_apart_and_texts_stay_as_they_are() -> None:
    rows = frame(
        [
            event("Heat", 1995, ["Crime"], event_type="play", completion=0.93),
            event("Up", event_type="preview", completion=0.02),
        ]
    )
    plain, shown = ActionConfig(), ActionConfig(show_event_type_in_prompt=True)
    lines = action_prompts(rows, shown)[0].splitlines()[-2:]
    assert lines[0].endswith("Heat (1995; Crime), play, watched 93% ->")
    assert lines[1].endswith("Up, preview, watched 2% ->")
    assert "preview" not in action_prompts(rows, plain)[0]
    assert execute(rows, [[KEEP_METADATA, KEEP]], shown) == execute(rows, [[KEEP_METADATA, KEEP]], plain)


def test_dropped_events_are_counted_once_each() -> None:
    history = [event("a", minutes=1), event("b", minutes=2), event("a", minutes=3)]
    examples = frame(history, history[:1]).with_columns(user_id=pl.Series(["u", "v"]))
    truth = pl.DataFrame(
        [
            {"user_id": user, "item_id": one["item_id"], "event_time": one["event_time"], "event_type": "rating"}
            | {"is_noise": one["item_id"] == "b" or user == "v"}
            for user, events in (("u", history), ("v", history[:1]))
            for one in events
        ],
        schema_overrides={"event_time": pl.Datetime("us", "UTC")},
    )
    found = oracle.count_dropped(examples, [[KEEP, DROP, DROP_METADATA], [KEEP]], truth)
    assert found.select(oracle.COUNTS).rows() == [(3, 1, 2, 1), (1, 1, 0, 0)]
    with pytest.raises(InputError, match=r"1 of 4 shown events.*are not of this simulation"):
        oracle.count_dropped(examples, [[KEEP] * 3, [KEEP]], truth.head(3))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["source={kind: table, path: x}"], ["tiny.lift", "source.kind table", "simulator"]),
        (["policy.kind=rewrite", "warm_start=null"], ["tiny.lift", "policy.kind rewrite drops none"]),
        ([f"evaluation.claims={json.dumps([CLAIMS[3] | {'a': 'nobody'}])}"], ["tiny.template", "nobody"]),
    ],
)
def test_claims_that_cannot_be_computed_are_refused_at_once(
    workshop: Workshop, overrides: list[str], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        recipe_of(values_of(workshop), *overrides)
    assert all(word in str(caught.value) for word in words)


def test_a_recipe_of_real_logs_has_no_oracle(workshop: Workshop) -> None:
    from verbalize.stages import stages_of

    names = [stage.name for stage in stages_of(recipe_of(workshop.values), "c")]
    assert "oracle" not in names
    keys = [
        stage.config["actions"]
        for option in ("false", "true")
        for stage in stages_of(recipe_of(workshop.values, f"policy.actions.show_event_type_in_prompt={option}"), "c")
        if stage.name == "pool"
    ]
    assert "show_event_type_in_prompt" not in keys[0] and keys[1]["show_event_type_in_prompt"] is True


def test_targets_of_no_kind_are_refused(simulated: tuple[RunResult, Recorder, Path]) -> None:
    result, _, _ = simulated
    only = read_parquet(result.stages["examples"] / "examples.parquet").filter("is_discovery").head(3)
    assert samples.of_targets(only, result.stages, "discovery").equals(only)
    with pytest.raises(InputError, match="targets known: none of 3 examples"):
        samples.of_targets(only, result.stages, "known")
    assert EngagedConfig(completion_at_least=0.5) == load_log(result.stages["logs"]).engaged
    assert SHUFFLED in set(read_parquet(result.stages["evaluate"] / "decisions.parquet")["verbalizer"])
