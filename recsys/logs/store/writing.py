"""The frame of every writing operation, and the making of examples with their texts into new files."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from recsys.errors import InputError
from recsys.logs.store.examples import examples_of
from recsys.logs.store.manifest import Manifest, alone, collect, load
from recsys.logs.store.reference import Reference
from recsys.logs.store.tables import TEXT_SCHEMA, Additions, Files
from recsys.logs.tables import Log

ROWS_AT_ONCE = 10_000_000
"""Delivered events worked on together: bounds memory; buckets beyond it are worked on in turn."""
EXAMPLES_AT_ONCE = 50_000


class TextWriter(Protocol):
    """Writes the candidate texts of examples, each from its own example alone."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the texts depend on besides the examples, as plain values."""
        ...

    def write(self, examples: pl.DataFrame) -> pl.DataFrame:
        """Rows of `examples` -> example_id, verbalizer, text."""
        ...


@contextlib.contextmanager
def writing(root: Path, seen: set[str]) -> Iterator[tuple[Manifest, Files, Additions]]:
    """The writer's lock, what a killed writer left collected, the present generation, a place for new files. Where the
    block fails, what it has written so far is collected at once."""
    with alone(root):
        manifest = load(root)
        collect(root, manifest)
        try:
            yield manifest, Files(root, manifest, seen), Additions(root, manifest)
        except BaseException:
            collect(root, load(root))  # as read now: the block may have failed after its commit
            raise


def add_examples(
    log: Log, reference: Reference, targets: pl.DataFrame | None, writer: TextWriter | None, additions: Additions
) -> int:
    """Make the examples of `targets`, and their texts, into new files. Returns how many."""
    examples = examples_of(log, reference, targets)
    texts = None
    if writer is not None:
        parts = [writer.write(part) for part in examples.iter_slices(EXAMPLES_AT_ONCE)]
        texts = pl.concat([pl.DataFrame(schema=TEXT_SCHEMA), *parts])
    additions.examples(examples, texts)
    return len(examples)


def check_writer(writer: TextWriter | None, reference: Reference) -> None:
    """Raises InputError unless this writer made the store's texts: they all come from one."""
    mine = dict(writer.settings) if writer else {}
    if mine != dict(reference.texts):
        raise InputError(
            f"a writer of texts with settings {mine}",
            f"is not the one of the store's reference, {dict(reference.texts)}",
            "open the store with that writer, or refresh it with the new one",
        )


def groups(buckets: Iterable[int], manifest: Manifest) -> Iterator[list[int]]:
    """Buckets in lists of at most `ROWS_AT_ONCE` delivered events, a larger bucket alone."""
    group: list[int] = []
    size = 0
    for bucket in buckets:
        rows = sum(entry.rows for entry in manifest.of("events", bucket).values())
        if group and size + rows > ROWS_AT_ONCE:
            yield group
            group, size = [], 0
        group.append(bucket)
        size += rows
    if group:
        yield group
