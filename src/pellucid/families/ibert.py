"""I-BERT, as it is before its weights are made whole numbers: RoBERTa. Paper: arXiv 2101.01321."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import roberta
from pellucid.families._decoder import under
from pellucid.families._encoder import USUAL, classes
from pellucid.spec import Spec
from pellucid.weights.table import Entry, Unused

CLASSES = classes("IBert", *USUAL, pretraining="masked-lm", encoding=True)
DEFAULTS = roberta.DEFAULTS | {"vocab_size": 30522, "quant_mode": False, "force_dequant": "none"}
IGNORED = roberta.IGNORED | {
    "quant_mode": (False,),  # arithmetic in whole numbers
    "force_dequant": None,  # parts that leave it again
    "is_decoder": (False,),
}  # fmt: skip

BASE = "ibert."
LAYER = "ibert.encoder.layer.{i}."
SELF = f"{LAYER}attention.self."
# What the arithmetic in whole numbers knows of each part.
KNOWN = {
    ("act_scaling_factor", "x_max", "x_min"): (
        "ibert.embeddings.LayerNorm.activation", "ibert.embeddings.embeddings_act1",
        "ibert.embeddings.embeddings_act2", "ibert.embeddings.output_activation",
        *(f"{SELF}{name}_activation" for name in ("query", "key", "value", "output")), f"{SELF}softmax.act",
        *(
            f"{LAYER}{part}.{name}"
            for part in ("attention.output", "output")
            for name in ("LayerNorm.activation", "ln_input_act", "output_activation")
        ),
        f"{LAYER}intermediate.output_activation", f"{LAYER}pre_intermediate_act", f"{LAYER}pre_output_act",
    ),
    ("shift",): (f"{LAYER}attention.output.LayerNorm", f"{LAYER}output.LayerNorm", "ibert.embeddings.LayerNorm"),
    ("weight_integer", "weight_scaling_factor"): (
        "ibert.embeddings.word_embeddings", "ibert.embeddings.position_embeddings",
        "ibert.embeddings.token_type_embeddings",
    ),
    ("weight_integer", "bias_integer", "fc_scaling_factor"): (
        f"{SELF}query", f"{SELF}key", f"{SELF}value", f"{LAYER}attention.output.dense", f"{LAYER}intermediate.dense",
        f"{LAYER}output.dense",
    ),
}  # fmt: skip
WHOLE: dict[str, Entry] = {
    f"{part}.{name}": Unused("for arithmetic in whole numbers", kept=True)
    for names, parts in KNOWN.items()
    for part in parts
    for name in names
}
WEIGHTS = under(BASE, roberta.WEIGHTS, roberta.BASE) | WHOLE
HEADS = roberta.HEADS


def spec(c: Config) -> Spec:
    if c.hidden_act != "gelu":
        raise ConfigError(f"hidden_act={c.hidden_act!r}", where=c.where, next="I-BERT knows 'gelu' alone")
    return roberta.roberta(c, "ibert")
