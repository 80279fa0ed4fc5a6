use super::*;
use std::fs;

use crate::discover::wheels;

/// A prefix with a `site-packages` and other folders beside it.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Files below the prefix; those whose names end in `/` become folders.
    fn with(self, files: &[(&str, &str)]) -> Self {
        for (name, text) in files {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if name.ends_with('/') {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::write(path, text).unwrap();
            }
        }
        self
    }

    fn python(&self, folders: &[&str]) -> Python {
        Python {
            prefix: Some(self.path("").to_str().unwrap().trim_end_matches('/').into()),
            version: Some("3.11".into()),
            site_packages: folders
                .iter()
                .map(|name| self.path(name).to_str().unwrap().to_string())
                .collect(),
            ..Python::default()
        }
    }

    fn found(&self, folders: &[&str], first: Option<&str>) -> Distribution {
        let python = self.python(folders);
        let mut found = wheels::distributions(&python.site_packages);
        let first = first.map(|name| self.path(name));
        inspect(&mut found, &["torch"], &python, first.as_deref());
        found.into_iter().find(|dist| dist.name == "torch").unwrap()
    }

    fn hidden(&self, folders: &[&str]) -> Vec<String> {
        let root = self.path("").to_str().unwrap().to_string();
        let hidden = self.found(folders, None).hidden_by;
        hidden.iter().map(|path| path.replace(&root, "")).collect()
    }
}

const METADATA: (&str, &str) = (
    "lib/p/torch-2.5.0.dist-info/METADATA",
    "Name: torch\nVersion: 2.5.0\n",
);
const RECORD: &str = "lib/p/torch-2.5.0.dist-info/RECORD";

fn torch(record: &str, files: &[&str]) -> Site {
    let mut all = vec![METADATA, (RECORD, record)];
    all.extend(files.iter().map(|name| (*name, "")));
    Site::new().with(&all)
}

#[test]
fn what_record_lists_and_is_not_there() {
    let record = "torch/__init__.py,h,1\ntorch/_C.so,h,1\ntorch/lib/a.so.1,h,1\ntorch/b.py,h,1\n\
                  ../../bin/c.so,h,1\n../../../../d.so,h,1\n/e.so,h,1\n";
    let dist = torch(record, &["lib/p/torch/_C.so"]).found(&["lib/p"], None);
    assert_eq!(
        dist.missing,
        ["torch/__init__.py", "torch/lib/a.so.1", "../../bin/c.so"]
    );
    assert_eq!(dist.missing_count, 3);
    let whole = [
        "lib/p/torch/_C.so",
        "lib/p/torch/lib/a.so.1",
        "lib/p/torch/__init__.py",
        "bin/c.so",
    ];
    let dist = torch(record, &whole).found(&["lib/p"], None);
    assert_eq!((dist.missing, dist.missing_count), (vec![], 0));
}

#[test]
fn only_the_first_few_are_named() {
    let record: String = (0..100).map(|n| format!("torch/lib{n}.so,h,1\n")).collect();
    let dist = torch(&record, &[]).found(&["lib/p"], None);
    assert_eq!((dist.missing.len(), dist.missing_count), (MAX_NAMED, 100));
}

#[test]
fn what_is_compiled_or_a_link_is_there() {
    let site = torch(
        "torch/__init__.py,h,1\ntorch/a.so,h,1\ntorch/b.so,h,1\n",
        &["lib/p/torch/__init__.pyc", "lib/real"],
    );
    std::os::unix::fs::symlink("../../real", site.path("lib/p/torch/a.so")).unwrap();
    std::os::unix::fs::symlink("../../gone", site.path("lib/p/torch/b.so")).unwrap();
    assert_eq!(site.found(&["lib/p"], None).missing, ["torch/b.so"]);
}

#[test]
fn without_a_record_of_pip_nothing_is_missed() {
    let site = Site::new().with(&[METADATA]);
    assert_eq!(site.found(&["lib/p"], None).missing_count, 0);
    let conda =
        torch("torch/lib/a.so,h,1\n", &[]).with(&[("lib/p/torch-2.5.0.dist-info/INSTALLER", "conda\n")]);
    assert_eq!(conda.found(&["lib/p"], None).missing_count, 0);
    let huge = torch("torch/lib/a.so,h,1\n", &[]);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(huge.path(RECORD))
        .unwrap();
    file.set_len(100 << 20).unwrap();
    assert_eq!(huge.found(&["lib/p"], None).missing_count, 0);
}

