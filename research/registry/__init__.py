"""AlphaRegistry: which alphas there are, what they are judged by, and what registering means."""

from research.registry.alpha import Alpha, hash_of, load_alpha, parse_manifest
from research.registry.catalog import bundled_alphas, bundled_folder, find_alpha, load_alphas
from research.registry.judged import JudgedData, judged_data
from research.registry.manifest import AlphaManifest
from research.registry.register import (
    check_expression,
    declare,
    expression_excerpt,
    register,
    trials_of,
)
from research.registry.roles import SessionRoles, assign_roles, sessions_of

__all__ = [
    "Alpha",
    "AlphaManifest",
    "JudgedData",
    "SessionRoles",
    "assign_roles",
    "bundled_alphas",
    "bundled_folder",
    "check_expression",
    "declare",
    "expression_excerpt",
    "find_alpha",
    "hash_of",
    "judged_data",
    "load_alpha",
    "load_alphas",
    "parse_manifest",
    "register",
    "sessions_of",
    "trials_of",
]
