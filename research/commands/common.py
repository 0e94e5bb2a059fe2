"""What every command needs: exit codes, the alpha and workspace it was given, who asks."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from hft_platform.commands.output import print_result

if TYPE_CHECKING:
    from research.registry import Alpha

__all__ = [
    "DONE",
    "FAILED",
    "REFUSED",
    "USAGE",
    "alpha_of",
    "print_result",
    "user_of",
    "workspace_of",
]

DONE, FAILED, USAGE, REFUSED = 0, 1, 2, 3


def alpha_of(arguments: argparse.Namespace) -> Alpha:
    """The alpha that was named."""
    from research.registry import find_alpha

    return find_alpha(arguments.alpha_id, arguments.alphas)


def workspace_of(arguments: argparse.Namespace) -> Path:
    """The workspace that was named, or the one of the settings."""
    if arguments.workspace is not None:
        return Path(arguments.workspace)
    from hft_platform.config.settings import load_settings

    return load_settings(arguments.config_dir).workspace_path


def user_of(arguments: argparse.Namespace) -> str:
    """Who asks."""
    return getattr(arguments, "by", None) or getpass.getuser()
