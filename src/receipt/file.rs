//! A receipt as a file: whole or not there at all, for whoever looks.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::device::DevicePart;
use super::image::ImagePart;
use super::key::changed;
use super::{BUILD, trust};
use crate::draft;
use crate::facts::read::{Fields, value_of};
use crate::process::limits::ResourceLimit;

/// `schema` of a receipt.
const SCHEMA: u32 = 1;

/// The parts of a receipt. The file also has its schema, and the build of who wrote it: another one may judge by other
/// facts.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Receipt {
    /// the image part
    pub image: Option<ImagePart>,
    /// the device and smoke part
    pub device: Option<DevicePart>,
}

/// Reads a receipt of this very build; `None` where there is none.
///
/// # Errors
/// Why it cannot be used, whatever it says.
pub fn read(path: &Path) -> Result<Option<Receipt>, String> {
    trust::read(path)?.map(|bytes| parse(&bytes)).transpose()
}

/// Reads the text of a receipt.
///
/// # Errors
/// Why it cannot be used.
pub fn parse(text: &[u8]) -> Result<Receipt, String> {
    let damaged = |error: &dyn std::fmt::Display| format!("damaged: {error}");
    let value = value_of(text).map_err(|e| damaged(&e))?;
    let mut fields = Fields::of(value).map_err(|e| damaged(&e))?;
    // These two can be told of every receipt, past and future.
    let schema: u32 = fields.take("schema").map_err(|e| damaged(&e))?;
    if schema != SCHEMA {
        return Err(format!("of schema {schema}, and this is {SCHEMA}"));
    }
    let build: String = fields.take("build").map_err(|e| damaged(&e))?;
    if build != BUILD {
        return Err(changed("cuda-entrypoint", Some(&build), Some(BUILD), ""));
    }
    Ok(Receipt {
        image: fields.take("image").map_err(|e| damaged(&e))?,
        device: fields.take("device").map_err(|e| damaged(&e))?,
    })
}

/// The text of a receipt of this very build.
pub fn text(receipt: &Receipt) -> Vec<u8> {
    // By values, which the report is made of as well: a second way of writing all these types weighs more than it saves.
    let value = json!({
        "schema": SCHEMA,
        "build": BUILD,
        "image": receipt.image,
        "device": receipt.device,
    });
    value.to_string().into_bytes()
}

/// Why a receipt could not be written, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotWritten {
    /// what was seen
    pub message: String,
    /// the next step
    pub hint: &'static str,
    /// the place does not let us write: so it is meant where the receipt came with the image
    pub is_read_only: bool,
}

/// Puts parts into the receipt at `path`, and keeps of the one that is there what they do not replace.
///
/// # Errors
/// What keeps it from being written; what is there then stays as it is.
pub fn write(path: &Path, image: Option<ImagePart>, device: Option<DevicePart>) -> Result<(), NotWritten> {
    // Again: another container may have written meanwhile. What cannot be believed is not kept.
    let before = read(path).ok().flatten().unwrap_or_default();
    let text = text(&Receipt {
        image: image.or(before.image),
        device: device.or(before.device),
    });
    if text.len() as u64 > trust::MAX_BYTES {
        return Err(NotWritten {
            message: format!(
                "it would have {} bytes, more than the {} that are read",
                text.len(),
                trust::MAX_BYTES
            ),
            hint: "leave --receipt out for an environment of this size",
            is_read_only: false,
        });
    }
    replace(path, &text)
}

fn replace(path: &Path, text: &[u8]) -> Result<(), NotWritten> {
    // A link would be replaced and not followed, which is not what whoever made it meant.
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(NotWritten {
            message: "a file of this name exists and is not a regular file".to_string(),
            hint: "name a file in a folder that this user may write to",
            is_read_only: false,
        });
    }
    // Whatever the umask: the container that reads it may be another user's.
    draft::replace(path, Some(0o644), &mut |file| file.write_all(text)).map_err(|e| not_written(&e))
}

fn not_written(error: &io::Error) -> NotWritten {
    use io::ErrorKind::{
        FileTooLarge, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem, StorageFull,
    };
    let hint = match error.kind() {
        NotFound | NotADirectory => "make its folder, or mount a volume there (an emptyDir in Kubernetes)",
        PermissionDenied | ReadOnlyFilesystem => {
            "name a file in a folder that this user may write to (an emptyDir in Kubernetes)"
        }
        StorageFull => "free space on its volume",
        FileTooLarge => ResourceLimit::FileSize.hint(),
        _ => "name another file",
    };
    NotWritten {
        message: error.to_string(),
        hint,
        is_read_only: matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem),
    }
}

#[cfg(test)]
mod tests;
