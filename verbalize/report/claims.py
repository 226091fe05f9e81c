"""One claim: a number, its interval, where it came from, and whether it reached what was asked of it.

A claim is written by the recipe or benchmark that measured it and is never edited by hand, except for `note`: the
reason of a missed or unmeasured target. Text made from a claim (`format_claim`) is a pure function of it, so a number
quoted in the documentation can be checked character by character.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recsys.errors import CorruptFileError, InputError

UNITS = {
    "recall@1 difference": "absolute difference of Recall@1",
    "fraction": "relative difference; 0.93 is +93%",
    "ratio": "how many times; 5 is five times",
    "share": "a part of a whole; 0.62 is 62%",
    "seconds": "wall-clock time",
    "gigabytes": "memory, in 10^9 bytes",
    "nats": "difference of natural-log probabilities",
    "score difference": "absolute difference of the score named in the statement",
}
CRITERIA = {
    "interval": "the whole interval lies on the right side of the target",
    "value": "the value itself reaches the target",
}
ALPHA = 0.05
"""A primary claim's adjusted p must lie below."""
MOST_SURVIVING = 0.5
"""Of a gain, what may be left when texts change owners."""
_ID = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
_ADDED = frozenset({"family", "shuffled", "p_holm", "survives"})
"""Fields that ledgers and reports written before there were families do not have."""


def check_claim_id(name: str) -> None:
    """Raises InputError for an id that cannot name a file of the ledger."""
    if not _ID.fullmatch(name):
        raise InputError(
            f"id {name!r}",
            "must be lower-case words joined by dots and underscores",
            'name it like "movielens.actions_vs_logit"',
        )


