"""TAPAS: questions about tables. Paper: arXiv 2004.02349."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import BERT, CLS, classes, embedding, encoder, heads, lm_head
from pellucid.spec import Custom, LearnedPositions, Pooling, Spec, Task
from pellucid.weights.table import Entry

CLASSES = classes("Tapas", "masked-lm", "sequence-classification", pretraining="masked-lm") | {
    "table-question-answering": "TapasForQuestionAnswering",
}  # fmt: skip
DEFAULTS = {key: value for key, value in shared.DEFAULTS.items() if key != "type_vocab_size"} | {
    "max_position_embeddings": 1024, "type_vocab_sizes": [3, 256, 256, 2, 256, 256, 10],
    "reset_position_index_per_cell": True, "num_aggregation_labels": 0, "temperature": 1.0, "max_num_rows": 64,
    "max_num_columns": 32, "allow_empty_column_selection": False, "aggregation_labels": None,
    "no_aggregation_label_index": None,
}  # fmt: skip
IGNORED = shared.IGNORED | {
    "type_vocab_size": None,  # the same list under an older name
    "average_logits_per_cell": (False,), "select_one_column": (True,), "disable_per_token_loss": (False,),
} | dict.fromkeys((  # of training
    "positive_label_weight", "aggregation_loss_weight", "use_answer_as_supervision", "answer_loss_importance",
    "use_normalized_answer_loss", "huber_loss_delta", "aggregation_temperature", "use_gumbel_for_cells",
    "use_gumbel_for_aggregation", "average_approximation_function", "cell_selection_preference",
    "answer_loss_cutoff", "init_cell_selection_weights_to_zero", "aggregation_labels", "no_aggregation_label_index",
))  # fmt: skip

BASE = "tapas."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    at = "embed.features.positions.weight" if c.reset_position_index_per_cell else "embed.positions.weight"
    kinds = range(len(c.type_vocab_sizes))
    return {
        **under("tapas.", BERT, "bert."),
        **CLS,
        "tapas.embeddings.position_embeddings.weight": at,
        **{f"tapas.embeddings.token_type_embeddings_{i}.weight": f"embed.features.types.{i}.weight" for i in kinds},
    }


HEADS: dict[Task | None, dict[str, Entry]] = {
    "table-question-answering": {
        "tapas.pooler.dense.{p}": "head.pooler.dense.{p}", "output_weights": "head.token",
        "output_bias": "head.token_bias", "column_output_weights": "head.column",
        "column_output_bias": "head.column_bias", "aggregation_classifier.{p}": "head.operation.{p}",
    },
}  # fmt: skip


def spec(c: Config) -> Spec:
    kinds, rows, anew = c.type_vocab_sizes, c.size("max_position_embeddings"), c.reset_position_index_per_cell
    if not isinstance(kinds, list) or len(kinds) < 3 or not all(type(n) is int and 1 <= n <= 2**16 for n in kinds):
        raise ConfigError(
            f"type_vocab_sizes={kinds!r}", where=c.where, next="a list of counts: segment, column, row, …"
        )
    places = Custom(
        path="pellucid.families.tapas.tables:TablePlaces",
        options=(("types", tuple(kinds)), ("positions", rows if anew else None)),
    )
    positions = None if anew else LearnedPositions(rows=rows)
    embed = embedding(c, positions=positions, token_types=0, features=places)
    cells = Custom(path="pellucid.families.tapas.cells:Cells", options=(
        ("rows", c.size("max_num_rows")), ("columns", c.size("max_num_columns")), ("pooler", Pooling(act="tanh")),
        ("operations", c.number("num_aggregation_labels")), ("nothing", c.allow_empty_column_selection),
        ("temperature", c.number("temperature", float, least=1e-6)),
    ))  # fmt: skip
    found = heads(c, lm_head(c)) | {"table-question-answering": cells}
    return encoder(c, "tapas", embed=embed, heads=found, inputs=("token_type_ids",))
