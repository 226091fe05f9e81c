"""The store: append, refresh, rebuild, compact, forget, read.

Each writing operation holds the writer's lock, collects what a killed one left, writes new files and commits one
generation, so it happens wholly or not at all. Appending looks at the batch's users and no others: their delivered
events are read, joined with the batch, and the examples that a change can have reached are made again
(`recsys.logs.store.examples`); the rest of the store is neither read nor written.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from recsys.errors import InputError
from recsys.logs.engaged import EngagedConfig
from recsys.logs.examples import ExamplesConfig
from recsys.logs.store import manifest as generations
from recsys.logs.store import upkeep
from recsys.logs.store.deliveries import catalogue, changed_items, delivered_events, described_items, unseen
from recsys.logs.store.examples import ORDER, canonical, reached, targets_of
from recsys.logs.store.manifest import Manifest
from recsys.logs.store.reference import Reference, frozen, thawed
from recsys.logs.store.tables import Additions, Files, buckets_of
from recsys.logs.store.writing import TextWriter, add_examples, check_writer, groups, writing
from recsys.logs.tables import Log, RawLog

T = TypeVar("T")


@dataclass(frozen=True)
class Appended:
    """The generation after an append (the one before, where nothing was new) and what was counted."""

    generation: int
    counts: dict[str, int] = field(default_factory=dict)


class Store:
    """An embedded store in a folder. Any number of readers, one writer at a time (an InputError says so)."""

    def __init__(self, root: Path | str, writer: TextWriter | None = None) -> None:
        """Open a store; `writer` makes the candidate texts, where the store keeps some. Raises InputError where there
        is none."""
        self.root, self.writer = Path(root), writer
        self._seen: set[str] = set()
        generations.load(self.root)

    @classmethod
    def create(cls, root: Path | str, writer: TextWriter | None = None, buckets: int = 16) -> "Store":
        """A new, empty store, or the one that is there already."""
        with generations.alone(Path(root)):
            generations.create(Path(root), buckets)
        return cls(root, writer)

    def append(self, raw: RawLog) -> Appended:
        """Add a batch: events (and items) that were delivered before are recognised and change nothing.

        An item that is described differently from before is described anew for everyone who touched it. Raises
        ContractError for a batch that breaks a contract; nothing of it is stored then. Impressions are not kept; they
        are counted.
        """
        with writing(self.root, self._seen) as (before, files, additions):
            counts = {"impressions_not_stored": len(raw.impressions)} if raw.impressions is not None else {}
            arrived = upkeep.not_forgotten(raw.events.collect(), before, counts)
            batch = delivered_events(arrived, counts)
            titles = _where_titles_are(before, raw, arrived)
            had = files.table("items").get("items")
            has = described_items(had, raw.items, arrived, titles, before.deliveries + 1)
            same = has is None or (had is not None and has.equals(had))
            live = catalogue(has)
            changed = [] if same else changed_items(catalogue(had), live)
            described = files.of_items(changed)
            counts |= {"items_changed": len(changed), "events_new": 0, "users_touched": 0}
            counts |= {"examples_written": 0, "examples_removed": 0}
            placed = buckets_of(pl.concat([batch["user_id"], described["user_id"]]), before.buckets)
            reference = self._reference(files)
            if reference is not None:
                check_writer(self.writer, reference)
            for group in groups(sorted(set(placed["bucket"])), before):
                users = placed.filter(pl.col("bucket").is_in(group)).select("user_id")
                old = files.events(group, users["user_id"])
                fresh = unseen(batch.join(users, on="user_id", how="semi", maintain_order="left"), old)
                additions.events(fresh)
                changes = pl.concat([fresh.select(described.columns), described.join(users, on="user_id", how="semi")])
                since = changes.group_by("user_id").agg(pl.col("event_time").min().alias("since"))
                counts["events_new"] += len(fresh)
                counts["users_touched"] += len(since)
                if reference is not None and len(since):
                    delivered = pl.concat([old.join(since, on="user_id", how="semi"), fresh])
                    self._remake(canonical(delivered, live), reference, since, group, files, additions, counts)
            counts["events_known"] = len(batch) - counts["events_new"]
            kept = dict(before.files)
            if has is not None and not same:
                kept = {name: entry for name, entry in kept.items() if entry.kind != "items"}
                additions.table(has, "items", "items")
            after = replace(
                before,
                files=kept | additions.files,
                titles=titles,
                deliveries=before.deliveries + (not same),
                engaged=before.engaged or (asdict(raw.engaged) if raw.engaged else None),
            )
            done = generations.commit(self.root, before, after) if after != before else before
            return Appended(done.generation, counts)

    def refresh(self, config: ExamplesConfig) -> Reference:
        """Freeze a new reference from everything delivered so far and make all examples (and texts) again under it.

        Raises InputError when the log holds no valid event, or the configuration cannot be kept.
        """
        log, old = self.log(), self.reference()
        if log.events.is_empty():
            raise InputError(str(self.root), "holds no valid event yet", "append a batch first, with its items")
        settings = self.writer.settings if self.writer else {}
        reference = frozen(log, config, settings, old.version + 1 if old else 1)
        self.rebuild(reference)
        return reference

    def rebuild(self, reference: Reference) -> None:
        """Make all examples (and texts) again under this reference, and keep it."""
        with writing(self.root, self._seen) as (before, files, additions):
            check_writer(self.writer, reference)
            live = catalogue(files.table("items").get("items"))
            for group in groups(range(before.buckets), before):
                log = canonical(files.events(group), live)
                add_examples(log, reference, targets_of(log, reference), self.writer, additions)
            additions.table(reference.items, "reference", "items")
            additions.table(reference.counts, "reference", "counts")
            kept = {name: entry for name, entry in before.files.items() if entry.kind in ("events", "items")}
            after = replace(before, files=kept | additions.files, reference=reference.settings())
            generations.commit(self.root, before, after)

    def compact(self, min_files: int = 2) -> int:
        """Fold the small files of each bucket that has at least `min_files` of a kind. Returns how many files fewer.

        Contents stay as they are; reading and the next appends become cheaper.
        """
        return upkeep.compact(self.root, self._seen, min_files)

    def forget(self, users: Sequence[str]) -> dict[str, int]:
        """Remove users: their buckets are written again without them, and every older file is deleted at once.

        Their events are refused from now on (a keyed hash of the id is kept for that), so that a second delivery does
        not bring them back. The reference's counts per item and day still include theirs until the next `refresh`; they
        name nobody. Returns the rows removed by table.
        """
        return upkeep.forget(self.root, self._seen, users)

    def holds(self, users: Sequence[str]) -> dict[str, int]:
        """Rows of these users by table."""
        return self._read(lambda files: upkeep.rows_of(files, upkeep.cleaned_ids(users)))

    def log(self) -> Log:
        """The canonical events and items of everything delivered: what `canonicalise` makes of it, whatever the order,
        repetitions and interruptions of delivery."""

        def read(files: Files) -> Log:
            live = catalogue(files.table("items").get("items"))
            log = canonical(files.events(range(files.manifest.buckets)), live)
            rule = files.manifest.engaged
            engaged = EngagedConfig(**{**rule, "event_types": tuple(rule["event_types"])}) if rule else None
            return replace(log, engaged=engaged)

        return self._read(read)

    def contents(self) -> dict[str, Any]:
        """What `log` depends on: checksums of the files of events and items, by name, and the rule of engagement.

        An append that brings something changes it, and so does `compact`; a second delivery or a `refresh` does not.
        """
        manifest = generations.load(self.root)
        files = {**manifest.of("events"), **manifest.of("items")}
        return {"files": {name: entry.sha256 for name, entry in files.items()}, "engaged": manifest.engaged}

    def examples(self) -> pl.DataFrame:
        """The examples table, ordered by user, cutoff and target."""
        return self._layers("examples").sort(*ORDER)

    def texts(self) -> pl.DataFrame:
        """The candidate texts: example_id, verbalizer, text; ordered by both."""
        return self._layers("texts").sort("example_id", "verbalizer")

    def reference(self) -> Reference | None:
        """The frozen reference, None before the first `refresh`."""
        return self._read(self._reference)

    def verify(self) -> int:
        """Compare every file with its checksum; returns how many. Raises CorruptFileError naming the first bad one."""
        self._seen.clear()
        return self._read(lambda files: len([files.path(name) for name in files.manifest.files]))

    def _read(self, read: Callable[[Files], T]) -> T:
        return generations.consistently(self.root, lambda manifest: read(Files(self.root, manifest, self._seen)))

    def _layers(self, kind: str) -> pl.DataFrame:
        return self._read(lambda files: pl.concat([files.layers(kind, b) for b in range(files.manifest.buckets)]))

    def _reference(self, files: Files) -> Reference | None:
        if files.manifest.reference is None:
            return None
        tables = files.table("reference")
        return thawed(files.manifest.reference, tables["items"], tables["counts"])

    def _remake(
        self,
        log: Log,
        reference: Reference,
        since: pl.DataFrame,
        group: Sequence[int],
        files: Files,
        additions: Additions,
        counts: dict[str, int],
    ) -> None:
        """Examples and texts of the users in `since`, as far as the change reaches."""
        known = pl.concat([files.layers("keys", bucket) for bucket in group])
        known = known.join(since, on="user_id", how="semi")
        replaced, again = reached(targets_of(log, reference), known, since)
        additions.replaced(known.filter(pl.col("example_id").is_in(replaced.implode())))
        counts["examples_written"] += add_examples(log, reference, again, self.writer, additions)
        counts["examples_removed"] += len(replaced)


def _where_titles_are(manifest: Manifest, raw: RawLog, events: pl.DataFrame) -> str:
    """ "items" or "events" (see Manifest). Raises InputError when a batch brings them another way than those before."""
    found = "items" if raw.items is not None else "events" if "title" in events.columns else manifest.titles
    if manifest.titles and found != manifest.titles:
        raise InputError(
            f"a batch whose {found} carry titles",
            f"does not fit a store whose {manifest.titles} carry them",
            "deliver items the same way every time, or start another store",
        )
    return found
