//! Proof that the proof works: each mutant takes a rule that keeps jobs or instances safe out of a copy of the tree, where the
//! simulation, or a table beside the modules, must fail. It takes a build for each, so it runs only with
//! `LXDRUNNER_MUTANTS=all cargo test --test mutants -- --nocapture`; CI runs some of them, others each day. Without it, only
//! that every mutant still fits the code, and compiles, is checked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod stories;
mod tables;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use stories::MUTANTS;
use tables::OF_TABLES;

/// Stories that a mutant has to survive: as many as CI plays.
const SEEDS: &str = "2300";

/// A rule taken out.
struct Mutant {
    rule: &'static str,
    file: &'static str,
    /// Stands in the file exactly once.
    from: &'static str,
    to: &'static str,
}

/// The tree with one text replaced, below the directory that cargo gives tests.
fn apply(mutant: &Mutant, tree: &Path) {
    let text = std::fs::read_to_string(mutant.file).unwrap();
    std::fs::write(tree.join(mutant.file), text.replacen(mutant.from, mutant.to, 1)).unwrap();
}

/// Makes `to` equal to `from`. Files that are the same stay as they are, so that cargo sees no change.
fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(to).unwrap().flatten() {
            let (path, there) = (entry.path(), from.join(entry.file_name()).exists());
            if !there && path.is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            } else if !there {
                std::fs::remove_file(path).unwrap();
            }
        }
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        let content = std::fs::read(from).unwrap();
        if std::fs::read(to).ok().as_ref() != Some(&content) {
            std::fs::write(to, content).unwrap();
        }
    }
}

fn fresh(tree: &Path) {
    for part in [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "provision",
        "tests/simulation",
        "tests/standin",
        "tests/fixtures",
        "config.yml.example",
        "README.md",
    ] {
        let to = tree.join(part);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        copy(Path::new(part), &to);
    }
    // The simulation needs no program, and building one takes time.
    std::fs::remove_file(tree.join("src/main.rs")).unwrap();
}

/// Runs the simulation in `tree`: whether it passed, and its last words. What it depends on is built already.
fn simulate(tree: &Path, seeds: &str) -> (bool, String) {
    test(tree, seeds, &["--test", "simulation", "--", "every_job"])
}

/// Runs these tests in `tree`, as [`simulate`] does.
fn test(tree: &Path, seeds: &str, which: &[&str]) -> (bool, String) {
    let mut command = cargo(tree);
    command
        .arg("test")
        .args(["--config", "profile.dev.package.lxdrunner.opt-level=1"])
        .args(["--config", "profile.dev.package.lxdrunner.debug=false"])
        .args(which)
        .env("SEEDS", seeds);
    run(command)
}

fn cargo(tree: &Path) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["--offline", "--quiet"])
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap())
        .env("RUST_BACKTRACE", "0");
    command
}

/// Whether it ends well, and what it says.
fn run(mut command: Command) -> (bool, String) {
    let output = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

/// What noticed the mutant: a seed, or a test.
fn verdict(said: &str) -> String {
    let tells = |line: &&str| line.starts_with("seed ") || line.ends_with(" stdout ----") || line.contains("error:");
    let line = said.lines().find(tells).unwrap_or("it failed without naming a seed or a test");
    line.trim_matches(['-', ' ']).trim_end_matches(" stdout").to_owned()
}

/// All of these; some, others each day; or those whose rule has these words.
fn chosen<'a>(mutants: &'a [Mutant], which: &str) -> Vec<&'a Mutant> {
    if let Ok(some) = which.parse::<usize>() {
        let day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400;
        return mutants
            .iter()
            .cycle()
            .skip(day as usize * some % mutants.len())
            .take(some.min(mutants.len()))
            .collect();
    }
    mutants.iter().filter(|mutant| which == "all" || mutant.rule.contains(which)).collect()
}

#[test]
fn every_mutant_still_fits_the_code() {
    for mutant in MUTANTS.iter().chain(OF_TABLES) {
        let text = std::fs::read_to_string(mutant.file).unwrap_or_else(|e| panic!("{}: {e}", mutant.file));
        let places = text.matches(mutant.from).count();
        assert_eq!(places, 1, "{}: {:?} stands {places} times in {}", mutant.rule, mutant.from, mutant.file);
        assert_ne!(mutant.from, mutant.to);
    }
}

/// Many are put into the tree at once, so that two or three builds tell it of all.
#[test]
fn every_mutant_compiles() {
    let tree = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mutants-compile");
    let mut left: Vec<&Mutant> = MUTANTS.iter().chain(OF_TABLES).collect();
    while !left.is_empty() {
        fresh(&tree);
        let before = left.len();
        // One whose text another one has replaced waits for the next build.
        left.retain(|mutant| {
            let path = tree.join(mutant.file);
            let text = std::fs::read_to_string(&path).unwrap();
            let fits = text.contains(mutant.from);
            if fits {
                std::fs::write(path, text.replacen(mutant.from, mutant.to, 1)).unwrap();
            }
            !fits
        });
        assert!(left.len() < before);
        let mut check = cargo(&tree);
        check.args(["check", "--lib"]);
        let (compiles, said) = run(check);
        assert!(compiles, "{said}");
    }
}

#[test]
fn every_mutant_is_caught() {
    let Ok(which) = std::env::var("LXDRUNNER_MUTANTS") else {
        println!("skipped: it takes minutes; LXDRUNNER_MUTANTS=all runs it, LXDRUNNER_MUTANTS=5 runs five of them");
        return;
    };
    let tree = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mutants");
    fresh(&tree);
    let mut survivors = Vec::new();
    let mut meet = |mutant: &'static Mutant, tests: &dyn Fn() -> (bool, String)| {
        fresh(&tree);
        apply(mutant, &tree);
        let begun = Instant::now();
        let (survives, said) = tests();
        assert!(survives || !said.contains("could not compile"), "{}: it does not compile:\n{said}", mutant.rule);
        let verdict = if survives { "SURVIVES".to_owned() } else { verdict(&said) };
        println!("{:<80} {verdict} ({:.0} s)", mutant.rule, begun.elapsed().as_secs_f64());
        if survives {
            survivors.push(mutant.rule);
        }
    };
    let by_stories = chosen(MUTANTS, &which);
    let by_tables = chosen(OF_TABLES, if which == "tables" { "all" } else { &which });
    let met = by_stories.len() + by_tables.len();
    if !by_stories.is_empty() {
        // That all stories end well without a mutant is for others to show.
        let (passes, said) = simulate(&tree, "20");
        assert!(passes, "the simulation fails without any mutant:\n{said}");
    }
    for mutant in by_stories {
        meet(mutant, &|| simulate(&tree, SEEDS));
    }
    for mutant in by_tables {
        meet(mutant, &|| test(&tree, "1", &["--lib", "--", "plan::", "report::", "steps::", "world::"]));
    }
    fresh(&tree);
    println!("{} of {met} mutants survive", survivors.len());
    assert!(survivors.is_empty(), "nothing notices that we forget: {survivors:?}");
}
