//! The paths that a source file names.

use std::collections::BTreeSet;

use crate::tokens::{Token, read};

/// A path that is relative to the module that names it, such as `["crate", "map", "State"]`.
pub type Path = Vec<String>;

/// What a source file names.
#[derive(Clone, Debug, Default)]
pub struct Imports {
    /// The paths that the file uses.
    pub paths: BTreeSet<Path>,
    /// The paths that the file re-exports, each with the name that it gets.
    pub exports: BTreeSet<(String, Path)>,
    /// The modules that the file declares for tests alone.
    pub test_modules: BTreeSet<String>,
}

impl Imports {
    /// Reads the source text of a file.
    pub fn of(text: &str) -> Self {
        let tokens = read(text);
        let mut reader =
            Reader { tokens: &tokens, at: 0, found: Self::default(), inline_modules: Vec::new(), depth: 0 };
        reader.file();
        let Self { mut paths, exports, test_modules } = reader.found;
        // A file that goes on to use a name which it re-exports has imported it.
        for (name, path) in &exports {
            if tokens.iter().filter(|token| token.is_word(name)).count() > 1 {
                paths.insert(path.clone());
            }
        }
        Self { paths, exports, test_modules }
    }
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    found: Imports,
    /// The depth of braces at which each module that is written in this file was opened.
    inline_modules: Vec<usize>,
    depth: usize,
}

