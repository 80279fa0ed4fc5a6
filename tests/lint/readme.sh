#!/usr/bin/env bash
# readme.sh [README [HELP]]: README.md's option table and `cuda-entrypoint run --help` must name the same options and
# variables, and a start on a GPU is one that tests/gpu/results holds. Without HELP, a file, the binary is built and asked.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readme=${1:-README.md}
if [[ ! -f $readme ]]; then
  echo "readme: no $readme" >&2
  exit 1
fi
if (($# > 1)); then
  help=$(<"$2")
else
  help=$(cargo run --quiet --locked --bin cuda-entrypoint -- run --help)
fi

# A row of the table starts with its options in backquotes; a line of the help that describes options starts with them
# and goes on, if it does, after two blanks. Options that are only mentioned elsewhere do not count.
options() { grep -Eo -e '--[a-z][a-z-]*' | sort -u || true; }
in_table=$(grep -E '^\| *`--' "$readme" | cut -d '|' -f 2 | options)
in_help=$(sed -nE '/^ +(-[A-Za-z], )?--[a-z]/ { s/^ +//; s/  .*//; p }' <<<"$help" | options)

wrong=0
if [[ -z $in_table || -z $in_help ]]; then
  echo "readme: no option found in $( [[ -z $in_table ]] && echo "the table of $readme" || echo "--help")" >&2
  wrong=1
fi
compare() { # KIND LIST LIST
  local only
  only=$(comm -23 <(printf '%s\n' "$2") <(printf '%s\n' "$3"))
  if [[ -n $only ]]; then
    echo "readme: only in $1: ${only//$'\n'/, }" >&2
    wrong=1
  fi
}
# These two explain themselves, and need no row.
universal() { grep -vxE -e '--(help|version)' <<<"$1" || true; }
compare "the table of $readme" "$(universal "$in_table")" "$(universal "$in_help")"
compare "--help" "$(universal "$in_help")" "$(universal "$in_table")"
# What stands there as seen on a GPU was seen on one.
seen=$(grep -E '^cuda-entrypoint: ok: .*NVIDIA H' "$readme" || true)
while IFS= read -r line; do
  if [[ -n $line ]] && ! grep -rqF -- "$line" tests/gpu/results; then
    echo "readme: no file of tests/gpu/results holds this line of $readme: $line" >&2
    wrong=1
  fi
done <<<"$seen"
exit "$wrong"
