"""From what a user names to a folder on disk. The only file that opens a socket or reads an environment variable.

A path never asks the network. An id (`org/name`) is looked for in the local cache of huggingface_hub, and fetched
where it is not there, unless offline mode was asked for (`offline=True`, `PELLUCID_OFFLINE=1` or `HF_HUB_OFFLINE=1`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from pellucid import gguf
from pellucid.errors import NotAModel

Want = Literal["card", "config", "tokenizer", "model"]

FINGERPRINT = "tokenizer_fingerprint.json"
CONFIG = ("config.json", "generation_config.json")
TOKENIZER = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "sentencepiece.model", "spm.model", "spm_char.model", "source.spm", "target.spm", "target_vocab.json", "bpe.codes",
    "prophetnet.tokenizer", "vocab-src.json", "vocab-tgt.json",
    "tekken.json", "tiktoken.model", "qwen.tiktoken", "hy.tiktoken", "arcade100k.tiktoken", "cl100k_base.tiktoken",
    "chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja", FINGERPRINT,
)  # fmt: skip
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
OLD_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")
CARD = ("README.md",)
# Of sentence-transformers: its own files, and a folder for each module ("1_Pooling"; once also "0_Transformer").
MODULES = ("modules.json", "config_sentence_transformers.json", "sentence_*_config.json")
MODULE = "[0-9]_*/"
LARGE = 2**24  # bytes of a file, from which what came of it is worth keeping
AT_ONCE = 8  # files

_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def default_model() -> Path:
    """The model inside the package, used when none is named: stories260K, 1 MB, MIT."""
    return Path(__file__).parent / "default_model"


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds files of a tokenizer, or a GGUF file says one."""
    if folder.suffix == ".gguf" and folder.is_file():
        return bool(gguf.read(folder).metadata.get("tokenizer.ggml.model", "none") != "none")
    return any((folder / name).exists() for name in TOKENIZER if name not in ("config.json", FINGERPRINT))


def tokenizer_cache() -> Path | None:
    """Where converted vocabularies are kept: below PELLUCID_CACHE, else below the user's cache folder.

    None where PELLUCID_CACHE is empty, which switches it off, and where there is no home.
    """
    return cache_folder("tokenizers")


def cache_folder(name: str) -> Path | None:
    """The same for what else is kept."""
    asked = os.environ.get("PELLUCID_CACHE")
    if asked is not None:
        return Path(asked) / name if asked else None
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return base / "pellucid" / name


def offline_by_environment() -> bool:
    """Whether the environment asks that no socket be opened."""
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFFLINE_VARIABLES)


OFFLINE_VARIABLES = ("PELLUCID_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def resolve(
    name: str | os.PathLike[str] | None,
    *,
    want: Want = "model",
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    offline: bool | None = None,
    subfolder: str = "",
    force_download: bool = False,
    gguf_file: str | None = None,
) -> Path:
    """The local folder of a path, of a hub id, or of the default model (None); or a GGUF file, which holds all.

    That is where a path names one, where `gguf_file` names one of the folder, and where a folder has one and no config.

    Raises:
        NotAModel: there is no such folder; the id is malformed, unknown, gated, or not in the cache while offline.
    """
    if name is None:
        return default_model()
    if not isinstance(name, (str, os.PathLike)):
        raise NotAModel(f"{name!r} is a {type(name).__name__}", next="give a path or an id, as a string")
    text = os.fspath(name)
    path = _path(text)
    if os.path.isdir(path):  # False, where Path.is_dir raises: for what is too long to be a name
        return _whole(_inside(path, subfolder), gguf_file)
    if os.path.isfile(path) and str(path).endswith(".gguf"):
        return path
    if os.path.exists(path):
        raise NotAModel(f"{text!r} is a file", where=path, next="give the folder that holds config.json")
    if not isinstance(text, str) or not _ID.fullmatch(text) or text.startswith("."):
        raise NotAModel(
            f"there is no folder {text!r}",
            where=path.absolute(),
            next="give a model folder, or a hub id like org/name",
        )
    if revision is not None and (not isinstance(revision, str) or ".." in revision.split("/")):
        raise NotAModel(f"revision={revision!r} is none", next="give a branch, a tag or a commit")
    revision = revision or None
    cache = None if cache_dir is None else Path(cache_dir)
    if offline is None:
        offline = offline_by_environment()
    if not offline and _reachable():
        folder = _fetch(text, want, revision, cache, token, force_download, gguf_file)
    else:
        folder = _cached(text, revision, cache, offline)
    return _whole(_inside(folder, subfolder), gguf_file)


