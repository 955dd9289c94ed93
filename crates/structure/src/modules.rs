//! The modules of a crate, and which of them name items of which others.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use crate::imports::Imports;

/// A module, from the root of its crate: the root itself is empty.
pub type Module = Vec<String>;

/// The modules of a crate that have files of their own.
#[derive(Clone, Debug, Default)]
pub struct Modules(BTreeMap<Module, Imports>);

/// Which modules each module names items of.
pub type Graph = BTreeMap<Module, BTreeSet<Module>>;

impl Modules {
    /// Reads the modules below a folder, whose root is `lib.rs` or `main.rs`.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let mut modules = Self::default();
        modules.read_folder(folder, &Module::new())?;
        let tests: Vec<Module> = modules
            .0
            .iter()
            .flat_map(|(module, imports)| {
                imports
                    .test_modules
                    .iter()
                    .map(|name| [module.as_slice(), std::slice::from_ref(name)].concat())
            })
            .collect();
        modules.0.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        Ok(modules)
    }

    fn read_folder(&mut self, folder: &Path, module: &Module) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
            let child = [module.as_slice(), &[name.to_owned()]].concat();
            if path.is_dir() {
                self.read_folder(&path, &child)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                // A `main.rs` beside a `lib.rs` is a crate of its own, which names the other by its name.
                let is_root = match name {
                    "mod" | "lib" => true,
                    "main" if module.is_empty() && folder.join("lib.rs").is_file() => continue,
                    "main" => module.is_empty(),
                    _ => false,
                };
                let imports = Imports::of(&std::fs::read_to_string(&path)?);
                self.0.insert(if is_root { module.clone() } else { child }, imports);
            }
        }
        Ok(())
    }

    /// Returns the graph of the modules.
    pub fn graph(&self) -> Graph {
        let edges = self.0.iter().map(|(module, imports)| {
            let named = imports.paths.iter().filter_map(|path| self.resolve(module, path));
            (module.clone(), named.filter(|named| named != module).collect())
        });
        edges.collect()
    }

    /// The module that defines what a path names, if it is a module of this crate.
    fn resolve(&self, from: &Module, path: &[String]) -> Option<Module> {
        let (mut at, mut rest) = (from.clone(), path);
        match rest.first()?.as_str() {
            "crate" => {
                at.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while let Some(("super", after)) =
                    rest.split_first().map(|(first, after)| (first.as_str(), after))
                {
                    at.pop()?;
                    rest = after;
                }
            }
            child => self.child(&at, child).map(drop)?,
        }
        while let Some((first, after)) = rest.split_first() {
            let Some(child) = self.child(&at, first) else { break };
            (at, rest) = (child, after);
        }
        let export = |name: &String| self.0.get(&at)?.exports.iter().find(|(exported, _)| exported == name);
        match rest.first().and_then(export) {
            Some((_, path)) if &at != from => self.resolve(&at, path).or(Some(at)),
            _ => Some(at),
        }
    }

    fn child(&self, of: &Module, name: &str) -> Option<Module> {
        let child = [of.as_slice(), &[name.to_owned()]].concat();
        self.0.contains_key(&child).then_some(child)
    }
}

/// Writes a module as a path.
pub fn name(module: &Module) -> String {
    if module.is_empty() { "crate".to_owned() } else { module.join("::") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(files: &[(&str, &str)]) -> Vec<String> {
        let modules = files.iter().map(|(module, text)| {
            (
                module.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect(),
                Imports::of(text),
            )
        });
        let graph = Modules(modules.collect()).graph();
        let edges =
            graph.iter().flat_map(|(from, to)| to.iter().map(|to| format!("{} -> {}", name(from), name(to))));
        edges.collect()
    }

    #[test]
    fn paths_lead_to_the_innermost_module_that_has_a_file() {
        let files = [
            ("", "mod a; mod b;"),
            ("a", "use crate::b::c::D; use std::io;"),
            ("b", ""),
            ("b::c", "use super::E;"),
        ];
        assert_eq!(graph(&files), ["a -> b::c", "b::c -> b"]);
    }

    #[test]
    fn a_name_that_is_re_exported_is_of_the_module_that_defines_it() {
        let files = [("", "pub use a::A;"), ("a", ""), ("b", "use crate::A;")];
        assert_eq!(graph(&files), ["b -> a"]);
        let files = [("", "pub use a::A;\nfn f(a: A) {}"), ("a", "")];
        assert_eq!(graph(&files), ["crate -> a"], "the root uses what it re-exports");
    }

    #[test]
    fn a_parent_names_its_children_without_crate() {
        let files = [("a", "mod b; fn f() { b::g() }"), ("a::b", "use super::H;")];
        assert_eq!(graph(&files), ["a -> a::b", "a::b -> a"]);
    }
}