impl Reader<'_> {
    fn file(&mut self) {
        while let Some(token) = self.tokens.get(self.at) {
            match token {
                Token::Symbol('#') if self.is_for_tests() => self.skip_item(),
                Token::Symbol('{') => self.depth += 1,
                Token::Symbol('}') => {
                    self.depth = self.depth.saturating_sub(1);
                    self.inline_modules.pop_if(|opened| *opened == self.depth);
                }
                Token::Word(word) if word == "mod" && self.is_symbol(2, '{') => {
                    self.inline_modules.push(self.depth);
                    self.at += 1;
                    continue;
                }
                Token::Word(word) if word == "use" && !self.is_symbol(1, '<') => {
                    self.use_line();
                    continue;
                }
                Token::Word(_) => {
                    self.path();
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Whether an attribute `#[cfg(test)]` begins here.
    fn is_for_tests(&self) -> bool {
        let attribute = ["[", "cfg", "(", "test", ")", "]"];
        let tokens = self.tokens.iter().skip(self.at + 1).take(attribute.len());
        tokens.len() == attribute.len()
            && tokens.zip(attribute).all(|(token, text)| match token {
                Token::Word(word) => word == text,
                Token::Symbol(symbol) => text.starts_with(*symbol),
                Token::PathSeparator => false,
            })
    }

    /// Goes on to the last token of the item that begins here, with its attributes.
    fn skip_item(&mut self) {
        let (mut depth, begin) = (0, self.at);
        while let Some(token) = self.tokens.get(self.at) {
            match token {
                Token::Symbol('{' | '(' | '[') => depth += 1,
                Token::Symbol(closing @ ('}' | ')' | ']')) => {
                    depth -= 1;
                    if depth == 0 && *closing == '}' {
                        return;
                    }
                }
                Token::Symbol(';') if depth == 0 => {
                    if let [.., module, Token::Word(name)] = &self.tokens[begin..self.at]
                        && module.is_word("mod")
                    {
                        self.found.test_modules.insert(name.clone());
                    }
                    return;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Reads a path in the code, if one of several parts begins here.
    fn path(&mut self) {
        let before = |n: usize| self.at.checked_sub(n).map(|before| &self.tokens[before]);
        let follows = before(1) == Some(&Token::PathSeparator);
        // The path of `pub(in path)` says who may name an item. It names none itself.
        let is_visibility = before(1).is_some_and(|token| token.is_word("in"))
            && before(2).is_some_and(|token| token.is_symbol('('));
        let mut path = Path::new();
        while let Some(Token::Word(word)) = self.tokens.get(self.at) {
            path.push(word.clone());
            self.at += 1;
            if self.tokens.get(self.at) != Some(&Token::PathSeparator) {
                break;
            }
            self.at += 1;
        }
        if path.len() > 1 && !follows && !is_visibility {
            self.add(path, None);
        }
    }

    /// Reads a `use` line.
    fn use_line(&mut self) {
        let before = self.at.checked_sub(1).map(|before| &self.tokens[before]);
        let exports = before.is_some_and(|token| token.is_word("pub") || token.is_symbol(')'));
        self.at += 1;
        self.use_tree(&Path::new(), exports);
    }

    fn use_tree(&mut self, prefix: &Path, exports: bool) {
        let mut path = prefix.clone();
        loop {
            match self.tokens.get(self.at) {
                Some(Token::Symbol('{')) => {
                    self.at += 1;
                    while !self.is_symbol(0, '}') && self.at < self.tokens.len() {
                        self.use_tree(&path, exports);
                        self.at += usize::from(self.is_symbol(0, ','));
                    }
                    self.at += 1;
                    return;
                }
                Some(Token::Word(word)) if word == "as" => {
                    self.at += 1;
                    let Some(Token::Word(name)) = self.tokens.get(self.at) else { return };
                    self.at += 1;
                    return self.add(path, exports.then(|| name.clone()));
                }
                Some(Token::Word(word)) => {
                    if word != "self" || path.is_empty() {
                        path.push(word.clone());
                    }
                    self.at += 1;
                }
                Some(Token::PathSeparator | Token::Symbol('*')) => self.at += 1,
                _ => {
                    let name = path.last().filter(|_| exports).cloned();
                    return self.add(path, name);
                }
            }
        }
    }

    /// Adds a path: a re-export where there is a name for it.
    fn add(&mut self, mut path: Path, export: Option<String>) {
        // In a module that is written in this file, `super` is this file.
        for _ in &self.inline_modules {
            if path.first().is_some_and(|first| first == "super") {
                path[0] = "self".to_owned();
                if path.get(1).is_some_and(|second| second == "super") {
                    path.remove(0);
                }
            }
        }
        match export {
            Some(name) => drop(self.found.exports.insert((name, path))),
            None => drop(self.found.paths.insert(path)),
        }
    }

    fn is_symbol(&self, ahead: usize, symbol: char) -> bool {
        self.tokens.get(self.at + ahead).is_some_and(|token| token.is_symbol(symbol))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        Imports::of(text).paths.iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn use_lines_are_read_with_their_groups() {
        let text = "use crate::{a, b::{C, self}, d::*};\nuse super::e as f;";
        assert_eq!(paths(text), ["crate::a", "crate::b", "crate::b::C", "crate::d", "super::e"]);
    }

    #[test]
    fn paths_in_code_count_like_use_lines() {
        assert_eq!(
            paths("fn a() -> crate::b::C { super::d(); e.f(); g::h::<i::J>() }"),
            ["crate::b::C", "g::h", "i::J", "super::d"]
        );
    }

    #[test]
    fn the_path_of_a_visibility_is_no_import() {
        assert_eq!(
            paths("pub(in crate::a) fn b(c: crate::d::E) { for f in crate::g::h() {} }"),
            ["crate::d::E", "crate::g::h"]
        );
    }

    #[test]
    fn what_is_for_tests_does_not_count() {
        let text = "use crate::a;\n#[cfg(test)]\nuse crate::b;\n#[cfg(test)]\nmod tests { use super::*; fn c() { crate::d::e() } }\nuse crate::f;";
        assert_eq!(paths(text), ["crate::a", "crate::f"]);
        let imports = Imports::of("#[cfg(test)]\nmod scenes;\nmod room;");
        assert_eq!(imports.test_modules.into_iter().collect::<Vec<_>>(), ["scenes"]);
    }

    #[test]
    fn a_re_export_is_an_import_only_where_the_name_is_used() {
        let imports = Imports::of("pub use a::B;\npub(crate) use c::{D, E as F};\nfn g(d: D) {}");
        assert_eq!(imports.paths.into_iter().collect::<Vec<_>>(), [["c", "D"].map(str::to_owned)]);
        let names: Vec<String> = imports.exports.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["B", "D", "F"]);
    }

    #[test]
    fn in_a_module_written_in_the_file_super_is_the_file() {
        assert_eq!(
            paths("mod a { use super::b; use super::super::c; }\nuse super::d;"),
            ["self::b", "super::c", "super::d"]
        );
    }
}
