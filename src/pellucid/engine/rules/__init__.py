"""Logits rules: what changes a token's chances before it is chosen. Built from options in `build`."""

from pellucid.engine.rules.rule import Pure as Pure
from pellucid.engine.rules.rule import Rule as Rule
from pellucid.engine.rules.rule import Trail as Trail
