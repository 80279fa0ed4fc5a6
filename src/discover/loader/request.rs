//! How the image's loader is asked, so that nothing of the image runs.
//!
//! The interpreter is started under `LD_TRACE_LOADED_OBJECTS`, which glibc's loader obeys and others ignore: musl's
//! would go on and start Python. So the loader is looked at first, and as a second line of defence Python is asked for
//! its version only, which it tells before it imports anything.

use std::ffi::CString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::discover::bytes::RandomFile;
use crate::discover::elf::Kind;
use crate::discover::{elf, files, named_libraries};
use crate::facts::{NamedLibraries, Python, RefusedObject};
use crate::order;
use crate::packages::{self, Package};
use crate::processor::OWN;
use crate::stack::{SmokeEntry, Stack};

/// The driver's library. It is asked for last: whatever the modules bring along themselves comes first.
pub const DRIVER: &str = "libcuda.so.1";

/// A run of the loader, ready to be started.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Request {
    /// the program with symbolic links followed, as the loader expands `$ORIGIN`: the interpreter, or one of the manifest's
    /// libraries
    pub program: PathBuf,
    /// the loader that is started in the program's place, where the program would run or is a library
    pub loader: Option<PathBuf>,
    /// what is asked about, in the order of the imports
    pub modules: Vec<String>,
    /// what could not be asked
    pub notes: Vec<String>,
    /// the file of the manifest's libraries that it is about
    pub about: Option<String>,
    /// where the loader does not find all that a library needs: programs that may open it, with what they have loaded by then
    pub hosts: Vec<Request>,
    /// files that are known to be refused without a run
    pub refused: Vec<RefusedObject>,
    /// runs about other files, after this one
    pub others: Vec<Request>,
}

/// Whether the loader can be asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Asked {
    /// no module of the stack is installed
    #[default]
    Nothing,
    /// this is to be run
    Run(Request),
    /// it cannot be, for this reason
    Refused(String),
    /// files of the manifest's libraries need glibc's loader, which is not there
    NoLoader(String),
    /// nothing can be run, and these files are refused
    Broken(Vec<RefusedObject>),
}

/// What to ask about the manifest's packages, and about each file of its libraries.
pub fn ask(stack: &Stack, python: &Python, named: &[NamedLibraries]) -> Asked {
    let (mut files, refused) = match files(&named_libraries::paths(named)) {
        Ok(found) => found,
        Err(why) => return Asked::NoLoader(why),
    };
    let is_alone = !(files.is_empty() && refused.is_empty()) && is_without_python(stack);
    let of_python = match is_alone {
        true => Asked::Nothing,
        false => ask_python(stack, python),
    };
    match of_python {
        Asked::Run(mut request) => {
            // What is opened by this Python finds what its modules have loaded.
            for file in files.iter_mut().filter(|file| file.is_library()) {
                file.hosts.extend(request.with(file));
            }
            request.others = files;
            request.refused = refused;
            Asked::Run(request)
        }
        other if files.is_empty() => match refused.is_empty() {
            true => other,
            false => Asked::Broken(refused),
        },
        _ => {
            let mut first = files.remove(0);
            first.others = files;
            first.refused = refused;
            Asked::Run(first)
        }
    }
}

