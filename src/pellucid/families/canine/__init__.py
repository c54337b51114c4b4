"""CANINE. Paper: arXiv 2103.06874."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._encoder import LABELS, LAYERS, attention, classes, encoder, heads, idle, layer_norm, mlp
from pellucid.families._read import activation
from pellucid.spec import Block, Custom, Embed, LearnedPositions, LmHead, PostNorm, Spec
from pellucid.weights.table import Entry, Recomputed

CLASSES = classes(
    "Canine", "sequence-classification", "token-classification", "question-answering", "multiple-choice"
)  # fmt: skip
DEFAULTS = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 16384, "type_vocab_size": 16, "layer_norm_eps": 1e-12, "pad_token_id": 0,
    "bos_token_id": 0xE000, "eos_token_id": 0xE001, "downsampling_rate": 4, "upsampling_kernel_size": 4,
    "num_hash_functions": 8, "num_hash_buckets": 16384, "local_transformer_stride": 128,
}  # fmt: skip
CHARACTERS = 0x110000  # of Unicode

BASE = "canine."


def layers(file: str, slot: str) -> dict[str, Entry]:
    """BERT's names, in one of the three stacks."""
    return {
        name.replace("bert.encoder.layer.{i}", f"canine.{file}"): str(entry).replace("blocks.{i}", f"body.{slot}")
        for name, entry in LAYERS.items()
    }


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    tables = range(c.size("num_hash_functions"))
    return {
        **{
            f"canine.char_embeddings.HashBucketCodepointEmbedder_{i}.weight": f"embed.tokens.tables.{i}.weight"
            for i in tables
        },
        "canine.char_embeddings.char_position_embeddings.weight": "embed.positions.weight",
        "canine.char_embeddings.token_type_embeddings.weight": "embed.types.weight",
        "canine.char_embeddings.LayerNorm.{p}": "embed.norm.{p}",
        "canine.char_embeddings.position_ids": Recomputed("position ids"),
        **layers("initial_char_encoder.layer.0", "initial"),
        **layers("encoder.layer.{i}", "deep.{i}"),
        **layers("final_char_encoder.layer.0", "final"),
        "canine.chars_to_molecules.conv.{p}": "body.down.{p}",
        "canine.chars_to_molecules.LayerNorm.{p}": "body.down_norm.{p}",
        "canine.projection.conv.{p}": "body.up.{p}",
        "canine.projection.LayerNorm.{p}": "body.up_norm.{p}",
        "canine.pooler.dense.{p}": "pooler.dense.{p}",
        **LABELS,
    }


HEADS = idle("canine.pooler.dense", "token-classification", "question-answering")


def spec(c: Config) -> Spec:
    width, hashes, buckets = c.size("hidden_size"), c.size("num_hash_functions"), c.size("num_hash_buckets")
    if width % hashes or hashes > 16:
        what = f"num_hash_functions={hashes} for hidden_size={width}"
        raise ConfigError(what, where=c.where, next="up to 16, and a divisor of hidden_size")
    norm, dropout = layer_norm(c), c.share("hidden_dropout_prob")
    block = Block(attn=attention(c), mlp=mlp(c), order=PostNorm(norm=norm), dropout=dropout)
    body = Custom(path="pellucid.families.canine.body:Canine", options=(
        ("initial", replace(block, attn=attention(c, chunk=c.size("local_transformer_stride")))),
        ("deep", (block,) * c.layers("num_hidden_layers")), ("final", block), ("rate", c.size("downsampling_rate")),
        ("kernel", c.size("upsampling_kernel_size")), ("act", activation(c.hidden_act, c)), ("norm", norm),
        ("dropout", dropout),
    ))  # fmt: skip
    hashed = Custom(
        path="pellucid.families.canine.body:HashedCharacters", options=(("hashes", hashes), ("buckets", buckets))
    )
    rows = c.size("max_position_embeddings")
    if rows > buckets:
        what = f"max_position_embeddings={rows}, and the table has num_hash_buckets={buckets} rows"
        raise ConfigError(what, where=c.where, next="correct config.json")
    embed = Embed(
        vocab=CHARACTERS, tokens=hashed, positions=LearnedPositions(rows=buckets), norm=norm, dropout=dropout,
        token_types=c.size("type_vocab_size"),
    )  # fmt: skip
    return encoder(c, "canine", (), embed=embed, body=body, heads=heads(c, LmHead(tied=False)), context=rows)
