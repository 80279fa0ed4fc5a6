//! Why the loader takes the files that it lists, and which copies of wheels it leaves aside.
//!
//! The list itself is the loader's word; here its search order is only followed far enough to name the reason.
//! Source: ld.so(8): the DT_RPATH of the object that needs the library and of those that led to it, unless that object
//! has a DT_RUNPATH; LD_LIBRARY_PATH; its DT_RUNPATH; ld.so.cache and the default folders. A library that is loaded
//! under the same name already is taken before any search.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{DRIVER, Listed, Listing, search, symbols};
use crate::discover::bytes::RandomFile;
use crate::discover::links::Links;
use crate::discover::sample::same_contents;
use crate::discover::{elf, files, libraries};
use crate::facts::{FoundBy, Library, LibraryKind, LibraryOrigin, LoadedObject, ShadowedCopy};
use crate::processor::OWN;

/// ldconfig's settings.
pub const CONF: &str = "/etc/ld.so.conf";
/// Objects that need a library are named up to this many.
const MAX_NEEDED_BY: usize = 4;

/// Wheels' copies of a library that nothing maps are named up to this many.
const MAX_COPIES: usize = 4;

/// What the explanation rests on, beside the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grounds {
    /// the interpreter, symbolic links followed
    pub program: PathBuf,
    /// the modules that were preloaded
    pub modules: Vec<String>,
    /// `sys.path`'s folders with distributions
    pub site_packages: Vec<String>,
    /// LD_LIBRARY_PATH
    pub library_path: Option<String>,
    /// `/etc/ld.so.conf`
    pub conf: PathBuf,
}

/// A copy of libcudart or libnvrtc that the loader would map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MappedRuntime {
    /// which library
    pub kind: LibraryKind,
    /// the path that the loader would map
    pub path: String,
    /// the same with symbolic links followed
    pub real: String,
    /// the file is the one at this position of the libraries that are known
    pub known: Option<usize>,
}

/// The list with its reasons.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Explained {
    /// in the loader's order
    pub objects: Vec<LoadedObject>,
    /// every copy of the runtime libraries among them
    pub runtimes: Vec<MappedRuntime>,
    /// stubs of libcuda in folders that the loader searches
    pub stubs: Vec<String>,
    /// as [`crate::facts::LoaderRun::searched`]
    pub searched: Vec<String>,
}

/// Reads what the listed files say of themselves. `libraries` are those that are known already.
pub fn explain(listing: &Listing, grounds: &Grounds, libraries: &[Library]) -> Explained {
    let mut links = Links::default();
    let graph = Graph::new(listing, grounds, &mut links);
    let explained = listing.objects.iter().map(|l| graph.object(l, &mut links));
    let objects: Vec<LoadedObject> = explained.collect();
    Explained {
        runtimes: runtimes(&objects, libraries),
        objects,
        stubs: stubs(grounds.library_path.as_deref(), &grounds.conf),
        searched: graph.outside,
    }
}

/// A mapped file, and what it says of itself.
struct Node {
    name: String,
    path: PathBuf,
    needed: Vec<String>,
    soname: Option<String>,
    rpath: Vec<Folder>,
    /// `None` where it has none: an empty one still switches DT_RPATH off
    runpath: Option<Vec<Folder>>,
    /// the node on whose behalf it was loaded; the program's own is the program
    parent: usize,
}

/// A folder that the loader searches.
struct Folder {
    path: PathBuf,
    /// what is in it where it belongs to a wheel, sorted; nothing else is listed
    names: Rc<Vec<String>>,
}

impl Folder {
    fn holds(&self, name: &str) -> bool {
        self.names.binary_search_by(|n| n.as_str().cmp(name)).is_ok()
    }
}

/// Lists each folder of site-packages once: torch's libraries all have the same RPATH, and lead to the folders of NVIDIA's
/// wheels by many paths.
struct Folders<'l> {
    links: &'l mut Links,
    sites: Vec<PathBuf>,
    /// those that lie in none of them
    outside: Vec<String>,
    known: BTreeMap<PathBuf, Rc<Vec<String>>>,
    /// the same by the folders' own paths
    listed: BTreeMap<PathBuf, Rc<Vec<String>>>,
}

