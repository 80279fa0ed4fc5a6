//! An import that fails since another release of one of CUDA's libraries is in front, by real libraries and the real loader.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::scene::Scene;

/// Makes a library by a C compiler.
fn library(out: &Path, source: &str, flags: &[&OsStr]) {
    fs::create_dir_all(out.parent().unwrap()).unwrap();
    let file = out.with_extension("c");
    fs::write(&file, source).unwrap();
    let mut command = Command::new("cc");
    command
        .args(["-shared", "-fPIC", "-o"])
        .arg(out)
        .arg(&file)
        .args(flags);
    assert!(command.status().unwrap().success(), "{command:?}");
    fs::remove_file(file).unwrap();
}

/// `libnvJitLink.so.12` with this function, under a symbol version of its own name as NVIDIA's has it.
fn nvjitlink(scene: &Scene, folder: &Path, function: &str) {
    let versions = scene.world.path("versions");
    fs::write(&versions, "libnvJitLink.so.12 { global: *; };").unwrap();
    let versions = format!("-Wl,--version-script={}", versions.display());
    let flags = [
        OsStr::new("-Wl,-soname,libnvJitLink.so.12"),
        OsStr::new(&versions),
    ];
    library(
        &folder.join("libnvJitLink.so.12"),
        &format!("int {function}(void) {{ return 0; }}"),
        &flags,
    );
}

/// A torch whose library needs such a function, and finds it where `RUNPATH` leads, unless something comes first.
fn scene() -> Scene {
    let scene = Scene::new();
    let site = scene.site();
    nvjitlink(
        &scene,
        &site.join("nvidia/nvjitlink/lib"),
        "__nvJitLinkComplete_12_4",
    );
    let linked = site.join("nvidia/nvjitlink/lib/libnvJitLink.so.12");
    let flags = [
        linked.as_os_str(),
        OsStr::new("-Wl,-rpath,$ORIGIN/../../nvidia/nvjitlink/lib"),
        OsStr::new("-Wl,--enable-new-dtags"),
        OsStr::new("-Wl,-z,now"),
    ];
    let source = "int __nvJitLinkComplete_12_4(void); int torch(void) { return __nvJitLinkComplete_12_4(); }";
    library(&site.join("torch/lib/libtorch_python.so"), source, &flags);
    let init = site.join("torch/__init__.py");
    let text = fs::read_to_string(&init).unwrap();
    let load =
        "import ctypes, os\nctypes.CDLL(os.path.join(os.path.dirname(__file__), 'lib/libtorch_python.so'))\n";
    fs::write(&init, format!("{text}\n{load}")).unwrap();
    scene.manifest(json!({
        "schema": 1, "name": "t", "smoke": ["torch"], "packages": {"torch": {"version": "*", "optional": true}}
    }))
}

#[test]
fn another_nvjitlink_by_ld_library_path_is_named_with_its_folder() {
    let scene = scene();
    let sound = scene.check(&["--gpu", "off"]);
    assert_eq!(sound.exit(), 0, "{sound}");
    let old = scene.world.path("cuda-12.1/lib64");
    nvjitlink(&scene, &old, "__nvJitLinkComplete_12_1");
    let scene = scene.var("LD_LIBRARY_PATH", "{dir}/cuda-12.1/lib64");
    let found = scene.check(&["--gpu", "off", "--warn", "library-shadowed,library-missing"]);
    let folder = old.display().to_string();
    let means = format!(
        "libtorch_python.so needs __nvJitLinkComplete_12_4, and the loader finds {folder}/libnvJitLink.so.12, which is another \
         libnvJitLink.so.12, found by LD_LIBRARY_PATH in {folder}"
    );
    found.says(
        "smoke-import",
        "fail",
        [
            "undefined symbol: __nvJitLinkComplete_12_4, version libnvJitLink.so.12",
            "",
            &means,
            &format!("take {folder} out of LD_LIBRARY_PATH"),
        ],
    );
    assert_eq!(found.exit(), 84, "{found}");
}
