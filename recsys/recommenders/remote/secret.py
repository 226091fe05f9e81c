"""The API key: read from the environment, shown to nobody but the server.

Nothing else of this package holds the key's text. Whatever a server sends back passes through `redact` before it is
stored or quoted, because a server may echo the key.
"""

import json
import os
from typing import Any, NoReturn

from recsys.errors import InputError

SHORTEST = 8
MASK = "[key]"


class ApiKey:
    """A key that neither prints nor pickles. Without one (`None`) it authorises nothing and redacts nothing."""

    __slots__ = ("_text",)

    def __init__(self, text: str | None) -> None:
        self._text = text

    @classmethod
    def from_environment(cls, name: str | None) -> "ApiKey":
        """The key in variable `name`. Raises InputError, without the value, when it is unset or cannot be a header."""
        if name is None:
            return cls(None)
        text = os.environ.get(name, "").strip()
        if not text:
            raise InputError(f"environment variable {name}", "is not set", f"export {name}=… before running")
        if len(text) < SHORTEST or not text.isascii() or not text.isprintable() or " " in text:
            raise InputError(
                f"environment variable {name}",
                f"holds no key: at least {SHORTEST} printable ASCII characters without spaces",
                "set it again; a server that wants no key needs api_key_env: null",
            )
        return cls(text)

    def sign(self, request: Any) -> Any:
        """The request with its Authorization header: an httpx `auth`, so that no frame of ours ever holds the key."""
        if self._text is not None:
            request.headers["Authorization"] = f"Bearer {self._text}"
        return request

    def redact(self, text: str) -> str:
        """The text with every occurrence of the key masked, also where JSON has escaped it."""
        if self._text is None:
            return text
        escaped = json.dumps(self._text)[1:-1]
        for form in (self._text, escaped, escaped.replace("/", "\\/")):
            text = text.replace(form, MASK)
        return text

    def redact_bytes(self, raw: bytes) -> bytes:
        """`redact` of bytes in any encoding that holds ASCII as it is."""
        return self.redact(raw.decode("latin-1")).encode("latin-1")

    def __repr__(self) -> str:
        return "ApiKey(none)" if self._text is None else f"ApiKey({MASK})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an API key is not pickled; read it from the environment again")
