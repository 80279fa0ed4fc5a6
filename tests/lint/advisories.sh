#!/usr/bin/env bash
# Judges the lock files by RustSec's advisories, where the database can be had: from its address in deny.toml, or from the copy in
# CUDA_ENTRYPOINT_ADVISORIES, a folder with a clone of it. Elsewhere it says that nothing was judged, and that is no failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

deny=$(tests/lint/deny.sh --program)
options=()
if [[ -n ${CUDA_ENTRYPOINT_ADVISORIES:-} ]]; then
  export CARGO_NET_GIT_FETCH_WITH_CLI=true
  mkdir -p "$target/lint"
  # cargo-deny has no option for it.
  sed "s|^db-urls = .*|db-urls = [\"file://$(realpath "$CUDA_ENTRYPOINT_ADVISORIES")\"]|" deny.toml >"$target/lint/deny.toml"
  options=(--config "$target/lint/deny.toml")
fi
if ! timeout 120 "$deny" --log-level error fetch "${options[@]}" db 2>"$target/advisories.log"; then
  echo "advisories: NOT CHECKED: no database within reach ($(grep -v '^$' "$target/advisories.log" | tail -n 1))" >&2
  exit 0
fi
for manifest in Cargo.toml tests/fuzz/Cargo.toml; do
  "$deny" --locked --log-level error --manifest-path "$manifest" check "${options[@]}" --disable-fetch advisories
done
