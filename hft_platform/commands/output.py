"""What every command prints with."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any


def print_result(arguments: argparse.Namespace, content: Any, text: Callable[[], str]) -> None:
    """Print JSON for scripts, or text for people.

    Parameters
    ----------
    arguments : Namespace
        With `json`.
    content : Any
        JSON value.
    text : callable
        Makes the text, when it is wanted.
    """
    if arguments.json:
        sys.stdout.write(json.dumps(content, sort_keys=True, allow_nan=False) + "\n")
    else:
        sys.stdout.write(text() + "\n")
