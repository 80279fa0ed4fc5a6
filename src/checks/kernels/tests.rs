use super::*;
use crate::facts::kernels::{PtxIsa, Target};
use crate::facts::read::FromJson;

fn targets(text: &str, count: u64) -> BTreeMap<Target, u64> {
    let read = |word: &str| Target::from_json(serde_json::Value::from(word)).unwrap();
    text.split_whitespace().map(|word| (read(word), count)).collect()
}

/// `sass 8.0 9.0a ptx 9.0@8.4`, with so many fat binaries.
fn library(package: Option<&str>, path: &str, code: &str, count: u64) -> ModuleKernels {
    let (sass, ptx) = code.split_once("ptx").unwrap_or((code, ""));
    let mut isa = Vec::new();
    let mut plain = String::new();
    for word in ptx.split_whitespace() {
        let (target, version) = word.split_once('@').unwrap_or((word, ""));
        plain += &format!("{target} ");
        if let Ok(version) = PtxVersion::from_json(serde_json::Value::from(version)) {
            isa.push(PtxIsa {
                arch: *targets(target, 1).keys().next().unwrap(),
                version,
                fatbins: count,
            });
        }
    }
    ModuleKernels {
        path: format!("/sp/{path}"),
        package: package.map(Into::into),
        fatbins: count + 1,
        with_kernels: count,
        sass: targets(sass.trim_start_matches("sass"), count),
        ptx: targets(&plain, count),
        ptx_isa: isa,
        ..ModuleKernels::default()
    }
}

fn sites() -> Vec<String> {
    vec!["/sp".to_string()]
}

fn device(text: &str) -> ComputeCapability {
    ComputeCapability::from_json(serde_json::Value::from(text)).unwrap()
}

/// `sass`, `ptx`, with `-N` for N libraries that lack code and `!` where that is the greater part; `others`, `no`,
/// `no 8.7`.
fn on(modules: &[ModuleKernels], capability: &str, newest: Option<(u16, u16)>) -> String {
    let packages = packages(modules, &sites());
    assert_eq!(packages.len(), 1, "one package");
    let newest = newest.map(|(major, minor)| PtxVersion { major, minor });
    match packages[0].on(device(capability), newest) {
        Served::Yes {
            by,
            lacking,
            mostly_lacking,
        } => {
            let by = match by {
                CodeKind::Sass => "sass",
                CodeKind::Ptx => "ptx",
            };
            let lacking = match lacking.len() {
                0 => String::new(),
                count => format!("-{count}"),
            };
            format!("{by}{lacking}{}", if mostly_lacking { "!" } else { "" })
        }
        Served::Unneeded => "others".to_string(),
        Served::No { too_new: None } => "no".to_string(),
        Served::No { too_new: Some(isa) } => format!("no {isa}"),
    }
}

fn each_on(modules: &[ModuleKernels], expected: &[(&str, &str)]) {
    for (capability, expected) in expected {
        assert_eq!(on(modules, capability, None), *expected, "{capability}");
    }
}

#[test]
fn what_belongs_together() {
    let modules = [
        library(Some("vllm"), "vllm/_C.so", "sass 8.0", 1),
        library(Some("torch"), "torch/lib/libtorch_cuda.so", "sass 8.0", 1),
        library(Some("vllm"), "vllm/sub/_D.so", "sass 8.0", 1),
        library(Some("torch"), "torch/lib/libtorch_cuda_linalg.so", "sass 8.0", 1),
        library(None, "own/a.so", "sass 8.0", 1),
        library(None, "own/b.so", "sass 8.0", 1),
        library(None, "alone.so", "sass 8.0", 1),
        ModuleKernels {
            path: "/elsewhere/own/a.so".into(),
            ..library(None, "", "sass 8.0", 1)
        },
        ModuleKernels {
            vendor: true,
            ..library(Some("vllm"), "vllm/libcublas.so", "sass 8.0", 1)
        },
        ModuleKernels {
            error: Some("damaged".into()),
            ..library(Some("vllm"), "vllm/_E.so", "sass 8.0", 1)
        },
        library(Some("vllm"), "vllm/_F.so", "", 0),
    ];
    let found: Vec<(String, usize)> = packages(&modules, &sites())
        .into_iter()
        .map(|p| (p.title, p.modules.len()))
        .collect();
    let expected = [
        ("vllm", 2),
        ("torch (torch/lib/libtorch_cuda.so)", 1),
        ("torch (torch/lib/libtorch_cuda_linalg.so)", 1),
        ("own", 2),
        ("alone.so", 1),
        ("/elsewhere/own/a.so", 1),
    ];
    assert_eq!(found, expected.map(|(title, count)| (title.to_string(), count)));
    // A second copy in another folder of `sys.path` is another package.
    let twice = [
        library(Some("vllm"), "vllm/_C.so", "sass 8.0", 1),
        library(Some("vllm"), "second/vllm/_C.so", "sass 9.0", 1),
    ];
    let sites = ["/sp".to_string(), "/sp/second".to_string()];
    assert_eq!(packages(&twice, &sites).len(), 2);
}

