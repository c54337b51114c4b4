"""ESM-1b and ESM-2: protein language models. Papers: 10.1073/pnas.2016239118, 10.1126/science.ade2574."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import under
from pellucid.families._encoder import (
    BERT,
    HIDDEN,
    ROBERTA,
    attention,
    classes,
    counted,
    encoder,
    head_size,
    layer_norm,
)
from pellucid.spec import (
    Block,
    Custom,
    Dense,
    Embed,
    LmHead,
    Mlp,
    PreNorm,
    Rope,
    SequenceHead,
    Spec,
    TokenHead,
    Transform,
)  # fmt: skip
from pellucid.weights.table import Recomputed, Unused

CLASSES = classes("Esm", "masked-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "vocab_size": None, "mask_token_id": None, "pad_token_id": None, "hidden_size": 768, "num_hidden_layers": 12,
    "num_attention_heads": 12, "intermediate_size": 3072, "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 1026, "rope_theta": 10000.0,
    "layer_norm_eps": 1e-12, "position_embedding_type": "absolute", "emb_layer_norm_before": None,
    "token_dropout": False, "is_decoder": False, "tie_word_embeddings": True,
}  # fmt: skip
IGNORED = {
    "hidden_act": None,  # GELU, whatever it says
    "is_decoder": (False,), "add_cross_attention": (False,), "is_folding_model": (False,), "esmfold_config": None,
    "vocab_list": None,
}  # fmt: skip

BASE = "esm."
WEIGHTS = (
    {
        "esm.embeddings.layer_norm.{p}": "embed.norm.{p}",
        "esm.encoder.layer.{i}.attention.LayerNorm.{p}": "blocks.{i}.attn_norm.{p}",
        "esm.encoder.layer.{i}.LayerNorm.{p}": "blocks.{i}.mlp_norm.{p}",
        "esm.encoder.emb_layer_norm_after.{p}": "norm.{p}",
        "esm.rotary_embeddings.inv_freq": Recomputed("inverse frequencies"),
        "esm.encoder.layer.*.attention.self.rotary_embeddings.inv_freq": Recomputed("inverse frequencies", kept=True),
        "esm.encoder.layer.{i}.attention.self.rotary_embeddings.inv_freq": Recomputed("inverse frequencies"),
        "esm.contact_head.regression.{p}": Unused("predicts which residues touch, from attention patterns", kept=True),
    }
    | under(BASE, BERT, "bert.")
    | ROBERTA
)
HEADS = HIDDEN


def spec(c: Config) -> Spec:
    kind = c.position_embedding_type
    if kind not in ("absolute", "rotary"):
        raise ConfigError(f"position_embedding_type={kind!r}", where=c.where, next="use 'absolute' or 'rotary'")
    (_, head_dim), norm = head_size(c), layer_norm(c)
    rope = Rope(theta=c.number("rope_theta", float, least=1), dim=head_dim)
    turned = rope if kind == "rotary" else None
    masked = Custom(path="pellucid.families.esm.masked:Masked", options=(("mask", c.number("mask_token_id", null=-1)),))
    embed = Embed(
        vocab=c.size("vocab_size"), positions=None if turned else counted(c),
        norm=norm if c.emb_layer_norm_before else None, change=masked if c.token_dropout else None,
    )  # fmt: skip
    mlp, drop = Mlp(hidden=c.size("intermediate_size"), act="gelu", gated=False, bias=True), c.hidden_dropout_prob
    block = Block(attn=attention(c, rope=turned, causal=False), mlp=mlp, order=PreNorm(norm=norm), dropout=drop)
    lm = LmHead(tied=c.tie_word_embeddings, bias=True, transform=Transform(act="gelu", norm=norm))
    labels = c.size("num_labels")
    return encoder(
        c, "esm", [block] * c.layers("num_hidden_layers"), embed=embed, norm=norm,
        heads={
            "masked-lm": lm,
            "sequence-classification": SequenceHead(
                labels=labels, pool="first", hidden=Dense(act="tanh"), dropout=drop
            ),
            "token-classification": TokenHead(labels=labels, dropout=drop),
        },
        context=c.size("max_position_embeddings") if turned else None,
    )  # fmt: skip
