//! Short texts: lists of architectures, conditions on the machine, settings, and whatever is shown.

#[path = "../../../src/bin/cuda-helper/text.rs"]
#[allow(dead_code)]
mod helper;

/// Lists of architectures.
pub mod archs {
    use cuda_entrypoint::arch::{ArchList, Service};
    use cuda_entrypoint::facts::ComputeCapability;

    use super::super::input::is_printable;

    pub fn run(bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        let list = match text.parse::<ArchList>() {
            Ok(list) => list,
            Err(error) => {
                let error = error.to_string();
                assert!(error.len() < 1000, "{error}");
                return is_printable(&error);
            }
        };
        let written = list.to_string();
        assert_eq!(written.parse::<ArchList>().as_ref(), Ok(&list), "{written}");
        assert!(list.iter().is_sorted());
        for major in [0, 2, 8, 9, 10, 12, 255] {
            for minor in [0, 3, 255] {
                let device = ComputeCapability { major, minor };
                let listed = list.iter().any(|arch| arch.capability == device);
                assert_eq!(list.serves(device) == Service::Listed, listed);
            }
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        [
            "7.5;8.0;8.6;8.9;9.0",
            "9.0a 10.0f+PTX",
            "Hopper;Ampere+Tegra+PTX",
            "sm_90a",
            "8.0,9.0",
            "native all common",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    }
}

/// `NVIDIA_REQUIRE_*`.
pub mod require {
    use cuda_entrypoint::discover::nvidia_require::{self, Key, Version};

    pub fn run(bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        match nvidia_require::parse(text) {
            Ok(alternatives) => {
                for alternative in &alternatives {
                    assert!(!alternative.0.is_empty());
                    assert!(alternative.to_string().len() < 2000);
                    for condition in &alternative.0 {
                        assert!(text.contains(condition.text.trim_end_matches('…')));
                        let is_version = Version::parse(&condition.value).is_some();
                        assert!(is_version || matches!(condition.key, Key::Brand | Key::Unknown));
                    }
                }
                // What is shown of conditions without end is none itself.
                let written: Vec<String> = alternatives.iter().map(ToString::to_string).collect();
                if !written.iter().any(|text| text.contains('…')) {
                    assert_eq!(
                        nvidia_require::parse(&written.join(" ")).as_ref(),
                        Ok(&alternatives)
                    );
                }
            }
            Err(mistake) => {
                assert!((1..=text.chars().count()).contains(&mistake.at), "{mistake}");
                assert!(mistake.message.len() < 1000, "{mistake}");
            }
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        [
            &include_bytes!("../../fixtures/require/valid/nvidia-cuda-10.1.txt")[..],
            include_bytes!("../../fixtures/require/valid/own.txt"),
            include_bytes!("../../fixtures/require/invalid/version-huge.txt"),
            b"vendor=3 CUDA<13,,arch!=9.0",
        ]
        .map(<[u8]>::to_vec)
        .to_vec()
    }
}

/// The command line and the variables, until every value is parsed.
pub mod settings {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use cuda_entrypoint::check::Code;
    use cuda_entrypoint::cli::config::{self, Config};
    use cuda_entrypoint::cli::{self, Command};

    use super::super::input::{join, parts};

    /// Arguments, and variables with an equals sign behind the first part that is empty.
    pub fn run(bytes: &[u8]) {
        let word = |bytes: &[u8]| OsString::from_vec(bytes.iter().copied().filter(|&b| b != 0).collect());
        let mut words = parts(bytes);
        let args: Vec<OsString> = words.by_ref().take_while(|w| !w.is_empty()).map(word).collect();
        let variables = words.filter_map(|pair| {
            let at = pair.iter().position(|&b| b == b'=')?;
            Some((word(&pair[..at]), word(&pair[at + 1..])))
        });
        let given = args.clone();
        let invocation = match cli::parse(args, variables) {
            Ok(invocation) => invocation,
            Err(error) => return assert!(!error.message.is_empty() && !error.hint.is_empty()),
        };
        // The service's words are its own, byte for byte.
        if let Command::Run { service } = &invocation.command {
            assert!(given.ends_with(service));
        }
        if let Command::Explain(Some(name)) = &invocation.command {
            let _ = name.parse::<Code>();
        }
        let settings = &invocation.settings;
        let is_off = config::is_off(settings);
        let _ = (config::is_warn(settings), config::init_or_exec(settings));
        let _ = (config::logging(settings), config::termination_log(settings));
        let _ = config::shown_stack(settings);
        match Config::from_settings(settings) {
            Ok(config) => assert_eq!(is_off, config.mode == config::Mode::Off),
            Err(error) => {
                assert!(matches!(error.exit_code(), 64 | 78));
                assert!(!error.message.is_empty());
            }
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let all: &[&[&str]] = &[
            &[
                "run",
                "--mode",
                "warn",
                "--wait=1m30s",
                "--",
                "python",
                "-m",
                "x",
                "",
                "CUDA_ENTRYPOINT_GPU=optional",
            ],
            &[
                "check",
                "--stage=device",
                "--archs",
                "8.0;9.0+PTX",
                "--deny",
                "shm-small,gpu-missing",
                "--json",
            ],
            &[
                "run",
                "--init=group",
                "--smoke",
                "handoff",
                "--smoke-devices",
                "all",
                "--receipt",
                "/r",
                "sleep",
                "1",
            ],
            &[
                "check",
                "",
                "CUDA_ENTRYPOINT_DEVICE_TIMEOUT=5s",
                "CUDA_ENTRYPOINT_MODES=off",
                "CUDA_ENTRYPOINT_LOG=trace",
            ],
            &["kernels", "--archs", "9.0", "--json", "/opt"],
            &["stack", "capture", "--python", "/opt/venv", "--", "python"],
            &["explain", "driver-missing"],
            &["schema", "report"],
            &["install", "/shared"],
            &["help", "run"],
        ];
        let bytes = |words: &&[&str]| join(&words.iter().map(|w| w.as_bytes()).collect::<Vec<_>>());
        all.iter().map(bytes).collect()
    }
}

/// Whatever is shown to people, whoever wrote it.
pub mod shown {
    use std::time::Duration;

    use cuda_entrypoint::report::{progress, says, termination};
    use cuda_entrypoint::text::{one_line, sanitize};

    use super::super::input::{Input, is_clean};
    use super::helper;

    pub fn run(bytes: &[u8]) {
        let mut input = Input::new(bytes);
        let (number, part) = (input.u16(), input.text());
        let bytes = input.rest();
        // What a driver's library calls a GPU, as the helper takes it over.
        let name = helper::until_nul(bytes);
        assert!(!name.contains('\0') && name.len() <= 3 * helper::LONGEST);
        let _ = (helper::pci_bus_id(&name), helper::names_a_mig_instance(&name));
        let text = String::from_utf8_lossy(bytes);
        let clean = sanitize(&text);
        is_clean(&clean);
        assert_eq!(sanitize(&clean), clean);
        let cap = usize::from(number % 100);
        let printable = one_line(&text, cap);
        is_clean(&printable);
        assert!(printable.chars().count() <= cap + 1);
        let columns = usize::from(number % 200);
        let line = progress::line(Duration::from_secs(number.into()), &text, columns);
        is_clean(&line);
        assert!(line.chars().count() < columns.max(2), "{columns} {line:?}");
        assert!(termination::fit(&text).len() <= 4096 && text.starts_with(termination::fit(&text)));
        if !part.is_empty() && says(&text, &part) {
            assert!(text.contains(&part));
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let text = |text: &str| [&[80, 0, 3][..], b"2.5", text.as_bytes()].concat();
        vec![
            text("torch is 2.5.0, and 2.5. is said"),
            text("a\x1b[31mred\nline\r\x07\u{7f}\u{9b}2J\u{202e}gnp\u{2028}\u{feff}"),
            text("00000000:3B:00.0"),
            text("NVIDIA H100 NVL MIG 3g.47gb\0more"),
            text(&"/opt/venv/lib/é/日本語/".repeat(20)),
        ]
    }
}
