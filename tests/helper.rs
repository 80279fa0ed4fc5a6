//! The helper as a program: real libcudart and libnvrtc, and a driver that does as it is told.

#[path = "../src/bin/cuda-helper/text.rs"]
#[allow(dead_code)]
mod text;

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::{fs, iter};

use crate::support::needs::Need;
use crate::support::run::copy_program;
use crate::support::{cuda, fakes};
use cuda_entrypoint::facts::{
    CallError, ComputeCapability, CudaVersion, Device, DriverAnswer, HelperLine, LibraryAnswer, NvmlAnswer,
    NvmlDevice,
};
use tempfile::TempDir;

/// One finished run.
struct Run {
    lines: Vec<HelperLine>,
    status: ExitStatus,
    stderr: String,
}

impl Run {
    fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.is_empty() || stdout.ends_with('\n'), "cut off: {stdout:?}");
        Self {
            lines: stdout.lines().map(decode).collect(),
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The run went through to its end.
    #[track_caller]
    fn complete(self) -> Self {
        assert_eq!(self.status.code(), Some(0), "{}: {}", self.status, self.stderr);
        assert_eq!(self.lines.last(), Some(&HelperLine::Done));
        let done = self.lines.iter().filter(|line| **line == HelperLine::Done);
        assert_eq!(done.count(), 1);
        self
    }

    fn last_step(&self) -> &str {
        self.steps().last().unwrap()
    }

    fn steps(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| match line {
            HelperLine::Step(step) => Some(step.as_str()),
            _ => None,
        })
    }

    /// Answers by their position in the request.
    fn libraries(&self) -> Vec<&LibraryAnswer> {
        let mut answers: Vec<_> = self
            .lines
            .iter()
            .filter_map(|line| match line {
                HelperLine::Library(answer) => Some(answer),
                _ => None,
            })
            .collect();
        answers.sort_by_key(|answer| answer.index);
        assert!(
            answers
                .iter()
                .enumerate()
                .all(|(index, answer)| answer.index == index),
            "{answers:?}"
        );
        answers
    }

    fn driver(&self) -> &DriverAnswer {
        let mut answers = self.lines.iter().filter_map(|line| match line {
            HelperLine::Driver(answer) => Some(answer),
            _ => None,
        });
        let answer = answers.next().expect("a driver line");
        assert!(answers.next().is_none(), "two driver lines");
        answer
    }

    fn devices(&self) -> Vec<&Device> {
        let devices = self.lines.iter().filter_map(|line| match line {
            HelperLine::Device(device) => Some(device),
            _ => None,
        });
        devices.collect()
    }

    fn nvml(&self) -> &NvmlAnswer {
        let mut answers = self.lines.iter().filter_map(|line| match line {
            HelperLine::Nvml(answer) => Some(answer),
            _ => None,
        });
        let answer = answers.next().expect("an NVML line");
        assert!(answers.next().is_none(), "two NVML lines");
        answer
    }

    fn nvml_devices(&self) -> Vec<&NvmlDevice> {
        let devices = self.lines.iter().filter_map(|line| match line {
            HelperLine::NvmlDevice(device) => Some(device),
            _ => None,
        });
        devices.collect()
    }
}

