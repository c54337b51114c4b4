"""How sentence-transformers lays a sentence model out in a folder, read into what `sentences.py` computes.

    modules.json                        the modules in their order: a source of token states, then steps to one vector
    config_sentence_transformers.json   prompts, the similarity, dimensions to cut to
    sentence_bert_config.json           the longest text, beside the Transformer's own files
    1_Pooling/config.json, 2_Dense/…    a folder for each step; see `sentence_modules.py`

A Router (Asym, before version 5) has modules of its own for queries, documents and so on: each of its routes is a chain
of what stands before it, its own modules, and what stands behind. A module that is not here is refused by its name, and
code that a folder brings is not run.
"""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pellucid import gguf
from pellucid.config import read_json
from pellucid.errors import ArgumentError, ConfigError, PellucidError, Unsupported, nearest
from pellucid.tasks.chat_rows import Rendering
from pellucid.tasks.sentence_modules import MODULES, TRANSFORMER, Chain, Kind, Pool, Transformer, read_chain, read_pool
from pellucid.weights.save import replace_file

log = logging.getLogger("pellucid")

LIST, SETTINGS = "modules.json", "config_sentence_transformers.json"
ROUTERS = ("Router", "Asym")
ROUTES = ("router_config.json", "config.json")  # of a router, since version 5 and before
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
Named = tuple[str, Path]  # a module's kind and its folder


@dataclass(frozen=True)
class Router:
    """Which route a text takes.

    Args:
        routes: the modules of each.
        default: the route where no task is named; None for an error.
        mapping: routes of a task and a modality, None for any.
    """

    routes: dict[str, list[Named]]
    default: str | None
    mapping: dict[tuple[str | None, str | None], str]

    def route(self, task: str | None) -> str:
        """The route of a text with such a task ("query", "document" …).

        Raises:
            ArgumentError: there is none.
        """
        for key in ((task, "text"), (task, None), (None, "text"), (None, None)):
            if key in self.mapping:
                return self.mapping[key]
        found = next((name for name in (task, "text") if name in self.routes), None)
        if found is None and task is None:
            found = self.default
        if found is None:
            known = dict.fromkeys([*self.routes, *(key[0] for key in self.mapping if key[0])])
            what = f"the model has no route for task={task!r}"
            raise ArgumentError(what, where="task", next=nearest(str(task), known) or f"known: {', '.join(known)}")
        return found


@dataclass(frozen=True)
class Layout:
    """A sentence model without its transformers.

    Args:
        chains: by the names of their routes; one without a name where there is no router.
        assumed: what the folder does not say, and was assumed.
    """

    folder: Path
    chains: dict[str, Chain]
    router: Router | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: Similarity = "cosine"
    dim: int | None = None
    assumed: str = ""

    @property
    def transformers(self) -> dict[Path, Transformer]:
        """The transformers of all routes, each once, by their folders."""
        sources = [chain.source for chain in self.chains.values()]
        return {source.folder: source for source in sources if isinstance(source, Transformer)}

    def chain(self, task: str | None) -> str:
        """The name of the chain for a task; a model without routes has one for all."""
        return self.router.route(task) if self.router else next(iter(self.chains))


def is_sentence_model(folder: Path) -> bool:
    """Whether a folder, or the one above it that names it as its transformer, has the layout."""
    return _above(folder) is not None


def read_layout(folder: Path) -> Layout:
    """The layout of a folder. One without modules.json is a bare transformer: its mean, or a decoder's last token.

    Raises:
        ConfigError: a file is broken or contradicts another. WeightsError: a step has no weights.
        Unsupported: names the module that is not done here.
    """
    top = _above(folder)
    if top is None:
        return _assumed(folder)
    modules, settings = read_modules(top), read_settings(top, "SentenceTransformer")
    routed = [i for i, (kind, _) in enumerate(modules) if kind in ROUTERS]
    if not routed:
        return Layout(top, {"": read_chain(modules, top / LIST)}, **vars(settings))
    if len(routed) > 1:
        raise Unsupported(f"{len(routed)} routers", where=top / LIST, next="one at most")
    before, behind = modules[: routed[0]], modules[routed[0] + 1 :]
    where, router = modules[routed[0]][1], read_router(modules[routed[0]][1])
    chains = {name: read_chain([*before, *own, *behind], where) for name, own in router.routes.items()}
    return Layout(top, chains, router, **vars(settings))


def _above(folder: Path) -> Path | None:
    """The folder that has modules.json: this one, or the one above, where old versions kept 0_Transformer."""
    if (folder / LIST).is_file():
        return folder
    outer = folder.parent
    if (outer / LIST).is_file() and any(path == folder for _, path in read_modules(outer)):
        return outer
    return None


