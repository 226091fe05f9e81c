"""The ExpRAG study (arXiv 2603.18272), `kind: exprag`: does experience shown in training and in play carry an agent to
families of games it was not trained on?

    banks -> adapters (LoRA with and without memory, per seed) -> cells -> rates, differences, claims

Everything lies under keys of what it depends on: `banks/`, `adapters/` (with checkpoints) and `cells/`, one file per
cell. So a killed study goes on where it was, and a changed option repeats what depends on it. Deviations from the
paper: 135M parameters, scoring of the admissible actions instead of free generation, several seeds, intervals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verbalize.agents.environment import Task
from verbalize.agents.evaluation import (
    Cell,
    Rate,
    by_family,
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
from verbalize.agents.exprag_settings import CellPlan, Config, Group, cells_of
from verbalize.agents.pool import EnvironmentPool, Environments, PoolConfig
from verbalize.agents.rollouts import Memory, Policy
from verbalize.agents.study import StudyClaim, StudyResult
from verbalize.experience.embedding import Embedder
from verbalize.pipeline import Progress

if TYPE_CHECKING:
    from recsys.models.loading import LanguageModel

__all__ = ["Config", "carry_out", "run"]

GROUPS: tuple[Group, ...] = ("seen", "unseen")
RANGES: Mapping[Group, tuple[float, float]] = {"seen": (0.60, 0.95), "unseen": (0.10, 0.60)}
"""Where LoRA's success should lie on development games, so that memory has room to help and nothing is trivial."""

CLAIMS = (
    StudyClaim(
        "agents.expraglora_vs_lora_unseen",
        "Success on unseen families: ExpRAG-LoRA with the matched index minus LoRA without memory",
        "exprag-lora/unseen/matched",
        "lora/unseen/empty",
    ),
    StudyClaim(
        "agents.exprag_vs_base_unseen",
        "Success on unseen families: the untrained model with ExpRAG and the matched index minus without memory",
        "exprag/unseen/matched",
        "base/unseen/empty",
    ),
)
COMPARISONS = (
    *((claim.a, claim.b) for claim in CLAIMS),
    ("lora+exprag/unseen/matched", "lora/unseen/empty"),
    ("exprag-lora/unseen/matched", "lora+exprag/unseen/matched"),
    ("exprag-lora/unseen/matched", "exprag-lora/unseen/mismatched"),
    ("exprag-lora/unseen/empty", "lora/unseen/empty"),
    ("exprag-lora/seen/matched", "lora/seen/empty"),
    ("exprag-lora/seen/empty", "lora/seen/empty"),
)


def run(config: Config, folder: Path, progress: Progress, command: str) -> StudyResult:
    """Carry the study out on TextWorld; games lie beside the studies, since several of them play the same ones."""
    bench = TextWorldBench(folder.parent / "games", config.play.processes)
    pool = PoolConfig(config.play.environments, preload=("verbalize.agents.textworld_env",))
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

    work = Workshop(config, folder, bench, environments, progress, command, embedder)
    development = config.phase == "development"
    part, games = ("development", config.games.development) if development else ("test", config.games.test)
    tasks = {group: tasks_of(bench, config.families.of(group), part, games) for group in GROUPS}
    banks = {group: bank(work, group) for group in GROUPS}
    for group in GROUPS:
        progress.stage(f"bank {group}", "ready", ", ".join(f"{n} {what}" for what, n in banks[group].facts.items()))
    players = _Players(work, banks, weights_digest(resolve_model(config.model)))
    plans = _development_cells(config) if development else cells_of(config)
    cells: dict[tuple[str, int], Cell] = {}
    for number, plan in enumerate(plans):
        cell = players.cell(plan, tasks[plan.group])
        cells[plan.arm, plan.seed] = cell
        progress.step("cells", number + 1, len(plans), f"{plan.arm} seed {plan.seed}: {cell.success:.2f}")
    facts: dict[str, Any] = {
        "phase": config.phase,
        "games": {group: len(tasks[group]) for group in GROUPS},
        "banks": {group: banks[group].facts for group in GROUPS},
        "adapters": players.curves,
        "families": _families(cells),
        "seconds": round(sum(cell.seconds for cell in cells.values()), 1),
        "crashed": sum(game.crashed for cell in cells.values() for game in cell.games),
    }
    values = values_of(cells)
    rates = success_rates(values)
    facts["rates"] = rate_facts(rates)
    if development:
        return StudyResult(facts, _development_text(rates, facts["families"]))
    differences = {f"{a} - {b}": difference(values, a, b) for a, b in COMPARISONS}
    differences |= {
        f"{arm} - {_whole(arm)}": difference(values, arm, _whole(arm)) for arm in rates if arm != _whole(arm)
    }
    facts["differences"] = rate_facts(differences)
    return StudyResult(facts, _text(rates, differences, facts), values, CLAIMS)


