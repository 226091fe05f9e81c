"""Train one agent: batches of games until the budget of environment steps, a learning curve on development games.

The same call goes on after an interruption. A checkpoint is whole or ignored; it holds policy, optimizer and random
states, and a file beside it names the environment steps and the version of the library at that moment. Resuming returns
to all of them, so what was played after the checkpoint is played again: same weights, same lessons, same curves.

There is no selection among checkpoints: the policy is the one that the budget ends with, with the library of that
moment, so that arms differ in nothing but their method.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback

from recsys.errors import InputError
from recsys.models.adapters import save_adapter
from recsys.models.loading import LanguageModel
from recsys.models.settings import AdapterCard, LoraSettings
from recsys.seeding import stable_hash
from recsys.storage import read_json, write_json
from verbalize.agents.agent_trainer import AgentGRPOTrainer, agent_config
from verbalize.agents.agent_trainer_batch import TurnBatch, episode_metrics
from verbalize.agents.environment import Task
from verbalize.agents.pool import Environments
from verbalize.agents.slea_briefing import Briefing
from verbalize.agents.slea_player import AgentPlayer, acting_settings, most_batches, open_library
from verbalize.agents.slea_settings import AgentTraining, ArmConfig
from verbalize.config import plain
from verbalize.experience.embedding import Embedder
from verbalize.experience.library import ExperienceLibrary
from verbalize.experience.settings import ExperienceConfig
from verbalize.optimize.checkpoints import FiniteGradients, last_complete, step_of
from verbalize.optimize.curves import Curves, LogCurves, OnStep
from verbalize.optimize.training import check_identity, policy_digest, prompt_order, trainable_policy

LIBRARY, ADAPTER, RESULT = "library", "adapter", "result.json"


@dataclass(frozen=True)
class AgentResult:
    """What a run left in its folder. `library_version` is 0 where the arm has no library."""

    batches: int
    environment_steps: int
    library_version: int
    adapter: str = ADAPTER
    curves: str = "curves.jsonl"


def train_agent(
    lm: LanguageModel,
    environments: Environments,
    tasks: Sequence[Task],
    development: Sequence[Task],
    arm: ArmConfig,
    training: AgentTraining,
    folder: Path,
    *,
    card: AdapterCard,
    seed: int = 0,
    lora: LoraSettings | None = None,
    experience: ExperienceConfig | None = None,
    embedder: Embedder | None = None,
    on_step: OnStep | None = None,
    briefing: Briefing | None = None,
) -> AgentResult:
    """Train `lm` in place, from the adapter it came with or a fresh one, and save it in `folder/adapter`.

    `tasks` are visited in a seeded order, each as often as the others; without a `briefing` they are text games. Raises
    InputError when they cannot be divided into batches, when the folder was begun with other settings, and for what
    training must not go on with.
    """
    _check_tasks(tasks, development, training)
    experience = experience or ExperienceConfig()
    folder.mkdir(parents=True, exist_ok=True)
    model = trainable_policy(lm, lora or LoraSettings(), seed)
    identity = {
        "arm": plain(arm),
        "training": plain(training),
        "experience": plain(experience) if arm.needs_library else None,
        "games": stable_hash(*(asdict(task) for task in [*tasks, *development])),
        "policy": policy_digest(model),
        "seed": seed,
        **({"system": briefing.system} if briefing and briefing != Briefing() else {}),
    }
    check_identity(identity, folder)
    if (folder / RESULT).exists():
        return AgentResult(**read_json(folder / RESULT))
    policy = LanguageModel(model, lm.tokenizer, lm.name, lm.digest, lm.base_digest)
    library = open_library(folder / LIBRARY, experience, training, embedder) if arm.needs_library else None
    try:
        player = AgentPlayer(policy, environments, arm, training, seed, library, briefing)
        run = _Run(player, tasks, development, folder, experience, embedder, on_step)
        batches = run.train(seed)
        if "ref" in model.peft_config:
            model.delete_adapter("ref")
        model.eval()
        save_adapter(model, folder / ADAPTER, card)
        result = AgentResult(batches, player.environment_steps, player.state()["library_version"])
    finally:
        if library is not None:
            library.close()
    write_json(asdict(result), folder / RESULT)
    return result


class _Run:
    """The trainer and its callbacks around one player."""

    def __init__(
        self,
        player: AgentPlayer,
        tasks: Sequence[Task],
        development: Sequence[Task],
        folder: Path,
        experience: ExperienceConfig,
        embedder: Embedder | None,
        on_step: OnStep | None,
    ) -> None:
        self.player, self.folder, self.development = player, folder, development
        self.tasks = {task.id: task for task in tasks}
        self.experience, self.embedder = experience, embedder
        self.curves = Curves(folder / "curves.jsonl", on_step)

    def train(self, seed: int) -> int:
        """Batches done."""
        training, checkpoint = self.player.training, last_complete(self.folder)
        self.curves.rewind(step_of(checkpoint) if checkpoint else -1)
        done = step_of(checkpoint) if checkpoint else 0
        if checkpoint or self._state_file(0).exists():
            self.player.restore(read_json(self._state_file(done)))
        self.save_state(done)  # of a library that was put back, the version is a new one
        steps = most_batches(training)
        order = prompt_order(len(self.tasks), steps * training.games_per_batch, seed)
        names = list(self.tasks)
        finite = FiniteGradients()
        trainer = AgentGRPOTrainer(
            model=self.player.policy.model,
            args=agent_config(training, self.folder, steps, seed),
            train_dataset=Dataset.from_list([{"prompt": names[place]} for place in order]),
            processing_class=self.player.policy.tokenizer,
            callbacks=[LogCurves(self.curves), _AtBudget(self), finite],
            play=self.play,
            settings=acting_settings(training),
            before_saving=self.save_state,
        )
        finite.trainer = trainer
        trainer.remove_callback(PrinterCallback)  # the log is `curves`, not stdout
        if checkpoint is None:
            self.evaluate(0)
        if checkpoint and self.spent():  # interrupted after its last batch
            trainer._load_from_checkpoint(str(checkpoint))
            return done
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return int(trainer.state.global_step)

    def play(self, names: Sequence[str], step: int) -> TurnBatch:
        """A batch for the trainer."""
        return self.player.play([self.tasks[name] for name in names], step)

    def spent(self) -> bool:
        """Whether the budget of environment steps is used up."""
        return self.player.environment_steps >= self.player.training.environment_steps

    def evaluate(self, step: int) -> None:
        """A point of the learning curve, with the library as a reader of this moment would find it."""
        library = self._reader() if self.player.arm.retrieval else None
        episodes = self.player.evaluate(self.development, library)
        metrics = episode_metrics(episodes)
        metrics.pop("groups.dead_groups")
        self.curves.add(
            {"kind": "validation", "step": step, "environment_steps": self.player.environment_steps, **metrics}
        )

    def save_state(self, step: int) -> None:
        """What belongs to the checkpoint of `step`, written before it counts as whole."""
        write_json(self.player.state(), self._state_file(step))

    def _state_file(self, step: int) -> Path:
        return self.folder / "states" / f"step-{step:05d}.json"

    def _reader(self) -> ExperienceLibrary:
        return open_library(self.folder / LIBRARY, self.experience, self.player.training, self.embedder, read_only=True)


class _AtBudget(TrainerCallback):
    """Judges every `evaluate_every` batches, and ends training, judged and saved, with the budget."""

    def __init__(self, run: _Run) -> None:
        self.run = run

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        spent = self.run.spent() or state.global_step >= state.max_steps
        if spent:
            control.should_training_stop = control.should_save = True
        if spent or state.global_step % self.run.player.training.evaluate_every == 0:
            self.run.evaluate(state.global_step)


def learning_curve(folder: Path) -> list[tuple[int, float]]:
    """(environment steps, success on development games) of a run, oldest first."""
    records = Curves(folder / "curves.jsonl").of_kind("validation")
    return [(int(record["environment_steps"]), float(record["component.success"])) for record in records]


def mean_of(folder: Path, name: str) -> float:
    """Mean over batches of a number of the training log; 0 where it was never logged."""
    values = [r[name] for r in Curves(folder / "curves.jsonl").of_kind("train") if r.get(name) is not None]
    return fmean(values) if values else 0.0


def _check_tasks(tasks: Sequence[Task], development: Sequence[Task], training: AgentTraining) -> None:
    if not development or not tasks or len(tasks) % training.games_per_batch:
        raise InputError(
            f"{len(tasks)} training games and {len(development)} development games",
            f"training needs a multiple of games_per_batch = {training.games_per_batch}, so that no batch holds a game "
            "twice, and development at least one",
            "change the number of games",
        )
    ids = [task.id for task in [*tasks, *development]]
    if len(set(ids)) != len(ids):
        raise InputError("training and development games", "share games, or name one twice", "use other seeds")
