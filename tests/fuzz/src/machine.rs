//! What children say: the helper, the smoke, the hand-off, and the image's loader.

use std::time::Duration;

use cuda_entrypoint::process::supervisor::{Deadline, Ended, Exit};

use super::input::{Input, join, parts};

/// A process's end. The output's last part is its standard error.
fn ended(bytes: &[u8]) -> Ended {
    let mut input = Input::new(bytes);
    let (kind, number) = (input.u8(), i32::from(input.u8()));
    let exit = match kind % 8 {
        0..4 => Exit::Code(number),
        4 => Exit::Signal(number),
        5 => Exit::TimedOut { reaped: number != 0 },
        6 => Exit::OutputLimit,
        _ => Exit::Cancelled,
    };
    let mut outputs = parts(input.rest());
    let mut next = || outputs.next().unwrap_or_default().to_vec();
    Ended {
        exit,
        stdout: next(),
        stderr: next(),
        elapsed: Duration::from_millis(3),
        deadline: Deadline {
            time: Duration::from_secs(60),
            in_all: number % 2 == 0,
        },
    }
}

fn as_ended(kind: u8, number: u8, stdout: &str, stderr: &str) -> Vec<u8> {
    [
        &[kind, number][..],
        &join(&[stdout.as_bytes(), stderr.as_bytes()]),
    ]
    .concat()
}

/// The helper's lines.
pub mod helper_lines {

    use cuda_entrypoint::check::Outcome;
    use cuda_entrypoint::checks::device;
    use cuda_entrypoint::facts::{self, Facts, HelperRun};
    use cuda_entrypoint::helper::{conclude, decode, last_lines};

    use super::{as_ended, ended};

    pub fn run(bytes: &[u8]) {
        let ended = ended(bytes);
        let decoded = decode(&ended.stdout);
        // What makes sense makes the same sense when it is written again.
        let mut again = String::new();
        for line in &decoded.lines {
            again.push_str(&facts::to_json(line).unwrap());
            again.push('\n');
        }
        let twice = decode(again.as_bytes());
        assert_eq!((&twice.lines, &twice.garbled), (&decoded.lines, &None));
        assert!(last_lines(&ended.stderr).lines().count() <= 1);
        let (run, lines) = conclude(&ended);
        assert_eq!(lines, decoded.lines);
        let written = facts::to_json(&run).unwrap();
        assert_eq!(
            facts::from_json::<HelperRun>(written.as_bytes()).as_ref(),
            Ok(&run),
            "{written}"
        );
        let findings: Vec<_> = device::helper_failure(&run.end, "the driver", &Facts::default())
            .into_iter()
            .collect();
        let _ = Outcome::of(&findings);
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let all = concat!(
            "{\"step\":\"dlopen libcuda.so.1\"}\n",
            "{\"library\":{\"index\":0,\"path\":\"/x/libcudart.so.12\",\"version\":\"12.4\",\"nvrtc_archs\":[50,90]}}\n",
            "{\"library\":{\"index\":1,\"error\":\"gone\",\"error_code\":35}}\n",
            "{\"driver\":{\"path\":\"/l/libcuda.so.1\",\"api_version\":\"12.4\",\"device_count\":1,\"error\":{\"call\":\"cuInit\",\
             \"code\":100,\"name\":\"CUDA_ERROR_NO_DEVICE\",\"description\":\"no device\"}}}\n",
            "{\"device\":{\"ordinal\":0,\"name\":\"NVIDIA H200\",\"uuid\":\"GPU-1\",\"capability\":\"9.0\",\"memory\":150000000000,\
             \"pci_bus_id\":\"0000:3b:00.0\",\"compute_mode\":0}}\n",
            "{\"nvml\":{\"path\":\"/l/libnvidia-ml.so.1\",\"driver_release\":\"580.159.04\",\"api_version\":\"13.0\",\"device_count\":1}}\n",
            "{\"nvml-device\":{\"index\":0,\"name\":\"NVIDIA H200\",\"mig_enabled\":true,\"mig_instances\":1,\"mig_uuids\":[\"MIG-1\"],\
             \"minor\":0,\"ecc_uncorrected\":0,\"remap_pending\":false,\"remap_failed\":false,\"brand\":\"nvidia\",\"memory_now\":[{\"uuid\":\"GPU-1\",\"total\":9,\"free\":1,\"holders\":[{\"pid\":7,\"bytes\":8}]}]}}\n",
            "{\"node\":{\"path\":\"/dev/nvidiactl\",\"errno\":1}}\n",
            "\"done\"\n",
        );
        vec![
            as_ended(0, 0, all, ""),
            as_ended(4, 11, "{\"step\":\"cuInit\"}\n", "a\nb\n"),
            as_ended(
                0,
                127,
                "",
                "cuda-helper: /lib/libc.so.6: version `GLIBC_2.38' not found",
            ),
            as_ended(5, 1, "{\"step\":\"cuInit\"}\n{\"ste", ""),
        ]
    }
}

