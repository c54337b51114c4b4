"""Sentence models and cross-encoders beside sentence-transformers, recorded by tests/record_sentences.py."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import gguf_files
import pellucid
from pellucid import CrossEncoder, SentenceTransformer, cos_sim, quantize_embeddings, semantic_search
from pellucid.errors import ArgumentError, ConfigError, InputError, PellucidError, Unsupported, WeightsError
from pellucid.tasks.sentence_layout import OF_PAIRS, ROUTERS, read_layout, said_in_gguf
from pellucid.tasks.sentence_modules import MODULES, OLD_KINDS
from pellucid.tasks.vectors import ENOUGH, PRECISIONS, SIMILARITIES

DATA = Path(__file__).parents[1] / "data"
RECORD = json.loads((DATA / "sentences.json").read_text("utf-8"))
TENSORS = load_file(DATA / "sentences.safetensors")
TEXTS, QUERY = RECORD["texts"], RECORD["query"]
NAMES = sorted({name.split(" ")[0] for name in TENSORS if " " in name})
SENTENCES = [name for name in NAMES if not name.startswith("cross")]
CROSS = [name for name in NAMES if name.startswith("cross")]
BAGS = ("bag", "bag-once")
# No transformer, or one of their own:
ALONE = ("static", "model2vec", "words", "words-plain", "cnn", "lstm", *BAGS, "chat", "chat-bare")
INNER = {"old": "0_Transformer", "router": "document_0_Transformer", "ways": "read_0_Transformer"}  # where it is
NEAR = {"rtol": 5e-7, "atol": 2e-6}  # four steps of float32, of sums that are not divided: they reach 10


def lay_out(name: str, root: Path) -> Path:
    """A recorded folder, with the transformer that all share where it has none of its own."""
    folder = root / name
    if not name.startswith("cross") and name not in ALONE:
        write("transformer", folder / INNER.get(name, ""))
    write(name, folder)
    return folder


def write(name: str, folder: Path) -> None:
    for path, value in RECORD["files"].items():
        if path.startswith(f"{name}/"):
            put(folder / path.removeprefix(f"{name}/"), value)
    weights: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in TENSORS.items():
        if key.startswith(f"{name}/"):
            path, _, part = key.removeprefix(f"{name}/").partition(":")
            weights.setdefault(path, {})[part] = tensor
    for path, tensors in weights.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / path) if path.endswith("safetensors") else torch.save(tensors, folder / path)


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if path.suffix == ".jinja" else json.dumps(value))


def changed(folder: Path, path: str, **values: Any) -> Path:
    """The folder, some keys of a file in it changed."""
    put(folder / path, {**json.loads((folder / path).read_text()), **values})
    return folder


@pytest.fixture(scope="module", params=SENTENCES)
def each(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, SentenceTransformer]:
    return request.param, SentenceTransformer(lay_out(request.param, tmp_path_factory.mktemp("sentences")))


@pytest.fixture(scope="module", params=CROSS)
def cross(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, CrossEncoder]:
    return request.param, CrossEncoder(lay_out(request.param, tmp_path_factory.mktemp("cross")))


def make(name: str, root: Path, **options: Any) -> SentenceTransformer:
    return SentenceTransformer(lay_out(name, root), **options)


# ------------------------------------------------------------------------------------------------ every layout


def test_the_record_has_every_module_and_pooling() -> None:
    """What is read is compared: a step or a pooling that no recorded layout has would go untested."""
    modules = {module["type"].rpartition(".")[2] for path, value in RECORD["files"].items()
               if path.endswith("modules.json") for module in value}  # fmt: skip
    assert modules == {*MODULES, *ROUTERS, *OF_PAIRS}
    modes = [
        value["pooling_mode"] for path, value in RECORD["files"].items() if "1_Pooling" in path and "old" not in path
    ]
    assert {mode for mode in modes if isinstance(mode, str)} == set(OLD_KINDS.values())
    assert any(isinstance(mode, list) for mode in modes)


def test_vectors(each: tuple[str, SentenceTransformer]) -> None:
    name, model = each
    found = model.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(found, TENSORS[f"{name} vectors"], **NEAR)
    assert model.max_seq_length == (int(TENSORS[f"{name} longest"]) or None)
    assert model.get_embedding_dimension() == found.shape[1]
    torch.testing.assert_close(model.similarity(found, found), TENSORS[f"{name} similarity"], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        model.similarity_pairwise(found, found.flip(0)), TENSORS[f"{name} pairwise"], rtol=0, atol=1e-5
    )


def test_prompts(each: tuple[str, SentenceTransformer]) -> None:
    name, model = each
    prompted = model.encode(TEXTS, prompt="red fox : ", convert_to_tensor=True)
    torch.testing.assert_close(prompted, TENSORS[f"{name} prompt"], **NEAR)
    query = model.encode_query(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(query, TENSORS[f"{name} query"], **NEAR)
    if not model.prompts.get("passage"):  # where there is one, see test_documents_have_their_prompt
        document = model.encode_document(TEXTS, convert_to_tensor=True)
        torch.testing.assert_close(document, TENSORS[f"{name} document"], **NEAR)


def test_unit_vectors_of_fewer_dimensions(each: tuple[str, SentenceTransformer]) -> None:
    name, model = each
    found = model.encode(TEXTS, normalize_embeddings=True, truncate_dim=4, convert_to_tensor=True)
    torch.testing.assert_close(found, TENSORS[f"{name} unit"], **NEAR)


def test_states_of_tokens(each: tuple[str, SentenceTransformer]) -> None:
    name, model = each
    if name in BAGS:
        with pytest.raises(Unsupported, match="no states of tokens"):
            model.encode(TEXTS[1], output_value="token_embeddings")
        return
    found = model.encode(TEXTS[1], output_value="token_embeddings")
    if name in ("static", "model2vec"):  # the reference has none
        cosine = torch.cosine_similarity(found.mean(0), TENSORS[f"{name} vectors"][1], dim=0)
        torch.testing.assert_close(cosine, torch.tensor(1.0), **NEAR)
    else:
        torch.testing.assert_close(found, TENSORS[f"{name} states"], **NEAR)
    whole = model.encode([TEXTS[1]], output_value=None)[0]
    torch.testing.assert_close(whole["token_embeddings"], found)
    assert whole["input_ids"].shape == whole["attention_mask"].shape == found.shape[:1]
    with model.truncate_embeddings(None):
        vector = model.encode(TEXTS[1], convert_to_tensor=True)
    dim = model.get_embedding_dimension()
    torch.testing.assert_close(whole["sentence_embedding"], vector[:dim], **NEAR)


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_fewer_bits(each: tuple[str, SentenceTransformer], precision: Any) -> None:
    """The codes are compared on the reference's own vectors: a difference of 1e-7 may lie across a step."""
    name, model = each
    theirs = TENSORS[f"{name} {precision}"]
    assert torch.equal(torch.from_numpy(quantize_embeddings(TENSORS[f"{name} vectors"], precision)), theirs)
    ours = model.encode(TEXTS, precision=precision)
    assert ours.dtype == theirs.numpy().dtype and ours.shape == tuple(theirs.shape)
    if "int8" in precision:
        assert np.abs(ours.astype(int) - theirs.numpy().astype(int)).max() <= 1


