"""What a study of ExpRAG needs before it plays: indexes of expert trajectories, and adapters tuned on them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recsys.storage import read_json, write_json
from verbalize.agents.chats import ChatFormat
from verbalize.agents.evaluation import key_of
from verbalize.agents.expert import Bench, chat_of, entries_of, expert_trajectories, failed_trajectories, tasks_of
from verbalize.agents.exprag import ExpRAG, Retriever, drop_blocks, training_blocks
from verbalize.agents.exprag_settings import Agent, Config, Group
from verbalize.agents.pool import Environments
from verbalize.agents.rollouts import Policy, roll_out
from verbalize.config import plain
from verbalize.experience.embedding import Embedder
from verbalize.experience.entries import Experience
from verbalize.experience.library import ExperienceLibrary
from verbalize.experience.settings import ExperienceConfig
from verbalize.pipeline import Progress

VERSION = 1  # of what is written under a key; raise it when the code changes that
DONE = "done.json"
FORM = ChatFormat()


@dataclass(frozen=True)
class Workshop:
    """Where and with what a study works."""

    config: Config
    folder: Path
    bench: Bench
    environments: Environments
    progress: Progress
    command: str
    embedder: Embedder | None = None
    """Stands for the model that `config.embedding` names."""


@dataclass(frozen=True)
class Bank:
    """An index of trajectories, open for reading, under the key of all that it holds."""

    key: str
    library: ExperienceLibrary
    facts: dict[str, Any]

    @property
    def solutions(self) -> list[Experience]:
        """The successes, in order of admission: what fine-tuning learns from."""
        return [entry for entry in self.library.entries("trajectory") if entry.success]


def bank(work: Workshop, group: Group) -> Bank:
    """The index of a group's families, made if it is not there: solutions of its games and, if asked for, failures."""
    config = work.config
    part, games = ("train", config.games.train) if group == "seen" else ("bank", config.games.bank)
    sets = config.families.of(group)
    key = key_of(VERSION, [asdict(s) for s in sets], part, games, config.games.failures, config.embedding)
    folder = work.folder / "banks" / key
    settings = ExperienceConfig(embedding=config.embedding)
    if not (folder / DONE).exists():
        tasks = tasks_of(work.bench, sets, part, games)
        episodes = expert_trajectories(work.bench, work.environments, tasks)
        chosen = tasks_of(work.bench, sets, part, config.games.failures)
        failures = failed_trajectories(work.environments, chosen)
        with ExperienceLibrary.open(folder, settings, work.embedder) as library:
            library.admit(entries_of([*episodes, *failures]))
        facts = {"games": len(tasks), "solutions": len(episodes), "failures": len(failures)}
        write_json(facts, folder / DONE)
    library = ExperienceLibrary.open(folder, settings, work.embedder, read_only=True)
    return Bank(key, library, read_json(folder / DONE))


def adapter_key(config: Config, agent: Agent, seed: int, base_digest: str, seen: Bank) -> str:
    """The name of an adapter: all that its weights follow from."""
    memory = None
    if agent == "exprag-lora":
        memory = [asdict(config.retrieval), config.memory_dropout]
    selection = [[asdict(s) for s in config.families.seen], config.games.selection, *config.play.identity]
    return key_of(VERSION, base_digest, asdict(FORM), seen.key, plain(config.sft), selection, memory, seed)


def train_agent(work: Workshop, agent: Agent, seed: int, seen: Bank, base_digest: str) -> tuple[Path, dict[str, Any]]:
    """The folder of an agent's adapter and its curve, tuned if it is not there; the same call resumes."""
    folder = work.folder / "adapters" / adapter_key(work.config, agent, seed, base_digest, seen)
    if not (folder / DONE).exists():
        _train(work, agent, seed, seen, folder)
    return folder / "adapter", read_json(folder / DONE)


def policy_of(config: Config, model: Any, tokenizer: Any) -> Policy:
    """The likeliest action, every time."""
    from verbalize.agents.cached_generation import CachedGeneratingPolicy
    from verbalize.agents.cached_scoring import CachedScoringPolicy
    from verbalize.agents.language_policies import ActingConfig

    play = config.play
    acting = ActingConfig(per_token=play.per_token, max_new_tokens=play.max_new_tokens)
    kind = CachedScoringPolicy if play.acting == "score" else CachedGeneratingPolicy
    return kind(model, tokenizer, acting)


def token_counter(tokenizer: Any) -> Callable[[str], int]:
    """Tokens of a text, as it stands in a message."""
    from recsys.models.tokenisation import encode_text

    return lambda text: len(encode_text(tokenizer, text))


def _train(work: Workshop, agent: Agent, seed: int, seen: Bank, folder: Path) -> None:
    from recsys.models.adapters import add_lora, save_adapter
    from recsys.models.loading import load_language_model
    from recsys.models.settings import AdapterCard
    from verbalize.agents.sft import train_sft
    from verbalize.agents.sft_data import SupervisedChat, supervise
    from verbalize.report.provenance import revision

    config = work.config
    language = load_language_model(config.model, config.sft.dtype, device=config.device)
    model = add_lora(language.model, config.sft.lora, seed).to(config.device)
    entries = seen.solutions
    names = [entry.sources[0] for entry in entries]
    retriever = Retriever(seen.library, config.retrieval, token_counter(language.tokenizer))
    blocks = training_blocks(retriever, entries) if agent == "exprag-lora" else [""] * len(entries)

    def chats(epoch: int) -> list[SupervisedChat]:
        shown = drop_blocks(blocks, names, config.memory_dropout, seed, epoch)
        return [
            supervise(language.tokenizer, chat_of(entry, FORM, block), config.sft.max_tokens)
            for entry, block in zip(entries, shown, strict=True)
        ]

    tasks = tasks_of(work.bench, config.families.seen, "selection", config.games.selection)

    def validate(epochs: int) -> float:
        memory = ExpRAG(retriever) if agent == "exprag-lora" else None
        policy = policy_of(config, model, language.tokenizer)
        played = roll_out(work.environments, policy, tasks, memory=memory)
        won = sum(episode.success for episode in played) / len(played)
        work.progress.step("selection", epochs, config.sft.epochs, f"{agent} seed {seed}: {won:.2f} of games won")
        return won

    def on_step(done: int, total: int, loss: float) -> None:
        work.progress.step(f"sft {agent}", done, total, f"seed {seed} loss {loss:.3f}")

    curve = train_sft(model, chats, config.sft, seed, folder, validate, on_step)
    card = AdapterCard(
        base_name=language.name,
        base_hash=language.base_digest,
        data=", ".join(games.label for games in config.families.seen) + f": {len(entries)} solutions",
        split="train",
        licence=config.licence,
        command=work.command,
        revision=revision(),
        note=f"Agent {agent}, seed {seed}, fine-tuned on expert trajectories"
        + (" with retrieved ones in the system message." if agent == "exprag-lora" else "."),
    )
    save_adapter(model, folder / "adapter", card)
    lengths = [len(chat.ids) for chat in chats(0)]
    write_json(
        {
            "agent": agent,
            "seed": seed,
            "losses": [round(loss, 6) for loss in curve["losses"]],
            "validations": curve["validations"],
            "chosen": curve["chosen"],
            "trajectories": len(lengths),
            "tokens": sum(lengths),
        },
        folder / DONE,
    )
