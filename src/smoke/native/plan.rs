//! Which fat binaries the driver is to load on which device. Pure.

use super::Planned;
use crate::discover::fatbin::Place;
use crate::facts::kernels::CodeKind;
use crate::facts::native::{NativeExtent, NativeLibrary, PlannedGroup, PlannedLibrary};
use crate::facts::{ComputeCapability, PtxVersion};
use crate::order;

/// Most fat binaries of one library that a sample loads where they are compressed: libtorch_cuda.so takes 1.4 ms for each,
/// spconv's, which are not, 0.1 ms (tests/gpu/results.md).
const MOST_PACKED: usize = 32;
/// The same where they are not.
const MOST_PLAIN: usize = 1024;
/// Of those that the driver has to compile first.
const MOST_PTX: usize = 1;

/// A library, and where its fat binaries with kernels lie.
#[derive(Clone, Debug, Default)]
pub struct Located {
    /// the file
    pub path: String,
    /// the distribution that brought it
    pub package: Option<String>,
    /// as they lie in the file; none where it could not be read
    pub places: Vec<Place>,
    /// why it could not be read
    pub unread: Option<String>,
}

/// A device that the proof is made on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// CUDA ordinal
    pub ordinal: i32,
    /// none where the driver does not tell it
    pub capability: Option<ComputeCapability>,
}

/// What a driver that compiles PTX up to `newest` is to load. Of a library without code for a device, `tried` says whether its
/// first fat binary is loaded all the same, so that the driver says so.
pub fn plan(
    located: &[Located],
    devices: &[Target],
    newest: Option<PtxVersion>,
    extent: NativeExtent,
    tried: &dyn Fn(ComputeCapability, &str) -> bool,
) -> Planned {
    let mut planned = Planned::default();
    let mut known: Vec<Option<ComputeCapability>> = devices.iter().map(|device| device.capability).collect();
    order::sort(&mut known);
    known.dedup();
    for capability in known {
        let of_kind = devices.iter().filter(|device| device.capability == capability);
        let mut group = PlannedGroup {
            devices: of_kind.map(|device| device.ordinal).collect(),
            libraries: Vec::new(),
        };
        for library in located {
            let Some(capability) = capability else { continue };
            let Some((told, fatbins)) = choose(library, capability, newest, extent, tried) else {
                continue;
            };
            planned.libraries.push(told);
            group.libraries.push(PlannedLibrary {
                path: library.path.clone(),
                fatbins,
            });
        }
        planned.plan.groups.push(group);
    }
    planned
}

fn choose(
    library: &Located,
    capability: ComputeCapability,
    newest: Option<PtxVersion>,
    extent: NativeExtent,
    tried: &dyn Fn(ComputeCapability, &str) -> bool,
) -> Option<(NativeLibrary, Vec<u64>)> {
    let (mut plain, mut packed, mut ptx) = (Vec::new(), Vec::new(), Vec::new());
    for place in &library.places {
        match place.usable(capability, newest) {
            Some(CodeKind::Sass) if place.packed => packed.push(place),
            Some(CodeKind::Sass) => plain.push(place),
            Some(CodeKind::Ptx) => ptx.push(place),
            None => {}
        }
    }
    let usable = plain.len() + packed.len() + ptx.len();
    if extent == NativeExtent::Sample {
        plain = spread(&plain, MOST_PLAIN);
        packed = spread(&packed, MOST_PACKED);
        order::sort_by_key(&mut ptx, |place| place.size);
        ptx.truncate(MOST_PTX);
    }
    let compiled = ptx.len();
    let mut chosen: Vec<&Place> = plain.into_iter().chain(packed).chain(ptx).collect();
    if chosen.is_empty() && tried(capability, &library.path) {
        chosen.extend(library.places.first());
    }
    if chosen.is_empty() && library.unread.is_none() {
        return None;
    }
    order::sort_by_key(&mut chosen, |place| place.offset);
    let told = NativeLibrary {
        path: library.path.clone(),
        package: library.package.clone(),
        capability,
        usable: usable as u64,
        chosen: chosen.len() as u64,
        ptx: compiled as u64,
        unread: library.unread.clone(),
    };
    let fatbins = chosen
        .into_iter()
        .flat_map(|place| [place.offset, place.size])
        .collect();
    Some((told, fatbins))
}

/// At most so many, evenly spread: the first is always among them.
fn spread<'a>(all: &[&'a Place], most: usize) -> Vec<&'a Place> {
    let count = all.len().min(most);
    (0..count)
        .filter_map(|n| all.get(n * all.len() / count).copied())
        .collect()
}
