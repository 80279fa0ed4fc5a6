use std::fs;
use std::os::unix::fs::symlink;

use object::elf::EM_X86_64;

use super::*;
use crate::discover::testing::{Entry, code, container, elf, library};

fn cc(major: u8, minor: u8) -> ComputeCapability {
    ComputeCapability { major, minor }
}

fn kernels(folders: Vec<String>) -> Vec<ModuleKernels> {
    let python = Python {
        site_packages: folders,
        ..Python::default()
    };
    scan(&python, &[], &[cc(9, 0)], &Reading::default(), false, None).kernels
}

struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, path: &str, bytes: impl AsRef<[u8]>) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    fn folders(&self) -> Vec<String> {
        vec![self.0.path().to_str().unwrap().to_string()]
    }

    fn found(&self) -> Vec<ModuleKernels> {
        kernels(self.folders())
    }

    fn short(&self, module: &ModuleKernels) -> String {
        let root = self.0.path().to_str().unwrap();
        module
            .path
            .strip_prefix(root)
            .unwrap()
            .trim_start_matches('/')
            .to_string()
    }

    fn names(&self) -> Vec<String> {
        self.found().iter().map(|m| self.short(m)).collect()
    }
}

fn sass(arch: u32) -> Vec<u8> {
    library(&[container(&[Entry::sass(arch, true)])])
}

