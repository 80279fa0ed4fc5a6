//! Facts of this container that need no helper: limits, device nodes, driver libraries off the loader's path, and the
//! few variables that decide which GPUs are visible.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};

use crate::discover::nvidia_require;
use crate::facts::Limits;
use crate::hidden::is_hidden;
use crate::order;
use crate::packages::compiled_by_pccm;
use crate::process::launch;
use crate::processor::OWN;

/// Variables whose values may stand in a report, beside those that keep a package from compiling. Everything else in an
/// environment may be a secret.
pub const SHOWN_VARIABLES: [&str; 8] = [
    "CUDA_VERSION",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_DISABLE_REQUIRE",
    "CUDA_MPS_PIPE_DIRECTORY",
    "LD_LIBRARY_PATH",
];

/// The variables of [`SHOWN_VARIABLES`] that are set, and all that state conditions on the machine. Of a name that
/// stands twice, the first, as getenv(3) takes it.
pub fn shown_environment(env: &[CString]) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::new();
    for (name, value) in launch::to_os_pairs(env) {
        let name = name.to_string_lossy();
        let is_pccms = || compiled_by_pccm().any(|(_, variable)| name == variable);
        if SHOWN_VARIABLES.contains(&&*name) || name.starts_with(nvidia_require::PREFIX) || is_pccms() {
            let value = || value.to_string_lossy().into_owned();
            shown.entry(name.into_owned()).or_insert_with(value);
        }
    }
    shown
}

/// Size of /dev/shm and RLIMIT_MEMLOCK, which the service inherits.
pub fn limits() -> Limits {
    let shm = Path::new("/dev/shm");
    let shm_bytes = shm
        .is_dir()
        .then(|| nix::sys::statvfs::statvfs(shm).ok())
        .flatten()
        .map(|s| s.blocks().saturating_mul(s.fragment_size()));
    let memlock_bytes = getrlimit(Resource::RLIMIT_MEMLOCK)
        .ok()
        .map(|(soft, _)| soft)
        .filter(|soft| *soft != nix::libc::RLIM_INFINITY);
    Limits {
        shm_bytes,
        memlock_bytes,
    }
}

/// `/dev/nvidia*` and `/dev/dxg` (WSL2), sorted.
pub fn device_nodes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/dev") else {
        return Vec::new();
    };
    let mut nodes: Vec<String> = entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|n| n == "dxg" || (n.starts_with("nvidia") && !n.starts_with("nvidia-caps")))
        .map(|n| format!("/dev/{n}"))
        .filter(|path| !is_hidden(Path::new(path)))
        .collect();
    order::sort(&mut nodes);
    nodes
}

/// Whether a node is a GPU's: `/dev/nvidia0`.
pub fn is_gpu(node: &str) -> bool {
    let number = node.strip_prefix("/dev/nvidia").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

/// Copies of a library of the driver's in the folders of LD_LIBRARY_PATH and in the usual ones; worth naming where the
/// loader took none.
pub fn driver_copies(library: &str, ld_library_path: Option<&OsStr>) -> Vec<String> {
    let searched = ld_library_path.map(OsStr::to_string_lossy).unwrap_or_default();
    let searched = searched.split([':', ';']).filter(|f| f.starts_with('/'));
    searched
        .chain(OWN.driver.iter().copied())
        .map(|f| format!("{f}/{library}"))
        .filter(|p| Path::new(p).exists() && !is_hidden(Path::new(p)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_of_the_list_and_conditions_are_shown() {
        let env = [
            "NVIDIA_REQUIRE_CUDA=cuda>=12.4",
            "NVIDIA_REQUIRE_OTHER=arch>=8.0",
            "NVIDIA_REQUIRE_OTHER=second",
            "CUDA_VERSION=12.4.1",
            "NVIDIA_REQUIREMENT=no",
            "TOKEN=secret",
            "odd",
        ];
        let env: Vec<CString> = env.iter().map(|v| CString::new(*v).unwrap()).collect();
        let shown = shown_environment(&env);
        let shown: Vec<(&str, &str)> = shown.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("CUDA_VERSION", "12.4.1"),
                ("NVIDIA_REQUIRE_CUDA", "cuda>=12.4"),
                ("NVIDIA_REQUIRE_OTHER", "arch>=8.0")
            ]
        );
    }

    #[test]
    fn copies_of_the_driver_are_found_by_their_name_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (with, without) = (dir.path().join("with"), dir.path().join("without"));
        for folder in [&with, &without] {
            std::fs::create_dir(folder).unwrap();
        }
        std::fs::write(with.join("libcuda.so.1"), "").unwrap();
        let path = format!("relative::{}:{}", without.display(), with.display());
        let found = driver_copies("libcuda.so.1", Some(OsStr::new(&path)));
        assert_eq!(found.first(), Some(&format!("{}/libcuda.so.1", with.display())));
        assert!(
            !found
                .iter()
                .any(|f| f.contains("without") || f.contains("relative")),
            "{found:?}"
        );
    }
}