@dataclass(frozen=True)
class Estimator:
    """How value, low, high and n follow from the artefact: a name in `estimators.ESTIMATORS` and its parameters."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A line of the ledger. `value`, `low`, `high` are None together for a claim that could not be measured (then
    `note` says why).

    `target` is None where nothing was promised; `direction` is "higher" or "lower"; `criterion` is a key of CRITERIA.
    `artefact` is a path relative to the repository's root. `n` counts decisions or repeats, `n_effective` independent
    ones.

    A primary claim names its `family`, the ids listed beforehand together with it (its own among them), and carries
    `p_holm`, its p-value adjusted for them all; with `shuffled`, the arm of learned texts handed to other users, also
    `survives`, the share of its gain that is left there. `verbalize.report.primary` computes both; None: not known, or
    no gain to survive.
    """

    id: str
    statement: str
    unit: str
    estimator: Estimator
    value: float | None = None
    low: float | None = None
    high: float | None = None
    target: float | None = None
    direction: str = "higher"
    criterion: str = "interval"
    n: int = 0
    n_effective: float = 0.0
    seeds: tuple[int, ...] = ()
    hardware: str = ""
    command: str = ""
    artefact: str | None = None
    revision: str = ""
    date: str = ""
    note: str = ""
    family: tuple[str, ...] = ()
    shuffled: str | None = None
    p_holm: float | None = None
    survives: float | None = None

    def __post_init__(self) -> None:
        check_claim_id(self.id)
        checks = [
            (self.unit in UNITS, f"unit {self.unit!r}", f"must be one of {', '.join(UNITS)}", "choose one of them"),
            (
                self.direction in ("higher", "lower"),
                f"direction {self.direction!r}",
                'must be "higher" or "lower"',
                "choose one",
            ),
            (
                self.criterion in CRITERIA,
                f"criterion {self.criterion!r}",
                f"must be one of {', '.join(CRITERIA)}",
                "choose one",
            ),
            (
                len({v is None for v in (self.value, self.low, self.high)}) == 1,
                f"value {self.value}, low {self.low}, high {self.high}",
                "a claim has all three or none",
                "recompute the claim from its artefact",
            ),
            (
                self.value is not None or bool(self.note),
                f"claim {self.id} without a value",
                "an unmeasured claim must say why",
                "give `note`",
            ),
            (
                not self.family or self.id in self.family,
                f"claim {self.id} with family {list(self.family)}",
                "a family lists all of its claims, this one too",
                "add its id",
            ),
        ]
        for holds, value, rule, remedy in checks:
            if not holds:
                raise InputError(value, rule, remedy)

    @property
    def status(self) -> str:
        """ "met", "missed", "not measured", or "no target". What reaches its target is missed all the same where there
        are `objections`.

        >>> Claim("a.b", "", "ratio", Estimator("ratio_of_times"), 5.2, 4.9, 5.4, target=5, criterion="value").status
        'met'
        >>> Claim("a.b", "", "ratio", Estimator("ratio_of_times"), 5.2, 4.9, 5.4, target=5).status
        'missed'
        """
        if self.value is None or self.low is None or self.high is None:
            return "not measured"
        if self.target is None:
            return "no target"
        return "met" if self._reached and not self.objections else "missed"

    @property
    def objections(self) -> list[str]:
        """Why a number that reaches its target is no success; [] where it does not reach it.

        >>> difference = Claim("a.b", "", "recall@1 difference", Estimator("paired_difference"), 0.02, 0.01, 0.03, 0.0)
        >>> dataclasses.replace(difference, p_holm=0.08, survives=0.7).objections
        ['adjusted p 0.080', '70% of the gain survives the shuffle']
        """
        if not self._reached:
            return []
        found = []
        if self.criterion == "interval" and self.p_holm is not None and self.p_holm >= ALPHA:
            found.append(f"adjusted p {self.p_holm:.3f}")
        if self.survives is not None and self.survives > MOST_SURVIVING:
            found.append(f"{self.survives:.0%} of the gain survives the shuffle")
        return found

    @property
    def _reached(self) -> bool:
        """The number or its interval, by itself, reaches the target."""
        if self.value is None or self.low is None or self.high is None or self.target is None:
            return False
        if self.criterion == "value":
            return self.value >= self.target if self.direction == "higher" else self.value <= self.target
        return self.low > self.target if self.direction == "higher" else self.high < self.target

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the inverse."""
        lists = {"seeds": list(self.seeds), "family": list(self.family)}
        return dataclasses.asdict(self) | lists | {"status": self.status}

    @classmethod
    def from_json(cls, value: Any, source: str) -> "Claim":
        """Raises CorruptFileError naming `source` when fields are missing, unknown or of the wrong kind."""
        remedy = "run the recipe or benchmark that writes this claim again"
        if not isinstance(value, dict) or not isinstance(value.get("estimator"), dict):
            raise CorruptFileError(source, "a claim is an object with an `estimator` object", remedy)
        fields = {f.name for f in dataclasses.fields(cls)}
        unknown, missing = set(value) - fields - {"status"}, fields - set(value) - _ADDED
        if unknown or missing:
            raise CorruptFileError(
                source, f"unknown fields {sorted(unknown)}, missing fields {sorted(missing)}", remedy
            )
        plain = {name: value[name] for name in fields if name in value} | {"seeds": tuple(value["seeds"])}
        plain |= {"family": tuple(value.get("family", ()))}
        for name in ("value", "low", "high", "target", "p_holm", "survives"):
            plain.setdefault(name, None)
            if plain[name] is not None and not (isinstance(plain[name], int | float) and math.isfinite(plain[name])):
                raise CorruptFileError(source, f"{name} is {plain[name]!r}, not a finite number", remedy)
        return cls(**plain | {"estimator": Estimator(**value["estimator"])})


def format_claim(claim: Claim) -> str:
    """The text that stands between a claim's markers, the target included when it was missed.

    >>> format_claim(Claim("a.b", "", "recall@1 difference", Estimator("paired_difference"), 0.012, -0.004, 0.028, 0))
    '+0.012 [−0.004, +0.028] (target > 0: missed)'
    >>> format_claim(Claim("a.b", "", "fraction", Estimator("relative_difference"), 0.931, 0.80, 1.1))
    '+93.1% [+80.0%, +110.0%]'
    >>> format_claim(Claim("a.b", "", "ratio", Estimator("ratio_of_times"), 5.31, 5.2, 5.44))
    '5.3× [5.2, 5.4]'
    >>> difference = Claim("a.b", "", "recall@1 difference", Estimator("paired_difference"), 0.02, 0.01, 0.03, 0)
    >>> format_claim(dataclasses.replace(difference, p_holm=0.08))
    '+0.020 [+0.010, +0.030] (target > 0: missed; adjusted p 0.080)'
    """
    if claim.value is None or claim.low is None or claim.high is None:
        return f"not measured: {claim.note}"
    text = f"{format_number(claim.value, claim.unit)} [{_bare(claim.low, claim.unit)}, {_bare(claim.high, claim.unit)}]"
    if claim.status != "missed":
        return text
    return f"{text} (target {format_target(claim)}: {'; '.join(['missed', *claim.objections])})"


def format_target(claim: Claim) -> str:
    """ ">= 5×", "> 0", or "none"; strict for the interval criterion."""
    if claim.target is None:
        return "none"
    sign = {("higher", "value"): "≥", ("lower", "value"): "≤", ("higher", "interval"): ">", ("lower", "interval"): "<"}
    number = "0" if claim.target == 0 else format_number(claim.target, claim.unit)
    return f"{sign[claim.direction, claim.criterion]} {number}"


def format_number(value: float, unit: str) -> str:
    """A value with its unit's sign and suffix: "+0.012", "+93.0%", "5.3×", "1,140 s"."""
    return _bare(value, unit) + {"ratio": "×", "seconds": " s", "gigabytes": " GB", "nats": " nats"}.get(unit, "")


def _bare(value: float, unit: str) -> str:
    if unit == "ratio":
        return f"{value:.1f}" if value >= 2 else f"{value:.2f}"
    if unit == "gigabytes":
        return f"{value:.1f}"
    if unit == "seconds":
        return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"
    if unit == "share":
        return _minus(f"{100 * value:.1f}%")
    if unit == "fraction":
        return _minus(f"{100 * value:+.1f}%")
    return _minus(f"{value:+.3f}")


def _minus(text: str) -> str:
    """A typographic minus, and no minus before a rounded zero."""
    return (
        "+" + text[1:] if text.startswith("-") and not any(c in "123456789" for c in text) else text.replace("-", "−")
    )
