"""A sweep that nobody ran: a smooth made-up objective over parameters of every kind, some trials pruned, one failed;
and a final comparison.
"""

import math

from recsys.seeding import rng
from verbalize.report.trials import Objective, SweepTable, Trial

OBJECTIVES = (Objective("recall@1"), Objective("tokens", maximise=False), Objective("seconds", False, "s"))
HOSTILE = "</script><script>document.title='pwned'</script>"
SAMPLE_FINAL = {
    "metric": "recall@1",
    "trial": 2,
    "seeds": [101, 102],
    "validation": {"chosen_with": 0.344, "best": 0.331, "default": 0.302},
    "test": {"best": 0.32, "default": 0.299, "difference": 0.021, "low": -0.004, "high": 0.045}
    | {"n": 1200, "n_effective": 937.4},
    "optimism": 0.024,
    "detectable": 0.03,
    "look": 1,
    "claim": {"id": "sweep.best_vs_default", "status": "missed", "text": "+0.021 [−0.004, +0.045]"},
    "command": f"verbalize run demo.yaml name={HOSTILE}",
}


def sample_sweep(trials: int = 60, objectives: int = 2) -> SweepTable:
    """`objectives` of OBJECTIVES; learning rate and number of titles matter, the instruction hardly."""
    draw, rows = rng(3, "sample sweep"), []
    for number in range(trials):
        rate, keep = 10 ** draw.uniform(-5, -2), int(draw.integers(2, 31))
        kind = ["margin", "recall", HOSTILE][int(draw.integers(3))] if number == 5 else ["margin", "recall"][number % 2]
        params = {
            "train.learning_rate": rate,
            "policy.keep": keep,
            "reward.kind": kind,
            "warm_start.on": number % 3 > 0,
        }
        if number % 3:
            params["warm_start.epochs"] = int(draw.integers(1, 5))
        value = 0.3 - 0.04 * (math.log10(rate) + 3.3) ** 2 - 0.0004 * (keep - 18) ** 2 + draw.normal(0, 0.012)
        curve = {step: value - 0.1 * math.exp(-step / 12) + draw.normal(0, 0.006) for step in range(0, 41, 5)}
        seconds = 40 + 3 * keep + draw.uniform(0, 20)
        state = "failed" if number == 11 else "pruned" if value < 0.17 and number > 10 else "complete"
        if state != "complete":
            curve = dict(list(curve.items())[: 0 if state == "failed" else 4])
        values = dict(zip([o.name for o in OBJECTIVES], (value, 9.0 * keep, seconds), strict=True))
        rows.append(
            Trial(
                number,
                state,
                params,
                {o.name: values[o.name] for o in OBJECTIVES[:objectives]} if state == "complete" else {},
                seconds if state == "complete" else seconds / 3,
                curve,
                f"CUDA out of memory {HOSTILE}" if state == "failed" else "",
            )
        )
    shares = {"train.learning_rate": 0.58, "policy.keep": 0.31, "reward.kind": 0.08, "warm_start.on": 0.03}
    importance = {o.name: shares for o in OBJECTIVES[:1]}
    return SweepTable(
        "learning rate and keep", OBJECTIVES[:objectives], tuple(rows), importance, frozenset({"train.learning_rate"})
    )
