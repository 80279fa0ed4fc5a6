//! What the smoke imports is what the metadata says, or the smoke proves another stack than the manifest's.

use std::fs;

use crate::support::scene::Scene;

/// The packages of the scene with the metadata that their wheels leave.
fn installed() -> Scene {
    let scene = Scene::new();
    for (name, version) in [
        ("torch", "2.5.0"),
        ("cumm-cu124", "0.8.2"),
        ("spconv-cu124", "2.3.8"),
    ] {
        let folder = scene.site().join(format!("{name}-{version}.dist-info"));
        fs::create_dir(&folder).unwrap();
        fs::write(
            folder.join("METADATA"),
            format!("Name: {name}\nVersion: {version}\n"),
        )
        .unwrap();
    }
    scene
}

#[test]
fn builds_of_the_installed_versions_pass() {
    installed().prove(0, &[]);
}

#[test]
fn another_torch_in_front_of_the_installed_one_fails() {
    let scene = installed();
    let front = scene.world.path("front");
    let status = std::process::Command::new("cp")
        .arg("-r")
        .arg(scene.site())
        .arg(&front)
        .status();
    assert!(status.unwrap().success());
    for entry in fs::read_dir(&front).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "dist-info") {
            fs::remove_dir_all(path).unwrap();
        }
    }
    let file = front.join("torch/__init__.py");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("2.5.0+fake", "2.1.0+fake")).unwrap();
    let scene = scene.var("PYTHONPATH", "{dir}/front");
    // The smoke alone knows what is installed too.
    assert_eq!(scene.check(&["--stage", "smoke"]).exit(), 84);
    let checked = scene.prove(84, &[]);
    let finding = checked.problem("smoke-import");
    let path = file.display();
    assert_eq!(finding["subject"], "torch");
    assert_eq!(finding["observed"], format!("torch 2.1.0+fake from {path}"));
    assert_eq!(
        finding["message"],
        format!("Python imports torch 2.1.0+fake from {path}, not the installed 2.5.0")
    );
}
