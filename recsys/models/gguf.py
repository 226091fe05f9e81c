"""A GGUF of SmolLM2 turned once into a plain Transformers checkpoint.

Transformers can read a GGUF but then refuses to save it: the configuration still says it is quantised. The weights are
therefore copied into a fresh model. Three things it infers from the file's metadata are wrong for SmolLM2 and are set
to what the model was trained with: the end token is `<|im_end|>` (not `<|im_start|>`), digits are split one by one
before byte-pair merging, and decoding is plain byte-level. Our own choice: padding is `<|endoftext|>`, so that
masking padding never masks the end token that a model must learn to emit.
"""

import contextlib
import io
from pathlib import Path

from recsys.models.chat import TEMPLATE_FILE
from recsys.models.quiet import no_progress_bars

BOS, EOS, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"


def convert(source: Path, folder: Path) -> None:
    """Write config, float32 safetensors, tokenizer with our chat template, and generation defaults into `folder`."""
    import torch
    from tokenizers import decoders, pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    with no_progress_bars(), contextlib.redirect_stderr(io.StringIO()):  # the de-quantiser draws its own bar
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        quantised = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = BOS, EOS, PAD
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.chat_template = TEMPLATE_FILE.read_text(encoding="utf-8")
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()

    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    tokenizer.model_max_length = config.max_position_embeddings
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config._name_or_path = ""
    config.update(special)
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(quantised.state_dict())
    fresh.generation_config = GenerationConfig(**special)
    with no_progress_bars():
        fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
