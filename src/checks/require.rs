//! The image's conditions on the machine, `NVIDIA_REQUIRE_*`, against the driver and each visible GPU. Pure.
//!
//! What counts follows the NVIDIA Container Toolkit: every `NVIDIA_REQUIRE_*` but those of JetPack, all of them; an
//! image with `CUDA_VERSION` and without `NVIDIA_REQUIRE_CUDA` asks for that CUDA; `NVIDIA_DISABLE_REQUIRE` is a
//! Boolean as Go's strconv.ParseBool reads it. Where the toolkit takes what it cannot tell for met or for not met, the
//! status here is unknown.

use std::cmp::Ordering;

use crate::check::{Code, Finding, Severity};
use crate::cli::config::Gpu;
use crate::cuda_errors;
use crate::discover::nvidia_require::{self, Alternative, Condition, Key, Operator, PREFIX, Version};
use crate::facts::{ComputeCapability, CudaVersion, Facts};

#[cfg(test)]
mod tests;

/// On Jetson's own software, which no container runtime evaluates.
const JETPACK: &str = "NVIDIA_REQUIRE_JETPACK";
const REQUIRE_CUDA: &str = "NVIDIA_REQUIRE_CUDA";
/// Set by images from before `NVIDIA_REQUIRE_CUDA`.
const CUDA_VERSION: &str = "CUDA_VERSION";
const DISABLE: &str = "NVIDIA_DISABLE_REQUIRE";

/// One finding a variable; none where the image asks for nothing.
pub fn judge(gpu: Gpu, facts: &Facts) -> Vec<Finding> {
    let demands = demands(facts);
    let skipped = |reason: &str| {
        let of = |demand: &Demand| Finding::skip(Code::RequireCuda, demand.variable).message(reason);
        demands.iter().map(of).collect()
    };
    if gpu == Gpu::Off {
        return skipped("not looked at: --gpu off");
    }
    if let Some(value) = facts.environment.get(DISABLE).filter(|v| is_true(v)) {
        return skipped(&format!("not looked at: {DISABLE}={value}"));
    }
    // Why there is no answer is said elsewhere.
    let driver = facts.device.driver.as_ref().filter(|d| d.load_error.is_none());
    if driver.is_none() {
        return skipped("not looked at: there is no driver that could be asked");
    }
    let machine = Machine::of(facts);
    let severity = if gpu == Gpu::Optional && facts.device.devices.is_empty() {
        Severity::Warn
    } else {
        Code::RequireCuda.severity()
    };
    demands
        .iter()
        .filter_map(|d| d.judge(&machine, severity))
        .collect()
}

/// Source: the Go documentation of strconv.ParseBool.
fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// A variable and what it asks for.
struct Demand<'a> {
    variable: &'a str,
    value: String,
}

fn demands(facts: &Facts) -> Vec<Demand<'_>> {
    let set = |name: &str| facts.environment.get(name).filter(|v| !v.trim().is_empty());
    let mut demands: Vec<Demand<'_>> = facts
        .environment
        .iter()
        .filter(|(name, value)| {
            name.starts_with(PREFIX) && !name.starts_with(JETPACK) && !value.trim().is_empty()
        })
        .map(|(variable, value)| Demand {
            variable,
            value: value.clone(),
        })
        .collect();
    // Anybody may use this name, so that a value which is no version asks for nothing.
    if set(REQUIRE_CUDA).is_none()
        && let Some(version) =
            set(CUDA_VERSION).and_then(|v| Version::parse(v.trim().trim_start_matches('v')))
    {
        let (major, minor) = version.major_minor();
        demands.push(Demand {
            variable: CUDA_VERSION,
            value: format!("cuda>={major}.{minor}"),
        });
    }
    demands
}

/// What the image asks of CUDA and of the driver, whatever machine it is on.
pub(super) struct Conditions<'a> {
    /// where it says so
    pub(super) variable: &'a str,
    value: String,
    alternatives: Vec<Alternative>,
}

