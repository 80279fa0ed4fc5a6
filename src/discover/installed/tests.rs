use super::*;
use std::fs;

use crate::discover::wheels;
use crate::facts::FileOwner;

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

fn owned(metadata: &[(&str, &str, &str)], files: &[(&str, &str)]) -> Vec<(String, u64, Vec<String>)> {
    let mut all = Vec::new();
    for (name, version, record) in metadata {
        let folder = format!("lib/p/{}-{version}.dist-info", name.replace('-', "_"));
        all.push((
            format!("{folder}/METADATA"),
            format!("Name: {name}\nVersion: {version}\n"),
        ));
        all.push((format!("{folder}/RECORD"), (*record).to_string()));
    }
    all.extend(
        files
            .iter()
            .map(|(name, text)| (format!("lib/p/{name}"), (*text).to_string())),
    );
    let all: Vec<(&str, &str)> = all
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let site = Site::new().with(&all);
    let python = site.python(&["lib/p"]);
    let mut found = wheels::distributions(&python.site_packages);
    let root = format!("{}/", python.site_packages[0]);
    let named = |owner: FileOwner| format!("{} {} {:?}", owner.name, owner.version, owner.size);
    inspect(&mut found, &["torch"], &python, None)
        .into_iter()
        .map(|file| {
            let owners = file.owners.into_iter().map(named).collect();
            (file.path.replace(&root, ""), file.size, owners)
        })
        .collect()
}

#[test]
fn a_library_of_two_distributions_has_both_sizes() {
    let nccl = "nvidia/nccl/lib/libnccl.so.2";
    let line = |hash: &str, size: &str| format!("{nccl},sha256={hash},{size}\nnvidia/__init__.py,x,0\n");
    let found = |first: &str, second: &str| {
        let both = [
            ("nvidia-nccl-cu12", "2.21.5", first),
            ("nvidia-nccl-cu13", "2.30.7", second),
        ];
        owned(&both, &[(nccl, "12345")])
    };
    let expected = vec![
        "nvidia-nccl-cu12 2.21.5 Some(5)".into(),
        "nvidia-nccl-cu13 2.30.7 Some(7)".into(),
    ];
    assert_eq!(
        found(&line("a", "5"), &line("b", "7")),
        [(nccl.into(), 5, expected)]
    );
    // The same contents, whoever installed them.
    assert_eq!(found(&line("a", "5"), &line("a", "5")), []);
    // Sizes that are not stated.
    let unstated = vec![
        "nvidia-nccl-cu12 2.21.5 None".into(),
        "nvidia-nccl-cu13 2.30.7 None".into(),
    ];
    assert_eq!(found(&line("", ""), &line("", "")), [(nccl.into(), 5, unstated)]);
}

#[test]
fn a_size_that_is_not_records_counts_for_the_stacks_and_nvidias() {
    let one = |name: &str, library: &str, size: &str| {
        let record = format!("{library},sha256=a,{size}\n");
        owned(&[(name, "1", record.as_str())], &[(library, "12345")]).len()
    };
    assert_eq!(one("torch", "torch/lib/a.so", "6"), 1);
    assert_eq!(one("nvidia-nccl-cu12", "nvidia/nccl/lib/libnccl.so.2", "6"), 1);
    assert_eq!(one("torch", "torch/lib/a.so", "5"), 0);
    assert_eq!(one("torch", "torch/lib/a.so", ""), 0);
    assert_eq!(one("scipy", "scipy/a.so", "6"), 0);
    // Out of the environment, or not there.
    let outside = "../../../../../../../../etc/hostname,sha256=a,6\n";
    assert_eq!(owned(&[("torch", "1", outside)], &[]).len(), 0);
}
