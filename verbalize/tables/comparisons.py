"""One arm of a table against another: the claims, what stands beside them, and what other readers make of the texts.

Every comparison is paired over the users that both arms ranked (`recsys.comparison`). Learned texts of two cells are
compared over the seeds that both have: the luck of a seed that only one had would count as a difference.
"""

from collections.abc import Collection, Mapping

import polars as pl

from recsys.comparison import Comparison, compare
from recsys.errors import InputError
from recsys.recommenders.language import MODES
from recsys.significance import holm
from recsys.storage import read_json
from verbalize.recipe_sections import LEARNED
from verbalize.report.data import Shown
from verbalize.report.views import signed
from verbalize.tables.cells import CellConfig
from verbalize.tables.claims import measurables
from verbalize.tables.names import PLACE, parts_of
from verbalize.tables.planning import Planned
from verbalize.tables.results import readers_of, resolved
from verbalize.tables.run import State

OWN = "its own recommender"


def comparisons_of_set(state: State, name: str, decisions: pl.DataFrame) -> list[Shown]:
    """Claims first, adjusted together; then what is shown without being claimed; then cells against the cells they name
    in `compare_with`; then the crossings."""
    primary: dict[str, tuple[str, Comparison]] = {}
    for one in measurables(state, name):
        if one.claim.kind == "recall" and not one.reason:
            a, b = (one.estimator.parameters[side] for side in ("a", "b"))
            found = compared(decisions, a, b, one.claim.relative)
            primary[one.claim.id] = (one.claim.statement.replace(PLACE, name), found)
    mde = _detectable(state, name)
    adjusted = holm({key: found.p for key, (_, found) in primary.items()}) if primary else {}
    shown = [
        Shown(label, found, None if found.relative else mde, adjusted[key]) for key, (label, found) in primary.items()
    ]
    for claim in state.table.config.claims:
        if not claim.id and name in claim.sets:
            try:
                a, b = (resolved(state, name, place) for place in (claim.a, claim.b))
            except InputError:
                continue  # its cells are among the notes
            found = compared(decisions, a, b, claim.relative)
            label = claim.statement.replace(PLACE, name)
            shown.append(Shown(label, found, None if found.relative else mde, primary=False))
    shown += against_references(state, name, decisions)
    return [*shown, *(one for gains in crossed_gains(state, name, decisions).values() for one in gains.values())]


def against_references(state: State, name: str, decisions: pl.DataFrame) -> list[Shown]:
    """The arms of finished cells against what their `compare_with` names, where that is finished too. No claims: they
    are not adjusted for each other, and the smallest detectable difference stated for the claims is not theirs, who may
    have fewer seeds."""
    shown = []
    for done in state.evaluated(name):
        cell = done.planned.cell
        if cell.reference is None or (name, cell.reference[0]) not in state.done:
            continue
        other, arm = cell.reference
        parent = state.done[name, other].planned
        for mine in cell.compared_arms:
            if (cell.id, mine) == (other, arm):
                continue
            learned = mine == arm == LEARNED
            seeds = sorted(done.planned.seeds & parent.seeds) if learned else None
            pair = f"{cell.id}/{mine}", f"{other}/{arm}"
            label = f"{cell.id}: {mine} − {arm if other == cell.id else f'{arm} of {other}'}"
            if seeds is not None and seeds != sorted(parent.seeds):
                label += f", seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
            shown.append(Shown(label + _caveat(done.planned), compared(decisions, *pair, seeds=seeds), primary=False))
    return shown


def crossed_gains(state: State, name: str, decisions: pl.DataFrame) -> dict[str, dict[str, Shown]]:
    """Cell -> reader -> gain of its learned texts over its reference; the reader "" is the cell's own recommender, on
    the examples that the others were given, so that all gains are measured equally well."""
    found: dict[str, dict[str, Shown]] = {}
    for done in state.evaluated(name):
        cell: CellConfig = done.planned.cell
        readers = readers_of(state, name, cell.id) if cell.gain_over else []
        given = decisions.filter(pl.col("verbalizer").is_in([f"{cell.id}/{LEARNED}@{reader}" for reader in readers]))
        mine = decisions.join(given, on="example_id", how="semi")
        for reader in ("", *readers) if readers else ():
            at = f"@{reader}" if reader else ""
            gain = compared(mine, f"{cell.id}/{LEARNED}{at}", f"{cell.id}/{cell.gain_over}{at}")
            label = f"{cell.id}: {LEARNED} − {cell.gain_over}, read by {reader or OWN}"
            found.setdefault(cell.id, {})[reader] = Shown(label, gain, primary=False)
    return found


