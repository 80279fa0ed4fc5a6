//! What parts of a receipt are keyed by, as texts under names, and how two keys differ in words.

use std::collections::BTreeMap;
use std::ffi::CString;

use crate::arch::ArchList;
use crate::check::{Overrides, Severity};
use crate::process::launch;
use crate::stack::{self, Stack};
use crate::text::one_line;

/// A key or a part of one.
pub type Texts = BTreeMap<String, String>;

/// Longest value that is shown, in characters.
const SHOWN: usize = 200;
/// Under these names [`in_force`] has what is no variable.
const MANIFEST: &str = "the manifest";
const ARCHS: &str = "archs";
const SEVERITIES: &str = "the severities";

/// Which part a key is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    /// files and libraries
    Image,
    /// driver, GPUs and smoke
    Device,
}

/// What is in force, whichever files and GPUs there are: the manifest's digest, the list, the severities, and the
/// variables that count. Nothing else of an environment is written to a receipt.
pub fn in_force(
    of: KeyKind,
    stack: &Stack,
    archs: Option<&ArchList>,
    overrides: &Overrides,
    env: &[CString],
) -> Texts {
    let mut all = Texts::new();
    let manifest = match stack.as_found {
        // No manifest is written like this.
        true => stack::NONE.to_string(),
        false => serde_json::to_string_pretty(stack).unwrap_or_default(),
    };
    all.insert(MANIFEST.to_string(), digest([manifest.as_str()]));
    if let Some(archs) = archs {
        all.insert(ARCHS.to_string(), archs.to_string());
    }
    if !overrides.0.is_empty() {
        let mut severities = String::new();
        for (code, severity) in &overrides.0 {
            let severity = match severity {
                Severity::Info => "info",
                Severity::Warn => "warn",
                Severity::Fail => "fail",
            };
            severities.push_str(&format!("{code}={severity} "));
        }
        all.insert(SEVERITIES.to_string(), severities.trim_end().to_string());
    }
    for (name, value) in launch::to_os_pairs(env) {
        let name = name.to_string_lossy();
        if counts(&name, of) {
            all.insert(name.into_owned(), value.to_string_lossy().into_owned());
        }
    }
    all
}

/// What the loader reads, without the `LD_` in front. Other variables begin so too, and LD_SDK_KEY is a secret of
/// LaunchDarkly's: since values are written down, names are counted up.
///
/// Source: ld.so(8).
const OF_THE_LOADER: &str = " ASSUME_KERNEL AUDIT BIND_NOT BIND_NOW DEBUG DEBUG_OUTPUT DYNAMIC_WEAK HWCAP_MASK \
    LIBRARY_PATH ORIGIN_PATH POINTER_GUARD PREFER_MAP_32BIT_EXEC PRELOAD PROFILE PROFILE_OUTPUT SHOW_AUXV \
    TRACE_LOADED_OBJECTS USE_LOAD_BIAS VERBOSE WARN ";

/// What changes how CUDA finds devices and kernels or what comes of them, which programs come in between (MPS, tools that
/// are injected), and how memory is got. Counted up: other variables begin so too.
///
/// Sources: CUDA C++ Programming Guide, "CUDA environment variables"; Multi-Process Service, "Environment variables"; CUPTI
/// and NVTX on injection; the documentation of cuBLAS, cuDNN and NCCL; PyTorch, "CUDA environment variables"; mallopt(3).
const OF_CUDA: &str = " CUBLAS_WORKSPACE_CONFIG CUDA_CACHE_DISABLE CUDA_DEVICE_MAX_CONNECTIONS CUDA_DEVICE_ORDER \
    CUDA_DISABLE_JIT CUDA_DISABLE_PTX_JIT CUDA_ENABLE_COREDUMP_ON_EXCEPTION CUDA_FORCE_JIT CUDA_FORCE_PTX_JIT \
    CUDA_INJECTION64_PATH CUDA_LAUNCH_BLOCKING CUDA_MANAGED_FORCE_DEVICE_ALLOC CUDA_MODULE_DATA_LOADING \
    CUDA_MODULE_LOADING CUDA_MPS_ACTIVE_THREAD_PERCENTAGE CUDA_MPS_CLIENT_PRIORITY \
    CUDA_MPS_ENABLE_PER_CTX_DEVICE_MULTIPROCESSOR_PARTITIONING CUDA_MPS_LOG_DIRECTORY CUDA_MPS_PINNED_DEVICE_MEM_LIMIT \
    CUDA_MPS_PIPE_DIRECTORY MALLOC_CONF MALLOC_PERTURB_ NVIDIA_TF32_OVERRIDE NVTX_INJECTION64_PATH PYTORCH_ALLOC_CONF \
    PYTORCH_CUDA_ALLOC_CONF PYTORCH_NO_CUDA_MEMORY_CACHING SPCONV_ALGO TORCH_ALLOW_TF32_CUBLAS_OVERRIDE \
    TORCH_BLAS_PREFER_CUBLASLT TORCH_CUDNN_V8_API_DISABLED ";

