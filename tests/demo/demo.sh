#!/usr/bin/env bash
# The entrypoint at work on real wheels, without a GPU and without Docker: an environment in target/demo stands for the
# image. `make demo` builds the binary first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

tests/build/prerequisites.sh demo
entrypoint=$dist/cuda-entrypoint
if [[ ! -x $entrypoint ]]; then
  echo "demo: no $entrypoint; run: make build" >&2
  exit 1
fi

# tests/requirements/demo.txt has wheels for these versions of Python.
supported='3\.(9|10|11|12|13)'
fallback=3.11

environment=$target/demo/venv
version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
rm -rf "$environment"
mkdir -p "$target/demo"
if [[ $version =~ ^$supported$ ]]; then
  python3 -m venv --without-pip "$environment"
  service=("$environment/bin/python" -c "print('service started')")
else
  # No wheel for this Python: an environment that is only looked at needs no interpreter, and the service is whatever
  # Python there is.
  echo "== Python $version has no spconv wheel: taking those for Python $fallback"
  version=$fallback
  mkdir -p "$environment"
  printf 'home = /usr/bin\nversion = %s\n' "$version" >"$environment/pyvenv.cfg"
  service=(python3 -c "print('service started')")
fi
site_packages=$environment/lib/python$version/site-packages
mkdir -p "$site_packages"

echo "== real wheels for Python $version into $environment (125 MB to fetch, the first time)"
wheels=$(tests/build/wheels.py --python "$version" demo)
# Without dependencies: pip refuses this pair of spconv and cumm, although they work together, and the demo has no use
# for torch. In one go, since `--target` does not merge a second wheel into the folder `nvidia`. The version of Python is
# the one asked for, whichever runs pip.
tests/build/pip.sh install --quiet --no-deps --no-compile --only-binary=:all: --no-index --find-links "$wheels" \
  --ignore-requires-python --implementation cp --python-version "$version" \
  --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
  --target "$site_packages" --require-hashes --requirement tests/requirements/demo.txt

options=(--stack tests/demo/stack.json --gpu optional --python "$environment")
echo "== what an image would have as its ENTRYPOINT and command: check that these wheels are one CUDA 12.4 stack, ask"
echo "   their CUDA libraries for their versions, look for a driver and a GPU (none is fine here), become the service:"
echo "   $entrypoint run ${options[*]} \\"
echo "     -- ${service[0]} -c \"${service[2]}\""
"$entrypoint" run "${options[@]}" -- "${service[@]}"
echo "== the service ended with 0. To see every check:"
echo "   $entrypoint check ${options[*]}"
