"""All recorded looks at SLEA-RL together: do its lessons and step credit help across trainings, not only across games?

Run:  python experiments/benchmarks/slea_looks.py [--out experiments/results]      seconds; it plays nothing

Each look of `experiments/agents/slea.yaml` trains every arm three times and resamples games, so its interval takes the
three trainings as they are. Here a unit is a training: an arm and GRPO (or GiGPO) of one look and seed start from one
policy and visit the same games in the same order, and their difference in success over the look's test games is one
number. Intervals resample these pairs, and so cover the luck of training. The three pairs of a look share their start
and their test games, which the interval takes for independent.

Looks differ in what their arms were given (the head of slea.yaml tells), and a look that was ended by lack of time is
not among them: its games are lost. This was devised when three looks had been seen and the fourth was being played.
It is described, not claimed: no target.

Reads artefacts/slea_*.successes.csv.gz and slea.successes.csv.gz; writes slea_looks.json (every pair's difference) and
artefacts/slea_looks.csv.gz (the same successes with their pair as `user`).
"""

from pathlib import Path

import polars as pl
from recording import RESULTS, enter, parser_of, record, say

from verbalize.report.artefacts import read_artefact
from verbalize.report.claims import Estimator
from verbalize.report.estimators import mean_difference

LOOKS = ("slea_first", "slea_second", "slea_third", "slea")
"""Artefacts, the earliest first."""
ARMS = {"grpo": "GRPO", "gigpo": "GiGPO", "slea": "SLEA-RL"}
"""Those that every look has."""
PAIRS = (("slea", "grpo"), ("slea", "gigpo"), ("gigpo", "grpo"))


def pooled(folder: Path) -> pl.DataFrame:
    """Successes of all looks; `user` is the look and seed, which the arms of a pair share, `example` a game of it."""
    tables = []
    for look in LOOKS:
        pair = pl.format("{}/{}", pl.lit(look), "seed")
        tables.append(
            read_artefact(folder / f"{look}.successes.csv.gz")
            .filter(pl.col("arm").is_in(list(ARMS)))
            .with_columns(example=pl.format("{}/{}", pair, "example"), user=pair)
        )
    return pl.concat(tables).sort("user", "example", "arm")


def by_pair(table: pl.DataFrame, a: str, b: str) -> dict[str, float]:
    """Success of `a` minus that of `b` by look and seed."""
    rates = table.group_by("user", "arm").agg(pl.col("value").mean()).pivot("arm", index="user", values="value")
    return {user: round(gain, 6) for user, gain in rates.sort("user").select("user", pl.col(a) - pl.col(b)).iter_rows()}


def main() -> None:
    """Pool, write, and enter what is described."""
    arguments = parser_of(__doc__, None).parse_args()
    table = pooled(RESULTS / "artefacts")
    figures = {f"{a} - {b}": by_pair(table, a, b) for a, b in PAIRS}
    artefact = record("slea_looks", arguments.out, table, {"looks": list(LOOKS)}, ("polars",), figures, ".csv.gz")
    games, trainings = table["example"].n_unique(), table["user"].n_unique()
    for a, b in PAIRS:
        found, gains = mean_difference(table, a, b), figures[f"{a} - {b}"].values()
        above = sum(gain > 0 for gain in gains)
        say(f"{a} - {b}: {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}], above 0 in {above} of {len(gains)}")
        enter(
            arguments.out,
            f"agents.looks_{a}_vs_{b}",
            f"All {len(LOOKS)} recorded looks at TextWorld: success of {ARMS[a]} minus that of {ARMS[b]}; "
            f"{trainings} pairs of trainings, {games} games played, intervals over trainings",
            unit="score difference",
            estimator=Estimator("mean_difference", {"a": a, "b": b}),
            artefact=artefact,
            command="python experiments/benchmarks/slea_looks.py",
            note=f"above 0 in {above} of {len(gains)} pairs",
        )


if __name__ == "__main__":
    main()
