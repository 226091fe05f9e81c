"""What the ExpRAG study compares: two claims with targets, and what describes where a gain comes from."""

from verbalize.agents.exprag_settings import GROUPS, Config, cells_of
from verbalize.agents.study import LEAST_GAMES, LEAST_SEEDS, StudyClaim

CLAIMS = (
    StudyClaim(
        "agents.expraglora_vs_lora_unseen",
        "Success on unseen families: ExpRAG-LoRA with the matched index minus LoRA without memory",
        "exprag-lora/unseen/matched",
        "lora/unseen/empty",
    ),
    StudyClaim(
        "agents.exprag_vs_base_unseen",
        "Success on unseen families: the untrained model with ExpRAG and the matched index minus without memory",
        "exprag/unseen/matched",
        "base/unseen/empty",
    ),
)
DESCRIBED = tuple(
    StudyClaim(f"agents.{name}", f"Success on {statement}", a, b, target=None)
    for name, statement, a, b in (
        (
            "exprag_at_test_vs_lora_unseen",
            "unseen families: LoRA with the matched index at test alone minus without memory",
            "lora+exprag/unseen/matched",
            "lora/unseen/empty",
        ),
        (
            "expraglora_vs_exprag_at_test_unseen",
            "unseen families, the index matched: ExpRAG-LoRA minus LoRA with memory at test alone",
            "exprag-lora/unseen/matched",
            "lora+exprag/unseen/matched",
        ),
        (
            "expraglora_matched_vs_mismatched_unseen",
            "unseen families: ExpRAG-LoRA with the matched index minus with the mismatched one",
            "exprag-lora/unseen/matched",
            "exprag-lora/unseen/mismatched",
        ),
        (
            "expraglora_mismatched_vs_lora_unseen",
            "unseen families: ExpRAG-LoRA with the mismatched index minus LoRA without memory",
            "exprag-lora/unseen/mismatched",
            "lora/unseen/empty",
        ),
        (
            "expraglora_empty_vs_lora_unseen",
            "unseen families, no memory at test: ExpRAG-LoRA minus LoRA",
            "exprag-lora/unseen/empty",
            "lora/unseen/empty",
        ),
        (
            "expraglora_vs_lora_seen",
            "seen families: ExpRAG-LoRA with the matched index minus LoRA without memory",
            "exprag-lora/seen/matched",
            "lora/seen/empty",
        ),
        (
            "expraglora_matched_vs_mismatched_seen",
            "seen families: ExpRAG-LoRA with the matched index minus with the mismatched one",
            "exprag-lora/seen/matched",
            "exprag-lora/seen/mismatched",
        ),
        (
            "expraglora_empty_vs_lora_seen",
            "seen families, no memory at test: ExpRAG-LoRA minus LoRA",
            "exprag-lora/seen/empty",
            "lora/seen/empty",
        ),
        (
            "exprag_at_test_vs_lora_seen",
            "seen families: LoRA with the matched index at test alone minus without memory",
            "lora+exprag/seen/matched",
            "lora/seen/empty",
        ),
    )
)
"""What says where a gain comes from: recorded without targets. Three joined after the rates of the recorded study were
seen: mismatched minus LoRA on unseen families; matched minus mismatched, and memory at test alone, on seen ones."""
COMPARISONS = tuple((claim.a, claim.b) for claim in (*CLAIMS, *DESCRIBED))


SCIENCEWORLD = tuple(
    StudyClaim(
        f"agents.scienceworld_{name}",
        f"ScienceWorld, a small run, success on {group} families: {arm} with the matched index minus {other} without",
        f"{a}/{group}/matched",
        f"{b}/{group}/empty",
        target=None,
    )
    for name, group, arm, other, a, b in (
        ("expraglora_vs_lora_unseen", "unseen", "ExpRAG-LoRA", "LoRA", "exprag-lora", "lora"),
        ("exprag_vs_base_unseen", "unseen", "the untrained model", "the same", "exprag", "base"),
        ("expraglora_vs_lora_seen", "seen", "ExpRAG-LoRA", "LoRA", "exprag-lora", "lora"),
    )
)
"""What is described of the other bench. Nothing is claimed there, so that few games and one seed may be recorded."""
LEAST_DESCRIBED = 20
"""Games that a description needs."""


def claims_of(config: Config) -> tuple[StudyClaim, ...]:
    """The claims that an evaluation of `config` has the evidence for: the two of the unseen families, and what is
    described of the arms that are played; of ScienceWorld, descriptions alone."""
    games = min(len(config.families.of(group)) for group in GROUPS) * config.games.test
    science = config.bench == "scienceworld"
    least_games, least_seeds = (LEAST_DESCRIBED, 1) if science else (LEAST_GAMES, LEAST_SEEDS)
    if config.phase != "evaluation" or games < least_games or len(config.seeds) < least_seeds:
        return ()
    played = {plan.arm for plan in cells_of(config)}
    candidates = SCIENCEWORLD if science else (*CLAIMS, *DESCRIBED)
    return tuple(claim for claim in candidates if {claim.a, claim.b} <= played)
