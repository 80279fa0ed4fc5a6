//! What the driver itself asks for: its recovery action for a GPU, and the GPU's place in the NVLink fabric. Pure.
//!
//! Values: `nvmlDeviceGpuRecoveryAction_t` and `NVML_GPU_FABRIC_*` of nvml.h. What each action means: NVIDIA's "GPU Memory
//! Error Management", "Error Recovery and Response Flags".

use crate::check::{Code, Finding, Severity};
use crate::cuda_errors;
use crate::facts::{CallError, NvmlDevice};

/// Where the question comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// by the health probe of a service that runs
    ByProbe,
    /// at a start, and CUDA shows a device that works
    BesideCuda,
    /// at a start, and CUDA shows none
    WithoutCuda,
}

/// When an action ends a start or fails a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    /// the GPU does not work any more
    Always,
    /// what runs may go on, and nothing new should begin
    Starts,
    /// it concerns communication between GPUs alone
    Never,
}

struct Action {
    name: &'static str,
    ends: Ends,
    message: &'static str,
    hint: &'static str,
}

/// By their numbers, from 1 on.
const ACTIONS: [Action; 7] = [
    Action {
        name: "Reset",
        ends: Ends::Always,
        message: "the driver requires a reset of this GPU after a fault",
        hint: "drain the node, end all processes on the GPU, and reset it (nvidia-smi -r -i INDEX); dmesg shows the fault (Xid 154 and the Xid before it)",
    },
    Action {
        name: "Reboot",
        ends: Ends::Always,
        message: "the driver requires a reboot of the node after a fault of this GPU",
        hint: "drain the node and reboot it; dmesg shows the fault (Xid 154 and the Xid before it)",
    },
    Action {
        name: "Drain P2P",
        ends: Ends::Never,
        message: "the driver requires that all peer-to-peer traffic of this GPU ends",
        hint: "end all processes that exchange data between GPUs on this node, then start them again; dmesg shows the fault (Xid 154)",
    },
    Action {
        name: "Drain and Reset",
        ends: Ends::Starts,
        message: "this GPU works at reduced capacity, and the driver requires that it takes no new work before a reset",
        hint: "move new work to another node, let the work on this GPU finish, then reset it (nvidia-smi -r -i INDEX)",
    },
    Action {
        name: "Recover IMEX Domain",
        ends: Ends::Never,
        message: "the driver requires a recovery of the IMEX domain, through which GPUs of several nodes share memory",
        hint: "restart nvidia-imex on all nodes of the domain (systemctl status nvidia-imex), then the jobs that use it",
    },
    Action {
        name: "Bus Reset",
        ends: Ends::Always,
        message: "the driver requires a reset of this GPU's PCIe bus after a fault",
        hint: "drain the node and reset the PCIe bus of the GPU, or reboot; dmesg shows the fault (Xid 154 and the Xid before it)",
    },
    Action {
        name: "System Reboot",
        ends: Ends::Always,
        message: "the driver requires a reboot of the whole system after a fault of this GPU",
        hint: "drain the node and reboot it; dmesg shows the fault (Xid 154 and the Xid before it)",
    },
];

/// What is wrong with a GPU by the driver's own word.
pub fn judge(gpu: &NvmlDevice, subject: &str, asked: Asked) -> Vec<Finding> {
    let action = recovery(gpu, subject, asked);
    action.into_iter().chain(fabric(gpu, subject, asked)).collect()
}

fn recovery(gpu: &NvmlDevice, subject: &str, asked: Asked) -> Option<Finding> {
    let number = gpu.recovery_action.filter(|number| *number != 0)?;
    let index = usize::try_from(number).ok()?.checked_sub(1)?;
    let required = "recovery action None";
    let Some(action) = ACTIONS.get(index) else {
        return Some(
            Finding::problem_as(Code::GpuUnhealthy, Severity::Warn, subject)
                .observed(format!("recovery action {number}"))
                .required(required)
                .message("the driver requires a recovery action for this GPU that is newer than this program")
                .hint("nvidia-smi -q on the node names it (GPU Recovery Action), and dmesg shows the fault (Xid 154)"),
        );
    };
    let fails = match action.ends {
        Ends::Always => true,
        Ends::Starts => asked != Asked::ByProbe,
        Ends::Never => false,
    };
    let severity = if fails {
        Code::GpuUnhealthy.severity()
    } else {
        Severity::Warn
    };
    Some(
        Finding::problem_as(Code::GpuUnhealthy, severity, subject)
            .observed(format!("recovery action {}", action.name))
            .required(required)
            .message(action.message)
            .hint(action.hint),
    )
}

