//! What glibc's loader says it would map: `LD_TRACE_LOADED_OBJECTS=1` makes it list and run nothing.
//!
//! Sources: ld.so(8) and ldd(1); elf/rtld.c of glibc, `rtld_main` under `rtld_mode_trace`. The list goes to standard
//! output in the order of loading, complaints go to standard error:
//!
//! ```text
//!         linux-vdso.so.1 (0x00007f63178ac000)            before glibc 2.26: linux-vdso.so.1 =>  (0x…)
//!         /sp/mod.so (0x00007f631789f000)
//!         libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f631701e000)
//!         libx.so.1 => not found
//! python3: /lib/libc.so.6: version `GLIBC_2.38' not found (required by /sp/mod.so)
//! ERROR: ld.so: object '/sp/mod.so' from LD_PRELOAD cannot be preloaded (file too short): ignored.
//! python3: error while loading shared libraries: /x/liby.so.1: file too short
//! ```

use crate::facts::{MissingVersion, RefusedObject};

pub mod explain;
mod request;
pub mod search;
pub mod symbols;

pub use request::{Asked, DRIVER, Request, ask};

/// Most objects of one list. torch with its CUDA libraries comes to about sixty.
const MAX_OBJECTS: usize = 4096;
/// Most complaints of one kind.
const MAX_COMPLAINTS: usize = 64;

/// Libraries that come with the driver when a container starts, and are in no image.
pub fn is_drivers(name: &str) -> bool {
    const STARTS: [&str; 7] = [
        "libcuda.so",
        "libnvidia-",
        "libnvcuvid.so",
        "libnvoptix.so",
        "libcudadebugger.so",
        "libGLX_nvidia.so",
        "libEGL_nvidia.so",
    ];
    STARTS.iter().any(|start| name.starts_with(start))
}

/// One line of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// what was asked for
    pub name: String,
    /// the file that would be mapped; `None` when it is not found
    pub path: Option<String>,
}

/// What the loader said. Text is as it came, U+FFFD where it is not UTF-8; it may hold control characters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    /// in the order of loading, without the kernel's vdso
    pub objects: Vec<Listed>,
    /// symbol versions that a library does not have
    pub missing_versions: Vec<MissingVersion>,
    /// files that it found and cannot use, and preloads that it found not at all
    pub refused: Vec<RefusedObject>,
}

impl Listing {
    /// Whether something is not found, but for the driver's libraries, which come with the machine.
    pub fn lacks(&self) -> bool {
        let is_absent = |object: &Listed| object.path.is_none() && !is_drivers(&object.name);
        self.objects.iter().any(is_absent) || !refusals(self).is_empty()
    }
}

/// Reads both outputs of a run. What is not one of the loader's lines is skipped.
pub fn parse(stdout: &[u8], stderr: &[u8]) -> Listing {
    let mut listing = Listing::default();
    let list = String::from_utf8_lossy(stdout);
    listing.objects = list.lines().filter_map(object).take(MAX_OBJECTS).collect();
    for line in String::from_utf8_lossy(stderr).lines() {
        if let Some(missing) = missing_version(line) {
            push(&mut listing.missing_versions, missing);
        } else if let Some(refused) = refused_preload(line).or_else(|| refused_dependency(line)) {
            push(&mut listing.refused, refused);
        }
    }
    listing
}

/// The refusals that count: the driver was only asked for in case it is there.
pub fn refusals(listing: &Listing) -> Vec<RefusedObject> {
    let refused = listing.refused.iter();
    refused.filter(|r| r.path != DRIVER).cloned().collect()
}

fn push<T: PartialEq>(all: &mut Vec<T>, one: T) {
    if all.len() < MAX_COMPLAINTS && !all.contains(&one) {
        all.push(one);
    }
}

fn object(line: &str) -> Option<Listed> {
    let text = line.strip_prefix('\t')?;
    let (name, target) = match text.split_once(" => ") {
        Some((name, "not found")) => {
            return Some(Listed {
                name: name.to_string(),
                path: None,
            });
        }
        Some((name, rest)) => (name, address_off(rest)?),
        None => {
            let path = address_off(text)?;
            (path, path)
        }
    };
    // No slash: the vdso, which is no file.
    (target.contains('/') && !name.is_empty()).then(|| Listed {
        name: name.to_string(),
        path: Some(target.to_string()),
    })
}

/// `PATH (0x…)` without its address.
fn address_off(text: &str) -> Option<&str> {
    let (path, address) = text.rsplit_once(" (0x")?;
    let digits = address.strip_suffix(')')?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(path)
}

fn missing_version(line: &str) -> Option<MissingVersion> {
    let (before, after) = line.split_once(": version ")?;
    let (version, after) = after.get(1..)?.split_once("' not found (required by ")?;
    Some(MissingVersion {
        // PROGRAM: LIBRARY
        library: before.rsplit(": ").next()?.to_string(),
        version: version.to_string(),
        required_by: after.strip_suffix(')')?.to_string(),
    })
}

fn refused_preload(line: &str) -> Option<RefusedObject> {
    let rest = line.strip_prefix("ERROR: ld.so: object '")?;
    let (path, rest) = rest.split_once("' from LD_PRELOAD cannot be preloaded")?;
    // glibc before 2.18 gives no reason.
    let reason = rest
        .strip_prefix(" (")
        .and_then(|r| r.strip_suffix("): ignored."))
        .unwrap_or("it cannot be preloaded");
    Some(RefusedObject {
        path: path.to_string(),
        reason: reason.to_string(),
    })
}

fn refused_dependency(line: &str) -> Option<RefusedObject> {
    let (_, rest) = line.split_once(": error while loading shared libraries: ")?;
    let (path, reason) = rest.split_once(": ")?;
    Some(RefusedObject {
        path: path.to_string(),
        reason: reason.to_string(),
    })
}

#[cfg(test)]
mod tests;
