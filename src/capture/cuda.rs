//! The versions of CUDA: of the libraries that state theirs, of torch, and the least that a driver has to serve.

use crate::checks::floor::{Floor, answers, of_torch};
use crate::facts::{CudaVersion, ImageFacts, Library, LibraryKind, LibraryOrigin};
use crate::order;
use crate::stack::{CudaRule, CudaRules, Stack};

/// The part `cuda` of the manifest.
pub(super) fn rules(image: &ImageFacts, notes: &mut Vec<String>) -> CudaRules {
    let runtime = versions(image, LibraryKind::Cudart, notes).map(|(oldest, newest)| {
        // conda brings the newest libcudart of a major version, whatever torch was built with: it is compatible.
        let torch = of_torch(image).filter(|torch| torch.major == oldest.major && *torch <= newest);
        (torch.map_or(oldest, |torch| torch.min(oldest)), newest)
    });
    let nvrtc = versions(image, LibraryKind::Nvrtc, notes);
    let driver = driver(image);
    if driver.is_none() {
        notes.push(
            "cuda.driver is left out: neither libcudart nor torch says which CUDA this image is for"
                .to_string(),
        );
    }
    CudaRules {
        runtime: runtime.map(rule),
        nvrtc: nvrtc.map(rule),
        driver,
    }
}

/// The runtime of an image that no manifest describes: torch's CUDA belongs to it as well as the copies of libcudart.
pub(super) fn runtime_as_found(image: &ImageFacts) -> Option<CudaRule> {
    let (oldest, newest) = versions(image, LibraryKind::Cudart, &mut Vec::new())?;
    let torch = of_torch(image).filter(|torch| torch.major == oldest.major);
    Some(rule(torch.map_or((oldest, newest), |torch| {
        (torch.min(oldest), torch.max(newest))
    })))
}

fn rule((oldest, newest): (CudaVersion, CudaVersion)) -> CudaRule {
    match oldest == newest {
        true => CudaRule::exactly(newest),
        false => CudaRule::between(oldest, newest),
    }
}

/// What the driver has to serve, by [`Floor`]: the first release of the major version. SASS runs on every driver of its
/// major version (CUDA Compatibility, "Minor Version Compatibility"), so that the exact release would have a node warn that
/// works. What PTX needs depends on the GPU, and is judged there by the version that each text states (`kernels-unusable`).
fn driver(image: &ImageFacts) -> Option<CudaRule> {
    Some(CudaRule::at_least(Floor::of(image, &Stack::default())?.least()))
}

/// The oldest and the newest version that they answer. Copies of one major version stand beside each other in healthy
/// images, since wheels bring their own; those of several are of several stacks, and no rule is true of all.
fn versions(
    image: &ImageFacts,
    kind: LibraryKind,
    notes: &mut Vec<String>,
) -> Option<(CudaVersion, CudaVersion)> {
    let (key, name) = (kind.row().rule?, kind.row().stem);
    let versions = order::map(answers(image, kind));
    // The loader is asked for every major that there ever was.
    let is_silent = |copy: &&Library| {
        copy.kind == kind
            && copy.origin == LibraryOrigin::Wheel
            && copy.answer.as_ref().and_then(|answer| answer.version).is_none()
    };
    for copy in image.libraries.iter().filter(is_silent) {
        notes.push(format!("{} did not state its version", copy.path));
    }
    let (Some((&oldest, _)), Some((&newest, _))) = (versions.first_key_value(), versions.last_key_value())
    else {
        notes.push(format!("cuda.{key} is left out: no copy of {name} was found"));
        return None;
    };
    let is_one_major = oldest.major == newest.major;
    if oldest != newest {
        let shown: Vec<String> = versions
            .iter()
            .map(|(version, path)| format!("{version} ({path})"))
            .collect();
        let what = if is_one_major { "is a range" } else { "is left out" };
        notes.push(format!(
            "cuda.{key} {what}: the copies of {name} are of {}",
            shown.join(", ")
        ));
    }
    is_one_major.then_some((oldest, newest))
}