/// vllm 0.33: libraries for families of GPUs beside general ones.
#[test]
fn a_package_with_libraries_for_families_of_gpus() {
    let vllm = Some("vllm");
    let modules = [
        library(
            vllm,
            "vllm/_C_stable_libtorch.abi3.so",
            "sass 7.5 8.0 8.6 8.9 9.0 9.0a 10.0 10.0f 12.0 12.0f",
            117,
        ),
        library(vllm, "vllm/_flashmla_C.abi3.so", "sass 9.0a 10.0f", 53),
        library(vllm, "vllm/_qutlass_C.abi3.so", "sass 10.0f", 6),
        library(
            vllm,
            "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so",
            "sass 8.0 ptx 8.0@9.0",
            76,
        ),
        library(vllm, "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so", "sass 9.0a", 192),
    ];
    each_on(
        &modules,
        &[
            ("7.0", "no"),
            ("7.5", "sass-4"),
            ("8.6", "sass-3"),
            ("9.0", "sass-1"),
            ("10.3", "sass-1"),
            ("12.0", "sass-3"),
        ],
    );
    // A driver that does not compile the second attention's PTX: the package still has its others.
    assert_eq!(on(&modules, "9.0", Some((8, 7))), "sass-2");
}

/// bitsandbytes 0.50: the library for torch's CUDA is loaded.
#[test]
fn a_package_with_a_library_for_each_version_of_cuda() {
    let name = |cuda: &str| format!("bitsandbytes/libbitsandbytes_cuda{cuda}.so");
    let bnb = Some("bitsandbytes");
    let old =
        ["118", "121", "124", "126"].map(|cuda| library(bnb, &name(cuda), "sass 6.0 7.0 7.5 8.0 9.0", 1));
    let new = ["128", "130"].map(|cuda| library(bnb, &name(cuda), "sass 7.5 8.0 9.0 10.0 12.0", 1));
    let modules = [&old[..], &new[..]].concat();
    each_on(
        &modules,
        &[
            ("6.1", "sass-2"),
            ("9.0", "sass"),
            ("12.0", "sass-4"),
            ("11.0", "no"),
        ],
    );
    // Four libraries of other names would be the greater part.
    let mut others = modules.clone();
    for (index, module) in others.iter_mut().enumerate() {
        module.path = format!("/sp/bitsandbytes/_C{index}x.so");
    }
    assert_eq!(on(&others, "12.0", None), "sass-4!");
}

/// torchao 0.18: operators for single GPUs, and everything else in Python.
#[test]
fn a_package_of_operators_for_single_gpus() {
    let ao = Some("torchao");
    let modules = [
        library(ao, "torchao/_C_cutlass_90a.abi3.so", "sass 9.0a", 5),
        library(ao, "torchao/_C_mxfp8.so", "sass 10.0 ptx 12.0@9.0", 3),
    ];
    each_on(
        &modules,
        &[
            ("7.5", "others"),
            ("8.6", "others"),
            ("9.0", "sass-1"),
            ("10.0", "sass-1"),
            ("12.0", "ptx-1"),
        ],
    );
    // PTX that is there for the GPU was meant for it.
    assert_eq!(on(&modules, "12.0", Some((8, 8))), "no 9.0");
    // What was compiled before the GPU's time is no operator of later ones.
    let old = [
        library(ao, "own/_fa2.so", "sass 8.0", 1),
        library(ao, "own/_fa3.so", "sass 9.0a", 1),
    ];
    each_on(&old, &[("7.5", "others"), ("8.6", "sass-1"), ("10.0", "no")]);
    // An operator for many GPUs says that there was a list, and which GPUs are not on it: torchao 0.15.
    let with_general = [
        library(ao, "torchao/_C.abi3.so", "sass 8.0 8.6", 6),
        library(ao, "torchao/_C_cutlass_90a.abi3.so", "sass 9.0a", 7),
        library(ao, "torchao/_C_cutlass_100a.abi3.so", "sass 10.0a", 1),
        library(ao, "torchao/_C_mxfp8.so", "sass 10.0 ptx 12.0@9.0", 1),
    ];
    each_on(
        &with_general,
        &[
            ("7.5", "no"),
            ("8.9", "sass-3"),
            ("9.0", "sass-3"),
            ("10.0", "sass-2!"),
            ("12.0", "ptx-3!"),
        ],
    );
    // Compiled for the builder's GPU alone: the fault that this is all about.
    let own = [
        library(ao, "own/a.so", "sass 8.0", 1),
        library(ao, "own/b.so", "sass 8.0", 1),
    ];
    each_on(&own, &[("8.6", "sass"), ("9.0", "no")]);
    each_on(
        &[library(ao, "own/a.so", "sass 9.0a", 1)],
        &[("9.0", "sass"), ("8.6", "no"), ("10.0", "no")],
    );
    let plain = [
        library(ao, "own/a.so", "sass 8.0", 1),
        library(ao, "own/b.so", "sass 9.0", 1),
    ];
    each_on(&plain, &[("7.5", "no"), ("8.6", "sass-1")]);
}

