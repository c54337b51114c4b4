"""GPT. Paper: Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training"."""

from pellucid.config import Config
from pellucid.families._decoder import attention, decoder, layer_norm
from pellucid.families._read import activation
from pellucid.families.gpt2 import WEIGHTS as GPT2
from pellucid.spec import Block, Embed, LearnedPositions, Mlp, PostNorm, Spec
from pellucid.weights.table import Entry, Recomputed, Unused, over

CLASSES = {
    None: "OpenAIGPTModel", "causal-lm": "OpenAIGPTLMHeadModel",
    "sequence-classification": "OpenAIGPTForSequenceClassification",
    "pretraining": "OpenAIGPTLMHeadModel",
}  # fmt: skip
DEFAULTS = {
    "vocab_size": 40478, "n_positions": 512, "n_embd": 768, "n_layer": 12, "n_head": 12, "afn": "gelu",
    "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1, "layer_norm_epsilon": 1e-5, "pad_token_id": None,
    "bos_token_id": None, "eos_token_id": None, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {
    "max_position_embeddings": "n_positions", "hidden_size": "n_embd", "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer", "attention_dropout": "attn_pdrop",
}  # fmt: skip
IGNORED = {"n_special": None, "predict_special_tokens": None}

BASE = "transformer."
WEIGHTS: dict[str, Entry] = over(GPT2, {
    "transformer.tokens_embed.weight": "embed.tokens.weight",
    "transformer.positions_embed.weight": "embed.positions.weight",
    "transformer.position_ids": Recomputed("position ids"),
    "multiple_choice_head.*": Unused("a head over several texts, of the task it was tuned on"),
})  # fmt: skip
ACTIVATIONS = {"gelu": "gelu_new"}  # its GELU was the tanh form


def spec(c: Config) -> Spec:
    norm, width = layer_norm(c, "layer_norm_epsilon"), c.size("n_embd")
    mlp = Mlp(hidden=4 * width, act=activation(ACTIVATIONS.get(c.afn, c.afn), c), gated=False, bias=True)
    attn = attention(c, rope=None, biases="qkvo")
    block = Block(attn=attn, mlp=mlp, order=PostNorm(norm=norm), dropout=c.share("resid_pdrop"))
    positions = LearnedPositions(rows=c.size("n_positions"))
    embed = Embed(vocab=c.size("vocab_size"), positions=positions, dropout=c.share("embd_pdrop"))
    return decoder(c, "openai-gpt", [block] * c.layers("n_layer"), norm=None, embed=embed)
