"""One arrived file as a batch, through the same mapping that reads a whole log."""

from pathlib import Path
from typing import Any

import yaml

from recsys.errors import CorruptFileError, InputError
from recsys.logs.sources import table
from recsys.logs.tables import RawLog


def read_batch(path: Path | str, mapping: Path | str, items: Path | str | None = None) -> RawLog:
    """The events of `path` (a file, whatever file the mapping names) and the items of `items`.

    Without `items`, a mapping whose events carry titles brings descriptions as usual, and any other brings events only:
    an hourly batch need not repeat the catalogue. Raises InputError as `sources.table.read` does.
    """
    path, content = Path(path), _content(Path(mapping))
    if not path.is_file():
        raise InputError(str(path), "no such file", "name the files of events that arrived")
    events: dict[str, Any] = {**content["events"], "file": path.name}
    if content.get("items") and items is not None:
        described = {**content["items"], "file": str(Path(items).resolve())}
        return table.read(path.parent, {**content, "events": events, "items": described})
    if items is not None:
        raise InputError(f"items {str(items)!r}", "the mapping describes no items", "add `items` to the mapping")
    if "title" in events["columns"]:
        return table.read(path.parent, {**content, "events": events})
    # The reader wants a title of every log; a stand-in is read and taken out again.
    columns = {**events["columns"], "title": events["columns"]["item_id"]}
    raw = table.read(path.parent, {**content, "events": {**events, "columns": columns}, "items": None})
    return RawLog(raw.events.drop("title"), None, raw.provenance, raw.engaged)


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"mapping {str(path)!r}", "no such file", "write one (see experiments/mappings/)")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CorruptFileError(str(path), f"not valid YAML ({error})", "correct the mapping") from error
    events = content.get("events") if isinstance(content, dict) else None
    if (
        not isinstance(events, dict)
        or not isinstance(events.get("columns"), dict)
        or "item_id" not in events["columns"]
    ):
        raise InputError(
            str(path), "has no `events.columns` with an item_id", "say which columns of the file are which"
        )
    return content
