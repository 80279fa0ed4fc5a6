#!/usr/bin/env bash
# Runs the fuzz targets: README.md beside this says what they are, and what to do with a finding.
#
#   run.sh [TARGET]...         each, or those that are named, for FUZZ_RUNS inputs; keeps what they came to, and says
#                              so in results.md
#   run.sh short [TARGET]...   each for FUZZ_SECONDS at most; keeps nothing
#
# FUZZ_RUNS: inputs for each target (10000000; 20000).
# FUZZ_SECONDS: most seconds for each (without end; 2).
# FUZZ_OUT: a folder for logs and findings (target/fuzz/out).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

if ! command -v c++ >/dev/null 2>&1; then
  echo "fuzz: no C++ compiler, which libFuzzer is built with: install it (apt-get install -y g++)" >&2
  exit 1
fi

runs=${FUZZ_RUNS:-10000000} seconds=${FUZZ_SECONDS:-0} short=0
if [[ ${1:-} == short ]]; then
  shift
  runs=${FUZZ_RUNS:-20000} seconds=${FUZZ_SECONDS:-2} short=1
fi
out=$(realpath -m "${FUZZ_OUT:-$target/fuzz/out}")

# What `cargo fuzz --sanitizer none` does, for a stable compiler: each edge and each comparison is counted. No static C
# runtime: libFuzzer brings C++ with it.
flags=(
  -Ctarget-feature=-crt-static
  -Cpasses=sancov-module
  -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares
)
encoded=$(printf '%s\x1f' "${flags[@]}")
# No target starts the helper, so that none needs to be built.
CARGO_ENCODED_RUSTFLAGS=${encoded%$'\x1f'} CUDA_ENTRYPOINT_HELPER_BIN=/dev/null \
  cargo build --locked --quiet --release --manifest-path tests/fuzz/Cargo.toml --target-dir "$target/fuzz" \
  --features libfuzzer --bins
binaries=$target/fuzz/x86_64-unknown-linux-gnu/release

# Some targets lay out a few files for each input: in memory, where there is a place for it.
place=/tmp
[[ ! -w /dev/shm ]] || place=/dev/shm
scratch=$(mktemp -d -p "$place" fuzz-XXXXXX)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$out" "$scratch/tmp"
export TMPDIR=$scratch/tmp

# What a thread of the product has.
ulimit -s 2048

# NAME LONGEST
"$binaries/corpus" lay-out "$scratch" >"$scratch/targets"
for name in "$@"; do
  grep -q "^$name " "$scratch/targets" || { echo "fuzz: no target is called $name" >&2 && exit 64; }
done

failed=()
while read -r name longest; do
  (($# == 0)) || [[ " $* " == *" $name "* ]] || continue
  mkdir -p "$out/$name"
  options=(
    -runs="$runs" -max_total_time="$seconds" -max_len="$longest" -print_final_stats=1
    # A hang; and memory that a length asks for and that nothing is ever put into.
    -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=64
    -artifact_prefix="$out/$name/"
  )
  [[ ! -s $scratch/$name.words ]] || options+=(-dict="$scratch/$name.words")
  start=$SECONDS status=0
  "$binaries/$name" "${options[@]}" "$scratch/$name" >"$out/$name.log" 2>&1 || status=$?
  inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$out/$name.log")
  # Nothing was reached where the first input fails.
  reached=$(grep -aoE 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' "$out/$name.log" | tail -n 1) || reached=
  read -r _ edges _ features _ entries <<<"${reached:-- - - - - -}"
  outcome=passed
  if ((status)); then
    failed+=("$name")
    outcome="FAILED ($status)"
    tail -n 40 "$out/$name.log" >&2
    echo "fuzz: $name failed: its input is in $out/$name, its log is $out/$name.log" >&2
  fi
  echo "| $name | ${inputs:-0} | $((SECONDS - start)) | $longest | $edges | $features | $entries | $outcome |" |
    tee "$out/$name.row"
  ((short || status)) && continue
  # Kept is what reaches every edge that was reached; counting how often would keep ten times as much.
  rm -rf "$scratch/merged"
  mkdir "$scratch/merged"
  "$binaries/$name" -merge=1 -use_counters=0 -use_cmp=0 -max_len="$longest" -timeout=10 \
    "$scratch/merged" "$scratch/$name" >"$out/$name.merge.log" 2>&1
  "$binaries/corpus" keep "$name" "$scratch/merged"
done <"$scratch/targets"

if ((!short)); then
  tests/fuzz/results.sh "$out" >"$scratch/results.md"
  cp "$scratch/results.md" tests/fuzz/results.md
fi
if ((${#failed[@]})); then
  echo "fuzz: failed: ${failed[*]}" >&2
  exit 1
fi
