"""llama.cpp on the GGUF files of our tests: largest difference of logits, and twelve greedy tokens.

    PYTHONPATH=src:WHERE python benchmarks/gguf_peer.py [NAME ...]      WHERE has llama-cpp-python

Names are those of tests/quant/test_gguf_models.py; files are in float32, and so are caches. Encoders are compared by
their hidden states; T5 but for a factor, which llama.cpp leaves out. Results go to build/llama_cpp.json for matrix.py.
"""

from __future__ import annotations

import ctypes
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "quant")]

import test_gguf_models as files  # noqa: E402

import reference as ref  # noqa: E402

RESULTS, TOKENS = ROOT / "build" / "llama_cpp.json", 12
said: list[str] = []


@llama_cpp.llama_log_callback
def log(level: int, text: bytes, user: Any) -> None:
    said.append(text.decode("utf-8", "replace"))


class Peer:
    """A file, opened with caches in float32."""

    def __init__(self, path: Path, *, embeddings: bool) -> None:
        self.model = llama_cpp.llama_load_model_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(next((line.strip() for line in said if "error loading" in line), "it does not load"))
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = 64
        options.n_threads = options.n_threads_batch = 1
        options.type_k = options.type_v = options.flash_attn_type = 0
        options.embeddings = embeddings
        if embeddings:
            options.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
        self.context = llama_cpp.llama_new_context_with_model(self.model, options)
        self.width = llama_cpp.llama_n_embd(self.model) if embeddings else 101
        self.read = llama_cpp.llama_get_embeddings_ith if embeddings else llama_cpp.llama_get_logits_ith

    def __call__(self, ids: list[int], first: int = 0, *, encode: bool = False) -> np.ndarray:
        """What it says of each token, [N, width]."""
        batch = llama_cpp.llama_batch_init(64, 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, first + i, 1, 1
            batch.seq_id[i][0] = 0
        call = llama_cpp.llama_encode if encode else llama_cpp.llama_decode
        if failed := call(self.context, batch):
            raise RuntimeError(f"it stops with {failed}")
        rows = range(0 if encode and self.read is llama_cpp.llama_get_logits_ith else len(ids))
        return np.array([self.read(self.context, i)[: self.width] for i in rows])


def compared(name: str, root: Path) -> str:
    """Our model from safetensors, and llama.cpp's from the GGUF file that is made of it."""
    ours, path = files.pair(name, root)
    said.clear()
    peer = Peer(path, embeddings=ours.task is None)
    ids = torch.randint(3, 90, (1, 11), generator=torch.Generator().manual_seed(1))
    prompt, start = ids[0].tolist(), [0, 5, 6, 7]
    more = {"decoder_input_ids": torch.tensor([start])} if ours.task == "seq2seq-lm" else {}
    with torch.inference_mode():
        wanted = ref.first(ours(ids, **more))[0].float().numpy()
    if more:
        peer(prompt, encode=True)
    found = peer(start if more else prompt)
    if more:
        found *= np.abs(wanted).max() / np.abs(found).max()
    off = f"{np.abs(found - wanted).max() / np.abs(wanted).max():.0e}"
    if ours.task != "causal-lm":
        return off
    tokens = [int(found[-1].argmax())]
    while len(tokens) < TOKENS:
        tokens.append(int(peer(tokens[-1:], len(prompt) + len(tokens) - 1)[-1].argmax()))
    options = {"max_new_tokens": TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    same = ours.generate(ids, **options)[0, len(prompt) :].tolist() == tokens
    return f"{off}, {'same' if same else 'other'} tokens"


def main() -> None:
    logging.disable(logging.WARNING)
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    found: dict[str, str] = {}
    for name in sys.argv[1:] or files.MODELS:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                result = compared(name, Path(scratch))
            except Exception as error:
                result = f"{type(error).__name__}: {error}"
        print(f"{name:32s} {result}", flush=True)
        found.setdefault(files.MODELS[name][0], result)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps((json.loads(RESULTS.read_text()) if RESULTS.exists() else {}) | found, indent=1))


if __name__ == "__main__":
    main()
