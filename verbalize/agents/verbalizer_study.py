"""The study of the multi-step verbalizer (`kind: slea_verbalizer`): SLEA-RL and its switches where an episode inspects,
keeps, drops, groups and enriches a history, and a recommender judges the text it ends with.

As in TextWorld every arm starts from the same policy, meets the same training examples with the same seeds and ends
with the first batch that reaches the budget of environment steps. Learning curves are measured on validation users who
select; the texts of other validation users are compared at the end: reward and place of the target in its slates. No
test user is read and no claim is made: a claim needs a look at test users, which recipes register.

Written below `world-<key>` of the study's folder, so that another recommender or reward begins anew:

    examples.json   the examples of each part with their users
    runs/           an adapter, a library and curves.jsonl per arm and seed
    cells/          a table of texts and ranks per arm and seed
    curves.parquet  arm, seed, environment_steps, reward, success: the learning curves together
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from verbalize.agents.slea_report import PAIRS
from verbalize.agents.slea_settings import START
from verbalize.agents.study import StudyResult
from verbalize.agents.verbalizer_settings import KEPT, Config
from verbalize.pipeline import Progress

if TYPE_CHECKING:
    import polars as pl

    from verbalize.agents.verbalizer_world import World
    from verbalize.experience.embedding import Embedder

__all__ = ["Config", "compare_verbalizers", "run"]

EXAMPLES = "examples.json"
SHOWN = ("reward", "rank")
"""The numbers of the printed table and of the paired differences."""


def run(config: Config, folder: Path, progress: Progress, command: str) -> StudyResult:
    """Prepare the recipe's data and recommender, train and judge every arm; see `verbalize.agents.study`. `folder` lies
    in `<runs>/agents`: the recipe's stages are those of the same folder of runs.
    """
    from verbalize.agents.verbalizer_world import prepare_world
    from verbalize.experience.embedding import CachedEmbedder

    world = prepare_world(config, folder.parents[1], progress, command)
    try:
        return compare_verbalizers(
            config, world, CachedEmbedder(config.experience.embedding), folder, progress, command
        )
    finally:
        world.environments.close()


def compare_verbalizers(
    config: Config, world: "World", embedder: "Embedder | None", folder: Path, progress: Progress, command: str
) -> StudyResult:
    """The study in a world that is ready."""
    from recsys.storage import write_json, write_parquet
    from verbalize.agents.slea_arms import facts_of
    from verbalize.agents.verbalizer_arms import VerbalizerArms

    folder = folder / f"world-{world.key}"
    write_json(world.parts.to_dicts(), folder / EXAMPLES)
    arms = VerbalizerArms(config, world, embedder, folder, progress, command)
    arms.random_cell()
    arms.kept_cell()
    arms.start_cell()
    runs: dict[str, dict[str, Any]] = {}
    curves: list[dict[str, Any]] = []
    for seed in config.seeds:
        for arm in config.arms:
            trained = arms.train(arm, seed)
            arms.final_cell(arm, seed, trained)
            points = reward_curve(trained)
            curves += [{"arm": arm, "seed": seed} | point for point in points]
            runs[f"{arm}/{seed}"] = facts_of(trained) | {"curve": points}
    write_parquet(curve_table(curves), folder / "curves.parquet")
    return result_of(config, arms.judged, runs)


def reward_curve(trained: Path) -> list[dict[str, Any]]:
    """Environment steps, mean reward and success on the development examples of a run, oldest first."""
    from verbalize.optimize.curves import Curves

    return [
        {
            "environment_steps": int(record["environment_steps"]),
            "reward": round(float(record["component.outcome"]), 6),
            "success": round(float(record["component.success"]), 6),
        }
        for record in Curves(trained / "curves.jsonl").of_kind("validation")
    ]


def curve_table(points: list[dict[str, Any]]) -> "pl.DataFrame":
    """The points of all runs."""
    import polars as pl

    columns = {"arm": pl.String, "seed": pl.Int64, "environment_steps": pl.Int64}
    return pl.DataFrame(points, schema=columns | {"reward": pl.Float64, "success": pl.Float64})


def result_of(
    config: Config, judged: "Mapping[tuple[str, int], pl.DataFrame]", runs: Mapping[str, Mapping[str, Any]]
) -> StudyResult:
    """Means with intervals over users and paired differences; `judged` by (arm, seed)."""
    from verbalize.agents.verbalizer_outcomes import by_example, compare, summarise

    means = by_example(judged)
    summaries = {arm: summarise(table) for arm, table in means.items()}
    pairs = [(a, b) for a, b in PAIRS if a in config.arms and b in config.arms]
    pairs += [(arm, other) for arm in config.arms for other in (START, KEPT)]
    differences = {f"{a} - {b}": compare(means[a], means[b], SHOWN) for a, b in pairs}
    first = next(iter(means.values()))
    facts = {
        "examples": len(first),
        "users": first["user_id"].n_unique(),
        "arms": summaries,
        "differences": differences,
        "by_seed": {f"{arm}/{seed}": round(fmean(t["reward"]), 6) for (arm, seed), t in judged.items()},
        "runs": dict(runs),
    }
    lines = [
        f"{config.name}: {facts['examples']} validation examples of {facts['users']} users, {len(config.seeds)} seeds, "
        f"reward {config.reward}",
        "  arm           reward  interval over users   rank of the target",
    ]
    lines += [
        f"  {arm:<12} {_row(found['reward'])}   {found['rank']['value']:5.2f}" for arm, found in summaries.items()
    ]
    lines += ["paired differences of reward"]
    lines += [f"  {name:<22} {_row(found['reward'], sign='+')}" for name, found in differences.items()]
    lines += ["training: environment steps, lessons, share of steps shown any, reward on development examples"]
    lines += [
        f"  {name:<14} {run['environment_steps']:6d}  {run['lessons']:4d}  {run['shown']:.2f}  "
        f"{run['curve'][0]['reward']:.3f} -> {run['curve'][-1]['reward']:.3f}"
        for name, run in runs.items()
    ]
    return StudyResult(facts, "\n".join(lines))


def _row(found: Mapping[str, float | None], sign: str = "") -> str:
    low, high = (f"{value:{sign}.3f}" if value is not None else "?" for value in (found["low"], found["high"]))
    return f"{found['value']:{sign}7.3f}  [{low}, {high}]"
