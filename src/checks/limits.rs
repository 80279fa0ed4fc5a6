//! Limits that GPU programs run into: information, unless the manifest states them. Pure.

use crate::check::{Code, Finding, Severity};
use crate::facts::Facts;
use crate::stack::{Memlock, Stack};

/// Docker's default /dev/shm, with which the workers of a PyTorch DataLoader die of SIGBUS.
const DOCKER_SHM: u64 = 64 << 20;
/// The kernel's default limit since Linux 5.16 (MLOCK_LIMIT in include/uapi/linux/resource.h); it was 64 KiB before.
const USUAL_MEMLOCK: u64 = 8 << 20;

/// Judges /dev/shm and RLIMIT_MEMLOCK.
pub fn judge(stack: &Stack, facts: &Facts) -> Vec<Finding> {
    [shm(stack, facts), memlock(stack, facts)]
        .into_iter()
        .flatten()
        .collect()
}

fn shm(stack: &Stack, facts: &Facts) -> Option<Finding> {
    let size = facts.limits.shm_bytes;
    let hint = |size: &str| {
        format!(
            "docker run --shm-size={size} (or --ipc=host); in a pod mount an emptyDir with medium: Memory at /dev/shm"
        )
    };
    let observed = size.map_or_else(|| "not mounted".to_string(), bytes);
    if let Some(required) = stack.limits.shm {
        let required_text = format!("at least {}", bytes(required));
        return Some(if size.is_some_and(|s| s >= required) {
            Finding::pass(Code::ShmSmall, "/dev/shm")
                .observed(observed)
                .required(required_text)
                .message("it is large enough")
        } else {
            Finding::problem_as(Code::ShmSmall, Severity::Fail, "/dev/shm")
                .observed(observed)
                .required(required_text)
                .message("shared memory is smaller than the manifest asks for")
                .hint(hint(&docker_size(required)))
        });
    }
    size.is_none_or(|s| s <= DOCKER_SHM).then(|| {
        Finding::problem(Code::ShmSmall, "/dev/shm")
            .observed(observed)
            .required(format!(
                "more than Docker's default of {}, for data loaders with workers",
                bytes(DOCKER_SHM)
            ))
            .message("data loaders with worker processes may die of a bus error")
            .hint(hint("1g"))
    })
}

fn memlock(stack: &Stack, facts: &Facts) -> Option<Finding> {
    let limit = facts.limits.memlock_bytes;
    let observed = limit.map_or_else(|| "unlimited".to_string(), bytes);
    let hint =
        "docker run --ulimit memlock=-1; on Kubernetes raise LimitMEMLOCK of the container runtime's unit";
    let Some(required) = stack.limits.memlock.as_ref() else {
        return limit.is_some_and(|l| l <= USUAL_MEMLOCK).then(|| {
            Finding::problem(Code::MemlockLow, "RLIMIT_MEMLOCK")
                .observed(observed)
                .required(format!(
                    "more than the usual {}, for RDMA (NCCL over InfiniBand or RoCE)",
                    bytes(USUAL_MEMLOCK)
                ))
                .message("RDMA may fail to register its buffers")
                .hint(hint)
        });
    };
    let (holds, required) = match required {
        Memlock::Unlimited => (limit.is_none(), "unlimited".to_string()),
        Memlock::Bytes(wanted) => (
            limit.is_none_or(|l| l >= *wanted),
            format!("at least {}", bytes(*wanted)),
        ),
    };
    Some(if holds {
        Finding::pass(Code::MemlockLow, "RLIMIT_MEMLOCK")
            .observed(observed)
            .required(required)
            .message("it is high enough")
    } else {
        Finding::problem_as(Code::MemlockLow, Severity::Fail, "RLIMIT_MEMLOCK")
            .observed(observed)
            .required(required)
            .message("less memory may be locked than the manifest asks for")
            .hint(hint)
    })
}

/// `64 MiB` where it comes out even, else bytes.
fn bytes(count: u64) -> String {
    let (number, unit) = even(count);
    format!("{number} {}", ["bytes", "KiB", "MiB", "GiB"][unit])
}

/// As Docker's `--shm-size` takes it: `64m`.
fn docker_size(count: u64) -> String {
    let (number, unit) = even(count);
    format!("{number}{}", ["b", "k", "m", "g"][unit])
}

/// The number in the largest unit in which it is whole: bytes, KiB, MiB or GiB, from 0.
fn even(count: u64) -> (u64, usize) {
    let unit = [3, 2, 1]
        .into_iter()
        .find(|unit| count > 0 && count.is_multiple_of(1 << (10 * unit)))
        .unwrap_or(0);
    (count >> (10 * unit), unit)
}

#[cfg(test)]
mod tests;
