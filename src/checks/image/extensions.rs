//! `undefined-symbol`, and `library-missing` of packages that nobody lists: whether the libraries that need torch, another
//! framework or CUDA can be loaded.

use std::path::Path;

use super::{ImageContext, loaded, remedy, shown_version, torch_tag};
use crate::check::{Code, Finding, Severity};
use crate::discover::extensions::{BUILTINS, family, folder_of, lacks};
use crate::facts::extensions::{Extension, Extensions};
use crate::facts::kernels::Variant;
use crate::facts::{CudaVersion, LibraryKind};
use crate::nvidia::NvidiaWheel;
use crate::order;
use crate::packages;
use crate::text::{clip, counted, verb};

/// The longest name of a symbol in a sentence, in characters.
const LONGEST: usize = 120;

pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    let Some(all) = &scene.image.extensions else {
        return Vec::new();
    };
    if scene.stack.packages.is_empty() {
        return Vec::new();
    }
    let mut findings = undefined(scene, all);
    let unresolved = all.unresolved.iter().filter(|extension| lacks(extension)).count();
    let count = all.libraries.len().saturating_sub(unresolved);
    if findings.is_empty() && count > 0 {
        let libraries = counted(count, "library");
        let finds = match count {
            1 => format!("{libraries} that needs torch or CUDA finds its symbols"),
            _ => format!("{libraries} that need torch or CUDA find their symbols"),
        };
        findings.push(
            Finding::pass(Code::UndefinedSymbol, "libraries")
                .observed(&libraries)
                .required("every symbol of torch and CUDA is defined")
                .message(finds),
        );
    }
    if !all.unread.is_empty() {
        let listed = super::listed(&all.unread, 3);
        findings.push(
            Finding::unknown(Code::UndefinedSymbol, "libraries")
                .observed(&listed)
                .required("tables of symbols that can be read")
                .message(format!(
                    "the symbols of these cannot be read, so that they are not judged: {listed}"
                )),
        );
    }
    findings.extend(missing(scene, all));
    findings.extend(unopened(scene, all));
    findings.extend(builtins(scene, all));
    findings
}

/// libnvrtc of CUDA 12.4 opens `libnvrtc-builtins.so.12.4` with the first kernel that it compiles. Copies under names of their
/// own, as auditwheel makes them, are left aside.
///
/// Source: NVRTC, "NVRTC_ERROR_BUILTIN_OPERATION_FAILURE" and "Installation".
fn builtins(scene: &ImageContext<'_>, all: &Extensions) -> Option<Finding> {
    let is_asked = scene.stack.cuda.nvrtc.is_some() || scene.rule("torch").is_some();
    let copies = scene
        .image
        .libraries
        .iter()
        .filter(|copy| copy.kind == LibraryKind::Nvrtc);
    // Beside a copy in conda's own lib or in a toolkit nobody has looked.
    let sites = &scene.image.python.site_packages;
    let is_in_site = |path: &str| sites.iter().any(|site| path.starts_with(site.as_str()));
    let mut copies = copies.filter(|copy| is_asked && is_in_site(&copy.path));
    let is_there = |release: CudaVersion| {
        let name = format!("{BUILTINS}{release}");
        let files = all.builtins.iter();
        let mut names = files.map(|path| loaded::name_of(path));
        names.any(|file| file == name || file.starts_with(&format!("{name}.")))
    };
    let (copy, release) = copies.find_map(|copy| {
        let is_plain = loaded::name_of(&copy.path).starts_with("libnvrtc.so.");
        let release = copy.answer.as_ref()?.version?;
        (is_plain && !is_there(release)).then_some((copy, release))
    })?;
    let name = format!("{BUILTINS}{release}");
    let others = match all.builtins.as_slice() {
        [] => "no libnvrtc-builtins".to_string(),
        some => super::listed(some, 3),
    };
    let hint = remedy::of_library(scene, None, loaded::name_of(&copy.path));
    Some(
        Finding::problem(Code::LibraryMissing, name.as_str())
            .observed(others)
            .required(format!("{name}, beside it or where the loader looks"))
            .message(format!(
                "{} opens {name} when it compiles a kernel, and it is not installed: NVRTC fails then (error 7)",
                copy.path
            ))
            .hint(hint.unwrap_or_else(|| loaded::supplier(&name)))
            .with([copy.path.as_str(), name.as_str()]),
    )
}