impl<'a> Conditions<'a> {
    /// `None` where it asks for nothing, or nobody can read it, or it is not to count.
    pub(super) fn of(facts: &'a Facts) -> Option<Self> {
        if facts.environment.get(DISABLE).is_some_and(|value| is_true(value)) {
            return None;
        }
        let mut demands = demands(facts).into_iter();
        let demand = demands.find(|demand| matches!(demand.variable, REQUIRE_CUDA | CUDA_VERSION))?;
        let alternatives = nvidia_require::parse(&demand.value).ok()?;
        (!alternatives.is_empty()).then_some(Self {
            variable: demand.variable,
            value: demand.value,
            alternatives,
        })
    }

    /// Whether a container of the image would be started on a driver of this release; `None` where that depends on the GPU.
    pub(super) fn admit(&self, cuda: CudaVersion, release: &str) -> Option<bool> {
        let machine = Machine {
            cuda: Some(cuda),
            release: Some(release),
            gpus: Vec::new(),
        };
        machine.meets_any(&Visible::default(), &self.alternatives)
    }

    /// The conditions, or the first of them.
    pub(super) fn shown(&self) -> String {
        match self.alternatives.as_slice() {
            [first, _, ..] => format!("{first} and {} other alternatives", self.alternatives.len() - 1),
            _ => self.value.trim().to_string(),
        }
    }
}

/// What conditions are held against.
struct Machine<'a> {
    cuda: Option<CudaVersion>,
    release: Option<&'a str>,
    /// the visible ones; one of which nothing is known where there is none
    gpus: Vec<Visible<'a>>,
}

/// One visible GPU.
#[derive(Default)]
struct Visible<'a> {
    /// `GPU 0 NVIDIA L4`; empty for none
    subject: String,
    capability: Option<ComputeCapability>,
    brand: Option<&'a str>,
}

impl<'a> Machine<'a> {
    fn of(facts: &'a Facts) -> Self {
        let device = &facts.device;
        let nvml = device.nvml.as_ref();
        // A compat libcuda serves more than the kernel's driver alone, and it is what the service gets.
        let driver = device.driver.as_ref().and_then(|d| d.api_version);
        let mut gpus: Vec<Visible<'a>> = device
            .devices
            .iter()
            .map(|one| {
                let known = |d: &&crate::facts::NvmlDevice| {
                    one.pci_bus_id.is_some() && d.pci_bus_id == one.pci_bus_id
                };
                let seen = device.nvml_devices.iter().find(known);
                Visible {
                    subject: format!("GPU {} {}", one.ordinal, one.name).trim_end().to_string(),
                    capability: one.capability,
                    brand: seen.and_then(|d| d.brand.as_deref()),
                }
            })
            .collect();
        if gpus.is_empty() {
            gpus.push(Visible::default());
        }
        Self {
            cuda: driver.or(nvml.and_then(|n| n.api_version)),
            release: nvml.and_then(|n| n.driver_release.as_deref()),
            gpus,
        }
    }

    /// `cuda 12.2, driver 535.104.05, arch 8.9, brand nvidia (GPU 0 NVIDIA L4)`
    fn seen(&self, gpu: &Visible<'_>) -> String {
        let unknown = || "?".to_string();
        let cuda = self.cuda.map_or_else(unknown, |v| v.to_string());
        let release = self.release.unwrap_or("?");
        let mut text = format!("cuda {cuda}, driver {release}");
        if !gpu.subject.is_empty() {
            let arch = gpu.capability.map_or_else(unknown, |c| c.to_string());
            let brand = gpu.brand.unwrap_or("?");
            text.push_str(&format!(", arch {arch}, brand {brand} ({})", gpu.subject));
        }
        text
    }

    /// Whether all conditions of one hold.
    fn meets_all(&self, gpu: &Visible<'_>, one: &Alternative) -> Option<bool> {
        all(one.0.iter().map(|condition| self.meets(gpu, condition)))
    }

    /// Whether any alternative holds.
    fn meets_any(&self, gpu: &Visible<'_>, alternatives: &[Alternative]) -> Option<bool> {
        any(alternatives.iter().map(|one| self.meets_all(gpu, one)))
    }

