"""Arguments that scripts pass: what has an effect, what is accepted and recorded, and what is refused with advice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pellucid.errors import ArgumentError, Unsupported, nearest

# They choose an implementation, and there is one: accepted, recorded in `model.report.arguments`.
RECORDED = frozenset(
    """
    attn_implementation low_cpu_mem_usage use_safetensors trust_remote_code offload_folder offload_state_dict
    max_memory torch_compile experts_implementation resume_download mirror proxies
    """.split()
)

# What the field knows and this version does not do: what to use instead.
REFUSED = {
    "tp_plan": "load on one device",
    "adapter_name": "merge the adapter first",
    "variant": "give the folder whose files have the standard names",
    "from_tf": "convert the checkpoint to safetensors",
    "from_flax": "convert the checkpoint to safetensors",
    "code_revision": "Pellucid runs no code from a model folder",
}


def sort_out(given: Mapping[str, Any], *, known: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits unforeseen arguments into (recorded, config overrides).

    Raises:
        Unsupported: an argument that asks for something this version does not do.
        ArgumentError: an argument that looks like a misspelling of a known one.
    """
    recorded, overrides = {}, {}
    for name, value in given.items():
        if name in RECORDED:
            recorded[name] = value
        elif name in REFUSED:
            if value is None or value is False:
                recorded[name] = value
                continue
            raise Unsupported(f"{name}={value!r} is not supported", where=name, next=REFUSED[name])
        else:
            overrides[name] = value
    for name in overrides:
        near = nearest(name, [*known, *RECORDED])
        if near and not _is_config_key(name):
            raise ArgumentError(f"from_pretrained takes no {name!r}", where=name, next=near)
    return recorded, overrides


def _is_config_key(name: str) -> bool:
    from pellucid.config import BOOKKEEPING, COMMON, GENERATION, architecture_keys

    return name in COMMON or name in BOOKKEEPING or name in GENERATION or name in architecture_keys()


def one_device(device_map: Any, device: Any) -> str | None:
    """The single device that `device_map` or `device` names; "auto" is the accelerator where there is one.

    Raises:
        Unsupported: a map over several devices.
        ArgumentError: both were given.
    """
    if device_map is None:
        return None if device is None else existing(str(device))
    if device is not None:
        raise ArgumentError("both device and device_map given", where="device_map", next="give one")
    if isinstance(device_map, Mapping):
        places = {str(place) for place in device_map.values()}
        if len(places) != 1:
            what = f"device_map over {sorted(places)}"
            raise ArgumentError(what, where="device_map", next="name one device here")
        device_map = places.pop()
    if device_map in ("auto", "balanced", "sequential", "balanced_low_0"):
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    return existing(f"cuda:{device_map}" if str(device_map).isdigit() else str(device_map))


def existing(name: str) -> str:
    """A device that torch knows and this machine has.

    Raises:
        ArgumentError: it does not.
    """
    import torch

    try:
        device = torch.device(name)
        if device.type != "meta":
            torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        what = f"there is no device {name!r} here: {str(error).splitlines()[0][:120]}"
        raise ArgumentError(what, where="device", next="use 'cpu', 'cuda' or 'auto'") from None
    if device.type == "meta":
        raise ArgumentError("device 'meta' holds no numbers", where="device", next="use 'cpu', 'cuda' or 'auto'")
    return name
