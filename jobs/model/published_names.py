"""Translates between the tensors that a model has in memory and those that it is
published with: other names in some families, and of fused experts one tensor for each.

transformers (5.23) knows both ways for each family (conversion_mapping), and does them
for whole models. Here they are done tensor by tensor, so that nobody holds the model:
the tensors of files become those of the model when they are read, and those of the
model the published ones when they are written or digested.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from jobs.model.weight_files import Source
from zsg_core.errors import UserError

# the types of safetensors' headers
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}

_TORCH = tuple(_DTYPES.values())


def publish_tensor(
    model: Any, name: str, tensor: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What a tensor of a model is in published files, by the names there: mostly itself
    under its own name, of fused experts a view of it for each of them."""
    from transformers.core_model_loading import revert_weight_conversion

    if not _list_transforms(model):
        return {name: tensor}
    published = revert_weight_conversion(model, {name: tensor.as_subclass(_View)})
    return {
        public_name: view.as_subclass(torch.Tensor)
        for public_name, view in published.items()
    }


class _View(torch.Tensor):
    """A tensor whose parts stay parts of it: transformers copies those that are not in
    one piece, which those that follow of them are again."""

    def contiguous(self, *_args: Any, **_how: Any) -> "_View":
        """Itself."""
        return self


def refuse_unpublished(model: Any, names: Sequence[str]) -> None:
    """UserError where a tensor of a model alone does not make published ones, two make
    the same, or these are no views of it: a model could not be written a tensor at a
    time, nor be given other weights so."""
    published: set[str] = set()
    for name in names:
        like = torch.empty_like(model.get_parameter_or_buffer(name), device="meta")
        try:
            views = publish_tensor(model, name, like)
        except Exception as error:  # whatever an operation of transformers raises
            raise UserError(_explain_joint(model, name)) from error
        share_memory = all(_share_memory(like, view) for view in views.values())
        if published & views.keys() or not share_memory:
            raise UserError(_explain_joint(model, name))
        published |= views.keys()


def _share_memory(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.untyped_storage()._cdata == second.untyped_storage()._cdata


def _explain_joint(model: Any, name: str) -> str:
    return (
        f"a {model.config.model_type!r} model is not published tensor by tensor: {name} is joined"
        " with others or put in another order there, which zsg does not write; take a model of"
        " another family"
    )


def _list_transforms(model: Any) -> list[Any]:
    """How the tensors of published files become the model's, without what only old
    files have, nor what takes a text model out of a larger one.

    Kept where transformers itself looks it up, whichever way the model was made.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import PrefixChange

    if not getattr(model, "_zsg_knows_names", False):
        mapping = get_model_conversion_mapping(model, add_legacy=False)
        model._weight_conversions = [
            transform
            for transform in mapping
            if not isinstance(transform, PrefixChange)
        ]
        model._zsg_knows_names = True
    return model._weight_conversions


def translate_sources(
    folder: Path, model: Any, sources: Mapping[str, Source]
) -> dict[str, Source]:
    """The tensors of files as tensors of a model, by their names there.

    Files may have the published names, those in memory, or either without the prefix of
    the model's body; what is of no tensor of the model is left out. UserError where
    tensors of files that make one of the model do not fit together.
    """
    from transformers.core_model_loading import dot_natural_key

    names = _NamesInMemory(model)
    translated: dict[str, Source] = {}
    converted: dict[str, list[_Part]] = {}
    for name in sorted(sources, key=dot_natural_key):
        model_name, pattern = names.find(name)
        if model_name is None:
            continue
        if pattern is not None:
            part = _Part(name, pattern, sources[name])
            converted.setdefault(model_name, []).append(part)
        elif model_name == name or model_name not in translated:
            translated[model_name] = sources[name]
    for model_name, tensors in converted.items():
        converter = names.converters[tensors[0].pattern]
        conversion = _Conversion(model, model_name, converter, tensors)
        translated |= conversion.list_sources(folder)
    return translated


class _NamesInMemory:
    """Finds what a tensor of a file is of a model. `converters`: transformers' own, by
    the patterns of names that they take."""

    def __init__(self, model: Any) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        transforms = get_model_conversion_mapping(model)
        self._renamings = [
            transform
            for transform in transforms
            if isinstance(transform, WeightRenaming)
        ]
        self._converters = [
            transform
            for transform in transforms
            if isinstance(transform, WeightConverter)
        ]
        self.converters = {
            pattern: converter
            for converter in self._converters
            for pattern in converter.source_patterns
        }
        self._prefix = model.base_model_prefix
        self._state: Any = model.state_dict()

    def find(self, name: str) -> tuple[str | None, str | None]:
        """The name of the model's tensor that one of a file is, or a part of, None if of
        none; and the pattern of the converter that makes it, if any does."""
        from transformers.core_model_loading import rename_source_key

        model_name, pattern = rename_source_key(
            name, self._renamings, self._converters, self._prefix, self._state
        )
        if model_name in self._state:
            return model_name, pattern
        return (name, None) if name in self._state else (None, None)


@dataclass(frozen=True)
class _Part:
    """A tensor of a file that makes others of a model, with the pattern of
    transformers' that it is known by."""

    name: str
    pattern: str
    source: Source


def _find_dtype(source: Source) -> torch.dtype | None:
    """The type of a tensor of a file; None for one that is no float."""
    return _DTYPES.get(source.dtype, source.dtype if source.dtype in _TORCH else None)


class _Conversion:
    """Makes tensors of a model of one or more of files, as transformers' converter
    does. What it makes several of at once is kept until each has been asked for."""

    def __init__(
        self, model: Any, name: str, converter: Any, parts: Sequence[_Part]
    ) -> None:
        self._model, self._name = model, name
        self._converter, self._parts = converter, parts
        self._made: dict[str, torch.Tensor] = {}

    def list_sources(self, folder: Path) -> dict[str, Source]:
        """What it makes, by the names in the model. UserError where the tensors of the
        files do not fit together."""
        strange = [
            tensor_part.source.dtype
            for tensor_part in self._parts
            if _find_dtype(tensor_part.source) is None
        ]
        likes = [
            torch.empty(
                tensor_part.source.shape,
                dtype=_find_dtype(tensor_part.source) or torch.float32,
                device="meta",
            )
            for tensor_part in self._parts
        ]
        try:
            shaped = self._convert(likes)
        except Exception as error:  # whatever an operation of transformers raises
            reason = str(error).strip().partition("\n")[0][:200]
            raise UserError(
                f"{folder}: the {len(likes)} tensors that make {self._name} do not fit together"
                f" ({reason}); the first is {self._parts[0].name}; get the model anew"
            ) from error
        file = self._parts[0].source.file
        return {
            name: Source(
                file,
                tuple(tensor.shape),
                strange[0] if strange else tensor.dtype,
                partial(self._read, name),
            )
            for name, tensor in shaped.items()
        }

    def _read(self, name: str) -> torch.Tensor:
        if name not in self._made:
            self._made = self._convert(
                [tensor_part.source.read() for tensor_part in self._parts]
            )
        return self._made.pop(name)

    def _convert(self, tensors: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        converter = deepcopy(self._converter)
        for tensor_part, tensor in zip(self._parts, tensors, strict=True):
            converter.add_tensor(
                self._name, tensor_part.name, tensor_part.pattern, tensor
            )
        tensor_of = converter.convert(
            self._name, model=self._model, config=self._model.config
        )
        return {
            name: value[0] if isinstance(value, list) else value
            for name, value in tensor_of.items()
        }
