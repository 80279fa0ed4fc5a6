#!/usr/bin/env bash
# readme.sh [README [HELP]]: README.md's option table and `cuda-entrypoint --help` must name the same options and
# variables. Without HELP, a file, the binary is built and asked.
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
  help=$(cargo run --quiet --locked --bin cuda-entrypoint -- --help)
fi

# Rows of the table start with an option in backquotes; lines of the help that describe an option start with it.
# Options that are only mentioned elsewhere do not count.
in_table=$(grep -E '^\| *`--' "$readme" | cut -d '|' -f 2 | grep -Eo -e '--[a-z][a-z-]*' | sort -u || true)
in_help=$(grep -E '^ +(-[A-Za-z], )?--[a-z]' <<<"$help" | grep -Eo -e '^ +(-[A-Za-z], )?(--[a-z][a-z-]*(, )?)+' |
  grep -Eo -e '--[a-z][a-z-]*' | sort -u || true)

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
exit "$wrong"
