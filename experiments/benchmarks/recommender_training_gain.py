"""What training the recommender adds, and text and recommender together, from two records: the paper's headline.

Run:  python experiments/benchmarks/recommender_training_gain.py [--out experiments/results]      seconds

`experiments/movielens.yaml` recorded texts before the trained 135M recommender, `experiments/untrained_table.yaml`
before the same model as downloaded, for half of the same test rankings, on the same slates. A record hides its users
under ids of its own, so the two cannot be paired: users are resampled apart, and intervals are wider than a paired
comparison's. The gain over the paper's concatenation before the untrained model is what the paper gives as
+92.9% for its own recommender.

Reads artefacts/movielens.recall.csv.gz and artefacts/untrained_table.movielens.csv.gz; writes
recommender_training_gain.json (Recall@1 of every arm) and artefacts/recommender_training_gain.csv.gz (their rankings).
"""

from pathlib import Path

import polars as pl
from recording import RESULTS, enter, parser_of, record, say

from recsys.errors import InputError
from verbalize.report.artefacts import read_artefact
from verbalize.report.claims import Estimator

TRAINED, UNTRAINED = "movielens.recall.csv.gz", "untrained_table.movielens.csv.gz"
TEXTS = ("learned", "concatenation")
"""Verbalizers that both records hold."""
CLAIMS = (
    (
        "movielens.full_vs_concatenation",
        "learned actions and the trained recommender relative to the paper's concatenation and the untrained one "
        "(the paper, with larger models: +92.9%)",
        "trained/learned",
        0.93,
    ),
    (
        "movielens.recommender_alone",
        "the paper's concatenation before the trained recommender relative to the untrained one (the paper: +42.8%)",
        "trained/concatenation",
        None,
    ),
)
"""Claim, what it states, the arm that is held against the baseline, target."""
BASELINE = "untrained/concatenation"


def both(folder: Path) -> pl.DataFrame:
    """The outcomes of `TEXTS` in both records, arms named reader/text. Raises InputError where a record lacks one."""
    tables = []
    for reader, file in (("trained", TRAINED), ("untrained", UNTRAINED)):
        rows = read_artefact(folder / file)
        for text in TEXTS:
            # Arms are verbalizer/recommender in a recipe's record, cell/arm in a table's.
            found = [arm for arm in rows["arm"].unique() if text == arm.split("/")[0 if reader == "trained" else -1]]
            if len(found) != 1:
                raise InputError(
                    f"{folder / file}: {sorted(found)}", f"must hold one arm of {text}", "record its recipe again"
                )
            own = rows.filter(pl.col("arm") == found[0])
            tables.append(own.with_columns(arm=pl.lit(f"{reader}/{text}")))
    return pl.concat(tables).sort("arm", "example", "seed", "slate")


def recalls(table: pl.DataFrame) -> dict[str, float]:
    """Recall@1 of every arm."""
    rates = table.group_by("arm").agg((pl.col("rank") == 1).mean()).sort("arm")
    return {arm: round(rate, 6) for arm, rate in rates.iter_rows()}


def main() -> None:
    """Join, write, and enter the claims."""
    arguments = parser_of(__doc__, None).parse_args()
    table = both(RESULTS / "artefacts")
    settings, rates = {"records": [TRAINED, UNTRAINED]}, recalls(table)
    for arm, rate in rates.items():
        say(f"{arm:24} {rate:.3f}")
    figures = {"recall@1": rates}
    artefact = record("recommender_training_gain", arguments.out, table, settings, ("polars",), figures, ".csv.gz")
    for claim_id, stated, arm, target in CLAIMS:
        enter(
            arguments.out,
            claim_id,
            f"MovieLens, matched slates of 10: Recall@1 of {stated}; two records, users resampled apart",
            unit="fraction",
            estimator=Estimator("relative_difference_apart", {"a": arm, "b": BASELINE}),
            artefact=artefact,
            command="python experiments/benchmarks/recommender_training_gain.py",
            target=target,
            criterion="value",
        )


if __name__ == "__main__":
    main()