def _whole(folder: Path, gguf_file: str | None) -> Path:
    """A folder, or the GGUF file in it that is meant."""
    if gguf_file is None:
        found = [] if (folder / "config.json").exists() else sorted(folder.glob("*.gguf"))
        one = gguf.standing_for(found) if found and not has_tokenizer(folder) else None
        return one or folder
    if not isinstance(gguf_file, str) or not gguf_file.endswith(".gguf"):
        raise NotAModel(f"gguf_file={gguf_file!r} is no name of a .gguf file", next="give its name within the folder")
    path = folder / gguf_file
    if Path(gguf_file).is_absolute() or ".." in Path(gguf_file).parts:
        raise NotAModel(f"gguf_file={gguf_file!r} is outside the folder", where=folder, next="give its path instead")
    if not path.is_file():
        there = ", ".join(sorted(each.name for each in folder.glob("*.gguf"))) or "none"
        raise NotAModel(f"there is no gguf_file {gguf_file!r}", where=folder, next=f"GGUF files there: {there}")
    return path


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user
        return Path(text)


def _inside(folder: Path, subfolder: str) -> Path:
    if not isinstance(subfolder, str):
        raise NotAModel(f"subfolder={subfolder!r} is a {type(subfolder).__name__}", next="give a string")
    inner = (folder / subfolder).resolve()
    if not inner.is_relative_to(folder.resolve()) or not inner.is_dir():
        raise NotAModel(f"there is no subfolder {subfolder!r}", where=folder, next="list the folder's contents")
    return folder / subfolder if subfolder else folder


def _fetch(
    name: str,
    want: Want,
    revision: str | None,
    cache_dir: Path | None,
    token: str | bool | None,
    force: bool,
    gguf_file: str | None,
) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    with _answers(name, revision), _stoppable() as bar:
        about = HfApi(token=token).model_info(name, revision=revision, files_metadata=True)
        sizes = _sizes(about)
        patterns = _wanted([*sizes], want) if gguf_file is None else [gguf_file]
        if not force:
            wanted = {file: size for file, size in sizes.items() if _matches(file, patterns)}
            _fetch_large(name, str(about.sha), wanted, cache_dir, token, bar)
        folder = snapshot_download(
            name,
            tqdm_class=bar,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            allow_patterns=patterns,
            force_download=force,
        )
    return Path(folder)


def _sizes(about: Any) -> dict[str, int]:
    """Bytes of each file, of what the hub says about a model."""
    return {file.rfilename: file.size or 0 for file in about.siblings or []}


def _fetch_large(
    name: str, commit: str, sizes: Mapping[str, int], cache_dir: Path | None, token: str | bool | None, bar: Any
) -> None:
    """The large ones of the files into huggingface_hub's cache, each behind what an interrupted download has left.

    huggingface_hub begins such a file anew (2.4: a name of its own for each try). Here what came lies beside the blobs
    as ETAG.part, and becomes the blob when all of it came; huggingface_hub then finds it there. A file that another
    process is fetching is left to huggingface_hub.

    Raises:
        NotAModel: what came is not what the hub says it is.
    """
    from concurrent.futures import ThreadPoolExecutor
    from functools import partial

    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    files = [file for file, size in sizes.items() if size >= LARGE]
    if not files:
        return
    blobs = Path(cache_dir or constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(partial(_fetch_one, name, commit, blobs, token, bar), files))


