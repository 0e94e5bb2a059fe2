#!/usr/bin/env bash
# Debian packages that tests use beyond Python and Rust. Nothing is started.
# util-linux: unshare and flock; procps: ps. Both are on most machines already.
set -euo pipefail
packages=(util-linux procps make gcc)
missing=()
for package in "${packages[@]}"; do
  dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "install these Debian packages first: ${missing[*]}" >&2
  exit 1
fi
apt-get update -qq && apt-get install -y -qq "${missing[@]}"