fn decode(line: &str) -> HelperLine {
    cuda_entrypoint::facts::from_json(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

/// A helper that finds no library beyond those of the system.
fn helper<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Command {
    let mut command = Command::new(fakes::helper_binary());
    command.args(arguments);
    for inherited in [
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "CUDA_VISIBLE_DEVICES",
        "FAKE_GPU_SCRIPT",
    ] {
        command.env_remove(inherited);
    }
    command
}

/// A helper that finds the fake driver, and the script's folder, which must outlive it.
fn scripted(request: &str, script: &str) -> (Command, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("script.json");
    fs::write(&file, script).unwrap();
    let mut command = helper([request]);
    command
        .env("LD_LIBRARY_PATH", fakes::fake_driver_dir())
        .env("FAKE_GPU_SCRIPT", file);
    (command, dir)
}

fn run(request: &str, script: &str) -> Run {
    let (mut command, _dir) = scripted(request, script);
    Run::of(&mut command)
}

/// Arguments of a `libraries` request.
fn libraries(wanted: &[(&str, &OsStr)]) -> Vec<OsString> {
    let mut arguments = vec![OsString::from("libraries")];
    for (kind, path) in wanted {
        let mut argument = OsString::from(format!("{kind}="));
        argument.push(path);
        arguments.push(argument);
    }
    arguments
}

fn ask_libraries(wanted: &[(&str, &OsStr)]) -> Run {
    Run::of(&mut helper(libraries(wanted))).complete()
}

fn version(major: u16, minor: u16) -> Option<CudaVersion> {
    Some(CudaVersion { major, minor })
}

fn call_error(call: &str, code: i32, name: &str, description: &str) -> Option<CallError> {
    Some(CallError {
        call: call.into(),
        code,
        name: name.into(),
        description: description.into(),
    })
}

fn real(path: &Path) -> Option<String> {
    Some(fs::canonicalize(path).unwrap().to_str().unwrap().to_owned())
}

// Real libraries

#[test]
fn each_copy_says_its_own_version() {
    // All have the same SONAME; none may answer for another.
    let copies = [cuda::cudart("12.6"), cuda::cudart("12.1"), cuda::cudart("12.4")];
    let run = ask_libraries(&[
        ("cudart", copies[0].as_os_str()),
        ("cudart", copies[1].as_os_str()),
        ("cudart", copies[2].as_os_str()),
    ]);
    let answers = run.libraries();
    let versions: Vec<_> = answers.iter().map(|answer| answer.version).collect();
    assert_eq!(versions, [version(12, 6), version(12, 1), version(12, 4)]);
    for (answer, copy) in answers.iter().zip(&copies) {
        assert_eq!(answer.path, real(copy));
        assert_eq!(answer.error, None);
    }
    let steps: Vec<&str> = run.steps().collect();
    assert_eq!(
        steps[..2],
        [
            format!("dlopen {}", copies[0].display()),
            "cudaRuntimeGetVersion".into()
        ]
    );
}

#[test]
fn nvrtc_says_its_version_and_architectures() {
    let copies = ["12.1", "12.4", "12.6"].map(cuda::nvrtc);
    let wanted: Vec<_> = copies.iter().map(|copy| ("nvrtc", copy.as_os_str())).collect();
    let run = ask_libraries(&wanted);
    let answers = run.libraries();
    let versions: Vec<_> = answers.iter().map(|answer| answer.version).collect();
    assert_eq!(versions, [version(12, 1), version(12, 4), version(12, 6)]);
    for answer in answers {
        assert_eq!(answer.error, None);
        assert_eq!(answer.nvrtc_archs.first(), Some(&50));
        assert_eq!(answer.nvrtc_archs.last(), Some(&90));
    }
}

#[test]
fn a_soname_is_resolved_by_the_loader_even_after_a_copy_named_by_path() {
    let system = tempfile::tempdir().unwrap();
    fs::copy(cuda::cudart("12.1"), system.path().join("libcudart.so.12.1.105")).unwrap();
    symlink("libcudart.so.12.1.105", system.path().join("libcudart.so.12")).unwrap();
    let wheel = cuda::cudart("12.4");
    let arguments = libraries(&[
        ("cudart", wheel.as_os_str()),
        ("cudart", "libcudart.so.12".as_ref()),
    ]);
    let run = Run::of(helper(arguments).env("LD_LIBRARY_PATH", system.path())).complete();
    let answers = run.libraries();
    assert_eq!(
        (answers[0].version, answers[1].version),
        (version(12, 4), version(12, 1))
    );
    assert_eq!(answers[0].path, real(&wheel));
    // The file behind the link: that is what was mapped.
    assert_eq!(
        answers[1].path,
        real(&system.path().join("libcudart.so.12.1.105"))
    );
}

#[test]
fn a_soname_that_nothing_provides_is_a_fact() {
    let run = ask_libraries(&[
        ("cudart", "libcudart.so.12".as_ref()),
        ("nvrtc", "libnvrtc.so.9".as_ref()),
    ]);
    for (answer, name) in run.libraries().iter().zip(["libcudart.so.12", "libnvrtc.so.9"]) {
        let error = answer.error.as_deref().unwrap();
        assert!(
            error.starts_with(name) && error.contains("cannot open shared object file"),
            "{error}"
        );
        assert_eq!((answer.version, &answer.path), (None, &None));
    }
}

#[test]
fn what_is_no_library_is_refused_and_the_next_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs::write(file("text"), "I am not a library\n".repeat(100)).unwrap();
    fs::write(file("empty"), "").unwrap();
    fs::create_dir(file("folder")).unwrap();
    nix::unistd::mkfifo(&file("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let good = fs::read(cuda::cudart("12.4")).unwrap();
    let mut foreign = good.clone();
    foreign[18] = 183; // e_machine: EM_AARCH64
    fs::write(file("aarch64"), foreign).unwrap();
    fs::write(file("header"), &good[..64]).unwrap();
    symlink("loop", file("loop")).unwrap();

    let wrong = [
        "text", "empty", "folder", "fifo", "aarch64", "header", "loop", "missing",
    ];
    let paths: Vec<PathBuf> = wrong.iter().map(|name| file(name)).collect();
    let good = cuda::cudart("12.4");
    let all = paths.iter().chain(iter::once(&good));
    let wanted: Vec<_> = all.map(|path| ("cudart", path.as_os_str())).collect();
    let run = ask_libraries(&wanted);
    let answers = run.libraries();
    for (answer, name) in answers.iter().zip(wrong) {
        let error = answer
            .error
            .as_deref()
            .unwrap_or_else(|| panic!("{name} was accepted"));
        assert!(error.contains(name), "{name}: {error}");
        assert_eq!(answer.version, None);
    }
    for (name, part) in [
        ("folder", "not a regular file"),
        ("fifo", "not a regular file"),
        ("missing", "No such"),
    ] {
        let index = wrong.iter().position(|wrong| *wrong == name).unwrap();
        assert!(
            answers[index].error.as_deref().unwrap().contains(part),
            "{name}: {:?}",
            answers[index]
        );
    }
    assert_eq!(answers.last().unwrap().version, version(12, 4));
}

#[test]
fn an_unreadable_library_is_refused() {
    // Nothing is unreadable for root, so the helper runs as nobody, from where nobody can reach it.
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("cuda-helper");
    copy_program(fakes::helper_binary(), &program);
    let library = dir.path().join("libcudart.so.12");
    fs::copy(cuda::cudart("12.4"), &library).unwrap();
    fs::set_permissions(&library, fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = Command::new(program);
    command
        .args(libraries(&[("cudart", library.as_os_str())]))
        .env_remove("LD_LIBRARY_PATH");
    if nix::unistd::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let run = Run::of(&mut command).complete();
    let error = run.libraries()[0].error.clone().unwrap();
    assert!(error.contains("Permission denied"), "{error}");
}

#[test]
fn a_library_without_the_function_is_named_and_not_called() {
    let driver = fakes::fake_driver_dir().join("libcuda.so.1");
    let cudart = cuda::cudart("12.4");
    let run = ask_libraries(&[("cudart", driver.as_os_str()), ("nvrtc", cudart.as_os_str())]);
    let answers = run.libraries();
    let expected = "cudaRuntimeGetVersion: the library does not export this function";
    assert_eq!(answers[0].error.as_deref(), Some(expected));
    assert_eq!(answers[0].path, real(&driver));
    assert_eq!(
        answers[1].error.as_deref(),
        Some("nvrtcVersion: the library does not export this function")
    );
}

#[test]
fn paths_need_not_be_utf_8() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(OsString::from_vec(b"caf\xe9 \n.so".to_vec()));
    fs::copy(cuda::cudart("12.4"), &path).unwrap();
    let run = ask_libraries(&[("cudart", path.as_os_str())]);
    assert_eq!(run.libraries()[0].version, version(12, 4));
    assert_eq!(
        run.steps().next().unwrap(),
        format!("dlopen {}", path.to_string_lossy())
    );
}

// The driver

#[test]
fn no_driver_is_a_fact() {
    let run = Run::of(&mut helper(["driver"])).complete();
    let error = run.driver().load_error.as_deref().unwrap();
    assert!(
        error.contains("libcuda.so.1: cannot open shared object file"),
        "{error}"
    );
    assert!(run.devices().is_empty());
    let run = Run::of(&mut helper(["nvml"])).complete();
    let error = run.nvml().load_error.as_deref().unwrap();
    assert!(
        error.contains("libnvidia-ml.so.1: cannot open shared object file"),
        "{error}"
    );
}

#[test]
fn a_driver_and_its_device_are_described() {
    let run = run(
        "driver",
        r#"{"driver_api": 12040, "devices": [{"pci": "0000ABCD:3B:00.0", "cc": "8.9"}]}"#,
    )
    .complete();
    assert_eq!(
        run.driver(),
        &DriverAnswer {
            path: real(&fakes::fake_driver_dir().join("libcuda.so.1")),
            api_version: version(12, 4),
            device_count: Some(1),
            ..DriverAnswer::default()
        }
    );
    assert_eq!(
        run.devices(),
        [&Device {
            ordinal: 0,
            name: "NVIDIA H200".into(),
            uuid: Some("GPU-00000000-0000-4000-8000-000000000000".into()),
            capability: Some(ComputeCapability { major: 8, minor: 9 }),
            memory: Some(150_754_820_096),
            pci_bus_id: Some("abcd:3b:00.0".into()),
            compute_mode: Some(0),
            error: None,
        }]
    );
}

#[test]
fn nvml_and_its_gpu_are_described() {
    let script = r#"{"driver_api": 12040, "driver_release": "550.54.15", "devices": [
        {"pci": "0000ABCD:3B:00.0", "cc": "8.9", "brand": 5, "compute_mode": 3, "ecc": 7, "remap_pending": true}]}"#;
    let run = run("nvml", script).complete();
    assert_eq!(
        run.nvml(),
        &NvmlAnswer {
            path: real(&fakes::fake_driver_dir().join("libnvidia-ml.so.1")),
            driver_release: Some("550.54.15".into()),
            api_version: version(12, 4),
            device_count: Some(1),
            ..NvmlAnswer::default()
        }
    );
    assert_eq!(
        run.nvml_devices(),
        [&NvmlDevice {
            index: 0,
            name: Some("NVIDIA H200".into()),
            uuid: Some("GPU-00000000-0000-4000-8000-000000000000".into()),
            pci_bus_id: Some("abcd:3b:00.0".into()),
            capability: Some(ComputeCapability { major: 8, minor: 9 }),
            brand: Some("geforce".into()),
            memory: Some(150_754_820_096),
            mig_enabled: Some(false),
            mig_instances: None,
            mig_uuids: Vec::new(),
            minor: Some(0),
            ecc_uncorrected: Some(7),
            remap_pending: Some(true),
            remap_failed: Some(false),
            compute_mode: Some(3),
            recovery_action: Some(0),
            fabric_state: None,
            fabric_status: None,
            fabric_health: None,
            memory_now: Vec::new(),
            error: None,
        }]
    );
}

#[test]
fn free_memory_and_its_holders_are_told_where_they_are_asked_for() {
    let script = r#"{"devices": [{"memory": 800, "free": 100, "holders": [[1, 5], [2, 700], [3, 18446744073709551615]]},
        {"memory": 800, "mig": true, "mig_instances": 1, "holders": [[9, 1]]}, {"memory": 800}]}"#;
    let states = |bytes: &str| -> Vec<String> {
        let (mut command, _dir) = scripted("nvml", script);
        let run = Run::of(command.arg(bytes)).complete();
        let devices = run.nvml_devices();
        let states = devices.iter().flat_map(|device| &device.memory_now);
        states
            .map(|state| {
                let holders = state.holders.iter().map(|holder| (holder.pid, holder.bytes));
                let holders: Vec<_> = holders.collect();
                format!("{} {} {holders:?}", state.total, state.free)
            })
            .collect()
    };
    assert_eq!(states("100"), ["800 100 []", "100 100 []", "800 800 []"]);
    assert_eq!(
        states("101"),
        [
            "800 100 []", // at once, and then with the holders
            "800 100 [(2, Some(700)), (1, Some(5)), (3, None)]",
            "100 100 []",
            "100 100 [(9, Some(1))]",
            "800 800 []"
        ]
    );
    let told = run("nvml", script).complete();
    assert!(
        told.nvml_devices()
            .iter()
            .all(|device| device.memory_now.is_empty())
    );
}

