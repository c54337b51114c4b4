"""xIELU: the integral of ELU, with trained curvature on either side of zero. Paper: arXiv 2411.13010."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.spec import Custom


class Xielu(nn.Module):
    """a_p x^2 + b x above zero, a_n (e^x - 1 - x) + b x below; a_p = softplus(alpha_p), a_n = b + softplus(alpha_n).

    The file stores b = `beta` and `eps`, just below zero, too: two numbers that are not trained.
    """

    START: ClassVar = {
        "alpha_p": math.log(math.expm1(0.8)), "alpha_n": math.log(math.expm1(0.3)), "beta": 0.5, "eps": -1e-6,
    }  # fmt: skip

    def __init__(self, spec: Custom) -> None:
        super().__init__()
        self.alpha_p = nn.Parameter(torch.empty(1))
        self.alpha_n = nn.Parameter(torch.empty(1))
        self.beta = nn.Parameter(torch.empty(()), requires_grad=False)
        self.eps = nn.Parameter(torch.empty(()), requires_grad=False)

    def forward(self, x_NF: Tensor) -> Tensor:
        above, below = F.softplus(self.alpha_p), self.beta + F.softplus(self.alpha_n)
        bent_NF = torch.where(
            x_NF > 0, above * x_NF * x_NF, below * (torch.expm1(torch.minimum(x_NF, self.eps)) - x_NF)
        )
        return bent_NF + self.beta * x_NF
