"""The comparison: every arm on the same examples and slates, controls beside them, test opened under claims only."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys.evaluation import Arm, decide, shuffle_texts_between_users
from recsys.storage import read_json, write_json, write_parquet
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.recipe_sections import LEARNED, SHUFFLED, START
from verbalize.stages import baselines, displays, experience, policy_controls, samples
from verbalize.stages.audits import audits
from verbalize.stages.plan import detectable, open_test, plan_of
from verbalize.stages.ranking import Texts, margins, rank, text_table
from verbalize.stages.recommender import length_tokenizer, open_recommender, own_facts
from verbalize.stages.saved_policies import learned_verbalizers
from verbalize.stages.templates import load_roles, scripted
from verbalize.stages.transfer import other_verbalizers
from verbalize.verbalizers.base import verbalizer_inputs

if TYPE_CHECKING:
    from verbalize.experience.verbalizer import Memory


def run(recipe: Recipe, context: Context) -> Mapping[str, Any]:
    """Writes decisions, verbalizations, margins (before and after training) and plan.json (stated before looking)."""
    _, report = samples.validation_samples(recipe, context.inputs["examples"])
    testing = recipe.evaluation.split == "test"
    examples = samples.load_examples(context.inputs["examples"], "test", recipe.sample.test) if testing else report
    slates = None if testing else samples.load_slates(context.inputs["examples"], examples)
    plan = plan_of(recipe, context, examples)
    write_json(plan, context.folder / "plan.json")
    context.progress.stage(
        "evaluate",
        "plans",
        f"n {plan['n']}, effective about {plan['n_effective']:.0f}; {detectable(plan)}",
    )
    if testing:
        open_test(recipe, context, plan)

    recommender = open_recommender(recipe, context.inputs)
    memory = experience.open_memory(recipe, context.inputs)
    shows = recipe.policy.kind == "display"
    frames = {"evaluated": examples} if shows else {"evaluated": examples, "report": report}
    learned, start = learned_texts(recipe, context, frames, memory)
    chosen = {seed: written["evaluated"] for seed, written in learned.items()}
    if recipe.policy.kind == "actions":
        kept = policy_controls.kept_actions(context.folder, recipe.seeds, examples["example_id"].to_list())
        write_parquet(kept, context.folder / policy_controls.ACTIONS)
    shown = displays.arms(recipe, examples, chosen, start["evaluated"]) if shows else {}
    texts: Texts = {
        (name, 0): scripted(name, recipe).verbalize(verbalizer_inputs(examples))
        for name in scripted_names(recipe, context)
    }
    if shows:  # one text under every display
        texts |= dict.fromkeys(shown, displays.read_texts(recipe, context, examples))
    else:
        texts |= {(LEARNED, seed): written for seed, written in chosen.items()}
    texts |= others_texts(recipe, context, examples)
    if recipe.evaluation.shuffled and not shows:
        first = recipe.seeds[0]
        texts[SHUFFLED, first] = shuffle_texts_between_users(examples, texts[LEARNED, first], seed=first)
    write_parquet(text_table(examples, texts, length_tokenizer(recipe)), context.folder / "verbalizations.parquet")

    read = {key: written for key, written in texts.items() if key not in shown}
    ranked, known = rank(context, recommender, examples, read, slates, context.folder / "parts" / "main")
    decisions = [ranked]
    if shows:
        decisions.append(displays.ranked_arms(recipe, context, examples, slates, shown))
    if recipe.recommender_training and recipe.evaluation.untrained:
        roles = load_roles(context)
        met = {roles.get(name, name) for name in recipe.evaluation.untrained}
        untrained = open_recommender(recipe, context.inputs, trained=False)
        some = {key: written for key, written in texts.items() if key[0] in met}
        decisions.append(rank(context, untrained, examples, some, slates, context.folder / "parts" / "untrained")[0])
    for fitted in baselines.fitted(recipe, context.inputs):
        decisions.append(decide(fitted, examples, [""] * len(examples), verbalizer=baselines.VERBALIZER, slates=slates))
    write_parquet(pl.concat(decisions), context.folder / "decisions.parquet")

    if shows:  # margins under different displays are in different units; START is an arm instead
        acted = displays.choices(context, shown)
    else:
        before_after: Texts = {(START, 0): start["report"]} | {
            (LEARNED, seed): written["report"] for seed, written in learned.items()
        }
        redraws = samples.load_slates(context.inputs["examples"], report)
        folder = context.folder / "parts" / "margins"
        # On validation the learned texts were just ranked on these very slates.
        compared, _ = rank(context, recommender, report, before_after, redraws, folder, None if testing else known)
        write_parquet(margins(compared, recipe.reward.negatives_temperature), context.folder / "margins.parquet")
        constant = load_roles(context)["best_constant"]
        same = (constant, texts[constant, 0])
        acted = policy_controls.controls(context.folder, recipe.policy.kind, chosen, same)
    # Where the rendering is the treatment, the hash that all arms share is that of items and their order.
    rendered = recommender.candidate_texts
    return {
        "examples": len(examples),
        "users": examples["user_id"].n_unique(),
        "roles": load_roles(context),
        "audits": audits(
            recipe, context.inputs, examples, texts, {item: item for item in rendered} if shows else rendered
        ),
        **acted,
        **({} if memory is None else experience.coverage(memory.recall(verbalizer_inputs(examples)))),
        **own_facts(recommender),
    }


def scripted_names(recipe: Recipe, context: Context) -> list[str]:
    """Templates and action sequences evaluated: those listed, and those that won on the selection examples."""
    roles = load_roles(context)
    return list(dict.fromkeys([*recipe.evaluation.templates, *(roles[role] for role in recipe.roles)]))


def learned_texts(
    recipe: Recipe, context: Context, frames: Mapping[str, pl.DataFrame], memory: "Memory | None"
) -> tuple[dict[int, dict[str, list[str]]], dict[str, list[str]]]:
    """Greedy texts of every seed's policy, by frame, and of the policy before reinforcement learning on the last frame;
    kept in parts/, beside the actions on the frame "evaluated" of policies that act. Displays stand for texts. Seeds
    that ended with equal weights write once.
    """
    last = list(frames)[-1]
    slots = recipe.policy.slots
    seeds: dict[int, dict[str, list[str]]] = {}
    start: dict[str, list[str]] = {}
    first: dict[tuple[str, tuple[str, str]], int] = {}
    for name, seed, policy in learned_verbalizers(recipe, context, memory):
        path, twin = _texts_path(context, name, seed), first.setdefault((name, policy.identity), seed)
        if not path.exists() and twin != seed:
            _as_twin(context, name, seed, twin)
        elif not path.exists():
            verbalizer = policy()
            wanted = {key: frame for key, frame in frames.items() if name != START or key == last}
            # On validation both frames are the report examples: they are written once.
            once = {id(frame): frame for frame in wanted.values()}
            found = {one: policy_controls.written(verbalizer, verbalizer_inputs(once[one]), slots) for one in once}
            both = {key: found[id(frame)] for key, frame in wanted.items()}
            if slots is not None and name == LEARNED:
                write_json(both["evaluated"][1], policy_controls.actions_path(context.folder, seed))
            write_json({key: texts for key, (texts, _) in both.items()}, path)
        written = read_json(path)
        if name == START:
            start = written
        else:
            seeds[seed] = written
        context.progress.stage("evaluate", "wrote", f"texts of {name}, seed {seed}")
    return seeds, start


def others_texts(recipe: Recipe, context: Context, examples: pl.DataFrame) -> Texts:
    """Greedy texts of the policies of the runs in `evaluation.against`; kept in parts/."""
    texts: Texts = {}
    first: dict[tuple[str, tuple[str, str]], int] = {}
    for name, seed, policy in other_verbalizers(recipe.evaluation.against, context.inputs["examples"]):
        path, twin = _texts_path(context, name, seed), first.setdefault((name, policy.identity), seed)
        if not path.exists():
            write_json(texts[name, twin] if twin != seed else policy().verbalize(verbalizer_inputs(examples)), path)
        texts[name, seed] = read_json(path)
        context.progress.stage("evaluate", "wrote", f"texts of {name}, seed {seed}")
    return texts


def _as_twin(context: Context, name: str, seed: int, twin: int) -> None:
    """A policy with the weights of another has done and written what that one has."""
    actions = [policy_controls.actions_path(context.folder, one) for one in (twin, seed)]
    for source, copy in (actions, [_texts_path(context, name, one) for one in (twin, seed)]):
        if source.exists():
            write_json(read_json(source), copy)


def _texts_path(context: Context, name: str, seed: int) -> Path:
    return context.folder / "parts" / f"texts-{name}-{seed}.json"


def arm_of(name: str, roles: Mapping[str, str], recommender: str, baseline_names: Sequence[str]) -> Arm:
    """A claim's name for an arm -> the arm in the decisions table."""
    if name in baseline_names:
        return Arm(baselines.VERBALIZER, name)
    return Arm(roles.get(name, name), recommender)
