#!/usr/bin/env bash
# Runs the fuzz targets: tests/fuzz/README.md says what they are and what to do with a finding.
#
#   run.sh [TARGET]...      each of them, or those that are named, for FUZZ_RUNS inputs, and writes results.md
#   run.sh short            each for a few seconds, and writes nothing that git keeps
#
# FUZZ_RUNS: inputs for each target (10000000). FUZZ_SECONDS: most seconds for each (none).
# FUZZ_OUT: a folder for the logs and for what is found (target/fuzz/out).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if ! command -v c++ >/dev/null 2>&1; then
  echo "fuzz: no C++ compiler, which libFuzzer is built with: install it (apt-get install -y g++)" >&2
  exit 1
fi

runs=${FUZZ_RUNS:-10000000}
seconds=${FUZZ_SECONDS:-0}
out=$(realpath -m "${FUZZ_OUT:-target/fuzz/out}")
keep=1
if [[ ${1:-} == short ]]; then
  shift
  runs=${FUZZ_RUNS:-20000} seconds=${FUZZ_SECONDS:-2} keep=0
fi

# What `cargo fuzz run --sanitizer none` does, for a stable compiler: libFuzzer's feedback from each edge and each
# comparison. No static C runtime: libFuzzer brings C++ with it.
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
export CUDA_ENTRYPOINT_HELPER_BIN=/dev/null
build=(cargo build --locked --quiet --release --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz)
CARGO_ENCODED_RUSTFLAGS=${encoded%$'\x1f'} "${build[@]}" --features libfuzzer --bins
binaries=target/fuzz/x86_64-unknown-linux-gnu/release

# Some targets lay out a few files at each input.
scratch=$(mktemp -d -p "$([[ -d /dev/shm && -w /dev/shm ]] && echo /dev/shm || echo /tmp)" fuzz-XXXXXX)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$out"

# Lines of NAME LONGEST.
table=$("$binaries/seeds" "$scratch/seeds")
if (($#)); then
  named=$(printf '%s\n' "$@")
  table=$(grep -xE "($(paste -sd'|' <<<"$named")) [0-9]+" <<<"$table")
fi

failed=()
while read -r name longest; do
  corpus=$scratch/$name
  mkdir -p "$corpus" "$scratch/tmp" "$out/$name"
  cp -r "$scratch/seeds/$name/." "$corpus"
  for kept in tests/fuzz/corpus/"$name" tests/fuzz/found/"$name"; do
    [[ ! -d $kept ]] || cp -r "$kept/." "$corpus"
  done
  options=(
    -runs="$runs" -max_total_time="$seconds" -max_len="$longest" -print_final_stats=1 -verbosity=1
    # A hang, and memory that a length asks for and that nothing is ever put into.
    -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=64
    -artifact_prefix="$out/$name/"
  )
  [[ ! -s $scratch/seeds/$name.words ]] || options+=(-dict="$scratch/seeds/$name.words")
  start=$SECONDS
  status=0
  TMPDIR=$scratch/tmp "$binaries/$name" "${options[@]}" "$corpus" >"$out/$name.log" 2>&1 || status=$?
  took=$((SECONDS - start))
  stat() { sed -n "s/^stat::$1: *//p" "$out/$name.log" | tail -n 1; }
  units=$(stat number_of_executed_units)
  coverage=$(grep -oE 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' "$out/$name.log" | tail -n 1)
  word="passed"
  if ((status)); then
    failed+=("$name")
    word="FAILED with $status"
    tail -n 40 "$out/$name.log" >&2
    echo "fuzz: $name: the input is in $out/$name; its log is $out/$name.log" >&2
  fi
  printf '%s|%s|%s|%s|%s|%s\n' "$name" "${units:-0}" "$took" "${coverage:-none}" "$longest" "$word" |
    tee "$out/$name.result"
  # What is worth keeping: the fewest inputs that reach all that was reached.
  if ((keep && status == 0)); then
    rm -rf "$out/$name.corpus"
    mkdir -p "$out/$name.corpus"
    TMPDIR=$scratch/tmp "$binaries/$name" -merge=1 -max_len="$longest" -rss_limit_mb=1024 \
      "$out/$name.corpus" "$corpus" >"$out/$name.merge.log" 2>&1 || failed+=("$name (merge)")
  fi
done <<<"$table"

if ((${#failed[@]})); then
  printf 'fuzz: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
