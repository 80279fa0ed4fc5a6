//! Libraries that nobody lists: what they ask of torch and of CUDA, as their own symbols say.

use super::*;

const CHECK_FAIL: &str =
    "_ZN3c106detail14torchCheckFailEPKcS2_jRKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE";
const ERROR: &str =
    "_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE";

/// A library of these symbols, whatever their names hold.
fn defines(path: &Path, soname: &str, symbols: &[&str]) {
    let mut source = String::from("int here;\n");
    for (at, symbol) in symbols.iter().enumerate() {
        source += &format!("void f{at}(void) __asm__(\"{symbol}\");\nvoid f{at}(void) {{}}\n");
    }
    let soname = format!("-Wl,-soname,{soname}");
    cc(path, &source, &[OsStr::new(&soname)]);
}

/// A library that needs others and asks for these symbols.
fn asks(path: &Path, needed: &[&Path], symbols: &[&str], flags: &[&str]) {
    let mut source = String::new();
    for (at, symbol) in symbols.iter().enumerate() {
        source += &format!("void f{at}(void) __asm__(\"{symbol}\");\nvoid *p{at} = f{at};\n");
    }
    let mut arguments = vec![OsStr::new("-Wl,--no-as-needed")];
    arguments.extend(needed.iter().map(|path| path.as_os_str()));
    arguments.extend(flags.iter().map(OsStr::new));
    cc(path, &source, &arguments);
}

impl Image {
    /// torch, whose libc10.so defines these symbols.
    fn torch(&mut self, symbols: &[&str]) -> PathBuf {
        self.install("torch");
        self.nvidia("12.4");
        let libc10 = self.site.join("torch/lib/libc10.so");
        defines(&libc10, "libc10.so", symbols);
        libc10
    }

    fn nccl(&self, symbols: &[&str]) -> PathBuf {
        let path = self.site.join("nvidia/nccl/lib/libnccl.so.2");
        defines(&path, "libnccl.so.2", symbols);
        path
    }
}

fn message_of(said: &Said) -> String {
    let finding = said.findings("undefined-symbol")[0];
    format!(
        "{} [{}]",
        finding["message"].as_str().unwrap(),
        finding["observed"].as_str().unwrap()
    )
}

#[test]
fn a_module_of_any_name_that_was_built_for_another_torch_fails() {
    let mut image = Image::new();
    let libc10 = image.torch(&[CHECK_FAIL, ERROR]);
    let module = image.site.join("own_ops/deep/_C_stable.abi3.so");
    asks(&module, &[&libc10], &[CHECK_FAIL, "aoti_torch_new_in_2_9"], &[]);
    let said = image.check(&[]);
    assert_eq!(said.of("undefined-symbol"), [("fail", "own_ops")]);
    assert_eq!(said.report["exit_code"], 81);
    let message = message_of(&said);
    for part in [
        "is built for another torch",
        module.to_str().unwrap(),
        "aoti_torch_new_in_2_9",
    ] {
        assert!(message.contains(part), "{message}");
    }
    asks(&module, &[&libc10], &[CHECK_FAIL, ERROR], &[]);
    let said = image.check(&[]);
    assert_eq!(said.of("undefined-symbol"), [("pass", "libraries")]);
    assert_eq!(said.report["exit_code"], 0, "{:#}", said.report["findings"]);
}

#[test]
fn the_other_abi_is_named() {
    let mut image = Image::new();
    let libc10 = image.torch(&[CHECK_FAIL, ERROR]);
    let module = image.site.join("own_ops.so");
    asks(
        &module,
        &[&libc10],
        &["_ZN3c106detail14torchCheckFailEPKcS2_jRKSs"],
        &[],
    );
    let message = message_of(&image.check(&[]));
    assert!(
        message.contains("C++ ABI before C++11") && message.contains("c10::detail::torchCheckFail"),
        "{message}"
    );
}