/// Those that name files which are loaded, by themselves or in a list.
pub const NAME_FILES: [&str; 4] = [
    "LD_PRELOAD",
    "LD_AUDIT",
    "CUDA_INJECTION64_PATH",
    "NVTX_INJECTION64_PATH",
];

/// What Python reads, without the `PYTHON` in front: PYTHON_API_KEY is none of these.
///
/// Source: <https://docs.python.org/3/using/cmdline.html#environment-variables>, 3.8 to 3.15.
const OF_PYTHON: &str = " ASYNCIODEBUG BREAKPOINT CASEOK COERCECLOCALE DEBUG DEVMODE DONTWRITEBYTECODE EXECUTABLE \
    FAULTHANDLER HASHSEED HOME INSPECT INTMAXSTRDIGITS IOENCODING MALLOC MALLOCSTATS NODEBUGRANGES NOUSERSITE OPTIMIZE \
    PATH PERFSUPPORT PLATLIBDIR PROFILEIMPORTTIME PYCACHEPREFIX SAFEPATH STARTUP TRACEMALLOC UNBUFFERED USERBASE UTF8 \
    VERBOSE WARNDEFAULTENCODING WARNINGS _BASIC_REPL _COLORS _CONTEXT_AWARE_WARNINGS _CPU_COUNT _DISABLE_REMOTE_DEBUG \
    _FROZEN_MODULES _GIL _HISTORY _JIT _LAZY_IMPORTS _PERF_JIT_SUPPORT _PRESITE _THREAD_INHERIT_CONTEXT ";

/// Variables that decide what the loader and Python take, and for GPUs what CUDA shows. NVIDIA_VISIBLE_DEVICES is a
/// request to the container runtime, which Kubernetes writes anew for each container; what came of it is what NVML shows.
fn counts(name: &str, of: KeyKind) -> bool {
    let is_one = |prefix, all: &str| name.strip_prefix(prefix).is_some_and(|rest| has_word(all, rest));
    let is_of_devices =
        has_word(OF_CUDA, name) || (name.ends_with("_VISIBLE_DEVICES") && name != "NVIDIA_VISIBLE_DEVICES");
    is_one("LD_", OF_THE_LOADER)
        || is_one("PYTHON", OF_PYTHON)
        || name == "GLIBC_TUNABLES"
        || (of == KeyKind::Device && is_of_devices)
}

#[inline(never)]
fn has_word(all: &str, word: &str) -> bool {
    !word.is_empty() && all.split(' ').any(|known| known == word)
}

/// What of [`in_force`] is another now.
pub fn differences(was: &Texts, is: &Texts) -> Vec<String> {
    let mut found = Vec::new();
    each(was, is, &mut |name, was, is| {
        found.push(match name {
            MANIFEST => "the manifest is another".to_string(),
            ARCHS | SEVERITIES => changed(name, was, is, "none"),
            _ => changed(name, was, is, "unset"),
        });
    });
    found
}

/// Called with a name, the text that it had and the one that it has.
pub type Differs<'a> = dyn FnMut(&str, Option<&str>, Option<&str>) + 'a;

/// Calls for every name whose texts differ: those that were there, then those that are new.
pub fn each(was: &Texts, is: &Texts, differs: &mut Differs<'_>) {
    for (name, text) in was {
        let now = is.get(name);
        if now != Some(text) {
            differs(name, Some(text), now.map(String::as_str));
        }
    }
    for (name, text) in is {
        if !was.contains_key(name) {
            differs(name, None, Some(text));
        }
    }
}

/// `NAME was "a" and is unset`
pub fn changed(what: &str, was: Option<&str>, is: Option<&str>, absent: &str) -> String {
    let show = |value: Option<&str>| match value {
        Some(text) => format!("\"{}\"", one_line(text, SHOWN)),
        None => absent.to_string(),
    };
    format!("{what} was {} and is {}", show(was), show(is))
}

