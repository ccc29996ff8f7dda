//! House rules that no compiler checks: which module imports which, sizes, banned words, and
//! whether the documents name what the code has.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What each module of the crate may import. Every module may import `model`.
const IMPORTS: &[(&str, &[&str])] = &[
    ("cli", &["app", "auth", "blob", "config", "http", "meta", "sys"]),
    (
        "http",
        &[
            "app",
            "blob::Reader",
            "meta::accounts",
            "meta::upkeep",
            "metrics",
            "sys::audit",
            "sys::counts",
            "sys::log",
            "sys::process",
            "sys::random",
        ],
    ),
    (
        "app",
        &[
            "auth",
            "blob",
            "meta",
            "metrics",
            "zip",
            "sys::clock",
            "sys::counts",
            "sys::data_dir",
            "sys::durable",
            "sys::random",
        ],
    ),
    ("auth", &["sys"]),
    ("meta", &["metrics", "sys"]),
    ("blob", &["metrics", "sys"]),
    ("config", &["sys::log"]),
    (
        "fuzzing",
        &[
            "app",
            "auth",
            "blob",
            "cli::import",
            "config",
            "http::download::byteranges",
            "http::caller::client",
            "http::download::conditional",
            "http::message::inline",
            "http::message::query",
            "http::operator::import",
            "http::route",
            "http::message::structured",
            "http::tus",
            "meta",
            "sys::clock",
            "zip",
        ],
    ),
    ("sys", &["metrics"]),
    ("metrics", &[]),
    ("zip", &[]),
    ("model", &[]),
];
const FILE_LINES_MAX: usize = 500;
const LINE_COLUMNS_MAX: usize = 100;
const BANNED: &[(&str, &str)] = &[
    (".unwrap()", "say why it cannot fail, or handle it"),
    ("todo!", "build it or leave it out"),
    ("unimplemented!", "build it or leave it out"),
    ("dbg!", "left behind"),
    ("flush_async", "deadlocks in sled 0.34.7"),
    ("anyhow", "errors say what the caller can do"),
];

fn sources() -> Vec<(PathBuf, String)> {
    let found = sources_below("src");
    assert!(found.len() > 40);
    found
}

fn sources_below(dir: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let (mut found, mut dirs) = (Vec::new(), vec![root.clone()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    found
}

/// The part of a file that is built into the program: all but comments and what stands under
/// `#[cfg(test)]`, wherever that is.
fn production(text: &str) -> String {
    let (mut lines, mut kept) = (text.lines(), Vec::new());
    while let Some(line) = lines.next() {
        if line.trim_start() == "#[cfg(test)]" {
            // An item whose end is not found is dropped up to the end of the file.
            let _ = lines.find(|last| depth(last) == depth(line) && ends_an_item(last));
        } else if !is_comment(line) {
            kept.push(line);
        }
    }
    kept.join("\n")
}

fn depth(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Whether a line at the indentation of an item's first line is the item's last line, as rustfmt
/// formats it.
fn ends_an_item(line: &str) -> bool {
    !is_comment(line) && line.ends_with([';', '}', ','])
}

#[test]
fn tests_hide_nothing_but_themselves() {
    let text = "
//! Says what it is.
#[cfg(test)]
pub(super) mod tests;
use one;
impl It {
    // not this;
    #[cfg(test)]
    /// Nor this;
    #[expect(dead_code)]
    fn hidden(
        &self,
    ) -> bool {
        true
    }

    fn seen(&self) {}
}
#[cfg(test)]
mod tests {
    fn hidden() {}
}
const SEEN: u8 = 1;
";
    let seen = "\nuse one;\nimpl It {\n\n    fn seen(&self) {}\n}\nconst SEEN: u8 = 1;";
    assert_eq!(production(text), seen);
}

/// Every `crate::…` path in a text, with the braces of `use` expanded.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        expand(&text[at + "crate::".len()..], "", &mut found);
    }
    found
}

fn expand<'a>(text: &'a str, prefix: &str, found: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            match rest.as_bytes().first() {
                Some(b'}') | None => return rest.get(1..).unwrap_or(""),
                Some(b',') => rest = &rest[1..],
                Some(_) => rest = expand(rest, prefix, found),
            }
        }
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*'));
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    let path = format!("{prefix}{name}");
    if let Some(rest) = rest.strip_prefix("::") {
        return expand(rest, &format!("{path}::"), found);
    }
    found.insert(path);
    if name.is_empty() { text.get(1..).unwrap_or("") } else { rest }
}