#[test]
fn symbols_of_others_weak_ones_and_those_of_the_package_itself_are_not_missed() {
    let mut image = Image::new();
    let libc10 = image.torch(&[CHECK_FAIL]);
    // Its own library, which the package opens with RTLD_GLOBAL.
    defines(
        &image.site.join("own/lib/libown.so"),
        "libown.so",
        &["_ZN2at3ownEv"],
    );
    let module = image.site.join("own/_C.so");
    asks(
        &module,
        &[&libc10],
        &[
            CHECK_FAIL,
            "_ZN2at3ownEv",
            "PyModule_Create2",
            "_ZN3own3runERKN2at6TensorE",
        ],
        &[],
    );
    // Needs no torch: whoever opens it brings the symbols along.
    asks(&image.site.join("own/_plugin.so"), &[], &["_ZN3c104noneEv"], &[]);
    let weak = "extern int f(void) __asm__(\"_ZTHN2at4noneE\") __attribute__((weak)); void *p = f;\n";
    cc(
        &image.site.join("own/_weak.so"),
        weak,
        &[OsStr::new("-Wl,--no-as-needed"), libc10.as_os_str()],
    );
    // Python does not look at it.
    asks(
        &image.site.join("own/_D.cpython-34-x86_64-linux-gnu.so"),
        &[&libc10],
        &["_ZN3c104noneEv"],
        &[],
    );
    let said = image.check(&[]);
    assert_eq!(
        said.of("undefined-symbol"),
        [("pass", "libraries")],
        "{:#}",
        said.report["findings"]
    );
    assert_eq!(said.report["exit_code"], 0, "{:#}", said.report["findings"]);
}

#[test]
fn one_of_several_alternatives_is_enough() {
    let mut image = Image::new();
    let libc10 = image.torch(&[CHECK_FAIL]);
    for (name, symbol) in [
        ("_C_pt24.so", "_ZN3c103oldEv"),
        ("_C_pt25.so", CHECK_FAIL),
        ("_C_pt26.so", "_ZN3c103newEv"),
    ] {
        asks(&image.site.join("own").join(name), &[&libc10], &[symbol], &[]);
    }
    assert_eq!(image.check(&[]).of("undefined-symbol"), [("pass", "libraries")]);
    fs::remove_file(image.site.join("own/_C_pt25.so")).unwrap();
    let said = image.check(&[]);
    assert_eq!(said.of("undefined-symbol"), [("warn", "own")]);
    let message = message_of(&said);
    assert!(
        message.contains("own has 2 libraries for other releases of torch"),
        "{message}"
    );
}

/// pip replaces the files of nvidia-nccl-cu12 by those of another package.
#[test]
fn an_older_library_in_the_place_of_the_wheels_fails_with_the_library() {
    let mut image = Image::new();
    let libc10 = image.torch(&[]);
    let nccl = image.nccl(&["ncclCommInitAll", "ncclCommDeregister"]);
    let module = libc10.with_file_name("libtorch_cuda.so");
    asks(
        &module,
        &[&libc10, &nccl],
        &["ncclCommInitAll", "ncclCommDeregister"],
        &[],
    );
    assert_eq!(image.check(&[]).of("undefined-symbol"), [("pass", "libraries")]);
    image.nccl(&["ncclCommInitAll"]);
    let said = image.check(&[]);
    assert_eq!(said.of("undefined-symbol"), [("fail", "torch")]);
    let message = message_of(&said);
    assert!(
        message.contains("ncclCommDeregister") && message.contains("no installed libnccl.so.2"),
        "{message}"
    );
    // Another copy may be the one that is loaded.
    let other = image.path("nccl/libnccl.so.2");
    defines(&other, "libnccl.so.2", &["ncclCommInitAll", "ncclCommDeregister"]);
    let said = image.check_with_library_path(other.parent().unwrap());
    assert_eq!(said.of("undefined-symbol"), [("pass", "libraries")]);
    assert_eq!(
        said.report["facts"]["image"]["extensions"]["outside"],
        json!([other])
    );
    let flag = format!("-Wl,-rpath,{}", other.parent().unwrap().display());
    asks(&module, &[&libc10, &nccl], &["ncclCommDeregister"], &[&flag]);
    assert_eq!(image.check(&[]).of("undefined-symbol"), [("pass", "libraries")]);
}

