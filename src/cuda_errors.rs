//! CUDA and NVML errors as sentences: what it usually is, and what to do about it.
//!
//! Numbers and names: `cudaError_enum` of the CUDA Driver API and `nvmlReturn_enum` of the NVML API reference. The
//! causes are what people met, not what the enumerators' comments say.

use crate::check::Code;
use crate::facts::{CallError, CudaVersion};

/// What an error means for the one who runs the container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meaning {
    /// which finding it becomes
    pub code: Code,
    /// what it usually is
    pub cause: &'static str,
    /// what to do
    pub hint: &'static str,
    /// trying again may help
    pub retryable: bool,
    /// who has to act where a program of the image met it
    pub party: Party,
}

/// Who has to act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Party {
    /// of the node, the driver, or the container's settings
    Operator,
    /// who builds the image, or writes the program in it
    Image,
}

macro_rules! meanings {
    ($($number:literal $party:ident $retryable:literal $code:ident $cause:literal $hint:literal;)*) => {
        &[$(($number, Meaning {
            code: Code::$code, cause: $cause, hint: $hint, retryable: $retryable, party: Party::$party,
        }),)*]
    };
}

/// CUresult values that people meet. The cudart library uses the same numbers for the same errors.
const CUDA: &[(i32, Meaning)] = meanings! {
    2 Operator true GpuNotReady "the GPU's memory or the host's locked memory is used up"
        "free the GPU (nvidia-smi shows who uses it), or raise the container's memory limit";
    3 Operator true GpuNotReady "the driver could not be initialised: a process that was forked after CUDA had started, or a driver in a broken state"
        "if nvidia-smi fails on the host as well, reload the driver or reboot the node; in a program, start CUDA after the fork";
    34 Image false StubDriver "a stub library of the CUDA toolkit was loaded instead of the driver"
        "remove lib64/stubs from LD_LIBRARY_PATH and from /etc/ld.so.conf.d in the image, then run ldconfig";
    35 Operator false DriverTooOld "the driver is older than the CUDA runtime"
        "update the node's driver, or use an image built for an older CUDA";
    36 Operator false DriverTooOld "the driver does not know a call that this CUDA runtime makes: it is too old"
        "update the node's driver, or use an image built for an older CUDA";
    46 Operator true GpuNotReady "all GPUs are busy or unavailable: exclusive mode with another process on them, or no access to the device"
        "look at nvidia-smi for the process that holds it, or set the compute mode to DEFAULT (nvidia-smi -c 0)";
    100 Operator true GpuMissing "the driver runs and sees no GPU"
        "";
    101 Operator false GpuNotReady "a device number is out of range"
        "correct CUDA_VISIBLE_DEVICES: it counts from 0 within this container";
    102 Operator false GpuNotReady "this virtual GPU has no licence"
        "license the vGPU (gridd.conf and the token of the licence server on the node), then start again";
    209 Image false KernelsUnusable "no kernel image fits this GPU"
        "cuda-entrypoint kernels FILE shows which architectures the library carries";
    214 Operator false GpuUnhealthy "an uncorrectable ECC error was met"
        "drain the node and reset the GPU (nvidia-smi -r) or reboot; watch it for Xid 48, 63, 64, 94 and 95 in dmesg";
    216 Operator true GpuNotReady "the GPU is in exclusive mode, and another thread has it"
        "look at nvidia-smi for the process that holds it, or set the compute mode to DEFAULT (nvidia-smi -c 0)";
    218 Image false KernelsUnusable "the driver could not compile PTX that the image carries: it is damaged, or made for other GPUs only"
        "reinstall the package, or build it for this GPU's architecture (cuda-entrypoint kernels FILE shows what it carries)";
    220 Operator false GpuUnhealthy "an uncorrectable NVLink error was met"
        "drain the node and reset its GPUs; nvidia-smi nvlink -e and dmesg (Xid 74) tell more";
    221 Operator false GpuNotReady "the driver's PTX compiler, libnvidia-ptxjitcompiler.so.1, is not in this container"
        "let NVIDIA_DRIVER_CAPABILITIES contain `compute` and recreate the container; or install packages that are compiled for this GPU";
    222 Image false KernelsUnusable "PTX was compiled by a newer CUDA than this driver supports"
        "update the node's driver, or install code that is compiled for this GPU (explain driver-minor-compat)";
    223 Operator false GpuNotReady "the compilation of PTX is disabled, and a kernel exists as PTX only"
        "unset CUDA_DISABLE_PTX_JIT and CUDA_DISABLE_JIT, or install packages that are compiled for this GPU";
    226 Operator false GpuUnhealthy "the GPU contained a hardware error, or an access over NVLink that is not allowed"
        "start again; if it comes back, drain the node and reset the GPU, and watch it for Xid 94 in dmesg";
    227 Operator false DriverTooOld "the image's device code is in a format that this driver cannot load: the driver is too old"
        "update the node's driver, or use an image built for an older CUDA";
    304 Operator true GpuNotReady "the operating system refused a call of the driver"
        "check that the container may open /dev/nvidia* (docker run --gpus all, or the device plugin), and dmesg for NVRM lines";
    702 Operator false GpuNotReady "a kernel exceeded the time limit that applies to GPUs with a display attached"
        "use a GPU without a display (nvidia-smi shows Disp.A Off), or stop the display server that uses it";
    714 Image false GpuNotReady "a kernel corrupted or exceeded its call stack on the GPU"
        "raise the stack limit (cudaLimitStackSize), or update the package that the kernel belongs to; compute-sanitizer locates the fault";
    715 Image false GpuNotReady "a kernel executed an instruction that is not valid on this GPU"
        "reinstall the package or build it for this GPU's architecture; if programs fail that run on other nodes, look for Xid 13 in dmesg";
    718 Image false GpuNotReady "a kernel jumped to an invalid address"
        "update or rebuild the package that the kernel belongs to; compute-sanitizer locates the fault";
    719 Operator true GpuNotReady "a kernel crashed on the GPU and left the context unusable"
        "start again; if it comes back, look for Xid lines in dmesg";
    721 Image false GpuNotReady "a kernel ended without freeing the tensor memory that it had allocated"
        "update the package that the kernel belongs to: the kernel must free its tensor memory before it ends";
    800 Operator false GpuNotReady "the operation is not permitted: a device cgroup or an MPS server of another user forbids it"
        "recreate the container with its GPUs (docker run --gpus all), or run as the MPS server's user";
    801 Operator false GpuNotReady "the operation is not supported on this system"
        "check that driver and GPU belong together (nvidia-smi on the host)";
    802 Operator true GpuNotReady "the NVSwitch fabric is not up: the fabric manager of this HGX or DGX machine does not run"
        "start nvidia-fabricmanager on the node, of exactly the driver's version (systemctl status nvidia-fabricmanager); --wait 2m waits for a node that is booting";
    803 Operator false GpuNotReady "libcuda in the container and the kernel's driver are of different versions: a forced compat libcuda, or a driver that was updated under the running container"
        "remove /usr/local/cuda/compat from LD_LIBRARY_PATH and ld.so.conf.d, and recreate the container (a restart keeps the old library mounted)";
    804 Operator false GpuNotReady "forward compatibility was tried on a GPU that does not support it"
        "remove cuda-compat from the image (only data centre GPUs may use it) and use the node's own libcuda";
    805 Operator true GpuNotReady "the MPS control daemon cannot be reached"
        "start nvidia-cuda-mps-control on the node, and mount its pipe directory (CUDA_MPS_PIPE_DIRECTORY) into the container";
    806 Operator true GpuNotReady "the MPS server could not be reached over its pipe"
        "restart the MPS control daemon on the node; its logs are in CUDA_MPS_LOG_DIRECTORY";
    807 Operator true GpuNotReady "the MPS server is not ready for new clients"
        "wait (--wait 1m), or restart the MPS control daemon";
    808 Operator true GpuNotReady "the MPS server has no room for another client"
        "end clients that are not needed, or start fewer on this GPU: MPS serves a limited number of them";
    809 Operator true GpuNotReady "the MPS server has no connection left for another client"
        "end clients that are not needed, or lower CUDA_DEVICE_MAX_CONNECTIONS of each";
    810 Operator true GpuNotReady "the MPS server ended this client, as it does where another client has failed"
        "start again; the MPS server's log on the node (CUDA_MPS_LOG_DIRECTORY) names the client that failed";
    911 Operator true GpuNotReady "a device outside the GPU, such as a network adapter that shares memory with it, reported an error"
        "start again; if it comes back, check that device and its driver (dmesg on the node)";
    916 Operator true GpuNotReady "the key rotation of confidential computing failed on this GPU"
        "start again; if it comes back, check nvidia-smi conf-compute -f and -grs on the node, then reset the GPU and attest it again";
    919 Operator true GpuNotReady "the NVLink fabric of this GPU is still being set up"
        "wait (--wait 5m); if it stays, start nvidia-fabricmanager on the node, of exactly the driver's version";
    999 Operator true GpuNotReady "an unknown error: /dev/nvidia-uvm is missing, or the driver is wedged"
        "on the host: nvidia-modprobe -c 0 -u, then recreate the container; if it stays, look for Xid lines in dmesg and reboot";
};

