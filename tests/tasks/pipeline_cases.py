"""What pipelines are asked in the parity tests. A new option is a row.

    MODELS   name -> family and task of a fixture, changes of its config, tokenizer (tests/data/tokenizers)
    CASES    name -> task, model, arguments of the call, its options, options of `pipeline(…)`

tests/record_pipelines.py asks version 4 of the reference and writes tests/data/pipelines_version_4.json.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Made(NamedTuple):
    """A checkpoint: tiny, loud, with the tokenizer of a real one."""

    family: str
    task: str | None
    changes: dict[str, Any]
    tokenizer: str


class Asked(NamedTuple):
    """One call of a pipeline."""

    task: str
    model: str
    inputs: tuple[Any, ...]
    options: dict[str, Any] = {}
    made: dict[str, Any] = {}
    version_4: bool = True  # whether both mean the same: the tokenizers of 4 count the space before a piece of T5's
    version_5: bool = True  # whether it has the task and the options


BERT = {"vocab_size": 30522, "max_position_embeddings": 512}
SHORT = {"vocab_size": 30522}  # 59 positions, which the tokenizer is told too
T5 = {"vocab_size": 32128}
NER = {"id2label": dict(enumerate(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]))}
NLI = {"id2label": dict(enumerate(["contradiction", "neutral", "entailment"]))}

MODELS = {
    "labels": Made("bert", "sequence-classification", BERT | {"num_labels": 5}, "bert-uncased"),
    "multi": Made(
        "bert", "sequence-classification", BERT | {"num_labels": 3, "problem_type": "multi_label_classification"},
        "bert-uncased",
    ),
    "one": Made("bert", "sequence-classification", BERT | {"num_labels": 1}, "bert-uncased"),
    "regression": Made(
        "bert", "sequence-classification", BERT | {"num_labels": 1, "problem_type": "regression"}, "bert-uncased"
    ),
    "nli": Made("bert", "sequence-classification", BERT | NLI, "bert-uncased"),
    "nli first": Made(
        "bert", "sequence-classification", BERT | {"id2label": dict(enumerate(["ENTAILMENT", "no"]))}, "bert-uncased"
    ),
    "tags": Made("bert", "token-classification", SHORT | NER, "bert-uncased"),
    "unigram tags": Made("t5", "token-classification", T5 | NER, "t5"),
    "spans": Made("bert", "question-answering", SHORT | {"num_labels": 2}, "bert-uncased"),
    "masks": Made("bert", "masked-lm", BERT, "bert-uncased"),
    "states": Made("bert", None, BERT, "bert-uncased"),
}  # fmt: skip

FOX = "The quick brown fox jumps over the lazy dog near Vladivostok."
KING = "Unbelievably, Queen Elisabethanne visited New York!"
LONG = " ".join(
    f"Station {i} lies behind Szczebrzeszyn, said Marie-Antoinette, and nobody knew {i * 7}." for i in range(9)
)
PAIR = {"text": FOX, "text_pair": KING}

CASES: dict[str, Asked] = {
    "classify": Asked("text-classification", "labels", (FOX,)),
    "classify, alias": Asked("sentiment-analysis", "labels", ([FOX, KING],)),
    "classify, empty": Asked("text-classification", "labels", ("",)),
    "classify, top_k": Asked("text-classification", "labels", (FOX,), {"top_k": 2}),
    "classify, top_k 1": Asked("text-classification", "labels", (FOX,), {"top_k": 1}),
    "classify, all": Asked("text-classification", "labels", ([FOX, KING],), {"top_k": None}),
    "classify, all by default": Asked("text-classification", "labels", (FOX,), {}, {"top_k": None}),
    "classify, more than there are": Asked("text-classification", "labels", ([FOX],), {"top_k": 50}),
    "classify, return_all_scores": Asked(
        "text-classification", "labels", (FOX,), {"return_all_scores": True}, version_5=False
    ),
    "classify, return no scores": Asked(
        "text-classification", "labels", ([FOX],), {"return_all_scores": False}, version_5=False
    ),
    "classify, sigmoid": Asked("text-classification", "labels", ([FOX],), {"function_to_apply": "sigmoid"}),
    "classify, none": Asked("text-classification", "labels", ([FOX],), {"function_to_apply": "none", "top_k": None}),
    "classify, softmax": Asked("text-classification", "multi", ([FOX],), {"function_to_apply": "softmax"}),
    "classify, multi label": Asked("text-classification", "multi", ([FOX, KING],), {"top_k": None}),
    "classify, one label": Asked("text-classification", "one", ([FOX, KING],)),
    "classify, regression": Asked("text-classification", "regression", ([FOX, KING],)),
    "classify, pair": Asked("text-classification", "labels", (PAIR,)),
    "classify, pairs": Asked(
        "text-classification", "labels", ([PAIR, {"text": KING, "text_pair": FOX}],), {"top_k": 2}
    ),
    "classify, cut": Asked("text-classification", "labels", (LONG,), {"truncation": True, "max_length": 20}),
    "zero-shot": Asked("zero-shot-classification", "nli", (FOX,), {"candidate_labels": ["animals", "politics"]}),
    "zero-shot, text": Asked("zero-shot-classification", "nli", (FOX, "animals, politics , sports")),
    "zero-shot, one label": Asked("zero-shot-classification", "nli", (FOX, "animals")),
    "zero-shot, template": Asked(
        "zero-shot-classification", "nli", ([FOX, KING],),
        {"candidate_labels": ["animals", "politics"], "hypothesis_template": "It is about {}."},
    ),
    "zero-shot, multi": Asked(
        "zero-shot-classification", "nli", ([FOX],), {"candidate_labels": ["animals", "politics"], "multi_label": True}
    ),
    "zero-shot, multi class": Asked(
        "zero-shot-classification", "nli", (FOX, "animals, sports"), {"multi_class": True}, version_5=False
    ),
    "zero-shot, entailment first": Asked(
        "zero-shot-classification", "nli first", ([FOX],),
        {"candidate_labels": ["animals", "politics"], "multi_label": True},
    ),
    "tag": Asked("token-classification", "tags", (FOX,)),
    "tag, alias": Asked("ner", "tags", ([FOX, KING],)),
    "tag, unknown": Asked("ner", "tags", ("a 𓀀 b",)),
    "tag, ignore": Asked("ner", "tags", (FOX,), {"ignore_labels": ["B-PER", "I-LOC"]}),
    "tag, ignore nothing": Asked("ner", "tags", ([FOX],), {"ignore_labels": []}),
    **{
        f"tag, {strategy}": Asked("ner", "tags", ([FOX, KING],), {"aggregation_strategy": strategy})
        for strategy in ("simple", "first", "average", "max")
    },
    "tag, groups without O": Asked(
        "ner", "tags", ([FOX, KING],), {"aggregation_strategy": "simple", "ignore_labels": []}
    ),
    "tag, grouped": Asked("ner", "tags", (FOX,), {"grouped_entities": True}, version_5=False),
    "tag, grouped words": Asked(
        "ner", "tags", (FOX,), {"grouped_entities": True, "ignore_subwords": True}, version_5=False
    ),
    **{
        f"tag, stride, {strategy}": Asked(
            "ner", "tags", ([LONG, FOX],), {"aggregation_strategy": strategy, "stride": 11}
        )
        for strategy in ("simple", "first", "average", "max")
    },
    "tag, cut": Asked("ner", "tags", (LONG,)),
    "tag, words": Asked("ner", "tags", (FOX.split(),), {"is_split_into_words": True}),
    "tag, rows of words": Asked(
        "ner", "tags", ([FOX.split(), KING.split()],), {"is_split_into_words": True, "aggregation_strategy": "first"}
    ),
    "tag, delimiter": Asked(
        "ner", "tags", ([["Vladi", "vostok"], ["New", "York"]],),
        {"is_split_into_words": True, "delimiter": "--", "aggregation_strategy": "simple"},
    ),
    "tag, unigram": Asked("ner", "unigram tags", ([FOX, KING],), version_4=False),
    **{
        f"tag, unigram, {strategy}": Asked(
            "ner", "unigram tags", ([FOX, KING],), {"aggregation_strategy": strategy}, version_4=False
        )
        for strategy in ("simple", "first", "average", "max")
    },
    "fill": Asked("fill-mask", "masks", ("The [MASK] jumps.",)),
    "fill, list of one": Asked("fill-mask", "masks", (["The [MASK] jumps."],), {"top_k": 2}),
    "fill, several": Asked("fill-mask", "masks", (["The [MASK] jumps over [MASK].", "A [MASK]."],), {"top_k": 3}),
    "fill, targets": Asked("fill-mask", "masks", ("The [MASK] jumps.",), {"targets": ["dog", "king", "##s"]}),
    "fill, target": Asked("fill-mask", "masks", ("The [MASK] jumps.",), {"targets": "dog", "top_k": 4}),
    "fill, cut": Asked(
        "fill-mask", "masks", ("The [MASK] jumps.",), {"tokenizer_kwargs": {"truncation": True, "max_length": 4}}
    ),
    "features, tensors": Asked("feature-extraction", "states", (FOX,), {"return_tensors": True, "truncation": True}),
    "features": Asked("feature-extraction", "states", ("The fox",)),
    "features, many": Asked("feature-extraction", "states", (["The fox", FOX],)),
    "features, cut": Asked(
        "feature-extraction", "states", (LONG,), {"tokenize_kwargs": {"truncation": True, "max_length": 6}}
    ),
}  # fmt: skip

WHO = "Who lies behind Szczebrzeszyn?"
ASKS = {"question": WHO, "context": FOX}
CASES |= {
    f"answer{name}": Asked("question-answering", "spans", inputs, options, version_5=False)
    for name, inputs, options in (
        ("", (), ASKS),
        (", dict", (ASKS,), {}),
        (", list of one", ([ASKS],), {}),
        (", list", ([ASKS, {"question": "Where?", "context": KING}],), {}),
        (", many questions", (), {"question": [WHO, "Where?"], "context": FOX}),
        (", topk", (), ASKS | {"topk": 2, "padding": "max_length"}),
        (", many contexts", (), {"question": [WHO, "Where?"], "context": [FOX, KING]}),
        (", top_k", (), ASKS | {"top_k": 3}),
        (", longest answer", (), ASKS | {"top_k": 4, "max_answer_len": 2}),
        (", as tokens", (), ASKS | {"top_k": 3, "align_to_words": False}),
        (", impossible", (), ASKS | {"top_k": 20, "handle_impossible_answer": True}),
        (", long context", (), {"question": WHO, "context": LONG, "top_k": 3}),
        (", stride", (), {"question": WHO, "context": LONG, "doc_stride": 20, "top_k": 5}),
        (", windows", (), {"question": WHO, "context": LONG, "doc_stride": 3, "max_seq_len": 30, "top_k": 5}),
        (", none in windows", (), {"question": WHO, "context": LONG, "handle_impossible_answer": True, "top_k": 30}),
    )
}  # fmt: skip

T5_TASKS = {
    "summarization": {"prefix": "summarize: ", "num_beams": 2, "no_repeat_ngram_size": 3, "min_length": 5},
    "translation_en_to_de": {"prefix": "translate English to German: ", "num_beams": 3},
}
MODELS |= {
    "t5": Made("t5", "seq2seq-lm", T5 | {"task_specific_params": T5_TASKS}, "t5"),
    "mbart": Made("mbart", "seq2seq-lm", {"vocab_size": 1027}, "spm-unigram"),
    "llama": Made("llama", "causal-lm", {"vocab_size": 32000}, "llama2"),
}
TAPAS = {
    "vocab_size": 30523, "max_position_embeddings": 128, "type_vocab_sizes": [3, 32, 32, 2, 32, 32, 10],
    "max_num_rows": 32, "max_num_columns": 16,
}  # fmt: skip
OPERATIONS = {"num_aggregation_labels": 4, "aggregation_labels": dict(enumerate(["NONE", "SUM", "AVERAGE", "COUNT"])),
              "no_aggregation_label_index": 0}  # fmt: skip
BART_IDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2,
            "forced_eos_token_id": 2, "max_position_embeddings": 512, "decoder_ffn_dim": 45}  # fmt: skip
MODELS |= {
    "cells": Made("tapas", "table-question-answering", TAPAS | {"intermediate_size": 41}, "tapas"),
    "written": Made(
        "bart",
        "seq2seq-lm",
        {"vocab_size": 261} | BART_IDS,
        "letters",
    ),
    "sums": Made("tapas", "table-question-answering", TAPAS | OPERATIONS | {"hidden_size": 42}, "tapas"),
}
ACTORS = {
    "actors": ["brad pitt", "leonardo di caprio", "george clooney", "n/a"], "age": ["56", "45", "59", "45"],
    "films": ["87", "fifty-three", "69", "70th"],
    "born": ["18 december 1963", "11 november 1974", "6 may 1961", "2010"],
    "notes": ["unbelievably Szczebrzeszyn", "?", "-", "1,234.5"],
}  # fmt: skip
OLDER = "Who was born before 6 may 1961 and made more than 69 films?"
FEW = {"max_new_tokens": 9}
CHAT = [{"role": "user", "content": "Who is it?"}]
OPEN = [*CHAT, {"role": "assistant", "content": "It is"}]
CASES |= {
    "write": Asked("text2text-generation", "t5", (FOX,), FEW, version_5=False),
    "write, list": Asked("text2text-generation", "t5", ([FOX, KING],), FEW, version_5=False),
    "write, greedy": Asked("text2text-generation", "t5", (FOX,), FEW | {"num_beams": 1}, version_5=False),
    "write, several": Asked(
        "text2text-generation", "t5", ([FOX, KING],), FEW | {"num_return_sequences": 2}, version_5=False
    ),
    "write, ids": Asked("text2text-generation", "t5", (FOX,), FEW | {"return_tensors": True}, version_5=False),
    "write, as it is": Asked(
        "text2text-generation", "t5", (FOX,), FEW | {"clean_up_tokenization_spaces": True}, version_5=False
    ),
    "write, cut": Asked("text2text-generation", "t5", (LONG * 9,), FEW | {"truncation": True}, version_5=False),
    "summarize": Asked("summarization", "t5", (FOX,), FEW, version_5=False),
    "summarize, ids": Asked("summarization", "t5", ([FOX],), FEW | {"return_tensors": True}, version_5=False),
    "translate": Asked("translation", "t5", (FOX,), FEW, version_5=False),
    "translate, pair": Asked("translation_en_to_de", "t5", ([FOX, KING],), FEW, version_5=False),
    "translate, languages": Asked(
        "translation", "mbart", (FOX,), FEW | {"src_lang": "de_DE", "tgt_lang": "fr_XX"}, version_5=False
    ),
    "translate, ids": Asked(
        "translation",
        "mbart",
        (FOX,),
        FEW | {"src_lang": "de_DE", "tgt_lang": "fr_XX", "return_tensors": True},
        version_5=False,
    ),
    "summarize, cut": Asked("summarization", "t5", (LONG * 9,), FEW | {"truncation": True}, version_5=False),
    "summarize, as it is": Asked(
        "summarization", "t5", (FOX,), FEW | {"clean_up_tokenization_spaces": True}, version_5=False
    ),
    "translate, cut": Asked("translation", "t5", (LONG * 9,), FEW | {"truncation": True}, version_5=False),
    "translate, as it is": Asked(
        "translation", "t5", (FOX,), FEW | {"clean_up_tokenization_spaces": True}, version_5=False
    ),
    "translate, another pair": Asked("translation_en_to_fr", "t5", ([FOX, KING],), FEW, version_5=False),
    **{
        f"go on{name}": Asked("text-generation", "llama", inputs, {"do_sample": False, **FEW, **options})
        for name, inputs, options in (
            ("", (FOX,), {}),
            (", list", ([FOX, KING],), {}),
            (", new text", ([FOX],), {"return_full_text": False}),
            (", ids", (FOX,), {"return_tensors": True}),
            (", prefix", (FOX,), {"prefix": "Once. "}),
            (", beams", (FOX,), {"num_beams": 3, "num_return_sequences": 2}),
            (", without special tokens", (FOX,), {"add_special_tokens": False}),
            (", cut", (FOX,), {"truncation": True, "tokenizer_encode_kwargs": {"max_length": 7}}),
            (", with special tokens", (FOX,), {"skip_special_tokens": False}),
            (", as it is", (FOX,), {"clean_up_tokenization_spaces": False}),
            (", hole", (FOX * 3,), {"handle_long_generation": "hole"}),
            (", chat", (CHAT,), {}),
            (", chats", ([CHAT, OPEN],), {}),
            (", open chat", (OPEN,), {}),
            (", chat, new text", (CHAT,), {"return_full_text": False}),
            (", closed chat", (OPEN,), {"continue_final_message": False}),
        )
    },
}

PLACE = {
    "type": "object",
    "properties": {"where": {"type": "string", "description": "A place."}},
    "required": ["where"],
}
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": PLACE}}
CASES |= {
    f"go on, chat, {name}": Asked(
        "text-generation", "llama", (CHAT,), {"do_sample": False, **FEW, name: value}, version_4=False
    )
    for name, value in (("tools", [TOOL]), ("documents", [{"title": "Foxes", "text": "They are red."}]))
}
CASES |= {
    f"go on, stop{name}": Asked(  # ids: our texts end before it
        "text-generation",
        "llama",
        (FOX,),
        {"do_sample": False, **FEW, "stop_sequence": value, "return_tensors": True},
        version_4=False,
    )
    for name, value in ((" at a text", "dz title"), (" at one of two", ["nowhere", "itle"]))
}
CASES |= {
    "classify, padded": Asked("text-classification", "labels", ([FOX, "A."],), {"padding": True}, version_4=False),
}
CASES |= {
    f"table{name}": Asked("table-question-answering", model, inputs, options, version_5=False)  # needs pandas
    for name, model, inputs, options in (
        ("", "cells", (), {"table": ACTORS, "query": "How old is brad pitt?"}),
        (", dict", "cells", ({"table": ACTORS, "query": OLDER},), {}),
        (", several", "cells", (), {"table": ACTORS, "query": [OLDER, "Who is 45?"]}),
        (", list", "cells", ([{"table": ACTORS, "query": OLDER}, {"table": ACTORS, "query": "Who is 45?"}],), {}),
        (", sequence", "cells", (), {"table": ACTORS, "query": [OLDER, "Who is 45?", "Who?"], "sequential": True}),
        (", operations", "sums", (), {"table": ACTORS, "query": OLDER}),
        (", operations, list", "sums", (), {"table": ACTORS, "query": ["How many are 45?", "Sum of ages in 2010?"]}),
        (", cut", "sums", (), {"table": {k: v * 5 for k, v in ACTORS.items()}, "query": OLDER}),
        (", whole", "sums", (), {"table": ACTORS, "query": "Who?", "truncation": False}),
        (", padded", "cells", (), {"table": ACTORS, "query": OLDER, "padding": True}),
        (", written", "written", (), {"table": ACTORS, "query": "How old is Brad Pitt?"}),
        (", written, several", "written", ({"table": ACTORS, "query": [OLDER, "Who is 45?"]},), {}),
    )
}
