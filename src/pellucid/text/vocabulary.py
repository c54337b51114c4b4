"""Tokens and their ids: the vocabulary, added tokens, and the special ones that have a role (`pad_token` …).

`Tokenizer` is a `Vocabulary` that also encodes and decodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import AddedToken as AddedToken
from tokenizers import Tokenizer as RustTokenizer

from pellucid.errors import ArgumentError, InputError, TokenizerError, nearest, strict
from pellucid.text import loading
from pellucid.text.classes import ROLES
from pellucid.text.formats.bpe import MISSING


class Role:
    """A special token as text: `tok.eos_token`; None where the tokenizer has none."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, tok: Vocabulary, owner: type | None = None) -> str | None:
        return tok._roles[self.name]

    def __set__(self, tok: Vocabulary, value: str | AddedToken | None) -> None:
        tok._set_role(self.name, value)


class RoleId:
    """The same as an id: `tok.eos_token_id`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.role = name.removesuffix("_id")

    def __get__(self, tok: Vocabulary, owner: type | None = None) -> int | None:
        text = tok._roles[self.role]
        return None if text is None else tok.rust.token_to_id(text)

    def __set__(self, tok: Vocabulary, value: int | None) -> None:
        tok._set_role_id(self.role, value)


class Vocabulary:
    """What `tokenizers` calls a Tokenizer, with names for its special tokens.

    `rust` is the Rust tokenizer, for reading; to change it, take `backend_tokenizer`.
    """

    bos_token, bos_token_id = Role(), RoleId()
    eos_token, eos_token_id = Role(), RoleId()
    unk_token, unk_token_id = Role(), RoleId()
    sep_token, sep_token_id = Role(), RoleId()
    pad_token, pad_token_id = Role(), RoleId()
    cls_token, cls_token_id = Role(), RoleId()
    mask_token, mask_token_id = Role(), RoleId()

    def __init__(
        self, rust: RustTokenizer, roles: Mapping[str, str | None], extra_special_tokens: Iterable[str | AddedToken]
    ) -> None:
        self.rust = rust
        self._lent = False
        self._behind = rust.token_to_id(MISSING)
        self._roles = dict.fromkeys(ROLES) | dict(roles)
        self.extra_special_tokens = [str(token) for token in extra_special_tokens]

    def __getattr__(self, name: str) -> Any:
        """Special tokens of one model's own, such as `image_token`, and their ids."""
        roles = vars(self).get("_roles", {})
        if name in roles:
            return roles[name]
        if name.endswith("_id") and (text := roles.get(name.removesuffix("_id"))) is not None:
            return self.rust.token_to_id(text)
        raise AttributeError(f"a tokenizer has no {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        """The same names, set."""
        own = () if hasattr(type(self), name) else vars(self).get("_roles", ())
        if name in own:
            self._set_role(name, value)
        elif name.endswith("_id") and name.removesuffix("_id") in own:
            self._set_role_id(name.removesuffix("_id"), value)
        else:
            super().__setattr__(name, value)

    @property
    def backend_tokenizer(self) -> RustTokenizer:
        """The Rust tokenizer, to change.

        Who has it may change it at any time, so from here on nothing is kept that was derived from it: a call with
        truncation or padding takes some microseconds more for each added token.
        """
        self._lent = True
        self._changed()
        return self.rust

    @property
    def _tokenizer(self) -> RustTokenizer:
        """The name that scripts for the reference use."""
        return self.backend_tokenizer

    def _changed(self) -> None:
        """What was derived from the Rust tokenizer holds no more."""

    # ---- all tokens ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many tokens, added ones included."""
        return self.rust.get_vocab_size(with_added_tokens=True)

    def __bool__(self) -> bool:
        return True

    @property
    def vocab_size(self) -> int:
        """How many tokens, added ones not included."""
        return self.rust.get_vocab_size(with_added_tokens=False) if self._behind is None else self._behind

    @property
    def vocab(self) -> dict[str, int]:
        return self.get_vocab()

    def get_vocab(self) -> dict[str, int]:
        """Every token with its id."""
        return self.rust.get_vocab(with_added_tokens=True)

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Tokens that are found before the text is split, with their options, by id."""
        return self.rust.get_added_tokens_decoder()

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        return self.get_added_vocab()

    def get_added_vocab(self) -> dict[str, int]:
        """The same by text, in the order of the ids."""
        return {token.content: id for id, token in sorted(self.added_tokens_decoder.items())}

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a token, or of each; unknown tokens have the unknown id, None if there is none."""
        if isinstance(tokens, str | AddedToken):
            found = self.rust.token_to_id(str(tokens))
            return self.unk_token_id if found is None else found
        if tokens is None:
            return None
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or of each; None for an id without a token."""
        ids = plain(ids)
        if isinstance(ids, int):
            return self._token(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._token(id) for id in ids if id not in skipped]

    def _token(self, id: Any) -> str | None:
        if not isinstance(id, int) or not 0 <= id < 2**32:
            raise InputError(f"{id!r} ({type(id).__name__}) is no id", next="ids are whole numbers from 0")
        return self.rust.id_to_token(id)

    # ---- special tokens -----------------------------------------------------------------------------------

    @property
    def SPECIAL_TOKENS_ATTRIBUTES(self) -> list[str]:  # noqa: N802  the reference's name
        """The names of all roles."""
        return list(self._roles)

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """Role -> text, for the roles that this tokenizer has."""
        return {role: text for role, text in self._roles.items() if text is not None}

    @property
    def special_tokens_map_extended(self) -> dict[str, Any]:
        """The same as `AddedToken`s, which know their options, and the special tokens without a role (version 4)."""
        options = {token.content: token for token in self.added_tokens_decoder.values()}
        found: dict[str, Any] = {role: options.get(text, text) for role, text in self.special_tokens_map.items()}
        if self.extra_special_tokens:
            found["additional_special_tokens"] = [options.get(text, text) for text in self.extra_special_tokens]
        return found

    @property
    def additional_special_tokens(self) -> list[str]:
        """Version 4's name for `extra_special_tokens`."""
        return self.extra_special_tokens

    @additional_special_tokens.setter
    def additional_special_tokens(self, value: Iterable[str | AddedToken]) -> None:
        self.extra_special_tokens = [str(token) for token in value]

    @property
    def extra_special_tokens_ids(self) -> list[int]:
        return list(self.convert_tokens_to_ids(self.extra_special_tokens))

    @property
    def additional_special_tokens_ids(self) -> list[int]:
        return self.extra_special_tokens_ids

    @property
    def all_special_tokens(self) -> list[str]:
        """Texts of all special tokens, those with a role first."""
        return list(dict.fromkeys([*self.special_tokens_map.values(), *self.extra_special_tokens]))

    @property
    def all_special_tokens_extended(self) -> list[str | AddedToken]:
        options = {token.content: token for token in self.added_tokens_decoder.values()}
        return [options.get(text, text) for text in self.all_special_tokens]

    @property
    def all_special_ids(self) -> list[int]:
        return [self.convert_tokens_to_ids(token) for token in self.all_special_tokens]

    @property
    def pad_token_type_id(self) -> int:
        """The token type of padding: 0, and 3 for XLNet."""
        return int(vars(self).get("init_kwargs", {}).get("pad_token_type_id", 0))

    def skipped_ids(self) -> frozenset[int]:
        """What `skip_special_tokens` skips."""
        return frozenset(id for id, token in self.added_tokens_decoder.items() if token.special)

    def _set_role(self, role: str, value: str | AddedToken | None) -> None:
        if value is not None and not isinstance(value, str | AddedToken):
            raise InputError(f"{role}={value!r} is a {type(value).__name__}", next="a string, an AddedToken or None")
        if value is not None and self.rust.token_to_id(str(value)) is None:
            raise TokenizerError(
                f"{role} {str(value)!r} is not in the vocabulary",
                next=f"add_special_tokens({{{role!r}: {str(value)!r}}}), then "
                "model.resize_token_embeddings(len(tokenizer))",
            )
        self._roles[role] = None if value is None else str(value)

    def _set_role_id(self, role: str, value: int | None) -> None:
        text = None if value is None else self.convert_ids_to_tokens(value)
        if value is not None and text is None:
            raise TokenizerError(f"{role}_id={value!r}: the vocabulary of {len(self)} tokens has no such id")
        self._set_role(role, text)

    # ---- adding -------------------------------------------------------------------------------------------

    @strict
    def add_tokens(
        self, new_tokens: str | AddedToken | Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Tokens to find before the text is split; how many of them the vocabulary did not have."""
        tokens = [new_tokens] if isinstance(new_tokens, str | AddedToken) else list(new_tokens)
        for token in tokens:
            if not isinstance(token, str | AddedToken):
                raise InputError(f"a token is a string or an AddedToken, not a {type(token).__name__}")
        before = len(self)
        add = self.rust.add_special_tokens if special_tokens else self.rust.add_tokens
        add(tokens)
        self._changed()
        return len(self) - before

    @strict
    def add_special_tokens(
        self,
        special_tokens_dict: Mapping[str, Any],
        replace_extra_special_tokens: bool = True,
        replace_additional_special_tokens: bool | None = None,
    ) -> int:
        """`{"pad_token": "<pad>", "extra_special_tokens": [...]}`; how many the vocabulary did not have.

        `replace_additional_special_tokens` is version 4's name for `replace_extra_special_tokens`.
        """
        if replace_additional_special_tokens is not None:
            replace_extra_special_tokens = replace_additional_special_tokens
        added = 0
        for name, value in special_tokens_dict.items():
            if name in self._roles:
                added += self.add_tokens([_special(value)], special_tokens=True)
                self._set_role(name, value)
            elif name in ("extra_special_tokens", "additional_special_tokens"):
                if isinstance(value, str | AddedToken):
                    raise InputError(f"{name}={value!r}", next=f"a list: [{str(value)!r}]")
                kept = [] if replace_extra_special_tokens else self.extra_special_tokens
                added += self.add_tokens([_special(token) for token in value], special_tokens=True)
                self.extra_special_tokens = list(dict.fromkeys([*kept, *map(str, value)]))
            else:
                known = [*self._roles, "extra_special_tokens"]
                raise ArgumentError(
                    f"no special token is called {name!r}", next=nearest(name, known) or ", ".join(known)
                )
        return added

    def sanitize_special_tokens(self) -> int:
        """Version 4's way to add special tokens that the vocabulary lacks; here it never lacks one."""
        return self.add_tokens(self.all_special_tokens_extended, special_tokens=True)


def _special(token: Any) -> AddedToken:
    if not isinstance(token, str | AddedToken):
        raise InputError(f"a special token is a string or an AddedToken, not a {type(token).__name__}")
    return loading.token_of(token, special=True)


def plain(value: Any) -> Any:
    """Tensors and arrays as lists, numpy numbers as ints; lists of those too."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list | tuple | range):
        return value if all(type(each) is int for each in value) else [plain(each) for each in value]
    return value