/// nvmlReturn_t values that people meet.
const NVML: &[(i32, Meaning)] = meanings! {
    4 Operator false GpuNotReady "NVML may not access the driver"
        "run with the device nodes (docker run --gpus all) and as a user who may open /dev/nvidiactl";
    9 Operator true GpuNotReady "the NVIDIA kernel module is not loaded"
        "load it on the node (modprobe nvidia; nvidia-smi), or wait for the driver container (--wait 5m)";
    12 Operator false GpuNotReady "NVML did not find a library that it needs: only a part of the driver is in this container"
        "let NVIDIA_DRIVER_CAPABILITIES contain `compute` and `utility`, and recreate the container";
    14 Operator false GpuUnhealthy "a GPU's infoROM, which holds its configuration and its record of bad memory, is corrupted"
        "drain the node and power-cycle it; if nvidia-smi still reports it, have the infoROM reflashed or the GPU replaced";
    15 Operator false GpuUnhealthy "a GPU fell off the bus"
        "drain the node and reboot it; look for Xid 79 in dmesg";
    16 Operator false GpuUnhealthy "a GPU must be reset before it can be used"
        "drain the node and reset the GPU (nvidia-smi -r) or reboot; look for Xid lines in dmesg";
    17 Operator false GpuNotReady "the operating system blocks the access to a GPU's device node, as a device cgroup does"
        "recreate the container with its GPUs (docker run --gpus all, or the device plugin)";
    18 Operator false GpuNotReady "NVML in the container and the kernel's driver are of different versions: the driver was updated under the running container"
        "recreate the container; if nvidia-smi fails on the host as well, reload the driver or reboot";
    20 Operator true GpuNotReady "NVML could not allocate memory"
        "raise the container's memory limit (docker run --memory, resources.limits.memory)";
    27 Operator true GpuNotReady "the driver is not ready for requests yet"
        "wait (--wait 5m); if it stays, run nvidia-smi on the node and look for NVRM lines in dmesg";
    28 Operator true GpuMissing "NVML found no GPU"
        "request a GPU (`docker run --gpus all`, `resources.limits.\"nvidia.com/gpu\": 1`), and check nvidia-smi on the host";
    999 Operator true GpuNotReady "an unknown error: often the container's cgroup lost its devices, as `systemctl daemon-reload` on the host brings about"
        "recreate the container; to keep it from happening, use CDI or the cgroupfs driver";
};

