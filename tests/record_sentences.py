"""Records sentence models as sentence-transformers saves them, and its vectors and scores: tests/data/sentences.*

.venv/bin/pip install --target /tmp/st --no-deps sentence-transformers scikit-learn scipy joblib threadpoolctl \\
    cloudpickle narwhals
.venv/bin/python tests/record_sentences.py /tmp/st

`transformer` is a tiny BERT with loud weights, which every sentence model has; a cross-encoder has weights of its own.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

OUT = Path(__file__).parent / "data" / "sentences"  # .json: files; .safetensors: their tensors, and what came out
TEXTS = [
    "a red fox", "The Red FOX sees a cat", "dogs and cats and foxes are here", "", "zzz ?", "fox",
    "a cat sees a dog and a dog sees a fox and a fox sees a cat and a cat sees a dog and the dog sleeps here",
]  # fmt: skip
QUERY = "the cat"
WORDS = (
    "a the red fox cat dog dogs sees and are here sleeps ##s ##es query passage : ? z ##z T ##h ##e R ##d F ##O ##X O X"
)
PROMPTS = {"query": "query : ", "passage": "passage : ", "sleepy": "sleeps here "}
BAGS = ("bag", "bag-once")
# No transformer, or one of their own:
ALONE = ("static", "model2vec", "words", "words-plain", "cnn", "lstm", *BAGS, "chat", "chat-bare")
JUDGES = ("cross-judge", "cross-judge-bare", "cross-judge-one", "cross-judge-text")
CROSS = (
    ("cross", 1, {}),
    ("cross-identity", 1, {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}),
    ("cross-three", 3, {}),
    ("cross-chat", 1, {"words": "01234"}),  # in which the reference tells a template from its texts
)


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {word: i for i, word in enumerate([*special, *WORDS.split()])}
    rust = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    rust.normalizer = normalizers.NFC()
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rust.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special))
    return PreTrainedTokenizerFast(tokenizer_object=rust, model_max_length=512, **names)


def bert(kind: str, folder: Path, seed: int, words: str = "", **changes: Any) -> Path:
    """A tiny BERT with loud weights, and its tokenizer."""
    import transformers

    tok = tokenizer()
    tok.add_tokens([*words])
    config = transformers.BertConfig(
        vocab_size=len(tok), hidden_size=14, num_hidden_layers=2, num_attention_heads=2, intermediate_size=22,
        max_position_embeddings=20, **changes,
    )  # fmt: skip
    model = getattr(transformers, kind)(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            size = 1 / p.shape[-1] ** 0.5 if p.dim() == 2 else 0.3
            p.copy_(torch.randn(p.shape, generator=generator) * size + (1 if "LayerNorm.weight" in name else 0))
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


CHAT = "{%- for m in messages -%}{{ m.role }} : {{ m.content }} ? {% endfor -%}sleeps here z"
PARTS = CHAT.replace("m.content", "m.content[0].text")


def decoder(folder: Path, seed: int, template: str | None) -> Path:
    """A tiny Llama with loud weights, whose tokenizer knows "yes" and "no"."""
    import transformers

    tok = tokenizer()
    tok.add_tokens(["yes", "no", "document", "user", "system", *"01234"])
    tok.chat_template, tok.model_max_length = template, 24
    config = transformers.LlamaConfig(
        vocab_size=len(tok), hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    model = loud(transformers.LlamaForCausalLM(config).eval(), seed)
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def judges(root: Path) -> None:
    """Language models as cross-encoders: as they are, as version 6 saves them, by one token, without a template."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    decoder(root / "cross-judge-bare", 31, CHAT)
    decoder(root / "cross-judge-text", 32, None)
    saved = CrossEncoder(str(decoder(root / "plain", 33, PARTS)), device="cpu", activation_fn=torch.nn.Identity())
    saved.save_pretrained(str(root / "cross-judge"), create_model_card=False)
    inner = Transformer(str(decoder(root / "plain", 34, CHAT)), transformer_task="text-generation")
    one = CrossEncoder(modules=[inner, LogitScore(9)], device="cpu", prompts={"web": "dogs"}, default_prompt_name="web")
    one.save_pretrained(str(root / "cross-judge-one"), create_model_card=False)
    shutil.rmtree(root / "plain")


