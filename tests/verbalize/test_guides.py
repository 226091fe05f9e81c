"""The guides do what they say: marked commands run on a made-up log, all others exist, links lead somewhere."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Workshop
from tiny_run import write_log

from recsys.logs.bucketed_log import BUCKET_EVENTS
from recsys.logs.user_ranges import SAMPLE
from recsys.storage import read_json
from verbalize import cli

GUIDES = Path(__file__).parents[2] / "experiments" / "guides"
ORDER = ("bring-your-logs", "train", "evaluate-honestly", "sweep", "gpu-and-cluster", "events-that-keep-arriving")
BLOCK = re.compile(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUNS_A_RECIPE = ("run", "train", "evaluate", "report")
TINY = [
    "examples.history_min=3",
    "examples.history_max=6",
    "examples.targets_per_user=2",
    "examples.slate.size=4",
    "sample={train: 4, selection: 4, report: 4, test: 12}",
    "templates=[titles, titles_metadata]",
    "constants=[keep_all, drop_all]",
    "recommender_training={examples: 2, accumulation: 2, save_every: 2, templates: [titles]}",
    "policy.lora={rank: 2, alpha: 4}",
    "reward={kind: margin, slates: 1}",
    "warm_start={epochs: 1, batch_size: 4, save_every: 1}",
    "train.steps=1",
    "train.prompts_per_step=2",
    "train.group_size=2",
    "limits={max_kl: null, min_entropy: null, max_dead_groups: null}",
]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what follows the language, its lines."""

    language: str
    mark: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of each `verbalize` command, without comments."""
        whole = self.text.replace("\\\n", " ")  # continued lines
        lines = [shlex.split(line, comments=True) for line in whole.splitlines()]
        return [words[1:] for words in lines if words[:1] == ["verbalize"]]


def blocks(path: Path) -> list[Block]:
    """All fenced blocks that name a language."""
    return [Block(*match) for match in BLOCK.findall(path.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def folder(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder: a log with the columns of the first guide, and the files that the guides write down."""
    made = tmp_path_factory.mktemp("reader")
    log = write_log(made / "logs")
    for name, old, new in (
        ("events.csv", "who,what,stars,at", "customer,film,stars,seconds"),
        ("items.csv", "what,name,made,kinds", "film,name,released,genres"),
    ):
        text = (log / name).read_text(encoding="utf-8")
        assert text.startswith(old)
        text = text.replace(old, new, 1).replace("quser", "c").replace("qitem0", "f")  # ids as the guides print them
        (log / name).write_text(text, encoding="utf-8")
    (log / "items.csv").rename(log / "films.csv")
    for guide in ORDER:
        for block in blocks(GUIDES / f"{guide}.md"):
            if block.mark.startswith("file="):
                (made / block.mark.removeprefix("file=")).write_text(block.text, encoding="utf-8")
    for recipe in made.glob(
        "shop*.yaml"
    ):  # the sweep's recipe is tiny too: written into the file, as an override would be
        text = recipe.read_text(encoding="utf-8")
        if "source:" in text:
            models = f"\nrecommender: {{model: {workshop.model}}}\npolicy: {{model: {workshop.model}}}\n"
            recipe.write_text(text + models, encoding="utf-8")
    return made


@pytest.mark.real_model
def test_marked_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = [
        block
        for path in sorted(GUIDES.glob("*.md"))
        for block in blocks(path)
        if block.language == "python" and block.mark == "run"
    ]
    assert found
    for block in found:
        exec(compile(block.text, "guide", "exec"), {"__name__": "guide"})
    assert "take mug" in capsys.readouterr().out


@pytest.mark.parametrize("guide", ORDER)
def test_marked_commands_run(
    guide: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    found = [command for block in blocks(GUIDES / f"{guide}.md") if block.mark == "run" for command in block.commands]
    assert found
    for command in found:
        tiny = TINY if command[0] in RUNS_A_RECIPE else []
        assert cli.main([*command, *tiny]) == 0, (command, capsys.readouterr())
    written = {
        "bring-your-logs": ["runs/shop/manifest.json"],
        "train": ["runs/shop-bold/manifest.json"],
        "evaluate-honestly": [
            "runs/shop/report.html",
            "runs/looks.json",
            "paper/report.html",
            "paper/tables/arms.tex",
            "paper/figures/arms.pdf",
        ],
        "sweep": ["runs/sweeps/shop-sweep/sweep.html", "sweep-paper/sweep.html", "sweep-paper/tables/trials.csv"],
        "gpu-and-cluster": ["runs-bucketed/shop/manifest.json"],
        "events-that-keep-arriving": ["store/manifest.json", "runs/shop-store/manifest.json"],
    }
    for name in written[guide]:
        assert (folder / name).exists(), name
    if guide == "evaluate-honestly":
        assert "must not be compared" in (folder / "both" / "runs.html").read_text(encoding="utf-8")
    if guide == "events-that-keep-arriving":
        shown = capsys.readouterr().out
        monday, again = (line for line in shown.splitlines() if line.startswith("monday.csv"))
        assert "events new 3" in monday and "events known 3" in again and "new" not in again
        assert monday.endswith("generation 3") and again.endswith("generation 3")
        assert re.search(r"tuesday.csv: .*events new 2, users touched 2.*events known 1", shown)
        assert "reference 2" in shown and "would be removed" in shown and "store (events)" in shown
    if guide == "bring-your-logs":
        facts = {
            name: stage["facts"] for name, stage in read_json(folder / "runs/shop/manifest.json")["stages"].items()
        }
        assert {"logs", "examples", "templates"} <= set(facts) and any("slates_widened" in k for k in facts["examples"])


def test_every_command_written_down_exists() -> None:
    readme = GUIDES.parents[1] / "README.md"
    for path in (*GUIDES.glob("*.md"), readme):
        for block in blocks(path):
            for command in block.commands if block.language == "sh" else []:
                cli.parse(command)


def test_links_between_guides_lead_somewhere() -> None:
    assert {path.stem for path in GUIDES.glob("*.md")} == {*ORDER, "agents", "experience", "templates", "README"}
    for path in GUIDES.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), (path.name, target)


def test_the_plan_for_a_large_log_follows_from_its_record() -> None:
    record = read_json(GUIDES.parent / "results" / "logs_at_scale_100000000.json")
    (run,) = (one for one in record["runs"] if one["arm"] == "bucketed")
    each = run["seconds"] * record["threads"] / record["events"]
    hours = 1e11 * each / 3600
    text = (GUIDES / "gpu-and-cluster.md").read_text(encoding="utf-8")
    for stated in (
        f"took {run['seconds']:,.0f} s on {record['threads']} cores and {run['peak_gb']:.1f} GB",
        f"seconds × threads / events = {each * 1e6:.1f} µs",
        f"| buckets of 4 million events | {1e11 / BUCKET_EVENTS:,.0f} |",
        f"10^11 × {each * 1e6:.1f} µs / 3,600 | {hours:,.0f} |",
        f"0.05 USD per core-hour (put your price here) | {hours * 0.05:,.0f} USD |",
        f"wall time on 512 cores, buckets even | {hours / 512:.1f} hours |",
        f"at {run['peak_gb'] * 1e6 / BUCKET_EVENTS:.1f} kB per event",
        f"sample's\n  {SAMPLE:,} users",
    ):
        assert stated in text, stated