/// What programs say in their own words where it is known who has to act: the sentences of `cudaGetErrorString` (libcudart
/// 12.4 to 13.5), the enumerators of the runtime and of the driver where they are not the same but for `_`, and torch's own
/// sentences (c10/cuda/CUDAFunctions.cpp, torch/csrc/cuda/Module.cpp). In lower case, without `_`; the first that is found
/// counts. Errors without a row are the program's own, 700 and 719 among them; 209 has its words where a smoke is judged.
const CUDA_SAID: &[(i32, &str)] = &[
    (3, "initialization error"),
    (3, "cuda driver initialization failed"),
    (3, "cudaerrorinitializationerror"),
    (3, "cudaerrornotinitialized"),
    (34, "cuda driver is a stub library"),
    (34, "cudaerrorstublibrary"),
    (35, "driver version is insufficient"),
    (35, "cudaerrorinsufficientdriver"),
    (35, "nvidia driver on your system is too old"),
    (36, "api call is not supported in the installed cuda driver"),
    (36, "cudaerrorcallrequiresnewerdriver"),
    (46, "devices are busy or unavailable"),
    (46, "device(s) is/are busy or unavailable"),
    (46, "cudaerrordevicesunavailable"),
    (46, "cudaerrordeviceunavailable"),
    (100, "no cuda-capable device"),
    (100, "no cuda gpus are available"),
    (100, "torch sees no cuda device"),
    (100, "cudaerrornodevice"),
    (101, "invalid device ordinal"),
    (101, "cudaerrorinvaliddevice"),
    (101, "device < numgpus internal assert failed"),
    (102, "device doesn't have valid grid license"),
    (102, "cudaerrordevicenotlicensed"),
    (214, "uncorrectable ecc error"),
    (214, "cudaerroreccuncorrectable"),
    (216, "exclusive-thread device already in use"),
    (218, "ptx jit compilation failed"),
    (218, "cudaerrorinvalidptx"),
    (220, "uncorrectable nvlink error"),
    (220, "cudaerrornvlinkuncorrectable"),
    (221, "ptx jit compiler library not found"),
    (221, "cudaerrorjitcompilernotfound"),
    (222, "unsupported toolchain"),
    (222, "unsupported .version"),
    (222, "cudaerrorunsupportedptxversion"),
    (223, "ptx jit compilation was disabled"),
    (223, "cudaerrorjitcompilationdisabled"),
    (
        226,
        "invalid access of peer gpu memory over nvlink or a hardware error",
    ),
    (226, "cudaerrorcontained"),
    (227, "loader version is insufficient for fatbin"),
    (227, "cudaerrorinsufficientloaderversion"),
    (304, "os call failed or operation not supported on this os"),
    (304, "cudaerroroperatingsystem"),
    (702, "the launch timed out and was terminated"),
    (702, "cudaerrorlaunchtimeout"),
    (714, "hardware stack error"),
    (714, "cudaerrorhardwarestackerror"),
    (715, "an illegal instruction was encountered"),
    (715, "cudaerrorillegalinstruction"),
    (718, "invalid program counter"),
    (718, "cudaerrorinvalidpc"),
    (721, "tensor memory not completely freed"),
    (721, "cudaerrortensormemoryleak"),
    (800, "operation not permitted"),
    (800, "cudaerrornotpermitted"),
    (801, "operation not supported"),
    (801, "cudaerrornotsupported"),
    (802, "system not yet initialized"),
    (802, "cudaerrorsystemnotready"),
    (803, "unsupported display driver / cuda driver combination"),
    (803, "cudaerrorsystemdrivermismatch"),
    (804, "forward compatibility was attempted"),
    (804, "cudaerrorcompatnotsupportedondevice"),
    (805, "mps client failed to connect"),
    (805, "cudaerrormpsconnectionfailed"),
    (806, "remote procedural call between the mps server"),
    (806, "cudaerrormpsrpcfailure"),
    (807, "mps server is not ready"),
    (807, "cudaerrormpsservernotready"),
    (808, "resources required to create mps client have been exhausted"),
    (808, "cudaerrormpsmaxclientsreached"),
    (
        809,
        "resources required to support device connections have been exhausted",
    ),
    (809, "cudaerrormpsmaxconnectionsreached"),
    (810, "mps client has been terminated by the server"),
    (810, "cudaerrormpsclientterminated"),
    (911, "async error has occured in external entity"),
    (911, "cudaerrorexternaldevice"),
    (916, "an error happened during the key rotation sequence"),
    (916, "cudaerrorkeyrotation"),
    (919, "gpu fabric is not ready"),
    (919, "cudaerrorfabricnotready"),
    (999, "unknown error"),
    (999, "cuda unknown error"),
    (999, "cudaerrorunknown"),
];

