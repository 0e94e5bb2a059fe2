#!/usr/bin/env bash
# Debian packages that tests use beyond Python and Rust. Nothing is started, now or at the next boot.
# util-linux: unshare and flock; procps: ps. Both are on most machines already. prometheus: promtool
# checks the alert rules, and a test rings one. redis-server: the lease for two hosts is tested on it.
set -euo pipefail
packages=(util-linux procps make gcc prometheus redis-server)
missing=()
for package in "${packages[@]}"; do
  dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "install these Debian packages first: ${missing[*]}" >&2
  exit 1
fi
# Services would listen, Prometheus's on every interface: packages may start nothing while we install.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"
for service in prometheus redis-server; do
  if [[ " ${missing[*]} " == *" $service "* ]] && command -v systemctl >/dev/null; then
    systemctl disable --quiet "$service.service"
  fi
done
