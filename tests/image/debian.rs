//! Distributions as Debian's packages record them, which pip has not installed.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::image::Image;

/// An environment with the records of tests/fixtures/debian-12.
fn image() -> Image {
    let image = Image::empty();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/debian-12/dist-packages");
    for record in fs::read_dir(from).unwrap() {
        let record = record.unwrap();
        let name = record.file_name().into_string().unwrap();
        if record.path().is_file() {
            image.put(&name, &record.path());
            continue;
        }
        for file in fs::read_dir(record.path()).unwrap() {
            let file = file.unwrap();
            let text = fs::read_to_string(file.path()).unwrap();
            image.write(&format!("{name}/{}", file.file_name().to_str().unwrap()), &text);
        }
    }
    image
}

#[test]
fn a_wheels_and_an_eggs_record_are_one_installation() {
    let manifest = json!({"schema": 1, "name": "debian", "packages": {
        "cryptography": "==38.0.4", "numpy": "==1.24.2", "pyyaml": ">=6", "six": "*",
    }});
    let image = image();
    image
        .check(&manifest)
        .is(0, &[])
        .says("✓ packages: each of 4 distributions is installed once\n");
    // Where they differ, one of them is left over from another installation.
    let name = "cryptography.egg-info/PKG-INFO";
    let text = fs::read_to_string(image.site().join(name)).unwrap();
    image.write(name, &text.replace("\nVersion: 38.0.4\n", "\nVersion: 41.0.7\n"));
    image
        .check(&manifest)
        .is(81, &["package-duplicate fail"])
        .says("✗ cryptography is installed 2 times in env/lib/python3.11/site-packages: 38.0.4, 41.0.7 ");
}