/// The same of `nvmlErrorString`.
const NVML_SAID: &[(i32, &str)] = &[
    (9, "nvml: driver not loaded"),
    (9, "nvmlerrordrivernotloaded"),
    (14, "corrupted inforom"),
    (14, "nvmlerrorcorruptedinforom"),
    (15, "gpu is lost"),
    (15, "nvmlerrorgpuislost"),
    (16, "gpu requires reset"),
    (16, "gpu requires restart"),
    (16, "nvmlerrorresetrequired"),
    (17, "gpu access blocked by the operating system"),
    (17, "nvmlerroroperatingsystem"),
    (18, "driver/library version mismatch"),
    (999, "nvml: unknown error"),
];

const OTHER: Meaning = Meaning {
    code: Code::GpuNotReady,
    cause: "the driver refused",
    hint: "run nvidia-smi on the host and look for NVRM and Xid lines in dmesg",
    retryable: false,
    party: Party::Operator,
};

/// The oldest Linux driver release that serves a CUDA version in full.
///
/// Source: CUDA Toolkit release notes, table "CUDA Toolkit and Corresponding Driver Versions"
/// (docs.nvidia.com/cuda/cuda-toolkit-release-notes), the row of each version's first release.
const DRIVERS: &[(u16, u16, &str)] = &[
    (10, 0, "410.48"),
    (10, 1, "418.39"),
    (10, 2, "440.33"),
    (11, 0, "450.51.05"),
    (11, 1, "455.23"),
    (11, 2, "460.27.03"),
    (11, 3, "465.19.01"),
    (11, 4, "470.42.01"),
    (11, 5, "495.29.05"),
    (11, 6, "510.39.01"),
    (11, 7, "515.43.04"),
    (11, 8, "520.61.05"),
    (12, 0, "525.60.13"),
    (12, 1, "530.30.02"),
    (12, 2, "535.54.03"),
    (12, 3, "545.23.06"),
    (12, 4, "550.54.14"),
    (12, 5, "555.42.02"),
    (12, 6, "560.28.03"),
    (12, 8, "570.26"),
    (12, 9, "575.51.03"),
    (13, 0, "580.65.06"),
    (13, 1, "590.44.01"),
    (13, 2, "595.45.04"),
    (13, 3, "610.43.02"),
    // The notes name the branch, R615.
    (13, 4, "615"),
];