/// `NVML_GPU_FABRIC_STATE_NOT_STARTED`
const NOT_STARTED: u32 = 1;
/// `NVML_GPU_FABRIC_STATE_IN_PROGRESS`
const IN_PROGRESS: u32 = 2;
/// `NVML_GPU_FABRIC_STATE_COMPLETED`
const COMPLETED: u32 = 3;

const MANAGER_HINT: &str = "check nvidia-fabricmanager on the node, which must be of exactly the driver's version (systemctl status nvidia-fabricmanager)";

fn fabric(gpu: &NvmlDevice, subject: &str, asked: Asked) -> Option<Finding> {
    // With a device that works, what it cannot do is communicate with others.
    let of = |code: Code| {
        let severity = match asked {
            Asked::WithoutCuda => code.severity(),
            Asked::ByProbe | Asked::BesideCuda => Severity::Warn,
        };
        Finding::problem_as(code, severity, subject)
    };
    let state = match gpu.fabric_state? {
        NOT_STARTED => "not started",
        IN_PROGRESS => "in progress",
        COMPLETED => return registered(gpu, subject, of),
        _ => return None,
    };
    Some(
        of(Code::GpuNotReady)
            .observed(format!("fabric registration {state}"))
            .required("fabric registration complete")
            .message("this GPU is not registered with the NVLink fabric yet")
            .hint(format!(
                "wait (--wait 5m); if the state does not change, {MANAGER_HINT}"
            ))
            .retryable(),
    )
}

fn registered(gpu: &NvmlDevice, subject: &str, of: impl Fn(Code) -> Finding) -> Option<Finding> {
    if let Some(status) = gpu.fabric_status.filter(|status| *status != 0) {
        let error = CallError {
            call: "the fabric registration".into(),
            code: status,
            name: String::new(),
            description: String::new(),
        };
        return Some(
            of(Code::GpuUnhealthy)
                .observed(error.to_string())
                .required("success")
                .message(format!(
                    "this GPU could not be registered with the NVLink fabric: {}",
                    cuda_errors::nvml(&error).cause
                ))
                .hint(MANAGER_HINT),
        );
    }
    let troubles = troubles_of(gpu.fabric_health?);
    (!troubles.is_empty()).then(|| {
        Finding::problem_as(Code::GpuUnhealthy, Severity::Warn, subject)
            .observed(format!("NVLink fabric: {}", troubles.join(", ")))
            .required("a healthy fabric")
            .message("this GPU's part of the NVLink fabric is not healthy, so communication between GPUs is slow or fails")
            .hint(format!(
                "see nvidia-smi -q on the node (Fabric, Health) and dmesg; {MANAGER_HINT}"
            ))
    })
}

