"""`ReportData` as one JSON file beside a run's report, so that exports and reports over several runs read numbers that
were computed once, by the run itself.

Numbers that are not known (nan) are null in the file. The file holds the texts and titles that the report shows, and
may be passed on exactly as far as the report may.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import polars as pl

from recsys.comparison import Arm, Comparison
from recsys.errors import CorruptFileError, InputError
from recsys.storage import read_json, write_json
from verbalize.report.claims import Claim
from verbalize.report.data import SLICE_COLUMNS, SUMMARY_COLUMNS, TRAIT_COLUMNS, ArmText, ExampleView, ReportData, Shown
from verbalize.report.spans import Reading, Span

FILE = "report.json"
FORMAT = 1
_REMEDY = "delete the stage's folder and run the recipe again"
_COUNTS = ("per_seed_a", "per_seed_b")


def save(data: ReportData, path: Path) -> None:
    """Write atomically; `load` gives an equal report back, and the same HTML."""
    write_json(
        {
            "format": FORMAT,
            "title": data.title,
            "subtitle": data.subtitle,
            "claims": [claim.to_json() for claim in data.claims],
            "arms": _columns(data.arms.select(SUMMARY_COLUMNS)),
            "tokens": list(data.tokens.items()),
            "learned": sorted(data.learned),
            "comparisons": [_shown(one) for one in data.comparisons],
            "curves": [[name, _columns(frame)] for name, frame in data.curves.items()],
            "slices": _columns(data.slices.select(SLICE_COLUMNS)),
            "examples": [asdict(example) for example in data.examples],
            "looks": [dict(look) for look in data.looks],
            "provenance": list(data.provenance.items()),
            "notes": list(data.notes),
            "traits": _columns(data.traits.select(TRAIT_COLUMNS)),
            "catalogue": _columns(data.catalogue.select(SUMMARY_COLUMNS)),
        },
        path,
    )


def load(path: Path) -> ReportData:
    """Raises InputError when the file is absent or of another version, CorruptFileError when it is broken."""
    if not path.exists():
        raise InputError(str(path), "does not exist", "run `verbalize report RECIPE` first; it writes this file")
    value = read_json(path)
    if not isinstance(value, Mapping) or value.get("format") != FORMAT:
        raise InputError(str(path), f"is not report data of version {FORMAT}", _REMEDY)
    try:
        return ReportData(
            title=value["title"],
            subtitle=value["subtitle"],
            claims=tuple(Claim.from_json(one, str(path)) for one in value["claims"]),
            arms=_frame(value["arms"]),
            tokens=dict(value["tokens"]),
            learned=frozenset(value["learned"]),
            comparisons=tuple(_compared(one) for one in value["comparisons"]),
            curves={name: _frame(columns) for name, columns in value["curves"]},
            slices=_frame(value["slices"]),
            examples=tuple(_example(one) for one in value["examples"]),
            looks=tuple(value["looks"]),
            provenance=dict(value["provenance"]),
            notes=tuple(value["notes"]),
            # Reports written before these tables existed hold none.
            **({"traits": _frame(value["traits"])} if "traits" in value else {}),
            **({"catalogue": _frame(value["catalogue"])} if "catalogue" in value else {}),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(str(path), f"lacks parts of a report ({error!r})", _REMEDY) from error


def _columns(frame: pl.DataFrame) -> list[list[Any]]:
    """Pairs of name and values: order kept, and frames without rows keep their columns."""
    return [[name, [_number(value) for value in frame[name].to_list()]] for name in frame.columns]


def _frame(columns: Any) -> pl.DataFrame:
    return pl.DataFrame(dict(columns), strict=False)


def _shown(shown: Shown) -> dict[str, Any]:
    plain = {name: _number(value) for name, value in asdict(shown.comparison).items()}
    plain |= {"a": list(shown.comparison.a), "b": list(shown.comparison.b)}
    plain |= {name: list(plain[name].items()) for name in _COUNTS}
    rest = {"label": shown.label, "mde": shown.mde, "p_holm": shown.p_holm, "primary": shown.primary}
    return rest | {"survives": shown.survives, "comparison": plain}


def _compared(value: Mapping[str, Any]) -> Shown:
    given = dict(value["comparison"])
    known = {field.name: given[field.name] for field in fields(Comparison)}
    known = {name: math.nan if one is None else one for name, one in known.items()}
    known |= {"a": Arm(*given["a"]), "b": Arm(*given["b"])} | {name: dict(map(tuple, given[name])) for name in _COUNTS}
    rest = (value["mde"], value["p_holm"], value["primary"], value.get("survives"))
    return Shown(value["label"], Comparison(**known), *rest)


def _example(value: Mapping[str, Any]) -> ExampleView:
    arms = tuple(
        ArmText(
            one["arm"],
            one["text"],
            one["rank"],
            tuple(one["scores"]),
            one["tokens"],
            Reading(tuple(Span(**span) for span in one["reading"]["spans"]), tuple(one["reading"]["kept"])),
        )
        for one in value["arms"]
    )
    slate, history, events = (tuple(value[name]) for name in ("slate", "history", "events"))
    return ExampleView(value["label"], history, slate, value["target_index"], arms, value["user"], events)


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
