#!/usr/bin/env bash
# Unpacks what bundle.sh packed. usage: unpack.sh BUNDLEDIR DESTDIR; prints the folder for PYTHONPATH.
set -euo pipefail

bundle=${1:?usage: unpack.sh BUNDLEDIR DESTDIR}
dest=${2:?usage: unpack.sh BUNDLEDIR DESTDIR}
mkdir -p "$dest"
tar -C "$dest" -xJf "$bundle/wheels.tar.xz"
site=$(cd "$dest/site" && pwd)
nvrtc=$site/nvidia/cuda_nvrtc/lib
# The names that cumm's extension asks for carry auditwheel's hash; the files are NVIDIA's, unchanged but for it.
python3 - "$site" <<'PY' | while read -r name; do
import glob, re, sys
found = set()
for path in glob.glob(sys.argv[1] + "/cumm/core_cc*.so"):
    found.update(m.decode() for m in re.findall(rb"libnvrtc-[0-9a-zA-Z.-]*\.so[0-9.]*", open(path, "rb").read()))
print("\n".join(sorted(found)))
PY
    case $name in
        libnvrtc-builtins-*) cp "$nvrtc"/libnvrtc-builtins.so.12.4 "$site/cumm_cu124.libs/$name" ;;
        libnvrtc-*) cp "$nvrtc"/libnvrtc.so.12 "$site/cumm_cu124.libs/$name" ;;
    esac
done
echo "$site"
