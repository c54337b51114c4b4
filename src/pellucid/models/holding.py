"""What a model holds, under canonical names and under those of its file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.config import Config
from pellucid.errors import ArgumentError, WeightsError
from pellucid.models.names import descend
from pellucid.models.report import Report
from pellucid.models.watching import Watchable
from pellucid.nn.linear import Linear
from pellucid.nn.parts import Embedding
from pellucid.nn.parts import Table as Vectors
from pellucid.nn.tower import Tower
from pellucid.nn.watched import stored
from pellucid.ops.packed import PackedTensor
from pellucid.spec import Head, LmHead, PretrainingHead, Spec, Task, language
from pellucid.weights.gguf import GgufFile
from pellucid.weights.table import Place, Table


class Holding(Watchable):
    """A tower, perhaps an encoder beside it, and a head, whose parameters know their names and their ties."""

    spec: Spec
    config: Config
    table: Table
    file_table: Table  # what the file it was loaded from calls things: `table`, or the family's GGUF names
    container: GgufFile | None  # the GGUF file it was loaded from
    task: Task | None
    report: Report
    encoder: Tower | None
    head_spec: Head | None
    places: list[Place]  # the file tensors this model was filled from, in the file's order
    placement: Mapping[str, str] | None = None  # module -> device, where they were placed (`placing.py`)
    _paths: dict[str, str] | None

    def canonical(self, name: str) -> str:
        """The canonical form of a name that may be the file's."""
        place = self.table.find(name) or self.file_table.find(name)
        if place is not None and len(place.slots) == 1:
            return place.slots[0]
        paths = self.file_paths()
        for known in sorted(paths, key=len, reverse=True):
            if name == known or name.startswith(f"{known}."):
                return paths[known] + name[len(known) :]
        return name

    def file_paths(self) -> dict[str, str]:
        """File path of each module -> canonical path."""
        if self._paths is None:
            parameters = nn.Module.named_parameters(self, remove_duplicate=False)
            self._paths = self.table.module_names([name for name, _ in parameters])
        return self._paths

    def get_submodule(self, target: str) -> nn.Module:
        """A module by its canonical path, or by its path in the file."""
        try:
            return super().get_submodule(target)
        except AttributeError:
            paths = self.file_paths()
            if target not in paths:
                raise
            return super().get_submodule(paths[target])

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "_paths" not in self.__dict__:
                raise
            step = descend(self, name, self.file_paths())
            if step is None:
                raise
            return step

    # ------------------------------------------------------------------------------------------ weights

    def state_dict(  # type: ignore[override]  # one more argument than torch's
        self, *args: Any, names: str = "canonical", **kwargs: Any
    ) -> dict[str, Any]:
        """As torch has it; `names="file"` gives the checkpoint's own names and layouts.

        Raises:
            ArgumentError: another value of `names`.
        """
        if names == "canonical":
            return super().state_dict(*args, **kwargs)
        if names != "file":
            raise ArgumentError(f"names={names!r}", where="state_dict", next="use 'canonical' or 'file'")
        held = dict(nn.Module.named_parameters(self, remove_duplicate=False))
        found: dict[str, Tensor] = {}
        for name, place in self.file_places():
            tensor = place.join([held[slot].detach() for slot in place.slots])
            if isinstance(tensor, PackedTensor) and len(parts := tensor.parts) > 1:
                found |= {file_name: parts[part] for part, file_name in tensor.file_names(name).items()}
            else:
                found[name] = tensor
        return found

    @torch.inference_mode(False)  # parameters are ordinary tensors, wherever they are moved
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Holding:
        """As torch has it. A packed matrix becomes another one: torch would leave its bytes where they were."""
        done: dict[int, nn.Parameter] = {}
        for module in self.modules():
            for name, old in dict.items(module._parameters):
                if isinstance(old, PackedTensor):
                    if id(old) not in done:
                        done[id(old)] = nn.Parameter(fn(old), requires_grad=False)
                    module._parameters[name] = done[id(old)]
        return super()._apply(fn, recurse)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch has it, under canonical names or the checkpoint's."""
        held = dict(nn.Module.named_parameters(self, remove_duplicate=False))
        if any(name not in held for name in state_dict):
            state_dict = self._canonical_tensors(state_dict, held)
        result = super().load_state_dict(state_dict, strict=strict, assign=assign)
        self.tie_weights()
        return result

    def _canonical_tensors(self, given: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        rows: dict[str, dict[int, Tensor]] = {}
        for name, tensor in given.items():
            place = None if name in held else self.file_table.find(name) or self.table.find(name)
            if place is None or not all(slot in held for slot in place.slots):
                found[name] = tensor
                continue
            if place.row is not None:
                rows.setdefault(place.slots[0], {})[place.row] = tensor
                continue
            sizes = [len(held[slot]) if held[slot].dim() else 1 for slot in place.slots]
            found.update(zip(place.slots, place.split(tensor, sizes)))
        for slot, parts in rows.items():
            if sorted(parts) == list(range(len(held[slot]))):
                found[slot] = torch.stack([parts[row] for row in range(len(parts))])
        for tied, source in self.ties().items():
            if source in found:
                found.setdefault(tied, found[source])
            elif tied in found:
                found[source] = found[tied]
        return found

    def file_places(self) -> Iterator[tuple[str, Place]]:
        """Each file tensor of this model: as in the file it came from, or as the table has it for what is new.

        Raises:
            WeightsError: a parameter that the family's table does not know.
        """
        held = dict(nn.Module.named_parameters(self, remove_duplicate=False))
        covered: set[str] = set()
        ties = self.ties()
        for place in self.places:
            if all(slot in held for slot in place.slots):
                covered.update(place.slots, (ties.get(slot, slot) for slot in place.slots))
                yield place.name, place
        for slot, parameter in held.items():
            if slot in covered or slot in ties:
                continue
            rows = len(parameter) if parameter.dim() else 1
            places = self.file_table.default_places(slot, rows, headless=self.task is None)
            if not places:
                raise WeightsError(f"no file name for the parameter {slot}", next="add it to the family's WEIGHTS")
            for place in places:
                covered.update(place.slots)
                yield place.name, place

    def ties(self) -> dict[str, str]:
        """Parameters that are another one: name -> the name under which it is stored."""
        shared = self.encoder is not None and self.spec.shared_embedding
        tied = {"embed.tokens.weight": "encoder.embed.tokens.weight"} if shared else {}
        head = language(self.head_spec)
        if head is not None and head.tied:
            tied["lm_head.out.weight"] = tied.get("embed.tokens.weight", "embed.tokens.weight")
        return tied

    def tie_weights(self) -> None:
        """Makes tied parameters one object again, after either was replaced."""
        for name, source in self.ties().items():
            path, _, last = name.rpartition(".")
            owner, _, key = source.rpartition(".")
            weight = self.get_submodule(owner)._parameters[key]
            self.get_submodule(path)._parameters[last] = weight
        head = language(self.head_spec)
        if head is not None and isinstance(self.lm_head.out, Linear):
            self.lm_head.out.homes = 1 + len(self.ties()) if head.tied else 1

    def untie(self) -> None:
        """Gives the head a matrix of its own, still to be filled."""
        match self.head_spec:
            case LmHead():
                self.head_spec = replace(self.head_spec, tied=False)
            case PretrainingHead(lm=LmHead() as lm):
                self.head_spec = replace(self.head_spec, lm=replace(lm, tied=False))
        out = self.lm_head.out
        out._parameters["weight"] = nn.Parameter(torch.empty_like(out._parameters["weight"]))
        out.homes = 1

    def get_input_embeddings(self) -> nn.Module:
        """The table of token vectors."""
        tower = self.encoder if self.encoder is not None else self
        embed = tower.embed
        assert isinstance(embed, Embedding)
        return embed.tokens

    def get_output_embeddings(self) -> nn.Module | None:
        """The matrix before the vocabulary's logits, where there is one."""
        return self.lm_head.out if language(self.head_spec) is not None else None

    def num_parameters(self, *, only_trainable: bool = False) -> int:
        """Numbers in the model, tied ones once."""
        found = nn.Module.named_parameters(self)
        return sum(p.numel() for _, p in found if p.requires_grad or not only_trainable)

    @property
    def device(self) -> torch.device:
        """Where the embedding lives; ids go there."""
        return self._stored().device

    @property
    def dtype(self) -> torch.dtype:
        """Of the embedding, and of everything computed from it."""
        return self._stored().dtype

    def _stored(self) -> Tensor:
        return stored(next(table for table in self.embed.tokens.modules() if isinstance(table, Vectors)))
