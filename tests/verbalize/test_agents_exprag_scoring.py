"""Scores and actions with kept keys and values against those computed anew, through whole episodes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from agents_worlds import Ladder, ladder
from tiny_run import model_with_chat
from transformers import DynamicCache

from recsys.errors import InputError
from recsys.models import lengths
from recsys.models.loading import LanguageModel, load_language_model
from recsys.models.packed import body_and_head
from verbalize.agents.cached_generation import CachedGeneratingPolicy, decode_together
from verbalize.agents.cached_scoring import CachedScoringPolicy
from verbalize.agents.chats import ChatFormat
from verbalize.agents.episode_cache import read
from verbalize.agents.language_policies import ActingConfig, GeneratingPolicy, ScoringPolicy
from verbalize.agents.pool import LocalEnvironments
from verbalize.agents.rollouts import RolloutConfig, Situation, roll_out


@pytest.fixture(scope="module")
def language(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_language_model(str(model_with_chat(tiny_model_dir, tmp_path_factory.mktemp("scoring") / "tiny")))


@dataclass(eq=False)
class Both:
    """Asks both policies about every situation and follows the plain one."""

    plain: ScoringPolicy
    cached: CachedScoringPolicy
    compared: list[float] = field(default_factory=list)

    def act(self, situations: Sequence[Situation]) -> list[str]:
        for a, b in zip(self.plain.score(situations), self.cached.score(situations), strict=True):
            self.compared.append(float(np.abs(a - b).max()))
        return self.plain.act(situations)


@pytest.fixture(params=[False, True], ids=["", "rounded"])
def lengths_rounded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As lengths are where weights are bfloat16 on a CPU, in float32, where equality can be asked for."""
    if request.param:
        monkeypatch.setattr(lengths, "ROUNDED_DTYPES", (torch.float32,))


def constant(situations: Sequence[Situation]) -> list[str]:
    return ["## What to avoid\n- night and war"] * len(situations)


def changing(situations: Sequence[Situation]) -> list[str]:
    return [f"a story of {situation.turn // 2} films" if situation.turn else "" for situation in situations]


@pytest.mark.parametrize("memory", [None, constant, changing])
@pytest.mark.parametrize("system", ["play a game", ""])
@pytest.mark.usefixtures("lengths_rounded")
def test_scores_equal_those_computed_anew(language: LanguageModel, memory: object, system: str) -> None:
    config = ActingConfig(temperature=5.0)
    both = Both(
        ScoringPolicy(language.model, language.tokenizer, config),
        CachedScoringPolicy(language.model, language.tokenizer, config),
    )
    tasks = [ladder(n, 4, 8) for n in range(5)]
    form = RolloutConfig(form=ChatFormat(system))
    roll_out(LocalEnvironments(Ladder(), 3), both, tasks, form, memory)  # type: ignore[arg-type]
    assert len(both.compared) >= 20 and max(both.compared) < 1e-4


@pytest.mark.parametrize("memory", [None, constant, changing])
@pytest.mark.parametrize("system", ["play a game", ""])
@pytest.mark.usefixtures("lengths_rounded")
def test_actions_equal_those_written_anew(language: LanguageModel, memory: object, system: str) -> None:
    acting = ActingConfig(max_new_tokens=6)
    tasks, form = [ladder(n, 4, 8) for n in range(5)], RolloutConfig(form=ChatFormat(system))
    cached = CachedGeneratingPolicy(language.model, language.tokenizer, acting)
    plain = GeneratingPolicy(language.model, language.tokenizer, acting)
    played = [roll_out(LocalEnvironments(Ladder(), 3), one, tasks, form, memory) for one in (plain, cached)]  # type: ignore[arg-type]
    assert played[0] == played[1]
    assert len({turn.action for episode in played[1] for turn in episode.turns}) > 1 and played[1][0].turns[0].action
    with pytest.raises(InputError, match="nothing is drawn here"):
        CachedGeneratingPolicy(language.model, language.tokenizer, ActingConfig(temperature=1.0))


def test_rows_decoded_together_are_those_decoded_alone_wherever_they_end(language: LanguageModel) -> None:
    body, head = body_and_head(language.model)
    prompts = [list(range(5, 5 + n)) for n in (3, 40, 17)]
    most = 7

    def alone(prompt: list[int], end: int) -> list[int]:
        tokens: list[int] = []
        while len(tokens) < most and tokens[-1:] != [end]:
            tokens.append(int(language.model(torch.tensor([prompt + tokens])).logits[0, -1].argmax()))
        return tokens

    with torch.no_grad():
        free = [alone(prompt, -1) for prompt in prompts]
        for end in {token for tokens in free for token in tokens} | {-1}:
            caches, first = [], []
            for prompt in prompts:
                cache = DynamicCache()
                first.append(int(head(read(body, prompt, cache)[-1]).argmax()))
                caches.append(cache)
            assert decode_together(body, head, caches, first, end, most) == [alone(prompt, end) for prompt in prompts]
            assert [cache.get_seq_length() for cache in caches] == [3, 40, 17], "as they were"
    assert len({tuple(tokens) for tokens in free}) == 3


def test_what_an_episode_becomes_does_not_depend_on_who_else_plays(language: LanguageModel) -> None:
    tasks = [ladder(n, 3, 5) for n in range(4)]

    class Scores(CachedScoringPolicy):
        def score(self, situations: Sequence[Situation]) -> list[np.ndarray]:
            found = super().score(situations)
            for situation, row in zip(situations, found, strict=True):
                seen[len(seen_of), situation.task.id, situation.turn] = row.tolist()
            return found

    seen: dict[tuple[int, str, int], list[float]] = {}
    seen_of: list[int] = []
    for slots in (4, 1):
        policy = Scores(language.model, language.tokenizer, ActingConfig())
        roll_out(LocalEnvironments(Ladder(), slots), policy, tasks, memory=constant)
        seen_of.append(slots)
    together = {key[1:]: row for key, row in seen.items() if key[0] == 0}
    alone = {key[1:]: row for key, row in seen.items() if key[0] == 1}
    assert together == alone and len(alone) > 4, "to the last bit"


def test_too_long_an_episode_is_refused(language: LanguageModel) -> None:
    asked = Situation(ladder(0), 0, 0, "g", "o", [{"role": "user", "content": "night " * 2100}], ("up",))
    with pytest.raises(InputError, match="exceeds the model's 2048 positions"):
        CachedScoringPolicy(language.model, language.tokenizer).act([asked])
