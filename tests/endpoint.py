"""The hub on this machine: what huggingface_hub asks of it, for one model whose files are in a folder."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

COMMIT = "a" * 40
MB = 1_000_000


class Endpoint(BaseHTTPRequestHandler):
    """Model `org/model`, with one revision; counts the bytes it gives.

    Args:
        breaks: name of a file -> how often its answer ends in its middle.
        pause: seconds before each MB.
        sums: name of a file -> its SHA-256, as the hub names large files.
    """

    folder: Path
    given: list[int]
    breaks: dict[str, int]
    pause: float = 0.0
    sums: dict[str, str]

    def do_GET(self) -> None:  # noqa: N802  the base class calls it so
        path = unquote(self.path.partition("?")[0])
        sizes = {
            str(file.relative_to(self.folder)): file.stat().st_size
            for file in self.folder.rglob("*") if file.is_file()
        }  # fmt: skip
        of_file = re.fullmatch(r"/org/model/resolve/(?:main|v1|a{40})/(.*)", path)
        if of_file and of_file[1] in sizes:
            self.give(of_file[1])
        elif re.fullmatch(r"/api/models/org/model(/.*)?", path) and "/revision/nothing" not in path:
            tree: Any = [{"type": "file", "path": name, "size": size, "oid": "1" * 40} for name, size in sizes.items()]
            siblings = [{"rfilename": name, "size": size} for name, size in sizes.items()]
            about = {"id": "org/model", "sha": COMMIT, "siblings": siblings}
            self.answer(200, json.dumps(tree if "/tree/" in path else about).encode(), {})
        else:
            code = "RevisionNotFound" if path.startswith("/api/models/org/model") else "RepoNotFound"
            self.answer(404, b"{}", {"X-Error-Code": code})

    do_HEAD = do_GET

    def give(self, name: str) -> None:
        """A file, or a piece of it."""
        data = (self.folder / name).read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        begin = int(asked[1]) if asked else 0
        end = int(asked[2]) + 1 if asked and asked[2] else len(data)
        given = f"{len(data)}-{name.replace('/', '-')}"
        headers = {
            "ETag": f'"{self.sums.get(name, given)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes",
            "Content-Range": f"bytes {begin}-{end - 1}/{len(data)}",
        }  # fmt: skip
        whole = self.command == "HEAD" or not self.breaks.get(name)
        if not whole:
            self.breaks[name] -= 1
        self.answer(206 if asked else 200, data[begin:end], headers, whole)

    def answer(self, code: int, data: bytes, headers: dict[str, str], whole: bool = True) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            data = data if whole else data[: len(data) // 2]
            self.given.append(len(data) if not self.pause else 0)
            for at in range(0, len(data), MB) if self.pause else ():
                time.sleep(self.pause)
                self.given[-1] += self.wfile.write(data[at : at + MB])
            if not self.pause:
                self.wfile.write(data)
            self.close_connection = not whole

    def log_message(self, *message: Any) -> None:
        """Nothing."""


@contextmanager
def serving(folder: Path, home: Path) -> Iterator[tuple[type[Endpoint], dict[str, str]]]:
    """The endpoint of a folder, and the environment in which a process asks it."""
    handler = type("Here", (Endpoint,), {"folder": folder, "given": [], "breaks": {}, "sums": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield handler, {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        server.shutdown()