    /// `None` where it cannot be told.
    fn meets(&self, gpu: &Visible<'_>, condition: &Condition) -> Option<bool> {
        let seen = match condition.key {
            Key::Cuda => self.cuda?.to_string(),
            Key::Driver => self.release?.to_string(),
            Key::Arch => gpu.capability?.to_string(),
            Key::Brand => {
                let equal = gpu.brand?.eq_ignore_ascii_case(brand(&condition.value));
                let order = if equal { Ordering::Equal } else { Ordering::Less };
                return Some(condition.operator.accepts(order));
            }
            Key::Unknown => return None,
        };
        let (seen, value) = (Version::parse(&seen)?, Version::parse(&condition.value)?);
        Some(condition.operator.accepts(seen.compare(&value)))
    }
}

/// NVIDIA's images name a virtual GPU's brand `vcs`, the toolkit's own table `nvidiavcs`.
fn brand(value: &str) -> &str {
    const VIRTUAL: [&str; 5] = ["vapps", "vpc", "vcs", "vws", "cloudgaming"];
    let short = value
        .get(..6)
        .filter(|start| start.eq_ignore_ascii_case("nvidia"));
    let short = short.and_then(|_| value.get(6..));
    short
        .filter(|s| VIRTUAL.iter().any(|v| v.eq_ignore_ascii_case(s)))
        .unwrap_or(value)
}

/// False where any is false, else unknown where any is unknown.
fn all(verdicts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut known = true;
    for one in verdicts {
        match one {
            Some(false) => return Some(false),
            None => known = false,
            Some(true) => {}
        }
    }
    known.then_some(true)
}

/// True where any is true, else unknown where any is unknown.
fn any(verdicts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    all(verdicts.map(|one| one.map(|holds| !holds))).map(|none| !none)
}

const WAY_OUT: &str = "if the image does not need it, correct the variable, or set NVIDIA_DISABLE_REQUIRE=1 or --allow require-cuda";

impl Demand<'_> {
    fn judge(&self, machine: &Machine<'_>, severity: Severity) -> Option<Finding> {
        let alternatives = match nvidia_require::parse(&self.value) {
            Ok(alternatives) => alternatives,
            Err(mistake) => {
                return Some(
                    Finding::problem_as(Code::RequireCuda, severity, self.variable)
                        .observed(mistake.to_string())
                        .required("conditions such as cuda>=12.4, joined by commas, with blanks between alternatives")
                        .message("the variable cannot be read, and NVIDIA's container runtime would not start the image with it")
                        .hint(format!("correct {} in the Dockerfile or in the container's environment; NVIDIA_DISABLE_REQUIRE=1 or --allow require-cuda pass it over", self.variable)),
                );
            }
        };
        // What asks for nothing is met.
        let first = alternatives.first()?;
        let of_one = |gpu: &Visible<'_>, one: &Alternative| machine.meets_all(gpu, one);
        let worst = |wanted| {
            machine
                .gpus
                .iter()
                .find(|gpu| machine.meets_any(gpu, &alternatives) == wanted)
        };
        if let Some(gpu) = worst(Some(false)) {
            let failing = |one: &Alternative| -> Vec<Condition> {
                let fails = |c: &&Condition| machine.meets(gpu, c) == Some(false);
                one.0.iter().filter(fails).cloned().collect()
            };
            // The first of those that miss least: NVIDIA's images begin with the CUDA that they are made for.
            let closest = alternatives
                .iter()
                .min_by_key(|one| failing(one).len())
                .unwrap_or(first);
            let failing = failing(closest);
            return Some(
                Finding::problem_as(Code::RequireCuda, severity, self.variable)
                    .observed(machine.seen(gpu))
                    .required(self.required(closest, alternatives.len() - 1))
                    .message(self.unmet(&failing, closest))
                    .hint(format!("{}; {WAY_OUT}", remedy(&failing))),
            );
        }
        if let Some(gpu) = worst(None) {
            let open = |c: &&Condition| machine.meets(gpu, c).is_none();
            let undecided = alternatives.iter().filter(|one| of_one(gpu, one).is_none());
            let unknown: Vec<&Condition> = undecided.flat_map(|one| one.0.iter().filter(open)).collect();
            return Some(
                Finding::unknown(Code::RequireCuda, self.variable)
                    .observed(machine.seen(gpu))
                    .required(self.required(first, alternatives.len() - 1))
                    .message(format!(
                        "cannot determine whether this machine meets the image's condition: {}",
                        untold(&unknown)
                    ))
                    .hint(hint_of_unknown(&unknown)),
            );
        }
        let gpu = machine.gpus.first()?;
        let met = alternatives
            .iter()
            .find(|one| of_one(gpu, one) == Some(true))
            .unwrap_or(first);
        Some(
            Finding::pass(Code::RequireCuda, self.variable)
                .observed(machine.seen(gpu))
                .required(met.to_string())
                .message("this machine is one that the image is made for"),
        )
    }

    fn required(&self, closest: &Alternative, others: usize) -> String {
        let others = match others {
            0 => String::new(),
            1 => ", or another alternative".to_string(),
            n => format!(", or one of {n} other alternatives"),
        };
        let source = if self.variable == CUDA_VERSION {
            ", since the image sets CUDA_VERSION and no NVIDIA_REQUIRE_CUDA"
        } else {
            ""
        };
        format!("{closest}{others}{source}")
    }

    fn unmet(&self, failing: &[Condition], closest: &Alternative) -> String {
        let shown = failing.iter().take(nvidia_require::MOST_SHOWN);
        let texts: Vec<String> = shown.map(|c| format!("`{}`", c.text)).collect();
        let verb = if texts.len() == 1 { "does" } else { "do" };
        let of = if closest.0.len() > failing.len() {
            format!(" of `{closest}`")
        } else {
            String::new()
        };
        format!(
            "the image is not made for this machine: {}{of} {verb} not hold",
            texts.join(" and ")
        )
    }
}

