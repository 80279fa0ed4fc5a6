//! Whether triton, torch's inductor and CUDA can compile kernels here when the service first asks for one.
//!
//! Sources: triton/runtime/build.py (`CC`, else gcc, else clang on PATH; Python.h of the interpreter), triton/runtime/cache.py
//! and knobs.py (TRITON_CACHE_DIR, TRITON_HOME), torch/_inductor/runtime/cache_dir_utils.py (TORCHINDUCTOR_CACHE_DIR, else a
//! folder by the user's name in the one for temporary files), the documentation of Python's `getpass.getuser` and
//! `tempfile.gettempdir`, CUDA's "Environment variables" (CUDA_CACHE_PATH, CUDA_CACHE_DISABLE), ld.so(8) for LD_PRELOAD.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, PROC_SUPER_MAGIC, SYSFS_MAGIC, statfs};
use nix::unistd::{AccessFlags, Uid, access, getuid};

use super::files;
use super::loader::search;
use super::python::Environment;
use crate::facts::surroundings::{Surroundings, UnwritableCache, WrongVariable};
use crate::facts::{Distribution, Python};

/// Largest user database that is read.
const MAX_PASSWD: usize = 1 << 20;
/// Variables that name the user, in the order of `getpass.getuser`.
const USER_VARIABLES: [&str; 4] = ["LOGNAME", "USER", "LNAME", "USERNAME"];
/// Folders for temporary files, behind those of the variables.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/usr/tmp"];

/// Looks around, for an environment with these distributions.
pub fn look(found: &[Distribution], python: &Python, env: &Environment) -> Option<Surroundings> {
    let triton = found.iter().find(|dist| dist.name == "triton");
    let torch = found.iter().any(|dist| dist.name == "torch");
    if triton.is_none() && !torch {
        return None;
    }
    let mut all = Surroundings::default();
    if triton.is_some() {
        compiler(&mut all, python, env);
        triton_variables(&mut all, env);
    }
    all.caches = caches(triton.map(|dist| dist.version.as_str()), torch, env);
    if torch {
        all.nameless_user = nameless_user(env);
        torch_variables(&mut all, env);
        cuda_home(&mut all, found, env);
    }
    preloads(&mut all, env);
    Some(all)
}

fn compiler(all: &mut Surroundings, python: &Python, env: &Environment) {
    let on_path = |name: &OsStr| {
        let path = env
            .get("PATH")
            .unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"));
        std::env::split_paths(path)
            .map(|folder| folder.join(name))
            .find(|file| is_executable(file))
    };
    let found = match env.get("CC") {
        // One file, whatever words it holds: triton starts it without a shell.
        Some(cc) => {
            let found = match cc.to_string_lossy().contains('/') {
                true => Some(PathBuf::from(cc)).filter(|file| is_executable(file)),
                false => on_path(cc),
            };
            if found.is_none() {
                all.absent_cc = Some(cc.to_string_lossy().into_owned());
            }
            found
        }
        None => on_path(OsStr::new("gcc")).or_else(|| on_path(OsStr::new("clang"))),
    };
    all.compiler = found.map(|file| file.to_string_lossy().into_owned());
    let is_led = ["CPATH", "C_INCLUDE_PATH"]
        .iter()
        .any(|name| env.get(name).is_some());
    if all.compiler.is_some() && !is_led {
        all.absent_header = header(python)
            .filter(|file| !file.is_file())
            .map(|file| file.to_string_lossy().into_owned());
    }
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && access(file, AccessFlags::X_OK).is_ok()
}

/// Where the interpreter's own installation has Python.h.
fn header(python: &Python) -> Option<PathBuf> {
    let program = Path::new(python.interpreter.as_ref()?).canonicalize().ok()?;
    let mut version = python.version.as_ref()?.split('.');
    let (major, minor) = (version.next()?, version.next()?);
    let prefix = program.parent()?.parent()?;
    // Free-threaded builds have a folder of their own.
    let threads = match program.file_name()?.to_str()?.ends_with('t') {
        true => "t",
        false => "",
    };
    Some(prefix.join(format!("include/python{major}.{minor}{threads}/Python.h")))
}

fn triton_variables(all: &mut Surroundings, env: &Environment) {
    if let Some(ptxas) = env
        .get("TRITON_PTXAS_PATH")
        .filter(|path| !is_executable(Path::new(path)))
    {
        wrong(
            all,
            "TRITON_PTXAS_PATH",
            ptxas,
            "no executable file is there, and triton uses the ptxas that it brings",
        );
    }
}

