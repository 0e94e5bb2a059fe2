"""AlphaRegistry: which alphas there are, and what registering one means."""

from research.registry.alpha import Alpha, hash_of, load_alpha, parse_manifest
from research.registry.catalog import bundled_folder, find_alpha, load_alphas
from research.registry.manifest import AlphaManifest
from research.registry.register import check_expression, costs_sha256, register, trials_of
from research.registry.roles import SessionRoles, assign_roles, sessions_of

__all__ = [
    "Alpha",
    "AlphaManifest",
    "SessionRoles",
    "assign_roles",
    "bundled_folder",
    "check_expression",
    "costs_sha256",
    "find_alpha",
    "hash_of",
    "load_alpha",
    "load_alphas",
    "parse_manifest",
    "register",
    "sessions_of",
    "trials_of",
]
