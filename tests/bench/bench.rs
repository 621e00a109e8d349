//! The figures that the project's speed is held to, each beside its target, and its floor where it has one: the bare API
//! calls, made in the same run and by turns, so that the machine's noise is in both.
//!
//! `tests/bench.sh` runs it; `LXDRUNNER_TEST_LXD_SOCKET` and `LXDRUNNER_TEST_IMAGE` name the real LXD, `LXDRUNNER_BIN`
//! the binary to measure where it is not the one that cargo built.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod decide;
mod figure;
mod floor;
mod real;
mod standin;
#[path = "../support/mod.rs"]
mod support;

use figure::Table;

/// Every part, in the order in which they run without an argument.
const PARTS: [&str; 9] = ["plan", "snapshot", "calls", "memory", "cpu", "template", "standby", "image", "burst"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if let Some(unknown) = arguments.iter().find(|word| !PARTS.contains(&word.as_str())) {
        eprintln!("unknown part {unknown:?}; there are {}", PARTS.join(", "));
        std::process::exit(2);
    }
    let wanted = |part: &str| arguments.is_empty() || arguments.iter().any(|word| word == part);
    let mut table = Table::new();
    if wanted("plan") {
        decide::plan(&mut table);
    }
    if wanted("snapshot") {
        standin::snapshot(&mut table);
    }
    if wanted("calls") {
        standin::calls(&mut table);
    }
    if wanted("memory") || wanted("cpu") {
        standin::memory_and_cpu(&mut table, wanted("cpu"));
    }
    let starts: Vec<&str> = ["template", "standby", "image", "burst"].into_iter().filter(|p| wanted(p)).collect();
    if !starts.is_empty() {
        real::starts(&mut table, &starts);
    }
    table.end();
}