fn torch_variables(all: &mut Surroundings, env: &Environment) {
    for name in ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"] {
        let Some(value) = env.get(name) else { continue };
        let text = value.to_string_lossy();
        // A list in brackets may hold commas of its own.
        let is_pair = |part: &str| part.contains([':', '[', ']']);
        // torch takes a comma at the end.
        let list = text.trim().trim_end_matches(',');
        if let Some(part) = list.split(',').find(|part| !is_pair(part)) {
            wrong(
                all,
                name,
                OsStr::new(part.trim()),
                "torch expects option:value here, and refuses it at the first use of CUDA",
            );
        }
    }
    if env.get("CUDA_LAUNCH_BLOCKING").is_some_and(|value| value != "0") {
        let value = env.get("CUDA_LAUNCH_BLOCKING").unwrap_or_default();
        wrong(
            all,
            "CUDA_LAUNCH_BLOCKING",
            value,
            "each kernel launch waits for the kernel's end, which is for debugging",
        );
    }
}

/// The toolkit with which extensions are compiled: torch refuses one of another major version than its own CUDA's.
///
/// Source: torch/utils/cpp_extension.py, `_check_cuda_version` and `_find_cuda_home`.
fn cuda_home(all: &mut Surroundings, found: &[Distribution], env: &Environment) {
    let Some((name, home)) = ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .find_map(|name| Some((name, env.get(name)?)))
    else {
        return;
    };
    let folder = Path::new(home);
    if !folder.is_dir() {
        return wrong(
            all,
            name,
            home,
            "no folder is there, and what compiles CUDA code looks for nvcc in it",
        );
    }
    let torchs = found
        .iter()
        .find(|dist| dist.name == "torch")
        .and_then(|dist| dist.module_cuda.as_deref());
    let (Some(theirs), Some(torchs)) = (release(folder), torchs) else {
        return;
    };
    if theirs.split('.').next() != torchs.split('.').next() {
        let problem = format!(
            "it is CUDA {theirs}, and torch is built for CUDA {torchs}: extensions cannot be compiled with it"
        );
        wrong(all, name, home, &problem);
    }
}

/// `12.1` of a toolkit: by its version.json, else by the name of its folder.
fn release(toolkit: &Path) -> Option<String> {
    let text = files::read_text(&toolkit.join("version.json"), files::SMALL_FILE).unwrap_or_default();
    let json: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let stated = json
        .as_ref()
        .and_then(|json| json.pointer("/cuda/version")?.as_str());
    let real = toolkit.canonicalize().ok()?;
    let by_name = real
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix("cuda-"));
    let version = stated.or(by_name)?;
    let parts: Vec<&str> = version.split('.').take(2).collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.iter().all(is_number).then(|| parts.join("."))
}

/// Libraries that the loader would complain about, and leave out.
fn preloads(all: &mut Surroundings, env: &Environment) {
    let Some(value) = env.get("LD_PRELOAD") else {
        return;
    };
    let library_path = env.get("LD_LIBRARY_PATH").and_then(OsStr::to_str);
    let text = value.to_string_lossy().into_owned();
    for name in text
        .split([':', ' '])
        .filter(|name| !name.is_empty() && !name.contains('$'))
    {
        let is_there = match name.contains('/') {
            true => Path::new(name).exists(),
            false => !search::candidates(name, library_path).is_empty(),
        };
        if !is_there {
            wrong(
                all,
                "LD_PRELOAD",
                OsStr::new(name),
                "the loader does not find it, and leaves it out of every program",
            );
        }
    }
}

fn wrong(all: &mut Surroundings, name: &str, value: &OsStr, problem: &str) {
    all.variables.push(WrongVariable {
        name: name.to_string(),
        value: value.to_string_lossy().into_owned(),
        problem: problem.to_string(),
    });
}

/// The folders that cannot be written.
fn caches(triton: Option<&str>, torch: bool, env: &Environment) -> Vec<UnwritableCache> {
    let path = |name: &str| env.get(name).map(PathBuf::from);
    // What `~` stands for without HOME is the user database's matter.
    let home = path("HOME");
    let mut all = Vec::new();
    let mut add = |of: &str, variable: &str, default: Option<PathBuf>| {
        let named = path(variable);
        let folder = named.clone().or(default);
        if let Some((folder, reason)) = folder.and_then(|folder| Some((folder.clone(), unwritable(&folder)?)))
        {
            all.push(UnwritableCache {
                of: of.to_string(),
                path: folder.to_string_lossy().into_owned(),
                variable: variable.to_string(),
                named: named.is_some(),
                reason,
            });
        }
    };
    if let Some(version) = triton {
        // Before 3.2 it does not read the variable.
        let is_old = ["2.", "3.0.", "3.1."]
            .iter()
            .any(|start| version.starts_with(start));
        let own = path("TRITON_HOME").filter(|_| !is_old);
        let base = own.or_else(|| home.clone());
        add(
            "triton",
            "TRITON_CACHE_DIR",
            base.map(|base| base.join(".triton/cache")),
        );
    }
    if torch {
        let temporary = ["TMPDIR", "TEMP", "TMP"].into_iter().filter_map(path);
        let mut temporary = temporary.chain(TEMPORARY.into_iter().map(PathBuf::from));
        // The first one that can be written; where none can, the first one is named.
        let usable = temporary.find(|folder| folder.is_dir() && unwritable(folder).is_none());
        add(
            "inductor",
            "TORCHINDUCTOR_CACHE_DIR",
            usable.or_else(|| Some(PathBuf::from("/tmp"))),
        );
    }
    if env.get("CUDA_CACHE_DISABLE").is_none_or(|value| value == "0") {
        // Without it CUDA compiles PTX anew at each start, so that only what somebody asked for is worth a word.
        add("CUDA", "CUDA_CACHE_PATH", None);
    }
    all
}

