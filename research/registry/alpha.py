"""Alpha: a validated manifest and the identity that everything about it carries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hft_platform.config.canonical import canonical_sha256
from hft_platform.config.yaml_files import as_tuples, parse_yaml, validated
from hft_platform.errors import PlatformError, ReasonCode
from research.registry.kernel_part import KERNEL_FILE, kernel_identity, with_kernel
from research.registry.manifest import AlphaManifest

MANIFEST_FILE = "manifest.yaml"
TEST_FILE = "test_alpha.py"
__all__ = ["KERNEL_FILE", "MANIFEST_FILE", "TEST_FILE", "Alpha", "hash_of", "load_alpha"]


@dataclass(frozen=True, slots=True)
class Alpha:
    """One registered idea.

    Attributes
    ----------
    manifest : AlphaManifest
        What the researcher declared.
    folder : Path
        Where manifest and tests lie; no part of the identity.
    alpha_hash : str
        SHA-256 over the canonical manifest and, if there is one, the kernel: its text, sizes,
        compiler versions and CPU target.
    """

    manifest: AlphaManifest
    folder: Path
    alpha_hash: str

    @property
    def alpha_id(self) -> str:
        """Name; never reused for another idea."""
        return self.manifest.alpha_id

    @property
    def key(self) -> str:
        """``<alpha_id>@<12 hex of the hash>``: an edited alpha is another one."""
        return f"{self.alpha_id}@{self.alpha_hash[:12]}"

    @property
    def program_sha256(self) -> str:
        """Hash of what is evaluated, without name, owner, texts and parameter values."""
        content = self.manifest.model_dump(mode="json")
        kept = ("expression", "template", "order_qty_lots", "ttl_ms", "gate_weight_ppm", "limits")
        program = {name: content[name] for name in kept}
        program["parameters"] = sorted(content["parameters"])
        if self.manifest.kernel:
            program["kernel"] = kernel_identity(self.manifest)
        return canonical_sha256(program)


def load_alpha(folder: Path) -> Alpha:
    """Read an alpha's folder.

    Parameters
    ----------
    folder : Path
        `research/alphas/<alpha_id>`; the manifest's id must be the folder's name.

    Returns
    -------
    Alpha

    Raises
    ------
    PlatformError
        MANIFEST_INVALID with field, value and what is allowed.
    """
    manifest = parse_manifest(_read(folder / MANIFEST_FILE), name=f"{folder.name}/{MANIFEST_FILE}")
    if manifest.alpha_id != folder.name:
        raise PlatformError(
            ReasonCode.MANIFEST_INVALID,
            f"{folder.name}/{MANIFEST_FILE}: alpha_id is {manifest.alpha_id}, "
            f"the folder is {folder.name}; they must be equal",
        )
    manifest = with_kernel(manifest, folder)
    return Alpha(manifest, folder, hash_of(manifest))


def hash_of(manifest: AlphaManifest) -> str:
    """Identity of a manifest with its kernel, if it has one."""
    fields = manifest.model_dump(mode="json")
    if not manifest.kernel:
        # An alpha without a kernel has the identity it had before there were any.
        del fields["kernel"], fields["kernel_source"]
        return canonical_sha256({"manifest": fields})
    return canonical_sha256({"manifest": fields, "kernel": kernel_identity(manifest)})


def parse_manifest(raw: bytes, *, name: str) -> AlphaManifest:
    """Validate the text of a manifest.

    Parameters
    ----------
    raw : bytes
        YAML.
    name : str
        What to call it in messages.

    Returns
    -------
    AlphaManifest
    """
    code = ReasonCode.MANIFEST_INVALID
    content = parse_yaml(raw, name=name, code=code)
    template = content.get("template") if isinstance(content, dict) else None
    if isinstance(template, dict) and template.get("kind") == "external":
        raise PlatformError(
            ReasonCode.EXTERNAL_NOT_PERMITTED,
            f"{name}: template external is a plain Python strategy: slow, for prototypes, judged"
            " by no gate",
            next_step="docs/python-strategies.md; write it as an expression or a kernel",
        )
    return validated(as_tuples(content), AlphaManifest, name=name, code=code)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PlatformError(
            ReasonCode.MANIFEST_INVALID,
            f"{path.parent.name}/{path.name} cannot be read: {error.strerror}",
            next_step="hft-research new ALPHA_ID writes one to start from",
        ) from error