def blind_readers(gains: Mapping[str, Shown], arms: pl.DataFrame) -> set[str]:
    """The readers of `crossed_gains` for one cell that find the target no better than chance from either text, so that
    they can tell nothing about them. `arms` is the output of `recsys.comparison.summarise`; a reader can read where the
    interval of Recall@1 lies above chance for one of the two texts."""
    above = arms.filter(pl.col("metric") == "recall@1", pl.col("low") > pl.col("chance"))
    able = set(above["verbalizer"])
    sides = {name: {one.comparison.a.verbalizer, one.comparison.b.verbalizer} for name, one in gains.items()}
    return {name for name, one in gains.items() if not sides[name] & able and one.comparison.low <= 0}


def reading_of(gains: Mapping[str, Shown], blind: Collection[str] = ()) -> str:
    """Whether a gain is seen by every reader, in words; `gains` as in `crossed_gains`, `blind` as in `blind_readers`.

    A reader at chance with both texts sees no gain, and would see none in any text: it makes no gain specific to the
    others. A gain in one answering mode only is called mode-specific, whatever the reason.
    """
    listed = "; ".join(
        f"{name or OWN} {signed(one.comparison.difference)} [{signed(one.comparison.low)}, "
        f"{signed(one.comparison.high)}]" + (", at chance with both texts" if name in blind else "")
        for name, one in gains.items()
    )
    gaining = [name for name, one in gains.items() if one.comparison.low > 0]
    if not gaining:
        return f"no reader shows a gain ({listed})."
    asked = [name for name in gains if name.rpartition("+")[2] in MODES]  # in another answering mode
    mode = " Mode-specific: no gain in another answering mode." if asked and not set(asked) & set(gaining) else ""
    who = ", ".join(name or OWN for name in gaining)
    if len(gaining) < len(gains) - len(blind):
        return f"the gain is specific to {who} ({listed}).{mode}"
    if len(gaining) == len(gains):
        return f"the gain is seen by every reader ({listed}).{mode}"
    if len(gaining) > 1:
        return f"the gain is seen by every reader that does better than chance: {who} ({listed}).{mode}"
    return f"the gain is seen by {who} alone, and no other reader does better than chance ({listed}).{mode}"


def compared(
    decisions: pl.DataFrame, a: str, b: str, relative: bool = False, seeds: Collection[int] | None = None
) -> Comparison:
    """Recall@1 of two of the table's arms, by name, whoever read them; of `seeds` alone where these are given."""
    flat = decisions.filter(pl.col("verbalizer").is_in([a, b])).with_columns(recommender=pl.lit(""))
    # Only another reader may have been given fewer; cells that ranked different examples are refused.
    for arm in (a, b) if parts_of(a)[2] or parts_of(b)[2] else ():
        flat = flat.join(flat.filter(pl.col("verbalizer") == arm), on="example_id", how="semi")
    if seeds is not None:
        flat = flat.filter(pl.col("seed").is_in(sorted(seeds)))
    return compare(flat, (a, ""), (b, ""), relative=relative)


def _caveat(planned: Planned) -> str:
    """What must stand beside a difference to a prompt that a model too weak to reflect has evolved."""
    if all(recipe.gepa is None or recipe.gepa.is_rival for recipe in planned.recipes):
        return ""
    return " (reflection model not declared capable: no rival)"


def _detectable(state: State, name: str) -> float | None:
    """The smallest difference of Recall@1 that could be seen, as the first cell stated it before it looked."""
    plan = read_json(state.evaluated(name)[0].folders[0]["evaluate"] / "plan.json")
    smallest: float | None = plan["detectable"]["absolute"]
    return smallest