/// Why a folder can neither be written nor made.
fn unwritable(folder: &Path) -> Option<String> {
    let _going = super::reading::begin(folder);
    let folder = std::path::absolute(folder).ok()?;
    let place = folder
        .ancestors()
        .find(|place| place.symlink_metadata().is_ok())?;
    let shown = place.display();
    match place.metadata() {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Some(format!("{shown} is not a folder")),
        Err(error) => {
            return Some(format!(
                "{shown}: {}",
                Errno::from_raw(error.raw_os_error()?).desc()
            ));
        }
    }
    let kernels = [
        PROC_SUPER_MAGIC,
        SYSFS_MAGIC,
        CGROUP_SUPER_MAGIC,
        CGROUP2_SUPER_MAGIC,
    ];
    if statfs(place).is_ok_and(|found| kernels.contains(&found.filesystem_type())) {
        return Some(format!("{shown} is the kernel's, and takes no files"));
    }
    match access(place, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => None,
        Err(Errno::EROFS) => Some(format!("{shown} is on a read-only file system")),
        Err(Errno::EACCES) => Some(format!("uid {} may not write to {shown}", getuid())),
        Err(error) => Some(format!("{shown}: {}", error.desc())),
    }
}

/// The user, where `getpass.getuser` finds no name. What else than files tells names, such as LDAP, is not asked.
fn nameless_user(env: &Environment) -> Option<u32> {
    // A folder that is named needs no user's name.
    let is_led = ["NSS_WRAPPER_PASSWD", "TORCHINDUCTOR_CACHE_DIR"]
        .iter()
        .any(|name| env.get(name).is_some());
    if is_led || USER_VARIABLES.iter().any(|name| env.get(name).is_some()) {
        return None;
    }
    let switch = files::read_text(Path::new("/etc/nsswitch.conf"), files::SMALL_FILE).unwrap_or_default();
    let asks_others = switch
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("passwd:"))
        .any(|sources| {
            let mut sources = sources.split_whitespace();
            sources
                .any(|source| !matches!(source, "files" | "compat" | "systemd") && !source.starts_with('['))
        });
    if asks_others {
        return None;
    }
    let users = files::read_text(Path::new("/etc/passwd"), MAX_PASSWD).unwrap_or_default();
    let uid = getuid();
    (!names(&users, uid)).then(|| uid.as_raw())
}

