"""Local runs as plain data: what is there, how far each came, and how two of them differ.

Everything is read from manifests and stage folders; nothing is run, and a run in progress may be looked at.
"""

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys.errors import CorruptFileError, InputError
from recsys.storage import read_json, read_parquet
from verbalize.pipeline import STORE, folder_of

MANIFEST = "manifest.json"
SWEEPS = "sweeps"
METRICS = ("recall@1", "mrr")


def list_runs(runs: Path) -> list[dict[str, Any]]:
    """One mapping per run, the newest first: name, status (complete, unfinished, running), stages, seconds, date, and
    the learned arm's and the best template's Recall@1 where they were evaluated."""
    folders = [path for path in sorted(runs.glob("*")) if path.is_dir() and path.name not in (STORE, SWEEPS)]
    rows = [_row(runs, folder) for folder in folders if (folder / MANIFEST).exists() or (folder / ".lock").exists()]
    return sorted(rows, key=lambda row: str(row["date"]), reverse=True)


def list_sweeps(runs: Path) -> list[dict[str, Any]]:
    """One mapping per sweep that has written results: name, counts of trials, the best values."""
    rows = []
    for path in sorted((runs / SWEEPS).glob("*/sweep.json")):
        found = read_json(path)
        best = found["best"][0] if found["best"] else None
        rows.append(
            {
                "name": found["sweep"],
                "objective": found["objective"],
                "counts": found["counts"],
                "best": best and {"value": best["value"], "params": best["params"]},
            }
        )
    return rows


def compare_runs(runs: Path, names: Sequence[str]) -> dict[str, Any]:
    """`configuration`: the dotted keys that differ, with every run's value; `metrics`: arm -> run -> metric values;
    `training`: the last value of every curve, by run; `seconds`: by stage. Raises InputError for an unknown run."""
    if len(set(names)) < 2:
        raise InputError(f"runs {list(names)}", "a comparison needs two different runs", "name at least two")
    manifests = {name: load_manifest(runs, name) for name in names}
    flat = {name: dict(flatten(manifest["recipe"])) for name, manifest in manifests.items()}
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    different = {
        key: {name: flat[name].get(key) for name in names}
        for key in keys
        if any(flat[name].get(key) != flat[names[0]].get(key) for name in names)
    }
    metrics: dict[str, dict[str, Any]] = {}
    for name, manifest in manifests.items():
        for arm, values in arm_metrics(runs, manifest).items():
            metrics.setdefault(arm, {})[name] = values
    return {
        "runs": list(names),
        "configuration": different,
        "metrics": metrics,
        "training": {name: last_values(runs, manifest) for name, manifest in manifests.items()},
        "seconds": {
            name: {stage: done["seconds"] for stage, done in manifest["stages"].items()}
            for name, manifest in manifests.items()
        },
    }


def load_manifest(runs: Path, name: str) -> dict[str, Any]:
    """A run's manifest. Raises InputError naming the runs there are."""
    path = runs / name / MANIFEST
    if not path.is_file():
        known = [folder.parent.name for folder in sorted(runs.glob(f"*/{MANIFEST}"))]
        raise InputError(
            f"run {name!r}", "has no manifest here", f"known: {', '.join(known) or 'none'}; or give --runs"
        )
    found: dict[str, Any] = read_json(path)
    return found


def arm_metrics(runs: Path, manifest: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Arm ("verbalizer / recommender") -> METRICS on the run's evaluated split; empty before `evaluate`."""
    from recsys.outcomes import outcomes

    path = _stage(runs, manifest, "evaluate", "decisions.parquet")
    if path is None:
        return {}
    decisions = read_parquet(path)
    found: dict[str, dict[str, float]] = {}
    for metric in METRICS:
        for (verbalizer, recommender), rows in outcomes(decisions, metric).group_by("verbalizer", "recommender"):
            found.setdefault(f"{verbalizer} / {recommender}", {})[metric] = float(rows["value"].mean())  # type: ignore[arg-type]
    return dict(sorted(found.items()))


def last_values(runs: Path, manifest: Mapping[str, Any]) -> dict[str, float]:
    """ "seed0/validation/reward" and the like -> their last value; empty before `train`."""
    from verbalize.tracking import FILE_NAME, read_metrics

    path = _stage(runs, manifest, "train", f"parts/tracking/{FILE_NAME}")
    if path is None:
        return {}
    last = read_metrics(path).sort("step").group_by("name", maintain_order=True).last().sort("name")
    return dict(zip(last["name"], last["value"], strict=True))


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys; lists are values.

    >>> dict(flatten({"a": {"b": 1, "c": [2]}, "d": None}))
    {'a.b': 1, 'a.c': [2], 'd': None}
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _row(runs: Path, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": folder.name, "status": "unfinished", "stages": [], "seconds": None, "date": ""}
    if (folder / MANIFEST).exists():
        manifest = read_json(folder / MANIFEST)
        if not isinstance(manifest, dict) or "stages" not in manifest:
            raise CorruptFileError(
                str(folder / MANIFEST), "is not a run's manifest", "delete it and run the recipe again"
            )
        row["stages"] = sorted(manifest["stages"], key=lambda name: manifest["stages"][name]["finished"])
        row["seconds"] = round(sum(done["seconds"] for done in manifest["stages"].values()), 1)
        row["date"] = max((done["finished"] for done in manifest["stages"].values()), default="")
        row["split"] = manifest["recipe"]["evaluation"]["split"]
        row["recall@1"] = {arm: values["recall@1"] for arm, values in arm_metrics(runs, manifest).items()}
        if "report" in manifest["stages"]:
            row["status"] = "complete"
    if _held(folder / ".lock"):
        row["status"] = "running"
    return row


def _held(lock: Path) -> bool:
    """Whether a process holds the run's lock now."""
    try:
        with lock.open("r") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _stage(runs: Path, manifest: Mapping[str, Any], stage: str, name: str) -> Path | None:
    """A file of a finished stage, where it is still there."""
    if stage not in manifest["stages"]:
        return None
    path = folder_of(runs / STORE, stage, manifest["stages"][stage]["key"]) / name
    return path if path.exists() else None