def test_company_does_not_matter(each: tuple[str, SentenceTransformer]) -> None:
    _, model = each
    alone = np.stack([model.encode(text) for text in TEXTS])
    np.testing.assert_allclose(model.encode(TEXTS[::-1])[::-1], alone, rtol=0, atol=2e-6)


# ---------------------------------------------------------------------------------------------- cross-encoders


def test_scores_of_pairs(cross: tuple[str, CrossEncoder]) -> None:
    name, model = cross
    pairs = [(QUERY, text) for text in TEXTS]
    wanted = {key: TENSORS[f"{name} {key}"] for key in ("scores", "prompt", "softmax", "tanh")}
    found = {
        "scores": model.predict(pairs, convert_to_tensor=True),
        "prompt": model.predict(pairs, prompt="dog : ", convert_to_tensor=True),
        "softmax": model.predict(pairs, apply_softmax=True, convert_to_tensor=True),
        "tanh": model.predict(pairs, activation_fn=torch.nn.Tanh(), convert_to_tensor=True),
    }
    torch.testing.assert_close(found, wanted, **NEAR)
    assert model.max_seq_length == int(TENSORS[f"{name} longest"])
    one = model.predict(pairs[0])
    np.testing.assert_allclose(one, wanted["scores"][0], atol=2e-6)
    assert one.shape == (() if model.num_labels == 1 else (model.num_labels,))


def test_documents_in_order(cross: tuple[str, CrossEncoder]) -> None:
    name, model = cross
    if model.num_labels > 1:
        with pytest.raises(Unsupported, match="3 labels"):
            model.rank(QUERY, TEXTS)
        return
    found = model.rank(QUERY, TEXTS, return_documents=True)
    assert [each["corpus_id"] for each in found] == TENSORS[f"{name} ranks"].tolist()
    assert [each["text"] for each in found] == [TEXTS[each["corpus_id"]] for each in found]
    assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)
    assert model.rank(QUERY, TEXTS, top_k=2) == [{k: v for k, v in each.items() if k != "text"} for each in found[:2]]
    assert model.rank(QUERY, []) == []


JUDGES = [name for name in CROSS if "judge" in name]


@pytest.mark.parametrize("name", JUDGES)
def test_a_language_model_reranks_by_pipeline(name: str, tmp_path: Path) -> None:
    rank = pellucid.pipeline("reranking", lay_out(name, tmp_path), documents=TEXTS)
    wanted = TENSORS[f"{name} scores"]
    model = CrossEncoder(tmp_path / name)
    assert [each["corpus_id"] for each in model.rank(QUERY, TEXTS)] == TENSORS[f"{name} ranks"].tolist()
    for one in rank(QUERY):
        np.testing.assert_allclose(one["score"], wanted[one["corpus_id"]], atol=2e-6)
    again = pellucid.pipeline("reranking", rank.model, documents=TEXTS[:2])
    np.testing.assert_allclose(again(QUERY)[0]["score"], wanted[:2].max(), atol=2e-6)


def test_logits_of_the_last_token_alone_are_computed(tmp_path: Path) -> None:
    model = CrossEncoder(lay_out("cross-judge", tmp_path))
    seen: list[int] = []
    with model.model.lm_head.register_forward_hook(lambda _, given, out: seen.append(len(out))):
        model.predict([(QUERY, text) for text in TEXTS])
    assert sum(seen) == len(TEXTS)


def test_the_prompt_published_for_qwen3_reranker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As https://huggingface.co/Qwen/Qwen3-Reranker-0.6B gives it, for a folder of that name."""
    folder = lay_out("cross-judge-bare", tmp_path)
    put(
        folder / "chat_template.jinja",
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
    )
    with pytest.raises(Unsupported, match="no place for a query and a document"):
        CrossEncoder(folder)
    given = CrossEncoder(folder, processor_kwargs={"chat_template": RECORD["files"]["chat-bare/chat_template.jinja"]})
    np.testing.assert_allclose(given.predict((QUERY, "a dog")), make_cross("cross-judge-bare", tmp_path / "b").predict(
        (QUERY, "a dog")), atol=2e-6)  # fmt: skip
    model = CrossEncoder(folder.rename(tmp_path / "Qwen3-Reranker-0.6B"))
    assert "published for qwen3-reranker" in caplog.text
    made, instruct = model._made, "Given a web search query, retrieve relevant passages that answer the query"
    for prompt, asked in (("", instruct), ("Find it.", "Find it.")):
        text = model.tokenizer.apply_chat_template(made.chat.of_pair(("Q?", "D."), prompt), tokenize=False)
        assert text == (
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
            'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
            f"<Instruct>: {asked}\n<Query>: Q?\n<Document>: D.<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n"
        )


def make_cross(name: str, root: Path) -> CrossEncoder:
    return CrossEncoder(lay_out(name, root))


