"""The kernel of an alpha's folder: read, checked against the manifest, made part of it.

Why: a config carries a kernel's text as it carries an expression; the text lies in `kernel.py`.

Invariants:
1. The manifest names the function; sizes are declared in `kernel.py` alone.
2. Every declared parameter of the manifest is used, by the kernel or by the template.

It compiles nothing. Operator's page: `docs/kernels.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.kernels import declared, kernel_config, kernel_of_source
from research.registry.manifest import AlphaManifest

KERNEL_FILE = "kernel.py"


def with_kernel(manifest: AlphaManifest, folder: Path) -> AlphaManifest:
    """Make a kernel's text part of its manifest.

    Parameters
    ----------
    manifest : AlphaManifest
        As its file says.
    folder : Path
        Where `kernel.py` lies, if there is one.

    Returns
    -------
    AlphaManifest
        The same one for an alpha that is an expression.

    Raises
    ------
    PlatformError
        MANIFEST_INVALID when manifest and `kernel.py` do not fit, KERNEL_MALFORMED or
        UNKNOWN_FEATURE for the text itself.
    """
    path = folder / KERNEL_FILE
    if manifest.kernel_source:
        raise _invalid(folder, "kernel_source is read from kernel.py, not written in the manifest")
    if not manifest.kernel:
        if path.exists():
            raise _invalid(folder, "there is a kernel.py; name its function in field kernel")
        return manifest
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(folder, f"names kernel {manifest.kernel}; kernel.py: {error}") from error
    declaration = declared(source)
    if declaration.kernel_id != manifest.kernel:
        raise _invalid(
            folder, f"names kernel {manifest.kernel}, kernel.py has {declaration.kernel_id}"
        )
    missing = sorted(set(declaration.parameters) - set(manifest.parameters))
    if missing:
        raise _invalid(folder, f"has no parameter {missing[0]}, which kernel.py reads")
    values = manifest.template.model_dump().values()
    used = {value[1:] for value in values if isinstance(value, str)} | set(declaration.parameters)
    unused = sorted(set(manifest.parameters) - used)
    if unused:
        raise _invalid(folder, f"parameter {unused[0]} is used nowhere; it would count as a trial")
    return manifest.model_copy(update={"kernel_source": source})


def kernel_identity(manifest: AlphaManifest) -> dict[str, Any]:
    """What of a kernel is part of its alpha's identity: text, sizes, compiler, CPU target."""
    named = kernel_config(kernel_of_source(manifest.kernel_source))
    return {"sha256": named["sha256"], "compiler": named["compiler"]}


def check_kernel(manifest: AlphaManifest) -> dict[str, Any]:
    """Compile an alpha's kernel, inspect it, and say what it reads and needs.

    Parameters
    ----------
    manifest : AlphaManifest
        With its kernel's text.

    Returns
    -------
    dict
        As `_core.check_expression`: ``features``, ``canonical``, ``sha256``, ``memory_bytes``,
        ``operations``.

    Raises
    ------
    PlatformError
        With the code that says why the kernel may not run in the engine.
    """
    kernel = kernel_of_source(manifest.kernel_source)
    sizes = kernel.declaration
    count = len(sizes.features) + len(sizes.parameters) + sizes.state_count
    return {
        "features": list(sizes.features),
        "canonical": kernel.source,
        "sha256": kernel.sha256,
        "memory_bytes": 8 * count,
        "operations": kernel.compiled.instruction_count,
    }


def _invalid(folder: Path, text: str) -> PlatformError:
    return PlatformError(ReasonCode.MANIFEST_INVALID, f"{folder.name}/manifest.yaml: {text}")
