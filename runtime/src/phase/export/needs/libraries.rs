//! The libraries of a program, found where its dynamic loader looks.
//!
//! # Spec
//! `ld.so(8)` for glibc; for musl its manual, "Dynamic linker configuration".
//! glibc looks at the cache that `ldconfig` makes and not at `ld.so.conf`, so
//! this does the same. Variants for newer processors (`glibc-hwcaps`) are not
//! looked for: they stand beside the plain ones.

use std::collections::HashSet;

use super::image_files::{ImageFiles, Stop};
use super::problem::MissingLibrary;
use crate::cnb::env::Environment;
use crate::oci::elf::{Abi, Elf};
use crate::oci::files::Contents;

/// Libraries of one program; large ones have three hundred.
const MAX_LIBRARIES: usize = 5_000;

/// Whose rules apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loader {
    Glibc,
    Musl,
}

/// One search: the loader of one program in one environment.
pub(super) struct Search<'a> {
    files: &'a ImageFiles<'a>,
    loader: Loader,
    /// As the program names it.
    loader_name: &'a str,
    /// Clean.
    loader_path: &'a str,
    /// `LD_LIBRARY_PATH`, in parts.
    library_path: Vec<&'a str>,
    working_directory: &'a str,
}

/// A program or library that is in the process.
struct Loaded {
    /// Clean.
    path: String,
    elf: Elf,
    /// Who wanted it.
    parent: Option<usize>,
}

/// Directories as they are written, each with the path of the file that names it.
type Directories<'a> = Vec<(&'a str, &'a str)>;

impl<'a> Search<'a> {
    pub(super) fn new(
        files: &'a ImageFiles<'a>,
        environment: &'a Environment,
        working_directory: &'a str,
        loader_name: &'a str,
        loader_path: &'a str,
    ) -> Self {
        let is_musl = loader_name.rsplit('/').next().is_some_and(|name| name.starts_with("ld-musl-"));
        let library_path = environment
            .get("LD_LIBRARY_PATH")
            .and_then(|value| value.to_str())
            .filter(|value| !value.is_empty());
        Self {
            files,
            loader: if is_musl { Loader::Musl } else { Loader::Glibc },
            loader_name,
            loader_path,
            library_path: library_path.map(|value| value.split([':', ';']).collect()).unwrap_or_default(),
            working_directory,
        }
    }

    /// Every library that would not be found, in the order in which the loader would miss it.
    pub(super) fn missing(
        &self,
        program: &str,
        elf: &Elf,
        loader: Option<&Elf>,
    ) -> Result<Vec<MissingLibrary>, Stop> {
        Ok(self.load(program, elf, loader)?.1)
    }

    /// What would be loaded, the program first, and what would not be found.
    fn load(
        &self,
        program: &str,
        elf: &Elf,
        loader: Option<&Elf>,
    ) -> Result<(Vec<Loaded>, Vec<MissingLibrary>), Stop> {
        let mut names: HashSet<String> = HashSet::new();
        names.extend(self.loader_name.rsplit('/').next().map(str::to_owned));
        names.extend(loader.and_then(|loader| loader.soname.clone()));
        let system = self.system_directories(elf.abi)?;
        let cache = self.cache()?;
        let mut loaded = vec![Loaded { path: program.to_owned(), elf: elf.clone(), parent: None }];
        let mut missing: Vec<MissingLibrary> = Vec::new();
        let mut at = 0;
        while at < loaded.len() {
            for name in loaded[at].elf.needed.clone() {
                if loaded.len() > MAX_LIBRARIES || self.is_built_in(&name) || names.contains(&name) {
                    continue;
                }
                // Another library may know where to find what this one misses.
                if let Some((path, elf)) = self.find(&name, &loaded, at, &system, &cache)? {
                    names.insert(name);
                    if let Some(elf) = elf {
                        names.extend(elf.soname.clone());
                        loaded.push(Loaded { path, elf, parent: Some(at) });
                    }
                } else if missing.iter().all(|library| library.name != name) {
                    missing.push(MissingLibrary { name, needed_by: format!("/{}", loaded[at].path) });
                }
            }
            at += 1;
        }
        Ok((loaded, missing))
    }

    /// musl has these in the loader itself.
    fn is_built_in(&self, name: &str) -> bool {
        const NAMES: [&str; 7] = ["c.", "pthread.", "rt.", "m.", "dl.", "util.", "xnet."];
        let rest = name.strip_prefix("lib").filter(|_| self.loader == Loader::Musl);
        rest.is_some_and(|rest| NAMES.iter().any(|name| rest.starts_with(name)))
    }