def _fetch_one(name: str, commit: str, blobs: Path, token: str | bool | None, bar: Any, file: str) -> None:
    from inspect import signature
    from urllib.parse import urlsplit

    from filelock import FileLock, Timeout
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    url = hf_hub_url(name, file, revision=commit)
    about = get_hf_file_metadata(url, token=token)
    size, etag = about.size or 0, about.etag or ""
    blob, part = blobs / etag, blobs / f"{etag}.part"
    if not etag or blob.exists() or size > constants.MAX_HTTP_DOWNLOAD_SIZE:
        return
    headers = build_hf_headers(token=token)
    if urlsplit(about.location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # is the hub's, and nobody else's
    seen = {"tqdm_class": bar} if "tqdm_class" in signature(http_get).parameters else {}  # since version 1.5
    lock = blobs.parents[1] / ".locks" / blobs.parent.name / f"{part.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0), part.open("ab") as out:
            if out.tell() > size:
                out.truncate(0)
            begin = out.seek(0, os.SEEK_END)
            http_get(
                about.location,
                out,
                resume_size=begin,
                headers=headers,
                expected_size=size,
                displayed_filename=file,
                **seen,
            )
            out.flush()
            _check_sum(part, etag, file)
            part.replace(blob)
    except Timeout:
        return


def _check_sum(part: Path, etag: str, file: str) -> None:
    """The hub names large files by their SHA-256; what is not so named has its size alone to be judged by."""
    import hashlib

    if not re.fullmatch("[0-9a-f]{64}", etag):
        return
    sum = hashlib.sha256()
    with part.open("rb") as data:
        while piece := data.read(LARGE):
            sum.update(piece)
    found = sum.hexdigest()
    if found != etag:
        part.unlink()
        raise NotAModel(f"{file} came with SHA-256 {found}, and the hub says {etag}", next="fetch it again")


@contextmanager
def _stoppable() -> Iterator[Any]:
    """A progress bar for a download that Ctrl-C ends; of itself it would go on until all files in its threads came.

    Each thread tells the bar of every piece that came, and is stopped there; what it has of a large file is kept.
    """
    import signal
    import threading

    from huggingface_hub.utils.tqdm import tqdm

    came = False

    class Bar(tqdm):
        def update(self, n: float | None = 1) -> Any:
            if came:
                raise KeyboardInterrupt
            return super().update(n)

    def handle(*signalled: Any) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield Bar
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield Bar
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt


@contextmanager
def _answers(name: str, revision: str | None) -> Iterator[None]:
    """The hub's refusals as ours.

    Raises:
        NotAModel: there is no such model or revision, or it is gated; or the connection broke.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except GatedRepoError:
        raise NotAModel(f"{name!r} is gated", where="the hub", next="accept its terms there and pass token=…") from None
    except RepositoryNotFoundError:
        raise NotAModel(
            f"there is no {name!r}, neither a folder here nor a model on the hub",
            where=Path(name).absolute(),
            next="check the spelling; a private model needs token=…",
        ) from None
    except RevisionNotFoundError:
        raise NotAModel(f"{name!r} has no revision {revision!r}", where="the hub", next="check the revision") from None
    except Exception as error:  # of the HTTP client, which was another one in other versions of huggingface_hub
        if type(error).__module__.partition(".")[0] not in ("huggingface_hub", "httpx", "httpx2", "requests"):
            raise
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotAModel(f"{name!r}: {said}", where="the hub", next="try again; the files that came are kept") from None


def _wanted(files: list[str], want: Want) -> list[str]:
    """The files that a purpose needs; safetensors rather than pickles where both exist."""
    if want == "card":
        return list(CARD)
    if want == "config":
        return list(CONFIG)
    if want == "tokenizer":
        return list(TOKENIZER)
    has_safetensors = any(fnmatch(file, pattern) for file in files for pattern in WEIGHTS)
    wanted = [*CONFIG, *TOKENIZER, *CARD, *(WEIGHTS if has_safetensors else OLD_WEIGHTS)]
    if MODULES[0] in files:
        of_modules = (*CONFIG, *TOKENIZER, *MODULES, *WEIGHTS, *OLD_WEIGHTS)
        wanted += [*MODULES, *(f"{MODULE}{name}" for name in of_modules)]
    return wanted


# ------------------------------------------------------------------------------------------------ files alone


@dataclass(frozen=True)
class Download:
    """What was fetched of a model on the hub.

    Args:
        commit: the revision that it is.
        files, left_out: their names and bytes.
    """

    name: str
    commit: str
    folder: Path
    files: dict[str, int]
    left_out: dict[str, int]


def download(
    name: str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    revision: str | None = None,
    token: str | bool | None = None,
    everything: bool = False,
    progress: bool = False,
) -> Download:
    """Fetches the files of a model into huggingface_hub's cache; what is there already, whole or in part, is kept.

    Args:
        include: patterns of files, in place of what Pellucid reads: config, tokenizer, weights (safetensors rather than
            pickles), card.
        exclude: patterns of files to leave out.
        everything: all files.
        progress: show it on stderr.

    Raises:
        NotAModel: as `resolve` has it; or there is no network, or no file of such a name.
    """
    from glob import escape

    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    if not _ID.fullmatch(name):
        raise NotAModel(f"{name!r} is no id of the hub", next="give one like org/name")
    if offline_by_environment():
        asked = " or ".join(OFFLINE_VARIABLES)
        raise NotAModel("offline mode is on, and a download needs the network", where=name, next=f"unset {asked}")
    if not _reachable():
        raise NotAModel("the hub does not answer", where=name, next="check the network; HTTPS_PROXY names a proxy")
    with _answers(name, revision):
        about = HfApi(token=token).model_info(name, revision=revision, files_metadata=True)
        sizes = _sizes(about)
        patterns = list(include) or (["*"] if everything else _wanted([*sizes], "model"))
        names = [file for file in sizes if _matches(file, patterns) and not _matches(file, exclude)]
        if not names:
            there = ", ".join([*sizes][:20]) or "nothing"
            raise NotAModel(f"no file of {name!r} is left to fetch", where="the hub", next=f"there are {there}")
        enable_progress_bars() if progress else disable_progress_bars()
        with _stoppable() as bar:
            _fetch_large(name, str(about.sha), {file: sizes[file] for file in names}, None, token, bar)
            folder = snapshot_download(
                name, revision=revision, token=token, allow_patterns=[escape(file) for file in names], tqdm_class=bar
            )
    left = {file: size for file, size in sizes.items() if file not in names}
    return Download(name, str(about.sha), Path(folder), {file: sizes[file] for file in names}, left)


def _matches(file: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(file, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Cached:
    """One revision of a model in huggingface_hub's cache.

    Args:
        refs: branches and tags that lead to it.
        used: when a file of it was last read, seconds since 1970.
    """

    name: str
    commit: str
    refs: tuple[str, ...]
    folder: Path
    files: int
    nbytes: int
    used: float


def cached(cache_dir: Path | None = None) -> list[Cached]:
    """The models in huggingface_hub's cache, by name, the revision that was used last first."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir(cache_dir).repos
    except CacheNotFound:
        return []
    found = [
        Cached(
            repo.repo_id, each.commit_hash, tuple(sorted(each.refs)), each.snapshot_path, each.nb_files,
            each.size_on_disk, max((file.blob_last_accessed for file in each.files), default=0.0),
        )
        for repo in repos if repo.repo_type == "model" for each in repo.revisions
    ]  # fmt: skip
    return sorted(found, key=lambda one: (one.name.lower(), -one.used))


def remove(found: Sequence[Cached], cache_dir: Path | None = None) -> int:
    """Removes revisions from the cache; bytes that are free now. Files that another revision shares stay."""
    from huggingface_hub import scan_cache_dir

    plan = scan_cache_dir(cache_dir).delete_revisions(*(one.commit for one in found))
    plan.execute()
    return int(plan.expected_freed_size)


# ------------------------------------------------------------------------------------------------ headers alone


def outline(
    name: str | os.PathLike[str] | None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    offline: bool | None = None,
    gguf_file: str | None = None,
    complete: Callable[[Path, int], bool] = lambda path, known: True,
) -> Path:
    """As `resolve`; but of a model that is not here only the config and the headers of its weights are fetched.

    The folder then has files of the right names and lengths, with holes where the numbers are; it goes when the process
    ends. So everything that reads headers works on it as on a download.

    Args:
        complete: whether the first `known` bytes of a GGUF file are its header, which does not say its length.

    Raises:
        NotAModel: as `resolve` has it; or the weights there have no header (`.bin`).
    """
    local = name is None or not isinstance(name, (str, os.PathLike)) or os.path.exists(_path(os.fspath(name)))
    if offline is None:
        offline = offline_by_environment()
    if local or offline or not _ID.fullmatch(os.fspath(name or "")) or not _reachable():
        return resolve(name, revision=revision, token=token, offline=offline, gguf_file=gguf_file)
    remote = _remote(os.fspath(name or ""), revision, token)
    config = None
    if "config.json" in remote.sizes:
        config = resolve(remote.name, want="config", revision=revision, token=token, offline=False)
    return _hollow(remote, config, gguf_file, complete)


def _remote(name: str, revision: str | None, token: str | bool | None) -> Remote:
    """A model on the hub.

    Raises:
        NotAModel: there is none, or the hub does not answer.
    """
    with _answers(name, revision):
        return Remote(name, revision, token)


class Remote:
    """The files of a model on the hub, of which pieces can be read."""

    def __init__(self, name: str, revision: str | None, token: str | bool | None) -> None:
        from huggingface_hub import HfApi, HfFileSystem

        self.name, self.revision = name, revision
        self._files = HfFileSystem(token=token)
        self.sizes = _sizes(HfApi(token=token).model_info(name, revision=revision, files_metadata=True))

    def read(self, file: str, begin: int, end: int) -> bytes:
        """Bytes `begin` to `end` of a file."""
        path = f"{self.name}/{file}"
        with self._files.open(path, "rb", revision=self.revision, block_size=HEAD, cache_type="none") as remote:
            remote.seek(begin)
            data: bytes = remote.read(end - begin)
        return data


HEAD = 2**20  # bytes that are fetched of a file at first; most headers are shorter


def _hollow(remote: Remote, config: Path | None, gguf_file: str | None, complete: Callable[[Path, int], bool]) -> Path:
    """A folder with the files of `config`, and of the weights what is before their numbers."""
    import atexit
    import shutil
    import tempfile
    from concurrent.futures import ThreadPoolExecutor

    names = [file for file in remote.sizes if any(fnmatch(file, pattern) for pattern in WEIGHTS)]
    packed = [file for file in remote.sizes if file.endswith(".gguf") and "/" not in file]
    if gguf_file is not None or not names:
        names = [file for file in packed if gguf_file in (None, file)]
        if len(names) != 1:
            there = ", ".join(packed[:20]) or f"files of other kinds: {', '.join(list(remote.sizes)[:10])}"
            what = f"{remote.name!r} has {'no such' if gguf_file else 'no one'} file whose header could be read"
            raise NotAModel(what, where="the hub", next=f"say which GGUF file; there are {there}")
    folder = Path(tempfile.mkdtemp(prefix="pellucid-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for file in CONFIG:
        if config is not None and (config / file).is_file():
            shutil.copy(config / file, folder / file)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda file: _outlined(remote, file, folder / file, complete), names))
    return folder / names[0] if names[0].endswith(".gguf") else folder


def _outlined(remote: Remote, file: str, path: Path, complete: Callable[[Path, int], bool]) -> None:
    """One file: its header, and a hole behind it; an index is copied."""
    size = remote.sizes[file]
    data = remote.read(file, 0, size if file.endswith(".json") else min(size, HEAD))
    if file.endswith(".safetensors"):
        wanted = min(size, 8 + int.from_bytes(data[:8], "little"), MOST_HEADER)
        data += remote.read(file, len(data), wanted) if wanted > len(data) else b""
    _write_hollow(path, data, size)
    while file.endswith(".gguf") and len(data) < min(size, MOST_HEADER) and not complete(path, len(data)):
        data += remote.read(file, len(data), min(size, 4 * len(data)))
        _write_hollow(path, data, size)


MOST_HEADER = 2**28  # bytes; the readers' own limits are below it


def _write_hollow(path: Path, data: bytes, size: int) -> None:
    path.write_bytes(data)
    os.truncate(path, max(size, len(data)))


def _cached(name: str, revision: str | None, cache_dir: Path | None, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, cache_dir=cache_dir, local_files_only=True))
    except (LocalEntryNotFoundError, FileNotFoundError, ValueError):
        at = f", revision {revision!r}" if revision else ""
        why = "offline mode" if offline else "no network"
        raise NotAModel(
            f"there is no folder {name!r}, and it is not in the local cache ({why}{at})",
            where=Path(name).absolute(),
            next="give a path, or download it once with a network",
        ) from None


def _reachable(timeout: float = 3.0) -> bool:
    """Whether the hub answers at all; its client alone would retry for half a minute before it says no."""
    import socket
    from urllib.parse import urlsplit

    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # only the proxy knows
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
    try:
        socket.create_connection((endpoint.hostname or "", port), timeout).close()
    except OSError:
        return False
    return True