/// The first driver release whose CUDA version `accepts` takes, such as `550.54.14` for 12.4 and newer.
pub fn oldest_driver(accepts: impl Fn(CudaVersion) -> bool) -> Option<&'static str> {
    drivers().find(|(version, _)| accepts(*version)).map(|row| row.1)
}

/// Each CUDA version with the first driver release that serves it in full, the oldest first.
pub fn drivers() -> impl Iterator<Item = (CudaVersion, &'static str)> + Clone {
    DRIVERS
        .iter()
        .map(|&(major, minor, release)| (CudaVersion { major, minor }, release))
}

/// The branch of a driver release: 535 of `535.104.05`.
pub fn branch(release: &str) -> Option<u32> {
    release.split('.').next()?.parse().ok()
}

/// Whether a libcuda that serves this CUDA is newer than what belongs to a kernel driver of this release: it works by forward
/// compatibility. Each CUDA came with a branch of its own, so that the branches tell; a CUDA without a row is not told.
pub fn is_forward(serves: CudaVersion, release: &str) -> bool {
    let first = drivers().find(|(version, _)| *version == serves);
    let first = first.and_then(|(_, release)| branch(release));
    first.zip(branch(release)).is_some_and(|(first, own)| own < first)
}

/// The oldest driver release on which anything of a major version runs by minor-version compatibility.
///
/// Source: the same notes, table "CUDA Toolkit and Minimum Required Driver Version for CUDA Minor Version
/// Compatibility".
pub fn oldest_driver_of_major(major: u16) -> Option<&'static str> {
    match major {
        11 => Some("450.80.02"),
        12 => Some("525.60.13"),
        13 => Some("580.65.06"),
        _ => None,
    }
}

/// What is no error of the library's own: a missing function, an answer that makes no sense.
const NONSENSE: Meaning = Meaning {
    code: Code::GpuNotReady,
    cause: "the library does not behave as NVIDIA's does",
    hint: "check which file was loaded and what mounted it: it has to be the one of the node's driver; recreate the container with the NVIDIA runtime",
    retryable: false,
    party: Party::Operator,
};