impl Folders<'_> {
    fn take(&mut self, path: PathBuf) -> Folder {
        let names = match self.known.get(&path) {
            Some(names) => Rc::clone(names),
            None => {
                let real = self.links.follow(&path);
                let is_inside = |path: &PathBuf| self.sites.iter().any(|site| path.starts_with(site));
                if !is_inside(real.as_ref().unwrap_or(&path)) {
                    self.outside.push(path.to_string_lossy().into_owned());
                }
                let names = real.filter(is_inside).map(|real| self.list(real));
                let names = names.unwrap_or_default();
                self.known.insert(path.clone(), Rc::clone(&names));
                names
            }
        };
        Folder { path, names }
    }

    fn list(&mut self, real: PathBuf) -> Rc<Vec<String>> {
        if let Some(names) = self.listed.get(&real) {
            return Rc::clone(names);
        }
        let entries = files::list(&real).unwrap_or_default();
        let names = entries.iter().filter_map(|e| e.text().map(str::to_string));
        let names = Rc::new(names.collect());
        self.listed.insert(real, Rc::clone(&names));
        names
    }
}

struct Graph<'a> {
    grounds: &'a Grounds,
    /// the program, then the listed files in their order
    nodes: Vec<Node>,
    library_path: Vec<PathBuf>,
    /// NVIDIA's `nvidia/*/lib`
    nvidia: Vec<Folder>,
    /// folders of RPATHs and RUNPATHs that lie outside of site-packages
    outside: Vec<String>,
}

impl<'a> Graph<'a> {
    fn new(listing: &Listing, grounds: &'a Grounds, links: &mut Links) -> Self {
        let sites = grounds.site_packages.iter();
        let mut folders = Folders {
            sites: sites.filter_map(|site| links.follow(Path::new(site))).collect(),
            outside: Vec::new(),
            known: BTreeMap::new(),
            listed: BTreeMap::new(),
            links,
        };
        let name = grounds.program.to_string_lossy();
        let mut nodes = vec![Node::read(&name, &grounds.program, &mut folders)];
        for listed in &listing.objects {
            if let Some(path) = &listed.path {
                nodes.push(Node::read(&listed.name, Path::new(path), &mut folders));
            }
        }
        // Breadth first is the loader's order, so the first object that needs a name is the one that it looked for.
        let parents: Vec<usize> = nodes
            .iter()
            .map(|node| nodes.iter().position(|n| n.needs(&node.name)).unwrap_or(0))
            .collect();
        for (node, parent) in nodes.iter_mut().zip(parents) {
            // The driver is preloaded by its name: the program's search.
            let preloaded = node.name == DRIVER || grounds.modules.contains(&node.name);
            node.parent = if preloaded { 0 } else { parent };
        }
        Self {
            nvidia: nvidia(grounds, &mut folders),
            outside: folders.outside,
            grounds,
            nodes,
            library_path: grounds
                .library_path
                .iter()
                .flat_map(|value| value.split([':', ';']))
                .filter(|folder| !folder.is_empty())
                .map(PathBuf::from)
                .collect(),
        }
    }

    fn object(&self, listed: &Listed, links: &mut Links) -> LoadedObject {
        let name = &listed.name;
        let needed_by = self.nodes.iter().filter(|n| n.needs(name)).take(MAX_NEEDED_BY);
        let mut object = LoadedObject {
            name: name.clone(),
            path: listed.path.clone(),
            needed_by: needed_by.map(|n| n.path.to_string_lossy().into_owned()).collect(),
            ..LoadedObject::default()
        };
        let mapped = listed.path.as_deref().map(Path::new);
        if let Some(path) = mapped {
            let real = links.follow(path).map(|real| real.to_string_lossy().into_owned());
            object.real = real.filter(|real| Some(real) != listed.path.as_ref());
        }
        if name.contains('/') {
            return object;
        }
        object.found_by = mapped.and_then(|path| self.found_by(name, path));
        object.shadowed = self.shadowed(name, mapped);
        object
    }

    /// The objects whose DT_RPATH counts for what `node` needs: itself and those that led to it, then the program.
    fn rpath_chain(&self, node: usize) -> impl Iterator<Item = &Node> {
        let has_runpath = self.nodes.get(node).is_none_or(|n| n.runpath.is_some());
        let mut next = (!has_runpath).then_some(node);
        // Parents come earlier in the list; but a damaged file may say anything, so the steps are counted.
        std::iter::from_fn(move || {
            let node = self.nodes.get(next?)?;
            next = (next != Some(node.parent)).then_some(node.parent);
            Some(node)
        })
        .take(self.nodes.len())
    }

