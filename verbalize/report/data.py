"""What a report shows, as plain data: everything is computed before, nothing is computed while rendering.

Frames are those of `recsys.comparison` and `recsys.slices`, unchanged; `ReportData` checks their columns, so a report
either has what it needs or says which column is missing. The helpers below turn a run's other tables into its parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from recsys.comparison import Comparison
from recsys.errors import ContractError
from verbalize.report.claims import Claim
from verbalize.report.spans import Reading

ENOUGH = 1000  # effective rankings below which a difference that may be 0 is called too small to conclude
SUMMARY_COLUMNS = ("verbalizer", "recommender", "metric", "n", "n_effective", "value", "low", "high", "chance")
SLICE_COLUMNS = ("slice", "level", "verbalizer", "recommender", "value", "low", "high", "n", "chance")
CURVE_KEY = "step"


@dataclass(frozen=True)
class Shown:
    """A comparison as the report tells it. `mde`: the smallest difference that could be seen, printed before test was
    opened. `primary`: listed by the recipe beforehand; `p_holm` is then its p-value adjusted for all primary ones.
    """

    label: str
    comparison: Comparison
    mde: float | None = None
    p_holm: float | None = None
    primary: bool = True

    @property
    def verdict(self) -> str:
        """`verdict` of the comparison's interval and effective n."""
        return verdict(self.comparison.low, self.comparison.high, self.comparison.n_effective)


def verdict(low: float, high: float, n_effective: float) -> str:
    """ "better", "worse", "no difference shown", or "too small to conclude": fewer than ENOUGH effective rankings and
    an interval that holds 0.

    >>> verdict(-0.01, 0.05, 300), verdict(0.01, 0.09, 300), verdict(-0.01, 0.05, 3000)
    ('too small to conclude', 'better', 'no difference shown')
    """
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    return "too small to conclude" if n_effective < ENOUGH else "no difference shown"


@dataclass(frozen=True)
class ArmText:
    """One arm's text for one example, with the scores (in slate order) and the target's rank it led to.

    `reading`: which of the shown events the text keeps, and what it adds; empty where nobody asked.
    """

    arm: str
    text: str
    rank: int
    scores: tuple[float, ...]
    tokens: int | None = None
    reading: Reading = field(default_factory=Reading)


@dataclass(frozen=True)
class ExampleView:
    """One example as people read it: the log's events as lines, the slate's titles in order, every arm's text.

    `user` is a number within the report, not an id of the log; `events` are the titles of `history`.
    """

    label: str
    history: tuple[str, ...]
    slate: tuple[str, ...]
    target_index: int
    arms: tuple[ArmText, ...]
    user: str = ""
    events: tuple[str, ...] = ()

    @property
    def worst_rank(self) -> int:
        """The target's worst rank over arms: failures are shown first."""
        return max((arm.rank for arm in self.arms), default=0)


@dataclass(frozen=True)
class ReportData:
    """Everything one report shows; empty parts leave their section out.

    `arms`: output of `recsys.comparison.summarise`. `slices`: output of `recsys.slices.summarise_slices`. `tokens`:
    verbalizer -> mean tokens per text. `learned`: verbalizers to mark as learned. `curves`: series name ("seed0") ->
    frame with `step` and a column per quantity. `examples` are shown in the given order (`browser.example_views` puts
    failures first). `looks`: `LooksRegister.entries()`. `provenance`: name -> text.
    """

    title: str
    subtitle: str = ""
    claims: tuple[Claim, ...] = ()
    arms: pl.DataFrame = field(default_factory=lambda: pl.DataFrame({c: [] for c in SUMMARY_COLUMNS}))
    tokens: Mapping[str, float] = field(default_factory=dict)
    learned: frozenset[str] = frozenset()
    comparisons: tuple[Shown, ...] = ()
    curves: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    slices: pl.DataFrame = field(default_factory=lambda: pl.DataFrame({c: [] for c in SLICE_COLUMNS}))
    examples: tuple[ExampleView, ...] = ()
    looks: tuple[Mapping[str, Any], ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _need(self.arms, SUMMARY_COLUMNS, "arms")
        _need(self.slices, SLICE_COLUMNS, "slices")
        for name, frame in self.curves.items():
            _need(frame, (CURVE_KEY,), f"curves {name!r}")


def curves_from_metrics(metrics: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """`tracking.read_metrics` output -> `ReportData.curves`. A name "seed0/reward/accuracy" is quantity
    "reward/accuracy" of series "seed0".

    Names without a series (no slash) belong to the series "run".
    """
    if metrics.is_empty():
        return {}
    split = metrics.with_columns(
        series=pl.when(pl.col("name").str.contains("/"))
        .then(pl.col("name").str.extract(r"^([^/]+)/"))
        .otherwise(pl.lit("run")),
        quantity=pl.col("name").str.replace(r"^[^/]+/", ""),
    )
    return {
        str(key[0]): part.pivot(on="quantity", index=CURVE_KEY, values="value").sort(CURVE_KEY)
        for key, part in sorted(split.group_by("series"), key=lambda pair: str(pair[0][0]))
    }


def _need(frame: pl.DataFrame, columns: Sequence[str], name: str) -> None:
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise ContractError(
            f"report table {name} without {', '.join(missing)}",
            f"needs the columns {', '.join(columns)}",
            "build it with recsys.comparison.summarise or recsys.slices.summarise_slices, or leave the table out",
        )
