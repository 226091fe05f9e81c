"""The whole ExpRAG study in miniature: a tiny model that climbs ladders, resumed, repeated in part, judged."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from agents_bench import LadderBench, word_vectors
from safetensors.torch import load_file
from tiny_run import Recorder, model_with_chat

from recsys.errors import InputError
from recsys.models.settings import LoraSettings
from recsys.storage import read_json
from verbalize.agents.expert import GameSet
from verbalize.agents.exprag import RetrievalConfig
from verbalize.agents.exprag_claims import CLAIMS, COMPARISONS, SCIENCEWORLD, claims_of
from verbalize.agents.exprag_development import MISSING
from verbalize.agents.exprag_settings import (
    PARTS,
    Ablations,
    Config,
    Families,
    Games,
    PlayConfig,
    cells_of,
)
from verbalize.agents.exprag_study import carry_out
from verbalize.agents.pool import LocalEnvironments
from verbalize.agents.sft_settings import SftConfig
from verbalize.agents.study import StudyResult, load_study
from verbalize.config import plain

STUDY = Path(__file__).parents[2] / "experiments" / "agents" / "exprag.yaml"


@pytest.fixture(scope="module")
def config(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    model = model_with_chat(tiny_model_dir, tmp_path_factory.mktemp("study") / "tiny")
    return Config(
        "tiny",
        Families((GameSet("ladder", 1, 3), GameSet("ladder", 2, 3)), (GameSet("ladder", 3, 4),)),
        model=str(model),
        seeds=(1, 2),
        games=Games(train=3, bank=2, failures=1, selection=1, development=2, test=3),
        sft=SftConfig(epochs=2, batch_size=4, learning_rate=3e-3, lora=LoraSettings(4, 8)),
        retrieval=RetrievalConfig(k=1, budget=120, observation_words=4),
        memory_dropout=0.2,
        ablations=Ablations(k=(1, 2), dynamic=True),
        play=PlayConfig(environments=3),
    )


def study(config: Config, folder: Path) -> StudyResult:
    bench = LadderBench()
    environments = LocalEnvironments(bench.make, config.play.environments)
    return carry_out(config, folder, Recorder(), "verbalize agents", bench, environments, word_vectors)


@pytest.fixture(scope="module")
def done(config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyResult]:
    folder = tmp_path_factory.mktemp("done")
    return folder, study(config, folder)


def test_every_arm_plays_the_same_games(config: Config, done: tuple[Path, StudyResult]) -> None:
    _, result = done
    assert result.values is not None
    games: dict[str, set[str]] = {"seen": set(), "unseen": set()}
    for (arm, seed), rows in result.values.group_by("arm", "seed"):
        group = str(arm).split("/")[1]
        games[group] = games[group] or set(rows["example_id"])
        assert set(rows["example_id"]) == games[group] and len(rows) == len(games[group]), (arm, seed)
    assert (len(games["seen"]), len(games["unseen"])) == (6, 3)
    assert set(result.values["arm"].unique()) == {plan.arm for plan in cells_of(config)}
    trained = result.values.filter(arm="exprag-lora/unseen/matched")
    assert trained["seed"].unique().sort().to_list() == [1, 2]
    assert result.facts["banks"] == {
        "seen": {"games": 6, "solutions": 6, "failures": result.facts["banks"]["seen"]["failures"]},
        "unseen": {"games": 2, "solutions": 2, "failures": result.facts["banks"]["unseen"]["failures"]},
    }
    assert "exprag-lora/unseen/matched/dynamic" in result.text and "Differences" in result.text


def test_the_same_study_again_trains_and_plays_nothing(config: Config, done: tuple[Path, StudyResult]) -> None:
    folder, result = done
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = study(config, folder)
    assert again.facts == result.facts and again.text == result.text
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_what_is_missing_is_played_again_and_comes_out_the_same(config: Config, done: tuple[Path, StudyResult]) -> None:
    folder, result = done
    cells = sorted((folder / "cells").glob("*.json"))
    old = [read_json(path)["games"] for path in cells]
    for path in cells[::3]:
        path.unlink()
    assert study(config, folder).facts["rates"] == result.facts["rates"]
    assert [read_json(path)["games"] for path in cells] == old


def test_a_changed_option_repeats_what_depends_on_it(config: Config, done: tuple[Path, StudyResult]) -> None:
    folder, _ = done
    adapters = set((folder / "adapters").iterdir())
    cells = set((folder / "cells").iterdir())
    study(replace(config, memory_dropout=0.5), folder)
    new = set((folder / "adapters").iterdir()) - adapters
    assert len(new) == 2, "ExpRAG-LoRA of both seeds, not LoRA"
    # Per seed: two groups x three indexes, and two ablations.
    assert len(set((folder / "cells").iterdir()) - cells) == 2 * (6 + 2)


def test_adapters_carry_their_card_and_curve(done: tuple[Path, StudyResult]) -> None:
    folder, result = done
    cards = [read_json(path) for path in (folder / "adapters").glob("*/adapter/card.json")]
    assert any("retrieved ones" in card["note"] for card in cards)
    assert all(card["data"] == "ladder-1, ladder-2: 6 solutions" for card in cards)
    for curve in result.facts["adapters"].values():
        assert set(curve["validations"]) == {"1", "2"} and curve["trajectories"] == 6
    plain, shown = (result.facts["adapters"][f"{agent} seed 1"]["tokens"] for agent in ("lora", "exprag-lora"))
    assert shown > plain, "the memory stands in the training contexts"


def test_development_measures_lora_and_claims_nothing(config: Config, done: tuple[Path, StudyResult]) -> None:
    result = study(replace(config, phase="development"), done[0])
    assert result.values is None and not result.claims
    assert set(result.facts["rates"]) == {f"{a}/{g}/empty" for a in ("base", "lora") for g in ("seen", "unseen")}
    assert result.facts["games"] == {"seen": 4, "unseen": 2}
    won = result.facts["rates"]["lora/unseen/empty"]["value"]
    assert result.text.splitlines()[-1] == result.facts["development"]["verdict"]
    assert f"{won:.2f} unseen" in result.text.splitlines()[-1]


def test_an_evaluation_says_what_development_found(
    config: Config, done: tuple[Path, StudyResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = done
    assert before.facts["development"] == {"verdict": MISSING, "ran": False} and MISSING in before.text
    assert before.claims == ()  # three games, two seeds
    monkeypatch.setattr("verbalize.agents.exprag_claims.LEAST_GAMES", 3)
    monkeypatch.setattr("verbalize.agents.exprag_claims.LEAST_SEEDS", 2)
    other = replace(config, seeds=(2, 1))
    assert {claim.note for claim in study(other, folder).claims} == {MISSING}
    found = study(replace(config, phase="development"), folder).facts["development"]
    assert found["ran"] and found["games"] == {"seen": 4, "unseen": 2}
    after = study(config, folder)
    assert after.facts["development"] == found and found["verdict"] in after.text
    assert [(claim.id, claim.note) for claim in after.claims[:2]] == [(claim.id, found["verdict"]) for claim in CLAIMS]
    assert {(claim.a, claim.b) for claim in after.claims} == set(COMPARISONS)
    # Another first seed, another number of games: what was measured is not about them.
    assert study(other, folder).facts["development"]["ran"] is False
    more = replace(config, games=replace(config.games, development=3))
    assert study(more, folder).facts["development"]["ran"] is False


def test_what_matters_most_is_played_first(config: Config, done: tuple[Path, StudyResult]) -> None:
    folder, whole = done
    plans = cells_of(config)
    parts = [PARTS.index(plan.part) for plan in plans]
    assert parts == sorted(parts) and set(parts) == set(range(len(PARTS)))
    headline = [plan for plan in plans if plan.part in ("claims", "headline")]
    assert {plan.arm for plan in headline} == {
        f"{arm}/{group}/{index}"
        for arm, index in (("base", "empty"), ("exprag", "matched"), ("lora", "empty"), ("exprag-lora", "matched"))
        for group in ("seen", "unseen")
    }
    assert [plan.group for plan in headline] == ["unseen"] * 6 + ["seen"] * 6
    assert {arm for claim in CLAIMS for arm in (claim.a, claim.b)} == {plan.arm for plan in headline[:6]}
    few = replace(config, ablations=replace(config.ablations, seeds=1))
    assert {plan.seed for plan in cells_of(few) if plan.part == "ablations"} == {1}

    before = set((folder / "cells").iterdir())
    first = study(replace(config, through="claims"), folder)
    assert set(first.facts["rates"]) == {plan.arm for plan in headline[:6]} and first.claims == whole.claims
    early = study(replace(config, through="headline"), folder)
    assert set(early.facts["rates"]) == {plan.arm for plan in headline}
    assert all(early.facts["rates"][arm] == whole.facts["rates"][arm] for arm in early.facts["rates"])
    assert set(early.facts["differences"]) == {
        f"{a} - {b}" for a, b in COMPARISONS if {a, b} <= set(early.facts["rates"])
    }
    assert set((folder / "cells").iterdir()) == before


def test_an_ablation_is_compared_with_the_same_seeds(config: Config, done: tuple[Path, StudyResult]) -> None:
    """Seeds average first; the other seed's training must not be in the difference."""
    result = study(replace(config, ablations=replace(config.ablations, seeds=1)), done[0])
    assert result.values is not None
    mean = {
        arm: rows["value"].mean()
        for (arm,), rows in result.values.filter(seed=1).group_by("arm")
        if str(arm).startswith("exprag-lora/unseen/matched")
    }
    name, whole = "exprag-lora/unseen/matched/k=2", "exprag-lora/unseen/matched"
    found = result.facts["differences"][f"{name} - {whole}"]
    assert found["value"] == pytest.approx(mean[name] - mean[whole], abs=1e-6) and found["seeds"] == 1