#[test]
fn a_library_that_is_nowhere_counts_where_the_package_has_no_other_way() {
    let mut image = Image::new();
    image.torch(&[]);
    let cudart = image.path("libcudart.so.11.0");
    defines(&cudart, "libcudart.so.11.0", &["cudaMalloc"]);
    asks(&image.site.join("own/_C.so"), &[&cudart], &["cudaMalloc"], &[]);
    let said = image.check(&[]);
    let told = |said: &Said| -> Vec<(String, String)> {
        let all = said.of("library-missing").into_iter();
        let all = all.filter(|(_, subject)| *subject != "loader");
        all.map(|(status, subject)| (status.into(), subject.into()))
            .collect()
    };
    assert_eq!(told(&said), [("warn".to_string(), "own".to_string())]);
    image.install("own");
    assert_eq!(told(&image.check(&[])), [("fail".to_string(), "own".to_string())]);
    let message = said
        .findings("library-missing")
        .into_iter()
        .find(|f| f["subject"] == "own")
        .unwrap();
    assert!(
        message["hint"]
            .as_str()
            .unwrap()
            .contains("nvidia-cuda-runtime-cu11"),
        "{message:#}"
    );
    // An optional part.
    let nccl = image.nccl(&["ncclCommInitAll"]);
    asks(&image.site.join("own/_D.so"), &[&nccl], &["ncclCommInitAll"], &[]);
    let said = image.check(&[]);
    assert_eq!(told(&said), [("info".to_string(), "own".to_string())]);
    assert_eq!(said.report["exit_code"], 0, "{:#}", said.report["findings"]);
}

/// ctranslate2 has no library of CUDA's in its dynamic section, and opens libcublas by a name that stands in it.
#[test]
fn a_library_that_is_opened_by_a_name_that_stands_in_the_package_is_looked_for() {
    let mut image = Image::new();
    image.install("own");
    let kernels =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kernels/nvcc-13.5/plain.nv_fatbin");
    let source = |name: &str| {
        format!(
            "extern void *dlopen(const char *, int);\nvoid *own(void) {{ return dlopen(\"{name}\", 1); }}\n\
             __asm__(\".section .nv_fatbin, \\\"a\\\"\\n.incbin \\\"{}\\\"\\n.text\");\n",
            kernels.display()
        )
    };
    let module = image.site.join("own/libown.so");
    let told = |said: &Said| -> Vec<(String, String)> {
        let all = said.of("library-missing").into_iter();
        let all = all.filter(|(_, subject)| *subject == "own");
        all.map(|(status, subject)| (status.into(), subject.into()))
            .collect()
    };
    // NCCL is optional wherever it is opened by name.
    cc(&module, &source("libnccl.so.2"), &[]);
    assert_eq!(told(&image.check(&[])), []);
    cc(&module, &source("libcublas.so.77"), &[]);
    let said = image.check(&[]);
    assert_eq!(told(&said), [("fail".to_string(), "own".to_string())]);
    assert_eq!(said.report["exit_code"], 81);
    // In a wheel's folder, where the loader does not look.
    let cublas = image.site.join("nvidia/cublas/lib/libcublas.so.77");
    defines(&cublas, "libcublas.so.77", &["cublasCreate_v2"]);
    let said = image.check(&[]);
    assert_eq!(told(&said), [("warn".to_string(), "own".to_string())]);
    let finding = said
        .findings("library-missing")
        .into_iter()
        .find(|f| f["subject"] == "own")
        .unwrap()
        .clone();
    let folder = cublas.parent().unwrap().to_str().unwrap();
    assert!(finding["hint"].as_str().unwrap().contains(folder), "{finding:#}");
    let path = [("LD_LIBRARY_PATH", OsStr::new(folder))];
    assert_eq!(told(&image.check(&path)), []);
    // A copy of one library is none of another that is nowhere.
    cc(&module, &source("libcublas.so.77\\0libcufft.so.66"), &[]);
    assert_eq!(told(&image.check(&[])), [("fail".to_string(), "own".to_string())]);
    // Beside it, where its RPATH leads; and by what torch needs.
    cc(
        &module,
        &source("libcublas.so.77"),
        &["-Wl,-rpath,$ORIGIN/../nvidia/cublas/lib"].map(OsStr::new),
    );
    assert_eq!(told(&image.check(&[])), []);
    cc(&module, &source("libcublas.so.77"), &[]);
    image.torch(&[]);
    asks(
        &image.site.join("torch/lib/libtorch_cuda.so"),
        &[&cublas],
        &["cublasCreate_v2"],
        &[],
    );
    assert_eq!(told(&image.check(&[])), []);
}

