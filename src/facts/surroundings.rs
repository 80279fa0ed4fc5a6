//! What compilers of kernels need around them at run time: a C compiler, a folder for what they compile, a user's name.

use serde::Serialize;

use super::read::object;

/// Looked at where triton or torch is installed; empty where nothing is amiss.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Surroundings {
    /// the C compiler that triton starts
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compiler: Option<String>,
    /// what `CC` names and is not there
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent_cc: Option<String>,
    /// the `Python.h` that is not there
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent_header: Option<String>,
    /// caches that cannot be written
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<UnwritableCache>,
    /// the user ID, where it has no name
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nameless_user: Option<u32>,
    /// variables that name what is not there, or what the software refuses
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<WrongVariable>,
}

/// A folder for compiled code that cannot be made or written.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct UnwritableCache {
    /// whose: `triton`, `inductor`, `CUDA`
    pub of: String,
    /// the folder
    pub path: String,
    /// the variable that names it, or would
    pub variable: String,
    /// the variable does name it
    pub named: bool,
    /// why it cannot be written
    pub reason: String,
}

/// A variable that leads to an error, or slows things down.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct WrongVariable {
    /// which
    pub name: String,
    /// its value, or the part that is wrong
    pub value: String,
    /// what is wrong with it
    pub problem: String,
}

object!(Surroundings {
    compiler,
    absent_cc,
    absent_header,
    caches,
    nameless_user,
    variables
});
object!(UnwritableCache {
    of,
    path,
    variable,
    named,
    reason
});
object!(WrongVariable { name, value, problem });