#[test]
fn every_library_with_cuda_code_is_found_once() {
    let site = Site::new();
    let plain = elf(EM_X86_64, &[]);
    site.file("spconv/core_cc.cpython-311-x86_64-linux-gnu.so", sass(90))
        .file("pointops_cuda.cpython-311-x86_64-linux-gnu.so", sass(80))
        .file("a/b/c/d/libdeep.so.1.2", sass(80))
        .file("numpy/core/_multiarray.so", &plain)
        .file("numpy/liba.so", "INPUT(-lb)")
        .file("__pycache__/x.so", sass(80))
        .file("torch/include/x.so", sass(80))
        .file("include/x.so", sass(80))
        .file("x.dist-info/x.so", sass(80))
        .file("x/kernel.cubin", sass(80));
    symlink(site.0.path().join("a"), site.0.path().join("link")).unwrap();
    symlink(
        site.0.path().join("a/b/c/d/libdeep.so.1.2"),
        site.0.path().join("linked.so"),
    )
    .unwrap();
    fs::hard_link(
        site.0.path().join("a/b/c/d/libdeep.so.1.2"),
        site.0.path().join("z.so"),
    )
    .unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir(elsewhere.path().join("data")).unwrap();
    fs::write(elsewhere.path().join("ops.so"), sass(90)).unwrap();
    fs::write(elsewhere.path().join("data/far.so"), sass(90)).unwrap();
    symlink(elsewhere.path(), site.0.path().join("package")).unwrap();
    symlink(elsewhere.path().join("data"), site.0.path().join("a/data")).unwrap();
    symlink(site.0.path(), site.0.path().join("round")).unwrap();
    symlink("nowhere", site.0.path().join("dangling.so")).unwrap();
    symlink("a", site.0.path().join("folder.so")).unwrap();
    nix::unistd::mkfifo(&site.0.path().join("fifo.so"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let names = [
        "a/b/c/d/libdeep.so.1.2",
        "include/x.so",
        "package/data/far.so",
        "package/ops.so",
        "pointops_cuda.cpython-311-x86_64-linux-gnu.so",
        "spconv/core_cc.cpython-311-x86_64-linux-gnu.so",
    ];
    assert_eq!(site.names(), names);
    // The same folder by two names, and one inside the other.
    let root = site.folders().remove(0);
    let twice = kernels(vec![root.clone(), format!("{root}/a"), root]);
    assert_eq!(twice.len(), names.len(), "{twice:#?}");
    assert_eq!(kernels(vec!["/no/such/folder".into()]), vec![]);
}

#[test]
fn counts_are_those_of_the_fat_binaries() {
    let site = Site::new();
    let fatbins = [
        container(&[
            Entry::sass(80, true),
            Entry::sass(90, true),
            Entry::ptx(90, ".entry k"),
        ]),
        container(&[Entry::sass(80, true)]),
        container(&[Entry::sass(52, false)]),
    ];
    site.file("own/ops.so", library(&fatbins));
    let module = site.found().remove(0);
    assert_eq!((module.fatbins, module.with_kernels), (3, 2));
    assert_eq!(
        serde_json::to_value(&module.sass).unwrap(),
        serde_json::json!({"8.0": 2, "9.0": 1})
    );
    assert_eq!(
        serde_json::to_value(&module.ptx).unwrap(),
        serde_json::json!({"9.0": 1})
    );
    assert_eq!(module.served[&cc(9, 0)], Served { sass: 1, ptx: 0 });
    assert_eq!(module.serves(cc(8, 6)), Some(CodeKind::Sass));
    assert_eq!(module.serves(cc(12, 0)), Some(CodeKind::Ptx));
    assert_eq!(module.serves(cc(7, 5)), None);
    let json = serde_json::to_string(&module).unwrap();
    assert_eq!(
        crate::facts::from_json::<ModuleKernels>(json.as_bytes()).unwrap(),
        module
    );
}

#[test]
fn relocatable_code_serves_what_all_of_its_parts_serve() {
    let parts = [
        container(&[Entry::sass(80, true), Entry::ptx(80, ".entry k")]),
        container(&[Entry::sass(86, true), Entry::ptx(90, ".entry k")]),
    ];
    let site = Site::new();
    site.file("own/rdc.so", elf(EM_X86_64, &[code("__nv_relfatbin", &parts)]));
    let module = site.found().remove(0);
    assert_eq!((module.fatbins, module.with_kernels), (2, 2));
    assert_eq!(module.serves(cc(8, 0)), None, "the second part cannot");
    assert_eq!(module.serves(cc(8, 6)), Some(CodeKind::Sass));
    assert_eq!(module.serves(cc(8, 9)), Some(CodeKind::Sass));
    assert_eq!(module.serves(cc(9, 0)), Some(CodeKind::Ptx));
    assert_eq!(module.served[&cc(9, 0)], Served { sass: 0, ptx: 2 });
    // Code that was linked is what counts.
    let linked = [
        code(".nv_fatbin", &[container(&[Entry::sass(75, true)])]),
        code("__nv_relfatbin", &parts),
    ];
    site.file("own/rdc.so", elf(EM_X86_64, &linked));
    let module = site.found().remove(0);
    assert_eq!((module.fatbins, module.serves(cc(8, 6))), (1, None));
}

#[test]
fn damaged_libraries_are_facts_with_their_place() {
    let site = Site::new();
    let whole = sass(90);
    let lying = library(&[vec![7; 64]]);
    site.file(
        "spconv/core_cc.cpython-311-x86_64-linux-gnu.so",
        &whole[..whole.len() - 10],
    )
    .file("spconv/lying.so", lying)
    .file("spconv/cut.so", "\x7fELF")
    .file("spconv/empty.so", "")
    .file("spconv/text.cpython-311-x86_64-linux-gnu.so", "404 not found")
    .file("nvidia/cudnn/lib/libcudnn.so.9", &whole[..100]);
    let found = site.found();
    assert_eq!(found.len(), 5, "{found:#?}");
    for (module, part) in found.iter().zip([
        "damaged ELF file",
        "offset 0x",
        "an ELF header that does not lie in the file",
        "no fat binary at offset",
        "not an ELF file",
    ]) {
        let error = module.error.as_deref().unwrap();
        assert!(error.contains(part), "{}: {error}", module.path);
    }
}

#[test]
fn nvidia_s_own_libraries_are_listed_and_not_counted() {
    let site = Site::new();
    for path in [
        "nvidia/cublas/lib/libcublasLt.so.12",
        "nvidia/own/lib/libwhatever.so",
        "torch/lib/libcudnn_ops.so.9",
        "torch/lib/libnvJitLink.so.12",
    ] {
        site.file(path, sass(90));
    }
    site.file("torch/lib/libtorch_cuda.so", sass(90))
        .file("nvidia/cuda_runtime/lib/libcudart.so.12", elf(EM_X86_64, &[]));
    let found = site.found();
    assert_eq!(found.len(), 5, "{found:#?}");
    for module in &found {
        let vendors = !module.path.contains("libtorch");
        assert_eq!(
            (module.vendor, module.fatbins),
            (vendors, u64::from(!vendors)),
            "{}",
            module.path
        );
    }
}

#[test]
fn a_library_of_a_package_that_may_be_built_for_the_cpu_counts_without_code() {
    let site = Site::new();
    let plain = elf(EM_X86_64, &[]);
    site.file("torch_scatter/_scatter_cpu.so", &plain)
        .file("numpy/x.so", &plain);
    let found = site.found();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].fatbins, found[0].error.as_ref()), (0, None));
}

#[test]
fn a_tree_without_end_is_a_fact() {
    let site = Site::new();
    let deep = "d/".repeat(MAX_DEPTH + 2);
    site.file(&format!("{deep}x.so"), sass(90)).file("y.so", sass(90));
    let found = site.found();
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found[0].error.as_deref().unwrap().contains("32 folders"),
        "{found:#?}"
    );
}

