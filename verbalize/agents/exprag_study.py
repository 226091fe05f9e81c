"""The ExpRAG study (arXiv 2603.18272), `kind: exprag`: does experience shown in training and in play carry an agent to
families of games it was not trained on?

    banks -> adapters (LoRA with and without memory, per seed) -> cells -> rates, differences, claims

Everything lies under keys of what it depends on: `banks/`, `adapters/` (with checkpoints), `development/` and `cells/`,
one file per cell, written when its games are over. So a killed study goes on where it was, and a changed option repeats
what depends on it. Cells are played in order of importance, and `through` ends the study early. Deviations from the
paper: 135M parameters, scoring of the admissible actions instead of free generation, several seeds, intervals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from verbalize.agents.environment import Task
from verbalize.agents.evaluation import (
    Cell,
    Rate,
    difference,
    key_of,
    play_cell,
    rate_facts,
    success_rates,
    values_of,
)
from verbalize.agents.expert import Bench, TextWorldBench, tasks_of
from verbalize.agents.exprag import ExpRAG, Retriever
from verbalize.agents.exprag_agents import (
    FORM,
    VERSION,
    Bank,
    Workshop,
    bank,
    policy_of,
    token_counter,
    train_agent,
)
from verbalize.agents.exprag_claims import COMPARISONS, claims_of
from verbalize.agents.exprag_development import (
    MISSING,
    Verdict,
    development_cells,
    keep_verdict,
    kept_verdict,
    verdict_path,
)
from verbalize.agents.exprag_report import development_text, evaluation_text, families_of
from verbalize.agents.exprag_settings import GROUPS, CellPlan, Config, Group, cells_of
from verbalize.agents.pool import EnvironmentPool, Environments, PoolConfig
from verbalize.agents.rollouts import Memory, Policy
from verbalize.agents.study import StudyResult
from verbalize.experience.embedding import Embedder
from verbalize.pipeline import Progress

if TYPE_CHECKING:
    from recsys.models.loading import LanguageModel

__all__ = ["Config", "carry_out", "claims_of", "run"]


def run(config: Config, folder: Path, progress: Progress, command: str) -> StudyResult:
    """Carry the study out; games lie beside the studies, since several of them play the same ones."""
    bench: Bench
    if config.bench == "textworld":
        bench = TextWorldBench(folder.parent / "games", config.play.processes)
        pool = PoolConfig(config.play.environments, preload=("verbalize.agents.textworld_env",))
    else:
        from verbalize.agents.scienceworld_bench import ScienceWorldBench

        bench = ScienceWorldBench(folder.parent / "scienceworld")
        pool = PoolConfig(config.play.environments)
    with EnvironmentPool(bench.make, pool) as environments:
        return carry_out(config, folder, progress, command, bench, environments)


def carry_out(
    config: Config,
    folder: Path,
    progress: Progress,
    command: str,
    bench: Bench,
    environments: Environments,
    embedder: Embedder | None = None,
) -> StudyResult:
    """The study on any bench. `embedder` stands for the model that `config.embedding` names."""
    from recsys.models.loading import resolve_model, weights_digest

    digest = weights_digest(resolve_model(config.model))  # first: a model that is not there is missed at once
    work = Workshop(config, folder, bench, environments, progress, command, embedder)
    development = config.phase == "development"
    part, games = ("development", config.games.development) if development else ("test", config.games.test)
    tasks = {group: tasks_of(bench, config.families.of(group), part, games) for group in GROUPS}
    banks = {group: bank(work, group) for group in GROUPS}
    for group in GROUPS:
        progress.stage(f"bank {group}", "ready", ", ".join(f"{n} {what}" for what, n in banks[group].facts.items()))
    players = _Players(work, banks, digest)
    plans = development_cells(config) if development else cells_of(config)
    cells: dict[tuple[str, int], Cell] = {}
    for number, plan in enumerate(plans):
        cell = players.cell(plan, tasks[plan.group])
        cells[plan.arm, plan.seed] = cell
        progress.step("cells", number + 1, len(plans), f"{plan.arm} seed {plan.seed}: {cell.success:.2f}")
    values = values_of(cells)
    rates = success_rates(values)
    kept_at = verdict_path(folder, config, digest, banks["seen"])
    if development:
        won = {group: rates[f"lora/{group}/empty"].value for group in GROUPS}
        keep_verdict(Verdict(won, {group: len(tasks[group]) for group in GROUPS}), kept_at)
    verdict = kept_verdict(kept_at)
    in_words = MISSING if verdict is None else str(verdict)
    facts: dict[str, Any] = {
        "phase": config.phase,
        "through": config.through,
        "development": {"verdict": in_words} | ({"ran": False} if verdict is None else verdict.facts),
        "games": {group: len(tasks[group]) for group in GROUPS},
        "banks": {group: banks[group].facts for group in GROUPS},
        "adapters": players.curves,
        "families": families_of(cells),
        "seconds": round(sum(cell.seconds for cell in cells.values()), 1),
        "crashed": sum(game.crashed for cell in cells.values() for game in cell.games),
        "rates": rate_facts(rates),
    }
    if development:
        return StudyResult(facts, development_text(rates, facts["families"], in_words))
    differences = _differences(values, list(rates))
    facts["differences"] = rate_facts(differences)
    claims = tuple(replace(claim, note=in_words) for claim in claims_of(config))
    return StudyResult(facts, evaluation_text(rates, differences, facts), values, claims)


def _differences(values: pl.DataFrame, arms: Sequence[str]) -> dict[str, Rate]:
    """COMPARISONS as far as both sides were played, and each ablation against the arm that it varies."""
    found = {f"{a} - {b}": difference(values, a, b) for a, b in COMPARISONS if a in arms and b in arms}
    for arm in arms:
        if (whole := _whole(arm)) != arm:
            seeds = values.filter(pl.col("arm") == arm)["seed"].unique().to_list()
            found[f"{arm} - {whole}"] = difference(values.filter(pl.col("seed").is_in(seeds)), arm, whole)
    return found


class _Players:
    """Agents by name, trained on first use; the last model loaded is kept, as cells of an agent follow one another."""

    def __init__(self, work: Workshop, banks: Mapping[Group, Bank], base_digest: str) -> None:
        self._work, self._banks, self._digest = work, banks, base_digest
        self._loaded: tuple[str, LanguageModel] | None = None
        self.curves: dict[str, Any] = {}

    def cell(self, plan: CellPlan, tasks: Sequence[Task]) -> Cell:
        """The cell of a plan, played if it has not been, and written once its games are over."""
        adapter: Path | None = None
        if plan.agent != "base":
            adapter, curve = train_agent(self._work, plan.agent, plan.seed, self._banks["seen"], self._digest)
            self.curves[f"{plan.agent} seed {plan.seed}"] = {
                name: curve[name] for name in ("validations", "chosen", "trajectories", "tokens")
            }
        shown = None if plan.retrieval is None else self._banks[_index_group(plan)]
        key = key_of(
            VERSION,
            self._digest if adapter is None else adapter.parent.name,
            [[task.id, task.max_steps] for task in tasks],
            asdict(FORM),
            *self._work.config.play.identity,
            None if plan.retrieval is None else [asdict(plan.retrieval), shown.key if shown else None],
        )
        player = partial(self._player, plan, adapter, shown)
        name = "-".join([plan.arm.replace("/", "."), f"seed{plan.seed}", key])
        return play_cell(self._work.folder / "cells" / f"{name}.json", tasks, self._work.environments, player)

    def _player(self, plan: CellPlan, adapter: Path | None, shown: Bank | None) -> tuple[Policy, Memory | None]:
        language = self._load(adapter)
        policy = policy_of(self._work.config, language.model, language.tokenizer)
        if shown is None or plan.retrieval is None:
            return policy, None
        return policy, ExpRAG(Retriever(shown.library, plan.retrieval, token_counter(language.tokenizer)))

    def _load(self, adapter: Path | None) -> "LanguageModel":
        from recsys.models.loading import load_language_model

        if self._loaded is None or self._loaded[0] != str(adapter):
            self._loaded = None  # the old model goes before the new one comes
            config = self._work.config
            language = load_language_model(config.model, adapter=adapter, device=config.device, merge=True)
            self._loaded = (str(adapter), language)
        return self._loaded[1]


def _index_group(plan: CellPlan) -> Group:
    """Whose trajectories a cell is shown: those of its own families, or of the others."""
    if plan.index == "matched":
        return plan.group
    return "unseen" if plan.group == "seen" else "seen"


def _whole(arm: str) -> str:
    """The arm that an ablation varies: `exprag-lora/unseen/matched/k=4` -> `exprag-lora/unseen/matched`."""
    return "/".join(arm.split("/")[:3])
