//! Code that somebody else wrote: the CUDA libraries and the C library. All `unsafe` of the helper is in this module and
//! its parts, which give the rest of the program safe functions; the entrypoint's own is in src/sys.rs.
// dlopen runs a library's constructors and dlsym returns an address of unknown type: both are unsafe by nature, and so
// are the calls through such an address. Of the C library it is descriptors by number, limits and _exit, not in std.
#![allow(unsafe_code)]

pub mod abi;
pub mod driver;
pub mod glibc;
pub mod libraries;
pub mod native;
pub mod nvml;
pub mod process;
mod zeroed;

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::fs::File;
use std::io::Read;
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{fs, ptr};

use cuda_entrypoint::facts::CallError;
use cuda_entrypoint::hidden;
use cuda_entrypoint::processor::OWN;
use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL, RTLD_NOW};

use crate::output::Output;
use crate::text;

/// A function's name together with its type, so that neither can be used with the other's.
///
/// # Safety
/// The implementor is a `repr(transparent)` struct around an `extern "C"` function pointer of the type that the
/// vendor's header declares for `NAME`.
pub unsafe trait Function: Copy {
    /// as exported
    const NAME: &'static CStr;
}

/// What a library says of one of its error codes.
#[derive(Default)]
pub struct Explanation {
    /// the enumerator's name
    pub name: String,
    /// a sentence
    pub description: String,
}

/// The part of `struct link_map` that link.h makes public, as far as it is needed here.
#[repr(C)]
#[derive(Clone, Copy)]
struct LinkMap {
    base: usize,
    name: *const c_char,
}

/// A loaded library. It is never unloaded: destructors of a driver are not worth their risk here.
pub struct Foreign<'a> {
    handle: *mut c_void,
    library: ManuallyDrop<Library>,
    explain: fn(&Foreign, c_int) -> Explanation,
    out: &'a Output,
}

impl<'a> Foreign<'a> {
    /// Loads `name`: a path, or a name without a slash that the loader looks for. The error is the loader's message.
    pub fn open(
        out: &'a Output,
        name: &OsStr,
        explain: fn(&Foreign, c_int) -> Explanation,
    ) -> Result<Self, String> {
        Self::open_bound(out, name, RTLD_NOW, explain)
    }

    /// The same where functions that the library itself misses count only once it calls them: NVML's users open it so
    /// (NVIDIA's go-nvml), and shims of it leave some open.
    pub fn open_lazily(
        out: &'a Output,
        name: &OsStr,
        explain: fn(&Foreign, c_int) -> Explanation,
    ) -> Result<Self, String> {
        Self::open_bound(out, name, RTLD_LAZY, explain)
    }

    fn open_bound(
        out: &'a Output,
        name: &OsStr,
        binding: c_int,
        explain: fn(&Foreign, c_int) -> Explanation,
    ) -> Result<Self, String> {
        let shown = bounded(name.as_bytes());
        out.step(format!("dlopen {shown}"));
        // The loader would wait for a writer of a FIFO for ever.
        if name.as_bytes().contains(&b'/') && fs::metadata(name).is_ok_and(|found| !found.is_file()) {
            return Err(format!("{shown}: cannot load this: not a regular file"));
        }
        // SAFETY: runs the library's constructors. That they may do harm is why this process exists.
        let library = unsafe { Library::open(Some(name), binding | RTLD_LOCAL) }.map_err(|error| {
            let message = std::error::Error::source(&error).map(ToString::to_string);
            let mut message = bounded(message.unwrap_or_else(|| error.to_string()).as_bytes());
            // The loader passes over such a file and then says that there is none.
            if let Some(machine) = other_machine(name) {
                message.push_str(&format!(
                    "; the file is there, and made for {machine}, not {}",
                    OWN.name
                ));
            }
            message
        })?;
        let handle = library.into_raw();
        // SAFETY: the handle is the one that this very type gave out.
        let library = ManuallyDrop::new(unsafe { Library::from_raw(handle) });
        let foreign = Self {
            handle,
            library,
            explain,
            out,
        };
        if hidden::IS_POSSIBLE
            && foreign
                .path()
                .is_some_and(|path| hidden::is_hidden(Path::new(&path)))
        {
            return Err(format!(
                "{shown}: cannot open shared object file: No such file or directory"
            ));
        }
        Ok(foreign)
    }

