"""What the study of SLEA-RL reports: rates, paired differences and the claims they are evidence for."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from verbalize.agents.study import LEAST_GAMES, LEAST_SEEDS, StudyClaim, StudyResult

if TYPE_CHECKING:
    from verbalize.agents.evaluation import Cell, Rate
    from verbalize.agents.slea_study import Config

PAIRS = (
    ("slea", "grpo"),
    ("slea", "gigpo"),
    ("slea", "retrieval"),
    ("slea_model", "grpo"),
    ("slea_model", "slea"),
    ("gigpo", "grpo"),
    ("retrieval", "grpo"),
)
"""Differences that are reported, where the study has both arms."""
METHODS = {
    "slea": "SLEA-RL",
    "slea_model": "SLEA-RL with lessons by the model itself",
    "grpo": "GRPO",
    "gigpo": "GiGPO",
    "retrieval": "retrieval alone",
}
DESCRIBED = (
    ("gigpo", "grpo"),
    ("slea", "retrieval"),
    ("retrieval", "grpo"),
    ("slea_model", "slea"),
    ("slea_model", "grpo"),
)
"""Pairs recorded without targets; the first of them was added after its difference had been seen."""
START_RANGE = (0.2, 0.6)
"""Share of development games that the start should win: where it wins none, or all, no episodes differ, nothing is
learned, and all methods are equal for no reason of theirs."""


def result_of(
    config: "Config", cells: "Mapping[tuple[str, int], Cell]", runs: Mapping[str, Mapping[str, Any]]
) -> StudyResult:
    """Rates, paired differences and, from enough games and seeds, claims; `cells` by (arm, seed)."""
    from verbalize.agents.evaluation import by_family, difference, rate_facts, success_rates, values_of

    values, games = values_of(cells), len(next(iter(cells.values())).games)
    rates = success_rates(values)
    pairs = {f"{a} - {b}": difference(values, a, b) for a, b in PAIRS if a in config.chosen and b in config.chosen}
    facts: dict[str, Any] = {
        "success": rate_facts(rates),
        "differences": rate_facts(pairs),
        "detectable": {name: detectable(rate) for name, rate in pairs.items()},
        "start": start_verdict(runs),
        "by_seed": {f"{arm}/{seed}": round(cell.success, 6) for (arm, seed), cell in cells.items()},
        "by_family": {name: by_family([cell for (arm, _), cell in cells.items() if arm == name]) for name in rates},
        "runs": dict(runs),
    }
    lines = [f"{config.name}: success in {games} test games, {len(config.seeds)} seeds"]
    lines += [f"  {arm:<12} {rate.value:6.3f}  [{rate.low:.3f}, {rate.high:.3f}]" for arm, rate in rates.items()]
    lines += ["paired differences, intervals over games; the smallest one found with a power of 80%"]
    lines += [
        f"  {name:<18} {d.value:+6.3f}  [{d.low:+.3f}, {d.high:+.3f}]  {detectable(d):.3f}" for name, d in pairs.items()
    ]
    lines += [facts["start"], "training: environment steps, lessons by rules and by model, share of steps shown any"]
    lines += [
        f"  {name:<14} {run['environment_steps']:6d}  {run['lessons_by_rules']:4d} {run['lessons_by_model']:4d}"
        f"  {run['shown']:.2f}"
        for name, run in runs.items()
    ]
    claims = tuple(
        replace(
            claim,
            note=f"{facts['start']}; {facts['detectable'][f'{claim.a} - {claim.b}']:.3f} is the smallest "
            "difference found with a power of 80%",
        )
        for claim in claims_of(config)
    )
    return StudyResult(facts, "\n".join(lines), values if claims else None, claims)


def start_verdict(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Where the arms started on development games, by the first points of their learning curves.

    >>> start_verdict({"grpo/0": {"development": [[0, 0.25], [90, 0.5]]}})
    'development: the start wins 0.25: inside the range 0.20 to 0.60'
    >>> start_verdict({"grpo/0": {"development": [[0, 0.0], [90, 0.0]]}})
    'development: the start wins 0.00: outside the range 0.20 to 0.60'
    """
    first = [run["development"][0][1] for run in runs.values()]
    if not first:
        return "development: the start was not judged"
    won, (low, high) = sum(first) / len(first), START_RANGE
    where = "inside" if low <= won <= high else "outside"
    return f"development: the start wins {won:.2f}: {where} the range {low:.2f} to {high:.2f}"


def detectable(difference: "Rate") -> float:
    """The smallest true difference that a paired comparison as precise as this one finds with a power of 80%: its
    interval reaches 1.96 standard errors, 1.96 + 0.84 are needed.

    >>> from verbalize.agents.evaluation import Rate
    >>> detectable(Rate(0.1, 0.051, 0.149, 400, 3))
    0.07
    """
    return round((difference.high - difference.low) / 2 * (1.96 + 0.84) / 1.96, 6)


def claims_of(config: "Config") -> tuple[StudyClaim, ...]:
    """The claims that a run of `config` has the evidence for."""
    games = sum(part.count for part in config.test)
    if games < LEAST_GAMES or len(config.seeds) < LEAST_SEEDS or "slea" not in config.chosen:
        return ()
    where = (
        f"at {config.training.environment_steps} environment steps, {games} TextWorld games, "
        f"{len(config.seeds)} seeds, {config.model}"
    )
    asked = (
        ("slea", "grpo", 0.0),  # above the one, not below the other
        ("slea", "gigpo", -0.05),
        *((a, b, None) for a, b in DESCRIBED),
    )
    return tuple(
        StudyClaim(f"agents.{a}_vs_{b}", f"Success of {METHODS[a]} minus that of {METHODS[b]} {where}", a, b, target)
        for a, b, target in asked
        if {a, b} <= set(config.chosen)
    )