#[test]
fn every_device_gets_a_line_in_order() {
    for count in [0usize, 1, 8, 1024] {
        let script = format!(r#"{{"devices": [{{"repeat": {count}}}]}}"#);
        let seen = run("driver", &script).complete();
        let ordinals: Vec<i32> = seen.devices().iter().map(|device| device.ordinal).collect();
        assert_eq!(ordinals, (0..count as i32).collect::<Vec<_>>());
        let mut uuids: Vec<_> = seen
            .devices()
            .iter()
            .map(|device| device.uuid.clone().unwrap())
            .collect();
        uuids.dedup();
        assert_eq!(uuids.len(), count);
        if count == 0 {
            let expected = call_error(
                "cuInit",
                100,
                "CUDA_ERROR_NO_DEVICE",
                "no CUDA-capable device is detected",
            );
            assert_eq!(
                (&seen.driver().error, seen.driver().device_count),
                (&expected, None)
            );
        } else {
            assert_eq!(
                (&seen.driver().error, seen.driver().device_count),
                (&None, Some(count as i32))
            );
        }
        let seen = run("nvml", &script).complete();
        assert_eq!(
            (&seen.nvml().error, seen.nvml().device_count),
            (&None, Some(count as u32))
        );
        let indices: Vec<u32> = seen.nvml_devices().iter().map(|device| device.index).collect();
        assert_eq!(indices, (0..count as u32).collect::<Vec<_>>());
    }
}

#[test]
fn counts_that_make_no_sense_are_errors_and_not_loops() {
    let seen = run("driver", r#"{"devices": [{"repeat": 2000}]}"#).complete();
    assert_eq!(
        (seen.devices().len(), seen.driver().device_count),
        (1024, Some(2000))
    );
    let text = seen.driver().error.as_ref().unwrap().to_string();
    assert_eq!(
        text,
        "cuDeviceGetCount: reported 2000 devices; only the first 1024 are asked"
    );

    let seen = run("driver", r#"{"device_count": -3}"#).complete();
    assert_eq!((seen.devices().len(), seen.driver().device_count), (0, None));
    assert_eq!(
        seen.driver().error.as_ref().unwrap().to_string(),
        "cuDeviceGetCount: reported -3 devices"
    );

    // -1 as NVML's unsigned count; only one GPU has a handle.
    let seen = run("nvml", r#"{"device_count": -1}"#).complete();
    assert_eq!(
        (seen.nvml_devices().len(), seen.nvml().device_count),
        (1024, Some(u32::MAX))
    );
    assert!(seen.nvml().error.is_some());
    assert_eq!(seen.nvml_devices()[0].error, None);
    assert_eq!(
        seen.nvml_devices()[1].error,
        call_error(
            "nvmlDeviceGetHandleByIndex_v2",
            2,
            "NVML_ERROR_INVALID_ARGUMENT",
            "Invalid Argument"
        )
    );

    let seen = run("driver", r#"{"driver_api": 0}"#).complete();
    assert_eq!((seen.driver().api_version, seen.devices().len()), (None, 1));
    let text = seen.driver().error.as_ref().unwrap().to_string();
    assert_eq!(
        text,
        "cuDriverGetVersion: reported the version number 0, which no CUDA release has"
    );
}

#[test]
fn errors_of_the_driver_come_with_code_name_and_sentence() {
    for (code, name, description) in [
        (3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"),
        (34, "CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"),
        (
            46,
            "CUDA_ERROR_DEVICE_UNAVAILABLE",
            "CUDA-capable device(s) is/are busy or unavailable",
        ),
        (100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"),
        (101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"),
        (
            209,
            "CUDA_ERROR_NO_BINARY_FOR_GPU",
            "no kernel image is available for execution on the device",
        ),
        (802, "CUDA_ERROR_SYSTEM_NOT_READY", "system not yet initialized"),
        (
            803,
            "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
            "system has unsupported display driver / cuda driver combination",
        ),
        (
            804,
            "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
            "forward compatibility was attempted on non supported HW",
        ),
        (999, "CUDA_ERROR_UNKNOWN", "unknown error"),
        (35, "", ""), // the runtime's alone: the driver has no name for it
        (123_456, "", ""),
    ] {
        let run = run(
            "driver",
            &format!(r#"{{"calls": {{"cuInit": {{"returns": {code}}}}}}}"#),
        )
        .complete();
        let driver = run.driver();
        assert_eq!(driver.error, call_error("cuInit", code, name, description));
        assert_eq!(
            (driver.api_version, driver.device_count),
            (version(13, 0), None),
            "{code}"
        );
        assert!(run.devices().is_empty());
    }
}

#[test]
fn errors_of_nvml_come_with_code_name_and_sentence() {
    for (code, name, description) in [
        (9, "NVML_ERROR_DRIVER_NOT_LOADED", "Driver Not Loaded"),
        (
            18,
            "NVML_ERROR_LIB_RM_VERSION_MISMATCH",
            "Driver/library version mismatch",
        ),
        (999, "NVML_ERROR_UNKNOWN", "Unknown Error"),
        (77, "", "Unknown Error code"),
    ] {
        let run = run(
            "nvml",
            &format!(r#"{{"calls": {{"nvmlInit_v2": {{"returns": {code}}}}}}}"#),
        )
        .complete();
        assert_eq!(
            run.nvml().error,
            call_error("nvmlInit_v2", code, name, description)
        );
        assert!(run.nvml_devices().is_empty());
    }
}

#[test]
fn one_bad_device_hides_neither_its_other_facts_nor_the_next_device() {
    let script = r#"{"devices": [{"repeat": 3}], "calls": {
        "cuDeviceTotalMem_v2": {"device": 1, "returns": 999},
        "nvmlDeviceGetMemoryInfo": {"device": 1, "returns": 15},
        "nvmlDeviceGetHandleByIndex_v2": {"device": 2, "returns": 4}}}"#;
    let seen = run("driver", script).complete();
    let devices = seen.devices();
    assert_eq!(
        devices[1].error,
        call_error("cuDeviceTotalMem_v2", 999, "CUDA_ERROR_UNKNOWN", "unknown error")
    );
    assert_eq!(devices[1].memory, None);
    assert!(devices[1].pci_bus_id.is_some());
    assert_eq!((&devices[0].error, &devices[2].error), (&None, &None));
    let seen = run("nvml", script).complete();
    let devices = seen.nvml_devices();
    assert_eq!(
        devices[1].error,
        call_error(
            "nvmlDeviceGetMemoryInfo",
            15,
            "NVML_ERROR_GPU_IS_LOST",
            "GPU is lost"
        )
    );
    assert!(devices[1].compute_mode.is_some());
    assert_eq!(
        devices[2].error,
        call_error(
            "nvmlDeviceGetHandleByIndex_v2",
            4,
            "NVML_ERROR_NO_PERMISSION",
            "Insufficient Permissions"
        )
    );
}

#[test]
fn what_a_gpu_does_not_support_stays_unknown() {
    let script = r#"{"devices": [{"brand": null, "mig": null, "ecc": null, "remap_pending": null}],
        "calls": {"nvmlSystemGetCudaDriverVersion_v2": {"returns": 3}}}"#;
    let run = run("nvml", script).complete();
    assert_eq!((run.nvml().api_version, &run.nvml().error), (None, &None));
    let device = run.nvml_devices()[0];
    assert_eq!(device.error, None);
    assert_eq!(
        (device.mig_enabled, device.ecc_uncorrected, device.remap_failed),
        (None, None, None)
    );
    assert_eq!(device.brand, None);
    assert!(device.name.is_some());
}

#[test]
fn mig_instances_are_counted_over_gaps_and_carry_their_own_uuid() {
    let script = r#"{"devices": [{"mig": true, "mig_instances": 2}, {"mig": true}, {}]}"#;
    let seen = run("nvml", script).complete();
    let mig: Vec<_> = seen
        .nvml_devices()
        .iter()
        .map(|d| (d.mig_enabled, d.mig_instances))
        .collect();
    assert_eq!(
        mig,
        [(Some(true), Some(2)), (Some(true), Some(0)), (Some(false), None)]
    );
    let uuids: Vec<_> = seen.nvml_devices().iter().map(|d| d.mig_uuids.clone()).collect();
    let instance = |number: u8| format!("MIG-a5{number:02x}0000-0000-4000-8000-000000000000");
    assert_eq!(uuids, [vec![instance(0), instance(1)], vec![], vec![]]);
    let seen = run("driver", script).complete();
    let devices = seen.devices();
    assert_eq!(devices.len(), 2); // a GPU without instances is none
    assert_eq!(devices[0].name, "NVIDIA H200 MIG 1g.18gb");
    assert_eq!(
        devices[0].uuid.as_deref(),
        Some("MIG-a5000000-0000-4000-8000-000000000000")
    );
    assert_eq!(
        devices[1].uuid.as_deref(),
        Some("GPU-00000000-0000-4000-8000-000000000002")
    );
}

/// A driver's folder in which one library lost a function: its name in the symbol table is overwritten.
fn driver_without(library: &str, function: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(fakes::fake_driver_dir().join(library)).unwrap();
    let name = format!("\0{function}\0").into_bytes();
    let mut found = 0;
    for at in 0..bytes.len() - name.len() {
        if bytes[at..at + name.len()] == name[..] {
            bytes[at + 1] = b'X';
            found += 1;
        }
    }
    assert!(found > 0, "{function} is not in {library}");
    fs::write(dir.path().join(library), bytes).unwrap();
    dir
}

fn run_without(request: &str, library: &str, function: &str) -> Run {
    let dir = driver_without(library, function);
    Run::of(helper([request]).env("LD_LIBRARY_PATH", dir.path())).complete()
}

#[test]
fn a_function_that_is_missing_is_named() {
    let missing = "the library does not export this function";
    for function in ["cuInit", "cuDeviceGetCount", "cuDriverGetVersion"] {
        let run = run_without("driver", "libcuda.so.1", function);
        assert_eq!(
            run.driver().error,
            call_error(function, CallError::NO_CODE, "", missing)
        );
    }
    for function in [
        "cuDeviceGet",
        "cuDeviceGetName",
        "cuDeviceTotalMem_v2",
        "cuDeviceGetPCIBusId",
    ] {
        let run = run_without("driver", "libcuda.so.1", function);
        assert_eq!(
            run.devices()[0].error,
            call_error(function, CallError::NO_CODE, "", missing)
        );
    }
    for function in ["nvmlInit_v2", "nvmlDeviceGetCount_v2"] {
        let run = run_without("nvml", "libnvidia-ml.so.1", function);
        assert_eq!(
            run.nvml().error,
            call_error(function, CallError::NO_CODE, "", missing)
        );
    }
    let run = run_without("nvml", "libnvidia-ml.so.1", "nvmlDeviceGetHandleByIndex_v2");
    // An NVML of few functions: nothing can be asked of the GPU, and that is no error of the GPU's.
    assert_eq!(run.nvml_devices()[0].error, None);
    assert_eq!(run.nvml_devices()[0].name, None);
}

#[test]
fn optional_functions_may_be_missing() {
    let run = run_without("driver", "libcuda.so.1", "cuDeviceGetUuid_v2");
    assert_eq!(run.devices()[0].error, None);
    assert!(run.devices()[0].uuid.as_ref().unwrap().starts_with("GPU-"));
    let run = run_without("driver", "libcuda.so.1", "cuDeviceGetUuid");
    assert!(run.devices()[0].uuid.as_ref().unwrap().starts_with("GPU-"));
    for function in [
        "nvmlErrorString",
        "nvmlSystemGetCudaDriverVersion_v2",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetMinorNumber",
    ] {
        let run = run_without("nvml", "libnvidia-ml.so.1", function);
        assert_eq!(
            (&run.nvml().error, &run.nvml_devices()[0].error),
            (&None, &None),
            "{function}"
        );
        assert!(run.nvml_devices()[0].name.is_some());
    }
}

#[test]
fn visible_devices_are_the_drivers_business_and_not_nvmls() {
    let script = r#"{"devices": [{"repeat": 4}]}"#;
    let uuid = "GPU-00000000-0000-4000-8000-000000000003";
    for (value, expected) in [
        ("2,0", vec![2, 0]),
        (uuid, vec![3]),
        ("1,9,0", vec![1]),
        ("0,0", vec![]),
        ("GPU-0000", vec![]),
    ] {
        let (mut command, _dir) = scripted("driver", script);
        let run = Run::of(command.env("CUDA_VISIBLE_DEVICES", value)).complete();
        let seen: Vec<_> = run
            .devices()
            .iter()
            .map(|device| device.uuid.clone().unwrap())
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|number| format!("GPU-00000000-0000-4000-8000-{number:012x}"))
            .collect();
        assert_eq!(seen, expected, "{value}");
    }
    for value in ["", "-1", "NoDevFiles"] {
        let (mut command, _dir) = scripted("driver", script);
        let run = Run::of(command.env("CUDA_VISIBLE_DEVICES", value)).complete();
        assert_eq!(run.driver().error.as_ref().unwrap().code, 100, "{value:?}");
        let (mut command, _dir) = scripted("nvml", script);
        let run = Run::of(command.env("CUDA_VISIBLE_DEVICES", value)).complete();
        assert_eq!(run.nvml().device_count, Some(4));
    }
}

/// A /dev of its own in which there are nodes of all kinds, made of files: nothing of the driver is needed to open them.
#[test]
fn nodes_of_the_driver_are_opened_in_their_order_and_errors_are_facts() {
    Need::MountNamespace.demand();
    let (helper, dir) = scripted("nvml", "{}");
    let script = "mount -t tmpfs none /dev && cd /dev && touch nvidiactl nvidia10 nvidia2 nvidia-uvm-tools nvidia-modeset \
        nvidia-caps nvidia2x nvidia sda && mkdir nvidia3 && ln -s nowhere nvidia-uvm && exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(helper.get_program())
        .args(helper.get_args());
    command.envs(helper.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let run = Run::of(&mut command).complete();
    drop(dir);
    let nodes: Vec<_> = run
        .lines
        .iter()
        .filter_map(|line| match line {
            HelperLine::Node(node) => Some((node.path.as_str(), node.errno)),
            _ => None,
        })
        .collect();
    let (gone, folder) = (Some(nix::libc::ENOENT), Some(nix::libc::EISDIR));
    assert_eq!(
        nodes,
        [
            ("/dev/nvidiactl", None),
            ("/dev/nvidia-uvm", gone),
            ("/dev/nvidia2", None),
            ("/dev/nvidia3", folder),
            ("/dev/nvidia10", None)
        ]
    );
    assert!(
        run.lines
            .contains(&HelperLine::Step("open /dev/nvidia-uvm".into()))
    );
}

// A driver that misbehaves

#[test]
fn a_crash_leaves_its_signal_and_the_call_it_was_in() {
    for signal in [4, 6, 7, 8, 11] {
        let script = format!(r#"{{"calls": {{"cuInit": {{"signal": {signal}}}}}}}"#);
        let run = run("driver", &script);
        assert_eq!(run.status.signal(), Some(signal));
        assert_eq!(run.last_step(), "cuInit");
        assert!(!run.lines.contains(&HelperLine::Done));
    }
    let script =
        r#"{"devices": [{"repeat": 4}], "calls": {"nvmlDeviceGetName": {"device": 2, "signal": 11}}}"#;
    let run = run("nvml", script);
    assert_eq!(
        (run.status.signal(), run.last_step()),
        (Some(11), "nvmlDeviceGetName of GPU 2")
    );
    assert_eq!(run.nvml_devices().len(), 2); // what was said before stands
}

#[test]
fn an_exit_inside_the_driver_is_no_end() {
    let run = run("driver", r#"{"calls": {"cuDeviceGetCount": {"exit": 0}}}"#);
    assert_eq!(
        (run.status.code(), run.last_step()),
        (Some(0), "cuDeviceGetCount")
    );
    assert!(!run.lines.contains(&HelperLine::Done));
}

/// A process that does not outlive its test, failed or not.
struct Hanging(Child);

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a run and reads lines up to a step, in which it then hangs.
fn start_and_reach(command: &mut Command, step: &str) -> Hanging {
    let mut hanging = Hanging(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(hanging.0.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let reached = lines.any(|line| decode(&line) == HelperLine::Step(step.into()));
    assert!(reached, "it ended before {step}");
    hanging
}

#[test]
fn a_hang_is_named_and_can_be_killed() {
    let (mut command, _dir) = scripted("driver", r#"{"calls": {"cuInit": {"hang": true}}}"#);
    let mut hanging = start_and_reach(&mut command, "cuInit");
    let limits = fs::read_to_string(format!("/proc/{}/limits", hanging.0.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}"); // no core file
    assert_eq!(hanging.0.try_wait().unwrap(), None);
    hanging.0.kill().unwrap();
    assert_eq!(hanging.0.wait().unwrap().signal(), Some(9));
}

/// Those 8 MiB of the fake's, less a page at either end: it touches none of them itself.
#[test]
fn nvmls_zeroed_memory_is_there_before_it_is_touched() {
    Need::Populate.demand();
    let (mut command, _dir) = scripted("nvml", r#"{"calls": {"nvmlInit_v2": {"hang": true}}}"#);
    let hanging = start_and_reach(&mut command, "nvmlInit_v2");
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", hanging.0.id())).unwrap();
    let resident = |line: &str| -> Option<u64> {
        line.strip_prefix("Rss:")?
            .trim()
            .strip_suffix(" kB")?
            .parse()
            .ok()
    };
    assert!(
        smaps.lines().filter_map(resident).any(|size| size > 7 << 10),
        "{smaps}"
    );
}

#[test]
fn what_a_library_prints_stays_out_of_the_protocol() {
    let script = r#"{"calls": {"cuInit": {"print": "\"done\"\nCUDA chatter\n", "flood": 200000},
                               "nvmlInit_v2": {"print": "NVML chatter\n"}}}"#;
    let seen = run("driver", script).complete();
    assert_eq!(seen.devices().len(), 1);
    assert!(seen.stderr.contains("CUDA chatter") && seen.stderr.len() > 200_000);
    let seen = run("nvml", script).complete();
    assert!(seen.stderr.contains("NVML chatter"));
}

#[test]
fn another_descriptor_can_carry_the_protocol() {
    let (scripted, _dir) = scripted("driver", r#"{"calls": {"cuInit": {"print": "chatter\n"}}}"#);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", r#"exec "$0" --fd 7 driver 7>&1 >/dev/null"#])
        .arg(fakes::helper_binary());
    shell.envs(
        scripted
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let run = Run::of(&mut shell).complete();
    assert_eq!(run.devices().len(), 1);
    assert!(run.stderr.contains("chatter"), "{}", run.stderr);
}

#[test]
fn a_reader_that_has_gone_ends_the_run_before_the_next_call() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (mut command, _dir) = scripted("driver", r#"{"calls": {"cuInit": {"exit": 9}}}"#);
    let status = command.stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(1), "{status}");

    // The same where the pipe breaks in the middle: 1,024 devices do not fit into it.
    let (mut command, _dir) = scripted("driver", r#"{"devices": [{"repeat": 1024}]}"#);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 1000];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn closed_standard_descriptors_are_no_reason_to_fail() {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", r#"exec "$0" driver 0<&- 2>&-"#])
        .arg(fakes::helper_binary());
    shell
        .env("LD_LIBRARY_PATH", fakes::fake_driver_dir())
        .env_remove("CUDA_VISIBLE_DEVICES");
    let run = Run::of(&mut shell).complete();
    assert_eq!(run.devices().len(), 1);
}

// Usage

#[test]
fn bad_usage_exits_64_and_says_nothing_on_stdout() {
    let not_open = ["--fd", "987654", "driver"];
    for wrong in [
        &[][..],
        &["libraries"],
        &["libraries", "/usr/lib/libcudart.so.12"],
        &["libraries", "cudart="],
        &["libraries", "cublas=/x.so"],
        &["driver", "0"],
        &["nvml", "--verbose"],
        &["nvml", "-1"],
        &["nvml", "1", "2"],
        &["help"],
        &["--fd"],
        &["--fd", "7"],
        &["--fd", "0", "driver"],
        &["--fd", "2", "driver"],
        &["--fd", "-1", "driver"],
        &["--fd", "x", "driver"],
        &not_open,
    ] {
        let run = Run::of(&mut helper(wrong));
        assert_eq!(run.status.code(), Some(64), "{wrong:?}: {}", run.stderr);
        assert!(run.lines.is_empty(), "{wrong:?}");
        assert!(
            run.stderr.starts_with("cuda-helper: "),
            "{wrong:?}: {}",
            run.stderr
        );
    }
    let run = Run::of(&mut helper([OsStr::from_bytes(b"\xff")]));
    assert_eq!(run.status.code(), Some(64), "{}", run.stderr);
}

#[test]
fn misspelt_scripts_of_the_fake_abort() {
    for wrong in ["{", r#"{"device": []}"#, r#"{"calls": {"cuLaunch": {}}}"#] {
        let run = run("driver", wrong);
        assert_eq!(run.status.signal(), Some(6), "{wrong}");
        assert!(run.stderr.contains("fake driver: "), "{}", run.stderr);
    }
}

// Text

#[test]
fn text_of_libraries_is_bounded() {
    assert_eq!(text::until_nul(b"name\0rest"), "name");
    assert_eq!(text::until_nul(b"no end"), "no end");
    assert_eq!(text::until_nul(b""), "");
    assert_eq!(text::until_nul(b"\xff\0"), "\u{fffd}");
    assert_eq!(text::until_nul(&[b'x'; 10_000]).len(), text::LONGEST);
}

#[test]
fn addresses_and_uuids_take_one_form() {
    for (given, expected) in [
        ("00000000:3B:00.0", "0000:3b:00.0"),
        ("0000:3b:00.0", "0000:3b:00.0"),
        ("0000ABCD:01:00.0", "abcd:01:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"),
        ("zz:3B:00.0", "zz:3B:00.0"),
        ("", ""),
    ] {
        assert_eq!(text::pci_bus_id(given), expected);
    }
    let bytes: [u8; 16] = std::array::from_fn(|index| index as u8 * 17);
    assert_eq!(
        text::uuid("GPU", bytes),
        "GPU-00112233-4455-6677-8899-aabbccddeeff"
    );
    assert!(text::names_a_mig_instance("NVIDIA A100-SXM4-40GB MIG 1g.5gb"));
    assert!(!text::names_a_mig_instance("NVIDIA MIGHTY"));
}
