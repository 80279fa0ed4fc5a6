use std::fs;

use super::*;

/// Makes these files below a site-packages, with a `.dist-info` of the distribution whose RECORD lists them, and asks.
fn names(dist: &str, files: &[&str], libraries: &[&str], top_level: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let site = dir.path();
    for file in files.iter().chain(libraries) {
        let path = site.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    let info = site.join(format!("{}-1.0.dist-info", dist.replace('-', "_")));
    fs::create_dir_all(&info).unwrap();
    let lines: Vec<String> = files.iter().map(|file| format!("{file},sha256=x,1\n")).collect();
    fs::write(info.join("RECORD"), lines.concat()).unwrap();
    fs::write(info.join("top_level.txt"), top_level).unwrap();
    let dist = Distribution {
        name: dist.to_string(),
        path: info.to_string_lossy().into_owned(),
        ..Distribution::default()
    };
    let paths: Vec<String> = libraries
        .iter()
        .map(|l| site.join(l).to_string_lossy().into_owned())
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    of(&dist, &paths)
}

#[test]
fn the_package_around_a_library_is_imported() {
    for (dist, files, libraries, expected) in [
        (
            "xgboost",
            &["xgboost/__init__.py"][..],
            &["xgboost/lib/libxgboost.so"][..],
            "xgboost",
        ),
        (
            "onnxruntime-gpu",
            &["onnxruntime/__init__.py"],
            &["onnxruntime/capi/x.so"],
            "onnxruntime",
        ),
        (
            "cupy-cuda12x",
            &["cupy/__init__.py", "cupyx/__init__.py"],
            &["cupy/cuda/cub.so", "cupy/random/x.so"],
            "cupy",
        ),
        // A namespace, which has no file of its own.
        (
            "jax-cuda12-pjrt",
            &["jax_plugins/xla_cuda12/__init__.py"],
            &["jax_plugins/xla_cuda12/plugin.so"],
            "jax_plugins.xla_cuda12",
        ),
        (
            "PyNvVideoCodec",
            &["PyNvVideoCodec/__init__.py"],
            &["PyNvVideoCodec/x.so"],
            "PyNvVideoCodec",
        ),
        // The module beside the package loads nothing by itself.
        (
            "mamba-ssm",
            &["mamba_ssm/__init__.py"],
            &["selective_scan_cuda.cpython-311-x86_64-linux-gnu.so"],
            "mamba_ssm",
        ),
        // auditwheel's folder is not a package.
        (
            "faiss-gpu",
            &["faiss/__init__.py"],
            &["faiss_gpu.libs/libfaiss-1.so"],
            "faiss",
        ),
        (
            "own",
            &[],
            &["own_ext.cpython-311-x86_64-linux-gnu.so"],
            "own_ext",
        ),
    ] {
        assert_eq!(names(dist, files, libraries, ""), [expected], "{dist}");
    }
}

#[test]
fn top_level_names_count_where_record_lists_no_package() {
    let empty = "empty/__init__.py";
    assert_eq!(
        names("thing", &[empty], &["data/x.so"], "empty\nmissing\n\n"),
        ["empty"]
    );
    assert_eq!(names("thing", &[], &["data/x.so"], "../etc\n"), [""; 0]);
}
