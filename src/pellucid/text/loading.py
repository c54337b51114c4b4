"""A folder -> a Tokenizer: its configuration, the special tokens and their ids, the chat template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tokenizers import AddedToken
from tokenizers import Tokenizer as RustTokenizer

from pellucid.errors import ArgumentError, TokenizerError
from pellucid.text import convert, finding
from pellucid.text.chats import named
from pellucid.text.classes import MODEL_TYPES, ROLES, TokenizerClass, row
from pellucid.text.formats import sentencepiece

if TYPE_CHECKING:
    from pellucid.text.faces import Face
    from pellucid.text.tokenizer import Tokenizer

UNLIMITED = int(1e30)  # model_max_length where nobody knows; transformers reads 1e20 and more so
CONFIG = "tokenizer_config.json"
ORIGINAL = "original_tokenizer_class"  # kept by `save_pretrained`, for the methods that a class has


def load(cls: type[Tokenizer], folder: Path, asked: dict[str, Any], known: Iterable[str]) -> Tokenizer:
    """`Tokenizer.from_folder`, with the arguments that were given; `known` are all that it takes."""
    gguf_file = asked.pop("gguf_file", None)
    config = convert.read_json(folder / CONFIG)
    if "added_tokens_decoder" not in config:
        config |= convert.read_json(folder / "special_tokens_map.json")
    config |= asked
    if "extra_special_tokens" not in asked and config.get("additional_special_tokens"):
        config["extra_special_tokens"] = config["additional_special_tokens"]
    model = convert.read_json(folder / "config.json")
    asked_name = (
        config.get(ORIGINAL) or config.get("tokenizer_class") or MODEL_TYPES.get(str(model.get("model_type")), "")
    )
    described = finding.find(folder, gguf_file, asked_name, config, model.get("vocab_size"))
    if described is not None:
        name, config = asked_name, described.config | config
        defaults = _with_face(described.row, asked_name)
    else:
        name, defaults = convert.choose(folder, asked_name)
    options = dict(defaults.options)
    options |= {key: config[key] for key in {*known, *options} if config.get(key) is not None}
    from_json = described is None and (folder / "tokenizer.json").is_file()
    roles = {role: config.get(role, defaults.tokens.get(role)) for role in (*ROLES, *defaults.tokens)}
    roles |= _own_roles(config)
    if described is not None:
        rust = convert.build_described(folder, described, options)
    else:
        rust = convert.build(folder, name, defaults, options, text_of(roles["unk_token"]))
    extra = _extra_tokens(config, options)
    if from_json or described is not None:
        for role in (*ROLES, *defaults.tokens):  # a default that this vocabulary does not have is not a fact about it
            if role not in config and rust.token_to_id(text_of(roles[role]) or "") is None:
                roles[role] = None
    if from_json:
        _use_json_settings(rust, config, roles)
        _patch(rust, folder, defaults, config, asked)
    else:
        extra += [text for text in _class_tokens(defaults, options) if text not in map(text_of, extra)]
        roles |= {role: _swallowing(text) for role in defaults.swallows if isinstance(text := roles[role], str)}
    _add_tokens(rust, folder, config, roles, extra)
    texts = {role: text_of(token) for role, token in roles.items()}
    if not from_json or "add_bos_token" in asked or "add_eos_token" in asked or rust.post_processor is None:
        convert.post_processor(rust, defaults, options, texts)
    rust.encode_special_tokens = bool(config.get("split_special_tokens"))
    limit = config.get("model_max_length", config.get("max_len", options.get("model_max_length")))
    kept = {"pad_token_type_id": options["pad_token_type_id"]} if "pad_token_type_id" in options else {}
    kept |= {ORIGINAL: name} if defaults.face else {}
    tokenizer = _face(cls, defaults.face)(
        rust,
        roles=texts,
        extra_special_tokens=[text_of(token) or "" for token in extra],
        model_input_names=config.get("model_input_names") or defaults.inputs,
        model_max_length=UNLIMITED if limit is None else int(limit),
        padding_side=config.get("padding_side") or defaults.padding_side,
        truncation_side=config.get("truncation_side") or "right",
        clean_up_tokenization_spaces=bool(config.get("clean_up_tokenization_spaces")),
        chat_template=named.find(folder, config, asked),
        name_or_path=str(folder),
        config=config | kept,
    )
    if defaults.face:
        cast("Face", tokenizer).begin(folder, defaults, options)
    return tokenizer


def _with_face(found: TokenizerClass, name: str) -> TokenizerClass:
    """The row of a file that describes itself, with the methods of the class that is named beside it (Whisper's)."""
    named_row = row(name)
    return replace(found, face=named_row.face, options=named_row.options | found.options) if named_row.face else found


def _face(cls: type[Tokenizer], name: str) -> type[Tokenizer]:
    """`cls`, or the subclass that has the methods of a class, such as `src_lang`."""
    if not name:
        return cls
    from pellucid.text.faces import FACES

    return cls if issubclass(cls, FACES[name]) else FACES[name]


def _class_tokens(defaults: TokenizerClass, options: Mapping[str, Any]) -> list[str]:
    """Special tokens without a role that a class has by itself: languages, placeholders."""
    return [*sentencepiece.language_tokens(defaults, options), *defaults.extra]


def _swallowing(token: str) -> AddedToken:
    """A special token that takes the space before it."""
    return AddedToken(token, lstrip=True, special=True, normalized=False)


def _use_json_settings(rust: RustTokenizer, config: dict[str, Any], roles: dict[str, Any]) -> None:
    """A tokenizer.json may carry padding and truncation: their sides and pad token are defaults, no more."""
    if rust.truncation is not None:
        config.setdefault("truncation_side", rust.truncation["direction"])
    if rust.padding is not None:
        config.setdefault("padding_side", rust.padding["direction"])
        roles["pad_token"] = roles["pad_token"] or rust.padding["pad_token"]


def _patch(
    rust: RustTokenizer,
    folder: Path,
    defaults: TokenizerClass,
    config: Mapping[str, Any],
    asked: Mapping[str, Any],
) -> None:
    """Options on top of a tokenizer.json. One that was asked for and has nothing to act on is an error."""
    own = {"wordpiece", "bpe"} & {defaults.vocabulary}
    for option in convert.PATCHES:
        if option in asked or (own and option in config and config[option] is not None):
            done = convert.patch(rust, option, config[option])
            if option in asked and not done:
                kind = convert.PATCHES[option][0]
                raise ArgumentError(f"{option} acts on a {kind}, and this tokenizer.json has none", where=folder)


def _own_roles(config: Mapping[str, Any]) -> dict[str, Any]:
    """Named special tokens beyond the usual ones: `image_token`, or an object in `extra_special_tokens`."""
    named = config.get("extra_special_tokens")
    found = dict(named) if isinstance(named, dict) else {}
    for key, value in config.items():
        if key.endswith("_token") and key not in ROLES and isinstance(value, str | dict):
            found[key] = value
    return found


def _extra_tokens(config: Mapping[str, Any], options: Mapping[str, Any]) -> list[Any]:
    """Special tokens without a role; T5's sentinels are among them."""
    extra = config.get("extra_special_tokens") or []
    found = [] if isinstance(extra, dict) else list(extra)
    texts = {text_of(token) for token in found}
    sentinels = sentencepiece.sentinel_tokens(options)
    return found if any(text in texts for text in sentinels) else [*found, *sentinels]


def _add_tokens(
    rust: RustTokenizer,
    folder: Path,
    config: Mapping[str, Any],
    roles: Mapping[str, Any],
    extra: Iterable[Any],
) -> None:
    """Tokens that the configuration lists and the vocabulary lacks, at the ids that it gives them."""
    listed = {int(id): token_of(token) for id, token in (config.get("added_tokens_decoder") or {}).items()}
    if not listed:
        special = {text_of(token) for token in [*roles.values(), *extra]}
        for text, id in convert.read_json(folder / "added_tokens.json").items():
            listed[int(id)] = AddedToken(text, normalized=text not in special, special=text in special)
    # The options of a token (lstrip …) may be stated in either place.
    stated = {token.content: token for token in listed.values()}
    for token in [*roles.values(), *extra]:
        if token is not None:
            stated.setdefault(text_of(token) or "", token_of(token, special=True))
    have = {token.content for token in rust.get_added_tokens_decoder().values()}
    with convert.rust_errors(folder):
        for _, token in sorted(listed.items()):
            if token.content not in have:
                rust.add_tokens([token])
        have |= {token.content for token in listed.values()}
        rust.add_tokens([token for text, token in stated.items() if text not in have])
    for id, token in listed.items():
        if rust.token_to_id(token.content) != id:
            raise TokenizerError(
                f"{token.content!r} is listed with id {id}, and has id {rust.token_to_id(token.content)}",
                where=folder,
                next="the vocabulary and the list of added tokens belong to different models",
            )


def text_of(token: Any) -> str | None:
    """The text of a token as the files write it: a string, or an object with `content`."""
    return token["content"] if isinstance(token, dict) else None if token is None else str(token)


def token_of(token: Any, *, special: bool = False) -> AddedToken:
    """The same with its options; special tokens are found in the raw text (`normalized` is False)."""
    if isinstance(token, AddedToken):
        return token
    if isinstance(token, dict):
        known = ("single_word", "lstrip", "rstrip", "normalized", "special")
        options = {key: bool(token[key]) for key in known if key in token}
        return AddedToken(token["content"], **(options | ({"special": True} if special else {})))
    return AddedToken(str(token), special=special, normalized=not special)
