use super::*;
use crate::check::Status;
use crate::facts::Limits;

fn judged(
    limits: &str,
    shm_bytes: Option<u64>,
    memlock_bytes: Option<u64>,
) -> Vec<(&'static str, Status, String)> {
    let text = format!(r#"{{"schema": 1, "name": "t", "limits": {limits}}}"#);
    let stack = Stack::parse_bytes(text.as_bytes()).unwrap();
    let facts = Facts {
        limits: Limits {
            shm_bytes,
            memlock_bytes,
        },
        ..Facts::default()
    };
    let findings = judge(&stack, &facts);
    for finding in &findings {
        assert_eq!(
            finding.hint.is_empty(),
            finding.status == Status::Pass,
            "{finding:?}"
        );
        assert_eq!(finding.problem, finding.status != Status::Pass);
        assert!(
            !finding.required.is_empty() && !finding.message.is_empty(),
            "{finding:?}"
        );
    }
    findings
        .into_iter()
        .map(|f| (f.code.name(), f.status, f.observed))
        .collect()
}

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

#[test]
fn without_a_rule_the_usual_limits_are_pointed_out() {
    let small = |observed: &str| ("shm-small", Status::Info, observed.to_string());
    let low = |observed: &str| ("memlock-low", Status::Info, observed.to_string());
    assert_eq!(judged("{}", Some(GIB), None), []);
    assert_eq!(judged("{}", Some(64 * MIB + 1), Some(8 * MIB + 1)), []);
    assert_eq!(judged("{}", Some(64 * MIB), None), [small("64 MiB")]);
    assert_eq!(judged("{}", None, None), [small("not mounted")]);
    assert_eq!(judged("{}", Some(GIB), Some(8 * MIB)), [low("8 MiB")]);
    assert_eq!(
        judged("{}", Some(1), Some(64 << 10)),
        [small("1 bytes"), low("64 KiB")]
    );
}

#[test]
fn the_way_out_names_the_size_that_is_asked_for() {
    let hint = |limits: &str| {
        let text = format!(r#"{{"schema": 1, "name": "t", "limits": {limits}}}"#);
        let stack = Stack::parse_bytes(text.as_bytes()).unwrap();
        judge(&stack, &Facts::default()).swap_remove(0).hint
    };
    for (limits, option) in [
        ("{}", "--shm-size=1g "),
        (r#"{"shm": "100GiB"}"#, "--shm-size=100g "),
        (r#"{"shm": "1536MiB"}"#, "--shm-size=1536m "),
        (r#"{"shm": "64KiB"}"#, "--shm-size=64k "),
        (r#"{"shm": 1000000001}"#, "--shm-size=1000000001b "),
    ] {
        let hint = hint(limits);
        assert!(hint.contains(option), "{limits}: {hint}");
    }
}

#[test]
fn a_rule_makes_them_failures() {
    let shm = |status, observed: &str| ("shm-small", status, observed.to_string());
    let rule = r#"{"shm": "1GiB"}"#;
    assert_eq!(judged(rule, Some(GIB), None), [shm(Status::Pass, "1 GiB")]);
    assert_eq!(
        judged(rule, Some(GIB - 1), None),
        [shm(Status::Fail, "1073741823 bytes")]
    );
    assert_eq!(judged(rule, None, None), [shm(Status::Fail, "not mounted")]);
    // Less than Docker's default is enough where the manifest says so.
    assert_eq!(
        judged(r#"{"shm": "32MiB"}"#, Some(64 * MIB), None),
        [shm(Status::Pass, "64 MiB")]
    );

    let memlock = |status, observed: &str| vec![("memlock-low", status, observed.to_string())];
    let unlimited = r#"{"memlock": "unlimited"}"#;
    assert_eq!(
        judged(unlimited, Some(GIB), None),
        memlock(Status::Pass, "unlimited")
    );
    assert_eq!(
        judged(unlimited, Some(GIB), Some(GIB)),
        memlock(Status::Fail, "1 GiB")
    );
    let rule = r#"{"memlock": "64MiB"}"#;
    assert_eq!(judged(rule, Some(GIB), None), memlock(Status::Pass, "unlimited"));
    assert_eq!(
        judged(rule, Some(GIB), Some(64 * MIB)),
        memlock(Status::Pass, "64 MiB")
    );
    assert_eq!(
        judged(rule, Some(GIB), Some(8 * MIB)),
        memlock(Status::Fail, "8 MiB")
    );
}