/// `NVML_GPU_FABRIC_HEALTH_MASK_*`: two bits a condition, of which 1 is true; four for the configuration, of which 2 and more
/// are faults.
fn troubles_of(mask: u32) -> Vec<&'static str> {
    const CONDITIONS: [(u32, &str); 4] = [
        (0, "bandwidth is degraded"),
        (2, "a route is being recovered"),
        (4, "a route is unhealthy"),
        (6, "recovery from an access timeout is in progress"),
    ];
    let holds = |shift: u32| (mask >> shift) & 3 == 1;
    let mut troubles: Vec<&str> = CONDITIONS
        .iter()
        .filter(|(shift, _)| holds(*shift))
        .map(|(_, words)| *words)
        .collect();
    troubles.extend(match (mask >> 8) & 15 {
        0 | 1 => None,
        2 => Some("wrong configuration: system GUID"),
        3 => Some("wrong configuration: chassis serial number"),
        4 => Some("wrong configuration: no partition"),
        5 => Some("wrong configuration: too few NVLinks"),
        6 => Some("wrong configuration: incompatible GPU firmware"),
        7 => Some("wrong configuration: invalid location"),
        8 => Some("wrong configuration: invalid GPU state"),
        _ => Some("wrong configuration"),
    });
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Status;

    const ALL: [Asked; 3] = [Asked::ByProbe, Asked::BesideCuda, Asked::WithoutCuda];

    fn statuses(gpu: &NvmlDevice) -> [Option<(Code, Status, bool)>; 3] {
        ALL.map(|asked| {
            let found = judge(gpu, "GPU 0", asked);
            assert!(found.len() < 2, "{found:?}");
            for finding in &found {
                assert!(
                    !finding.observed.is_empty()
                        && !finding.required.is_empty()
                        && !finding.message.is_empty()
                        && !finding.hint.is_empty(),
                    "{finding:?}"
                );
            }
            found
                .first()
                .map(|finding| (finding.code, finding.status, finding.retryable))
        })
    }

    #[test]
    fn recovery_actions_fail_where_the_gpu_should_not_work() {
        let of = |action| {
            let gpu = NvmlDevice {
                recovery_action: Some(action),
                ..NvmlDevice::default()
            };
            statuses(&gpu).map(|found| found.map(|(code, status, _)| (code == Code::GpuUnhealthy, status)))
        };
        let fail = Some((true, Status::Fail));
        let warn = Some((true, Status::Warn));
        assert_eq!(of(0), [None; 3]);
        for action in [1, 2, 6, 7] {
            assert_eq!(of(action), [fail; 3], "{action}");
        }
        assert_eq!(of(4), [warn, fail, fail]);
        for action in [3, 5, 8, u32::MAX] {
            assert_eq!(of(action), [warn; 3], "{action}");
        }
    }

    fn in_fabric(state: u32, status: i32, health: u32) -> NvmlDevice {
        NvmlDevice {
            fabric_state: Some(state),
            fabric_status: Some(status),
            fabric_health: Some(health),
            ..NvmlDevice::default()
        }
    }

    #[test]
    fn a_fabric_is_judged_by_its_state_then_its_status_then_its_health() {
        let warn = |code, retryable| Some((code, Status::Warn, retryable));
        for state in [NOT_STARTED, IN_PROGRESS] {
            // The status counts once the registration is complete.
            let found = statuses(&in_fabric(state, 999, 0));
            let fail = Some((Code::GpuNotReady, Status::Fail, true));
            let warn = warn(Code::GpuNotReady, true);
            assert_eq!(found, [warn, warn, fail], "{state}");
        }
        let fail = Some((Code::GpuUnhealthy, Status::Fail, false));
        let warn = warn(Code::GpuUnhealthy, false);
        assert_eq!(statuses(&in_fabric(COMPLETED, 999, 0)), [warn, warn, fail]);
        assert_eq!(statuses(&in_fabric(COMPLETED, 0, 1)), [warn; 3]);
        // Nothing wrong, nothing supported, and a state that is not known.
        for well in [
            in_fabric(COMPLETED, 0, 0),
            in_fabric(COMPLETED, 0, 0x11aa),
            in_fabric(9, 0, 0),
            NvmlDevice::default(),
        ] {
            assert_eq!(statuses(&well), [None; 3], "{well:?}");
        }
    }

    #[test]
    fn each_condition_of_the_fabric_has_its_words() {
        assert_eq!(
            troubles_of(0b01_01_01_01),
            [
                "bandwidth is degraded",
                "a route is being recovered",
                "a route is unhealthy",
                "recovery from an access timeout is in progress"
            ]
        );
        assert_eq!(troubles_of(0b10_10_10_10), [""; 0]);
        for configuration in 2..16 {
            assert_eq!(troubles_of(configuration << 8).len(), 1, "{configuration}");
        }
    }
}
