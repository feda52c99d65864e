"""Up to which length a model turns the positions of a text as it turns them in a text
alone.

Some choose their rotations by the longest text of a batch, also for the short ones in
it. Where they begin to is the same question for plan, which reads config.json, and for
jobs, which have transformers' config of it: it is answered here, for both.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from zsg_core.families.registry import find_family, position_count
from zsg_core.families.sizes import is_size

# transformers (5.23), modeling_rope_utils.dynamic_rope_update: these are chosen anew
DYNAMIC = "dynamic"  # also within a longer name
LONGROPE = "longrope"
BY_LENGTH = (DYNAMIC, LONGROPE)
# what Phi-3's and Phi-4's classes read as longrope: configs of its first months
AS_LONGROPE = ("su", "yarn")
PHI = ("phi3", "phi4_multimodal")
# how many positions longrope was made from
ORIGIN = "original_max_position_embeddings"


def find_rotation_limit(config: Mapping[str, Any]) -> tuple[int, str] | None:
    """The tokens of the longest text whose rotations do not depend on the texts around,
    and of which kind these are; None where none do.

    `config`: a config.json, or transformers' own as a dict; of layers that differ the
    least counts.
    """
    limits: list[tuple[int, str]] = []
    for rotation in _list_rotations(config):
        kind = _read_kind(rotation, config.get("model_type"))
        if DYNAMIC in kind:
            limits.append((position_count(config), DYNAMIC))
        elif kind == LONGROPE:
            limits.append((_find_origin(rotation, config), LONGROPE))
    return min(limits, default=None)


def _list_rotations(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The settings of rotary positions: one, or one for each kind of layer. The older
    key counts where both are there."""
    settings = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(settings, Mapping):
        return
    whole = cast("Mapping[str, Any]", settings)
    yield whole
    for nested in whole.values():
        if isinstance(nested, Mapping):
            yield cast("Mapping[str, Any]", nested)


def _read_kind(rotation: Mapping[str, Any], family: object) -> str:
    """By which rule positions are turned; "" where that is no text."""
    kind = rotation.get("rope_type", rotation.get("type"))
    if kind == "su" or (kind in AS_LONGROPE and family in PHI):
        return LONGROPE
    return kind if isinstance(kind, str) else ""


def _find_origin(rotation: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """How many positions longrope was made from, at least. Where rotary settings and the
    config beside them, or its class, differ, transformers takes now one, now the other.
    """
    entry = find_family(config)
    defaults = {} if entry is None else entry.defaults
    beside = config.get(ORIGIN, defaults.get(ORIGIN))
    origins = [origin for origin in (beside, rotation.get(ORIGIN)) if is_size(origin)]
    return min(origins, default=position_count(config))
