"""Find a provider's preset: by name, or by the token URL that somebody typed in."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from airflow_oauth_guard.catalog.preset import Param, Preset, read_preset
from airflow_oauth_guard.errors import CatalogError
from airflow_oauth_guard.grants.settings import PLACE

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "providers"
SUFFIX = ".yaml"


class Catalog:
    """Every provider we know, and those of the user's own folder, which come first.

    Args:
        folder: Files of the same form as the shipped ones, named ``<provider>.yaml``; None where there is no such folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise CatalogError(str(folder), "", "is no folder; correct `[oauth_guard] catalog_folder`.")
        self._folders = [folder, SHIPPED] if folder is not None else [SHIPPED]

    @property
    def names(self) -> list[str]:
        return sorted({path.stem for folder in self._folders for path in folder.glob(f"*{SUFFIX}")})

    def get(self, name: str) -> Preset:
        """The preset of this name.

        Raises:
            CatalogError: If there is none, or its file is wrong.
        """
        paths = [folder / f"{name}{SUFFIX}" for folder in self._folders] if _NAME.fullmatch(name) else []
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            similar = get_close_matches(name, self.names, n=3, cutoff=0.5)
            advice = f"did you mean {', '.join(similar)}?" if similar else "`airflow oauth-guard providers` lists them."
            raise CatalogError(name, "", f"is not in the catalog; {advice}")
        return _read(path, path.stat().st_mtime_ns)

    def like(self, name: str) -> Preset | None:
        """The preset that somebody means by a name: its own, an alias, or one that begins with it, as ``zoho_crm`` does."""
        wanted = re.sub(r"[\W_]+", "_", name.strip().lower()).strip("_")
        if not wanted:
            return None
        names = self.names
        if wanted in names:
            return self.get(wanted)
        aliased = next((found for found in names if wanted in self.get(found).aliases), "")
        begins = max((found for found in names if wanted.startswith(f"{found}_")), key=len, default="")
        return self.get(aliased or begins) if aliased or begins else None

    def by_token_url(self, url: str) -> tuple[Preset, Mapping[str, str]] | None:
        """The preset one of whose token URLs this is, and the params it was made with; None if nobody knows it.

        Of several the one that says most of the address itself: many end in ``/oauth/token``.
        """
        address = url.partition("?")[0].rstrip("/")
        found = [
            (len(PLACE.sub("", facts.token_url)), preset, match.groupdict())
            for preset in self._readable()
            for facts in preset.grants.values()
            if facts.token_url
            and (match := _as_pattern(facts.token_url, tuple(preset.params.items())).fullmatch(address))
        ]
        _, preset, params = max(found, key=lambda one: one[0], default=(0, None, {}))
        return (preset, params) if preset else None

    def _readable(self) -> Iterator[Preset]:
        """Every preset but those whose file is wrong: one broken file must not stop what is about another provider."""
        for name in self.names:
            try:
                preset = self.get(name)
            except CatalogError as error:
                log.warning("%s It is left out.", error)
                continue
            yield preset


_NAME = re.compile(r"\w{1,100}")
"""A longer one is no file name, and one with a slash would be a file elsewhere."""


@cache
def _as_pattern(template: str, params: tuple[tuple[str, Param], ...]) -> re.Pattern[str]:
    """An address as somebody may have typed it, with whatever fits in the place of a param."""
    parts = PLACE.split(template.partition("?")[0].rstrip("/"))
    known = dict(params)
    seen: set[str] = set()
    pattern = ""
    for number, part in enumerate(parts):
        if number % 2 == 0:
            pattern += re.escape(part)
        elif part in seen:
            pattern += f"(?P={part})"
        else:
            is_host = pattern == re.escape("https://") and parts[number + 1][:1] in ("", "/")
            pattern += f"(?P<{part}>{_as_place(known[part], is_host=is_host)})"
            seen.add(part)
    return re.compile(pattern)


def _as_place(param: Param, *, is_host: bool) -> str:
    """What may stand for a param. A whole host may not be anybody's: one of the choices, or like the examples."""
    if param.choices:
        return "|".join(map(re.escape, param.choices))
    rest = "/[^?#]+" if "/" in param.example else ""
    if not is_host:
        return f"[^/?#]+{rest}"
    hosts = [value.partition("/")[0] for value in (param.example, param.default) if value]
    domains = "|".join(re.escape(".".join(host.split(".")[-2:])) for host in hosts)
    return rf"(?:[\w-]+\.)*(?:{domains}){rest}"


@cache
def _read(path: Path, _changed: int) -> Preset:
    try:
        text = path.read_text(encoding="utf-8")
        document: Any = yaml.load(text, _LOADER)  # noqa: S506 - the safe loader, in C where there is one
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CatalogError(path.stem, "", f"its file {path} is no YAML: {error}") from error
    return read_preset(path.stem, document)


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
