"""XLM. Paper: arXiv 1901.07291."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.spec import (
    Attention,
    Block,
    ChoiceHead,
    Custom,
    Dense,
    Embed,
    LayerNorm,
    LearnedPositions,
    LmHead,
    Mlp,
    Pool,
    PostNorm,
    PreNorm,
    SequenceHead,
    SpanHead,
    Spec,
    Stack,
    TokenHead,
)  # fmt: skip
from pellucid.weights.table import OTHER_HEAD, Entry, Recomputed, Unused

CLASSES = {
    None: "XLMModel", "masked-lm": "XLMWithLMHeadModel", "causal-lm": "XLMWithLMHeadModel",
    "sequence-classification": "XLMForSequenceClassification", "token-classification": "XLMForTokenClassification",
    "question-answering": "XLMForQuestionAnsweringSimple", "multiple-choice": "XLMForMultipleChoice",
    "text-encoding": "XLMModel",
}  # fmt: skip
DEFAULTS = {
    "vocab_size": 30145, "emb_dim": 2048, "n_layers": 12, "n_heads": 16, "dropout": 0.1, "attention_dropout": 0.1,
    "gelu_activation": True, "sinusoidal_embeddings": False, "causal": False, "asm": False, "n_langs": 1,
    "use_lang_emb": True, "max_position_embeddings": 512, "embed_init_std": 2048**-0.5, "layer_norm_eps": 1e-12,
    "init_std": 0.02, "unk_index": 3, "mask_index": 5, "is_encoder": True, "summary_type": "first",
    "summary_use_proj": True, "summary_activation": None, "summary_proj_to_labels": True,
    "summary_first_dropout": 0.1, "start_n_top": 5, "end_n_top": 5, "mask_token_id": 0, "lang_id": 0,
    "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {
    "hidden_size": "emb_dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers",
    "n_words": "vocab_size", "bos_index": "bos_token_id", "eos_index": "eos_token_id", "pad_index": "pad_token_id",
}  # fmt: skip
IGNORED = {
    "asm": (False,), "is_encoder": (True,),
    "sinusoidal_embeddings": None,  # the file has the table
    "unk_index": None, "mask_index": None, "lang_id": None, "embed_init_std": None, "share_inout_emb": (True,),
    "start_n_top": None, "end_n_top": None,  # of a search for answers
}  # fmt: skip

BASE = "transformer."
# Another class for questions, which searches for the best pairs of a beginning and an end.
SEARCH: dict[str, Entry] = {
    f"qa_outputs.{part}.*": Unused(OTHER_HEAD) for part in ("start_logits", "end_logits", "answer_class")
}
WEIGHTS: dict[str, Entry] = {
    "transformer.embeddings.weight": "embed.tokens.weight",
    "transformer.position_embeddings.weight": "embed.positions.weight",
    "transformer.position_ids": Recomputed("position ids"),
    "transformer.lang_embeddings.weight": "embed.features.weight",
    "transformer.layer_norm_emb.{p}": "embed.norm.{p}",
    "transformer.attentions.{i}.q_lin.{p}": "blocks.{i}.attn.q.{p}",
    "transformer.attentions.{i}.k_lin.{p}": "blocks.{i}.attn.k.{p}",
    "transformer.attentions.{i}.v_lin.{p}": "blocks.{i}.attn.v.{p}",
    "transformer.attentions.{i}.out_lin.{p}": "blocks.{i}.attn.o.{p}",
    "transformer.layer_norm1.{i}.{p}": "blocks.{i}.attn_norm.{p}",
    "transformer.ffns.{i}.lin1.{p}": "blocks.{i}.mlp.up.{p}",
    "transformer.ffns.{i}.lin2.{p}": "blocks.{i}.mlp.down.{p}",
    "transformer.layer_norm2.{i}.{p}": "blocks.{i}.mlp_norm.{p}",
    "pred_layer.proj.{p}": "lm_head.out.{p}",
    "classifier.{p}": "classifier.out.{p}",
    "qa_outputs.{p}": "span.out.{p}",
    **SEARCH,
}
HEADS = {
    "sequence-classification": {"sequence_summary.summary.{p}": "classifier.out.{p}"},
    "multiple-choice": {
        "sequence_summary.summary.{p}": "classifier.dense.{p}", "logits_proj.{p}": "classifier.out.{p}",
    },
}  # fmt: skip
POOLS: dict[str, Pool] = {"first": "first", "last": "last", "cls_index": "last", "mean": "mean"}


def spec(c: Config) -> Spec:
    return encoder(c, "xlm")


def encoder(c: Config, family: str) -> Spec:
    """XLM, and Flaubert, which has its name and may have its norms before the sublayers."""
    width, heads, dropout = c.size("emb_dim"), c.size("n_heads"), c.share("dropout")
    if width % heads:
        raise ConfigError(
            f"emb_dim={width} is no multiple of n_heads={heads}", where=c.where, next="correct config.json"
        )
    norm = LayerNorm(eps=c.number("layer_norm_eps", float))
    attn = Attention(
        heads=heads, kv_heads=heads, head_dim=width // heads, scale=(width // heads) ** -0.5, causal=c.causal,
        biases="qkvo", dropout=c.share("attention_dropout"),
    )  # fmt: skip
    mlp = Mlp(hidden=4 * width, act="gelu" if c.gelu_activation else "relu", gated=False, bias=True)
    order = PreNorm(norm=norm) if c.get("pre_norm") else PostNorm(norm=norm)
    langs, positions, labels = c.size("n_langs"), c.size("max_position_embeddings"), c.size("num_labels")
    spoken = c.use_lang_emb and langs > 1
    languages = Custom(path="pellucid.families.xlm.languages:Languages", options=(("rows", langs),))
    if c.summary_type not in POOLS or not c.summary_use_proj or not c.summary_proj_to_labels or c.summary_activation:
        what = f"a summary with type {c.summary_type!r}, activation {c.summary_activation!r} or no projection to labels"
        raise ConfigError(what, where=c.where, next=f"known: {', '.join(POOLS)}, projected, without activation")
    pool, rest = POOLS[c.summary_type], c.share("summary_first_dropout")
    return Spec(
        family=family,
        stack=Stack(
            width=width, norm=None, inputs=("langs",),
            embed=Embed(
                vocab=c.size("vocab_size"), positions=LearnedPositions(rows=positions), norm=norm, dropout=dropout,
                features=languages if spoken else None,
            ),
            blocks=(Block(attn=attn, mlp=mlp, order=order, dropout=dropout),) * c.layers("n_layers"),
        ),
        heads={
            "masked-lm": LmHead(tied=c.tie_word_embeddings, bias=True),
            "sequence-classification": SequenceHead(labels=labels, pool=pool, dropout=rest),
            "token-classification": TokenHead(labels=labels, dropout=dropout),
            "question-answering": SpanHead(),
            "multiple-choice": ChoiceHead(pool=pool, hidden=Dense(act="linear", width=labels), dropout=rest),
        },
        context=positions,
    )  # fmt: skip
