#!/usr/bin/env bash
# results.sh FOLDER: the rows that run.sh left in FOLDER as a page, and rows of results.md that FOLDER has none for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

cat <<TEXT
# What the fuzz targets came to

Written by \`run.sh\`, on a virtual machine with $(nproc) cores of $(uname -m) and $(rustc --version | cut -d ' ' -f 1,2).
A row is of the last run of its target. "seconds" are wall-clock, with whatever else the machine did.

| target | inputs | seconds | longest input | edges | features | inputs that matter | result |
| --- | --- | --- | --- | --- | --- | --- | --- |
TEXT
{
  cat "$1"/*.row
  [[ ! -f results.md ]] || grep -E '^\| [a-z_]+ \| [0-9]' results.md
} | awk -F ' *[|] *' '!seen[$2]++' | sort
