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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::kernels::places;
    use crate::discover::testing::{Entry, container, library};
    use crate::facts::native::NativeExtent::{All, Sample};

    const HOPPER: ComputeCapability = ComputeCapability { major: 9, minor: 0 };
    const ADA: ComputeCapability = ComputeCapability { major: 8, minor: 9 };

    fn located(fatbins: &[Vec<Entry>]) -> Located {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ops.so");
        let fatbins: Vec<_> = fatbins.iter().map(|entries| container(entries)).collect();
        std::fs::write(&path, library(&fatbins)).unwrap();
        Located {
            path: "/ops.so".to_string(),
            places: places(&path).unwrap(),
            ..Located::default()
        }
    }

    fn planned(library: &Located, devices: &[ComputeCapability], extent: NativeExtent) -> Planned {
        let targets: Vec<Target> = (0..)
            .zip(devices)
            .map(|(ordinal, &capability)| Target {
                ordinal,
                capability: Some(capability),
            })
            .collect();
        let newest = Some(PtxVersion { major: 8, minor: 4 });
        plan(
            std::slice::from_ref(library),
            &targets,
            newest,
            extent,
            &|_, _| false,
        )
    }

    /// How many fat binaries each group loads.
    fn counts(planned: &Planned) -> Vec<usize> {
        let groups = planned.plan.groups.iter();
        groups
            .map(|group| {
                group
                    .libraries
                    .iter()
                    .map(|library| library.fatbins.len() / 2)
                    .sum()
            })
            .collect()
    }

    #[test]
    fn only_what_the_device_can_use_is_loaded() {
        let library = located(&[
            vec![Entry::sass(80, true)],
            vec![Entry::sass(90, true), Entry::sass(80, true)],
            vec![Entry::sass(90, false)],
            vec![Entry::sass(75, true)],
        ]);
        assert_eq!(counts(&planned(&library, &[HOPPER], Sample)), [1]);
        assert_eq!(counts(&planned(&library, &[ADA], Sample)), [2]);
        // Devices of a kind share a list; the order is that of the capabilities.
        let both = planned(&library, &[HOPPER, ADA, HOPPER], Sample);
        assert_eq!(counts(&both), [2, 1]);
        assert_eq!(both.plan.groups[1].devices, [0, 2]);
        let usable: Vec<u64> = both.libraries.iter().map(|library| library.usable).collect();
        assert_eq!(usable, [2, 1]);
    }

    #[test]
    fn a_sample_is_spread_over_what_is_compressed() {
        let packed: Vec<Vec<Entry>> = (0..100).map(|_| vec![Entry::packed_sass(90)]).collect();
        let library = located(&packed);
        let sample = planned(&library, &[HOPPER], Sample);
        assert_eq!(counts(&sample), [MOST_PACKED]);
        let offsets: Vec<u64> = sample.plan.groups[0].libraries[0]
            .fatbins
            .iter()
            .step_by(2)
            .copied()
            .collect();
        assert!(offsets.is_sorted() && offsets[0] == library.places[0].offset);
        assert!(
            offsets[MOST_PACKED - 1] > library.places[90].offset,
            "{offsets:?}"
        );
        assert_eq!(counts(&planned(&library, &[HOPPER], All)), [100]);
        let plain: Vec<Vec<Entry>> = (0..100).map(|_| vec![Entry::sass(90, true)]).collect();
        assert_eq!(counts(&planned(&located(&plain), &[HOPPER], Sample)), [100]);
    }

    #[test]
    fn of_ptx_one_is_compiled_and_none_that_is_too_new() {
        let text = |version| vec![Entry::ptx(80, ".entry k").isa(8, version)];
        let library = located(&[text(0), text(4), text(5)]);
        let sample = planned(&library, &[HOPPER], Sample);
        assert_eq!(
            (
                counts(&sample),
                sample.libraries[0].usable,
                sample.libraries[0].ptx
            ),
            (vec![1], 2, 1)
        );
        assert_eq!(counts(&planned(&library, &[HOPPER], All)), [2]);
        let newer = located(&[text(5)]);
        assert_eq!(counts(&planned(&newer, &[HOPPER], All)), [0]);
        // Where nothing of its package fits, the driver is to say so.
        let target = Target {
            ordinal: 0,
            capability: Some(HOPPER),
        };
        let newest = Some(PtxVersion { major: 8, minor: 4 });
        let tried = plan(&[newer], &[target], newest, Sample, &|_, path| path == "/ops.so");
        assert_eq!((counts(&tried), tried.libraries[0].usable), (vec![1], 0));
    }
}
