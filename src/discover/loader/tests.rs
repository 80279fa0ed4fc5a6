use super::*;

fn listed(name: &str, path: Option<&str>) -> Listed {
    Listed {
        name: name.into(),
        path: path.map(Into::into),
    }
}

/// glibc 2.36, Debian 12.
const DEBIAN_12: &str = "\tlinux-vdso.so.1 (0x00007f63178ac000)
\t/sp/torch_scatter/_scatter_cuda.so (0x00007f631789f000)
\tlibpython3.11.so.1.0 => /usr/lib/libpython3.11.so.1.0 (0x00007f6317200000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f631701e000)
\tlibcudart.so.12 => /sp/torch_scatter/../nvidia/cuda_runtime/lib/libcudart.so.12 (0x00007f6317891000)
\tlibc10.so => not found
\t/lib64/ld-linux-x86-64.so.2 (0x00007f63178ae000)
";

/// glibc 2.17, CentOS 7: the vdso has an arrow and no file.
const CENTOS_7: &str = "\tlinux-vdso.so.1 =>  (0x00007ffd3b1f9000)
\tlibrt.so.1 => /lib64/librt.so.1 (0x00007fea7a7b2000)
\tlibc10.so => not found
\t/lib64/ld-linux-x86-64.so.2 (0x00007fea7ad17000)
";

/// glibc 2.31, Ubuntu 20.04.
const UBUNTU_20: &str = "\tlinux-vdso.so.1 (0x00007ffc2c9d5000)
\tlibdl.so.2 => /lib/x86_64-linux-gnu/libdl.so.2 (0x00007f0b3e5b3000)
\tlibgomp-a34b3233.so.1 => /sp/torch/lib/libgomp-a34b3233.so.1 (0x00007f0b3d000000)
";

#[test]
fn lists_of_real_loaders() {
    let names = |text: &str| {
        let objects = parse(text.as_bytes(), b"").objects;
        objects.into_iter().map(|o| (o.name, o.path)).collect::<Vec<_>>()
    };
    let some = |path: &str| Some(path.to_string());
    let cudart = "/sp/torch_scatter/../nvidia/cuda_runtime/lib/libcudart.so.12";
    let expected = [
        (
            "/sp/torch_scatter/_scatter_cuda.so",
            some("/sp/torch_scatter/_scatter_cuda.so"),
        ),
        ("libpython3.11.so.1.0", some("/usr/lib/libpython3.11.so.1.0")),
        ("libc.so.6", some("/lib/x86_64-linux-gnu/libc.so.6")),
        ("libcudart.so.12", some(cudart)),
        ("libc10.so", None),
        ("/lib64/ld-linux-x86-64.so.2", some("/lib64/ld-linux-x86-64.so.2")),
    ];
    assert_eq!(
        names(DEBIAN_12),
        expected.map(|(name, path)| (name.to_string(), path))
    );
    assert_eq!(
        parse(CENTOS_7.as_bytes(), b"").objects,
        [
            listed("librt.so.1", Some("/lib64/librt.so.1")),
            listed("libc10.so", None),
            listed("/lib64/ld-linux-x86-64.so.2", Some("/lib64/ld-linux-x86-64.so.2")),
        ]
    );
    assert_eq!(
        parse(UBUNTU_20.as_bytes(), b"").objects,
        [
            listed("libdl.so.2", Some("/lib/x86_64-linux-gnu/libdl.so.2")),
            listed(
                "libgomp-a34b3233.so.1",
                Some("/sp/torch/lib/libgomp-a34b3233.so.1")
            ),
        ]
    );
    assert_eq!(parse(b"\tstatically linked\n", b""), Listing::default());
}

#[test]
fn complaints_of_real_loaders() {
    let said = "\
/usr/bin/python3.11: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /sp/mod.so)
python3: /lib64/libstdc++.so.6: version 'GLIBCXX_3.4.32' not found (required by /sp/mod.so)
python3: /lib64/libx.so: weak version `X_1' not found (required by /sp/mod.so)
python3: /lib64/libx.so: no version information available (required by /sp/mod.so)
ERROR: ld.so: object '/sp/mod.so' from LD_PRELOAD cannot be preloaded (file too short): ignored.
ERROR: ld.so: object '/sp/old.so' from LD_PRELOAD cannot be preloaded: ignored.
ERROR: ld.so: object 'libcuda.so.1' from LD_PRELOAD cannot be preloaded (cannot open shared object file): ignored.
python3: error while loading shared libraries: /x/liby.so.1: invalid ELF header
";
    let listing = parse(b"", said.as_bytes());
    let missing = |library: &str, version: &str| MissingVersion {
        library: library.into(),
        version: version.into(),
        required_by: "/sp/mod.so".into(),
    };
    assert_eq!(
        listing.missing_versions,
        [
            missing("/lib/x86_64-linux-gnu/libc.so.6", "GLIBC_2.38"),
            missing("/lib64/libstdc++.so.6", "GLIBCXX_3.4.32"),
        ]
    );
    let refusals: Vec<_> = refusals(&listing)
        .into_iter()
        .map(|r| format!("{}: {}", r.path, r.reason))
        .collect();
    assert_eq!(
        refusals,
        [
            "/sp/mod.so: file too short",
            "/sp/old.so: it cannot be preloaded",
            "/x/liby.so.1: invalid ELF header",
        ]
    );
}

#[test]
fn what_is_no_line_of_the_loader_is_skipped() {
    for text in [
        "",
        "\n",
        "\t",
        "Python 3.11.7\n",
        "\t => \n",
        "\tx => \n",
        "\tx => /y\n",
        "\tx => /y (0xzz)\n",
        "\tx => /y (0x12\n",
        "\t (0x12)\n",
        "\t => /y (0x12)\n",
        "x => /y (0x12)\n",
        "\tx => not found \n",
        "\t\u{1b}[2J\n",
    ] {
        assert_eq!(
            parse(text.as_bytes(), text.as_bytes()),
            Listing::default(),
            "{text:?}"
        );
    }
    for text in [
        ": version ",
        ": version \u{e9}' not found (required by ",
        "a: version `V' not found (required by b",
        "ERROR: ld.so: object '",
        "ERROR: ld.so: object 'x' from LD_PRELOAD",
        "python3: error while loading shared libraries: x",
    ] {
        assert_eq!(parse(b"", text.as_bytes()), Listing::default(), "{text:?}");
    }
}

#[test]
fn bytes_that_are_no_text_and_floods_are_bounded() {
    let odd = parse(b"\t/sp/\xff\x1b.so (0x12)\n", b"\xff\xfe: version \xff");
    assert_eq!(
        odd.objects,
        [listed("/sp/\u{fffd}\u{1b}.so", Some("/sp/\u{fffd}\u{1b}.so"))]
    );
    let flood = "\tx => not found\n".repeat(MAX_OBJECTS + 1);
    assert_eq!(parse(flood.as_bytes(), b"").objects.len(), MAX_OBJECTS);
    let complaints: String = (0..200)
        .map(|n| format!("p: l: version `V{n}' not found (required by m)\n"))
        .collect();
    assert_eq!(
        parse(b"", complaints.as_bytes()).missing_versions.len(),
        MAX_COMPLAINTS
    );
    assert_eq!(
        parse(b"", complaints.repeat(2).as_bytes()).missing_versions.len(),
        MAX_COMPLAINTS
    );
    let twice = "p: l: version `V' not found (required by m)\n".repeat(2);
    assert_eq!(parse(b"", twice.as_bytes()).missing_versions.len(), 1);
}
