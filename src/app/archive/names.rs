//! Names in an archive. Each name is unique on every file system that the archive may be unpacked
//! on, and no name leads out of the folder that it is unpacked in.

use std::collections::{HashMap, HashSet};

use unicode_normalization::UnicodeNormalization;

use crate::model::limits::NAME_BYTES_MAX;

/// Makes names of paths. Paths that differ only in case, or in how a letter is composed, count as
/// the same, as they do on Windows and macOS; the second one is called `name (2).ext`. So is a file
/// whose path others need as a folder.
pub fn unique(paths: Vec<Box<str>>) -> Vec<Box<str>> {
    let paths: Vec<Box<str>> = paths.into_iter().map(|path| safe(&path)).collect();
    // Hashes, to save memory: a path may name 32 folders, and all of them are kept.
    let mut taken: HashSet<Hash> = HashSet::new();
    for path in &paths {
        let folded = fold(path);
        let (mut hasher, mut hashed) = (blake3::Hasher::new(), 0);
        for (end, _) in folded.match_indices('/') {
            hasher.update(&folded.as_bytes()[hashed..end]);
            hashed = end;
            taken.insert(short(&hasher));
        }
    }
    // The next number for all paths that become the same when they are numbered. Long paths are cut
    // to make room for the number, so many may become the same; without this map each would try the
    // numbers of all others. How much is cut depends on the number's digits, so each count of
    // digits has its own entry.
    let mut next: HashMap<Hash, u64> = HashMap::new();
    let name = |path: Box<str>| {
        if taken.insert(hash(&path)) {
            return path;
        }
        let mut power = 1;
        loop {
            let number = next.entry(hash(&numbered(&path, power))).or_insert(power.max(2));
            while *number < power * 10 {
                let numbered = numbered(&path, *number);
                *number += 1;
                if taken.insert(hash(&numbered)) {
                    return numbered.into();
                }
            }
            power *= 10;
        }
    };
    paths.into_iter().map(name).collect()
}

/// The hash of a folded path.
type Hash = [u8; 16];

fn hash(path: &str) -> Hash {
    short(blake3::Hasher::new().update(fold(path).as_bytes()))
}

fn short(hasher: &blake3::Hasher) -> Hash {
    let mut hash = Hash::default();
    hasher.finalize_xof().fill(&mut hash);
    hash
}

/// A path as a file system sees it that ignores case and composition and drops trailing dots and
/// spaces. Letters are mapped to lower case, to upper case and back, so that `ẞ`, `ß` and `ss` are
/// the same.
fn fold(path: &str) -> String {
    let segments = path.split('/').map(|segment| segment.trim_end_matches(['.', ' ']));
    let path = segments.collect::<Vec<_>>().join("/");
    if path.is_ascii() {
        return path.to_ascii_lowercase();
    }
    let letters = path.nfd().flat_map(char::to_lowercase).flat_map(char::to_uppercase);
    letters.collect::<String>().to_lowercase().nfd().collect()
}

/// The same path with a number in its name, cut where the name would be too long.
fn numbered(path: &str, number: u64) -> String {
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    let dot = path[name..].rfind('.').filter(|dot| *dot > 0).map(|dot| name + dot);
    let (stem, extension) = path.split_at(dot.unwrap_or(path.len()));
    let number = format!(" ({number})");
    let room = NAME_BYTES_MAX.saturating_sub(number.len() + extension.len());
    let mut end = stem.len().min(name + room);
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{number}{extension}", &stem[..end])
}

/// Replaces by `_` what Windows would read as a drive, a stream or a parent folder. File names and
/// folders contain no `\`, no control characters, no `.` and no `..` anyway.
fn safe(path: &str) -> Box<str> {
    let segment = |segment: &str| {
        // Windows drops dots and spaces at the end of a name.
        let is_only_dots = segment.trim_end_matches(['.', ' ']).is_empty();
        let replaced = |c: char| {
            let is_special = matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*' | '\\');
            if is_special || is_only_dots || c.is_control() { '_' } else { c }
        };
        segment.chars().map(replaced).collect::<String>()
    };
    path.split('/').map(segment).collect::<Vec<_>>().join("/").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[&str]) -> Vec<String> {
        let paths = paths.iter().map(|path| (*path).into()).collect();
        unique(paths).into_iter().map(String::from).collect()
    }

    #[test]
    fn every_name_is_there_once() {
        assert_eq!(
            names(&["a.txt", "A.TXT", "a.txt", "a (2).txt", "d/a.txt", ".env", ".env", "x", "x"]),
            [
                "a.txt",
                "A (2).TXT",
                "a (3).txt",
                "a (2) (2).txt",
                "d/a.txt",
                ".env",
                ".env (2)",
                "x",
                "x (2)",
            ]
        );
        assert_eq!(names(&["y", "y. "]), ["y", "y (2). "]);
        let same = [
            ("é", "e\u{301}"),
            ("É", "e\u{301}"),
            ("ﬁ", "FI"),
            ("ς", "Σ"),
            ("ẞ", "ss"),
            ("\u{212a}", "k"),
        ];
        for (one, other) in same {
            assert_eq!(names(&[one, other])[1], format!("{other} (2)"));
        }
        assert_eq!(names(&["É/x", "e\u{301}/x"])[1], "e\u{301}/x (2)");
        let long = format!("{}.txt", "ä".repeat(125));
        let second = &names(&[&long, &long])[1];
        assert!(second.len() <= 255 && second.ends_with("ä (2).txt"), "{second}");
        assert_eq!(names(&["d", "D/x", "d/x/y"]), ["d (2)", "D/x (2)", "d/x/y"]);
    }

    #[test]
    fn numbers_go_on_where_names_are_cut_and_where_they_are_not() {
        let short = names(&["a.txt"; 102]);
        assert_eq!((&*short[9], &*short[101]), ("a (10).txt", "a (102).txt"));
        // With a number of one digit the first name stays whole, and the second is cut to the same.
        let long = [247, 248].map(|bytes| format!("{}.txt", "x".repeat(bytes)));
        let made = names(&long.iter().cycle().take(24).map(String::as_str).collect::<Vec<_>>());
        for (number, name) in made.iter().enumerate().skip(2) {
            let whole = if number < 10 { 247 } else { 246 };
            assert_eq!(*name, format!("{} ({number}).txt", "x".repeat(whole)));
        }
    }

    #[test]
    fn names_that_are_the_same_when_cut_take_no_longer_than_others() {
        let distinct = |at: usize| format!("{}{:06}.txt", "x".repeat(245), at % 10_000).into();
        // If each name tried the number of every name before it, this would not end.
        let made = unique((0..20_000).map(distinct).collect());
        assert_eq!(made.iter().collect::<HashSet<_>>().len(), 20_000);
    }

    #[test]
    fn no_name_leads_out() {
        assert_eq!(
            names(&["c:evil", "... /x", ".. ", "a*b", "ok./x"]),
            ["c_evil", "____/x", "___", "a_b", "ok./x"]
        );
    }
}