/// A run about each file that the loader has to do with, and those that it refuses.
///
/// # Errors
/// There are such files, and no loader of glibc.
fn files(paths: &[PathBuf]) -> Result<(Vec<Request>, Vec<RefusedObject>), String> {
    let (mut programs, mut libraries, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        let kind = elf::kind(path);
        // What needs nothing has nothing to be found.
        let dynamic = read(path).unwrap_or_default();
        match (kind, dynamic.interpreter) {
            (Some(Kind::Program), Some(interpreter)) if !Path::new(&interpreter).exists() => {
                refused.push(RefusedObject {
                    path: path.to_string_lossy().into_owned(),
                    reason: format!("the loader that it names, {interpreter}, does not exist"),
                });
            }
            (Some(Kind::Program), _) => programs.push(path),
            (Some(Kind::Library), _) if dynamic.needed.is_empty() && read(path).is_ok() => {}
            (Some(Kind::Library), _) => libraries.push(path),
            (Some(Kind::Static), _) => {}
            (None, _) => refused.extend(read(path).err().map(|reason| RefusedObject {
                path: path.to_string_lossy().into_owned(),
                reason,
            })),
        }
    }
    if programs.is_empty() && libraries.is_empty() {
        return Ok((Vec::new(), refused));
    }
    match is_glibcs(Path::new(OWN.loader)) {
        Ok(true) => {}
        Ok(false) => return Err(format!("{} is not glibc's", OWN.loader)),
        Err(why) => return Err(format!("{}: {why}", OWN.loader)),
    }
    let of_programs: Vec<Request> = programs.iter().filter_map(|path| of_file(path)).collect();
    let of_libraries = libraries.iter().filter_map(|path| {
        let mut request = of_file(path)?;
        request.hosts = of_programs
            .iter()
            .take(MOST_HOSTS)
            .filter_map(|host| host.with(&request))
            .collect();
        Some(request)
    });
    let of_libraries: Vec<Request> = of_libraries.collect();
    Ok((of_programs.into_iter().chain(of_libraries).collect(), refused))
}

/// Most programs that a library is tried with.
const MOST_HOSTS: usize = 8;

fn of_file(path: &Path) -> Option<Request> {
    let name = path.to_str()?.to_string();
    Some(Request {
        program: path.canonicalize().ok()?,
        loader: Some(PathBuf::from(OWN.loader)),
        modules: vec![name.clone()],
        about: Some(name),
        ..Request::default()
    })
}

fn ask_python(stack: &Stack, python: &Python) -> Asked {
    let mut modules = Vec::new();
    let mut notes = Vec::new();
    for module in modules_of(stack, python) {
        match module.to_str() {
            Some(text) if can_be_preloaded(text) => modules.push(text.to_string()),
            _ => notes.push(format!(
                "{}: a path with a blank, a colon or a dollar sign cannot be given to the loader",
                module.display()
            )),
        }
    }
    if modules.is_empty() && notes.is_empty() {
        return Asked::Nothing;
    }
    if modules.is_empty() {
        return Asked::Refused(notes.join("; "));
    }
    let Some(interpreter) = &python.interpreter else {
        return Asked::Refused("no interpreter is known, only the environment's directory".into());
    };
    match traceable(Path::new(interpreter)) {
        Ok(program) => Asked::Run(Request {
            program,
            modules,
            notes,
            ..Request::default()
        }),
        Err(why) => Asked::Refused(why),
    }
}

/// LD_PRELOAD is a list without any quoting, and `$` starts a token such as $LIB.
fn can_be_preloaded(path: &str) -> bool {
    !path.contains([' ', ':', '$', '\t', '\n'])
}

/// Whether nothing but libraries is asked about: a program that the service is, or that the manifest names, has them.
fn is_without_python(stack: &Stack) -> bool {
    let is_builtin = |entry: &SmokeEntry| matches!(entry, SmokeEntry::Builtin(_));
    stack.as_found
        || (stack.packages.is_empty() && stack.python.is_none() && !stack.smoke.iter().any(is_builtin))
}

/// The installed modules: torch's first, then in the order of the smoke, then those of other packages.
fn modules_of(stack: &Stack, python: &Python) -> Vec<PathBuf> {
    let smoke = stack.smoke.iter().filter_map(|entry| match entry {
        SmokeEntry::Builtin(builtin) => packages::proven_by(builtin.name()),
        SmokeEntry::Command { .. } | SmokeEntry::Native(_) => None,
    });
    let rules = stack.packages.iter().map(|rule| rule.normalized.as_str());
    let all = packages::PACKAGES.iter().filter(|_| stack.as_found);
    let mut wanted: Vec<&'static Package> = smoke.chain(rules.filter_map(packages::of)).chain(all).collect();
    // A stable sort: torch first, all others in their order.
    order::sort_by_key(&mut wanted, |package| package.name != "torch");
    let mut found: Vec<PathBuf> = Vec::new();
    let with_first = |package: &'static Package| {
        let first = package.imports_first.get().and_then(packages::of);
        first.into_iter().chain([package])
    };
    for package in wanted.into_iter().flat_map(with_first) {
        for (folder, stem) in package.modules.get().unwrap_or_default() {
            if let Some(path) = module(python, folder, stem)
                && !found.contains(&path)
            {
                found.push(path);
            }
        }
    }
    found
}

