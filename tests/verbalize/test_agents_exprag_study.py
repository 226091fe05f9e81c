"""The whole ExpRAG study in miniature: a tiny model that climbs ladders, resumed, repeated in part, judged."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from agents_bench import LadderBench, word_vectors
from tiny_run import Recorder, model_with_chat

from recsys.errors import InputError
from recsys.models.settings import LoraSettings
from recsys.storage import read_json
from verbalize.agents.expert import GameSet
from verbalize.agents.exprag import RetrievalConfig
from verbalize.agents.exprag_settings import (
    Ablations,
    Config,
    Families,
    Games,
    PlayConfig,
    cells_of,
)
from verbalize.agents.exprag_study import CLAIMS, COMPARISONS, carry_out
from verbalize.agents.pool import LocalEnvironments
from verbalize.agents.sft_settings import SftConfig
from verbalize.agents.study import StudyResult, load_study

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
    assert "LoRA on unseen families" in result.text and result.facts["games"] == {"seen": 4, "unseen": 2}


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


def test_refusals(config: Config) -> None:
    sets = asdict(config)["families"]["seen"]
    with pytest.raises(InputError, match="each set once"):
        Families(tuple(GameSet(**one) for one in sets), (GameSet("ladder", 1, 9),))
    with pytest.raises(InputError, match="need static retrieval"):
        replace(config, retrieval=RetrievalConfig(query="dynamic"))
    with pytest.raises(InputError, match="cannot exceed the games in an index"):
        Games(train=3, bank=3, failures=4)