/// A package, by its distribution's name or the folder's, and those of its libraries for which `wanted` holds.
type OfPackage<'e> = (&'e str, Vec<&'e Extension>);

fn by_package<'e>(
    scene: &ImageContext<'e>,
    all: &'e Extensions,
    wanted: &dyn Fn(&Extension) -> bool,
) -> Vec<OfPackage<'e>> {
    let mut packages: Vec<OfPackage<'e>> = Vec::new();
    for extension in all.unresolved.iter().filter(|extension| wanted(extension)) {
        let name = extension
            .package
            .as_deref()
            .unwrap_or(folder(scene, &extension.path));
        match packages.iter_mut().find(|(known, _)| *known == name) {
            Some((_, of_package)) => of_package.push(extension),
            None => packages.push((name, vec![extension])),
        }
    }
    order::sort_by_key(&mut packages, |(name, _)| *name);
    packages
}

fn folder<'p>(scene: &ImageContext<'_>, path: &'p str) -> &'p str {
    folder_of(Path::new(path), &scene.image.python.site_packages)
}

/// Whether none of what needs torch or CUDA in a package's folder can be loaded: it is one of these, or needs one.
fn is_all(scene: &ImageContext<'_>, all: &Extensions, of_package: &[&Extension]) -> bool {
    let first = of_package.first().map_or("", |first| folder(scene, &first.path));
    let is_lost = |path: &String| {
        let mut unresolved = of_package.iter().map(|extension| &extension.path);
        unresolved.any(|other| other == path) || all.dependents.contains(path)
    };
    let mut libraries = all.libraries.iter().filter(|path| folder(scene, path) == first);
    libraries.all(is_lost)
}

/// How many alternatives the first library is one of, such as a library for each torch: none of them fits, and a package
/// that has some goes without.
fn alternatives(extensions: &[&Extension]) -> usize {
    let mut families = extensions.iter().map(|extension| family(&extension.path));
    let first = families.next();
    match families.filter(|family| Some(family) == first.as_ref()).count() {
        0 => 0,
        others => others + 1,
    }
}

/// Whether they are for single GPUs, such as 9.0a alone, and no modules: a package opens such libraries itself where they fit
/// the GPU, and goes on without them, as torchao does.
fn are_optional(scene: &ImageContext<'_>, extensions: &[&Extension]) -> bool {
    extensions.iter().all(|extension| {
        let mut modules = scene.image.kernels.iter();
        let module = modules.find(|module| module.path == extension.path);
        let is_for_one = module.is_some_and(|module| {
            let mut targets = module.sass.keys().chain(module.ptx.keys()).peekable();
            targets.peek().is_some() && targets.all(|target| target.variant != Variant::Plain)
        });
        is_for_one && !extension.module
    })
}

/// Whether the manifest names the package, or it belongs to a CUDA stack in any case.
fn is_meant(scene: &ImageContext<'_>, package: &str) -> bool {
    scene.rule(package).is_some() || packages::of(package).is_some_and(|package| package.family)
}

fn undefined(scene: &ImageContext<'_>, all: &Extensions) -> Vec<Finding> {
    let packages = by_package(scene, all, &|extension| extension.undefined > 0);
    packages
        .iter()
        .filter_map(|(package, extensions)| {
            let counts = is_meant(scene, package) || is_all(scene, all, extensions);
            let severity = match counts && alternatives(extensions) == 0 && !are_optional(scene, extensions) {
                true => Code::UndefinedSymbol.severity(),
                false => Severity::Warn,
            };
            finding(scene, package, extensions, severity)
        })
        .collect()
}

