"""MarkupLM: text with its place in a page. Paper: arXiv 2110.08518."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import BERT, LABELS, classes, counted, embedding, encoder, heads
from pellucid.spec import Custom, LmHead, Spec
from pellucid.weights.table import Entry, Row, Unused

CLASSES = classes("MarkupLM", "sequence-classification", "token-classification", "question-answering")
DEFAULTS = shared.DEFAULTS | {
    "bos_token_id": 0, "eos_token_id": 2, "max_xpath_tag_unit_embeddings": 256,
    "max_xpath_subs_unit_embeddings": 1024, "tag_pad_id": 216, "subs_pad_id": 1001, "xpath_unit_hidden_size": 32,
    "max_depth": 50,
}  # fmt: skip
IGNORED = shared.IGNORED | {"max_tree_id_unit_embeddings": None, "tree_id_pad_id": None}  # the path says it all

BASE = "markuplm."
PATHS = "markuplm.embeddings.xpath_embeddings"
WEIGHTS: dict[str, Entry] = {
    **under("markuplm.", BERT, "bert."),
    **LABELS,
    f"{PATHS}.xpath_tag_sub_embeddings.{{e}}.weight": Row("embed.features.tags"),
    f"{PATHS}.xpath_subs_sub_embeddings.{{e}}.weight": Row("embed.features.subscripts"),
    f"{PATHS}.xpath_unitseq2_inner.{{p}}": "embed.features.up.{p}",
    f"{PATHS}.inner2emb.{{p}}": "embed.features.down.{p}",
    f"{PATHS}.xpath_unitseq2_embeddings.{{p}}": Unused("a shorter way that the model does not take", kept=True),
}


def spec(c: Config) -> Spec:
    tags, subscripts = c.size("max_xpath_tag_unit_embeddings"), c.size("max_xpath_subs_unit_embeddings")
    pads = c.number("tag_pad_id"), c.number("subs_pad_id")
    if pads[0] >= tags or pads[1] >= subscripts:
        what = f"tag_pad_id={pads[0]} of {tags} tags, subs_pad_id={pads[1]} of {subscripts} subscripts"
        raise ConfigError(what, where=c.where, next="correct config.json")
    paths = Custom(path="pellucid.families.markuplm.paths:Paths", options=(
        ("depth", c.size("max_depth")), ("tags", tags), ("subscripts", subscripts), ("pads", pads),
        ("unit", c.size("xpath_unit_hidden_size")), ("dropout", c.share("hidden_dropout_prob")),
    ))  # fmt: skip
    embed = embedding(c, positions=counted(c), features=paths)
    inputs = ("xpath_tags_seq", "xpath_subs_seq")
    return encoder(c, "markuplm", embed=embed, heads=heads(c, LmHead(tied=False)), inputs=inputs)