    fn find(
        &self,
        name: &str,
        loaded: &[Loaded],
        by: usize,
        system: &[String],
        cache: &[(String, String)],
    ) -> Result<Option<(String, Option<Elf>)>, Stop> {
        let wanting = &loaded[by];
        let abi = loaded[0].elf.abi;
        if name.contains('/') {
            for path in self.expand(name, &wanting.path, abi) {
                if let Some(found) = self.fitting(&path, abi)? {
                    return Ok(Some(found));
                }
            }
            return Ok(None);
        }
        let (before, after) = self.own_directories(loaded, by);
        let of_environment = self.library_path.iter().map(|directory| (*directory, loaded[0].path.as_str()));
        for (directory, origin) in before.into_iter().chain(of_environment).chain(after) {
            for directory in self.expand(directory, origin, abi) {
                if let Some(found) = self.fitting(&format!("{directory}/{name}"), abi)? {
                    return Ok(Some(found));
                }
            }
        }
        if wanting.elf.no_default_directories {
            return Ok(None);
        }
        let cached = cache.iter().filter(|(file, _)| file == name).map(|(_, path)| path.clone());
        let usual = system.iter().map(|directory| format!("{directory}/{name}"));
        for path in cached.chain(usual) {
            if let Some(found) = self.fitting(&path, abi)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Directories that the file itself names, before and after those of the environment.
    fn own_directories<'b>(&self, loaded: &'b [Loaded], by: usize) -> (Directories<'b>, Directories<'b>) {
        fn parts<'b>(list: Option<&'b String>, file: &'b Loaded) -> impl Iterator<Item = (&'b str, &'b str)> {
            list.into_iter().flat_map(|list| list.split(':')).map(|part| (part, file.path.as_str()))
        }
        let chain =
            std::iter::successors(Some(&loaded[by]), |file| file.parent.map(|parent| &loaded[parent]));
        let wanting = &loaded[by];
        match self.loader {
            // Both kinds are the same, and inherited.
            Loader::Musl => {
                let own =
                    chain.flat_map(|file| parts(file.elf.runpath.as_ref().or(file.elf.rpath.as_ref()), file));
                (Vec::new(), own.collect())
            }
            Loader::Glibc if wanting.elf.runpath.is_some() => {
                (Vec::new(), parts(wanting.elf.runpath.as_ref(), wanting).collect())
            }
            Loader::Glibc => {
                let inherited = chain.filter(|file| file.elf.runpath.is_none());
                (inherited.flat_map(|file| parts(file.elf.rpath.as_ref(), file)).collect(), Vec::new())
            }
        }
    }

    /// Replaces `$ORIGIN` and the like; `file` is the one that says them. An
    /// empty or relative directory starts at the working directory.
    fn expand(&self, text: &str, file: &str, abi: Abi) -> Vec<String> {
        let origin = format!("/{}", file.rsplit_once('/').map_or("", |(directory, _)| directory));
        let replace = |text: &str, name: &str, value: &str| {
            text.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value)
        };
        let text = replace(text, "ORIGIN", &origin);
        let text = replace(&text, "PLATFORM", platform(abi));
        let multiarch = multiarch(abi).map(|name| format!("lib/{name}"));
        let values: Vec<&str> = ["lib", "lib64"].into_iter().chain(multiarch.as_deref()).collect();
        let texts = if text.contains("LIB") {
            values.iter().map(|value| replace(&text, "LIB", value)).collect()
        } else {
            vec![text]
        };
        let absolute = |text: String| {
            if text.starts_with('/') { text } else { format!("{}/{text}", self.working_directory) }
        };
        texts.into_iter().map(absolute).collect()
    }

    /// What is at a path, if it is for the same processors: others are passed over.
    fn fitting(&self, path: &str, abi: Abi) -> Result<Option<(String, Option<Elf>)>, Stop> {
        let found = self.files.elf(path)?;
        Ok(found.filter(|(_, elf)| elf.as_ref().is_none_or(|elf| elf.abi == abi)))
    }

    fn cache(&self) -> Result<Vec<(String, String)>, Stop> {
        if self.loader == Loader::Musl {
            return Ok(Vec::new());
        }
        Ok(match self.files.file("etc/ld.so.cache")? {
            Some((_, Contents::LibraryCache(entries))) => entries,
            _ => Vec::new(),
        })
    }

    fn system_directories(&self, abi: Abi) -> Result<Vec<String>, Stop> {
        match self.loader {
            Loader::Musl => {
                let file = self.loader_name.rsplit('/').next().and_then(|name| name.split(".so").next());
                let settings = format!("etc/{}.path", file.unwrap_or_default());
                let text = match self.files.file(&settings)? {
                    Some((_, Contents::Text(text))) => text,
                    _ => "/lib:/usr/local/lib:/usr/lib".to_owned(),
                };
                Ok(text.split([':', '\n']).filter(|part| !part.is_empty()).map(str::to_owned).collect())
            }
            // Distributions differ in which of these they have; none has libraries for others in them.
            Loader::Glibc => {
                let multiarch = multiarch(abi)
                    .into_iter()
                    .flat_map(|name| [format!("/lib/{name}"), format!("/usr/lib/{name}")]);
                let beside = self.loader_path.rsplit_once('/').map_or("", |(directory, _)| directory);
                let usual = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(str::to_owned);
                Ok(multiarch.chain(usual).chain([format!("/{beside}")]).collect())
            }
        }
    }
}

/// The name of the processors in directories of Debian and its kin.
fn multiarch(abi: Abi) -> Option<&'static str> {
    Some(match abi.name().as_str() {
        "amd64" => "x86_64-linux-gnu",
        "386" => "i386-linux-gnu",
        "arm64" => "aarch64-linux-gnu",
        "arm" => "arm-linux-gnueabihf",
        "ppc64le" => "powerpc64le-linux-gnu",
        "s390x" => "s390x-linux-gnu",
        "riscv64" => "riscv64-linux-gnu",
        "loong64" => "loongarch64-linux-gnu",
        _ => return None,
    })
}

/// What `$PLATFORM` is on the plainest machine of its kind.
fn platform(abi: Abi) -> &'static str {
    match abi.name().as_str() {
        "amd64" => "x86_64",
        "386" => "i686",
        "arm64" => "aarch64",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
