//! Packages of which files are gone, or which another folder hides from an import: metadata alone would pass them.

use std::fs;

use serde_json::{Value, json};

use crate::support::image::{Image, demo_manifest};

/// No interpreter lies in the environment, so nobody can ask its loader.
const UNASKED: [&str; 1] = ["library-missing skip"];

/// An environment with torch as an installer leaves it, in a few files.
fn torch() -> (Image, Value) {
    let image = Image::empty();
    image.wheel("torch", "2.5.0", "cp311-cp311-manylinux1_x86_64");
    image.write(
        "torch-2.5.0.dist-info/RECORD",
        "../../../bin/torchrun,sha256=x,213\ntorch/__init__.py,sha256=x,90412\n\
         torch/_C.cpython-311-x86_64-linux-gnu.so,sha256=x,0\ntorch/version.py,sha256=x,5\n\
         \"torch/lib/libtorch,cpu.so.2\",sha256=x,0\ntorch/include/a.h,sha256=x,1\nnvidia/__init__.py,sha256=x,0\n\
         torch-2.5.0.dist-info/RECORD,,\n",
    );
    image.write("torch/__init__.py", "");
    image.write("torch/_C.cpython-311-x86_64-linux-gnu.so", "");
    image.write("torch/lib/libtorch,cpu.so.2", "");
    image.write("torch/version.py", "__version__ = '2.5.0+cu124'\n");
    let manifest = json!({"schema": 1, "name": "test", "packages": {"torch": "==2.5.0"}});
    (image, manifest)
}

#[test]
fn each_file_that_is_gone_is_told() {
    for gone in [
        "torch/__init__.py",
        "torch/_C.cpython-311-x86_64-linux-gnu.so",
        "torch/lib/libtorch,cpu.so.2",
    ] {
        let (image, manifest) = torch();
        image.check(&manifest).is(0, &UNASKED);
        image.remove(gone);
        let checked = image.check(&manifest);
        assert_eq!(checked.exit, 81, "{}", checked.table);
        checked.says(&format!(
            "✗ 1 file of torch 2.5.0 that its RECORD lists is not there: {gone} [package-incomplete]\n"
        ));
        let torch = &checked.report["facts"]["image"]["distributions"][0];
        assert_eq!(torch["missing"], json!([gone]));
        assert_eq!(torch["missing_count"], 1);
        let warned = image.check_with(&manifest, |command| {
            command.args(["--warn", "package-incomplete"]);
        });
        assert_eq!(warned.exit, 0, "{}", warned.table);
        assert_eq!(warned.problem("package-incomplete")["status"], "warn");
    }
}

#[test]
fn what_others_strip_is_not_missed() {
    let (image, manifest) = torch();
    image.remove("torch-2.5.0.dist-info/RECORD");
    image.remove("torch/__init__.py");
    image.check(&manifest).is(0, &UNASKED);
    // No headers, sources, scripts, nor the empty file that NVIDIA's wheels share: all of that is gone from the start.
    let (image, manifest) = torch();
    image.remove("torch/version.py");
    image.check(&manifest).is(0, &UNASKED);
}

#[test]
fn the_published_wheels_are_whole_and_one_library_less_is_told() {
    let image = Image::real();
    image.remove("cumm/core_cc.cpython-311-x86_64-linux-gnu.so");
    image.remove("nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.4");
    let checked = image.check(&demo_manifest());
    assert_eq!(checked.exit, 81, "{}", checked.table);
    let subjects: Vec<&Value> = checked
        .findings()
        .filter(|f| f["code"] == "package-incomplete")
        .map(|f| &f["subject"])
        .collect();
    assert_eq!(
        subjects,
        ["nvidia-cuda-nvrtc-cu12", "cumm-cu124"],
        "{}",
        checked.table
    );
}

#[test]
fn an_earlier_folder_with_the_name_hides_the_package() {
    let (image, manifest) = torch();
    let front = image.root().join("front");
    let check = || {
        image.check_with(&manifest, |command| {
            command.env("PYTHONPATH", &front);
        })
    };
    fs::create_dir_all(front.join("torch")).unwrap();
    // A namespace: the package behind it is the one that is imported.
    check().is(0, &UNASKED);
    fs::write(front.join("torch/__init__.py"), "__version__ = '2.1.0'\n").unwrap();
    check().is(81, &["package-duplicate fail", UNASKED[0]]).says(
        "✗ Python imports front/torch/__init__.py, which hides torch 2.5.0 in env/lib/python3.11/site-packages \
         [package-duplicate]\n",
    );
    // Nobody looks there.
    image.check(&manifest).is(0, &UNASKED);
    fs::remove_dir_all(front.join("torch")).unwrap();
    fs::write(front.join("torch.py"), "").unwrap();
    check().is(81, &["package-duplicate fail", UNASKED[0]]);
}
