//! Manifests, receipts and facts.

use serde_json::Value;

const FACTS: &str = include_str!("facts.json");

fn facts() -> Value {
    serde_json::from_str(FACTS).unwrap()
}

/// The first item of each list alone: bytes are tried faster where there are few.
fn shortened(mut document: Value) -> Value {
    match &mut document {
        Value::Array(items) => {
            items.truncate(1);
            items.iter_mut().for_each(|item| *item = shortened(item.take()));
        }
        Value::Object(entries) => entries
            .values_mut()
            .for_each(|entry| *entry = shortened(entry.take())),
        _ => {}
    }
    document
}

/// A manifest as a file.
pub mod manifest {
    use cuda_entrypoint::stack::{EMBEDDED_JSON, Stack, table};

    use super::super::input::{is_printable, lines_are_clean};

    pub fn run(bytes: &[u8]) {
        match Stack::parse_bytes(bytes) {
            Ok(stack) => {
                let written = serde_json::to_string_pretty(&stack).unwrap();
                let again = Stack::parse(&written).unwrap_or_else(|e| panic!("{e:#}\n{written}"));
                assert_eq!(again, stack, "{written}");
                lines_are_clean(&table(&stack, "a file"));
            }
            Err(error) => {
                let text = format!("{error:#}");
                is_printable(&text);
                assert!(text.chars().count() < 2000, "{text}");
                // The place is in the file, or right behind its end.
                let text = String::from_utf8_lossy(bytes);
                let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
                let line = text
                    .split('\n')
                    .nth(error.line - 1)
                    .expect("the line is in the file");
                assert!(
                    (1..=line.chars().count() + 1).contains(&error.column),
                    "{error:#}"
                );
            }
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        [
            EMBEDDED_JSON,
            include_str!("../../fixtures/stack/valid/everything.json"),
            include_str!("../../fixtures/stack/valid/escapes.json"),
            include_str!("../../fixtures/stack/valid/versions.json"),
            include_str!("../../fixtures/stack/valid/durations.json"),
            include_str!("../../fixtures/stack/valid/byte-order-mark.json"),
            include_str!("../../fixtures/stack/invalid/packages-two-spellings.json"),
            include_str!("../../fixtures/stack/invalid/schema-future-behind.json"),
            include_str!("../../fixtures/stack/invalid/deep.json"),
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    }
}

/// A manifest with everything in it, changed here and there.
pub mod manifest_changed {
    use super::super::input::{Input, changed};
    use super::manifest;

    pub fn run(bytes: &[u8]) {
        let document =
            serde_json::from_str(include_str!("../../fixtures/stack/valid/everything.json")).unwrap();
        let mut input = Input::new(bytes);
        let pretty = input.u8() & 1 == 1;
        let document = changed(document, &mut input);
        let text = if pretty {
            format!("{document:#}")
        } else {
            document.to_string()
        };
        manifest::run(text.as_bytes());
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        vec![
            [&[0, 4, 0, 8, 6][..], b">=12.4", &[7, 0, 8, 3], b"9.0"].concat(),
            [&[1, 12, 0, 5, 2, 3][..], b",<2", &[20, 0, 3, 1]].concat(),
        ]
    }
}

/// A receipt as a file; `@BUILD@` stands for this build's number, which every change of the sources changes.
pub mod receipt {
    use cuda_entrypoint::receipt::image::ImageKey;
    use cuda_entrypoint::receipt::{BUILD, file};

    use super::super::input::are_alike;

    pub fn run(bytes: &[u8]) {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.replace("@BUILD@", BUILD).into_bytes(),
            Err(_) => bytes.to_vec(),
        };
        let receipt = match file::parse(&text) {
            Ok(receipt) => receipt,
            Err(why) => return assert!(!why.is_empty()),
        };
        let written = file::text(&receipt);
        let again =
            file::parse(&written).unwrap_or_else(|e| panic!("{e}\n{}", String::from_utf8_lossy(&written)));
        let value = |text: &[u8]| serde_json::from_slice(text).unwrap();
        are_alike(&value(&file::text(&again)), &value(&written));
        if let Some(image) = &receipt.image {
            assert!(image.key.differences(&image.key).is_empty());
            let none = ImageKey::default();
            // What is asked is compared by itself, and the trees with the disk.
            let held = ImageKey {
                asked: none.asked.clone(),
                trees: none.trees.clone(),
                ..image.key.clone()
            };
            let differs = held != none;
            assert_eq!(image.key.differences(&none).is_empty(), !differs);
            assert_eq!(none.differences(&image.key).is_empty(), !differs);
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let part = |kept: &str| {
            let mut receipt = super::shortened(serde_json::from_str(&super::receipt_text()).unwrap());
            let entries = receipt.as_object_mut().unwrap();
            entries.retain(|key, _| matches!(key.as_str(), "schema" | "build") || key == kept);
            receipt.to_string().into_bytes()
        };
        vec![
            part("image"),
            part("device"),
            br#"{"schema":1,"build":"@BUILD@","image":null,"device":null}"#.to_vec(),
            br#"{"schema":2,"build":"1"}"#.to_vec(),
        ]
    }
}

fn receipt_text() -> String {
    let facts = facts();
    let image = serde_json::json!({
        "written": {"at": 1_700_000_000},
        "key": {
            "in_force": {"the manifest": "0123456789abcdef", "archs": "9.0", "LD_LIBRARY_PATH": "/l"},
            "python": "/usr/bin/python3.11 /opt/venv 3.11.7 /sp",
            "files": {"/sp/torch/version.py": "100 1700000000", "/sp/x": "absent"},
            "folders": {"/sp": "torch/torch-2.5.0.dist-info"},
            "cached": {"libcudart.so.12": "/l/libcudart.so.12"},
        },
        "facts": facts["image"],
    });
    let device = serde_json::json!({
        "written": {"at": 1_700_000_000},
        "key": {
            "in_force": {"CUDA_VISIBLE_DEVICES": "0"},
            "boot": "01234567-89ab-cdef-0123-456789abcdef",
            "release": "580.159.04",
            "libcuda": "100 1700000000",
            "shown": ["GPU-0", "MIG-1"],
            "nodes": ["/dev/nvidiactl", "/dev/nvidia0"],
        },
        "driver": facts["device"]["driver"],
        "devices": facts["device"]["devices"],
        "smoke": {"written": {"at": 1}, "image": "0123456789abcdef", "options": ["-E"], "facts": facts["smoke"]},
    });
    serde_json::json!({"schema": 1, "build": "@BUILD@", "image": image, "device": device}).to_string()
}

/// A receipt with everything in it, changed here and there, and held against GPUs that are changed as well.
pub mod receipt_changed {
    use std::sync::LazyLock;

    use cuda_entrypoint::facts::DeviceFacts;
    use cuda_entrypoint::facts::read::FromJson;
    use cuda_entrypoint::receipt::{BUILD, Now, device, file};
    use serde_json::Value;

    use super::super::input::{Input, changed};
    use super::{FACTS, receipt, receipt_text, shortened};

    pub fn run(bytes: &[u8]) {
        static RECEIPT: LazyLock<Value> = LazyLock::new(|| {
            shortened(serde_json::from_str(&receipt_text().replace("@BUILD@", BUILD)).unwrap())
        });
        static DEVICE: LazyLock<Value> =
            LazyLock::new(|| serde_json::from_str::<Value>(FACTS).unwrap()["device"].take());
        let mut input = Input::new(bytes);
        let mut first = Input::new(input.bytes());
        let text = changed(RECEIPT.clone(), &mut first).to_string();
        receipt::run(text.as_bytes());
        let Ok(file::Receipt {
            device: Some(part), ..
        }) = file::parse(text.as_bytes())
        else {
            return;
        };
        let Ok(now) = DeviceFacts::from_json(changed(DEVICE.clone(), &mut input)) else {
            return;
        };
        let moment = Now {
            at: 1_700_000_100,
            boot: Some(part.key.boot.clone()),
        };
        let _ = part.may_hold(&part.key.in_force, &moment, &part.key.basis);
        if let Ok(known) = part.recognise(&now) {
            assert!(known.devices.len() <= part.devices.len());
            if let Some(smoke) = known.smoke {
                let _ = smoke.holds(Some("0123456789abcdef"), &["-E".to_string()], moment.at);
            }
        }
        let _ = device::key(part.key.in_force.clone(), &moment, &now, part.key.basis.clone());
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        vec![
            vec![],
            [&[8, 80, 0, 8, 4][..], b"GPU-", &[30, 0, 0]].concat(),
            [&[4, 130, 0, 3, 1][..], &[12, 0, 6, 0]].concat(),
        ]
    }
}

/// Facts as a file.
pub mod facts {
    use cuda_entrypoint::facts::{self, Facts};

    use super::super::input::are_alike;

    pub fn run(bytes: &[u8]) {
        let found: Facts = match facts::from_json(bytes) {
            Ok(found) => found,
            Err(error) => return assert!(!error.to_string().is_empty()),
        };
        let written = facts::to_json(&found).unwrap();
        let again: Facts = facts::from_json(written.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{written}"));
        are_alike(
            &serde_json::to_value(&again).unwrap(),
            &serde_json::to_value(&found).unwrap(),
        );
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        vec![super::shortened(super::facts()).to_string().into_bytes()]
    }
}

/// Facts changed here and there, judged by every check, and told in every form.
pub mod judged {
    use std::collections::BTreeMap;
    use std::sync::LazyLock;
    use std::time::Duration;

    use cuda_entrypoint::capture;
    use cuda_entrypoint::check::{Finding, Outcome, Overrides};
    use cuda_entrypoint::checks;
    use cuda_entrypoint::cli::config::{Gpu, Mode, SmokeMode};
    use cuda_entrypoint::facts::Facts;
    use cuda_entrypoint::facts::read::FromJson;
    use cuda_entrypoint::report::human::{self, Colour};
    use cuda_entrypoint::report::{Report, SmokeReport, json, termination};
    use cuda_entrypoint::stack::{EMBEDDED_JSON, Stack};
    use serde_json::Value;

    use super::super::input::{Input, changed, is_printable, lines_are_clean};

    static FACTS: LazyLock<Value> = LazyLock::new(super::facts);
    static STACKS: LazyLock<Vec<Stack>> = LazyLock::new(|| {
        let everything = include_str!("../../fixtures/stack/valid/everything.json");
        let least = include_str!("../../fixtures/stack/valid/least.json");
        [EMBEDDED_JSON, everything, least]
            .map(|text| Stack::parse(text).unwrap())
            .to_vec()
    });

    pub fn run(bytes: &[u8]) {
        let mut input = Input::new(bytes);
        let how = input.u8();
        let Ok(found) = Facts::from_json(changed(FACTS.clone(), &mut input)) else {
            return;
        };
        let stack = &STACKS[usize::from(how) % STACKS.len()];
        let gpu = [Gpu::Required, Gpu::Optional, Gpu::Off][usize::from(how >> 2) % 3];
        let findings = judge(stack, gpu, &found);
        // One form of it at a time: they are many, and take longer than judging.
        if how & 0x30 == 0x30 {
            return capture(&found);
        }
        tell(
            how >> 4 & 3,
            stack,
            if how & 0x80 == 0 {
                Mode::Enforce
            } else {
                Mode::Warn
            },
            &found,
            &findings,
        );
    }

    fn judge(stack: &Stack, gpu: Gpu, found: &Facts) -> Vec<Finding> {
        let archs = stack.archs.as_ref();
        let mut findings = checks::image::judge(stack, archs, found);
        findings.extend(checks::device::judge(stack, gpu, found));
        findings.extend(checks::device::judge_health(gpu, found));
        findings.extend(checks::require::judge(gpu, found));
        findings.extend(checks::limits::judge(stack, found));
        findings.extend(checks::arch::judge(stack, archs, found));
        match &found.smoke {
            Some(smoke) => findings.extend(checks::smoke::judge(stack, smoke, &found.image)),
            None => findings.extend(checks::smoke::skipped(vec!["torch"], "of no reason")),
        }
        findings.extend(checks::smoke::without_gpu(&["torch"], findings.first()));
        findings
    }

    fn tell(form: u8, stack: &Stack, mode: Mode, found: &Facts, findings: &[Finding]) {
        let outcome = Outcome::of(findings);
        assert!(matches!(outcome.exit_code, 0 | 81..=85));
        let report = Report {
            mode,
            stack_name: &stack.name,
            stack_source: "embedded",
            facts: found,
            findings,
            outcome,
            receipt: None,
            smoke: SmokeReport {
                mode: SmokeMode::Separate,
                native: None,
                status: "passed",
                reason: String::new(),
            },
            timing: vec![("total", Duration::from_millis(5))],
        };
        match form {
            0 => {
                let document = json::document(&report);
                lines_are_clean(&document);
                serde_json::from_str::<Value>(&document).unwrap();
            }
            1 => {
                lines_are_clean(&human::table(&report, false, Colour::No));
                lines_are_clean(&human::success(&report, "service\x1b").details);
            }
            _ => {
                lines_are_clean(&human::failure(&report, "service\x1b", Colour::No));
                let message = termination::message(&report);
                lines_are_clean(&message);
                assert!(termination::fit(&message).len() <= 4096);
            }
        }
    }

    /// What is captured can be read, also where it contradicts itself.
    fn capture(found: &Facts) {
        let given = capture::Given {
            name: capture::NAME,
            variables: &BTreeMap::new(),
            imports: &|dist| vec![dist.name.clone()],
        };
        match capture::manifest(found, &given) {
            Ok(mut captured) => {
                let failures = capture::contradictions(&mut captured, &[], &Overrides::default(), found);
                let exceptions = failures.iter().map(|finding| capture::exception(finding, found));
                exceptions.flatten().for_each(|entry| is_printable(&entry));
                captured.notes().for_each(|note| is_printable(&note));
                let written = captured.document().unwrap();
                let read = Stack::parse(&written).unwrap_or_else(|e| panic!("{e:#}\n{written}"));
                assert_eq!(read, captured.stack);
            }
            Err((message, hint)) => {
                is_printable(&message);
                is_printable(&hint);
            }
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let mut all = vec![vec![], vec![1], vec![2, 0x80]];
        for at in [4_u16, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200] {
            let change = |operation: u8, more: &[u8]| {
                [
                    &[(at as u8 & 7) | (at as u8 / 20) << 4][..],
                    &at.to_le_bytes(),
                    &[operation],
                    more,
                ]
                .concat()
            };
            all.push(change(8, b"\x05a\x1b[2J"));
            all.push(change(3, &u64::MAX.to_le_bytes()));
            all.push(change(0, &[]));
        }
        all
    }
}