    fn found_by(&self, name: &str, path: &Path) -> Option<FoundBy> {
        let index = self.nodes.iter().position(|n| n.name == name && n.path == path)?;
        let parent = self.nodes.get(index)?.parent;
        let folder = path.parent()?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        for node in self.rpath_chain(parent) {
            if let Some(entry) = entry_of(paths(&node.rpath), folder) {
                return Some(FoundBy::Rpath {
                    of: text(&node.path),
                    folder: text(entry),
                });
            }
        }
        if let Some(entry) = entry_of(self.library_path.iter().map(PathBuf::as_path), folder) {
            return Some(FoundBy::LibraryPath { folder: text(entry) });
        }
        let parent = self.nodes.get(parent)?;
        let runpath = parent.runpath.as_deref().unwrap_or_default();
        Some(match entry_of(paths(runpath), folder) {
            Some(entry) => FoundBy::Runpath {
                of: text(&parent.path),
                folder: text(entry),
            },
            None => FoundBy::System,
        })
    }

    /// Wheels' copies of a library that are not the mapped file.
    fn shadowed(&self, name: &str, mapped: Option<&Path>) -> Vec<ShadowedCopy> {
        let mut copies: Vec<ShadowedCopy> = Vec::new();
        let mut add = |path: PathBuf, wanted_by: Option<&Node>| {
            let path_text = path.to_string_lossy().into_owned();
            // The same hash in the name is the same content (auditwheel puts it there): no other copy.
            let same_content =
                mapped.is_some_and(|m| m.file_name() == path.file_name()) && has_content_hash(name);
            let same = mapped.is_some_and(|m| same_content || is_same_file(m, &path));
            if !same && path.is_file() && copies.iter().all(|c| c.path != path_text) {
                copies.push(ShadowedCopy {
                    same: mapped.is_some_and(|mapped| same_contents(mapped, &path)),
                    torch_opens: mapped.is_none() && symbols::torch_names(&self.grounds.modules, name),
                    path: path_text,
                    wanted_by: wanted_by.map(|n| n.path.to_string_lossy().into_owned()),
                    ..ShadowedCopy::default()
                });
            }
        };
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, n)| n.needs(name)) {
            let inherited = self.rpath_chain(index).flat_map(|n| &n.rpath);
            let mut own = inherited.chain(node.runpath.iter().flatten());
            if let Some(folder) = own.find(|folder| folder.holds(name)) {
                add(folder.path.join(name), Some(node));
            }
        }
        let in_wheels = mapped.is_some_and(|path| {
            let sites = &self.grounds.site_packages;
            sites.iter().any(|site| path.starts_with(site))
        });
        // Where none would be mapped, whoever opens one by its path chooses among all.
        let most = if mapped.is_some() { 1 } else { MAX_COPIES };
        if !in_wheels {
            let folders = self.nvidia.iter().filter(|folder| folder.holds(name));
            folders
                .take(most)
                .for_each(|folder| add(folder.path.join(name), None));
        }
        if let Some(mapped) = mapped {
            self.compare(name, mapped, &mut copies);
        }
        copies
    }

    /// Whether the file in front has the symbols that are needed. Healthy images have no copies to compare.
    fn compare(&self, name: &str, mapped: &Path, copies: &mut [ShadowedCopy]) {
        let paths = |wanted: &dyn Fn(&Node) -> bool| -> Vec<&Path> {
            let nodes = self.nodes.iter().filter(|node| wanted(node));
            nodes.map(|node| node.path.as_path()).collect()
        };
        for copy in copies.iter_mut().filter(|copy| !copy.same) {
            if !symbols::torch_preloads(&self.grounds.modules, name, &copy.path) {
                symbols::compare(copy, mapped, &paths(&|node| node.needs(name)), &paths(&|_| true));
            }
            // One is enough to fail; the same file may be listed under another path as well.
            if copy.missing_symbol.is_some() {
                break;
            }
        }
    }
}

