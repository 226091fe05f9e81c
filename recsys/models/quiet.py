"""Library code prints nothing: progress bars of Transformers are off while ours is at work, and restored after."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silence Transformers' bars inside the block."""
    from transformers.utils import logging

    active = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if active:
            logging.enable_progress_bar()