/// Whether passwd(5) has a line for this user.
fn names(users: &str, uid: Uid) -> bool {
    let uid = uid.to_string();
    users
        .lines()
        .any(|line| line.split(':').nth(2) == Some(uid.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dists(names: &[&str]) -> Vec<Distribution> {
        let dist = |name: &&str| Distribution {
            name: name.to_string(),
            ..Distribution::default()
        };
        names.iter().map(dist).collect()
    }

    fn looked(names: &[&str], env: &[(&str, &str)]) -> Surroundings {
        let env = env.iter().map(|(name, value)| (name.into(), value.into()));
        let mut all = Environment::default();
        env.for_each(|(name, value): (std::ffi::OsString, std::ffi::OsString)| all.set(name, value));
        look(&dists(names), &Python::default(), &all).unwrap_or_default()
    }

    #[test]
    fn only_where_a_package_needs_it() {
        assert_eq!(
            look(&dists(&["numpy"]), &Python::default(), &Environment::default()),
            None
        );
        let env = [("PATH", "/nowhere"), ("HOME", "/proc/x"), ("TMPDIR", "/tmp")];
        assert_eq!(looked(&["torch"], &env).caches, []);
        assert_eq!(looked(&["triton"], &env).caches[0].path, "/proc/x/.triton/cache");
        assert_eq!(looked(&["triton"], &env).compiler, None);
    }

    #[test]
    fn the_compiler_is_the_one_that_triton_starts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        for (name, mode) in [("clang", 0o755), ("gcc", 0o644), ("tcc", 0o755)] {
            use std::os::unix::fs::PermissionsExt;
            let file = folder.path().join(name);
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let named = |name: &str| Some(format!("{path}/{name}"));
        assert_eq!(looked(&["triton"], &[("PATH", path)]).compiler, named("clang"));
        assert_eq!(
            looked(&["triton"], &[("PATH", path), ("CC", "tcc")]).compiler,
            named("tcc")
        );
        assert_eq!(
            looked(&["triton"], &[("PATH", path), ("CC", "ccache tcc")]).absent_cc,
            Some("ccache tcc".into())
        );
        let absent = looked(&["triton"], &[("PATH", path), ("CC", "icx")]);
        assert_eq!((absent.compiler, absent.absent_cc), (None, Some("icx".into())));
    }

    #[test]
    fn folders_that_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(unwritable(folder.path()), None);
        assert_eq!(unwritable(&folder.path().join("a/b")), None);
        let text = file.display().to_string();
        assert_eq!(
            unwritable(&file.join("a")),
            Some(format!("{text} is not a folder"))
        );
        assert_eq!(
            unwritable(Path::new("/proc/nope")),
            Some("/proc is the kernel's, and takes no files".into())
        );
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("gone", &link).unwrap();
        assert_eq!(
            unwritable(&link),
            Some(format!("{}: No such file or directory", link.display()))
        );
    }

    #[test]
    fn variables_that_lead_to_an_error() {
        let env = |name: &'static str, value: &'static str| {
            let found = looked(&["torch", "triton"], &[("LOGNAME", "x"), (name, value)]).variables;
            found.into_iter().map(|v| v.value).collect::<Vec<_>>()
        };
        assert_eq!(env("TRITON_PTXAS_PATH", "/opt/gone/ptxas"), ["/opt/gone/ptxas"]);
        assert_eq!(
            env("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments"),
            ["expandable_segments"]
        );
        assert_eq!(env("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:128,x"), ["x"]);
        assert_eq!(env("PYTORCH_CUDA_ALLOC_CONF", "a:1,,b:2"), [""]);
        assert_eq!(env("PYTORCH_CUDA_ALLOC_CONF", "a:1,"), [""; 0]);
        assert_eq!(
            env(
                "PYTORCH_ALLOC_CONF",
                "expandable_segments:True,roundup_power2_divisions:[256:1,512:2]"
            ),
            [""; 0]
        );
        assert_eq!(env("CUDA_LAUNCH_BLOCKING", "1"), ["1"]);
        assert_eq!(env("CUDA_LAUNCH_BLOCKING", "0"), [""; 0]);
        assert_eq!(
            env("LD_PRELOAD", "libno-such.so.4 /no/such.so"),
            ["libno-such.so.4", "/no/such.so"]
        );
        assert_eq!(env("LD_PRELOAD", "libc.so.6:$LIB/x.so"), [""; 0]);
    }

    #[test]
    fn a_toolkit_of_another_major_version_than_torchs() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str, version: &str| {
            let folder = root.path().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            if !version.is_empty() {
                let json = format!("{{\"cuda\": {{\"name\": \"CUDA SDK\", \"version\": \"{version}\"}}}}");
                std::fs::write(folder.join("version.json"), json).unwrap();
            }
            folder.display().to_string()
        };
        for (home, wrong) in [
            (folder("a", "12.1.0"), false),
            (folder("b", "11.8.0"), true),
            (folder("cuda-13.0", ""), true),
            (folder("cuda-12.8", ""), false),
            (folder("cuda-x", ""), false),
            (folder("nothing", ""), false),
            ("/no/such/cuda".to_string(), true),
        ] {
            let mut env = Environment::default();
            env.set("CUDA_HOME", &home);
            let mut torch = dists(&["torch"]);
            torch[0].module_cuda = Some("12.4".into());
            let found = look(&torch, &Python::default(), &env).unwrap().variables;
            assert_eq!(found.len(), usize::from(wrong), "{home}: {found:?}");
        }
    }

    #[test]
    fn users_have_names_by_their_numbers() {
        let users = "root:x:0:0::/root:/bin/sh\n\nsvc:x:1000:1000::/:/bin/sh\nbroken\n";
        for (uid, is) in [(0, true), (1000, true), (100, false), (65534, false)] {
            assert_eq!(names(users, Uid::from_raw(uid)), is);
        }
        assert_eq!(looked(&["torch"], &[("USER", "svc")]).nameless_user, None);
    }
}