fn finding(
    scene: &ImageContext<'_>,
    package: &str,
    extensions: &[&Extension],
    severity: Severity,
) -> Option<Finding> {
    let first = extensions.first()?;
    let (symbol, provider) = (first.symbol.as_deref()?, first.provider.as_deref()?);
    // What is observed has the whole name.
    let shown = clip(&qualified(symbol).unwrap_or_else(|| symbol.to_string()), LONGEST);
    let more = match first.undefined {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let others = match extensions.len() {
        1 => String::new(),
        count => format!(
            "; {} of {package} {} symbols as well",
            counted(count - 1, "other library"),
            verb(count - 1, "lacks", "lack")
        ),
    };
    let of_package = scene.installed.get(package).map_or_else(
        || package.to_string(),
        |dist| format!("{package} {}", shown_version(dist)),
    );
    let path = &first.path;
    let (required, message, hint) = if provider == "torch" && package == "torch" {
        (
            "libraries of one release of torch".to_string(),
            format!(
                "{of_package} has libraries that do not fit each other: {path} asks for {shown}, which none defines"
            ),
            reinstalled(scene),
        )
    } else if provider == "torch" {
        let (torch, hint) = torch_tag::build_for_torch(scene, package).unwrap_or_else(|| {
            let hint = "Install torch and this package for each other, in one Python environment.";
            ("of unknown version".to_string(), hint.to_string())
        });
        let why = match first.cxx11_abi {
            Some(true) => "is built for the C++11 ABI, and torch has the one before it",
            Some(false) => "is built for the C++ ABI before C++11, and torch has the C++11 ABI",
            None => "is built for another torch",
        };
        (
            format!("libraries that are built for torch {torch}"),
            match alternatives(extensions) {
                0 => format!(
                    "{of_package} {why}: {path} asks for {shown}, which torch {torch} does not define"
                ),
                count => format!(
                    "{of_package} has {} for other releases of torch, such as {path}, and none for torch {torch}",
                    counted(count, "library")
                ),
            },
            match alternatives(extensions) {
                0 => hint,
                _ => format!(
                    "Install a release of {package} that has a library for torch {torch}, if the service uses it."
                ),
            },
        )
    } else {
        let hint = match NvidiaWheel::of_library(provider) {
            Some(_) => remedy::of_provider(scene, package, provider),
            None => format!(
                "Install the release of {provider} that {of_package} is built for, or a release of {package} for it."
            ),
        };
        (
            format!("a {provider} that defines what {package} needs"),
            format!("{path} of {of_package} asks for {shown}, which no installed {provider} defines"),
            hint,
        )
    };
    Some(
        Finding::problem_as(Code::UndefinedSymbol, severity, package)
            .observed(format!("{path}: undefined symbol {symbol}{more}{others}"))
            .required(required)
            .message(message)
            .hint(hint)
            .with([package, path]),
    )
}

/// torch as it is installed, anew.
fn reinstalled(scene: &ImageContext<'_>) -> String {
    let version = scene
        .installed
        .get("torch")
        .map_or("", |dist| dist.version.as_str());
    let index = match version.split_once("+cu") {
        Some((_, cuda)) => format!(" --index-url https://download.pytorch.org/whl/cu{cuda}"),
        None => String::new(),
    };
    format!("In the Dockerfile: pip install --force-reinstall --no-deps 'torch=={version}'{index}.")
}

/// Whether it is what a wheel of NVIDIA's is for: that package cannot be without it.
fn is_nvidias_own(package: &str, extension: &Extension) -> bool {
    let wheel = NvidiaWheel::of_distribution(package).map(|row| row.wheel);
    let library = NvidiaWheel::of_library(loaded::name_of(&extension.path)).map(|row| row.wheel);
    wheel.is_some() && wheel == library
}

/// Whether it lacks a library of the CUDA toolkit, and not only one that packages go without, such as NCCL.
fn lacks_toolkit(extension: &Extension) -> bool {
    let mut rows = extension
        .missing
        .iter()
        .filter_map(|name| NvidiaWheel::of_library(name));
    rows.any(NvidiaWheel::is_toolkits)
}

/// What a package lacks, in two parts: what it cannot do without, and the rest.
fn parts<'e>(package: &str, is_all: bool, extensions: &[&'e Extension]) -> [Vec<&'e Extension>; 2] {
    let is_needed = |extension: &&&Extension| {
        is_nvidias_own(package, extension) || (lacks_toolkit(extension) && (is_all || extension.module))
    };
    let (needed, rest): (Vec<&Extension>, Vec<&Extension>) =
        extensions.iter().partition(|extension| is_needed(extension));
    match needed.is_empty() {
        true => [rest, Vec::new()],
        false => [needed, rest],
    }
}

