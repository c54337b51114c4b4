"""Parts that one family brings along: `Custom(path="pellucid.families.xlnet.relative:Attention")`."""

from __future__ import annotations

from importlib import import_module

from torch import nn

from pellucid.spec import Custom


def custom(spec: Custom) -> type[nn.Module]:
    """The class that `spec` names, to be built like the part in whose place it stands."""
    module, _, name = spec.path.partition(":")
    found: type[nn.Module] = getattr(import_module(module), name)
    return found
