"""A model's config.json by its Hugging Face id: from the local cache without any library, else from the hub."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from advisor.errors import ProfileError, QuestionError
from advisor.specs.model import ModelSpec
from advisor.untrusted import MAX_BYTES, parse_json, read_text

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\Z")
TIMEOUT_S = 5.0
MEND = "give a path to its config.json, or a name from `advisor models`"
_CONFIG, _QUANT = "config.json", "hf_quant_config.json"


def cache_folder() -> Path:
    """Where Hugging Face keeps downloads: HF_HUB_CACHE, HF_HOME/hub, or the home cache."""
    if place := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(place).expanduser()
    home = os.environ.get("HF_HOME")
    if not home:
        home = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(home).expanduser() / "hub"


def cached_folder(repo: str) -> Path | None:
    """The newest cached snapshot of `repo` that has a config.json: the one `main` points at, else the last written."""
    base = cache_folder() / f"models--{repo.replace('/', '--')}"
    try:
        head = read_text(base / "refs" / "main").strip()
    except ProfileError:
        head = ""
    try:
        snapshots = sorted((base / "snapshots").iterdir(), key=lambda x: (x.name == head, x.stat().st_mtime), reverse=True)
    except OSError:
        return None
    return next((x for x in snapshots if (x / _CONFIG).is_file()), None)


def is_offline() -> bool:
    """Whether the environment forbids the hub (HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE)."""
    return _is_on("HF_HUB_OFFLINE") or _is_on("TRANSFORMERS_OFFLINE")


def _is_on(switch: str) -> bool:
    return os.environ.get(switch, "").strip().upper() in ("1", "ON", "YES", "TRUE")


def read_config_file(path: Path, *, name: str, source: str, repo: str = "") -> ModelSpec:
    """The model of a config.json; a hf_quant_config.json beside it is read too. Raises ProfileError."""
    from advisor.catalog.huggingface import model_from_config

    config = parse_json(read_text(path), origin=str(path))
    beside = path.with_name(_QUANT)
    quant = parse_json(read_text(beside), origin=str(beside)) if beside.is_file() else None
    return model_from_config(config, quant, name=name, source=source, repo=repo)


def from_cache(repo: str) -> ModelSpec | None:
    """The model of a cached snapshot, or None where there is none."""
    folder = cached_folder(repo)
    if folder is None:
        return None
    return read_config_file(folder / _CONFIG, name=repo, source=f"local Hugging Face cache, {repo} {folder.name[:12]}", repo=repo)


def from_hub(repo: str) -> ModelSpec:
    """The model of a repository on the hub; two small files are fetched once each, nothing of them is run or kept.

    Raises QuestionError with what to do when there is no such model, no access, or no network.
    """
    from advisor.catalog.huggingface import model_from_config

    if is_offline():
        raise QuestionError(
            f"{repo} is neither in the catalogue nor in the local Hugging Face cache, and HF_HUB_OFFLINE is set; {MEND}."
        )
    config = _fetch(repo, _CONFIG)
    if config is None:
        raise QuestionError(f"{repo} has no config.json on the hub (GGUF only?); name the model it was made from, or {MEND}.")
    quant = _fetch(repo, _QUANT)
    source = f"https://huggingface.co/{repo}/blob/main/{_CONFIG}"
    return model_from_config(
        parse_json(config, origin=f"{repo}/{_CONFIG}"),
        parse_json(quant, origin=f"{repo}/{_QUANT}") if quant is not None else None,
        name=repo,
        source=source,
        repo=repo,
    )


def _fetch(repo: str, name: str) -> str | None:
    """One file of a repository's main branch as text, None where it has none. One request, no retries, `TIMEOUT_S` in all.

    `hf_hub_download` would retry an unreachable hub for half a minute, so its session is asked directly; and its own headers, which
    ask the hub for a list of coding agents and name the installed packages, are not sent.
    """
    from huggingface_hub import get_token, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    # The HTTP library's own base error: huggingface_hub has changed the library it is built on more than once.
    network = cast("type[Exception]", HfHubHTTPError.__bases__[0])
    token = None if _is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") else get_token()
    headers = {"user-agent": "advisor", **({"authorization": f"Bearer {token}"} if token else {})}
    try:
        with get_session().stream("GET", hf_hub_url(repo, name), headers=headers, timeout=TIMEOUT_S) as answer:
            status, code = answer.status_code, answer.headers.get("x-error-code", "")
            content = _body(answer.iter_bytes(), f"{name} of {repo}") if status == 200 else b""
    except (OSError, ValueError, network) as error:
        raise QuestionError(
            f"{repo} is neither in the catalogue nor in the local Hugging Face cache, and the hub cannot be reached "
            f"({type(error).__name__}); {MEND}."
        ) from None
    if status == 404 and code != "RepoNotFound":
        return None
    if status in (401, 403, 404):
        if code == "GatedRepo":
            raise QuestionError(f"{repo} is gated on the hub: accept its licence there and run `hf auth login`, or {MEND}.")
        raise QuestionError(f"{repo} is neither in the catalogue nor on the hub (or it is private); {MEND}.")
    if status != 200:
        raise QuestionError(f"the hub answered {status} for {repo}; try again, or {MEND}.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise QuestionError(f"{name} of {repo} is not text; {MEND}.") from None


def _body(parts: Iterable[bytes], what: str) -> bytes:
    """The parts joined, no more than `MAX_BYTES` of them and no longer than `TIMEOUT_S`. Raises QuestionError, TimeoutError."""
    found, ends = bytearray(), time.monotonic() + TIMEOUT_S
    for part in parts:
        found += part
        if len(found) > MAX_BYTES:
            raise QuestionError(f"{what} is larger than {MAX_BYTES // 2**20} MiB: that is not a config; {MEND}.")
        if time.monotonic() > ends:
            raise TimeoutError("the body comes too slowly")
    return bytes(found)
