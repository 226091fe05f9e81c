"""What is committed as evidence: per-example outcomes or raw timings, small, diff-able, and free of anybody's data.

Outcome rows hold opaque ids only. The salt that made them stays with whoever holds the log, so ids cannot be turned
back into users; titles, item ids, ratings and histories are refused by name, because the terms of most rating logs
forbid passing them on.
"""

import gzip
import hashlib
import io
from pathlib import Path

import polars as pl

from recsys.errors import CorruptFileError, InputError
from recsys.storage import replacing

OUTCOME_COLUMNS = {
    "example": pl.String,
    "user": pl.String,
    "arm": pl.String,
    "seed": pl.Int64,
    "slate": pl.Int32,
    "size": pl.Int32,
    "rank": pl.Int32,
}
VALUE_COLUMNS = {"example": pl.String, "user": pl.String, "arm": pl.String, "seed": pl.Int64, "value": pl.Float64}
TIMING_COLUMNS = {"arm": pl.String, "repeat": pl.Int64, "seconds": pl.Float64}
PEAK_COLUMNS = {"arm": pl.String, "repeat": pl.Int64, "gigabytes": pl.Float64}
KINDS = {"outcomes": OUTCOME_COLUMNS, "values": VALUE_COLUMNS, "timings": TIMING_COLUMNS, "peaks": PEAK_COLUMNS}
_DIGITS = 10  # hexadecimal: 40 bits, a collision among 10,000 ids has probability 5e-5 and is checked for


def outcomes_table(decisions: pl.DataFrame, salt: str, arm: str = "{verbalizer}/{recommender}") -> pl.DataFrame:
    """Decisions -> committed outcomes (columns of OUTCOME_COLUMNS), sorted, ids hashed with `salt`.

    `arm` is a pattern over the columns verbalizer and recommender. Raises InputError for an empty salt or colliding
    ids.
    """
    name = pl.lit("")
    for piece in _pieces(arm):
        name = name + (pl.col(piece[1]) if piece[0] == "column" else pl.lit(piece[1]))
    table = decisions.select(
        example=_opaque(decisions, "example_id", salt),
        user=_opaque(decisions, "user_id", salt),
        arm=name,
        seed=pl.col("seed").cast(pl.Int64),
        slate=pl.col("slate_index").cast(pl.Int32),
        size=pl.col("scores").list.len().cast(pl.Int32),
        rank=pl.col("rank").cast(pl.Int32),
    )
    return table.sort(*list(OUTCOME_COLUMNS)[:-1])


def values_table(values: pl.DataFrame, salt: str) -> pl.DataFrame:
    """Per-example numbers (columns example_id, user_id, arm, seed, value) -> committed values (VALUE_COLUMNS).

    Values are rounded to 6 decimals, so the file does not depend on the last bits of a floating-point sum.
    """
    table = values.select(
        example=_opaque(values, "example_id", salt),
        user=_opaque(values, "user_id", salt),
        arm=pl.col("arm"),
        seed=pl.col("seed").cast(pl.Int64),
        value=pl.col("value").cast(pl.Float64).round(6),
    )
    return table.sort(*list(VALUE_COLUMNS)[:-1])


def timings_table(seconds: dict[str, list[float]]) -> pl.DataFrame:
    """Raw timings by arm, in the order measured -> committed timings (TIMING_COLUMNS), microsecond resolution."""
    rows = [(arm, i, round(value, 6)) for arm, values in sorted(seconds.items()) for i, value in enumerate(values)]
    return pl.DataFrame(rows, schema=TIMING_COLUMNS, orient="row")


def peaks_table(gigabytes: dict[str, list[float]]) -> pl.DataFrame:
    """Peak memory by arm, in the order measured -> committed peaks (PEAK_COLUMNS), megabyte resolution."""
    rows = [(arm, i, round(value, 3)) for arm, values in sorted(gigabytes.items()) for i, value in enumerate(values)]
    return pl.DataFrame(rows, schema=PEAK_COLUMNS, orient="row")


def write_artefact(table: pl.DataFrame, path: Path | str) -> None:
    """Write CSV, compressed (reproducibly: no time stamp) when the name ends in `.csv.gz`.

    Raises InputError when the columns are none of KINDS: anything else might be somebody's data.
    """
    kind_of(table, str(path))
    data = table.write_csv().encode()
    if str(path).endswith(".gz"):
        buffer = io.BytesIO()
        with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as stream:
            stream.write(data)
        data = buffer.getvalue()
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def read_artefact(path: Path | str) -> pl.DataFrame:
    """Read and check. Raises FileNotFoundError when absent, CorruptFileError when it does not hold a known kind of
    rows.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        header = data.partition(b"\n")[0].decode().strip().split(",")
        columns = next((c for c in KINDS.values() if list(c) == header), None)
        if columns is None:
            raise CorruptFileError(
                str(path),
                f"columns {header} are none of {[list(c) for c in KINDS.values()]}",
                "write artefacts with write_artefact",
            )
        table = pl.read_csv(io.BytesIO(data), schema=columns)
    except CorruptFileError:
        raise
    except Exception as error:
        raise CorruptFileError(
            str(path), f"not a readable artefact ({error})", "run the recipe that wrote it again"
        ) from error
    if table.is_empty() or any(table.null_count().row(0)):
        raise CorruptFileError(
            str(path), "an artefact has at least one row and no empty cell", "run the recipe that wrote it again"
        )
    return table


def kind_of(table: pl.DataFrame, name: str) -> str:
    """ "outcomes", "values", "timings" or "peaks". Raises InputError for any other set of columns."""
    for kind, columns in KINDS.items():
        if dict(table.schema) == columns:
            return kind
    raise InputError(
        f"{name} with columns {dict(table.schema)}",
        "an artefact holds opaque outcomes, values, timings or peaks of memory and nothing else",
        "make it with outcomes_table, values_table, timings_table or peaks_table",
    )


def opaque_id(value: str, salt: str) -> str:
    """Keyed hash of an id: equal ids stay equal, and without the salt nothing leads back.

    >>> opaque_id("7", "a") == opaque_id("7", "a"), opaque_id("7", "a") == opaque_id("7", "b")
    (True, False)
    """
    key = hashlib.sha256(salt.encode()).digest()
    return hashlib.blake2b(value.encode(), key=key, digest_size=_DIGITS // 2).hexdigest()


def _opaque(frame: pl.DataFrame, column: str, salt: str) -> pl.Expr:
    if not salt:
        raise InputError(
            "an empty salt",
            "ids hashed without a secret can be turned back",
            "pass secrets.token_hex(16), kept outside the repository",
        )
    known = {value: opaque_id(value, f"{column}:{salt}") for value in frame[column].unique()}
    if len(set(known.values())) != len(known):
        raise InputError(f"column {column}", "two ids have the same opaque id", "use another salt")
    return pl.col(column).replace_strict(known, return_dtype=pl.String)


def _pieces(pattern: str) -> list[tuple[str, str]]:
    from string import Formatter

    pieces: list[tuple[str, str]] = []
    for text, column, _, _ in Formatter().parse(pattern):
        pieces += [("text", text)] if text else []
        pieces += [("column", column)] if column else []
    return pieces
