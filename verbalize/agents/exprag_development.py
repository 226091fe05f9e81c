"""How hard the games are: LoRA without memory on development games, before any test game is played.

Difficulty is changed until LoRA wins the shares in RANGES, so that memory has room to help and nothing is trivial, and
then frozen. The verdict is kept under a key of all that it follows from: an evaluation finds the one of its own games,
model and fine-tuning, or none, and says which beside its claims.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recsys.storage import read_json, write_json
from verbalize.agents.evaluation import key_of
from verbalize.agents.exprag_agents import FORM, VERSION, Bank, adapter_key
from verbalize.agents.exprag_settings import GROUPS, Agent, CellPlan, Config, Group

RANGES: Mapping[Group, tuple[float, float]] = {"seen": (0.60, 0.95), "unseen": (0.10, 0.60)}
MISSING = "development did not run"


@dataclass(frozen=True)
class Verdict:
    """LoRA's share of development games won, and their number, by group of families."""

    success: Mapping[Group, float]
    games: Mapping[Group, int]

    @property
    def outside(self) -> list[Group]:
        """The groups whose share lies outside its range."""
        return [group for group in GROUPS if not RANGES[group][0] <= self.success[group] <= RANGES[group][1]]

    def __str__(self) -> str:
        """
        >>> games = {"seen": 40, "unseen": 40}
        >>> print(Verdict({"seen": 0.7, "unseen": 0.3}, games))
        development: LoRA 0.70 seen, 0.30 unseen: inside the range
        >>> print(Verdict({"seen": 0.7, "unseen": 0.05}, games))
        development: LoRA 0.70 seen, 0.05 unseen: outside the range (unseen 0.10 to 0.60)
        """
        shares = ", ".join(f"{self.success[group]:.2f} {group}" for group in GROUPS)
        missed = ", ".join(f"{group} {RANGES[group][0]:.2f} to {RANGES[group][1]:.2f}" for group in self.outside)
        return f"development: LoRA {shares}: " + (f"outside the range ({missed})" if missed else "inside the range")

    @property
    def facts(self) -> dict[str, Any]:
        return {"ran": True, "success": dict(self.success), "games": dict(self.games), "outside": self.outside}


def verdict_path(folder: Path, config: Config, base_digest: str, seen: Bank) -> Path:
    """Where in a study's folder the verdict of this configuration is kept."""
    families = [[asdict(games) for games in config.families.of(group)] for group in GROUPS]
    adapter = adapter_key(config, "lora", config.seeds[0], base_digest, seen)
    key = key_of(VERSION, adapter, families, config.games.development, asdict(FORM), *config.play.identity)
    return folder / "development" / f"{key}.json"


def keep_verdict(verdict: Verdict, path: Path) -> None:
    """Write it where evaluations of the same configuration look."""
    write_json(asdict(verdict), path)


def kept_verdict(path: Path) -> Verdict | None:
    """The verdict in `path`; None where development did not run."""
    return Verdict(**read_json(path)) if path.exists() else None


def development_cells(config: Config) -> list[CellPlan]:
    """Base and LoRA of the first seed, without memory."""
    players: tuple[tuple[Agent, int], ...] = (("base", 0), ("lora", config.seeds[0]))
    return [
        CellPlan(f"{agent}/{group}/empty", agent, seed, group, "empty", None, "headline")
        for agent, seed in players
        for group in GROUPS
    ]
