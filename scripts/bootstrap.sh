#!/usr/bin/env bash
# What a machine needs before the first command: `env` (Python, jars, kernels) and `tools` (programs that tests use).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export NUMBA_CACHE_DIR="${NUMBA_CACHE_DIR:-$PWD/.numba_cache}" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 DEBIAN_FRONTEND=noninteractive
STAMP=.venv/.stamp

say() { printf 'env: %s\n' "$*" >&2; }
die() { printf 'env: %s\n' "$*" >&2; exit 1; }

root() {   # runs a command as root where that needs no password; says no elsewhere
    if [ "$(id -u)" = 0 ]; then "$@"; elif sudo -n true 2>/dev/null; then sudo -n "$@"; else return 1; fi
}

packages() {   # installs Debian packages; false where it may not or cannot
    command -v apt-get >/dev/null || return 1
    root apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 && return
    root apt-get update -qq >/dev/null 2>&1 && root apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
}

python311() {
    for name in "${PYTHON:-python3.11}" python3.11 python3 python; do
        command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && { command -v "$name"; return; }
    done
    die "Python 3.11 is needed and not found; name it with PYTHON=/path/to/python3.11"
}

wanted() {   # of all that the environment is made from
    { cat requirements.lock pyproject.toml; pwd; "$1" -V; } | sha256sum | cut -d ' ' -f 1
}

environment() {
    local python want
    python="$(python311)"
    want="$(wanted "$python")"
    if [ "$(cat $STAMP 2>/dev/null)" != "$want" ]; then
        .venv/bin/python -c 'import pip' 2>/dev/null || { rm -rf .venv; "$python" -m venv .venv || die "python3-venv is needed: sudo apt-get install python3.11-venv"; }
        say "installing $(grep -c '==' requirements.lock) locked packages into .venv"
        .venv/bin/python -m pip install -q --no-deps --require-hashes -r requirements.lock
        .venv/bin/python -m pip install -q --no-deps --no-build-isolation --no-index -e .
        echo "$want" > $STAMP
        say "installed after $SECONDS s"
    fi
    .venv/bin/python -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null || packages libgomp1 ||
        die "LightGBM needs libgomp1: sudo apt-get install libgomp1"
    [ -n "${KAFKA_BOOTSTRAP_SERVERS:-}" ] || .venv/bin/python -m streams.broker --prepare
    if [ -f scripts/warm.py ] && [ "$(cat "$NUMBA_CACHE_DIR/.stamp" 2>/dev/null)" != "$(kernels)" ]; then
        say "compiling kernels into $NUMBA_CACHE_DIR"
        .venv/bin/python -m scripts.warm
        mkdir -p "$NUMBA_CACHE_DIR" && kernels > "$NUMBA_CACHE_DIR/.stamp"
    fi
}

kernels() { { cat requirements.lock; grep -rl numba engine --include=*.py | sort | xargs -r cat; } | sha256sum; }

tools() {
    local missing=()
    for pair in prometheus:prometheus amtool:prometheus-alertmanager chromium:chromium; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} = 0 ] && return
    # where services run, the packages would start theirs: that is the owner's decision
    if [ -d /run/systemd/system ] || ! packages "${missing[@]}"; then
        say "tests that need ${missing[*]} are skipped; to run them: sudo apt-get install --no-install-recommends ${missing[*]}"
    else
        say "installed ${missing[*]}"
    fi
}

lock() {   # two `make` at once: the second waits
    mkdir -p .numba_cache
    command -v flock >/dev/null || return 0
    exec 9> .numba_cache/.lock
    flock 9
}

case "${1:-env}" in
    env) lock; environment ;;
    tools) lock; tools ;;
    *) die "bootstrap.sh env | tools" ;;
esac
