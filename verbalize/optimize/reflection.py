"""The models that word instructions for prompt evolution: local, or behind an OpenAI-compatible endpoint."""

from collections.abc import Callable
from dataclasses import replace

from recsys.errors import InputError
from recsys.models.chat import encode_chat
from recsys.models.loading import LanguageModel, load_language_model
from recsys.recommenders.remote.answers import Answer
from recsys.recommenders.remote.budget import Budget
from recsys.recommenders.remote.cache import AnswerCache
from recsys.recommenders.remote.client import ChatClient
from recsys.recommenders.remote.prompts import check_consent, request_body
from verbalize.optimize.prompt_settings import PromptEvolutionConfig


def reflection_model(lm: LanguageModel, config: PromptEvolutionConfig) -> Callable[[str], str]:
    """The configured model as prompt -> answer; `lm` is the rewriter, which serves where no other is named."""
    if config.remote is not None:
        return _remote(config)
    chosen = lm if config.reflection_model is None else load_language_model(config.reflection_model)
    return lambda prompt: _local(chosen, prompt, config.reflection_tokens)


def _local(lm: LanguageModel, prompt: str, most: int) -> str:
    """A greedy answer: the same prompt words the same instruction."""
    import torch
    from transformers import GenerationConfig

    ids = encode_chat(lm.tokenizer, [{"role": "user", "content": prompt}], add_generation_prompt=True)
    longest = getattr(lm.model.config, "max_position_embeddings", None)
    if longest is not None and len(ids) + most > longest:
        raise InputError(
            f"a reflection prompt of {len(ids)} tokens",
            f"leaves no room for an answer of {most} in a context of {longest}",
            "lower gepa.minibatch, gepa.reflection_tokens or policy.rewrite.max_events, or use another model",
        )
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=most,
        pad_token_id=lm.tokenizer.pad_token_id if lm.tokenizer.pad_token_id is not None else lm.tokenizer.eos_token_id,
        eos_token_id=lm.tokenizer.eos_token_id,
    )
    training = lm.model.training
    lm.model.eval()
    with torch.no_grad():
        output = lm.model.generate(
            input_ids=torch.tensor([ids], device=lm.model.device),
            attention_mask=torch.ones((1, len(ids)), dtype=torch.long, device=lm.model.device),
            generation_config=greedy,
        )[0, len(ids) :]
    lm.model.train(training)
    return str(lm.tokenizer.decode(output, skip_special_tokens=True))


def _remote(config: PromptEvolutionConfig) -> Callable[[str], str]:
    assert config.remote is not None
    settings = replace(config.remote, answer="text")
    cache = AnswerCache()  # of money only: answers are kept by whoever asks
    budget = Budget(settings.budget, cache, f"{settings.model} at {settings.host}")
    client = ChatClient(settings, budget, config.reflection_tokens)

    def ask(prompt: str) -> str:
        try:
            check_consent(settings, [prompt])
        except InputError as error:
            remedy = error.remedy.replace("recommender.remote", "gepa.remote")
            raise InputError(error.value, error.rule, remedy) from None
        found: list[Answer] = []
        client.ask([request_body(prompt, settings, config.reflection_tokens)], lambda _, answer: found.append(answer))
        return found[0].text

    return ask
