"""Green lists: a part of the vocabulary, chosen by a hash of the tokens before, gets a bias.

arXiv 2301.10226 and 2306.04634. `lefthash` hashes the last token, `selfhash` also the candidate itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from pellucid.engine.rules.rule import Pure

TABLE = 1_000_003  # places in the table that scrambles token ids for selfhash
CANDIDATES = 40  # the most likely tokens, for which selfhash looks whether they are green
SEEDS = 2**64 - 1


@dataclass(frozen=True)
class GreenList(Pure):
    """Green tokens get a bias; which they are depends on the tokens before."""

    vocab: int
    greenlist_ratio: float = 0.25
    bias: float = 2.0
    hashing_key: int = 15485863
    seeding_scheme: str = "lefthash"
    context_width: int = 1
    device: str = "cpu"

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        if len(ids) < self.context_width:
            what = f"{len(ids)} tokens are fewer than context_width={self.context_width}: no watermark yet"
            warnings.warn(what, stacklevel=2)
            return logits_V
        context = list(ids[-self.context_width :])
        green = self._selfhash(context, logits_V) if self.seeding_scheme == "selfhash" else self.greens(context)
        return logits_V.index_add(0, green.to(logits_V.device), torch.full((len(green),), self.bias).to(logits_V))

    def greens(self, context: Sequence[int]) -> Tensor:
        """The green ids behind these tokens; the last is the candidate itself under selfhash."""
        return self.seeded(self.seed(context))

    def seeded(self, seed: int) -> Tensor:
        """The green ids of a seed."""
        generator = torch.Generator(device=self.device).manual_seed(seed)
        order_V = torch.randperm(self.vocab, generator=generator, device=self.device)
        return order_V[: int(self.vocab * self.greenlist_ratio)]

    def seed(self, context: Sequence[int]) -> int:
        """The generator's seed; two contexts with one seed have one green list."""
        if self.seeding_scheme == "selfhash":
            table = _scrambled(self.hashing_key, self.device)
            ids = torch.tensor(context[-self.context_width :], device=self.device)
            place = table[ids % TABLE] + 1
            seed = int((self.hashing_key * place * place[-1]).min())  # the product wraps at 64 bits
        else:
            seed = self.hashing_key * int(context[-1])
        return seed % SEEDS

    def _selfhash(self, context: Sequence[int], logits_V: Tensor) -> Tensor:
        """The most likely tokens that are green where they are the candidate."""
        likely = logits_V.sort(descending=True).indices[:CANDIDATES].tolist()
        green = [token for token in likely if (self.greens([*context, token]) == token).any()]
        return torch.tensor(green, dtype=torch.long)


@lru_cache(maxsize=4)
def _scrambled(key: int, device: str) -> Tensor:
    """A permutation of 0 to TABLE - 1."""
    generator = torch.Generator(device=device).manual_seed(key)
    return torch.randperm(TABLE, generator=generator, device=device)
