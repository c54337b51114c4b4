"""GPT-J. Model card: github.com/kingoflolz/mesh-transformer-jax."""

from pellucid.config import Config
from pellucid.families._decoder import attention, classes, decoder, layer_norm
from pellucid.families._read import activation
from pellucid.spec import Block, Embed, LmHead, Mlp, Parallel, Rope, Spec
from pellucid.weights.table import Entry, Recomputed

CLASSES = classes("GPTJ", "causal-lm", "sequence-classification", "question-answering")
DEFAULTS = {
    "vocab_size": 50400, "n_positions": 2048, "n_embd": 4096, "n_layer": 28, "n_head": 16, "rotary_dim": 64,
    "n_inner": None, "activation_function": "gelu_new", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    "layer_norm_epsilon": 1e-5, "bos_token_id": 50256, "eos_token_id": 50256, "pad_token_id": None,
    "tie_word_embeddings": False,
}  # fmt: skip
ALIASES = {
    "max_position_embeddings": "n_positions", "hidden_size": "n_embd", "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer", "attention_dropout": "attn_pdrop",
}  # fmt: skip
IGNORED = {
    "rotary": (True,), "scale_attn_weights": (True,),  # of the first files, before there was a family
}  # fmt: skip

BASE = "transformer."
NAMES: dict[str, Entry] = {
    "transformer.wte.weight": "embed.tokens.weight",
    "transformer.h.{i}.ln_1.{p}": "blocks.{i}.attn_norm.{p}",
    "transformer.h.{i}.attn.out_proj.weight": "blocks.{i}.attn.o.weight",
    "transformer.h.{i}.mlp.fc_in.{p}": "blocks.{i}.mlp.up.{p}",
    "transformer.h.{i}.mlp.fc_out.{p}": "blocks.{i}.mlp.down.{p}",
    "transformer.ln_f.{p}": "norm.{p}",
    "lm_head.{p}": "lm_head.out.{p}",
    "score.weight": "classifier.out.weight",
    "qa_outputs.{p}": "span.out.{p}",
    "transformer.h.{i}.attn.bias": Recomputed("causal mask"),
    "transformer.h.{i}.attn.causal_mask": Recomputed("causal mask"),
    "transformer.h.{i}.attn.masked_bias": Recomputed("masked score"),
}
WEIGHTS = NAMES | {
    "transformer.h.{i}.attn.q_proj.weight": "blocks.{i}.attn.q.weight",
    "transformer.h.{i}.attn.k_proj.weight": "blocks.{i}.attn.k.weight",
    "transformer.h.{i}.attn.v_proj.weight": "blocks.{i}.attn.v.weight",
}


def spec(c: Config, family: str = "gptj") -> Spec:
    norm = layer_norm(c, "layer_norm_epsilon")
    width = c.size("n_embd")
    rope = Rope(theta=10000.0, dim=c.size("rotary_dim", null=width // c.size("n_head")), interleaved=True)
    block = Block(
        attn=attention(c, rope=rope),
        mlp=Mlp(
            hidden=c.size("n_inner", null=4 * width), act=activation(c.activation_function, c), gated=False, bias=True
        ),
        order=Parallel(norm=norm, shared=True), dropout=c.share("resid_pdrop"),
    )  # fmt: skip
    embed = Embed(vocab=c.size("vocab_size"), dropout=c.share("embd_pdrop"))
    head = LmHead(tied=c.tie_word_embeddings, bias=True)
    return decoder(c, family, [block] * c.layers("n_layer"), norm=norm, embed=embed, head=head)