/// The smoke's lines and its tracebacks.
pub mod smoke_lines {
    use std::sync::LazyLock;
    use std::time::Duration;

    use cuda_entrypoint::checks::smoke;
    use cuda_entrypoint::facts::smoke::{SmokeCommand, SmokeFacts, SmokeRun};
    use cuda_entrypoint::facts::{self};
    use cuda_entrypoint::smoke::decode;
    use cuda_entrypoint::stack::Stack;

    use super::super::input::{are_alike, is_clean};
    use super::{as_ended, ended};

    pub fn run(bytes: &[u8]) {
        let ended = ended(bytes);
        let run = decode::conclude(&ended, Duration::from_secs(300));
        assert!(run.said.lines().count() <= 12);
        let written = facts::to_json(&run).unwrap();
        let read: SmokeRun = facts::from_json(written.as_bytes()).unwrap();
        are_alike(
            &serde_json::to_value(&run).unwrap(),
            &serde_json::to_value(&read).unwrap(),
        );
        let _ = decode::step(&ended.stdout);
        // Looking for known sentences takes longer than all before it.
        if bytes.first().is_none_or(|how| how & 0x80 == 0) {
            return;
        }
        let command = SmokeCommand {
            name: "model".into(),
            end: run.end.clone(),
            said: run.said.clone(),
            ms: run.ms,
        };
        let found = SmokeFacts {
            native: None,
            frameworks: vec![SmokeRun {
                framework: "jax".into(),
                ..run.clone()
            }],
            builtin: run,
            commands: vec![command],
        };
        static STACK: LazyLock<Stack> = LazyLock::new(|| Stack::embedded().unwrap());
        for finding in smoke::judge(&STACK, &found, &cuda_entrypoint::facts::ImageFacts::default()) {
            for text in [
                &finding.subject,
                &finding.observed,
                &finding.required,
                &finding.message,
                &finding.hint,
            ] {
                is_clean(text);
            }
            assert!(!finding.subject.is_empty());
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let good = concat!(
            "{\"python\":{\"version\":\"3.11.7\",\"executable\":\"/opt/venv/bin/python\"}}\n",
            "{\"begin\":{\"entry\":\"torch\",\"step\":\"import torch\"}}\n",
            "{\"passed\":{\"ms\":1234.5}}\n",
            "{\"module\":{\"name\":\"torch\",\"version\":\"2.5.0+cu124\",\"path\":\"/sp/torch/__init__.py\"}}\n",
            "\"ready\"\n",
            "{\"device\":{\"ordinal\":0,\"name\":\"NVIDIA H200\",\"uuid\":\"GPU-1\"}}\n",
            "{\"begin\":{\"entry\":\"spconv\",\"step\":\"forward float16\",\"device\":0}}\n",
            "{\"passed\":{\"ms\":3,\"difference\":0.001,\"tolerance\":0.01,\"says\":\"spconv forward OK\"}}\n",
            "{\"skipped\":{\"entry\":\"mmcv\",\"reason\":\"not installed\"}}\n",
            "{\"jit\":{\"calls\":1,\"kernels\":[\"a\"]}}\n",
            "\"done\"\n",
        );
        let failed = concat!(
            "{\"begin\":{\"entry\":\"torch\",\"step\":\"import torch\"}}\n",
            "{\"failed\":{\"ms\":1,\"kind\":\"import\",\"error\":\"ImportError\",\"message\":\"/sp/x.so: undefined symbol: y\",\
             \"frames\":[\"/sp/a.py:1 in b\"]}}\n",
        );
        let crash = "Fatal Python error: Segmentation fault\n\nThread 0x1 (most recent call first):\n  File \"/b\", line 1 in c\n\n\
                     Current thread 0x2 (most recent call first):\n  File \"<frozen importlib._bootstrap>\", line 1 in d\n  \
                     File \"/a.py\", line 2 in e\n\nExtension modules: numpy (total: 1)\n";
        vec![
            as_ended(0, 0, good, ""),
            as_ended(0x80, 1, failed, "RuntimeError: CUDA error: out of memory\n"),
            as_ended(0x84, 11, failed, crash),
            as_ended(0x84, 8, "", ""),
            as_ended(5, 0, good, "x\n\ny\n"),
        ]
    }
}

/// What the service's Python says, and what is executed before it says anything.
pub mod handoff {
    use std::path::Path;
    use std::time::Duration;