/// Libraries that are nowhere. Packages have optional parts that they open themselves, so that what these lack is information;
/// a module of Python's that cannot be imported, or a library of NVIDIA's, is none.
fn missing(scene: &ImageContext<'_>, all: &Extensions) -> Vec<Finding> {
    // The loader has said of these who needs them.
    let is_told = |name: &str| {
        let mut objects = scene.image.loaded.iter();
        objects.any(|object| object.name == name && object.path.is_none())
    };
    let packages = by_package(scene, all, &|extension| {
        extension.undefined == 0 && extension.missing.iter().any(|name| !is_told(name))
    });
    let each = packages.iter().flat_map(|(package, extensions)| {
        let is_all = is_all(scene, all, extensions);
        let [needed, rest] = parts(package, is_all, extensions);
        let is_whole = is_all || needed.iter().any(|extension| is_nvidias_own(package, extension));
        let severity = match is_whole {
            true if is_meant(scene, package) && !are_optional(scene, &needed) => {
                Code::LibraryMissing.severity()
            }
            true => Severity::Warn,
            false
                if needed
                    .iter()
                    .any(|extension| extension.module && lacks_toolkit(extension)) =>
            {
                Severity::Warn
            }
            false => Severity::Info,
        };
        let of_needed = lacking(scene, package, &needed, severity, is_all, &is_told);
        let of_rest = lacking(scene, package, &rest, Severity::Info, is_all, &is_told);
        [of_needed, of_rest]
    });
    each.flatten().collect()
}

/// Libraries of a package, and what they do not find.
fn lacking(
    scene: &ImageContext<'_>,
    package: &str,
    extensions: &[&Extension],
    severity: Severity,
    is_all: bool,
    is_told: &dyn Fn(&str) -> bool,
) -> Option<Finding> {
    let first = extensions.first()?;
    let mut names: Vec<&str> = Vec::new();
    for name in extensions.iter().flat_map(|extension| &extension.missing) {
        if !names.contains(&name.as_str()) && !is_told(name) {
            names.push(name);
        }
    }
    let listed = super::listed(&names.iter().map(ToString::to_string).collect::<Vec<_>>(), 4);
    let which = match (is_all, extensions.len()) {
        (true, _) | (false, 1) => format!("{} needs", first.path),
        (false, count) => format!("{count} libraries of {package}, such as {}, need", first.path),
    };
    let verb = if names.len() == 1 { "is" } else { "are" };
    let rest = match is_all || is_nvidias_own(package, first) {
        true => String::new(),
        false => format!("; other libraries of {package} can be loaded"),
    };
    let hint = match remedy::of_library(scene, Some(package), names.first()?) {
        Some(_) => remedy::of_libraries(scene, Some(package), &names),
        None => loaded::supplier(names.first()?),
    };
    Some(
        Finding::problem_as(Code::LibraryMissing, severity, package)
            .observed(format!("not found: {listed}"))
            .required("a file that the loader finds")
            .message(format!("{which} {listed}, which {verb} not installed{rest}"))
            .hint(hint)
            // What is accepted for a package lies in some wheel.
            .with(names.iter().copied()),
    )
}

