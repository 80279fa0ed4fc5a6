//! The command line. Paths are bytes: a file's name need not be UTF-8.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use cuda_entrypoint::facts::LibraryKind;

/// Shown with every usage error.
pub fn usage() -> String {
    let name = "cuda-helper [--fd N]";
    format!(
        "usage: {name} libraries {{{}}}=PATH...\n       {name} driver\n       {name} nvml [BYTES]",
        kinds()
    )
}

fn kinds() -> String {
    let words: Vec<&str> = LibraryKind::ALL.iter().map(|kind| kind.row().word).collect();
    words.join("|")
}

/// A command line that makes sense.
pub struct Arguments {
    /// the descriptor for the answer
    pub fd: i32,
    /// the question
    pub request: Request,
}

/// What to ask.
pub enum Request {
    /// each copy of a runtime library
    Libraries(Vec<Wanted>),
    /// libcuda
    Driver,
    /// libnvidia-ml, and with a number of bytes whether each GPU has so much free memory
    Nvml(Option<u64>),
}

/// One runtime library to ask.
pub struct Wanted {
    /// which function to call
    pub kind: LibraryKind,
    /// a path, or a name without a slash that the loader resolves
    pub path: OsString,
}

impl Wanted {
    /// Whether the loader is to find it.
    pub fn is_soname(&self) -> bool {
        !self.path.as_bytes().contains(&b'/')
    }
}

impl Arguments {
    /// Parses everything after the program's name.
    pub fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut fd = 1;
        let mut request = args.next();
        if request.as_deref() == Some(OsStr::new("--fd")) {
            fd = descriptor(args.next())?;
            request = args.next();
        }
        let request = request.ok_or("no request")?;
        let rest: Vec<OsString> = args.collect();
        let request = match (request.to_str(), rest.as_slice()) {
            (Some("libraries"), []) => return Err("`libraries` needs at least one KIND=PATH".into()),
            (Some("libraries"), rest) => {
                Request::Libraries(rest.iter().map(|arg| wanted(arg)).collect::<Result<_, _>>()?)
            }
            (Some("driver"), []) => Request::Driver,
            (Some("nvml"), []) => Request::Nvml(None),
            (Some("nvml"), [free]) => Request::Nvml(Some(bytes(free)?)),
            (Some("driver" | "nvml"), [.., extra]) => return Err(format!("unexpected argument {extra:?}")),
            _ => return Err(format!("unknown request {request:?}")),
        };
        Ok(Self { fd, request })
    }
}

fn descriptor(arg: Option<OsString>) -> Result<i32, String> {
    let arg = arg.ok_or("`--fd` needs a number")?;
    let number = arg.to_str().and_then(|text| text.parse::<i32>().ok());
    // 0 and 2 are left to the libraries.
    number
        .filter(|&fd| fd == 1 || fd > 2)
        .ok_or_else(|| format!("`--fd` needs 1 or a number above 2, found {arg:?}"))
}

fn bytes(arg: &OsStr) -> Result<u64, String> {
    let number = arg.to_str().and_then(|text| text.parse::<u64>().ok());
    number.ok_or_else(|| format!("`nvml` takes a number of bytes, found {arg:?}"))
}

fn wanted(arg: &OsStr) -> Result<Wanted, String> {
    match LibraryKind::of_argument(arg.as_bytes()) {
        Some((kind, path)) if !path.is_empty() => Ok(Wanted {
            kind,
            path: OsStr::from_bytes(path).to_owned(),
        }),
        _ => Err(format!(
            "expected KIND=PATH with a kind of {}, found {arg:?}",
            kinds()
        )),
    }
}
