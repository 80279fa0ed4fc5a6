//! Libraries that two distributions install, and packages built for another numpy: what pip does not notice.

use serde_json::{Value, json};

use crate::support::image::Image;

const NCCL: &str = "nvidia/nccl/lib/libnccl.so.2";

fn manifest() -> Value {
    json!({"schema": 1, "name": "test", "packages": {"torch": "*"}})
}

/// A distribution as an installer leaves it: metadata, RECORD, and its library where it is the last one installed.
fn install(image: &Image, name: &str, version: &str, library: &str) {
    image.wheel(name, version, "py3-none-manylinux_2_18_x86_64");
    let record = format!(
        "{NCCL},sha256={version},{}\nnvidia/__init__.py,sha256=x,0\n",
        library.len()
    );
    let folder = format!("{}-{version}.dist-info", name.replace('-', "_"));
    image.write(&format!("{folder}/RECORD"), &record);
    image.write(NCCL, library);
}

/// torch for CUDA 13, which pins its NCCL.
fn torch() -> Image {
    let image = Image::empty();
    image.wheel("torch", "2.15.0", "cp311-cp311-manylinux_2_28_x86_64");
    image.write(
        "torch-2.15.0.dist-info/METADATA",
        "Name: torch\nVersion: 2.15.0\nRequires-Dist: nvidia-nccl-cu13==2.30.7; platform_system == \"Linux\"\n",
    );
    image
}

#[test]
fn the_copy_of_another_distribution_is_named_with_both_owners() {
    let image = torch();
    install(&image, "nvidia-nccl-cu13", "2.30.7", "thirteen");
    install(&image, "nvidia-nccl-cu12", "2.21.5", "twelve");
    let checked = image.check(&manifest());
    checked.is(81, &["file-owner fail"]);
    let finding = checked.problem("file-owner");
    assert_eq!(finding["subject"], NCCL);
    let message = finding["message"].as_str().unwrap();
    assert!(
        message.contains("the copy of nvidia-nccl-cu12 2.21.5 is there"),
        "{message}"
    );
    // As the hint says.
    install(&image, "nvidia-nccl-cu13", "2.30.7", "thirteen");
    image.check(&manifest()).is(0, &["file-owner info"]);
    let owned = &image.check(&manifest()).report["facts"]["image"]["owned"][0];
    assert_eq!(
        (owned["size"].as_u64(), owned["owners"][1]["size"].as_u64()),
        (Some(8), Some(8))
    );
}

#[test]
fn a_stripped_library_does_not_fail() {
    let image = torch();
    install(&image, "nvidia-nccl-cu13", "2.30.7", "thirteen");
    image.write(NCCL, "thin");
    image.check(&manifest()).is(0, &["file-owner info"]);
}

#[test]
fn torch_that_is_built_for_numpy_1_does_not_pass_beside_numpy_2() {
    let image = Image::empty();
    image.wheel("torch", "2.2.2", "cp311-cp311-linux_x86_64");
    image.wheel("numpy", "2.2.6", "cp311-cp311-manylinux_2_17_x86_64");
    let checked = image.check(&manifest());
    checked.is(81, &["numpy-abi fail"]);
    checked.says("hint:     In the Dockerfile: pip install 'numpy<2'; or install torch 2.3.0 or newer.\n");
    image.remove("numpy-2.2.6.dist-info");
    image.wheel("numpy", "1.26.4", "cp311-cp311-manylinux_2_17_x86_64");
    image.check(&manifest()).is(0, &[]);
}
