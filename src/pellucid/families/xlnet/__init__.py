"""XLNet: its stream that reads. Paper: arXiv 1906.08237."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._read import activation
from pellucid.families.xlm import SEARCH
from pellucid.spec import (
    Block,
    ChoiceHead,
    Custom,
    Dense,
    Embed,
    LayerNorm,
    LmHead,
    Mlp,
    Pool,
    PostNorm,
    SequenceHead,
    SpanHead,
    Spec,
    Stack,
    TokenHead,
)  # fmt: skip
from pellucid.weights.table import Entry, Folded, Transposed, Unused

CLASSES = {
    None: "XLNetModel", "pretraining": "XLNetLMHeadModel", "causal-lm": "XLNetLMHeadModel",
    "sequence-classification": "XLNetForSequenceClassification",
    "token-classification": "XLNetForTokenClassification", "question-answering": "XLNetForQuestionAnsweringSimple",
    "multiple-choice": "XLNetForMultipleChoice",
}  # fmt: skip
DEFAULTS = {
    "vocab_size": 32000, "d_model": 1024, "n_layer": 24, "n_head": 16, "d_inner": 4096, "d_head": None,
    "ff_activation": "gelu", "attn_type": "bi", "layer_norm_eps": 1e-12, "dropout": 0.1, "mem_len": 512,
    "reuse_len": None, "use_mems_eval": True, "use_mems_train": False, "bi_data": False, "clamp_len": None,
    "same_length": False, "summary_type": "last", "summary_use_proj": True, "summary_activation": "tanh",
    "summary_last_dropout": 0.1, "start_n_top": 5, "end_n_top": 5, "pad_token_id": 5, "bos_token_id": 1,
    "eos_token_id": 2, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {
    "n_token": "vocab_size", "hidden_size": "d_model", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer",
}  # fmt: skip
IGNORED = {
    "bi_data": (False,), "same_length": (False,), "untie_r": (True,),
    "mem_len": None, "reuse_len": None, "use_mems_eval": None, "use_mems_train": None,  # of texts read in segments
    "start_n_top": None, "end_n_top": None,  # of a search for answers
}  # fmt: skip
POOLS: dict[str, Pool] = {"first": "first", "last": "last", "cls_index": "last", "mean": "mean"}

BASE = "transformer."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    layer, block = "transformer.layer.{i}.", "blocks.{i}."
    heads = c.size("n_head")
    return {
        "transformer.word_embedding.weight": "embed.tokens.weight",
        "transformer.mask_emb": Unused("begins the stream that asks, which is not built", kept=True),
        **{f"{layer}rel_attn.{x}": Folded(Transposed(f"{block}attn.{x}.weight"), heads) for x in "qkv"},
        f"{layer}rel_attn.o": Folded(f"{block}attn.o.weight", heads),
        f"{layer}rel_attn.r": Folded(Transposed(f"{block}attn.relative.r.weight"), heads),
        f"{layer}rel_attn.r_w_bias": f"{block}attn.relative.content",
        f"{layer}rel_attn.r_r_bias": f"{block}attn.relative.place",
        f"{layer}rel_attn.r_s_bias": f"{block}attn.relative.segment",
        f"{layer}rel_attn.seg_embed": f"{block}attn.relative.segments",
        f"{layer}rel_attn.layer_norm.{{p}}": f"{block}attn_norm.{{p}}",
        f"{layer}ff.layer_1.{{p}}": f"{block}mlp.up.{{p}}",
        f"{layer}ff.layer_2.{{p}}": f"{block}mlp.down.{{p}}",
        f"{layer}ff.layer_norm.{{p}}": f"{block}mlp_norm.{{p}}",
        "lm_loss.{p}": "lm_head.out.{p}",
        "classifier.{p}": "classifier.out.{p}",
        "qa_outputs.{p}": "span.out.{p}",
        **SEARCH,
    }


SUMMARY: dict[str, Entry] = {
    "sequence_summary.summary.{p}": "classifier.dense.{p}", "logits_proj.{p}": "classifier.out.{p}",
}  # fmt: skip
HEADS = {"sequence-classification": SUMMARY, "multiple-choice": SUMMARY}


def spec(c: Config) -> Spec:
    width, heads, dropout = c.size("d_model"), c.size("n_head"), c.share("dropout")
    if width % heads or width % 2 or c.size("d_head", null=width // heads) != width // heads:
        what = f"d_model={width} in n_head={heads} heads of d_head={c.d_head} channels, and in pairs for the positions"
        raise ConfigError(what, where=c.where, next="correct config.json")
    if c.attn_type not in ("bi", "uni"):
        raise ConfigError(f"attn_type={c.attn_type!r}", where=c.where, next="known: bi, uni")
    if c.summary_type not in POOLS or not c.summary_use_proj:
        what = f"a summary of type {c.summary_type!r}, projected: {c.summary_use_proj}"
        raise ConfigError(what, where=c.where, next=f"known: {', '.join(POOLS)}, projected")
    clamp = c.number("clamp_len", least=-1, null=-1)
    attn = Custom(path="pellucid.families.xlnet.attention:XlnetAttention", options=(
        ("heads", heads), ("head_dim", width // heads), ("dropout", dropout), ("clamp", clamp if clamp > 0 else None),
        ("backward", c.attn_type == "uni"),
    ))  # fmt: skip
    mlp = Mlp(hidden=c.size("d_inner"), act=activation(c.ff_activation, c), gated=False, bias=True, dropout=dropout)
    norm = LayerNorm(eps=c.number("layer_norm_eps", float))
    block = Block(attn=attn, mlp=mlp, order=PostNorm(norm=norm), dropout=dropout)
    pool, last, labels = POOLS[c.summary_type], c.share("summary_last_dropout"), c.size("num_labels")
    summary = Dense(act=activation(c.summary_activation or "linear", c), drop_first=False)
    return Spec(
        family="xlnet",
        stack=Stack(
            width=width, embed=Embed(vocab=c.size("vocab_size"), dropout=dropout), norm=None, dropout=dropout,
            blocks=(block,) * c.layers("n_layer"), inputs=("token_type_ids",),
        ),
        heads={
            "pretraining": LmHead(tied=c.tie_word_embeddings, bias=True),
            "sequence-classification": SequenceHead(labels=labels, pool=pool, hidden=summary, dropout=last),
            "token-classification": TokenHead(labels=labels),
            "question-answering": SpanHead(),
            "multiple-choice": ChoiceHead(pool=pool, hidden=summary, dropout=last),
        },
    )  # fmt: skip
