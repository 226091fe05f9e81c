"""`verbalize completion`: what a shell needs to complete commands and options.

The shells ask the program itself (argcomplete), so completion never lags behind the parser; parsing imports nothing
heavy and answers at once.
"""

import argparse

SHELLS = ("bash", "zsh", "fish")
HOOK = "_ARGCOMPLETE"
"""Set by the shell while it asks for completions."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `completion bash | zsh | fish`."""
    about = 'print the shell\'s completion code: eval "$(verbalize completion bash)"'
    completion = commands.add_parser("completion", help=about, description=about)
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(call=_completion)


def _completion(options: argparse.Namespace) -> int:
    import argcomplete

    print(argcomplete.shellcode(["verbalize"], shell=options.shell))  # type: ignore[no-untyped-call]
    return 0


def answer(root: argparse.ArgumentParser) -> None:
    """Print completions of the line being typed, and exit; called only where HOOK is set."""
    import argcomplete

    argcomplete.autocomplete(root)