    use cuda_entrypoint::facts;
    use cuda_entrypoint::process::supervisor::Exit;
    use cuda_entrypoint::smoke::handoff::{Told, conclude, protocol, why_silent};

    use super::super::input::{join, parts};

    pub fn run(bytes: &[u8]) {
        let mut parts = parts(bytes);
        let mut next = || parts.next().unwrap_or_default();
        let output = next();
        let (told, own) = (Told::of(output), protocol(output));
        assert!(own.len() <= output.len());
        // What is the smoke's is none of ours.
        assert_eq!(Told::of(&own), Told::default());
        let run = conclude(
            output,
            told.ended.unwrap_or(Exit::Cancelled),
            Duration::from_secs(300),
        );
        facts::to_json(&run).unwrap();
        if let Some(why) = why_silent(Path::new("/usr/bin/python3"), next(), next(), "PYTHONPATH=/zip") {
            assert!(!why.is_empty());
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let begun = "{\"hello\":{\"pid\":7,\"major\":3,\"minor\":8,\"no_site\":false}}\n{\"site\":{\"prefix\":\"/p\"}}\n\
                     {\"begin\":{\"entry\":\"spconv\",\"step\":\"forward\",\"device\":0}}\n";
        let ends = [
            "{\"passed\":{\"ms\":1}}\n\"done\"\n{\"ended\":{\"exit\":0}}\n",
            "{\"ended\":{\"signal\":8}}\n",
            "{\"fallback\":{\"reason\":\"CUDA was touched\"}}\n",
        ];
        let environments = [
            "A=1\0PYTHONPATH=/zip:/x\0",
            "PYTHONPATH=/app\0PYTHONPATH=/zip\0",
            "A=1\0",
        ];
        ends.iter()
            .zip(environments)
            .map(|(end, env)| {
                join(&[
                    format!("{begun}{end}").as_bytes(),
                    b"python\0-uI\0app\0",
                    env.as_bytes(),
                ])
            })
            .collect()
    }
}

/// What the image's loader prints, and the files that it goes by.
pub mod loader_list {
    use cuda_entrypoint::discover::loader::explain::{ConfLine, conf_lines};
    use cuda_entrypoint::discover::loader::{self, is_drivers, refusals};
    use cuda_entrypoint::facts::LibraryKind;

    use super::super::input::{join, parts};

    pub fn run(bytes: &[u8]) {
        let mut parts = parts(bytes);
        let mut next = || parts.next().unwrap_or_default();
        let listing = loader::parse(next(), next());
        assert!(listing.objects.len() <= 4096);
        assert!(listing.refused.len() <= 64 && listing.missing_versions.len() <= 64);
        for object in &listing.objects {
            assert!(!object.name.contains('\n'));
            assert!(object.path.as_ref().is_none_or(|path| path.contains('/')));
            let _ = (LibraryKind::of_file(&object.name), is_drivers(&object.name));
        }
        assert!(refusals(&listing).len() <= listing.refused.len());
        for line in conf_lines(&String::from_utf8_lossy(next())) {
            match line {
                ConfLine::Folder(folder) => assert!(folder.starts_with('/') && !folder.contains('#')),
                ConfLine::Include(folder) => assert!(!folder.contains('\n')),
            }
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let list = "\tlinux-vdso.so.1 (0x00007f63178ac000)\n\t/sp/mod.so (0x00007f631789f000)\n\
                    \tlibcudart-8774224f.so.12 => /lib/libcudart.so.12 (0x00007f631701e000)\n\tlibx.so.1 => not found\n\
                    \tlinux-vdso.so.1 =>  (0x00007fff)\n";
        let errors = "python3: /lib/libc.so.6: version `GLIBC_2.38' not found (required by /sp/mod.so)\n\
                      ERROR: ld.so: object '/sp/mod.so' from LD_PRELOAD cannot be preloaded (file too short): ignored.\n\
                      python3: error while loading shared libraries: /x/liby.so.1: file too short\n";
        let conf =
            "include /etc/ld.so.conf.d/*.conf\n# comment\n/usr/local/cuda/lib64 # too\ninclude\tx/*.conf\n";
        vec![join(&[list.as_bytes(), errors.as_bytes(), conf.as_bytes()])]
    }
}