fn lookup(table: &[(i32, Meaning)], error: &CallError) -> Meaning {
    if error.code == CallError::NO_CODE {
        return NONSENSE;
    }
    table
        .iter()
        .find(|(number, _)| *number == error.code)
        .map_or(OTHER, |(_, meaning)| *meaning)
}

/// What an error of libcuda means.
pub fn cuda(error: &CallError) -> Meaning {
    lookup(CUDA, error)
}

/// The error that a program's words give away, if it is known who has to act: the library's name, the error's number, and
/// what it means.
pub fn said(text: &str) -> Option<(&'static str, i32, Meaning)> {
    let text = text.to_lowercase().replace('_', "");
    let find = |table: &[(i32, &str)]| table.iter().find(|row| has_said(&text, row)).map(|row| row.0);
    let number = find(CUDA_SAID).or_else(|| numbered(&text));
    let (whose, number, table) = match number {
        Some(number) => ("CUDA", number, CUDA),
        None => ("NVML", find(NVML_SAID)?, NVML),
    };
    let row = table.iter().find(|(known, _)| *known == number)?;
    Some((whose, number, row.1))
}

/// Sentences that errno(3) has as well, or that longer ones begin with. They count behind "CUDA error:" and the like, and
/// where nothing comes after them.
const ALSO_OTHERS: [&str; 4] = [
    "initialization error",
    "operation not permitted",
    "operation not supported",
    "unknown error",
];

/// Whether the words stand there as the error's own.
fn has_said(text: &str, (number, words): &(i32, &str)) -> bool {
    text.match_indices(words).any(|(at, _)| {
        let before = text.get(..at).unwrap_or_default();
        let after = text.get(at + words.len()..).unwrap_or_default();
        if words.starts_with("cudaerror") || words.starts_with("nvmlerror") {
            // Another enumerator may begin like this one.
            return !after.starts_with(|c: char| c.is_ascii_alphabetic());
        }
        let before = before.trim_end_matches([' ', ':', '\'', '(', ')']);
        let begins = ["cuda error", "cuda driver error", "cuda failure"];
        let is_told =
            begins.iter().any(|word| before.ends_with(word)) || before.ends_with(&number.to_string());
        let rest = after.trim_start_matches(' ');
        let ends = !rest.starts_with(|c: char| c.is_ascii_alphabetic()) || after.starts_with(" at ");
        !ALSO_OTHERS.contains(words) || (is_told && ends)
    })
}

/// An error that is told by its number: `CUDA error 802`, `CUDA error code 3`, `Cuda failure 46`.
fn numbered(text: &str) -> Option<i32> {
    text.split("cuda ").skip(1).find_map(|rest| {
        let rest = rest.trim_start_matches("runtime ").trim_start_matches("driver ");
        let rest = rest
            .strip_prefix("error ")
            .or_else(|| rest.strip_prefix("failure "))?;
        let rest = rest.trim_start_matches("code ").trim_start_matches('(');
        let number = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
        CUDA_SAID.iter().any(|row| row.0 == number).then_some(number)
    })
}

/// Whether the variables that say which GPUs are visible belong to the picture: busy or unavailable, and bad ordinal.
pub fn is_of_visibility(error: &CallError) -> bool {
    matches!(error.code, 46 | 101)
}

/// Whether an error of libnvidia-ml counts where CUDA works all the same: a GPU that is lost or waits for a reset, and a
/// library that is not the kernel module's.
pub fn nvml_decides(error: &CallError) -> bool {
    matches!(error.code, 15 | 16 | 18)
}