#[test]
fn imports_point_down() {
    for (path, text) in sources() {
        let module = path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
            assert!(matches!(module, "lib" | "main"), "{} is in no layer", path.display());
            continue;
        };
        for import in imports(&production(&text)) {
            let within = |layer: &str| import == layer || import.starts_with(&format!("{layer}::"));
            let fine = within(module) || within("model") || allowed.iter().any(|l| within(l));
            assert!(fine, "{} must not know crate::{import}", path.display());
        }
    }
}

#[test]
fn the_layers_know_no_more_than_they_should() {
    for (layer, words) in [
        ("app", &["hyper", "StatusCode", "serde_json", "std::env", "sled"][..]),
        ("meta", &["hyper", "SystemTime"]),
        ("blob", &["hyper", "UserId", "FileName"]),
        ("auth", &["hyper", "Metadata", "BlobStore"]),
        ("model", &["async fn", "SystemTime", "std::fs", "tokio"]),
        ("http", &["sled", "std::fs", "tokio::fs"]),
    ] {
        for (path, text) in sources().iter().filter(|(path, _)| path.starts_with(layer)) {
            if path.starts_with("meta/sled") {
                continue;
            }
            for word in words {
                let code = production(text);
                let named: Vec<_> = code.lines().filter(|line| line.contains(word)).collect();
                assert!(named.is_empty(), "{}: {named:?}", path.display());
            }
        }
    }
}

#[test]
fn sizes_and_words() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", path.display());
        for (number, line) in text.lines().enumerate() {
            let place = format!("{}:{}", path.display(), number + 1);
            assert!(line.chars().count() <= LINE_COLUMNS_MAX, "{place} is long");
        }
        let code = production(&text);
        for (word, why) in BANNED.iter().filter(|_| !path.ends_with("tests.rs")) {
            assert!(!code.contains(word), "{}: {word}: {why}", path.display());
        }
        let start = text.trim_start();
        assert!(
            start.starts_with("//!") || path.ends_with("tests.rs"),
            "{}: says not what it is",
            path.display()
        );
    }
}

/// Every error code that a refusal can carry is listed in `docs/API.md`.
#[test]
fn refusals_are_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let api = fs::read_to_string(root.join("docs/API.md")).unwrap();
    let mut codes = BTreeSet::new();
    for (_, text) in sources() {
        let code = production(&text);
        for call in ["Error::invalid(", "Error::conflict(", "LinkRefused { code: ", "Problem::new("]
        {
            for (at, _) in code.match_indices(call) {
                let rest = &code[at + call.len()..];
                // The code is the first argument; for `Problem::new` it is the one after the
                // status.
                let argument = if call == "Problem::new(" {
                    rest.split_once(',').map_or("", |(_, second)| second)
                } else {
                    rest
                };
                let literal = argument.trim_start().strip_prefix('"');
                codes.extend(literal.and_then(|text| text.split('"').next()).map(str::to_owned));
            }
        }
    }
    assert!(codes.len() > 30, "{codes:?}");
    let missing: Vec<_> = codes.iter().filter(|c| !api.contains(&format!("`{c}`"))).collect();
    assert!(missing.is_empty(), "docs/API.md does not name {missing:?}");
}

