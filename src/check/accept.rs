//! What a manifest accepts: findings of one package or library, each with its reason.

use super::{Code, Finding, Status};

/// What an entry is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// a distribution, by its normalised name
    Package(String),
    /// a library, by its file name or its path
    Library(String),
}

impl Subject {
    /// The key that names it in the manifest.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Package(_) => "package",
            Self::Library(_) => "library",
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Package(name) | Self::Library(name) => name,
        }
    }
}

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accept {
    /// which finding
    pub code: Code,
    /// of what
    pub subject: Subject,
    /// why
    pub reason: String,
}

impl Accept {
    /// Whether a problem is what the entry is about.
    pub fn covers(&self, finding: &Finding) -> bool {
        let parties = &finding.parties;
        finding.problem
            && finding.code == self.code
            && (parties.iter().any(|party| self.names(party))
                || (parties.is_empty() && self.names(&finding.subject)))
    }

    fn names(&self, party: &str) -> bool {
        match &self.subject {
            Subject::Package(name) => party == name,
            Subject::Library(name) => party == name || party.rsplit('/').next() == Some(name),
        }
    }
}

/// The manifest's `accept` with one entry, as a hint writes it.
pub fn written(code: Code, key: &str, name: &str, reason: &str) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        "\"accept\": [{{\"code\": \"{code}\", \"{key}\": {}, \"reason\": {}}}]",
        text(name),
        text(reason)
    )
}

impl Code {
    /// The keys by which a manifest's `accept` can name its subject; none where it is about something else than a package
    /// or a library of the image.
    pub fn accepted_by(self) -> &'static [&'static str] {
        match self {
            Self::PackageVersion
            | Self::PackageIncomplete
            | Self::PackageCudaTag
            | Self::PackageTorchTag
            | Self::PackageDuplicate
            | Self::NumpyAbi
            | Self::RequiresDist
            | Self::EditableTrap => &["package"],
            Self::FileOwner
            | Self::KernelsMissing
            | Self::KernelsPtxOnly
            | Self::KernelsUnusable
            | Self::KernelLoad
            | Self::LibraryMissing
            | Self::UndefinedSymbol => &["package", "library"],
            Self::CudartVersion | Self::NvrtcVersion | Self::CudnnVersion | Self::LibraryShadowed => {
                &["library"]
            }
            _ => &[],
        }
    }
}

/// Entries that cover none of an image's findings, so that exceptions do not outlive their cause. One about a GPU may
/// cover a finding on another node.
pub fn stale<'a>(entries: &'a [Accept], findings: &'a [Finding]) -> impl Iterator<Item = Finding> + 'a {
    let of_image = entries
        .iter()
        .filter(|entry| entry.code.stage() == super::Stage::Image);
    of_image
        .filter(|entry| !findings.iter().any(|finding| entry.covers(finding)))
        .map(|entry| {
            let (code, name) = (entry.code, entry.subject.name());
            Finding::info(code, name)
                .observed(format!("no {code} finding for {name}"))
                .message(format!(
                    "the accept entry for {code} of {} {name} matched nothing",
                    entry.subject.key()
                ))
                .hint("Remove the entry from the manifest if its cause is gone.")
        })
}

/// Notes the reason in what is accepted, and makes it information.
pub(super) fn apply(entries: &[Accept], findings: &mut [Finding]) {
    if entries.is_empty() {
        return;
    }
    for finding in findings {
        if let Some(entry) = entries.iter().find(|entry| entry.covers(finding)) {
            finding.accepted = super::harmless(&entry.reason);
            finding.status = Status::Info;
        }
    }
}
