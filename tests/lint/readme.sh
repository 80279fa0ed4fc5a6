#!/usr/bin/env bash
# readme.sh [README]: a start on a GPU that README.md shows must be one that tests/gpu/results holds. Its table of options
# is held against the options by a unit test in src/cli/options.rs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readme=${1:-README.md}
if [[ ! -f $readme ]]; then
  echo "readme: no $readme" >&2
  exit 1
fi

wrong=0
seen=$(grep -E '^cuda-entrypoint: ok: .*NVIDIA H' "$readme" || true)
while IFS= read -r line; do
  if [[ -n $line ]] && ! grep -rqF -- "$line" tests/gpu/results; then
    echo "readme: no file of tests/gpu/results holds this line of $readme: $line" >&2
    wrong=1
  fi
done <<<"$seen"
exit "$wrong"
