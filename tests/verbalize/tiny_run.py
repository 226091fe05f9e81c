"""What the tests of whole runs share: a small made-up log with its mapping, a recipe of tiny sizes, observers of
progress."""

import copy
import csv
import datetime as dt
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from recsys.models.chat import install_chat_template
from recsys.seeding import rng
from recsys.storage import file_hash
from verbalize.config import build, override
from verbalize.recipe import Recipe
from verbalize.runs import RunResult, run_recipe

USERS, ITEMS, EVENTS_PER_USER = 60, 80, 24
START = dt.datetime(2021, 1, 1, tzinfo=dt.UTC)
GENRES = ("Drama", "Comedy", "War", "Crime")
COMMAND = "verbalize run experiments/tiny.yaml"
MAPPING: dict[str, Any] = {
    "events": {
        "file": "events.csv",
        "event_type": "rating",
        "columns": {
            "user_id": "who",
            "item_id": "what",
            "rating": {"from": "stars", "scale": [0, 5]},
            "event_time": {"from": "at", "unit": "s"},
        },
    },
    "items": {
        "file": "items.csv",
        "columns": {"item_id": "what", "title": "name", "year": "made", "genres": {"from": "kinds", "separator": "|"}},
    },
    "engaged": {"rating_at_least": 4},
}


def title_of(place: int) -> str:
    """A title with a word that occurs nowhere else, so that finding it where it should not be means something."""
    return f"Zyxwood{place:03d} night story"


def write_log(folder: Path, title: Callable[[int], str] = title_of, seed: int = 0) -> Path:
    """events.csv and items.csv: 60 users with 24 ratings each spread over half a year; users like one or two genres."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = rng(seed, "tiny log")
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as handle:
        rows = csv.writer(handle)
        rows.writerow(["what", "name", "made", "kinds"])
        for place in range(ITEMS):
            kinds = "|".join(sorted({GENRES[place % 4], GENRES[place // 7 % 4]}))
            rows.writerow([f"qitem{place:04d}", title(place), 1985 + place % 15, kinds])
    with (folder / "events.csv").open("w", newline="", encoding="utf-8") as handle:
        rows = csv.writer(handle)
        rows.writerow(["who", "what", "stars", "at"])
        for user in range(USERS):
            likes = int(generator.integers(4))
            moments = sorted(generator.choice(180 * 24, EVENTS_PER_USER, replace=False).tolist())
            for item, hour in zip(generator.permutation(ITEMS)[:EVENTS_PER_USER], moments, strict=True):
                stars = min(5, int(generator.integers(1, 5)) + 2 * (int(item) % 4 == likes))
                moment = int((START + dt.timedelta(hours=hour)).timestamp())
                rows.writerow([f"quser{user:04d}", f"qitem{int(item):04d}", stars, moment])
    return folder


def model_with_chat(model: Path, folder: Path) -> Path:
    """A copy of a checkpoint whose tokenizer has our chat template, which rewrites need."""
    from transformers import AutoTokenizer

    shutil.copytree(model, folder)
    install_chat_template(AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)
    return folder


def recipe_values(log: Path, model: Path, folder: Path) -> dict[str, Any]:
    """A recipe on the validation split. `folder` receives the register of looks."""
    return copy.deepcopy(
        {
            "name": "tiny",
            "title": "Tiny",
            "source": {"kind": "table", "path": str(log), "inline": MAPPING},
            "examples": {
                "history_min": 3,
                "history_max": 6,
                "targets_per_user": 3,
                "split": {
                    "train": 0.3,
                    "validation": 0.3,
                    "test": 0.4,
                    "train_until": "40%",
                    "validate_until": "65%",
                },
                "slate": {"policy": "matched", "size": 4},
            },
            "sample": {"train": 6, "train_per_user": 2, "selection": 6, "report": 6, "test": 12},
            "templates": ["titles", "titles_metadata", "concatenation"],
            "constants": ["keep_all", "drop_all"],
            "recommender": {"model": str(model)},
            "recommender_training": {
                "examples": 4,
                "accumulation": 2,
                "save_every": 2,
                "templates": ["titles"],
                "lora": {"rank": 2, "alpha": 4},
            },
            "policy": {"model": str(model), "lora": {"rank": 4, "alpha": 8}},
            "reward": {"kind": "margin", "slates": 2},
            "warm_start": {"epochs": 1, "batch_size": 2, "save_every": 1},
            "train": {
                "steps": 2,
                "prompts_per_step": 2,
                "group_size": 4,
                "learning_rate": 3e-2,
                "eval_every": 1,
                "save_every": 1,
            },
            "limits": {"max_kl": None, "min_entropy": None, "max_dead_groups": None},
            "seeds": [0, 1],
            "evaluation": {
                "split": "validation",
                "register": str(folder / "looks.json"),
                "baselines": ["popularity", "item_knn", "ease", "logit"],
                "untrained": ["concatenation"],
                "example_browser": 3,
                "claims": [
                    {"id": "tiny.learned_margin", "kind": "learned_margin", "statement": "Margin after minus before"},
                    {"id": "tiny.pool_headroom", "kind": "pool_headroom", "statement": "Headroom", "target": None},
                    {"id": "tiny.vs_template", "statement": "Learned minus template", "b": "best_template"},
                    {
                        "id": "tiny.vs_logit",
                        "statement": "Learned relative to the logit",
                        "b": "logit",
                        "relative": True,
                        "target": 0.9,
                    },
                    {
                        "id": "tiny.seconds",
                        "kind": "seconds",
                        "statement": "Wall time",
                        "target": 1e6,
                        "direction": "lower",
                        "criterion": "value",
                    },
                ],
            },
        }
    )


def recipe_of(values: dict[str, Any], *overrides: str) -> Recipe:
    """The recipe these values describe."""
    return build(Recipe, override(values, overrides))


def run(values: dict[str, Any], runs: Path, *overrides: str, progress: Any = None, **options: Any) -> RunResult:
    """Carry the recipe out in this process."""
    return run_recipe(recipe_of(values, *overrides), runs, COMMAND, progress or Recorder(), **options)


def write_recipe(values: dict[str, Any], path: Path) -> Path:
    """The recipe as a file."""
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def hashes(folder: Path, *names: str) -> dict[str, str]:
    """sha256 of the named files of a stage's folder."""
    return {name: file_hash(folder / name) for name in names}


class Recorder:
    """Progress that remembers what each stage said, and its steps."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.steps: list[tuple[str, int, int, str]] = []

    def stage(self, name: str, state: str, detail: str = "") -> None:
        self.events.append((name, state))

    def step(self, name: str, done: int, total: int, detail: str = "") -> None:
        self.steps.append((name, done, total, detail))

    def began(self) -> list[str]:
        """Stages that did not turn out to be up to date."""
        return [name for name, state in self.events if state in ("starts", "resumes")]


class Interrupts(Recorder):
    """Presses Ctrl-C at one moment: at the `number`-th report (from 1) that `stage` makes of its steps."""

    def __init__(self, stage: str, number: int) -> None:
        super().__init__()
        self.moment, self.seen = (stage, number), 0

    def step(self, name: str, done: int, total: int, detail: str = "") -> None:
        super().step(name, done, total, detail)
        self.seen += name == self.moment[0]
        if (name, self.seen) == self.moment:
            raise KeyboardInterrupt