    /// The file that was mapped, symbolic links resolved.
    pub fn path(&self) -> Option<String> {
        let name = self.link_map()?.name;
        // SAFETY: the loader keeps the NUL-terminated name as long as the library is loaded.
        let name = unsafe { (!name.is_null()).then(|| CStr::from_ptr(name)) }?;
        let name = OsStr::from_bytes(name.to_bytes());
        let real = fs::canonicalize(name).unwrap_or_else(|_| name.into());
        Some(bounded(real.as_os_str().as_bytes()))
    }

    /// For a library that touches all of its zeroed memory in its first call: see [`zeroed`].
    pub fn populate(&self) {
        if let Some(map) = self.link_map() {
            zeroed::populate(map.base);
        }
    }

    fn link_map(&self) -> Option<LinkMap> {
        let mut map: *const LinkMap = ptr::null();
        // SAFETY: the handle stays open, and RTLD_DI_LINKMAP stores one pointer, for which there is room.
        let status = unsafe {
            libc::dlinfo(
                self.handle,
                libc::RTLD_DI_LINKMAP,
                (&raw mut map).cast::<c_void>(),
            )
        };
        if status != 0 || map.is_null() {
            return None;
        }
        // SAFETY: the loader keeps the map as long as the library is loaded.
        Some(unsafe { *map })
    }

    /// Announces function `F` as the next step and runs `call` with it; `None` where the library does not have it.
    /// `subject` says what the call is about, such as ` of device 3`.
    pub fn call<F: Function, R>(&self, subject: &str, call: impl FnOnce(F) -> R) -> Option<R> {
        // SAFETY: `Function` promises that F is the type of what NAME names.
        let function = *unsafe { self.library.get::<F>(F::NAME) }.ok()?;
        self.out.step(format!("{}{subject}", F::NAME.to_string_lossy()));
        Some(call(function))
    }

    /// The same for a function that returns 0 for success and else an error code.
    pub fn check<F: Function>(&self, subject: &str, call: impl FnOnce(F) -> c_int) -> Result<(), CallError> {
        match self.call(subject, call) {
            Some(0) => Ok(()),
            Some(code) => Err(self.error::<F>(code)),
            None => Err(nonsense::<F>("the library does not export this function".into())),
        }
    }

    /// Function `F` itself, for many calls of which one step is announced.
    pub fn function<F: Function>(&self) -> Result<F, CallError> {
        // SAFETY: `Function` promises that F is the type of what NAME names.
        let found = unsafe { self.library.get::<F>(F::NAME) };
        found
            .map(|function| *function)
            .map_err(|_| nonsense::<F>("the library does not export this function".into()))
    }

    /// What `code`, which function `F` returned, means.
    pub fn error<F: Function>(&self, code: c_int) -> CallError {
        let Explanation { name, description } = (self.explain)(self, code);
        CallError {
            call: F::NAME.to_string_lossy().into_owned(),
            code,
            name,
            description,
        }
    }
}

/// An error of a call that has no error code of its own.
pub fn nonsense<F: Function>(description: String) -> CallError {
    CallError {
        call: F::NAME.to_string_lossy().into_owned(),
        code: CallError::NO_CODE,
        name: String::new(),
        description,
    }
}

/// Takes over a library's constant text; empty for a null pointer.
///
/// # Safety
/// `text` is null or points to a NUL-terminated string that lives until this returns.
pub unsafe fn text_at(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: every byte up to the NUL may be read, and the count ends there or at the limit.
    let bytes = unsafe {
        let length = (0..text::LONGEST)
            .take_while(|&index| *text.add(index) != 0)
            .count();
        std::slice::from_raw_parts(text.cast::<u8>(), length)
    };
    text::until_nul(bytes)
}

/// The machine that a file's code is for, where that is another than this one.
///
/// Source: elf(5), `e_machine`, at offset 18 of both classes.
fn other_machine(name: &OsStr) -> Option<String> {
    let mut head = [0; 20];
    // `open` has seen that it is a regular file.
    if !name.as_bytes().contains(&b'/') || File::open(name).ok()?.read_exact(&mut head).is_err() {
        return None;
    }
    let (magic, rest) = head.split_at(4);
    let machine = match (magic, rest) {
        (b"\x7fELF", [.., low, high]) => u16::from_le_bytes([*low, *high]),
        _ => return None,
    };
    match machine {
        own if own == OWN.elf => None,
        3 => Some("32-bit x86".into()),
        62 => Some("x86-64".into()),
        183 => Some("aarch64".into()),
        other => Some(format!("ELF machine {other}")),
    }
}

fn bounded(bytes: &[u8]) -> String {
    text::until_nul(bytes)
}