impl Node {
    fn read(name: &str, path: &Path, known: &mut Folders<'_>) -> Self {
        let _going = crate::discover::reading::begin(path);
        // What cannot be read explains nothing; that the loader refuses it is the loader's to say.
        let dynamic = RandomFile::open(path)
            .ok()
            .and_then(|file| elf::dynamic(&file).ok())
            .unwrap_or_default();
        let origin = path.parent().unwrap_or(Path::new("/"));
        let mut folders = |text: &str| {
            let paths = search::of_object(text, origin).into_iter();
            paths.map(|path| known.take(path)).collect::<Vec<_>>()
        };
        Self {
            name: name.to_string(),
            path: path.to_path_buf(),
            rpath: dynamic.rpath.as_deref().map(&mut folders).unwrap_or_default(),
            runpath: dynamic.runpath.as_deref().map(&mut folders),
            needed: dynamic.needed,
            soname: dynamic.soname,
            parent: 0,
        }
    }

    fn needs(&self, name: &str) -> bool {
        self.needed.iter().any(|needed| needed == name) && self.soname.as_deref() != Some(name)
    }
}

/// The entry in whose folder, or in whose folder for a better processor, a file was found.
fn entry_of<'e>(mut entries: impl Iterator<Item = &'e Path>, folder: &Path) -> Option<&'e Path> {
    let below = |entry: &Path| {
        let rest = folder.strip_prefix(entry).ok()?;
        let first = rest.components().next().map(|c| c.as_os_str());
        Some(first.is_none_or(|first| OWN.better.iter().any(|better| first == *better)))
    };
    entries.find(|entry| below(entry) == Some(true))
}

fn paths(folders: &[Folder]) -> impl Iterator<Item = &Path> {
    folders.iter().map(|folder| folder.path.as_path())
}

/// NVIDIA's wheels put their libraries into `nvidia/PART/lib`.
fn nvidia(grounds: &Grounds, folders: &mut Folders<'_>) -> Vec<Folder> {
    let mut found = Vec::new();
    for site in &grounds.site_packages {
        let root = Path::new(site).join("nvidia");
        for part in files::list(&root).unwrap_or_default() {
            if part.may_be_dir() {
                found.push(folders.take(root.join(part.name).join("lib")));
            }
        }
    }
    found
}

/// `libcudart-8774224f.so.12.4.127`, `libcudart.41118559.so.12`: eight hexadecimal digits before `.so`.
fn has_content_hash(name: &str) -> bool {
    let Some((stem, _)) = name.split_once(".so") else {
        return false;
    };
    let hash = stem.rsplit(['-', '.']).next().unwrap_or_default();
    hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A file by its device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|m| (m.dev(), m.ino()))
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    a == b || identity(a).is_some_and(|id| Some(id) == identity(b))
}

fn runtimes(objects: &[LoadedObject], known: &[Library]) -> Vec<MappedRuntime> {
    let files = known
        .iter()
        .map(|l| l.path.contains('/').then(|| Path::new(&l.path)));
    let known: Vec<_> = files.map(|path| (path, path.and_then(identity))).collect();
    objects
        .iter()
        .filter_map(|object| {
            let path = object.path.as_ref()?;
            let kind = LibraryKind::of_file(&object.name)?;
            let of_object = identity(Path::new(path));
            let same = |(other, identity): &(Option<&Path>, Option<(u64, u64)>)| {
                *other == Some(Path::new(path)) || (identity.is_some() && *identity == of_object)
            };
            Some(MappedRuntime {
                kind,
                path: path.clone(),
                real: object.real.clone().unwrap_or_else(|| path.clone()),
                known: known.iter().position(same),
            })
        })
        .collect()
}

/// Stubs of libcuda on LD_LIBRARY_PATH or in the folders of ld.so.conf.
pub fn stubs(library_path: Option<&str>, conf: &Path) -> Vec<String> {
    let listed = library_path.iter().flat_map(|v| v.split([':', ';']));
    let mut folders: Vec<PathBuf> = listed.map(PathBuf::from).collect();
    folders.extend(conf_folders(conf, 0));
    folders.retain(|folder| {
        folder
            .components()
            .next_back()
            .is_some_and(|c| c.as_os_str() == "stubs")
    });
    let mut found: Vec<String> = Vec::new();
    for folder in folders {
        // libcuda.so is what the toolkit ships, libcuda.so.1 what somebody made of it.
        let mut paths = [DRIVER, "libcuda.so"].iter().map(|name| folder.join(name));
        if let Some(path) = paths.find(|path| path.is_file()) {
            let text = path.to_string_lossy().into_owned();
            if !found.contains(&text) {
                found.push(text);
            }
        }
    }
    found
}

