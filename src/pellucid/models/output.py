"""What a forward returns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NAMES = (
    "loss", "aux_loss", "logits", "prediction_logits", "seq_relationship_logits", "sop_logits", "start_logits",
    "end_logits", "logits_aggregation", "last_hidden_state", "pooler_output", "past_key_values", "hidden_states",
    "attentions", "decoder_hidden_states", "decoder_attentions", "cross_attentions", "encoder_last_hidden_state",
    "encoder_hidden_states", "encoder_attentions", "router_logits",
)  # fmt: skip


class Output:
    """Named results: `out.logits`, `out["logits"]`, `out[0]`, `loss, logits = out`. What was not asked for is None.

    Positions and unpacking count only the values that are there, in the order of `NAMES`.
    """

    def __init__(self, **values: Any) -> None:
        self._values = {name: values[name] for name in NAMES if values.get(name) is not None}

    def __getattr__(self, name: str) -> Any:
        if name in NAMES:
            return self.__dict__["_values"].get(name)
        raise AttributeError(f"a forward returns no {name!r}; it may return {', '.join(NAMES)}")

    def __getitem__(self, key: str | int | slice) -> Any:
        return self._values[key] if isinstance(key, str) else self.to_tuple()[key]

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values.values())

    def __len__(self) -> int:
        return len(self._values)

    def keys(self) -> list[str]:
        """Names of the values that are there."""
        return list(self._values)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a name, or `default`."""
        return self._values.get(key, default)

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are there."""
        return tuple(self._values.values())

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(value, 'shape', type(value).__name__)}" for name, value in self._values.items())
        return f"Output({', '.join(shown)})"
