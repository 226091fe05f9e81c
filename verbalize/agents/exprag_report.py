"""What the ExpRAG study says to people: rates and differences with their intervals, one line each."""

from collections.abc import Mapping
from typing import Any

from verbalize.agents.evaluation import Cell, Rate, by_family

_WIDTH = 62  # of the name of a line


def families_of(cells: Mapping[tuple[str, int], Cell]) -> dict[str, dict[str, float]]:
    """Arm -> success by set of games, over all seeds."""
    arms: dict[str, list[Cell]] = {}
    for (arm, _), cell in cells.items():
        arms.setdefault(arm, []).append(cell)
    return {arm: {name: round(share, 4) for name, share in by_family(own).items()} for arm, own in arms.items()}


def evaluation_text(rates: Mapping[str, Rate], differences: Mapping[str, Rate], facts: Mapping[str, Any]) -> str:
    """`facts` holds `games` by group, `development` in words and the number of `crashed` episodes."""
    n = facts["games"]
    return "\n".join(
        [
            f"Success: {n['seen']} seen and {n['unseen']} unseen games, means over seeds, 95% intervals over games",
            *(rate_line(name, rate) for name, rate in rates.items()),
            "",
            "Differences, paired by game",
            *(rate_line(name, rate, signed=True) for name, rate in differences.items()),
            "",
            f"Difficulty: {facts['development']['verdict']}",
            *([f"{facts['crashed']} episodes crashed, counted as lost"] if facts["crashed"] else []),
        ]
    )


def development_text(rates: Mapping[str, Rate], families: Mapping[str, Mapping[str, float]], verdict: str) -> str:
    """Rates by arm, below each of them those by set of games, and what they say of the difficulty."""
    lines = ["Success on development games, which choose the difficulty and are never reported"]
    for arm, rate in rates.items():
        lines.append(rate_line(arm, rate))
        lines += [f"      {name:<{_WIDTH - 4}} {share:.3f}" for name, share in families[arm].items()]
    return "\n".join([*lines, verdict])


def rate_line(name: str, rate: Rate, signed: bool = False) -> str:
    """
    >>> rate_line("base", Rate(0.25, 0.1, 0.4, 20, 1)).split()
    ['base', '0.250', '[0.100,', '0.400]']
    """
    form = "{:+.3f} [{:+.3f}, {:+.3f}]" if signed else "{:.3f} [{:.3f}, {:.3f}]"
    return f"  {name:<{_WIDTH}} {form.format(rate.value, rate.low, rate.high)}"