/// The folders that ld.so.conf names, `include` followed where it ends in `/*.conf`, as all distributions have it.
/// Source: ldconfig(8).
fn conf_folders(conf: &Path, depth: u8) -> Vec<PathBuf> {
    let text = files::read_text(conf, files::SMALL_FILE).unwrap_or_default();
    let mut folders = Vec::new();
    for line in conf_lines(&text) {
        match line {
            ConfLine::Include(folder) if depth == 0 => {
                let folder = conf.parent().unwrap_or(Path::new("/")).join(folder);
                for entry in files::list(&folder).unwrap_or_default() {
                    if entry.text().is_some_and(|name| name.ends_with(".conf")) {
                        folders.extend(conf_folders(&folder.join(entry.name), 1));
                    }
                }
            }
            ConfLine::Include(_) => {}
            ConfLine::Folder(folder) => folders.push(PathBuf::from(folder)),
        }
    }
    folders
}

/// A line of ld.so.conf that says something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfLine<'a> {
    /// a folder to search, which is an absolute path
    Folder(&'a str),
    /// `include FOLDER/*.conf`, the folder alone
    Include(&'a str),
}

/// Reads ld.so.conf.
pub fn conf_lines(text: &str) -> impl Iterator<Item = ConfLine<'_>> {
    text.lines().filter_map(|line| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let pattern = line
            .strip_prefix("include")
            .filter(|rest| rest.starts_with([' ', '\t']));
        match pattern {
            Some(pattern) => pattern.trim().strip_suffix("/*.conf").map(ConfLine::Include),
            None => line.starts_with('/').then_some(ConfLine::Folder(line)),
        }
    })
}

