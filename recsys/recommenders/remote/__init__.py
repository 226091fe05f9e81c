"""Slates ranked by a language model behind an OpenAI-compatible endpoint (vLLM, SGLang, hosted services)."""