/// FNV-1a with 64 bits over the texts, each closed by a NUL, as hexadecimal digits. It tells things apart that differ by
/// accident; who can write a receipt could as well write the digest into it.
///
/// Source: <http://www.isthe.com/chongo/tech/comp/fnv/>
pub fn digest<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for text in texts {
        for byte in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Code;

    fn env(variables: &[&str]) -> Vec<CString> {
        variables.iter().map(|v| CString::new(*v).unwrap()).collect()
    }

    fn stack(text: &str) -> Stack {
        Stack::parse(&format!(r#"{{"schema": 1, "name": "t"{text}}}"#)).unwrap()
    }

    fn archs(text: &str) -> Option<ArchList> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn each_difference_is_told_by_itself() {
        let same = ["LD_LIBRARY_PATH=/a", "CUDA_VISIBLE_DEVICES=0"];
        let none = Overrides::default();
        let key = |stack: &Stack, archs: Option<ArchList>, overrides: &Overrides, variables: &[&str]| {
            in_force(KeyKind::Device, stack, archs.as_ref(), overrides, &env(variables))
        };
        let list = || archs("8.0;9.0");
        let base = key(&stack(""), list(), &none, &[&same[..], &["SECRET=x"]].concat());
        let with = |stack: &Stack, archs: Option<ArchList>, overrides: &Overrides, variables: &[&str]| {
            differences(&base, &key(stack, archs, overrides, variables))
        };
        assert_eq!(with(&stack(""), list(), &none, &same), [""; 0]);
        // Blanks in the manifest do not count, nor does what the part does not rest on.
        let others = [&same[..], &["NVIDIA_VISIBLE_DEVICES=all", "HOME=/x", "OTHER=1"]].concat();
        assert_eq!(with(&stack("\n "), list(), &none, &others), [""; 0]);
        let other = stack(r#", "python": ">=3.9""#);
        assert_eq!(with(&other, list(), &none, &same), ["the manifest is another"]);
        let said = r#"archs was "8.0;9.0" and is "9.0""#;
        assert_eq!(with(&stack(""), archs("9.0"), &none, &same), [said]);
        assert_eq!(
            with(&stack(""), None, &none, &same),
            [r#"archs was "8.0;9.0" and is none"#]
        );
        let deny = Overrides(
            [
                (Code::ShmSmall, Severity::Fail),
                (Code::MemlockLow, Severity::Info),
            ]
            .into(),
        );
        let said = r#"the severities was none and is "shm-small=fail memlock-low=info""#;
        assert_eq!(with(&stack(""), list(), &deny, &same), [said]);
        for (variables, said) in [
            (
                &["LD_LIBRARY_PATH=/b", "CUDA_VISIBLE_DEVICES=0"][..],
                r#"LD_LIBRARY_PATH was "/a" and is "/b""#,
            ),
            (
                &["CUDA_VISIBLE_DEVICES=0"],
                r#"LD_LIBRARY_PATH was "/a" and is unset"#,
            ),
            (
                &["LD_LIBRARY_PATH=/a"],
                r#"CUDA_VISIBLE_DEVICES was "0" and is unset"#,
            ),
            (
                &["LD_LIBRARY_PATH=/a", "CUDA_VISIBLE_DEVICES=0", "PYTHONPATH="],
                r#"PYTHONPATH was unset and is """#,
            ),
            (
                &["LD_LIBRARY_PATH=/a", "CUDA_VISIBLE_DEVICES=0", "LD_PRELOAD=/x.so"],
                r#"LD_PRELOAD was unset and is "/x.so""#,
            ),
            (
                &[
                    "LD_LIBRARY_PATH=/a",
                    "CUDA_VISIBLE_DEVICES=0",
                    "CUDA_DEVICE_ORDER=PCI_BUS_ID",
                ],
                r#"CUDA_DEVICE_ORDER was unset and is "PCI_BUS_ID""#,
            ),
        ] {
            assert_eq!(with(&stack(""), list(), &none, variables), [said]);
        }
    }

    #[test]
    fn the_image_does_not_rest_on_gpus() {
        let all = env(&[
            "CUDA_VISIBLE_DEVICES=0",
            "PYTHONPATH=/p",
            "LD_LIBRARY_PATH=/l",
            "PATH=/bin",
            // These are nobody's but the service's.
            "LD_SDK_KEY=secret",
            "LD_=secret",
            "LD_WARN VERBOSE=secret",
            "PYTHON=secret",
            "PYTHON_API_KEY=secret",
        ]);
        let now = in_force(KeyKind::Image, &stack(""), None, &Overrides::default(), &all);
        let names: Vec<&str> = now.keys().map(String::as_str).collect();
        assert_eq!(names, ["LD_LIBRARY_PATH", "PYTHONPATH", MANIFEST]);
    }

    #[test]
    fn the_digest_is_fnv_1a() {
        // Of the page above, with the NUL that closes each text.
        assert_eq!(digest([]), "cbf29ce484222325");
        assert_eq!(digest(["a"]), "089be207b544f1e4");
        assert_ne!(digest(["ab", "c"]), digest(["a", "bc"]));
    }
}
