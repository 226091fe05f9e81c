"""What a slot policy decides: events of the history (`actions`) or the display of the candidates (`displays`).

Both ask by a prompt with slots and answer in one alphabet of four, so policy, warm start and trainers are one.
"""

from collections.abc import Sequence

import polars as pl

from verbalize.verbalizers.actions import ActionConfig, action_prompts, execute
from verbalize.verbalizers.displays import DisplayConfig, chosen_displays, display_prompts

SlotConfig = ActionConfig | DisplayConfig


def slot_prompts(inputs: pl.DataFrame, config: SlotConfig) -> list[str]:
    """B inputs -> B prompts: a slot per shown event, or a single one."""
    return display_prompts(inputs, config) if isinstance(config, DisplayConfig) else action_prompts(inputs, config)


def carry_out(inputs: pl.DataFrame, actions: Sequence[Sequence[int]], config: SlotConfig) -> list[str]:
    """B inputs and an action per slot -> B texts of histories, or B names of displays."""
    if isinstance(config, DisplayConfig):
        return chosen_displays(inputs, actions)
    return execute(inputs, actions, config)