/// `docs/API.md` and the `OpenAPI` description name the same codes.
#[test]
fn the_description_and_the_list_name_the_same_codes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let api = fs::read_to_string(root.join("docs/API.md")).unwrap();
    let rows = api.lines().skip_while(|line| *line != "| status | codes |").skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    // The rows also name these members and headers in backticks; they are not codes.
    let not_codes = [
        "missing",
        "limit",
        "quota",
        "used",
        "requested",
        "expected-offset",
        "provided-offset",
        "Upload-Offset",
        "Allow",
        "Retry-After",
        "Tus-Version",
        "/v1/admin/",
    ];
    let listed: BTreeSet<&str> = rows
        .flat_map(|row| row.split('`').skip(1).step_by(2))
        // These codes occur only on the admin socket, which the description leaves out.
        .filter(|code| {
            let unseen = [
                "invalid_dir",
                "invalid_filter",
                "key_taken",
                "backup_running",
                "dir_in_use",
                "other_store",
                "newer_backup",
                "backup_full",
                "scrub_running",
            ];
            !not_codes.contains(code) && !unseen.contains(code)
        })
        .collect();
    let described = &streamlined::http::openapi::document()["components"]["schemas"]["Problem"]["properties"]
        ["code"]["enum"];
    let described: BTreeSet<&str> =
        described.as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
    assert!(listed.len() > 50);
    assert_eq!(listed, described);
}

/// The module path of a file's tests, such as `it::auth` or `auth::jwt`. For `main`, `mod` and
/// `tests` it is the path of their folder.
fn module(path: &Path) -> String {
    let path = path.with_extension("");
    let words: Vec<_> = path.iter().map(|word| word.to_str().unwrap()).collect();
    let end = words.len() - usize::from(matches!(words.last(), Some(&("main" | "mod" | "tests"))));
    words[..end].join("::")
}

#[test]
fn every_promise_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    for (path, text) in sources_below("tests").into_iter().chain(sources()) {
        let behind = text.split("#[test]").skip(1).chain(text.split("#[tokio::test").skip(1));
        for (attributes, rest) in behind.filter_map(|test| test.split_once("fn ")) {
            let name = rest.split('(').next().unwrap();
            // An ignored test holds no promise, because normal runs leave it out.
            if !attributes.contains("#[ignore") {
                tests.insert(format!("{}::{name}", module(&path)));
            }
        }
    }
    let page = fs::read_to_string(root.join("docs/SECURITY.md")).unwrap();
    let map = page.split("\n| promise | tests |\n").nth(1).unwrap();
    let rows: Vec<_> = map.lines().skip(1).filter_map(|row| row.rsplit_once(" | ")).collect();
    assert!(rows.len() > 30);
    for (promise, held_by) in rows {
        if held_by.starts_with("measured: ") {
            continue;
        }
        let named: Vec<_> = held_by.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{promise} is held by nothing");
        for test in named {
            assert!(tests.contains(test), "{promise}: there is no test {test} that is always run");
        }
    }
}

/// Of each package in both lock files, the fuzz targets build a version that the daemon builds.
#[test]
fn what_is_fuzzed_is_what_is_built() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let versions = |path: &str| -> BTreeSet<(String, String)> {
        let lock: toml::Table = fs::read_to_string(root.join(path)).unwrap().parse().unwrap();
        let text = |package: &toml::Value, key| package[key].as_str().unwrap().to_owned();
        let packages = lock["package"].as_array().unwrap().iter();
        packages.map(|package| (text(package, "name"), text(package, "version"))).collect()
    };
    let built = versions("Cargo.lock");
    let names: BTreeSet<_> = built.iter().map(|(name, _)| name).collect();
    let fuzzed = versions("fuzz/Cargo.lock");
    let both = fuzzed.iter().filter(|(name, _)| names.contains(name));
    let others: Vec<_> = both.filter(|package| !built.contains(package)).collect();
    assert!(others.is_empty(), "`cargo update --precise` in fuzz/: {others:?}");
}

/// `docs/SECURITY.md` lists each source file with `unsafe` code, and the reason for it.
#[test]
fn what_is_unsafe_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/SECURITY.md")).unwrap();
    let listed = page.lines().filter_map(|row| row.strip_prefix("| `src/")?.split('`').next());
    let listed: BTreeSet<_> = listed.map(PathBuf::from).collect();
    let found = sources().into_iter().filter(|(_, text)| production(text).contains("unsafe"));
    assert_eq!(listed, found.map(|(path, _)| path).collect());
}
