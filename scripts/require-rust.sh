#!/usr/bin/env bash
# Says clearly when the Rust toolchain is missing or older than rust-version in rust_core/Cargo.toml.
set -euo pipefail
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../rust_core/Cargo.toml")
if ! command -v cargo >/dev/null 2>&1; then
  echo "a Rust toolchain is needed (cargo was not found); version $needed or newer" >&2
  exit 1
fi
have=$(rustc --version | awk '{print $2}')
oldest=$(printf '%s\n%s\n' "$needed" "${have%%-*}" | sort -V | head -n 1)
if [ "$oldest" != "$needed" ]; then
  echo "rustc $needed or newer is needed, this is $have; update it (for example: rustup update stable)" >&2
  exit 1
fi