def _assumed(folder: Path) -> Layout:
    """A folder without modules.json, or a GGUF file, which may say how its tokens become a vector."""
    if folder.is_dir():
        names = read_json(folder / "config.json").get("architectures") or [""]
        kind, lacks = None, f"has no {LIST}"
        decoder = str(names[0]).endswith("ForCausalLM")
    else:
        kind, decoder = of_gguf(folder)
        lacks = "does not say how to pool"
    source = Transformer(folder, chat="if there is one")
    if kind is not None:
        return Layout(folder, {"": Chain(source, Pool((kind,)))})
    said = "the last token of a text" if decoder else "the mean of a text's tokens"
    chain = Chain(source, Pool(("lasttoken" if decoder else "mean",)))
    return Layout(folder, {"": chain}, assumed=f"{folder} {lacks}: {said} is its vector")


POOLINGS: dict[int, Kind] = {1: "mean", 2: "cls", 3: "lasttoken"}  # as llama.cpp counts them; 0 says nothing
RANK = 4


def of_gguf(path: Path) -> tuple[Kind | None, bool]:
    """How a file says that tokens become a vector, and whether its model is a decoder.

    Raises:
        Unsupported: it is a reranker's.
    """
    metadata = gguf.read(path).metadata
    family = metadata.get("general.architecture")
    pooling = metadata.get(f"{family}.pooling_type", 0)
    if pooling == RANK:
        raise Unsupported("the file's model gives scores, not vectors", where=path, next="use `pellucid rerank`")
    causal = metadata.get(f"{family}.attention.causal", family != "t5encoder")
    return (POOLINGS.get(pooling) if isinstance(pooling, int) else None), bool(causal)


def said_in_gguf(folder: Path) -> tuple[dict[str, int], list[str]]:
    """What a GGUF file made of a sentence model's folder says beside its transformer, and what it cannot say.

    Returns:
        the value of `pooling_type`, under that name, where the folder has a pooling that llama.cpp counts; and notes.
    """
    if not (folder / LIST).is_file():
        return {}, []
    try:
        modules = dict(read_modules(folder))
        pool = read_pool(modules["Pooling"]) if "Pooling" in modules else None
        prompts = (
            [text for text in read_settings(folder, "SentenceTransformer").prompts.values() if text] if pool else []
        )
    except PellucidError as error:
        return {}, [f"the file does not say how tokens become a vector: {error.what}"]
    number = next((number for number, kind in POOLINGS.items() if pool and pool.kinds == (kind,)), None)
    told = ("Transformer", "Dropout", *(["Pooling"] if number else []))
    lost = [*(kind for kind in modules if kind not in told), *(["prompts"] if prompts else [])]
    notes = [f"left out, as a GGUF file cannot say it: {', '.join(lost)}"] if lost else []
    return ({"pooling_type": number} if number else {}), notes


def read_modules(top: Path) -> list[Named]:
    """Each module's kind and folder, in their order."""
    try:
        found = json.loads((top / LIST).read_text("utf-8"))
        entries = [(str(entry["type"]), str(entry["path"])) for entry in sorted(found, key=lambda entry: entry["idx"])]
        if not entries:
            raise ValueError("it is empty")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"{LIST} is no list of modules: {type(error).__name__}: {error}"
        raise ConfigError(what, where=top / LIST, next="download the file again, or correct it") from None
    return [_named(name, path, top, top / LIST) for name, path in entries]


def _named(name: str, path: str, top: Path, where: Path) -> Named:
    kind = name.rpartition(".")[2]
    if not name.startswith("sentence_transformers."):
        what = f"the module {name} is code of the model folder, which is not run"
        raise Unsupported(what, where=where, next=f"give a model of known modules; {HERE}")
    if kind not in (*MODULES, *ROUTERS, *OF_PAIRS):
        raise Unsupported(f"a {kind} module", where=where, next=HERE)
    if not (top / path).resolve().is_relative_to(top.resolve()):
        raise ConfigError(f"the module's path {path!r} leads out of the folder", where=where, next="correct it")
    return kind, top / path if path else top


OF_PAIRS = ("LogitScore",)  # modules of cross-encoders: see `reranking.py`
HERE = f"known are {', '.join(MODULES)} and Router"


def read_router(folder: Path) -> Router:
    """The routes of a router's folder.

    Raises:
        ConfigError: the file is broken. Unsupported: names a module that is not done here.
    """
    path = next((folder / name for name in ROUTES if (folder / name).is_file()), folder / ROUTES[0])
    values = read_json(path)
    try:
        types, said = values["types"], values.get("parameters", {})
        routes = {
            str(name): [_named(str(types[part]), str(part), folder, path) for part in parts]
            for name, parts in values["structure"].items()
        }
        mapping = {ast.literal_eval(key): str(name) for key, name in (said.get("route_mappings") or {}).items()}
        default = said.get("default_route") or (next(iter(routes)) if said.get("allow_empty_key", True) else None)
        unknown = {*mapping.values(), *([default] if default else ())} - {*routes}
        if unknown or not routes or not all(isinstance(key, tuple) and len(key) == 2 for key in mapping):
            raise ValueError(f"routes {[*routes]}, and what leads to them: {mapping}, {default}")
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, SyntaxError) as error:
        what = f"{path.name} says no routes: {type(error).__name__}: {error}"
        raise ConfigError(what, where=path, next="download the file again, or correct it") from None
    return Router(routes, default, mapping)