def chats(root: Path) -> None:
    """Sentence models of a chat model: as version 6 saves them, and as they are."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as M

    model = M.Transformer(str(decoder(root / "chat-bare", 35, CHAT)))
    saved = SentenceTransformer(modules=[model, M.Pooling(12, ["mean", "lasttoken"])], device="cpu", prompts=PROMPTS)
    saved.save_pretrained(str(root / "chat"), create_model_card=False)


def loud(module: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (p.shape[-1] ** -0.5 if p.dim() == 2 else 0.5))
    return module


def layouts(transformer: Path) -> dict[str, Any]:
    """Name -> a SentenceTransformer of this version."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as M

    def made(*steps: Any, **settings: Any) -> Any:
        return SentenceTransformer(modules=[M.Transformer(str(transformer)), *steps], device="cpu", **settings)

    def pool(mode: Any, **options: Any) -> Any:
        return M.Pooling(14, mode, **options)

    nn = torch.nn
    kinds = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
    found = {kind: made(pool(kind)) for kind in kinds}
    found["joined"] = made(pool(["lasttoken", "cls", "mean", "max"]))
    found |= {f"without-prompt-{kind}": made(pool(kind, include_prompt=False), prompts=PROMPTS) for kind in kinds}
    found["prompts"] = made(pool("mean"), M.Normalize(), prompts=PROMPTS, default_prompt_name="sleepy")
    found["dense"] = made(pool("mean"), loud(M.Dense(14, 9), 1), M.Normalize())
    plain = M.Dense(14, 5, bias=False, activation_function=nn.Identity())
    found["dense-plain"] = made(pool("cls"), M.Normalize(), loud(plain, 2))
    gelu = loud(M.Dense(14, 10, activation_function=nn.GELU(), use_residual=True), 3)
    same = loud(M.Dense(10, 10, activation_function=nn.ReLU(), use_residual=True), 4)
    found["dense-residual"] = made(pool("mean"), gelu, same)
    found["layer-norm"] = made(pool("mean"), loud(M.LayerNorm(14), 5), M.Dropout(0.3))
    found["layers"] = made(loud(M.WeightedLayerPooling(14, 2, 1), 6), pool(["mean", "cls"]))
    asym = {"query": [loud(M.Dense(14, 6), 8)], "document": [loud(M.Dense(14, 6), 9), M.Normalize()]}
    found["asym"] = made(pool("mean"), M.Router(asym))
    found["settings"] = made(pool("mean"), similarity_fn_name="euclidean", truncate_dim=6)
    return found