/// What makes these hold.
fn remedy(failing: &[Condition]) -> String {
    let upwards = |c: &&Condition| matches!(c.operator, Operator::AtLeast | Operator::Greater);
    let of_driver = |c: &&Condition| matches!(c.key, Key::Cuda | Key::Driver);
    if !failing.iter().all(|c| of_driver(&c) && upwards(&c)) {
        return "move the workload to a node that meets it".to_string();
    }
    let cuda = failing.iter().find(|c| c.key == Key::Cuda);
    let wanted = cuda
        .and_then(|c| Version::parse(&c.value))
        .map(|v| v.major_minor());
    let release = wanted.and_then(|wanted| {
        cuda_errors::oldest_driver(|v| (u64::from(v.major), u64::from(v.minor)) >= wanted)
    });
    match (release, failing.iter().find(|c| c.key == Key::Driver)) {
        (_, Some(driver)) => format!(
            "update the node's driver to release {} or newer, or move the workload to a node that has it",
            driver.value
        ),
        (Some(release), None) => format!(
            "update the node's driver to release {release} or newer, or move the workload to a node that has it"
        ),
        (None, None) => {
            "update the node's driver to one for which nvidia-smi shows such a CUDA Version (CUDA UMD Version from driver 610 on), or move the workload to a node that has it"
                .to_string()
        }
    }
}

/// What is not known of the machine, each once.
fn untold(unknown: &[&Condition]) -> String {
    let mut reasons: Vec<String> = Vec::new();
    for condition in unknown {
        let reason = match condition.key {
            Key::Cuda => "the CUDA that the driver supports is not known".to_string(),
            Key::Driver => "the driver's release is not known".to_string(),
            Key::Arch => "the compute capability is not known".to_string(),
            Key::Brand => "the GPU's brand is not known".to_string(),
            Key::Unknown => format!(
                "`{}` compares none of cuda, driver, arch and brand",
                condition.text
            ),
        };
        // A list of alternatives asks the same of many brands.
        if !reasons.contains(&reason) && reasons.len() < 4 {
            reasons.push(reason);
        }
    }
    reasons.join("; ")
}

fn hint_of_unknown(unknown: &[&Condition]) -> String {
    let of_nvml = |c: &&&Condition| matches!(c.key, Key::Driver | Key::Brand);
    if unknown.iter().any(|c| of_nvml(&c)) {
        "NVML reports the driver release and the brand: let NVIDIA_DRIVER_CAPABILITIES contain `utility`"
            .to_string()
    } else if unknown.iter().all(|c| c.key == Key::Unknown) {
        "correct the variable, or set NVIDIA_DISABLE_REQUIRE=1".to_string()
    } else {
        String::new()
    }
}