/// Libraries of CUDA's that a package opens itself, by a name that stands in it. What is known to open some is judged by its
/// metadata.
fn unopened(scene: &ImageContext<'_>, all: &Extensions) -> Vec<Finding> {
    let packages = by_package(scene, all, &|extension| !extension.unopened.is_empty());
    let unknown = packages
        .iter()
        .filter(|(package, _)| packages::opener(package).is_none());
    let each = unknown.filter_map(|(package, extensions)| {
        let first = extensions.first()?;
        let name = first.unopened.first()?;
        let listed = super::listed(&first.unopened, 4);
        // Something in the service may load a copy that is there.
        let severity = match is_meant(scene, package) && first.elsewhere.is_none() {
            true => Code::LibraryMissing.severity(),
            false => Severity::Warn,
        };
        let of_package = scene.installed.get(package).map_or_else(
            || (*package).to_string(),
            |dist| format!("{package} {}", shown_version(dist)),
        );
        let elsewhere = first.elsewhere.as_deref();
        let folder = elsewhere.and_then(|path| Some(path.rsplit_once('/')?.0));
        let (what, hint) = match folder {
            Some(folder) => (
                format!("it lies in {folder}, which the loader does not search"),
                format!(
                    "In the Dockerfile: ENV LD_LIBRARY_PATH={folder}, or import a package that loads {name} before {package}."
                ),
            ),
            None => {
                let sonames: Vec<&str> = first.unopened.iter().map(String::as_str).collect();
                let install = match remedy::of_library(scene, Some(package), name) {
                    Some(_) => remedy::of_libraries(scene, Some(package), &sonames),
                    None => loaded::supplier(name),
                };
                let hint = format!(
                    "{install} {package} does not search the folders of wheels: with a wheel, add the folder of {name} to \
                     LD_LIBRARY_PATH as well."
                );
                ("it is not installed".to_string(), hint)
            }
        };
        Some(
            Finding::problem_as(Code::LibraryMissing, severity, *package)
                .observed(format!("not found: {listed}"))
                .required("a file that the loader finds by this name")
                .message(format!("{of_package} opens {name} itself when it uses the GPU, and {what}: {}", first.path))
                .hint(hint)
                // What is accepted for a package lies in some wheel.
                .with(folder.map(|_| *package))
                .with(&first.unopened),
        )
    });
    each.collect()
}