def tables(transformer: Path) -> dict[str, Any]:
    """Name -> a SentenceTransformer that looks vectors up, for all texts or for queries."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as M
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    def table(width: int, seed: int, rows: int = len(tokenizer())) -> torch.Tensor:
        return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))

    def made(*modules: Any, **settings: Any) -> Any:
        return SentenceTransformer(modules=list(modules), device="cpu", **settings)

    def filled(*around: Any) -> list[Any]:
        """Of words, whose padding is zeros, as the reference's own are: else a text would depend on its company."""
        vectors = table(8, 24, len(vocab))
        vectors[0] = 0
        return [M.WordEmbeddings(split, vectors), *around]

    static = M.StaticEmbedding(tokenizer(), table(14, 20))
    vocab = ["PADDING", "red", "fox", "Fox", "cat", "sees", "the", "dogs", "are"]
    said = ["red", "fox", "cat", "sees", "the", "dogs", "are"]  # all of them: a constant has no int8 code
    split = WhitespaceTokenizer(vocab, stop_words=["the", "a"], do_lower_case=False)
    counts = {"red": 0.5, "fox": 2.0, "dogs": 0.25}
    weights = M.WordWeights(vocab, counts, unknown_word_weight=0.75)
    means = M.Pooling(5, ["mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
    text = [M.Transformer(str(transformer)), M.Pooling(14, "mean")]
    ways = {("query", "text"): "table", (None, "text"): "read"}
    return {
        "static": made(static, M.Normalize(), prompts=PROMPTS),
        "words": made(M.WordEmbeddings(split, table(5, 21, len(vocab)), max_seq_length=6), weights, means),
        "words-plain": made(M.WordEmbeddings(split, table(5, 22, len(vocab))), M.Pooling(5, "mean")),
        "cnn": made(
            *filled(loud(M.CNN(8, 4, [1, 3, 5]), 25), M.Pooling(12, ["mean", "weightedmean"])), prompts=PROMPTS
        ),
        "lstm": made(*filled(loud(M.LSTM(8, 4, num_layers=2), 26), M.Pooling(8, ["mean", "lasttoken"]))),
        "bag": made(M.BoW(said, counts, 0.75), loud(M.Dense(len(said), 6), 27), prompts=PROMPTS),
        "bag-once": made(M.BoW(said, counts, cumulative_term_frequency=False)),
        "router": made(M.Router.for_query_document([static], text), M.Normalize(), prompts=PROMPTS),
        "ways": made(M.Router({"read": text, "table": [static]}, route_mappings=ways)),
    }


def as_model2vec(static: Path, folder: Path) -> None:
    """As model2vec writes it: fewer rows than tokens, which one each has, and how much it counts."""
    shutil.copytree(static, folder)
    rows = load_file(folder / "model.safetensors")["embedding.weight"]
    generator = torch.Generator().manual_seed(23)
    tensors = {
        "embeddings": rows[:11].half(),
        "mapping": torch.randint(0, 11, (len(rows),), generator=generator, dtype=torch.int32),
        "weights": torch.rand(len(rows), generator=generator).double(),
    }
    save_file(tensors, folder / "model.safetensors")


def as_asym(folder: Path) -> None:
    """As versions 2 to 4 wrote a router."""
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.Asym"
    write(folder / "modules.json", modules)
    inner = folder / modules[2]["path"]
    (inner / "router_config.json").rename(inner / "config.json")
    said = json.loads((inner / "config.json").read_text())
    said["parameters"] = {"allow_empty_key": True}
    write(inner / "config.json", said)


def old_layout(transformer: Path, folder: Path) -> None:
    """As versions 0 and 1 wrote it: the transformer in a folder of its own, switches for the pooling, pickles."""
    kinds = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    pooling = {
        "word_embedding_dimension": 14,
        **{f"pooling_mode_{kind}": "x" in kind or "cls" in kind for kind in kinds},
    }
    dense = {"in_features": 28, "out_features": 7, "bias": True,
             "activation_function": "torch.nn.modules.activation.Tanh"}  # fmt: skip
    names = ("Transformer", "Pooling", "Dense")
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{name}", "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(names)
    ]
    shutil.copytree(transformer, folder / "0_Transformer")
    write(folder / "modules.json", modules)
    write(folder / "config.json", {"__version__": "0.3.8"})
    write(folder / "0_Transformer" / "sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": False})
    write(folder / "1_Pooling" / "config.json", pooling)
    write(folder / "2_Dense" / "config.json", dense)
    generator = torch.Generator().manual_seed(7)
    weights = {
        "linear.weight": torch.randn(7, 28, generator=generator) / 5,
        "linear.bias": torch.randn(7, generator=generator),
    }
    torch.save(weights, folder / "2_Dense" / "pytorch_model.bin")


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def main() -> None:
    sys.path.append(sys.argv[1])
    import sentence_transformers
    from sentence_transformers import CrossEncoder, SentenceTransformer

    files: dict[str, Any] = {}
    tensors: dict[str, torch.Tensor] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        transformer = bert("BertModel", root / "transformer", 11)
        for name, model in {**layouts(transformer), **tables(transformer)}.items():
            model.save_pretrained(str(root / name), create_model_card=False)
        write(
            root / "layers" / "config.json",
            {**json.loads((transformer / "config.json").read_text()), "output_hidden_states": True},
        )
        as_model2vec(root / "static", root / "model2vec")
        as_asym(root / "asym")
        chats(root)
        write(root / "settings" / "sentence_bert_config.json", {"max_seq_length": 9, "do_lower_case": True})
        old_layout(transformer, root / "old")
        for folder in [each for each in root.iterdir() if each != transformer]:
            tensors |= of_sentences(folder.name, SentenceTransformer(str(folder), device="cpu"))
        for name, labels, said in CROSS:
            folder = bert("BertForSequenceClassification", root / name, 13 + labels, num_labels=labels, **said)
            if name == "cross-chat":
                (folder / "chat_template.jinja").write_text(CHAT)
            tensors |= of_pairs(name, CrossEncoder(str(folder), device="cpu"))
        prompts = {"prompts": {"web": "dogs : "}, "default_prompt_name": "web"}
        saved = CrossEncoder(str(root / "cross-identity"), device="cpu", **prompts)
        saved.save_pretrained(str(root / "cross-saved"), create_model_card=False)
        tensors |= of_pairs("cross-saved", CrossEncoder(str(root / "cross-saved"), device="cpu"))
        judges(root)
        for name in JUDGES:
            tensors |= of_pairs(name, CrossEncoder(str(root / name), device="cpu"))
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            keep(path, root, files, tensors)
    metadata = {"made by": f"sentence-transformers {sentence_transformers.__version__}"}
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, f"{OUT}.safetensors", metadata)
    Path(f"{OUT}.safetensors").chmod(0o644)
    write(Path(f"{OUT}.json"), {"texts": TEXTS, "query": QUERY, "files": files})


