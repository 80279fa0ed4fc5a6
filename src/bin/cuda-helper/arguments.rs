//! The command line. Paths are bytes: a file's name need not be UTF-8.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use cuda_entrypoint::facts::LibraryKind;

/// Shown with every usage error.
pub fn usage() -> String {
    let name = "cuda-helper [--fd N]";
    format!(
        "usage: {name} libraries {{{}}}=PATH...\n       {name} driver [native]\n       {name} nvml [BYTES] [PART/PARTS]",
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
    /// libcuda; and whether it is to wait for a native proof's plan
    Driver {
        /// it is
        native: bool,
    },
    /// libnvidia-ml, and with a number of bytes whether each GPU has so much free memory
    Nvml(Option<u64>, Part),
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
            (Some("driver"), []) => Request::Driver { native: false },
            (Some("driver"), [word]) if word == "native" => Request::Driver { native: true },
            (Some("nvml"), rest) => nvml(rest)?,
            (Some("driver"), [.., extra]) => return Err(format!("unexpected argument {extra:?}")),
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

fn nvml(rest: &[OsString]) -> Result<Request, String> {
    let is_part = |arg: &&OsString| arg.as_bytes().contains(&b'/');
    match rest {
        [] => Ok(Request::Nvml(None, Part::default())),
        [part] if is_part(&part) => Ok(Request::Nvml(None, Part::parse(part)?)),
        [free] => Ok(Request::Nvml(Some(bytes(free)?), Part::default())),
        [free, part] => Ok(Request::Nvml(Some(bytes(free)?), Part::parse(part)?)),
        [.., extra] => Err(format!("unexpected argument {extra:?}")),
    }
}

/// Which GPUs are asked, where several processes share them out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    this: u32,
    of: u32,
}

impl Default for Part {
    fn default() -> Self {
        Self { this: 0, of: 1 }
    }
}

impl Part {
    /// `1/4`: the second of four.
    fn parse(arg: &OsStr) -> Result<Self, String> {
        let numbers = arg.to_str().and_then(|text| text.split_once('/'));
        let numbers = numbers.and_then(|(this, of)| Some((this.parse().ok()?, of.parse().ok()?)));
        let part = numbers.filter(|(this, of)| this < of);
        let part = part.map(|(this, of)| Self { this, of });
        part.ok_or_else(|| format!("expected PART/PARTS such as 0/2, found {arg:?}"))
    }

    /// Whether what has this number belongs to it.
    pub fn has(self, number: u32) -> bool {
        number % self.of == self.this
    }
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