#[test]
fn others_than_the_stacks_are_not_looked_at() {
    let site = torch("", &[]).with(&[
        ("lib/p/six-1.dist-info/METADATA", "Name: six\nVersion: 1\n"),
        ("lib/p/six-1.dist-info/RECORD", "six/__init__.py,h,1\n"),
    ]);
    let python = site.python(&["lib/p"]);
    let mut found = wheels::distributions(&python.site_packages);
    inspect(&mut found, &["torch"], &python, None);
    assert!(found.iter().all(|dist| dist.missing_count == 0), "{found:?}");
}

#[test]
fn an_earlier_folder_hides_by_a_package_a_module_or_a_library() {
    for (file, hides) in [
        ("a/torch/__init__.py", true),
        ("a/torch/__init__.pyc", true),
        ("a/torch.py", true),
        ("a/torch.so", true),
        ("a/torch.abi3.so", true),
        ("a/torch.cpython-311-x86_64-linux-gnu.so", true),
        ("a/torch.cpython-310-x86_64-linux-gnu.so", false),
        ("a/torch_scatter.so", false),
        // A namespace loses against any package behind it.
        ("a/torch/other.py", false),
        ("a/torch/", false),
        ("a/torch.pyi", false),
    ] {
        let site = torch(
            "torch/__init__.py,h,1\n",
            &["lib/p/torch/__init__.py", "a/x", file],
        );
        let expected = if hides { vec![file.to_string()] } else { vec![] };
        assert_eq!(site.hidden(&["a", "lib/p"]), expected, "{file}");
        assert_eq!(site.hidden(&["lib/p", "a"]), [""; 0], "{file}");
    }
}

#[test]
fn the_services_first_folder_counts() {
    let site = torch(
        "torch/__init__.py,h,1\n",
        &["lib/p/torch/__init__.py", "app/torch.py"],
    );
    assert_eq!(site.found(&["lib/p"], Some("app")).hidden_by.len(), 1);
    assert_eq!(site.found(&["lib/p"], Some("lib/p")).hidden_by, [""; 0]);
}

#[test]
fn import_names_are_records_or_top_levels_or_its_own() {
    let top_level = ("lib/p/torch-2.5.0.dist-info/top_level.txt", "other\nnvidia\n");
    let files = [
        ("lib/p/torch/__init__.py", ""),
        ("lib/p/other/__init__.py", ""),
        ("lib/p/nvidia/__init__.py", ""),
        ("a/other/__init__.py", ""),
        ("a/torch/__init__.py", ""),
        ("a/nvidia/__init__.py", ""),
    ];
    let site = torch("torch/__init__.py,h,1\n", &[])
        .with(&files)
        .with(&[top_level]);
    assert_eq!(site.hidden(&["a", "lib/p"]), ["a/torch/__init__.py"]);
    let site = torch("", &[]).with(&files).with(&[top_level]);
    assert_eq!(site.hidden(&["a", "lib/p"]), ["a/other/__init__.py"]);
    let site = torch("", &[]).with(&files);
    assert_eq!(site.hidden(&["a", "lib/p"]), ["a/torch/__init__.py"]);
    // NVIDIA's shared package is empty, and is searched for in all folders.
    let site = torch("nvidia/__init__.py,h,0\n", &[]).with(&files);
    assert_eq!(site.hidden(&["a", "lib/p"]), [""; 0]);
}

#[test]
fn an_editable_install_and_a_link_to_the_same_hide_nothing() {
    let site = torch("__editable__.torch.pth,h,1\n", &["src/torch/__init__.py"]);
    assert_eq!(site.hidden(&["src", "lib/p"]), [""; 0]);
    let site = torch("torch/__init__.py,h,1\n", &["lib/p/torch/__init__.py", "a/x"]);
    std::os::unix::fs::symlink("../lib/p/torch", site.path("a/torch")).unwrap();
    assert_eq!(site.hidden(&["a", "lib/p"]), [""; 0]);
}