def test_a_classifier_does_without_places(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The reference refuses it since version 6, and joined the texts before."""
    folder = lay_out("cross", tmp_path)
    put(folder / "chat_template.jinja", "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}")
    found = CrossEncoder(folder).predict([(QUERY, text) for text in TEXTS], convert_to_tensor=True)
    torch.testing.assert_close(found, TENSORS["cross scores"], **NEAR)
    assert "the tokenizer joins them" in caplog.text


@pytest.mark.parametrize(
    "path, values, error, says",
    [
        ("1_LogitScore/config.json", {"true_token_id": 4000}, ConfigError, "true_token_id=4000"),
        ("1_LogitScore/config.json", {"false_token_id": "no"}, ConfigError, "false_token_id='no'"),
        ("1_LogitScore/config.json", {"module_input_name": "logits"}, Unsupported, "a LogitScore of logits"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"padding": True}}}, Unsupported, "padding"),
    ],
)
def test_judges_that_are_refused(path: str, values: Any, error: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says):
        CrossEncoder(changed(lay_out("cross-judge", tmp_path), path, **values))


def test_a_language_model_without_yes_is_no_judge(tmp_path: Path) -> None:
    folder = lay_out("cross-judge-bare", tmp_path)
    text = (folder / "tokenizer.json").read_text().replace('"yes"', '"yea"')
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(Unsupported, match="no token 'yes'"):
        CrossEncoder(folder)


def test_a_chat_template_is_given_the_task_that_it_reads(tmp_path: Path) -> None:
    folder, template = lay_out("chat-bare", tmp_path), RECORD["files"]["chat-bare/chat_template.jinja"]

    def model(before: str) -> SentenceTransformer:
        (folder / "chat_template.jinja").write_text(before + template)
        return SentenceTransformer(folder)

    asking, plain, red, dog = map(
        model, ("{% if task == 'query' %}red {% elif task is defined %}dog {% endif %}", "", "red ", "dog ")
    )
    wanted = {"query": red, "document": dog, None: plain}
    for task, other in wanted.items():
        np.testing.assert_array_equal(asking.encode(TEXTS, task=task), other.encode(TEXTS))
    np.testing.assert_array_equal(asking.encode_query(TEXTS), red.encode(TEXTS))
    (folder / "chat_template.jinja").write_text("{% if task == 'query' %}red {% endif %}" + template)
    embed = pellucid.pipeline("sentence-embedding", folder)
    np.testing.assert_array_equal(embed(TEXTS, task="query"), red.encode(TEXTS))


def test_windows_of_a_chat_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="windows of a chat"):
        make("chat", tmp_path).encode("fox " * 40, windows=True)


# ----------------------------------------------------------------------------------------------- a trained model


def test_the_published_similarities(shared: Path) -> None:
    """As https://sbert.net/docs/quickstart.html prints them; our copy's weights are float16, theirs float32."""
    model = SentenceTransformer(shared / "models" / "minilm")
    found = model.encode(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    assert found.shape == (3, 384) and found.dtype == np.float32
    published = torch.tensor([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]])
    torch.testing.assert_close(model.similarity(found, found), published, rtol=0, atol=2e-4)


def test_a_million_lines_are_not_held(tmp_path: Path) -> None:
    """The pipeline reads ahead by a window, not to the end."""
    read = 0

    def lines():
        nonlocal read
        for _ in range(100_000):
            read += 1
            yield "a red fox"

    found = pellucid.pipeline("sentence-embedding", lay_out("mean", tmp_path))(lines())
    first = next(found)
    assert len(first) == 14 and read <= 4096


# ------------------------------------------------------------------------------------------------------ pipelines


@pytest.mark.parametrize("name", SENTENCES)
def test_the_pipeline_gives_the_same(name: str, tmp_path: Path) -> None:
    embed = pellucid.pipeline("sentence-embedding", lay_out(name, tmp_path))
    found = embed(TEXTS, return_tensors=True)
    torch.testing.assert_close(torch.stack(found), TENSORS[f"{name} vectors"], **NEAR)
    assert embed(TEXTS[0]) == found[0].tolist()
    prompted = embed(TEXTS, prompt="red fox : ", return_tensors=True)
    torch.testing.assert_close(torch.stack(prompted), TENSORS[f"{name} prompt"], **NEAR)
    unit = embed(TEXTS, normalize_embeddings=True, truncate_dim=4, return_tensors=True)
    torch.testing.assert_close(torch.stack(unit), TENSORS[f"{name} unit"], **NEAR)


def test_reranking_by_pipeline(tmp_path: Path) -> None:
    rank = pellucid.pipeline("reranking", lay_out("cross", tmp_path), documents=TEXTS)
    one = rank(QUERY)
    assert [each["corpus_id"] for each in one] == TENSORS["cross ranks"].tolist()
    assert all(each["text"] == TEXTS[each["corpus_id"]] for each in one)
    cut = next(each for each in one if each["corpus_id"] == 6)
    assert cut["truncated_tokens"] > 0
    assert rank([QUERY, {"query": QUERY, "documents": TEXTS[:2]}], top_k=1)[0] == one[:1]
    for each in rank(QUERY, prompt="dog : "):
        np.testing.assert_allclose(each["score"], TENSORS["cross prompt"][each["corpus_id"]], atol=2e-6)
    with pytest.raises(ArgumentError, match="no prompt 'web'"):
        rank(QUERY, prompt_name="web")
    for bad in (
        3,
        {"query": QUERY, "texts": []},
        {"query": QUERY, "documents": "a"},
        {"query": 3},
        {"query": QUERY, "documents": [1]},
    ):
        with pytest.raises(InputError, match="query|documents|3"):
            rank([bad])
    with pytest.raises(Unsupported, match="3 labels"):
        pellucid.pipeline("reranking", lay_out("cross-three", tmp_path))


def test_documents_of_a_query_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One query takes long because of its documents; many are counted themselves."""
    rank = pellucid.pipeline("reranking", lay_out("cross", tmp_path), documents=TEXTS)
    assert rank(QUERY, progress=True) == rank(QUERY)
    assert f"reranking: {len(TEXTS)} of {len(TEXTS)}" in capsys.readouterr().err
    assert rank([QUERY, QUERY], progress=True) == [rank(QUERY)] * 2
    assert "reranking: 2 of 2" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- long texts


def test_a_cut_is_said_and_windows_read_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = make("settings", tmp_path)
    long = "a red fox " * 10  # 30 tokens, 7 fit beside [CLS] and [SEP]
    with caplog.at_level(logging.WARNING):
        cut = model.encode(["fox", long])
    assert "1 of 2 texts were longer than 9 tokens and were cut: 23 tokens were dropped" in caplog.text
    caplog.clear()
    whole = model.encode([long], windows=True)[0]
    assert not caplog.text and np.abs(whole - cut[1]).max() > 1e-3
    np.testing.assert_array_equal(model.encode("fox", windows=True), cut[0])


@pytest.mark.parametrize("name", ["mean", "prompts", "without-prompt-mean"])
def test_windows_are_texts_behind_the_prompt(name: str, tmp_path: Path) -> None:
    """The mean of the windows' own vectors, as if each had been given as a text; each counts as its tokens."""
    model = make(name, tmp_path)
    model.max_seq_length = 12
    prompt = "red fox : "
    words = "the cat sees a dog and dogs are here a fox sleeps and dogs are here the end ?".split()
    assert len(model.tokenizer.tokenize(prompt)) == 3
    ids = model.tokenizer.encode(" ".join(words), add_special_tokens=False)
    count = -(-len(ids) // (12 - 2 - 3))
    cuts = [len(ids) * i // count for i in range(count + 1)]
    parts = [ids[a:b] for a, b in zip(cuts, cuts[1:])]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    texts = [model.tokenizer.decode(part) for part in parts]
    assert [model.tokenizer.encode(text, add_special_tokens=False) for text in texts] == parts
    each = model.encode(texts, prompt=prompt, convert_to_tensor=True)
    weights = torch.tensor([len(part) + 5.0 for part in parts])
    mean = (weights / weights.sum()) @ each
    mean = torch.nn.functional.normalize(mean, dim=0) if name == "prompts" else mean
    found = model.encode(" ".join(words), prompt=prompt, windows=True, convert_to_tensor=True)
    torch.testing.assert_close(found, mean, **NEAR)


def test_windows_that_cannot_be(tmp_path: Path) -> None:
    model = make("mean", tmp_path)
    with pytest.raises(InputError, match="leaves no room"):
        model.encode("fox " * 30, prompt="fox " * 20, windows=True)
    with pytest.raises(ArgumentError, match="with windows"):
        model.encode("fox", output_value="token_embeddings", windows=True)


# -------------------------------------------------------------------------------------------------- what is asked


def test_documents_have_their_prompt(tmp_path: Path) -> None:
    """sentence-transformers 5 and 6 say so, and then take the empty prompt that they have put under "document"."""
    model = make("prompts", tmp_path)
    wanted = model.encode(TEXTS, prompt="passage : ")
    np.testing.assert_array_equal(model.encode_document(TEXTS), wanted)
    np.testing.assert_array_equal(model.encode(TEXTS, prompt_name="passage"), wanted)
    assert np.abs(model.encode_document(TEXTS, prompt="") - wanted).max() > 1e-3


def test_forms_of_the_result(tmp_path: Path) -> None:
    model = make("mean", tmp_path)
    array = model.encode(TEXTS)
    assert isinstance(array, np.ndarray) and array.shape == (7, 14)
    assert model.encode(inputs=TEXTS[0]).shape == (14,)
    assert model.encode(tuple(TEXTS), batch_size=2).shape == model.encode(iter(TEXTS)).shape == (7, 14)
    assert model.encode(np.array(TEXTS)).shape == (7, 14)
    assert isinstance(model.encode(TEXTS, convert_to_tensor=True), torch.Tensor)
    plain = model.encode(TEXTS, convert_to_numpy=False)
    assert isinstance(plain, list) and all(isinstance(each, torch.Tensor) for each in plain)
    assert model.encode([]).shape == (0, 14) and model.encode([], convert_to_numpy=False) == []
    assert model.encode([], precision="binary").shape[0] == 0
    with model.truncate_embeddings(3):
        assert model.encode(TEXTS).shape == (7, 3) and model.get_sentence_embedding_dimension() == 3
    assert model.encode(TEXTS, show_progress_bar=True).shape == (7, 14)
    assert model.to("cpu").eval().device == torch.device("cpu")


@pytest.mark.parametrize(
    "options, says",
    [
        ({"prompt_name": "qeury"}, "did you mean 'query'"), ({"prompt_name": "web"}, "known: query, document"),
        ({"precision": "int4"}, "int8"), ({"truncate_dim": 0}, "truncate_dim=0"),
        ({"truncate_dim": 1000}, "1000 dimensions of vectors that have"),
        ({"output_value": "tokens"}, "output_value"), ({"batch_size": 0}, "batch_size=0"),
        ({"normalise_embeddings": True}, "normalize_embeddings"),
        ({"pool": {}}, "one process"), ({"device": ["cpu", "cpu"]}, "one process"), ({"inputs": ["a"]}, "one of"),
    ],
)  # fmt: skip
def test_options_that_are_refused(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    model = make("mean", tmp_path)
    with pytest.raises(PellucidError, match=says):
        model.encode(TEXTS, **options)


@pytest.mark.parametrize("texts", [[3], [None], {"text": "a"}, b"fox", [["a", "b", "c"]], ["fox", b"fox"], None])
def test_what_is_no_text(texts: Any, tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match="text"):
        make("mean", tmp_path).encode(texts)


@pytest.mark.parametrize("pairs", [["a"], "a", None, [("a", "b", "c")], [("a", 3)], [3], {"a": "b"}])
def test_what_is_no_pair(pairs: Any, tmp_path: Path) -> None:
    model = CrossEncoder(lay_out("cross", tmp_path))
    with pytest.raises(PellucidError):
        model.predict(pairs)


def test_a_pair_is_one_and_a_list_of_pairs_is_many(tmp_path: Path) -> None:
    model = CrossEncoder(lay_out("cross", tmp_path))
    assert model.predict(["the cat", "a dog"]).shape == ()
    assert model.predict([["the cat", "a dog"]]).shape == (1,)
    assert model.predict(np.array([["the cat", "a dog"], ["a", "b"]])).shape == (2,)
    assert model.predict([]).shape == (0,)
    with pytest.raises(InputError, match="one query"):
        model.rank("the cat", "a dog")


def test_the_longest_text_can_be_set(tmp_path: Path) -> None:
    model = make("mean", tmp_path)
    assert model.get_max_seq_length() == 20
    model.max_seq_length = 5
    np.testing.assert_array_equal(model.encode("a red fox sleeps here"), model.encode("a red fox"))
    with pytest.raises(ArgumentError, match="20 positions"):
        model.max_seq_length = 21
    with pytest.raises(ArgumentError, match="at least 1"):
        model.max_seq_length = 0


@pytest.mark.parametrize(
    "options, says",
    [
        ({"similarity_fn_name": "cosin"}, "cosine"), ({"default_prompt_name": "web"}, "no prompt 'web'"),
        ({"backend": "onnx"}, "torch"), ({"modules": []}, "folder"), ({"divice": "cpu"}, "device"),
        ({"model_kwargs": {"dtyp": "float32"}}, "dtype"),
        ({"tokenizer_kwargs": {"pading_side": "left"}}, "padding_side"),
    ],
)  # fmt: skip
def test_arguments_that_are_refused(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match=says):
        make("mean", tmp_path, **options)
    with pytest.raises(ArgumentError, match="no model"):
        SentenceTransformer()


def test_arguments_that_change_a_model(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "prompts": {"web": "dogs : "}, "default_prompt_name": "web", "similarity_fn_name": "dot", "truncate_dim": 5,
        "model_kwargs": {"dtype": "bfloat16"},
    }  # fmt: skip
    model, plain = make("mean", tmp_path, **given), make("max", tmp_path)
    assert model.dtype == torch.bfloat16 and model.get_embedding_dimension() == 5
    found = model.encode(TEXTS, convert_to_tensor=True)
    assert found.dtype == torch.float32 and found.shape == (7, 5)
    torch.testing.assert_close(model.similarity(found, found), found @ found.T)
    wanted = make("mean", tmp_path).encode(TEXTS, prompt="dogs : ", convert_to_tensor=True)[:, :5]
    assert cos_sim(found, wanted).diagonal().min() > 0.99
    assert plain.similarity_fn_name == "cosine"


# -------------------------------------------------------------------------------------------------------- folders


def test_a_folder_without_modules_is_a_mean(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = lay_out("mean", tmp_path)
    (folder / "modules.json").unlink()
    with caplog.at_level(logging.WARNING):
        model = SentenceTransformer(folder)
    assert "has no modules.json: the mean of a text's tokens is its vector" in caplog.text
    torch.testing.assert_close(model.encode(TEXTS, convert_to_tensor=True), TENSORS["mean vectors"], **NEAR)
    changed(folder, "config.json", architectures=["BertLMHeadModel", "BertForCausalLM"])
    assert read_layout(folder).chains[""].pool.kinds == ("mean",)
    changed(folder, "config.json", architectures=["LlamaForCausalLM"])
    assert read_layout(folder).chains[""].pool.kinds == ("lasttoken",)


@pytest.mark.parametrize(
    ("metadata", "kind", "assumed"),
    [
        ({"general.architecture": "bert", "bert.pooling_type": gguf_files.As(4, 2)}, "cls", False),
        ({"general.architecture": "bert", "bert.pooling_type": gguf_files.As(4, 1)}, "mean", False),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": gguf_files.As(4, 3)}, "lasttoken", False),
        ({"general.architecture": "bert", "bert.attention.causal": False}, "mean", True),
        ({"general.architecture": "llama", "llama.pooling_type": gguf_files.As(4, 0)}, "lasttoken", True),
        ({"general.architecture": "t5encoder"}, "mean", True),
    ],
)  # fmt: skip
def test_a_gguf_file_says_how_it_pools(metadata: dict[str, Any], kind: str, assumed: bool, tmp_path: Path) -> None:
    """By llama.cpp's numbers; a decoder that does not say is read at its last token, in a file as in a folder."""
    layout = read_layout(gguf_files.write(tmp_path / "x.gguf", metadata))
    assert layout.chains[""].pool.kinds == (kind,) and bool(layout.assumed) == assumed


def test_a_gguf_file_of_a_reranker_has_no_vectors(tmp_path: Path) -> None:
    metadata = {"general.architecture": "bert", "bert.pooling_type": gguf_files.As(4, 4)}
    with pytest.raises(Unsupported, match="rerank"):
        read_layout(gguf_files.write(tmp_path / "x.gguf", metadata))


@pytest.mark.parametrize(
    ("name", "number", "lost"),
    [
        ("mean", 1, ""), ("prompts", 1, "Normalize, prompts"), ("cls", 2, ""), ("lasttoken", 3, ""),
        ("max", None, "Pooling"), ("dense", 1, "Dense, Normalize"), ("cross", None, ""), ("ways", None, "Router"),
    ],
)  # fmt: skip
def test_a_gguf_file_is_told_how_its_folder_pools(name: str, number: int | None, lost: str, tmp_path: Path) -> None:
    says, notes = said_in_gguf(lay_out(name, tmp_path))
    assert says == ({} if number is None else {"pooling_type": number})
    assert notes == ([f"left out, as a GGUF file cannot say it: {lost}"] if lost else [])


def test_modules_that_are_not_known_stop_no_conversion(tmp_path: Path) -> None:
    folder = lay_out("mean", tmp_path)
    (folder / "modules.json").write_text(json.dumps(modules(TRANSFORMER, "code.of.the.Folder")))
    says, [note] = said_in_gguf(folder)
    assert not says and "code.of.the.Folder" in note


def test_an_encoder_decoder_is_its_encoder(tmp_path: Path) -> None:
    from models import tiny

    tiny.make("t5", vocab_size=len(RECORD["files"]["transformer/tokenizer.json"]["model"]["vocab"])).save_pretrained(
        tmp_path
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        put(tmp_path / name, RECORD["files"][f"transformer/{name}"])
    model = SentenceTransformer(tmp_path)
    found = model.encode(TEXTS, convert_to_tensor=True)
    ids = torch.tensor([model.tokenizer.encode(TEXTS[0])])
    states = pellucid.AutoModelForTextEncoding.from_pretrained(tmp_path)(ids).last_hidden_state
    torch.testing.assert_close(found[0], states[0].mean(0), **NEAR)
    embed = pellucid.pipeline("sentence-embedding", tmp_path)
    torch.testing.assert_close(embed(TEXTS[0], return_tensors=True), found[0], **NEAR)


@pytest.mark.parametrize(
    "path, values, error, says",
    [
        ("1_Pooling/config.json", {"pooling_mode": "median"}, ConfigError, "weightedmean"),
        ("1_Pooling/config.json", {"pooling_mode": []}, ConfigError, "pooling_mode"),
        ("2_Dense/config.json", {"activation_function": "os.system"}, Unsupported, "os.system"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.PReLU"}, Unsupported, "Tanh"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, Unsupported, "token_embeddings"),
        ("2_Dense/config.json", {"use_residual": True}, WeightsError, "residual.weight"),
        ("3_Normalize/config.json", {"module_input_name": "token_embeddings"}, Unsupported, "token_embeddings"),
        ("sentence_bert_config.json", {"module_output_name": "sentence_embedding"}, Unsupported, "module_output_name"),
        ("sentence_bert_config.json", {"query_length": 32}, Unsupported, "query_length"),
        ("sentence_bert_config.json", {"max_seq_length": -1}, ConfigError, "max_seq_length"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "maxsim"}, ConfigError, "euclidean"),
        ("config_sentence_transformers.json", {"default_prompt_name": "web"}, ConfigError, "default_prompt_name"),
        ("config_sentence_transformers.json", {"truncate_dim": "5"}, ConfigError, "truncate_dim"),
        ("config_sentence_transformers.json", {"prompts": {"web": 3}}, ConfigError, "prompts"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, Unsupported, "SparseEncoder"),
    ],
)  # fmt: skip
def test_values_that_are_refused(path: str, values: Any, error: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says):
        SentenceTransformer(changed(lay_out("dense", tmp_path), path, **values))


def modules(*types: str, paths: str = "") -> list[dict[str, Any]]:
    return [
        {"idx": i, "name": str(i), "path": paths or (f"{i}_x" if i else ""), "type": kind}
        for i, kind in enumerate(types)
    ]


TRANSFORMER = "sentence_transformers.models.Transformer"


@pytest.mark.parametrize(
    "listed, error, says",
    [
        *((modules(f"sentence_transformers.models.{kind}"), Unsupported, f"a {kind} module") for kind in (
            "CLIPModel", "SparseStaticEmbedding",
        )),
        (modules("custom_st.Transformer"), Unsupported, "code of the model folder"),
        (modules("sentence_transformers.models.Pooling"), Unsupported, "first, and only there, one of Transformer"),
        (modules(TRANSFORMER), Unsupported, "one Pooling"),
        (modules(TRANSFORMER, "sentence_transformers.models.Normalize"), Unsupported, "one Pooling"),
        (modules(TRANSFORMER, paths="../.."), ConfigError, "leads out of the folder"),
        ([], ConfigError, "empty"), ({}, ConfigError, "no list of modules"), ([{"type": "x"}], ConfigError, "no list"),
        ("x", ConfigError, "no list of modules"),
    ],
)  # fmt: skip
def test_modules_that_are_refused(listed: Any, error: Any, says: str, tmp_path: Path) -> None:
    folder = lay_out("mean", tmp_path)
    put(folder / "modules.json", listed)
    with pytest.raises(error, match=says):
        SentenceTransformer(folder)


BEHIND = "sentence_transformers.models."


@pytest.mark.parametrize(
    "name, listed, says",
    [
        ("static", [f"{BEHIND}StaticEmbedding", f"{BEHIND}Dropout", f"{BEHIND}Transformer"], "first, and only there"),
        ("static", [f"{BEHIND}Dropout"], "first, and only there"),
        ("mean", [TRANSFORMER, "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"], "LogitScore"),
        ("asym", [TRANSFORMER, f"{BEHIND}Asym", f"{BEHIND}Router"], "2 routers"),
    ],
)
def test_orders_that_are_refused(name: str, listed: list[str], says: str, tmp_path: Path) -> None:
    folder = lay_out(name, tmp_path)
    put(folder / "modules.json", modules(*listed))
    with pytest.raises(Unsupported, match=says):
        SentenceTransformer(folder)


def test_a_pooling_behind_a_table_of_tokens_is_refused(tmp_path: Path) -> None:
    folder = lay_out("static", tmp_path)
    put(folder / "modules.json", modules(f"{BEHIND}StaticEmbedding", f"{BEHIND}Pooling"))
    put(folder / "1_x" / "config.json", {"pooling_mode": "max"})
    with pytest.raises(Unsupported, match="Pooling behind a StaticEmbedding"):
        SentenceTransformer(folder)


@pytest.mark.parametrize(
    "name, path, values, error, says",
    [
        ("cnn", "1_CNN/cnn_config.json", {"kernel_sizes": [1, 2, 5]}, Unsupported, "only odd sizes"),
        ("cnn", "1_CNN/cnn_config.json", {"stride_sizes": [1, 1, 2]}, Unsupported, "one step at a time"),
        ("cnn", "1_CNN/cnn_config.json", {"kernel_sizes": [1, 3, 5, 7]}, WeightsError, "convs.3.weight"),
        ("lstm", "1_LSTM/lstm_config.json", {"num_layers": 3}, WeightsError, "encoder.weight_ih_l2"),
        ("bag", "0_BoW/config.json", {"vocab": []}, ConfigError, "a BoW without words"),
    ],
)
def test_modules_that_do_not_fit(name: str, path: str, values: Any, error: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says):
        SentenceTransformer(changed(lay_out(name, tmp_path), path, **values))


@pytest.mark.parametrize("kind", ["Pooling", "LSTM"])
def test_only_steps_stand_behind_a_bag(kind: str, tmp_path: Path) -> None:
    folder = lay_out("bag", tmp_path)
    inner = {"Pooling": "2_Pooling", "LSTM": "1_LSTM"}[kind]
    write("lstm", folder / "other")
    put(folder / "modules.json", [
        {"idx": 0, "name": "0", "path": "0_BoW", "type": f"{BEHIND}BoW"},
        {"idx": 1, "name": "1", "path": f"other/{inner}", "type": f"{BEHIND}{kind}"},
    ])  # fmt: skip
    with pytest.raises(Unsupported, match="Pooling behind a BoW"):
        SentenceTransformer(folder)


def test_a_recurrent_network_that_reads_one_way(tmp_path: Path) -> None:
    """By the equations of torch.nn.LSTM's page, step by step; the gates are i, f, g, o."""
    folder = lay_out("lstm", tmp_path)
    changed(folder, "1_LSTM/lstm_config.json", num_layers=1, bidirectional=False)
    model = SentenceTransformer(folder)
    said = "red cat dogs are"
    words = json.loads((folder / "whitespacetokenizer_config.json").read_text())["vocab"]
    parts = {name: TENSORS[f"lstm/1_LSTM/model.safetensors:encoder.{name}_l0"]
             for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}  # fmt: skip
    vectors = TENSORS["lstm/model.safetensors:emb_layer.weight"]
    state = memory = torch.zeros(4)
    for word, found in zip(said.split(), model.encode(said, output_value="token_embeddings")):
        gates = parts["weight_ih"] @ vectors[words.index(word)] + parts["bias_ih"]
        i, f, g, o = (gates + parts["weight_hh"] @ state + parts["bias_hh"]).view(4, 4)
        memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
        state = o.sigmoid() * memory.tanh()
        torch.testing.assert_close(found, state, **NEAR)
    assert model.get_embedding_dimension() == 8  # the mean, and the last


def test_layers_that_do_not_fit(tmp_path: Path) -> None:
    """Without output_hidden_states the reference takes the last layer alone, and says nothing."""
    folder = changed(lay_out("layers", tmp_path), "config.json", output_hidden_states=False)
    with pytest.raises(ConfigError, match="output_hidden_states"):
        SentenceTransformer(folder)
    changed(changed(folder, "config.json", output_hidden_states=True), "1_WeightedLayerPooling/config.json",
            layer_start=0)  # fmt: skip
    with pytest.raises(WeightsError, match="2 layer_weights for layers 0 to 2"):
        SentenceTransformer(folder)
    changed(folder, "1_WeightedLayerPooling/config.json", layer_start=7, num_hidden_layers=8)
    with pytest.raises(ConfigError, match="2 weights for the 0 layers"):
        SentenceTransformer(folder).encode("fox")


def test_words_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    kind = "sentence_transformers.models.tokenizer.PhraseTokenizer.PhraseTokenizer"
    folder = changed(lay_out("words", tmp_path), "wordembedding_config.json", tokenizer_class=kind)
    with pytest.raises(Unsupported, match="a WordEmbeddings with a PhraseTokenizer"):
        SentenceTransformer(folder)


def test_a_table_that_is_none(tmp_path: Path) -> None:
    folder = lay_out("static", tmp_path)
    save_file({"other": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="no table of vectors among other"):
        SentenceTransformer(folder)


# --------------------------------------------------------------------------------------------------------- routes


@pytest.mark.parametrize("name", ["router", "ways"])
def test_a_task_names_the_route(name: str, tmp_path: Path) -> None:
    model = make(name, tmp_path)
    query = model.encode(TEXTS, task="query", prompt_name="query", convert_to_tensor=True)
    torch.testing.assert_close(query, TENSORS[f"{name} query"], **NEAR)
    embed = pellucid.pipeline("sentence-embedding", tmp_path / name)
    found = embed(TEXTS, task="query", prompt_name="query", return_tensors=True)
    torch.testing.assert_close(torch.stack(found), query)
    embed.save_pretrained(tmp_path / "saved")
    again = SentenceTransformer(tmp_path / "saved").encode(TEXTS, task="query", prompt_name="query")
    np.testing.assert_array_equal(again, query.numpy())
    assert embed.device == torch.device("cpu") and embed.dtype == torch.float32 and name in repr(embed)


def test_routes_that_are_not_there(tmp_path: Path) -> None:
    model = make("router", tmp_path)
    with pytest.raises(ArgumentError, match="task='qeury'") as error:
        model.encode("fox", task="qeury")
    assert "did you mean 'query'" in str(error.value)
    assert make("static", tmp_path).encode("fox", task="anything").shape == (14,)  # as in the reference
    changed(tmp_path / "router", "router_config.json", parameters={"allow_empty_key": False})
    with pytest.raises(ArgumentError, match="no route for task=None"):
        SentenceTransformer(tmp_path / "router").encode("fox")
    with pytest.raises(ArgumentError, match="tokenizers of its own"):
        pellucid.pipeline("sentence-embedding", tmp_path / "router", tokenizer=model.tokenizer)


def test_routes_behind_one_transformer_share_it(tmp_path: Path) -> None:
    model = make("asym", tmp_path)
    embed = pellucid.pipeline("sentence-embedding", model.model)
    found = torch.stack(embed(TEXTS, task="document", return_tensors=True))
    torch.testing.assert_close(found, TENSORS["asym document"], **NEAR)
    assert len(model._made.sources) == 1


@pytest.mark.parametrize(
    "values, error, says",
    [
        ({"structure": {}}, ConfigError, "no routes"),
        ({"structure": {"query": ["nothing"]}}, ConfigError, "KeyError: 'nothing'"),
        ({"parameters": {"default_route": "web"}}, ConfigError, "web"),
        ({"parameters": {"route_mappings": {"query": "query"}}}, ConfigError, "no routes"),
        ({"parameters": {"route_mappings": {"('query', None)": "web"}}}, ConfigError, "web"),
        ({"types": {"x": "custom.Static"}, "structure": {"query": ["x"]}}, Unsupported, "code of the model folder"),
        ({"types": {"../x": f"{BEHIND}Dense"}, "structure": {"query": ["../x"]}}, ConfigError, "leads out"),
    ],
)
def test_routers_that_are_refused(values: Any, error: Any, says: str, tmp_path: Path) -> None:
    folder = changed(lay_out("router", tmp_path), "router_config.json", **values)
    with pytest.raises(error, match=says):
        SentenceTransformer(folder)


def test_models_for_something_else(tmp_path: Path, shared: Path) -> None:
    with pytest.raises(WeightsError, match="not trained"):
        CrossEncoder(lay_out("transformer", tmp_path))
    with pytest.raises(PellucidError, match="for vectors of texts use SentenceTransformer|not trained"):
        CrossEncoder(shared / "models" / "minilm")
    with pytest.raises(Unsupported, match="a CrossEncoder, not a SentenceTransformer"):
        SentenceTransformer(lay_out("cross-saved", tmp_path))
    with pytest.raises(PellucidError, match="there is no folder|not in the local cache"):
        SentenceTransformer(tmp_path / "nothing")


# --------------------------------------------------------------------------------------------------------- saving


@pytest.mark.parametrize("name", SENTENCES)
def test_saved_and_loaded_is_the_same(name: str, tmp_path: Path) -> None:
    make(name, tmp_path / "a").save_pretrained(tmp_path / "b")
    torch.testing.assert_close(
        SentenceTransformer(tmp_path / "b").encode(TEXTS, convert_to_tensor=True), TENSORS[f"{name} vectors"], **NEAR
    )


def test_settings_are_saved(tmp_path: Path) -> None:
    given: dict[str, Any] = {"prompts": {"web": "dogs : "}, "default_prompt_name": "web", "truncate_dim": 3}
    model = make("mean", tmp_path, similarity_fn_name="dot", **given)
    model.save(str(tmp_path / "b"))
    again = SentenceTransformer(tmp_path / "b")
    assert (again.truncate_dim, again.default_prompt_name, again.similarity_fn_name) == (3, "web", "dot")
    np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))


@pytest.mark.parametrize("name", CROSS)
def test_a_saved_cross_encoder_is_the_same(name: str, tmp_path: Path) -> None:
    CrossEncoder(lay_out(name, tmp_path)).save_pretrained(tmp_path / "b")
    found = CrossEncoder(tmp_path / "b").predict([(QUERY, text) for text in TEXTS], convert_to_tensor=True)
    torch.testing.assert_close(found, TENSORS[f"{name} scores"], **NEAR)


# -------------------------------------------------------------------------------------------------------- vectors


def test_search_in_pieces_is_search_in_one() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, corpus = torch.randn(7, 5, generator=generator), torch.randn(40, 5, generator=generator)
    whole = cos_sim(queries, corpus).topk(6, dim=1)
    for chunks in ({}, {"query_chunk_size": 2, "corpus_chunk_size": 3}):
        found = semantic_search(queries.numpy(), corpus.tolist(), top_k=6, **chunks)
        assert [[hit["corpus_id"] for hit in each] for each in found] == whole.indices.tolist()
        np.testing.assert_allclose([[hit["score"] for hit in each] for each in found], whole.values, atol=1e-6)
    assert len(semantic_search(queries[0], corpus, top_k=100)[0]) == 40
    with pytest.raises(InputError, match="5 dimensions, a corpus of 4"):
        semantic_search(queries, corpus[:, :4])
    with pytest.raises(ArgumentError, match="top_k=0"):
        semantic_search(queries, corpus, top_k=0)


@pytest.mark.parametrize("name", list(SIMILARITIES))
def test_partners_are_the_diagonal(name: Any) -> None:
    of_all, of_partners = SIMILARITIES[name]
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(6, 4, generator=generator), torch.randn(6, 4, generator=generator)
    torch.testing.assert_close(of_all(a, b).diagonal(), of_partners(a, b), rtol=0, atol=1e-6)
    assert of_all(a[0], b).shape == (1, 6) and of_partners(a[0], b[0]).shape == ()
    torch.testing.assert_close(of_all(list(a), [row.numpy() for row in b]), of_all(a, b))


def test_quantized_with_ranges_of_others(caplog: pytest.LogCaptureFixture) -> None:
    """The bound: a value inside the ranges is at most a step above its code's."""
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(2)).numpy()
    ranges = np.stack([x.min(0), x.max(0)])
    with caplog.at_level(logging.WARNING):
        codes = quantize_embeddings(x, "int8")
        assert not caplog.text
        np.testing.assert_array_equal(quantize_embeddings(x[:1], "int8", ranges=ranges), codes[:1])
        np.testing.assert_array_equal(quantize_embeddings(x[0], "int8", calibration_embeddings=x), codes[0])
        assert not caplog.text
        quantize_embeddings(x[: ENOUGH - 1], "uint8")
        assert "99 vectors only" in caplog.text
    step = (ranges[1] - ranges[0]) / 255
    restored = (codes.astype(float) + 128) * step + ranges[0]
    assert ((x - restored) >= -1e-5).all() and ((x - restored) <= step + 1e-5).all()
    with pytest.raises(InputError, match="one vector alone"):
        quantize_embeddings(x[:1], "int8")
    with pytest.raises(InputError, match="no vectors of one length"):
        quantize_embeddings([[1.0, 2.0], [3.0]], "binary")
    for precision in PRECISIONS:
        assert len(quantize_embeddings(x, precision)) == 200


def test_a_model_from_no_folder_has_no_layout() -> None:
    config = pellucid.AutoConfig.for_model(
        "bert", vocab_size=30522, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    tokenizer = pellucid.AutoTokenizer.from_pretrained()
    with pytest.raises(ArgumentError, match="came from no folder"):
        pellucid.pipeline("sentence-embedding", pellucid.AutoModel.from_config(config), tokenizer=tokenizer)