class _Players:
    """Agents by name, trained on first use; the last model loaded is kept, as cells of an agent follow one another."""

    def __init__(self, work: Workshop, banks: Mapping[Group, Bank], base_digest: str) -> None:
        self._work, self._banks, self._digest = work, banks, base_digest
        self._loaded: tuple[str, LanguageModel] | None = None
        self.curves: dict[str, Any] = {}

    def cell(self, plan: CellPlan, tasks: Sequence[Task]) -> Cell:
        """The cell of a plan, played if it has not been."""
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
            self._work.config.play.per_token,
            None if plan.retrieval is None else [asdict(plan.retrieval), shown.key if shown else None],
        )
        player = partial(self._player, plan, adapter, shown)
        return play_cell(self._work.folder / "cells" / f"{key}.json", tasks, self._work.environments, player)

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
            language = load_language_model(config.model, adapter=adapter, device=config.device)
            self._loaded = (str(adapter), language)
        return self._loaded[1]


def _index_group(plan: CellPlan) -> Group:
    """Whose trajectories a cell is shown: those of its own families, or of the others."""
    if plan.index == "matched":
        return plan.group
    return "unseen" if plan.group == "seen" else "seen"


def _development_cells(config: Config) -> list[CellPlan]:
    """Base and LoRA of the first seed, without memory."""
    agents = (("base", 0), ("lora", config.seeds[0]))
    return [
        CellPlan(f"{agent}/{group}/empty", agent, seed, group, "empty", None)  # type: ignore[arg-type]
        for agent, seed in agents
        for group in GROUPS
    ]


def _families(cells: Mapping[tuple[str, int], Cell]) -> dict[str, dict[str, float]]:
    """Arm -> success by set of games, over all seeds."""
    arms: dict[str, list[Cell]] = {}
    for (arm, _), cell in cells.items():
        arms.setdefault(arm, []).append(cell)
    return {arm: {name: round(share, 4) for name, share in by_family(own).items()} for arm, own in arms.items()}


def _whole(arm: str) -> str:
    """The arm that an ablation varies: `exprag-lora/unseen/matched/k=4` -> `exprag-lora/unseen/matched`."""
    return "/".join(arm.split("/")[:3])


@dataclass(frozen=True)
class _Line:
    name: str
    rate: Rate
    signed: bool = False

    def __str__(self) -> str:
        form = "{:+.3f} [{:+.3f}, {:+.3f}]" if self.signed else "{:.3f} [{:.3f}, {:.3f}]"
        numbers = form.format(self.rate.value, self.rate.low, self.rate.high)
        return f"  {self.name:<62} {numbers}"


def _text(rates: Mapping[str, Rate], differences: Mapping[str, Rate], facts: Mapping[str, Any]) -> str:
    n = facts["games"]
    return "\n".join(
        [
            f"Success: {n['seen']} seen and {n['unseen']} unseen games, means over seeds, 95% intervals over games",
            *(str(_Line(name, rate)) for name, rate in rates.items()),
            "",
            "Differences, paired by game",
            *(str(_Line(name, rate, signed=True)) for name, rate in differences.items()),
            *([f"\n{facts['crashed']} episodes crashed, counted as lost"] if facts["crashed"] else []),
        ]
    )


def _development_text(rates: Mapping[str, Rate], families: Mapping[str, Mapping[str, float]]) -> str:
    lines = ["Success on development games, which choose the difficulty and are never reported"]
    for arm, rate in rates.items():
        lines.append(str(_Line(arm, rate)))
        lines += [f"      {name:<58} {share:.3f}" for name, share in families[arm].items()]
    for group in GROUPS:
        low, high = RANGES[group]
        value = rates[f"lora/{group}/empty"].value
        verdict = "inside" if low <= value <= high else "outside"
        lines.append(f"LoRA on {group} families: {value:.3f}, {verdict} the range {low:.2f} to {high:.2f}")
    return "\n".join(lines)
