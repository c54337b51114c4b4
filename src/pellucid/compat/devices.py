"""Where a model goes: `plan`, `device_map`, `max_memory` and `device` in one answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid.compat.arguments import existing, one_device
from pellucid.errors import ArgumentError
from pellucid.models.machine import accelerators
from pellucid.models.plan import DISK, Plan, device_name, plan

AUTOMATIC = ("auto", "balanced", "sequential", "balanced_low_0")

Placement = Mapping[str, Any] | None


def where_to(
    folder: Path, planned: Plan | None, device_map: Any, max_memory: Any, device: Any, dtype: Any
) -> tuple[str | None, Placement]:
    """One device; or a placement beside the device of the model's inputs.

    Args:
        folder: of the model; a plan is made where the devices are to be chosen.

    Raises:
        ArgumentError: two of them that do not go together, a device that is not here.
    """
    if planned is not None:
        if device_map is not None or device is not None:
            given = "device_map" if device_map is not None else "device"
            raise ArgumentError(f"both plan and {given} given", where="plan", next="give one")
        if not isinstance(planned, Plan):
            what = f"plan is a {type(planned).__name__}"
            raise ArgumentError(what, where="plan", next="give what pellucid.plan(…) returns")
        return _checked(planned.placement)
    if isinstance(device_map, str) and device_map in AUTOMATIC and device is None:
        if max_memory is not None:
            return _checked(plan(folder, devices=_sizes(max_memory), dtype=dtype, measure=False).placement)
        if len(accelerators()) > 0 and not _fits_one(folder, dtype):
            return _checked(plan(folder, dtype=dtype, measure=False).placement)
    if (
        isinstance(device_map, Mapping)
        and device is None
        and (len(set(map(str, device_map.values()))) > 1 or _disk(device_map))
    ):
        return _checked(device_map)
    return one_device(device_map, device), None


def _fits_one(folder: Path, dtype: Any) -> bool:
    """Whether the first accelerator holds all of it."""
    return plan(folder, devices=["cuda:0"], dtype=dtype, measure=False).fits


def _sizes(max_memory: Any) -> Mapping[Any, Any]:
    if not isinstance(max_memory, Mapping) or not max_memory:
        what = f"max_memory={max_memory!r}"
        raise ArgumentError(
            what, where="max_memory", next="give a dict of device -> memory, like {0: '20GB', 'cpu': '30GB'}"
        )
    return max_memory


def _disk(device_map: Mapping[Any, Any]) -> bool:
    return any(str(device) == DISK for device in device_map.values())


def _checked(placement: Mapping[str, Any]) -> tuple[str, Placement]:
    """The device of the embedding, and a placement whose devices are here; one device alone needs none."""
    named = {str(module): device_name(device) for module, device in placement.items()}
    for device in dict.fromkeys(named.values()):
        if device != DISK:
            existing(device)
    devices = set(named.values())
    home = next(
        (named[name] for name in ("embed", "encoder.embed") if name in named), next(iter(named.values()), "cpu")
    )
    home = "cpu" if home == DISK else home
    return home, None if devices == {home} and len(named) > 1 else named