def prompt_named(name: str | None, prompts: Mapping[str, str], default: str | None) -> str:
    """A prompt by its name, the default one for None; "query" and "document" are empty where a model has none.

    Raises:
        ArgumentError: there is no such prompt.
    """
    name = default if name is None else name
    if name is None:
        return ""
    known = {"query": "", "document": "", **prompts}
    if name not in known:
        hint = nearest(name, known) or f"known: {', '.join(known)}; or pass the text itself: prompt="
        raise ArgumentError(f"there is no prompt {name!r}", where="prompt_name", next=hint)
    return known[name]


@dataclass(frozen=True)
class Settings:
    """What config_sentence_transformers.json says; see `Layout`."""

    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: Similarity = "cosine"
    dim: int | None = None


def read_settings(top: Path, wanted: str) -> Settings:
    """The settings of a folder, of the kind of model that is wanted.

    Raises:
        ConfigError: a value makes no sense. Unsupported: the folder is a model of another kind.
    """
    path = top / SETTINGS
    values = read_json(path) if path.is_file() else {}
    if (kind := values.get("model_type", wanted)) != wanted:
        raise Unsupported(f"the folder is a {kind}, not a {wanted}", where=path, next=f"give a {wanted}")
    prompts = {str(name): text or "" for name, text in (values.get("prompts") or {}).items()}
    default, similarity, dim = (
        values.get(key) for key in ("default_prompt_name", "similarity_fn_name", "truncate_dim")
    )
    if not all(isinstance(text, str) for text in prompts.values()):
        raise ConfigError(f"prompts={prompts!r}", where=path, next="each is a name and a text")
    if default is not None and default not in prompts:
        what = f"default_prompt_name={default!r} is none of {[*prompts]}"
        raise ConfigError(what, where=path, next="correct the file")
    if similarity not in (None, *get_args(Similarity)):
        what = f"similarity_fn_name={similarity!r}"
        raise ConfigError(what, where=path, next=f"one of {', '.join(get_args(Similarity))}")
    if dim is not None and (type(dim) is not int or dim < 1):
        raise ConfigError(f"truncate_dim={dim!r}", where=path, next="a whole number, at least 1")
    return Settings(prompts, default, similarity or "cosine", dim)


# -------------------------------------------------------------------------------------------------------- saving


def write_assumed(
    layout: Layout, width: int, chat: Rendering | None, target: Path, settings: Mapping[str, Any]
) -> None:
    """Writes what was assumed of a bare transformer, so that it is said from now on."""
    pool = layout.chains[""].pool
    assert pool is not None  # of a bare transformer there is one
    kinds = [f"{BASE}.Transformer", f"{BASE.replace('base', 'sentence_transformer')}.Pooling"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(zip(("", POOL), kinds))
    ]
    reads = {"method": "forward", "method_output_name": "last_hidden_state"}
    message = {} if chat is None else {"message": {**reads, "format": "structured" if chat.parts else "flat"}}
    written = {
        LIST: modules,
        SETTINGS: settings,
        TRANSFORMER[0]: {
            "transformer_task": "feature-extraction", "modality_config": {"text": reads, **message},
            "module_output_name": "token_embeddings",
        },
        f"{POOL}/config.json": {"embedding_dimension": width, "pooling_mode": pool.kinds[0], "include_prompt": True},
    }  # fmt: skip
    (target / POOL).mkdir(parents=True, exist_ok=True)
    for name, value in written.items():
        replace_file(target / name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


BASE, POOL = "sentence_transformers.base.modules", "1_Pooling"


def copy_layout(top: Path, target: Path, settings: Mapping[str, Any]) -> None:
    """Writes what a layout has beside the transformers' own files: the modules, and settings over those of before."""
    if not (top / LIST).is_file():
        return
    for kind, path in _with_routes(read_modules(top)):
        here = target / path.relative_to(top)
        names = TRANSFORMER if kind == "Transformer" else [each.name for each in path.glob("*") if each.is_file()]
        for name in names:
            if (path / name).is_file():
                here.mkdir(parents=True, exist_ok=True)
                replace_file(here / name, (path / name).read_bytes())
        if kind == "Normalize":
            here.mkdir(parents=True, exist_ok=True)
    replace_file(target / LIST, (top / LIST).read_bytes())
    before = read_json(top / SETTINGS) if (top / SETTINGS).is_file() else {}
    replace_file(target / SETTINGS, json.dumps({**before, **settings}, indent=2, ensure_ascii=False) + "\n")


def _with_routes(modules: Iterable[Named]) -> list[Named]:
    """The modules, and those of routers among them."""
    found: list[Named] = []
    for kind, path in modules:
        own = read_router(path).routes.values() if kind in ROUTERS else ()
        found += [(kind, path), *(each for route in own for each in route)]
    return found
