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
from verbalize.report.claims import ALPHA, MOST_SURVIVING, Claim
from verbalize.report.spans import Reading

ENOUGH = 1000  # effective rankings below which a difference that may be 0 is called too small to conclude
SUMMARY_COLUMNS = ("verbalizer", "recommender", "metric", "n", "n_effective", "value", "low", "high", "chance")
SLICE_COLUMNS = ("slice", "level", "verbalizer", "recommender", "value", "low", "high", "n", "chance")
TRAIT_COLUMNS = ("arm", "measure", "value", "low", "high", "texts", "users")
CURVE_KEY = "step"


@dataclass(frozen=True)
class Shown:
    """A comparison as the report tells it. `mde`: the smallest difference that could be seen, printed before test was
    opened. `primary`: listed by the recipe beforehand; `p_holm` is then its p-value adjusted for all primary ones, and
    `survives` the share of a gain that is left when texts change owners, both as in the ledger.
    """

    label: str
    comparison: Comparison
    mde: float | None = None
    p_holm: float | None = None
    primary: bool = True
    survives: float | None = None

    @property
    def verdict(self) -> str:
        """`verdict` of the comparison's interval, effective n, adjusted p and shuffle."""
        c = self.comparison
        return verdict(c.low, c.high, c.n_effective, self.p_holm, self.survives)


def verdict(
    low: float, high: float, n_effective: float, p_holm: float | None = None, survives: float | None = None
) -> str:
    """ "better", "worse", "no difference shown", or "too small to conclude": fewer than ENOUGH effective rankings and
    an interval that holds 0. An interval that excludes 0 is "not significant (Holm)" where the adjusted p does not
    confirm it, and a gain most of which other users' texts bring too "survives the shuffle".

    >>> verdict(-0.01, 0.05, 300), verdict(0.01, 0.09, 300), verdict(-0.01, 0.05, 3000)
    ('too small to conclude', 'better', 'no difference shown')
    >>> verdict(0.01, 0.09, 300, p_holm=0.08), verdict(0.01, 0.09, 300, p_holm=0.01, survives=0.7)
    ('not significant (Holm)', 'survives the shuffle')
    """
    if (low > 0 or high < 0) and p_holm is not None and p_holm >= ALPHA:
        return "not significant (Holm)"
    if low > 0 and survives is not None and survives > MOST_SURVIVING:
        return "survives the shuffle"
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
    failures first). `looks`: `LooksRegister.entries()`. `provenance`: name -> text. `traits`: output of
    `text_traits.summarise_traits`. `catalogue`: as `arms`, of ranks among the whole catalogue.
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
    traits: pl.DataFrame = field(default_factory=lambda: pl.DataFrame({c: [] for c in TRAIT_COLUMNS}))
    catalogue: pl.DataFrame = field(default_factory=lambda: pl.DataFrame({c: [] for c in SUMMARY_COLUMNS}))

    def __post_init__(self) -> None:
        _need(self.arms, SUMMARY_COLUMNS, "arms")
        _need(self.slices, SLICE_COLUMNS, "slices")
        _need(self.traits, TRAIT_COLUMNS, "traits")
        _need(self.catalogue, SUMMARY_COLUMNS, "catalogue")
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
            "build it with summarise, summarise_slices or summarise_traits, or leave the table out",
        )
