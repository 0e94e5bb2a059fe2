"""Find alphas: every folder with a manifest is one, in the order of their names."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from hft_platform.errors import PlatformError, ReasonCode
from research.registry.alpha import MANIFEST_FILE, Alpha, load_alpha

ALPHAS_MAX = 2000


def bundled_folder() -> Path:
    """Folder of the alphas that ship with the package."""
    return Path(str(importlib.resources.files("research"))) / "alphas"


def load_alphas(folder: Path | None = None) -> list[Alpha]:
    """Load every alpha of a folder, by default the bundled ones.

    Parameters
    ----------
    folder : Path, optional
        Holds one folder an alpha.

    Returns
    -------
    list of Alpha
        Sorted by id.

    Raises
    ------
    PlatformError
        MANIFEST_INVALID for the first manifest that does not fit its schema.
    """
    root = bundled_folder() if folder is None else folder
    found = sorted(path.parent for path in root.glob(f"*/{MANIFEST_FILE}"))
    if len(found) > ALPHAS_MAX:
        raise PlatformError(
            ReasonCode.MANIFEST_INVALID,
            f"{len(found)} alphas in one folder; at most {ALPHAS_MAX} are loaded",
        )
    return [load_alpha(path) for path in found]


def bundled_alphas() -> list[Alpha]:
    """The alphas that ship with the package, sorted by id."""
    return load_alphas()


def find_alpha(key: str, folder: Path | None = None) -> Alpha:
    """Find the alpha of a key, and refuse when it was edited since the key was made.

    Parameters
    ----------
    key : str
        ``<alpha_id>@<12 hex>``, or the id alone for the alpha as it is now.
    folder : Path, optional
        Where to look, by default the bundled alphas.

    Returns
    -------
    Alpha
    """
    root = bundled_folder() if folder is None else folder
    alpha_id, _, short_hash = key.partition("@")
    if not (root / alpha_id / MANIFEST_FILE).is_file():
        known = ", ".join(sorted(path.parent.name for path in root.glob(f"*/{MANIFEST_FILE}")))
        raise PlatformError(
            ReasonCode.MANIFEST_INVALID,
            f"there is no alpha {alpha_id!r}; known are: {known or 'none'}",
            next_step="hft-research list shows them; hft-research new ALPHA_ID starts one",
        )
    alpha = load_alpha(root / alpha_id)
    if short_hash and alpha.key != key:
        raise PlatformError(
            ReasonCode.VERDICT_STALE,
            f"{alpha_id} was edited: it is {alpha.key} now, asked for was {key}",
            next_step=f"use {alpha.key}; an edited alpha inherits no verdict",
        )
    return alpha