def test_a_finished_cell_is_kept_when_the_next_one_fails(config: Config, tmp_path: Path) -> None:
    """Base and ExpRAG are on disk, named, when fine-tuning cannot even begin."""
    broken = replace(config, sft=replace(config.sft, learning_rate=1e30), through="claims")
    with pytest.raises(InputError, match="not finite"):
        study(broken, tmp_path)
    names = sorted(path.name.rsplit("-", 1)[0] for path in (tmp_path / "cells").iterdir())
    assert names == ["base.unseen.empty-seed0", "exprag.unseen.matched-seed0"]


def test_the_shipped_study_is_what_the_claims_need() -> None:
    shipped = load_study(STUDY)
    config = shipped.config
    assert shipped.kind == "exprag" and len(config.seeds) >= 3 and config.phase == "evaluation"
    for sets in (config.families.seen, config.families.unseen):
        assert len(sets) * config.games.test >= 100
    arms = {plan.arm for plan in cells_of(config)}
    assert {arm for claim in CLAIMS for arm in (claim.a, claim.b)} <= arms
    assert {arm for pair in COMPARISONS for arm in pair} <= arms
    assert len({(plan.arm, plan.seed) for plan in cells_of(config)}) == len(cells_of(config))
    assert any(arm.endswith("dynamic") for arm in arms) and any("k=" in arm for arm in arms)
    headline = {plan.seed for plan in cells_of(config) if plan.part == "claims" and plan.agent != "base"}
    assert headline == set(config.seeds)


