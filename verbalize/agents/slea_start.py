"""The policy that every arm starts from: the model tuned a little on solutions of games that nothing else plays.

Learning from rewards needs episodes that differ in them. A model that wins no game at all has nothing to compare: with
135M parameters it walks to and fro, every group of episodes earns 0, and all methods stay where they began. The papers
train models of several billions, which win some games untrained. The tuning is supervised (`sft.py`), once for all arms
and seeds, with the settings of the file: what they lead to is the arm `start`. Whole solutions are learned without
lessons; with `warm_start.lessons` single turns are learned with them, too (`slea_start_lessons`).
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from verbalize.agents.chats import training_chat
from verbalize.agents.evaluation import key_of
from verbalize.agents.expert import Bench, expert_trajectories, failed_trajectories
from verbalize.agents.pool import Environments
from verbalize.agents.slea_study import Config, WarmStart, start_tasks
from verbalize.config import plain
from verbalize.pipeline import Progress

if TYPE_CHECKING:
    from verbalize.agents.agent_trainer_turns import Key
    from verbalize.experience.embedding import Embedder

SEED = 0  # of the adapter and of the order of trajectories: one start for all


def warm_adapter(
    config: Config,
    warm: WarmStart,
    bench: Bench,
    environments: Environments,
    embedder: "Embedder",
    folder: Path,
    progress: Progress,
    command: str,
) -> Path:
    """The folder of the adapter, tuned if it is not there; the same call resumes. The games must be made."""
    import torch

    from recsys.models.adapters import add_lora, save_adapter
    from recsys.models.loading import load_language_model, resolve_model, weights_digest
    from recsys.models.settings import AdapterCard
    from recsys.models.tokenisation import encode_text
    from verbalize.agents.sft import train_sft
    from verbalize.agents.sft_data import SupervisedChat, supervise
    from verbalize.agents.sft_settings import SftConfig
    from verbalize.agents.slea_player import open_library, rollout_config
    from verbalize.agents.slea_start_lessons import chats_with_lessons, lessons_at_turns
    from verbalize.report.provenance import revision

    tasks = start_tasks(config)
    form = rollout_config(config.training).form
    base = weights_digest(resolve_model(config.model))
    sft = SftConfig(warm.epochs, warm.batch_size, learning_rate=warm.learning_rate, lora=config.lora)
    depends = [base, config.dtype, plain(form), [plain(task) for task in tasks], plain(sft)]
    if warm.lessons:
        depends += [plain(config.experience), config.training.memory_budget]
    folder = folder / "starts" / key_of(*depends)
    adapter = folder / "adapter"
    if adapter.exists():
        return adapter
    solutions = expert_trajectories(bench, environments, tasks)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    language = load_language_model(config.model, config.dtype, device=device)
    model = add_lora(language.model, sft.lora, SEED).to(device)
    tokenizer = language.tokenizer
    whole = [supervise(tokenizer, training_chat(won, form), sft.max_tokens) for won in solutions]
    shown: dict[Key, str] = {}
    if warm.lessons:
        failures = failed_trajectories(environments, tasks, SEED)
        with (
            TemporaryDirectory() as name,
            open_library(Path(name), config.experience, config.training, embedder) as lib,
        ):
            budget = config.training.memory_budget
            shown = lessons_at_turns(solutions, failures, lib, budget, lambda text: len(encode_text(tokenizer, text)))
        progress.stage("start", "shows", f"lessons at {len(shown)} turns of {len(solutions)} solutions")

    def chats(epoch: int) -> list[SupervisedChat]:
        return whole + chats_with_lessons(tokenizer, solutions, shown, form, sft.max_tokens, SEED, epoch)

    def on_step(done: int, total: int, loss: float) -> None:
        progress.step("start", done, total, f"loss {loss:.3f}")

    # No checkpoint is chosen: all epochs count alike, and of equals the last one is kept.
    train_sft(model, chats, sft, SEED, folder, lambda epochs: 0.0, on_step)
    families = sorted({f"{task.family}-{task.difficulty}" for task in tasks})
    card = AdapterCard(
        base_name=language.name,
        base_hash=language.base_digest,
        data=f"TextWorld games: {', '.join(families)}: {len(solutions)} solutions"
        + (f", {len(shown)} turns with lessons" if warm.lessons else ""),
        split="games for the start",
        licence="Apache-2.0",
        command=command,
        revision=revision(),
        note=f"An agent of text games, from which the arms of the study {config.name} start.",
    )
    save_adapter(model, adapter, card)
    return adapter
