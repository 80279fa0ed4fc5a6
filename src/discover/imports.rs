//! By which name a distribution with compiled libraries is imported.

use std::path::Path;

use super::{installed, record, wheels};
use crate::facts::Distribution;

/// The modules whose import loads the libraries in `paths`, which `dist` has brought: the first package on the way to each
/// of them, or a module that stands beside the packages. Where that gives none, the packages that the metadata lists.
pub fn of(dist: &Distribution, paths: &[&str]) -> Vec<String> {
    let Some(site) = Path::new(&dist.path).parent() else {
        return Vec::new();
    };
    let own = dist.name.replace('-', "_");
    let text = installed::record_text(Path::new(&dist.path));
    let listed: Vec<String> = match record::parse(&text).packages {
        packages if packages.is_empty() => wheels::top_level(dist),
        packages => packages.iter().map(ToString::to_string).collect(),
    };
    let listed: Vec<String> = listed
        .into_iter()
        .filter(|name| !name.is_empty() && is_package(&site.join(name)))
        .collect();
    let mut packages: Vec<String> = Vec::new();
    for path in paths {
        let below = Path::new(path).strip_prefix(site).ok();
        if let Some(name) = below.and_then(|below| package(site, below))
            && !packages.contains(&name)
        {
            packages.push(name);
        }
    }
    if packages.is_empty() {
        packages = listed;
    }
    if packages.is_empty() {
        packages = paths.iter().filter_map(|path| module(site, path)).collect();
    }
    // Of several, the one that is called like the distribution imports the others.
    match packages.iter().find(|name| name.eq_ignore_ascii_case(&own)) {
        Some(name) => vec![name.clone()],
        None => packages,
    }
}

/// `a` of `a/b/c.so`; `a.b` where `a` is a namespace.
fn package(site: &Path, below: &Path) -> Option<String> {
    let mut folder = site.to_path_buf();
    let mut name = String::new();
    for part in below.parent()?.components().take(4) {
        let part = part.as_os_str().to_str()?;
        folder.push(part);
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(part);
        if is_package(&folder) {
            return Some(name);
        }
    }
    None
}

fn is_package(folder: &Path) -> bool {
    ["__init__.py", "__init__.pyc"]
        .iter()
        .any(|name| folder.join(name).is_file())
}

/// `x` of `x.cpython-311-x86_64-linux-gnu.so` beside the packages.
fn module(site: &Path, path: &str) -> Option<String> {
    let path = Path::new(path);
    let name = path.file_name()?.to_str()?.split('.').next()?;
    (path.parent() == Some(site)).then(|| name.to_string())
}

#[cfg(test)]
mod tests;