/// What an error of libnvidia-ml means.
pub fn nvml(error: &CallError) -> Meaning {
    lookup(NVML, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_next_step_and_stands_once() {
        for table in [CUDA, NVML] {
            let numbers: std::collections::BTreeSet<i32> = table.iter().map(|(n, _)| *n).collect();
            assert_eq!(numbers.len(), table.len());
            for (number, meaning) in table {
                // 100 gets its hint from what the variables say.
                assert!(!meaning.hint.is_empty() || *number == 100, "{number}");
                assert!(!meaning.cause.is_empty(), "{number}");
            }
        }
    }

    #[test]
    fn newer_cuda_needs_a_newer_release() {
        let parts =
            |release: &str| -> Vec<u32> { release.split('.').map(|part| part.parse().unwrap()).collect() };
        for pair in DRIVERS.windows(2) {
            assert!((pair[0].0, pair[0].1) < (pair[1].0, pair[1].1), "{pair:?}");
            assert!(parts(pair[0].2) < parts(pair[1].2), "{pair:?}");
        }
        let least = |major, minor| oldest_driver(|v| v >= CudaVersion { major, minor });
        assert_eq!(least(12, 4), Some("550.54.14"));
        assert_eq!(least(12, 7), Some("570.26")); // there was no 12.7
        assert_eq!(least(13, 0), Some("580.65.06"));
        assert_eq!(least(13, 1), Some("590.44.01"));
        assert_eq!(least(13, 2), Some("595.45.04"));
        assert_eq!(least(13, 3), Some("610.43.02"));
        assert_eq!(least(13, 4), Some("615"));
        // A release that is not known is not made up.
        assert_eq!(least(13, 5), None);
        assert_eq!(least(99, 0), None);
        assert_eq!(oldest_driver_of_major(13), Some("580.65.06"));
        assert_eq!(oldest_driver_of_major(10), None);
    }

    #[test]
    fn a_libcuda_that_is_newer_than_the_kernels_driver() {
        for (major, minor, release, forward) in [
            (13, 0, "535.261.03", true),
            (12, 9, "570.211.01", true),
            (13, 0, "580.65.06", false),
            (12, 2, "535.43.02", false),
            (12, 4, "550.163.01", false),
            // driver 565, of no toolkit
            (12, 7, "565.57.01", false),
            // Windows numbers its releases apart, and none of them is lower.
            (12, 4, "551.61", false),
            (13, 0, "", false),
        ] {
            assert_eq!(
                is_forward(CudaVersion { major, minor }, release),
                forward,
                "{major}.{minor} {release}"
            );
        }
    }

    /// Whoever has to act and whether waiting helps belongs to the error, not to where it was met.
    #[test]
    fn the_party_and_whether_it_may_pass() {
        let of = |table: &[(i32, Meaning)], number| {
            let row = table.iter().find(|row| row.0 == number);
            row.map(|row| (row.1.party, row.1.retryable))
        };
        for number in [36, 102, 220, 221, 223, 226, 227, 702] {
            assert_eq!(of(CUDA, number), Some((Party::Operator, false)), "{number}");
        }
        for number in [808, 809, 810, 911, 916, 919] {
            assert_eq!(of(CUDA, number), Some((Party::Operator, true)), "{number}");
        }
        for number in [34, 209, 218, 222, 714, 715, 718, 721] {
            assert_eq!(of(CUDA, number), Some((Party::Image, false)), "{number}");
        }
        for number in [12, 14, 15, 16, 17, 18] {
            assert_eq!(of(NVML, number), Some((Party::Operator, false)), "{number}");
        }
        for number in [9, 20, 27, 28] {
            assert_eq!(of(NVML, number), Some((Party::Operator, true)), "{number}");
        }
    }

    /// A sentence or an enumerator without a row of its number would mean nothing.
    #[test]
    fn what_is_said_has_a_meaning() {
        for (said, table) in [(CUDA_SAID, CUDA), (NVML_SAID, NVML)] {
            for (number, words) in said {
                assert!(table.iter().any(|row| row.0 == *number), "{number} {words}");
                assert_eq!(*words, words.to_lowercase().replace('_', ""), "{number}");
            }
        }
    }

    #[test]
    fn the_errors_of_the_design_lead_to_their_findings() {
        let code = |n| {
            cuda(&CallError {
                call: "cuInit".into(),
                code: n,
                name: String::new(),
                description: String::new(),
            })
            .code
        };
        assert_eq!(code(34), Code::StubDriver);
        assert_eq!(code(35), Code::DriverTooOld);
        assert_eq!(code(100), Code::GpuMissing);
        for n in [3, 46, 101, 802, 803, 804, 999, 12345, -1] {
            assert_eq!(code(n), Code::GpuNotReady, "{n}");
        }
    }
}