def keep(path: Path, root: Path, files: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """A file as JSON, or its tensors; but not what a sentence model's folder has from `transformer`."""
    inner = path.relative_to(root)
    whole = ("transformer", "old", "cross-saved", *ALONE, *JUDGES, *(name for name, *_ in CROSS))
    borrowed = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    if len(inner.parts) == 2 and inner.parts[0] not in whole and inner.name in borrowed and not is_own(inner):
        return
    if inner.parts[0] in ("router", "ways") and "Transformer" in inner.parent.name and inner.name in borrowed:
        return
    if inner.parts[:2] == ("old", "0_Transformer") and inner.name != "sentence_bert_config.json":
        return
    if path.suffix == ".json":
        files[str(inner)] = json.loads(path.read_text())
    elif path.suffix == ".jinja":
        files[str(inner)] = path.read_text()
    else:
        found = load_file(path) if path.suffix == ".safetensors" else torch.load(path)
        tensors |= {f"{inner}:{key}": value for key, value in found.items()}


def is_own(inner: Path) -> bool:
    return inner == Path("layers/config.json")


def of_sentences(name: str, model: Any) -> dict[str, torch.Tensor]:
    """What a layout is compared by."""
    as_tensor = {"convert_to_tensor": True}
    plain = model.encode(TEXTS, **as_tensor)
    found = {"vectors": plain, "similarity": model.similarity(plain, plain)}
    found["pairwise"] = model.similarity_pairwise(plain, plain.flip(0))
    found["query"] = model.encode_query(TEXTS, **as_tensor)
    found["document"] = model.encode_document(TEXTS, **as_tensor)
    found["prompt"] = model.encode(TEXTS, prompt="red fox : ", **as_tensor)
    found["unit"] = model.encode(TEXTS, normalize_embeddings=True, truncate_dim=4, **as_tensor)
    if name not in ("static", "model2vec", *BAGS):  # which have none in the reference
        found["states"] = model.encode(TEXTS[1], output_value="token_embeddings")
    found["longest"] = torch.tensor(0 if model.max_seq_length in (None, math.inf) else model.max_seq_length)
    for precision in ("int8", "uint8", "binary", "ubinary"):
        found[precision] = torch.from_numpy(model.encode(TEXTS, precision=precision))
    return {f"{name} {key}": value for key, value in found.items()}


def of_pairs(name: str, model: Any) -> dict[str, torch.Tensor]:
    pairs = [(QUERY, text) for text in TEXTS]
    found = {
        "scores": model.predict(pairs, convert_to_tensor=True),
        "prompt": model.predict(pairs, prompt="dog : ", convert_to_tensor=True),
    }
    found["softmax"] = model.predict(pairs, apply_softmax=True, convert_to_tensor=True)
    found["tanh"] = model.predict(pairs, activation_fn=torch.nn.Tanh(), convert_to_tensor=True)
    found["longest"] = torch.tensor(model.max_seq_length)
    if model.num_labels == 1:
        ranked = model.rank(QUERY, TEXTS)
        found["ranks"] = torch.tensor([each["corpus_id"] for each in ranked])
    return {f"{name} {key}": value for key, value in found.items()}


if __name__ == "__main__":
    main()