#[test]
fn what_is_accepted_starts() {
    let mut image = Image::new();
    let libc10 = image.torch(&[]);
    asks(
        &image.site.join("own/_C.so"),
        &[&libc10],
        &["_ZN3c104noneEv"],
        &[],
    );
    for key in ["package", "library"] {
        let name = if key == "package" { "own" } else { "_C.so" };
        image.accept = json!([{"code": "undefined-symbol", key: name, "reason": "RTLD_GLOBAL"}]);
        let said = image.check(&[]);
        assert_eq!(said.of("undefined-symbol"), [("info", "own")]);
        assert_eq!(said.report["exit_code"], 0);
    }
}

/// torchtext's `_torchtext.so` needs its own libtorchtext.so, which asks torch.
#[test]
fn what_needs_an_unresolved_library_of_its_own_cannot_be_loaded_either() {
    let mut image = Image::new();
    let libc10 = image.torch(&[CHECK_FAIL]);
    let library = image.site.join("own/lib/libown.so");
    asks(
        &library,
        &[&libc10],
        &["_ZN3c104noneEv"],
        &["-Wl,-soname,libown.so"],
    );
    let flag = "-Wl,--unresolved-symbols=ignore-all";
    asks(
        &image.site.join("own/_own.so"),
        &[&libc10, &library],
        &[CHECK_FAIL],
        &[flag],
    );
    assert_eq!(image.check(&[]).of("undefined-symbol"), [("fail", "own")]);
    // Another part of it can be.
    asks(&image.site.join("own/_other.so"), &[&libc10], &[CHECK_FAIL], &[]);
    assert_eq!(image.check(&[]).of("undefined-symbol"), [("warn", "own")]);
}

/// Without section headers nobody can tell its symbols, and it does not count as one that finds them.
#[test]
fn what_cannot_be_read_is_unknown() {
    let mut image = Image::new();
    let libc10 = image.torch(&[]);
    let module = image.site.join("own/_C.so");
    asks(&module, &[&libc10], &["_ZN3c104noneEv"], &[]);
    let mut bytes = fs::read(&module).unwrap();
    bytes[0x28..0x30].fill(0); // e_shoff
    bytes[0x3a..0x40].fill(0); // e_shentsize, e_shnum, e_shstrndx
    fs::write(&module, bytes).unwrap();
    let said = image.check(&[]);
    assert_eq!(said.of("undefined-symbol"), [("unknown", "libraries")]);
    let unread = &said.report["facts"]["image"]["extensions"]["unread"];
    assert_eq!(unread, &json!([module]));
}

/// NVIDIA's libnvJitLink.so.12 has the older kind of hash table alone.
#[test]
fn nvidias_libraries_of_two_releases_fail_by_the_symbol_that_is_not_there() {
    const OLD: &str = "__nvJitLinkAddData_12_4";
    const NEW: &str = "__nvJitLinkAddData_12_9";
    let mut image = Image::new();
    image.install("nvidia-cusparse-cu12");
    image.install("nvidia-nvjitlink-cu12");
    let nvjitlink = image.site.join("nvidia/nvjitlink/lib/libnvJitLink.so.12");
    let of_release = |symbols: &[&str]| {
        let mut source = String::new();
        for (at, symbol) in symbols.iter().enumerate() {
            source += &format!("void f{at}(void) __asm__(\"{symbol}\");\nvoid f{at}(void) {{}}\n");
        }
        let flags = ["-Wl,-soname,libnvJitLink.so.12", "-Wl,--hash-style=sysv"];
        cc(&nvjitlink, &source, &flags.map(OsStr::new));
    };
    of_release(&[OLD, NEW]);
    let cusparse = image.site.join("nvidia/cusparse/lib/libcusparse.so.12");
    asks(
        &cusparse,
        &[&nvjitlink],
        &[OLD, NEW],
        &["-Wl,-rpath,$ORIGIN/../../nvjitlink/lib"],
    );
    assert_eq!(image.check(&[]).of("undefined-symbol"), [("pass", "libraries")]);
    of_release(&[OLD]);
    let said = image.check(&[]);
    assert_eq!(said.of("undefined-symbol"), [("fail", "nvidia-cusparse-cu12")]);
    let message = message_of(&said);
    assert!(
        message.contains(NEW) && message.contains("no installed libnvJitLink.so.12"),
        "{message}"
    );
}
