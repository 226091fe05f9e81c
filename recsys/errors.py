"""One shape for every refusal: what was found, which rule it breaks, what to do about it."""


class InputError(ValueError):
    """A value from outside (file, configuration, argument) that breaks a rule.

    >>> str(InputError("slate size 1", "a slate needs a target and at least one negative", "set slate.size >= 2"))
    'slate size 1: a slate needs a target and at least one negative. Remedy: set slate.size >= 2'
    """

    def __init__(self, value: str, rule: str, remedy: str) -> None:
        self.value, self.rule, self.remedy = value, rule, remedy
        super().__init__(f"{value}: {rule}. Remedy: {remedy}")

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, str, str]]:
        return type(self), (self.value, self.rule, self.remedy)


class ContractError(InputError):
    """A table that breaks its contract in `data_schemas/`."""


class CorruptFileError(InputError):
    """A file that exists but cannot be read as what it claims to be."""


class AssetError(InputError):
    """A model or data set that cannot be obtained or does not match its pinned hash."""
