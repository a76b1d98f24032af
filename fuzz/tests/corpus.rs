//! Does everything that was ever found still hold? Each file of the corpora, through its target.

use std::{fs, path::Path};

use edgeward_fuzz::TARGETS;

#[test]
fn every_file_of_every_corpus_holds() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let folder = corpora.join(name);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            let bytes = fs::read(&file).expect("a file");
            eprintln!("{}", file.display());
            target(&bytes);
        }
    }
}

#[test]
fn every_corpus_has_its_target() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in fs::read_dir(corpora).expect("the corpora") {
        let name = entry.expect("an entry").file_name();
        assert!(
            TARGETS.iter().any(|(target, _)| name == *target),
            "{name:?} belongs to no target"
        );
    }
}