/// Takes the copies that the loader would map into the libraries to be judged: a toolkit's copy that it maps is no
/// longer one that nothing loads, and an unknown one is added without an answer.
pub fn adopt(libraries: &mut Vec<Library>, runtimes: &[MappedRuntime], wanted: &[libraries::Wanted]) {
    for runtime in runtimes {
        if let Some(known) = runtime.known {
            if let Some(library) = libraries
                .get_mut(known)
                .filter(|l| l.origin == LibraryOrigin::Toolkit)
            {
                library.origin = LibraryOrigin::Loader;
            }
            continue;
        }
        // What the loader found by its SONAME says in its answer which file that was.
        let answered = |l: &Library| {
            let answer = l.answer.as_ref().and_then(|a| a.path.as_ref());
            answer.is_some_and(|path| *path == runtime.path || *path == runtime.real)
        };
        let is_wanted = wanted.iter().any(|w| w.kind == runtime.kind);
        if is_wanted && !libraries.iter().any(|l| l.path == runtime.path || answered(l)) {
            libraries.push(Library {
                kind: runtime.kind,
                path: runtime.path.clone(),
                origin: LibraryOrigin::Loader,
                answer: None,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::LibraryAnswer;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn folders_for_better_processors_belong_to_their_entry() {
        let entries = ["/a", "/b/../c"].map(Path::new);
        let found = |folder: &str| entry_of(entries.into_iter(), Path::new(folder)).and_then(Path::to_str);
        assert_eq!(found("/a"), Some("/a"));
        assert_eq!(found("/a/"), Some("/a"));
        assert_eq!(found("/b/../c"), Some("/b/../c"));
        assert_eq!(found("/a/glibc-hwcaps/x86-64-v3"), Some("/a"));
        assert_eq!(found("/a/other"), None);
        assert_eq!(found("/ab"), None);
    }

    #[test]
    fn names_with_a_hash_of_the_content() {
        for (name, has) in [
            ("libcudart-8774224f.so.12.4.127", true),
            ("libcudart.41118559.so.12", true),
            ("libgomp-a34b3233.so.1", true),
            ("libcudart.so.12", false),
            ("libcudart-8774224.so.12", false),
            ("libnvrtc-builtins.so.12.4", false),
            ("", false),
        ] {
            assert_eq!(has_content_hash(name), has, "{name}");
        }
    }

    #[test]
    fn stubs_in_every_folder_that_is_searched() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for folder in ["one/stubs", "two/stubs", "three/stubs", "plain"] {
            fs::create_dir_all(root.join(folder)).unwrap();
            fs::write(root.join(folder).join("libcuda.so"), "").unwrap();
        }
        fs::write(root.join("two/stubs/libcuda.so.1"), "").unwrap();
        fs::create_dir_all(root.join("conf.d")).unwrap();
        let at = |path: &str| root.join(path).to_str().unwrap().to_string();
        let conf = root.join("ld.so.conf");
        fs::write(
            &conf,
            format!(
                "# {}\ninclude conf.d/*.conf\n{}\n",
                at("one/stubs"),
                at("two/stubs")
            ),
        )
        .unwrap();
        fs::write(
            root.join("conf.d/cuda.conf"),
            format!("{}/ # x\n", at("three/stubs")),
        )
        .unwrap();
        symlink(&conf, root.join("conf.d/round.conf")).unwrap();
        let grounds = Grounds {
            program: PathBuf::new(),
            modules: Vec::new(),
            site_packages: Vec::new(),
            library_path: Some(format!("::{}:{}", at("plain"), at("absent/stubs"))),
            conf,
        };
        let mut found = stubs(grounds.library_path.as_deref(), &grounds.conf);
        found.sort();
        assert_eq!(
            found,
            [at("three/stubs/libcuda.so"), at("two/stubs/libcuda.so.1")]
        );
        let grounds = Grounds {
            library_path: Some(at("one/stubs")),
            conf: root.join("absent"),
            ..grounds
        };
        assert_eq!(
            stubs(grounds.library_path.as_deref(), &grounds.conf),
            [at("one/stubs/libcuda.so")]
        );
    }

    #[test]
    fn copies_that_only_the_loader_knew_are_added_once() {
        let library = |path: &str, origin, answered: Option<&str>| Library {
            kind: LibraryKind::Cudart,
            path: path.into(),
            origin,
            answer: answered.map(|path| LibraryAnswer {
                path: Some(path.into()),
                ..LibraryAnswer::default()
            }),
        };
        let mapped = |kind, path: &str, known| MappedRuntime {
            kind,
            path: path.into(),
            real: format!("{path}.4.127"),
            known,
        };
        let mut all = vec![
            library("/sp/w.so", LibraryOrigin::Wheel, None),
            library("/usr/local/cuda/t.so", LibraryOrigin::Toolkit, None),
            library(
                "libcudart.so.12",
                LibraryOrigin::Loader,
                Some("/usr/lib/s.so.4.127"),
            ),
        ];
        let before = all.clone();
        let cudart = LibraryKind::Cudart;
        let runtimes = [
            mapped(cudart, "/sp/w.so", Some(0)),
            mapped(cudart, "/usr/local/cuda/t.so", Some(1)),
            mapped(cudart, "/usr/lib/s.so", None),
            mapped(cudart, "/opt/new.so", None),
            mapped(cudart, "/opt/new.so", None),
            mapped(LibraryKind::Nvrtc, "/opt/nvrtc.so", None),
            mapped(cudart, "/opt/x.so", Some(99)),
        ];
        let wanted = [libraries::Wanted {
            kind: cudart,
            majors: vec![12],
        }];
        adopt(&mut all, &runtimes, &wanted);
        assert_eq!(all[0], before[0]);
        assert_eq!(
            all[1],
            library("/usr/local/cuda/t.so", LibraryOrigin::Loader, None)
        );
        assert_eq!(all[2], before[2]);
        assert_eq!(all[3..], [library("/opt/new.so", LibraryOrigin::Loader, None)]);
    }

    #[test]
    fn files_that_say_nothing_explain_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let grounds = Grounds {
            program: dir.path().join("python3"),
            modules: vec!["/sp/m.so".into()],
            site_packages: vec!["/sp".into()],
            library_path: None,
            conf: dir.path().join("absent"),
        };
        let listing = super::super::parse(b"\t/sp/m.so (0x1)\n\tx => /x (0x1)\n\ty => not found\n", b"");
        let explained = explain(&listing, &grounds, &[]);
        let found: Vec<_> = explained.objects.iter().map(|o| &o.found_by).collect();
        assert_eq!(found, [&None, &Some(FoundBy::System), &None]);
        assert!(explained.runtimes.is_empty() && explained.stubs.is_empty());
    }
}
