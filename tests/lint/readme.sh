#!/usr/bin/env bash
# readme.sh [PAGE]: a start on a GPU that README.md or docker/guide.md shows must be one that tests/gpu/results holds. What is
# generated of the documentation is held against the code by tests/docs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

pages=(README.md docker/guide.md)
(($# == 0)) || pages=("$@")

wrong=0
for page in "${pages[@]}"; do
  if [[ ! -f $page ]]; then
    echo "readme: no $page" >&2
    exit 1
  fi
  seen=$(grep -E '^cuda-entrypoint: ok: .*NVIDIA H' "$page" || true)
  while IFS= read -r line; do
    if [[ -n $line ]] && ! grep -rqF -- "$line" tests/gpu/results; then
      echo "readme: no file of tests/gpu/results holds this line of $page: $line" >&2
      wrong=1
    fi
  done <<<"$seen"
done
exit "$wrong"
