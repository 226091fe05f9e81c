"""Opening foreign files lazily: delimited text with any separator, Parquet, JSON lines, one or several as one table.

Text columns arrive as strings.

Polars splits at one-byte separators only; for longer ones (`::`) every line is read whole and split by an expression.
"""

import codecs
import io
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.errors import CorruptFileError, InputError
from recsys.logs.sources.json_lines import fault
from recsys.logs.sources.several import joined, paths_of

COMPLAINTS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What Polars raises for files that it cannot read."""
BATCH_ROWS = 500_000
_UNUSED = "\x1e"  # record separator: a "column separator" that keeps each line whole
FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".dat": "csv",
    ".txt": "csv",
    ".data": "csv",
    ".inter": "csv",
    ".item": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}


@dataclass(frozen=True)
class FileConfig:
    """How to open a file, all files of a folder, or those of a pattern (see `several`). `header` names the columns of
    files that have no header row; `format` is guessed from the suffix."""

    file: str
    format: str = ""
    separator: str = ""
    header: tuple[str, ...] = ()
    encoding: str = "utf-8"


def scan(config: FileConfig, root: Path) -> pl.LazyFrame:
    """The file, or several one after another, as a lazy frame. Raises InputError (absent, unknown format, files that do
    not fit together), CorruptFileError (unreadable, ragged, wrong encoding)."""
    frames = {name: _scan_one(path, config) for name, path in _named(config, root).items()}
    if len(frames) == 1:
        return next(iter(frames.values()))
    return joined(frames, guessed=all(_format(Path(name), config) == "jsonl" for name in frames))


def _named(config: FileConfig, root: Path) -> dict[str, Path]:
    """The files of a source by their names below `root`."""
    paths = paths_of(config.file, root)
    return {path.name if len(paths) == 1 else path.relative_to(root).as_posix(): path for path in paths}


def _format(path: Path, config: FileConfig) -> str:
    return config.format or FORMATS.get(path.suffix.lower(), "")


def _scan_one(path: Path, config: FileConfig) -> pl.LazyFrame:
    kind = _format(path, config)
    if kind not in ("csv", "parquet", "jsonl"):
        raise InputError(
            f"{path.name} ({kind or 'format not known from the suffix'})",
            "a source is csv, parquet or jsonl",
            "set `format` in the mapping, or let a pattern leave the file out",
        )
    if path.stat().st_size == 0:
        raise CorruptFileError(str(path), "the file is empty", "obtain it again")
    try:
        if kind == "parquet":
            frame = pl.scan_parquet(path)
        elif kind == "jsonl":
            _refuse_mark(path)
            frame = pl.scan_ndjson(path, infer_schema_length=10_000)
        else:
            frame = _scan_text(path, config)
        frame.collect_schema()
    except InputError:
        raise
    except (Exception, pl.exceptions.PanicException) as error:  # damaged Parquet makes the reader panic
        raise CorruptFileError(
            str(path), f"not readable as {kind} ({_cause(error, kind, path)})", "obtain the file again, or set `format`"
        ) from error
    return frame


def collect(frame: pl.LazyFrame, what: str, source: tuple[FileConfig, Path] | None = None) -> pl.DataFrame:
    """Collect, turning the reader's own complaints into `unreadable` ones."""
    try:
        return frame.collect()
    except COMPLAINTS as error:
        raise unreadable(what, error, source) from error


def unreadable(what: str, error: BaseException, source: tuple[FileConfig, Path] | None = None) -> CorruptFileError:
    """The reader's complaint about `what` as one of ours that names the file: where `source` (what `scan` was given)
    has several, the first of them that cannot be read."""
    cause = _first_line(error)
    if source is not None:
        what, cause = _culprit(*source) or (what, cause)
    return CorruptFileError(
        what, f"could not be read ({cause})", "correct the file, or name its separator and encoding in the mapping"
    )


def _culprit(config: FileConfig, root: Path) -> tuple[str, str] | None:
    """The first file of a source that cannot be read, by name, and why; None where each can by itself."""
    for name, path in _named(config, root).items():
        try:
            for _ in _scan_one(path, config).collect_batches(chunk_size=BATCH_ROWS):
                pass
        except COMPLAINTS as error:
            return name, _cause(error, _format(path, config), path)
    return None


def _scan_text(path: Path, config: FileConfig) -> pl.LazyFrame:
    separator = config.separator or ("\t" if path.suffix in (".tsv", ".inter", ".item") else ",")
    source: Path | io.BytesIO = path
    if config.encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        source = io.BytesIO(path.read_text(encoding=config.encoding).encode())
    names = list(config.header)
    if len(separator.encode()) > 1:
        return _scan_wide_separator(source, separator, names, path)
    # Only comma-separated files quote; elsewhere a quotation mark belongs to the title.
    frame = pl.scan_csv(
        source,
        separator=separator,
        quote_char='"' if separator in ",;" else None,
        has_header=not names,
        infer_schema=False,
        truncate_ragged_lines=False,
    )
    if not names:
        return frame
    found = frame.collect_schema().names()
    if len(found) != len(names):
        raise InputError(
            f"{path.name}: header {names}",
            f"names {len(names)} columns, the file has {len(found)}",
            "correct `header` in the mapping",
        )
    return frame.rename(dict(zip(found, names, strict=True)))


def _scan_wide_separator(source: Path | io.BytesIO, separator: str, names: list[str], path: Path) -> pl.LazyFrame:
    lines = pl.scan_csv(
        source, separator=_UNUSED, quote_char=None, has_header=False, infer_schema=False, new_columns=["line"]
    )
    if not names:
        names = lines.head(1).collect()["line"][0].split(separator)
        lines = lines.slice(1)
    lines = lines.filter(pl.col("line").is_not_null() & (pl.col("line") != ""))
    fields = pl.col("line").str.count_matches(separator, literal=True) + 1
    ragged = lines.filter(fields != len(names)).with_columns(fields.alias("fields")).head(1).collect(engine="streaming")
    if len(ragged):
        line, count = ragged["line"][0], ragged["fields"][0]
        raise CorruptFileError(
            f"{path.name}: line {line[:120]!r}",
            f"has {count} fields, expected {len(names)} ({', '.join(names)})",
            "correct the line, the separator or `header`",
        )
    split = pl.col("line").str.split_exact(separator, len(names) - 1).struct.rename_fields(names)
    return lines.select(split.alias("fields")).unnest("fields")


def _refuse_mark(path: Path) -> None:
    with path.open("rb") as handle:
        if handle.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
            raise CorruptFileError(str(path), "begins with a byte-order mark, which JSON forbids", "save it without")


def _cause(error: BaseException, kind: str, path: Path) -> str:
    """What to say of a file that its reader gave up on."""
    return (fault(path) if kind == "jsonl" else "") or _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