def test_the_small_run_of_the_other_bench_is_described_and_claims_nothing() -> None:
    config = load_study(STUDY.with_name("scienceworld.yaml")).config
    claims = claims_of(config)
    assert {claim.id for claim in claims} == {claim.id for claim in SCIENCEWORLD}
    assert all(claim.target is None for claim in claims)
    assert {(claim.a, claim.b) for claim in claims} <= set(COMPARISONS)
    assert claims_of(replace(config, games=replace(config.games, test=9))) == ()
    assert claims_of(replace(config, bench="textworld")) == ()


def test_how_actions_are_written_decides_what_is_played_again(config: Config) -> None:
    assert PlayConfig().identity == (False,)  # the keys of recorded cells
    free = replace(config, play=replace(config.play, acting="generate"))
    assert len({one.play.identity for one in (config, free)}) == 2
    assert free.play.identity != replace(free.play, max_new_tokens=8).identity


def test_refusals(config: Config) -> None:
    sets = asdict(config)["families"]["seen"]
    with pytest.raises(InputError, match="each set once"):
        Families(tuple(GameSet(**one) for one in sets), (GameSet("ladder", 1, 9),))
    with pytest.raises(InputError, match="need static retrieval"):
        replace(config, retrieval=RetrievalConfig(query="dynamic"))
    with pytest.raises(InputError, match="cannot exceed the games in an index"):
        Games(train=3, bank=3, failures=4)
    with pytest.raises(InputError, match=r"ablations\.seeds = 0"):
        Ablations(seeds=0)
    with pytest.raises(InputError, match=r"play\.max_new_tokens = 0"):
        replace(config, play=PlayConfig(max_new_tokens=0))


def test_an_adapter_tuned_on_bfloat16_weights_is_float32_and_another_one(
    config: Config, done: tuple[Path, StudyResult], tmp_path: Path
) -> None:
    half = replace(config, sft=replace(config.sft, dtype="bfloat16"), seeds=(1,), through="claims")
    assert "dtype" not in plain(config.sft), "what was tuned before there was a choice keeps its key"
    result = study(half, tmp_path)
    names = {path.name for path in (tmp_path / "adapters").iterdir()}
    assert result.values is not None and not names & {path.name for path in (done[0] / "adapters").iterdir()}
    for path in (tmp_path / "adapters").glob("*/adapter"):
        weights = load_file(path / "adapter_model.safetensors")
        assert {value.dtype for value in weights.values()} == {torch.float32}
