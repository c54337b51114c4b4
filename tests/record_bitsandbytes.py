"""Records what bitsandbytes makes of a few numbers: tests/data/bitsandbytes.safetensors (PYTHONPATH to the package).

.venv/bin/pip install --target /tmp/bnb --no-deps bitsandbytes
PYTHONPATH=/tmp/bnb .venv/bin/python tests/record_bitsandbytes.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

OUT = Path(__file__).parent / "data" / "bitsandbytes.safetensors"


def main() -> None:
    import bitsandbytes as bnb
    import bitsandbytes.functional as F

    at = torch.arange(12 * 64).double()
    w = ((at * 0.7391).sin() * (at * 0.0317).cos() * 0.05).float().view(12, 64).bfloat16()
    x = ((torch.arange(3 * 64).double() * 1.13).sin() * 3).float().view(3, 64).bfloat16()
    x[1, 5], x[2, 7], x[2, 40] = 9, 6, -30
    out = {"w": w, "x": x, "dynamic": F.create_dynamic_map()}
    for kind in ("nf4", "fp4"):
        for double in (False, True):
            codes, state = F.quantize_4bit(w, compress_statistics=double, quant_type=kind)
            name = f"{kind}{'-double' if double else ''}."
            out[name + "weight"], out[name + "numbers"] = codes, F.dequantize_4bit(codes, state).clone()
            out |= {f"{name}weight.{part}": each.clone() for part, each in state.as_dict(packed=True).items()}
    codes, scale, _ = F.int8_vectorwise_quant(w.half())
    state = bnb.MatmulLtState()
    state.CB, state.SCB, state.threshold, state.has_fp16_weights, state.is_training = codes, scale, 6.0, False, False
    rows = [bnb.matmul(row.clone(), codes, state=state, threshold=6.0) for row in x.split(1)]  # each without company
    out |= {"int8.weight": codes, "int8.SCB": scale, "int8.weight_format": torch.tensor(0, dtype=torch.uint8)}
    out |= {"int8.numbers": F.int8_vectorwise_dequant(codes, scale).contiguous(), "int8.y": torch.cat(rows)}
    save_file(out, OUT, metadata={"made by": f"bitsandbytes {bnb.__version__}"})
    OUT.chmod(0o644)


if __name__ == "__main__":
    main()
