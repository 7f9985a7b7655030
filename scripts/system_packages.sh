#!/usr/bin/env bash
# Installs what some tests need from the system: a browser for the report's page, and Debian's copy of Fashion-MNIST.
# Where it cannot, it says what is missing and goes on: the tests that need it are skipped with a reason.
set -euo pipefail

missing=()
if [[ ! -x /usr/bin/chromium ]]; then missing+=(chromium); fi
if [[ ! -e /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz ]]; then missing+=(dataset-fashion-mnist); fi
if [[ ${#missing[@]} -eq 0 ]]; then exit 0; fi

if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
    echo "installing Debian packages: ${missing[*]}"
    log=$(mktemp)
    if { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        rm -f "$log"
        exit 0
    fi
    tail -n 5 "$log"
    rm -f "$log"
    echo "could not install them"
fi
echo "missing Debian packages: ${missing[*]} (the tests that need them will be skipped)"