/// `STEM.so`, `STEM.abi3.so` or `STEM.cpython-311-….so`, for this interpreter, in the first folder that has one.
fn module(python: &Python, folder: &str, stem: &str) -> Option<PathBuf> {
    let tag = python.tag().map(|tag| format!(".{tag}-"));
    python.site_packages.iter().find_map(|site| {
        let folder = Path::new(site).join(folder);
        let entry = files::list(&folder).ok()?.into_iter().find(|entry| {
            let middle = entry
                .text()
                .and_then(|n| n.strip_prefix(stem)?.strip_suffix(".so"));
            middle.is_some_and(|middle| match &tag {
                _ if middle.is_empty() || middle == ".abi3" => true,
                Some(tag) => format!("{middle}-").starts_with(tag.as_str()),
                None => middle.starts_with(".cpython-"),
            })
        })?;
        Some(folder.join(entry.name))
    })
}

/// The interpreter's real path, if a run of it under the trace only lists.
fn traceable(interpreter: &Path) -> Result<PathBuf, String> {
    let name = interpreter.display();
    let program = interpreter
        .canonicalize()
        .map_err(|e| format!("{name} cannot be followed: {e}"))?;
    let mode = program.metadata().map(|m| m.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o6000 != 0) {
        return Err(format!(
            "{name} is set-user-ID or set-group-ID, which makes its loader deaf to LD_PRELOAD"
        ));
    }
    let dynamic =
        read(&program).map_err(|e| format!("{name} is not a dynamically linked executable: {e}"))?;
    let Some(loader) = dynamic.interpreter else {
        return Err(format!("{name} is statically linked and has no loader"));
    };
    let is_glibc =
        is_glibcs(Path::new(&loader)).map_err(|e| format!("the loader of {name}, {loader}: {e}"))?;
    if is_glibc {
        Ok(program)
    } else {
        Err(format!("the loader of {name}, {loader}, is not glibc's"))
    }
}

fn read(path: &Path) -> Result<elf::Dynamic, String> {
    let _going = crate::discover::reading::begin(path);
    let file = RandomFile::open(path).map_err(|e| e.to_string())?;
    elf::dynamic(&file).map_err(|e| e.to_string())
}

/// glibc's needs nothing. gcompat's of the same name is a program that hands over to musl's.
fn is_glibcs(loader: &Path) -> Result<bool, String> {
    let facts = read(loader)?;
    Ok(facts.soname.is_some_and(|soname| soname.starts_with("ld-linux"))
        && facts.needed.is_empty()
        && facts.interpreter.is_none())
}

impl Request {
    /// This run with a library behind its modules; none where that cannot be preloaded.
    fn with(&self, library: &Self) -> Option<Self> {
        let name = library.about.clone().filter(|name| can_be_preloaded(name))?;
        let mut modules = self.modules.clone();
        modules.push(name);
        Some(Self {
            modules,
            about: library.about.clone(),
            program: self.program.clone(),
            loader: self.loader.clone(),
            ..Self::default()
        })
    }

    fn is_library(&self) -> bool {
        elf::kind(&self.program) == Some(Kind::Library)
    }

    /// The arguments.
    pub fn argv(&self) -> Vec<CString> {
        let program = self.program.as_os_str().as_bytes();
        let words = match &self.loader {
            Some(loader) => [loader.as_os_str().as_bytes(), program],
            None => [program, b"--version"],
        };
        words
            .into_iter()
            .filter_map(|word| CString::new(word).ok())
            .collect()
    }

