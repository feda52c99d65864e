"""Has an engine load states that an older zsg saved, in which the model went by another
name."""

from collections.abc import Mapping
from typing import Any

# How the names of a model's tensors begin within jobs.model.answer_loss.AnswerLoss.
OLDER_PREFIX, PREFIX = "llama.", "model."
# Where DeepSpeed's checkpoints tell tensors by their names: all of them, or under ZeRO 2
# and 3 also this rank's parts of those that are not trained.
_NAMED_PARTS = ("module", "frozen_param_fragments")


def accept_older_names(engine: Any) -> None:
    """Changes how an engine loads the tensors of a checkpoint: older names are taken
    for those of today."""
    load = engine.load_module_state_dict

    def load_renamed(checkpoint: Any, *given: Any, **options: Any) -> None:
        for part in _NAMED_PARTS:
            named = checkpoint.get(part)
            if named and all(name.startswith(OLDER_PREFIX) for name in named):
                checkpoint[part] = rename_tensors(named)
        load(checkpoint, *given, **options)

    engine.load_module_state_dict = load_renamed


def rename_tensors(named: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of an older checkpoint by the names of today."""
    return {
        PREFIX + name.removeprefix(OLDER_PREFIX): tensor
        for name, tensor in named.items()
    }
