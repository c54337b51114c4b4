"""BERT. Paper: arXiv 1810.04805."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._read import activation
from pellucid.spec import (
    Attention,
    Block,
    Embed,
    LayerNorm,
    LearnedPositions,
    LmHead,
    Mlp,
    PostNorm,
    SequenceHead,
    SpanHead,
    Spec,
    Stack,
    TokenHead,
    Transform,
)  # fmt: skip
from pellucid.weights.table import Recomputed

CLASSES = {
    None: "BertModel", "masked-lm": "BertForMaskedLM", "sequence-classification": "BertForSequenceClassification",
    "token-classification": "BertForTokenClassification", "question-answering": "BertForQuestionAnswering",
}  # fmt: skip
DEFAULTS = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0,
    "classifier_dropout": None, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES: dict[str, str] = {}
IGNORED = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    # written by Google for a pooler that no released code has
    "directionality": None, "pooler_fc_size": None, "pooler_num_attention_heads": None, "pooler_num_fc_layers": None,
    "pooler_size_per_head": None, "pooler_type": None,
}  # fmt: skip

BASE = "bert."
WEIGHTS = {
    "bert.embeddings.word_embeddings.weight": "embed.tokens.weight",
    "bert.embeddings.position_embeddings.weight": "embed.positions.weight",
    "bert.embeddings.token_type_embeddings.weight": "embed.types.weight",
    "bert.embeddings.LayerNorm.{p}": "embed.norm.{p}",
    "bert.encoder.layer.{i}.attention.self.query.{p}": "blocks.{i}.attn.q.{p}",
    "bert.encoder.layer.{i}.attention.self.key.{p}": "blocks.{i}.attn.k.{p}",
    "bert.encoder.layer.{i}.attention.self.value.{p}": "blocks.{i}.attn.v.{p}",
    "bert.encoder.layer.{i}.attention.output.dense.{p}": "blocks.{i}.attn.o.{p}",
    "bert.encoder.layer.{i}.attention.output.LayerNorm.{p}": "blocks.{i}.attn_norm.{p}",
    "bert.encoder.layer.{i}.intermediate.dense.{p}": "blocks.{i}.mlp.up.{p}",
    "bert.encoder.layer.{i}.output.dense.{p}": "blocks.{i}.mlp.down.{p}",
    "bert.encoder.layer.{i}.output.LayerNorm.{p}": "blocks.{i}.mlp_norm.{p}",
    "bert.pooler.dense.{p}": "pooler.dense.{p}",
    "cls.predictions.transform.dense.{p}": "lm_head.transform.dense.{p}",
    "cls.predictions.transform.LayerNorm.{p}": "lm_head.transform.norm.{p}",
    "cls.predictions.decoder.weight": "lm_head.out.weight",
    "cls.predictions.bias": "lm_head.out.bias",
    "cls.predictions.decoder.bias": "lm_head.out.bias",
    "cls.seq_relationship.{p}": "next_sentence.out.{p}",
    "classifier.{p}": "classifier.out.{p}",
    "qa_outputs.{p}": "span.out.{p}",
    "bert.embeddings.position_ids": Recomputed("position ids"),
}


def spec(c: Config) -> Spec:
    width, heads = c.size("hidden_size"), c.size("num_attention_heads")
    if width % heads:
        what = f"hidden_size={width} is no multiple of num_attention_heads={heads}"
        raise ConfigError(what, where=c.where, next="correct config.json")
    norm, act = LayerNorm(eps=c.number("layer_norm_eps", float)), activation(c.hidden_act, c)
    dropout = c.share("hidden_dropout_prob")
    attn = Attention(
        heads=heads, kv_heads=heads, head_dim=width // heads, scale=(width // heads) ** -0.5, causal=False,
        biases="qkvo", dropout=c.share("attention_probs_dropout_prob"),
    )  # fmt: skip
    mlp = Mlp(hidden=c.size("intermediate_size"), act=act, gated=False, bias=True)
    before_labels = c.share("classifier_dropout", null=dropout)
    positions = c.size("max_position_embeddings")
    return Spec(
        family="bert",
        stack=Stack(
            width=width, norm=None,
            embed=Embed(
                vocab=c.size("vocab_size"), positions=LearnedPositions(rows=positions),
                token_types=c.size("type_vocab_size"), norm=norm, dropout=dropout,
            ),
            blocks=(Block(attn=attn, mlp=mlp, order=PostNorm(norm=norm), dropout=dropout),)
            * c.layers("num_hidden_layers"),
        ),
        pooler="tanh",
        heads={
            "masked-lm": LmHead(
                tied=c.tie_word_embeddings, bias=True, transform=Transform(act=act, norm=norm)
            ),
            "sequence-classification": SequenceHead(
                labels=c.size("num_labels"), pool="pooler", bias=True, dropout=before_labels
            ),
            "token-classification": TokenHead(labels=c.size("num_labels"), dropout=before_labels),
            "question-answering": SpanHead(),
        },
        context=positions,
    )  # fmt: skip