    /// The service's environment with the trace switched on. LD_LIBRARY_PATH counts as it is; every other LD_* is
    /// left out, since it would print more, relocate, or in the case of LD_AUDIT run code.
    pub fn envp(&self, env: &[CString]) -> Vec<CString> {
        let kept = |v: &&CString| {
            let name = v.as_bytes().split(|&b| b == b'=').next().unwrap_or_default();
            !name.starts_with(b"LD_") || name == b"LD_LIBRARY_PATH"
        };
        let mut preload = b"LD_PRELOAD=".to_vec();
        // The first is the program itself.
        for module in self.modules.iter().skip(usize::from(self.loader.is_some())) {
            preload.extend_from_slice(module.as_bytes());
            preload.push(b':');
        }
        preload.extend_from_slice(DRIVER.as_bytes());
        env.iter()
            .filter(kept)
            .cloned()
            .chain(CString::new(preload))
            .chain([c"LD_TRACE_LOADED_OBJECTS=1".to_owned()])
            .collect()
    }

    /// The program for execve.
    pub fn path(&self) -> CString {
        // A path with a NUL byte cannot come from the file system.
        let program = self.loader.as_ref().unwrap_or(&self.program);
        CString::new(program.clone().into_os_string().into_vec()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn stack(text: &str) -> Stack {
        Stack::parse(&format!("{{\"schema\": 1, \"name\": \"t\", {text}}}")).unwrap()
    }

    /// An environment with these files, and an interpreter that is only a name.
    fn python(root: &Path, paths: &[&str]) -> Python {
        for path in paths {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        Python {
            version: Some("3.11.7".into()),
            site_packages: vec![root.to_str().unwrap().into()],
            ..Python::default()
        }
    }

    fn names(root: &Path, stack: &Stack, python: &Python) -> Vec<String> {
        let found = modules_of(stack, python);
        let relative = found.iter().map(|path| path.strip_prefix(root).unwrap());
        relative.map(|path| path.to_str().unwrap().to_string()).collect()
    }

    const ALL: [&str; 8] = [
        "torch/lib/libtorch_global_deps.so",
        "torch/lib/libtorch_python.so",
        "torch/_C.cpython-311-x86_64-linux-gnu.so",
        "cumm/core_cc.cpython-311-x86_64-linux-gnu.so",
        "spconv/core_cc.cpython-311-x86_64-linux-gnu.so",
        "torchvision/_C.so",
        "torch_scatter/_scatter_cuda.so",
        "mmcv/_ext.cpython-311-x86_64-linux-gnu.so",
    ];

    #[test]
    fn modules_come_in_the_order_of_their_imports() {
        let dir = tempfile::tempdir().unwrap();
        let python = python(dir.path(), &ALL);
        assert_eq!(names(dir.path(), &Stack::embedded().unwrap(), &python), ALL);
        let other = stack(r#""packages": {"mmcv": "*", "spconv-cu124": "*", "Torch": "*", "numpy": "*"}"#);
        assert_eq!(
            names(dir.path(), &other, &python),
            [ALL[0], ALL[1], ALL[2], ALL[7], ALL[3], ALL[4]]
        );
        let smoke = stack(r#""packages": {"torchvision": "*"}, "smoke": ["mmcv", "torch"]"#);
        assert_eq!(
            names(dir.path(), &smoke, &python),
            [ALL[0], ALL[1], ALL[2], ALL[7], ALL[5]]
        );
        assert_eq!(
            ask(&stack(r#""packages": {"numpy": "*"}"#), &python, &[]),
            Asked::Nothing
        );
    }

    #[test]
    fn each_known_package_has_its_modules_asked() {
        for package in packages::PACKAGES {
            let modules = package.modules.get().unwrap_or_default();
            let files: Vec<String> = modules
                .iter()
                .map(|(folder, stem)| Path::new(folder).join(format!("{stem}.abi3.so")))
                .map(|path| path.to_str().unwrap().to_string())
                .collect();
            let dir = tempfile::tempdir().unwrap();
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            let python = python(dir.path(), &files);
            let stack = stack(&format!(r#""packages": {{"{}": "*"}}"#, package.name));
            assert_eq!(names(dir.path(), &stack, &python), files);
        }
    }

    #[test]
    fn modules_are_those_of_this_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            "cumm/core_cc.cpython-310-x86_64-linux-gnu.so",
            "cumm/core_cc.cpython-311-x86_64-linux-gnu.so",
            "cumm/core_cc_old.so",
            "mmcv/_ext.abi3.so",
            "torchvision/_C.so.bak",
            "torchvision/_C_extra.so",
        ];
        let python = python(dir.path(), &files);
        let stack = stack(r#""packages": {"cumm-cu124": "*", "mmcv": "*", "torchvision": "*"}"#);
        assert_eq!(names(dir.path(), &stack, &python), [files[1], files[3]]);
    }

    #[test]
    fn paths_that_no_list_can_hold_are_said() {
        let dir = tempfile::tempdir().unwrap();
        let stack = stack(r#""packages": {"mmcv": "*"}"#);
        for name in ["a b", "a:b", "$LIB"] {
            let python = python(&dir.path().join(name), &["mmcv/_ext.so"]);
            match ask(&stack, &python, &[]) {
                Asked::Refused(why) => assert!(why.contains(name) && why.contains("_ext.so"), "{why}"),
                other => panic!("{name}: {other:?}"),
            }
        }
        let python = python(&dir.path().join("good"), &["mmcv/_ext.so"]);
        assert!(matches!(ask(&stack, &python, &[]), Asked::Refused(why) if why.contains("no interpreter")));
    }

    /// An ELF file that names this interpreter and nothing else.
    fn elf_with(interpreter: &Path) -> Vec<u8> {
        let text = interpreter.to_str().unwrap();
        let mut bytes = vec![0; 64 + 56];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[18] = 62; // e_machine
        bytes[32] = 64; // e_phoff
        bytes[54] = 56; // e_phentsize
        bytes[56] = 1; // e_phnum
        bytes[64] = 3; // PT_INTERP
        bytes[64 + 8] = 64 + 56; // p_offset
        bytes[64 + 32] = u8::try_from(text.len() + 1).unwrap(); // p_filesz
        bytes.extend(text.as_bytes());
        bytes.push(0);
        bytes
    }

    #[test]
    fn interpreters_that_would_run_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let nowhere = dir.path().join("ld-nowhere.so");
        // A loader that itself has one: gcompat's.
        let handing_over = file("ld-linux-x86-64.so.2", &elf_with(&nowhere));
        for (path, why) in [
            (file("script", b"#!/bin/sh\n"), "not an ELF file"),
            (dir.path().join("absent"), "cannot be followed"),
            (dir.path().to_path_buf(), "not a regular file"),
            (file("a", &elf_with(&nowhere)), "No such file"),
            (file("b", &elf_with(&handing_over)), "is not glibc's"),
        ] {
            let said = traceable(&path).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
        let set_id = file("c", b"");
        fs::set_permissions(&set_id, fs::Permissions::from_mode(0o2755)).unwrap();
        assert!(traceable(&set_id).unwrap_err().contains("set-group-ID"));
        let glibc = Path::new("/lib64/ld-linux-x86-64.so.2");
        if glibc.exists() {
            let good = file("d", &elf_with(glibc));
            assert_eq!(traceable(&good).unwrap(), good.canonicalize().unwrap());
        }
    }

    #[test]
    fn the_environment_is_the_services_but_for_the_loaders_own() {
        let request = Request {
            program: "/usr/bin/python3.11".into(),
            modules: vec!["/sp/a.so".into(), "/sp/b.so".into()],
            ..Request::default()
        };
        let given = [
            c"PATH=/bin",
            c"LD_PRELOAD=/x",
            c"LD_LIBRARY_PATH=/l",
            c"LD_AUDIT=/y",
            c"LD_BIND_NOW=1",
            c"LDX=1",
        ];
        let env = request.envp(&given.map(CString::from));
        let expected = [
            c"PATH=/bin",
            c"LD_LIBRARY_PATH=/l",
            c"LDX=1",
            c"LD_PRELOAD=/sp/a.so:/sp/b.so:libcuda.so.1",
            c"LD_TRACE_LOADED_OBJECTS=1",
        ];
        assert_eq!(env, expected.map(CString::from));
        assert_eq!(
            request.argv(),
            [c"/usr/bin/python3.11", c"--version"].map(CString::from)
        );
    }
}
