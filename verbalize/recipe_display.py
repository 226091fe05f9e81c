"""What a recipe with policy.kind display cannot ask for."""

from typing import TYPE_CHECKING

from recsys.errors import InputError
from verbalize.optimize.rewards import CATALOGUE
from verbalize.recipe_sections import LEARNED, SHUFFLED, START

if TYPE_CHECKING:
    from verbalize.recipe import Recipe


def check_display(recipe: "Recipe") -> None:
    """Refuse what a recipe with policy.kind display would ignore, or could not mean. Raises InputError."""
    evaluation = recipe.evaluation
    learned = [name for name in evaluation.untrained if name in (LEARNED, SHUFFLED)]
    for asked, rule, remedy in (
        (
            recipe.reward.kind in ("margin", CATALOGUE) and f"reward.kind = {recipe.reward.kind}",
            "is in the unit of scores, which grow with what a candidate shows",
            "set reward.kind: log_softmax with its temperature, or reciprocal_rank",
        ),
        (recipe.dpo and "dpo", "takes pairs of texts, and displays are no texts", "set dpo: null"),
        (recipe.experience and "experience", "tells of actions on histories", "set experience: null"),
        (
            recipe.recommender_training and recipe.recommender_training.learned and "recommender_training.learned",
            "names a policy that writes texts, and this one writes none",
            "set recommender_training.learned: null",
        ),
        (evaluation.full_catalogue and "evaluation.full_catalogue", "shows no candidates", "set it to false"),
        (
            learned and f"evaluation.untrained {learned}",
            "would need every display before the untrained recommender",
            "name templates only",
        ),
        (
            any(claim.kind == "learned_margin" for claim in evaluation.claims) and "a claim of kind learned_margin",
            "compares margins, which grow with what a candidate shows",
            f"claim the recall of {LEARNED} against {START}",
        ),
    ):
        if asked:
            raise InputError(f"{asked} with policy.kind display", rule, remedy)


def refuse_display(recipe: "Recipe", where: str) -> None:
    """For whoever ranks learned texts outside the recipe's own evaluation: a display policy writes none."""
    if recipe.policy.kind == "display":
        raise InputError(
            f"{where} with policy.kind display",
            "ranks texts, and this policy chooses what candidates show",
            "use policy.kind actions or rewrite there",
        )
