#!/usr/bin/env bash
# pip.sh ARGUMENTS...: runs pip, be it the interpreter's own or, where Debian left that out, one of a private
# environment. Callers install with `--target`, which touches no environment and is not refused by distributions
# that manage their own packages (PEP 668).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1

if ! command -v python3 >/dev/null; then
  echo "pip.sh: no python3; run: tests/build/prerequisites.sh build" >&2
  exit 1
fi
if python3 -m pip --version >/dev/null 2>&1; then
  exec python3 -m pip "$@"
fi
private=$target/tools/pip
if [[ ! -x $private/bin/pip ]]; then
  rm -rf "$private"
  if ! python3 -m venv "$private" >/dev/null 2>&1; then
    rm -rf "$private"
    echo "pip.sh: python3 has neither pip nor venv; run: apt-get install -y python3-venv" >&2
    exit 1
  fi
fi
exec "$private/bin/python" -m pip "$@"
