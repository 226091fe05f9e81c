"""The stages of a recipe, in order: logs, examples, [recommender], templates, [pool, experience, effects, warm_start],
train, evaluate, [catalogue], [oracle], report.

Each module here turns recipe sections and artefacts of earlier stages into artefacts, by calling the library; the
machinery that decides what runs is `verbalize.pipeline`.
"""

from verbalize.config import plain
from verbalize.pipeline import Stage
from verbalize.recipe import Recipe
from verbalize.recipe_sections import BaselinesConfig
from verbalize.stages import (
    data,
    displays,
    effects,
    evaluate,
    experience,
    full_catalogue,
    oracle,
    policy,
    pool,
    recommender,
    recommender_training,
    report,
    templates,
    transfer,
    warm_start,
)


def stages_of(recipe: Recipe, command: str) -> list[Stage]:
    """The stages this recipe needs. `command` is recorded in model cards and reports, and changes no key."""
    trained = recipe.recommender_training is not None
    warm = recipe.warm_start is not None
    scoring = ("logs", "examples", *(("recommender",) if trained else ()))
    ranked = {"recommender": recommender.identity(recipe.recommender), "candidates": plain(recipe.candidates)}
    shows = recipe.policy.kind == "display"
    decides = {"kind", "model", "lora", "dtype", recipe.policy.kind}
    policy_config = {name: value for name, value in plain(recipe.policy).items() if name in decides}
    actions = plain(recipe.policy.actions)
    rewarded = {**ranked, "reward": plain(recipe.reward)}
    learns, chooses = recipe.sample.of_training, recipe.sample.of_validation
    read_from = data.logs_config(recipe)
    stages = [
        Stage("logs", lambda c: data.run_logs(recipe, c, read_from), read_from, version=2),
        Stage(
            "examples",
            lambda c: data.run_examples(recipe, c),
            {"examples": plain(recipe.examples), "slates": recipe.reward.slates},
            ("logs",),
            version=2,
        ),
    ]
    if trained:
        stages.append(
            Stage(
                "recommender",
                lambda c: recommender_training.run(recipe, c, command),
                {**ranked, "training": recommender_training.training_identity(recipe), "actions": actions},
                ("logs", "examples"),
            )
        )
    stages.append(
        Stage(
            "templates",
            lambda c: templates.run(recipe, c),
            {
                **rewarded,
                "sample": chooses,
                "templates": list(recipe.templates),
                "constants": list(recipe.constants),
                **({"scripted": list(recipe.scripted)} if recipe.scripted else {}),
                "actions": actions,
            },
            scoring,
        )
    )
    pooled = recipe.dpo is not None and recipe.policy.kind == "actions"  # DPO on actions takes its pairs from the pool
    by_effects = recipe.warm_start is not None and not recipe.warm_start.imitates
    scored = (warm and not by_effects) or pooled or recipe.experience is not None
    if shows:
        config = {**rewarded, "sample": {**learns, **chooses}, **displays.pool_config(recipe)}
        stages.append(Stage("pool", lambda c: displays.run_pool(recipe, c), config, (*scoring, "templates")))
    elif scored:
        config = {**rewarded, "sample": learns, "actions": actions}
        stages.append(Stage("pool", lambda c: pool.run(recipe, c), config, scoring))
    if recipe.experience:
        stages.append(
            Stage(
                "experience",
                lambda c: experience.run(recipe, c),
                {**experience.building(recipe), "actions": actions},
                ("examples", "pool"),
            )
        )
    # Displays are paid by the pool's rewards, and a curriculum begins with them.
    needs_pool = pooled or shows or (scored and recipe.train.curriculum is not None)
    remembered = ("experience",) if experience.trains(recipe) else ()
    if by_effects:
        config = {**rewarded, "sample": learns, "actions": actions}
        stages.append(Stage(effects.STAGE, lambda c: effects.run(recipe, c), config, scoring))
    if warm:
        stages.append(
            Stage(
                "warm_start",
                lambda c: warm_start.run(recipe, c, command),
                {
                    "policy": policy_config,
                    "warm_start": plain(recipe.warm_start),
                    **({"seeds": list(recipe.seeds)} if recipe.warm_start and recipe.warm_start.each_seed else {}),
                    **experience.showing(recipe, training=True),
                },
                ("examples", effects.STAGE if by_effects else "pool", *remembered),
            )
        )
    stages.append(
        Stage(
            "train",
            lambda c: policy.run_train(recipe, c, command),
            {
                **rewarded,
                "sample": {**learns, **chooses},
                "policy": policy_config,
                "train": recipe.train.identity,
                "limits": plain(recipe.limits),
                "seeds": list(recipe.seeds),
                **({"dpo": plain(recipe.dpo)} if recipe.dpo else {}),
                **({"gepa": recipe.gepa.identity} if recipe.gepa else {}),
                **experience.showing(recipe, training=True),
            },
            (*scoring, *(("pool",) if needs_pool else ()), *remembered, *(("warm_start",) if warm else ())),
        )
    )
    if recipe.transfer_from:
        stages = transfer.borrowed(recipe, stages)
    before = tuple(stage.name for stage in stages)
    evaluation = plain(recipe.evaluation)
    browser, claims = evaluation.pop("example_browser"), evaluation.pop("claims")
    whole = evaluation.pop("full_catalogue")  # a stage of its own: no slate is ranked again for it
    if against := transfer.identities(evaluation.pop("against")):
        evaluation["against"] = against
    # Rewording a claim makes a new report, not a new look at the test users.
    evaluation["claims"] = [[claim["id"], claim["kind"], claim["a"], claim["b"]] for claim in claims]
    if recipe.baselines != BaselinesConfig():  # a key made before these settings existed still holds
        evaluation["settings"] = plain(recipe.baselines)
    stages.append(
        Stage(
            "evaluate",
            lambda c: evaluate.run(recipe, c),
            {
                "evaluation": evaluation,
                "sample": plain(recipe.sample),
                **experience.showing(recipe, training=False),
            },
            before,
            version=2,
        )
    )
    if whole:
        stages.append(Stage(full_catalogue.STAGE, lambda c: full_catalogue.run(recipe, c), {}, (*before, "evaluate")))
    simulated = recipe.source.kind == "simulator"
    if simulated:
        stages.append(Stage("oracle", lambda c: oracle.run(recipe, c), plain(recipe.source), (*before, "evaluate")))
    stages.append(
        Stage(
            "report",
            lambda c: report.run(recipe, c, command),
            {
                "name": recipe.name,
                "title": recipe.title,
                "browser": browser,
                "licence": recipe.licence,
                "claims": claims,
            },
            (
                *before,
                "evaluate",
                *((full_catalogue.STAGE,) if whole else ()),
                *(("oracle",) if simulated else ()),
            ),
            version=3,
        )
    )
    return stages