#[test]
fn a_helper_for_all_gpus_does_not_hide_the_extension_for_none() {
    let own = Some("own");
    let helper = library(own, "own/_helper.so", "sass 7.5 8.0 9.0 12.0", 2);
    let extension = |code, count| library(own, "own/_C.so", code, count);
    each_on(
        &[helper.clone(), extension("sass 8.0", 3)],
        &[("8.6", "sass"), ("9.0", "sass-1!")],
    );
    each_on(&[helper.clone(), extension("sass 8.0", 2)], &[("9.0", "sass-1")]);
    // What is for one GPU on purpose is no greater part.
    each_on(
        &[helper, extension("sass 9.0a", 9)],
        &[("9.0", "sass"), ("12.0", "sass-1")],
    );
}

#[test]
fn ptx_counts_up_to_the_version_that_the_driver_compiles() {
    let own = |code| [library(Some("own"), "own/_C.so", code, 3)];
    let modules = own("sass 9.0 ptx 9.0@8.7");
    for (newest, capability, expected) in [
        (None, "10.0", "ptx"),
        (Some((8, 7)), "10.0", "ptx"),
        (Some((9, 0)), "10.0", "ptx"),
        (Some((8, 6)), "10.0", "no 8.7"),
        (Some((8, 4)), "9.0", "sass"),
        (Some((8, 4)), "8.9", "no"),
    ] {
        assert_eq!(
            on(&modules, capability, newest),
            expected,
            "{newest:?} {capability}"
        );
    }
    // The older of two texts will do, and one of unknown version may be of any.
    assert_eq!(
        on(&own("sass 9.0 ptx 8.0@8.4 9.0@8.7"), "10.0", Some((8, 4))),
        "ptx"
    );
    assert_eq!(
        on(&own("sass 9.0 ptx 8.0@8.5 9.0@8.7"), "10.0", Some((8, 4))),
        "no 8.5"
    );
    assert_eq!(on(&own("sass 9.0 ptx 9.0"), "10.0", Some((8, 4))), "ptx");
    let mut part = own("sass 9.0 ptx 9.0@8.7");
    part[0].ptx.iter_mut().for_each(|(_, count)| *count += 1);
    assert_eq!(
        on(&part, "10.0", Some((8, 4))),
        "ptx",
        "one text does not tell its version"
    );
    // `a` and `f` PTX stays where its code stays.
    assert_eq!(on(&own("sass 9.0 ptx 10.0f@8.8"), "10.3", Some((8, 8))), "ptx");
    assert_eq!(on(&own("sass 9.0 ptx 10.0f@8.8"), "12.0", Some((8, 8))), "no");
    assert_eq!(on(&own("sass 9.0 ptx 10.0a@8.7"), "10.3", Some((9, 0))), "no");
}

#[test]
fn libraries_that_only_differ_in_the_version_of_cuda() {
    let library = |path: &str| ModuleKernels {
        path: path.to_string(),
        ..ModuleKernels::default()
    };
    for (one, other, expected) in [
        ("/a/lib_cuda118.so", "/a/lib_cuda124.so", true),
        ("/a/lib-cu12.so", "/a/lib-cu13.so", true),
        ("/a/lib_cuda118.so", "/b/lib_cuda124.so", false),
        ("/a/lib_cuda118.so", "/a/lib_cuda118_nocublaslt.so", false),
        ("/a/lib_cuda.so", "/a/lib_cuda124.so", false),
        ("/a/cu118/x.so", "/a/cu124/x.so", false),
        ("/a/_C.so", "/a/_D.so", false),
        ("/a/libcustom1.so", "/a/libcustom2.so", false),
    ] {
        assert_eq!(
            is_other_cuda(&library(one), &library(other)),
            expected,
            "{one} {other}"
        );
    }
}

#[test]
fn what_libraries_hold_in_one_line() {
    let modules = [
        library(None, "x/a.so", "sass 8.0 9.0a ptx 9.0@8.4", 2),
        library(None, "x/b.so", "ptx 8.0@8.7", 3),
    ];
    let all: Vec<&ModuleKernels> = modules.iter().collect();
    assert_eq!(
        code_of(&all),
        "SASS 8.0 9.0a, PTX 8.0 9.0 (ISA 8.4 8.7) in 5 fatbins with kernels of 7 in 2 libraries"
    );
    assert_eq!(named(&all, 8), "a.so (8.0 9.0a), b.so (PTX 8.0)");
    assert_eq!(named(&all, 1), "a.so (8.0 9.0a) and 1 more");
}
