//! Replays the corpora of the fuzz targets, so that a fault that was found once does not come back
//! unnoticed and every target keeps working.

use std::{collections::BTreeSet, fs, path::Path};

use streamlined::fuzzing::TARGETS;

#[test]
fn the_corpora_hold() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (name, target) in TARGETS {
        let mut inputs = 0;
        for input in fs::read_dir(fuzz.join("corpus").join(name)).unwrap() {
            let path = input.unwrap().path();
            eprintln!("{}", path.display());
            target(&fs::read(path).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "{name} has no corpus");
        target(b"");
    }
}

#[test]
fn every_target_is_run_under_its_name() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut found = BTreeSet::new();
    for file in fs::read_dir(targets).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("fuzzing::{name}(input)")), "{}", path.display());
        found.insert(name);
    }
    let listed: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, listed);
}
