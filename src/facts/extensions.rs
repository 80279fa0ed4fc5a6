//! Whether the libraries of an environment find the symbols that they need of torch, of CUDA and of other frameworks.

use serde::Serialize;

use super::read::object;

/// The libraries in site-packages that need a framework or CUDA, as their dynamic sections say.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Extensions {
    /// their files, in order, but for alternatives of one that can be loaded
    pub libraries: Vec<String>,
    /// those of which something is not found, in the order of their paths
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unresolved: Vec<Extension>,
    /// those whose symbols could not be read
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// libraries that need an unresolved one
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dependents: Vec<String>,
    /// SONAMEs that were looked for where the loader looks for every program
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sought: Vec<String>,
    /// files outside of site-packages whose symbols counted
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<String>,
    /// copies of libnvrtc-builtins, which libnvrtc opens by the name of its release
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub builtins: Vec<String>,
}

/// A library of which something is not found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Extension {
    /// its file
    pub path: String,
    /// normalised name of the distribution that brought it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// it is a module that Python imports, by its PyInit function; others are opened by code of their package
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub module: bool,
    /// SONAMEs of frameworks or CUDA that are nowhere
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// SONAMEs of CUDA's libraries that it opens itself, by the names that stand in it, and that the loader would not find
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unopened: Vec<String>,
    /// a copy of the first of these that lies where the loader does not look
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<String>,
    /// how many symbols nothing defines
    pub undefined: u32,
    /// the first of them in the order of their names
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// what had to define it: a framework, such as `torch`, or a library of CUDA's by its SONAME
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// the C++ ABI that it was built for, where torch has the other one: `true` is the C++11 ABI
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cxx11_abi: Option<bool>,
}

object!(Extensions {
    libraries,
    unresolved,
    unread,
    dependents,
    sought,
    outside,
    builtins
});
object!(Extension {
    path,
    package,
    missing,
    unopened,
    elsewhere,
    undefined,
    symbol,
    provider,
    cxx11_abi;
    or_default module
});
