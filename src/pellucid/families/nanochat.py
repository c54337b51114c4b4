"""nanochat. Repository: github.com/karpathy/nanochat. No norm is trained, and heads turn the other way."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, decoder, plain_mlp, rms
from pellucid.families._read import grouped_heads, read_rope
from pellucid.spec import Block, Embed, LmHead, PreNorm, QkNorm, Spec
from pellucid.weights.table import over

CLASSES = classes("NanoChat", "causal-lm") | {"pretraining": "NanoChatForCausalLM"}
DEFAULTS = {
    "vocab_size": 50304, "hidden_size": 768, "intermediate_size": 8192, "num_hidden_layers": 12,
    "num_attention_heads": 6, "num_key_value_heads": None, "max_position_embeddings": 2048, "hidden_act": "relu2",
    "attention_dropout": 0.0, "rms_norm_eps": 1e-6, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 10000.0, "final_logit_softcapping": 15.0, "attention_bias": False, "bos_token_id": 0,
    "eos_token_id": 1, "pad_token_id": 1, "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS = over(LLAMA, {
    "model.layers.{i}.mlp.fc1.weight": "blocks.{i}.mlp.up.weight",
    "model.layers.{i}.mlp.fc2.weight": "blocks.{i}.mlp.down.weight",
})  # fmt: skip


def spec(c: Config) -> Spec:
    norm = rms(c, weight=False)
    rope = read_rope(c, grouped_heads(c)[2], backwards=True)
    attn = attention(c, rope=rope, qk_norm=QkNorm(norm=norm, after_rope=True))
    block = Block(attn=attn, mlp=plain_mlp(c), order=PreNorm(norm=norm))
    head = LmHead(tied=c.tie_word_embeddings, cap=c.number("final_logit_softcapping", float, least=1e-6, null=None))
    blocks, embed = [block] * c.layers("num_hidden_layers"), Embed(vocab=c.size("vocab_size"), norm=norm)
    return decoder(c, "nanochat", blocks, norm=norm, embed=embed, head=head)