/// `c10::detail::torchCheckFail` of `_ZN3c106detail14torchCheckFailEPKcS2_jRKSs`: the qualified name, without what it takes.
/// A demangler of whole names, cpp_demangle 0.4, makes a static program 171 KB larger.
///
/// Source: Itanium C++ ABI, "External Names (a.k.a. Mangling)".
fn qualified(symbol: &str) -> Option<String> {
    let (kind, rest) = match symbol.strip_prefix("_Z")? {
        rest if rest.starts_with("TV") => ("vtable of ", rest.get(2..)?),
        rest if rest.starts_with("TI") || rest.starts_with("TS") => ("type information of ", rest.get(2..)?),
        rest => ("", rest),
    };
    let is_nested = rest.starts_with('N');
    let mut rest = rest
        .trim_start_matches('N')
        .trim_start_matches(['r', 'V', 'K', 'R', 'O']);
    let mut names: Vec<String> = Vec::new();
    while rest.starts_with(|c: char| c.is_ascii_digit()) {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let length: usize = rest.get(..end)?.parse().ok()?;
        names.push(rest.get(end..end.checked_add(length)?)?.to_string());
        rest = rest.get(end + length..)?;
        if !is_nested {
            break;
        }
    }
    let class = names.last()?.clone();
    match rest.get(..2) {
        Some("C1" | "C2") => names.push(class),
        Some("D0" | "D1" | "D2") => names.push(format!("~{class}")),
        _ => {}
    }
    Some(format!("{kind}{}", names.join("::")))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::check::Status;
    use crate::facts::Facts;

    const SITE: &str = "/opt/venv/lib/python3.11/site-packages";

    fn lacking(package: &str, file: &str, symbol: &str, provider: &str) -> Extension {
        Extension {
            path: format!("{SITE}/{file}"),
            package: Some(package.into()),
            undefined: 2,
            symbol: Some(symbol.into()),
            provider: Some(provider.into()),
            ..Extension::default()
        }
    }

    fn with(counts: &[(&str, usize)], unresolved: Vec<Extension>) -> Facts {
        image(|image| {
            image.extensions = Some(Extensions {
                libraries: counts
                    .iter()
                    .flat_map(|(name, count)| (1..*count).map(move |n| format!("{SITE}/{name}/{n}.so")))
                    .chain(unresolved.iter().map(|extension| extension.path.clone()))
                    .collect(),
                unresolved,
                ..Extensions::default()
            });
        })
    }

    fn judged(facts: &Facts) -> Vec<Finding> {
        judge(&ImageContext::new(&stack(), &facts.image))
    }

    const SYMBOL: &str = "_ZN3c106detail14torchCheckFailEPKcS2_jRKSs";

    /// torchao 0.18 beside a torch that lacks a function of its `_C_cutlass_90a.abi3.so`.
    #[test]
    fn a_library_for_one_gpu_that_the_package_opens_itself_warns() {
        use crate::facts::kernels::Target;
        use crate::facts::{ComputeCapability, ModuleKernels};
        let status = |variant: Variant, module: bool| {
            let extension = Extension {
                module,
                ..lacking("own", "own/_C_90a.abi3.so", SYMBOL, "torch")
            };
            let target = Target {
                capability: ComputeCapability { major: 9, minor: 0 },
                variant,
            };
            let mut facts = with(&[("own", 1)], vec![extension.clone()]);
            facts.image.kernels = vec![ModuleKernels {
                path: extension.path,
                sass: [(target, 5)].into(),
                ..ModuleKernels::default()
            }];
            judged(&facts)[0].status
        };
        assert_eq!(status(Variant::ArchSpecific, false), Status::Warn);
        assert_eq!(status(Variant::ArchSpecific, true), Status::Fail);
        assert_eq!(status(Variant::Plain, false), Status::Fail);
    }

    #[test]
    fn a_package_of_the_manifest_fails_and_a_part_of_another_warns() {
        for (package, folder, count, status) in [
            ("torch-scatter", "torch_scatter", 3, Status::Fail),
            ("own", "own", 1, Status::Fail),
            ("own", "own", 2, Status::Warn),
        ] {
            let extension = lacking(package, &format!("{folder}/_C.so"), SYMBOL, "torch");
            let findings = judged(&with(&[(folder, count)], vec![extension]));
            assert_eq!(findings.len(), 1, "{findings:#?}");
            assert_eq!(
                (findings[0].status, findings[0].code),
                (status, Code::UndefinedSymbol)
            );
            assert!(
                findings[0].message.contains("c10::detail::torchCheckFail"),
                "{findings:#?}"
            );
        }
        let findings = judged(&with(&[("torch", 9)], Vec::new()));
        assert_eq!(findings[0].status, Status::Pass);
        assert_eq!(judged(&image(|image| image.extensions = None)), []);
    }

    #[test]
    fn the_words_of_every_problem() {
        let abi = Extension {
            cxx11_abi: Some(false),
            ..lacking("flash-attn", "flash_attn/x.so", SYMBOL, "torch")
        };
        let missing = Extension {
            missing: vec!["libcudart.so.11.0".into()],
            undefined: 0,
            ..lacking("own", "own/_C.so", "", "")
        };
        let unresolved = vec![
            abi,
            missing,
            lacking(
                "torch-scatter",
                "torch_scatter/_C.so",
                "aoti_torch_get_dim",
                "torch",
            ),
            lacking(
                "torch-scatter",
                "torch_scatter/_D.so",
                "aoti_torch_get_dim",
                "torch",
            ),
            lacking(
                "torch",
                "torch/lib/libtorch_cuda.so",
                "ncclCommWindowRegister",
                "libnccl.so.2",
            ),
        ];
        let mut page = String::new();
        for count in [1, 9] {
            page += &words_of(&judged(&with(&[("own", count)], unresolved.clone())));
        }
        insta::assert_snapshot!(page);
    }

    fn without(package: &str, file: &str, missing: &[&str]) -> Extension {
        Extension {
            module: file.contains(".cpython-"),
            missing: missing.iter().map(ToString::to_string).collect(),
            undefined: 0,
            symbol: None,
            provider: None,
            ..lacking(package, file, "", "")
        }
    }

    /// Of the findings of missing libraries: weight, subject, and what was observed.
    fn missed(facts: &Facts, rules: &[&str]) -> Vec<(Status, String, String, String)> {
        let mut stack = stack();
        stack.cuda.runtime = None;
        stack.packages.extend(rules.iter().map(|name| rule(name, "*")));
        let findings = judge(&ImageContext::new(&stack, &facts.image)).into_iter();
        let missing = findings.filter(|f| f.code == Code::LibraryMissing);
        missing
            .map(|f| (f.status, f.subject, f.observed, f.hint))
            .collect()
    }

    const SOLVER: &str = "nvidia/cusolver/lib/libcusolver.so.11";

    #[test]
    fn a_library_of_nvidias_that_cannot_be_loaded_is_a_problem() {
        let mut facts = with(
            &[("nvidia", 9)],
            vec![without("nvidia-cusolver-cu12", SOLVER, &["libcusparse.so.12"])],
        );
        facts
            .image
            .distributions
            .push(dist("nvidia-cusolver-cu12", "11.7.5"));
        let status = |rules: &[&str]| missed(&facts, rules)[0].0;
        assert_eq!(status(&[]), Status::Warn);
        assert_eq!(status(&["nvidia-cusolver-cu12"]), Status::Fail);
    }

    #[test]
    fn modules_that_need_the_toolkit_warn_and_optional_parts_do_not() {
        let module = |name: &str| format!("cupy_backends/cuda/libs/{name}.cpython-311-x86_64-linux-gnu.so");
        let facts = with(
            &[("cupy_backends", 9), ("onnxruntime", 9)],
            vec![
                without("cupy-cuda12x", &module("cusparse"), &["libcusparse.so.12"]),
                without("cupy-cuda12x", &module("nccl"), &["libnccl.so.2"]),
                without(
                    "onnxruntime-gpu",
                    "onnxruntime/capi/libonnxruntime_providers_tensorrt.so",
                    &["libnvinfer.so.10", "libcublas.so.12"],
                ),
            ],
        );
        let found = missed(&facts, &[]);
        let told: Vec<_> = found
            .iter()
            .map(|(status, subject, observed, _)| (*status, subject.as_str(), observed.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (Status::Warn, "cupy-cuda12x", "not found: libcusparse.so.12"),
                (Status::Info, "cupy-cuda12x", "not found: libnccl.so.2"),
                (
                    Status::Info,
                    "onnxruntime-gpu",
                    "not found: libnvinfer.so.10, libcublas.so.12"
                ),
            ]
        );
    }

    /// cupy-cuda12x and nvidia-*-cu12 beside an onnxruntime for CUDA 13.
    #[test]
    fn hints_are_for_the_cuda_of_the_package_that_needs_the_library() {
        let names = [
            "cublas.so.12",
            "cusolver.so.11",
            "cusparse.so.12",
            "cutensor.so.2",
        ];
        let mut unresolved: Vec<Extension> = names
            .iter()
            .map(|name| {
                let file = format!("cupy_backends/{name}.cpython-311-x86_64-linux-gnu.so");
                without("cupy-cuda12x", &file, &[&format!("lib{name}")])
            })
            .collect();
        unresolved.push(without("nvidia-cusolver-cu12", SOLVER, &["libcusparse.so.12"]));
        // Of no CUDA in its name: another library that it needs tells.
        unresolved.push(without(
            "own",
            "own/_C.cpython-311-x86_64-linux-gnu.so",
            &["libcusolver.so.11", "libcudart.so.12"],
        ));
        let mut facts = with(&[], unresolved);
        facts.image.distributions = vec![dist("cupy-cuda12x", "1")];
        facts.image.loaded = vec![crate::facts::LoadedObject {
            name: "libcublasLt.so.13".into(),
            ..crate::facts::LoadedObject::default()
        }];
        let hints = missed(&facts, &[]);
        let hint = |subject: &str| &hints.iter().find(|(_, of, _, _)| of == subject).unwrap().3;
        for (subject, wheels) in [
            (
                "cupy-cuda12x",
                "'nvidia-cublas-cu12==12.*' 'nvidia-cusolver-cu12==11.*' 'nvidia-cusparse-cu12==12.*',",
            ),
            ("nvidia-cusolver-cu12", "'nvidia-cusparse-cu12==12.*',"),
            (
                "own",
                "'nvidia-cuda-runtime-cu12==12.*' 'nvidia-cusolver-cu12==11.*',",
            ),
        ] {
            let install = format!("pip install {wheels}");
            assert!(hint(subject).contains(&install), "{}", hint(subject));
        }
    }

    #[test]
    fn nvrtc_needs_the_builtins_of_its_own_release() {
        let copy = format!("{SITE}/nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
        let judged = |path: &str, builtins: &[&str]| {
            let facts = image(|image| {
                image.libraries = vec![nvrtc(path, Some((12, 4)))];
                image.extensions = Some(Extensions {
                    builtins: builtins.iter().map(|name| format!("/x/{name}")).collect(),
                    ..Extensions::default()
                });
            });
            let findings = judge(&ImageContext::new(&stack(), &facts.image));
            findings.first().map(|f| (f.status, f.subject.clone()))
        };
        let missing = Some((Status::Fail, "libnvrtc-builtins.so.12.4".to_string()));
        assert_eq!(judged(&copy, &[]), missing);
        assert_eq!(
            judged(
                &copy,
                &["libnvrtc-builtins.so.12.6", "libnvrtc-builtins.so.12.40"]
            ),
            missing
        );
        assert_eq!(judged(&copy, &["libnvrtc-builtins.so.12.4"]), None);
        assert_eq!(judged(&copy, &["libnvrtc-builtins.so.12.4.127"]), None);
        let bundled = format!("{SITE}/torch/lib/libnvrtc-6d168ef8.so.12.4.127");
        assert_eq!(judged(&bundled, &[]), None);
    }

    #[test]
    fn names_without_what_they_take() {
        for (symbol, name) in [
            (SYMBOL, Some("c10::detail::torchCheckFail")),
            ("_ZNK2at10TensorBase4sizeEl", Some("at::TensorBase::size")),
            (
                "_ZN3c105ErrorC2ENS_14SourceLocationESs",
                Some("c10::Error::Error"),
            ),
            ("_ZN3c104ImplD0Ev", Some("c10::Impl::~Impl")),
            (
                "_ZTVN5torch8autograd4NodeE",
                Some("vtable of torch::autograd::Node"),
            ),
            ("_Z16THPVariable_WrapN2at10TensorBaseE", Some("THPVariable_Wrap")),
            ("_ZN99c10", None),
            ("_ZN18446744073709551615x", None),
            ("_Z", None),
            ("cudaMalloc", None),
        ] {
            assert_eq!(qualified(symbol).as_deref(), name, "{symbol}");
        }
    }
}