#[test]
fn the_distribution_is_told_by_names() {
    let site = Site::new();
    let root = site.folders().remove(0);
    let dist = |name: &str, folder: &str| Distribution {
        name: name.into(),
        path: format!("{folder}/{}-1.0.dist-info", name.replace('-', "_")),
        ..Distribution::default()
    };
    site.file(
        "torch-1.0.dist-info/top_level.txt",
        "functorch\ntorch\ntorchgen\n",
    )
    .file(
        "own_kernels-1.0.dist-info/top_level.txt",
        "pointops\r\n_pointops_impl\n",
    );
    let mut dists: Vec<Distribution> = [
        "torch",
        "spconv-cu124",
        "cumm-cu124",
        "torch-scatter",
        "mmcv",
        "nvidia-cublas-cu12",
        "minkowskiengine",
        "flash-attn",
        "own-kernels",
        "cupy-cuda12x",
    ]
    .iter()
    .map(|name| dist(name, &root))
    .collect();
    // Another folder's build must not take this folder's library.
    dists.insert(0, dist("spconv-cu118", "/elsewhere"));
    dists.push(dist("editable", "/elsewhere"));
    for (path, package) in [
        ("torch/lib/libtorch_cuda.so", Some("torch")),
        ("functorch/_C.so", Some("torch")),
        ("spconv/core_cc.so", Some("spconv-cu124")),
        ("spconv_cu124.libs/libx.so", Some("spconv-cu124")),
        ("cumm/core_cc.so", Some("cumm-cu124")),
        ("torch_scatter/_scatter_cuda.so", Some("torch-scatter")),
        ("mmcv/_ext.cpython-311-x86_64-linux-gnu.so", Some("mmcv")),
        ("nvidia/cublas/lib/libcublas.so.12", Some("nvidia-cublas-cu12")),
        ("nvidia/cu13/lib/libcublas.so.13", None),
        ("MinkowskiEngineBackend/_C.so", None),
        ("MinkowskiEngine/_C.so", Some("minkowskiengine")),
        (
            "flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so",
            Some("flash-attn"),
        ),
        ("pointops/_C.so", Some("own-kernels")),
        ("_pointops_impl.so", Some("own-kernels")),
        ("cupy/cuda/thrust.so", Some("cupy-cuda12x")),
        ("torch_points_kernels_cuda.so", None),
        ("editable/_C.so", Some("editable")),
        ("torchvision/_C.so", None),
    ] {
        let mut modules = [ModuleKernels {
            path: format!("{root}/{path}"),
            ..ModuleKernels::default()
        }];
        attribute(&mut modules, None, std::slice::from_ref(&root), &dists);
        assert_eq!(modules[0].package.as_deref(), package, "{path}");
    }
    let mut outside = [ModuleKernels {
        path: "/elsewhere/torch/x.so".into(),
        ..ModuleKernels::default()
    }];
    attribute(&mut outside, None, &[root], &dists);
    assert_eq!(outside[0].package, None);
}

#[test]
fn what_no_name_tells_is_asked_of_record() {
    let site = Site::new();
    let root = site.folders().remove(0);
    let dist = |name: &str, tag: &str, record: &str| {
        let folder = format!("{}-1.0.dist-info", name.replace('-', "_"));
        site.file(&format!("{folder}/RECORD"), record);
        Distribution {
            name: name.into(),
            path: format!("{root}/{folder}"),
            tags: vec![tag.into()],
            ..Distribution::default()
        }
    };
    let dists = [
        dist("pure", "py3-none-any", "lib/mscclpp.so,sha256=x,1\n"),
        dist(
            "sgl-kernel",
            "cp310-abi3-manylinux2014_x86_64",
            "sgl_kernel/flash_ops.abi3.so,,\n\"lib/mscclpp.so\",sha256=x,1\n_mscclpp.so,,\n",
        ),
    ];
    for (path, package, vendor) in [
        ("sgl_kernel/flash_ops.abi3.so", Some("sgl-kernel"), false),
        ("lib/mscclpp.so", Some("sgl-kernel"), false),
        ("_mscclpp.so", Some("sgl-kernel"), false),
        ("lib/mscclpp.so", None, true),
        ("lib/other.so", None, false),
    ] {
        let mut modules = [ModuleKernels {
            path: format!("{root}/{path}"),
            vendor,
            ..ModuleKernels::default()
        }];
        attribute(&mut modules, None, std::slice::from_ref(&root), &dists);
        assert_eq!(modules[0].package.as_deref(), package, "{path}");
    }
}
