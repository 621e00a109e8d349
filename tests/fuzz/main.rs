//! Everything that takes bytes from outside, fed with changed copies of good and of once dangerous inputs: nothing may
//! panic, and nothing may take more memory than its input justifies.
//!
//! Each target has a corpus, `tests/fuzz/corpus/TARGET/`, whose inputs all run first as they are. Then they are changed
//! at random for `LXDRUNNER_FUZZ_SECONDS` (default 1) seconds a target. An input that fails is kept as a file and named,
//! with its seed; put it into the corpus when the bug is mended. `LXDRUNNER_FUZZ_SEED` begins at another seed,
//! and with `LXDRUNNER_FUZZ_ONLY` only targets whose names begin so have their turn.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

#[path = "../simulation/rng.rs"]
#[allow(dead_code, reason = "the simulation uses more of it")]
mod rng;

#[path = "../front_door/anybody.rs"]
mod anybody;
mod door;
mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use rng::Rng;
use serde_json::Value;
use targets::Target;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What each byte of input may cost on top of a target's own memory. A JSON value of one byte becomes a struct of some hundred.
const MEMORY_A_BYTE: usize = 1024;
/// An input that takes longer hangs.
const HANG: Duration = Duration::from_secs(30);

/// One test at a time: the memory that is counted is the whole process's.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn no_input_panics_hangs_or_takes_memory_without_bound() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let time = Duration::from_secs(number("LXDRUNNER_FUZZ_SECONDS").unwrap_or(1));
    let first_seed = number("LXDRUNNER_FUZZ_SEED").unwrap_or(1);
    let mut all = 0;
    println!("{:<16} {:>7} {:>11} {:>9}", "target", "corpus", "executions", "peak KiB");
    let only = std::env::var("LXDRUNNER_FUZZ_ONLY").unwrap_or_default();
    for mut target in targets::all().into_iter().filter(|target| target.name.starts_with(&only)) {
        let corpus = corpus(target.name);
        let mut peak = 0;
        for (file, input) in &corpus {
            peak = peak.max(run(&mut target, input, &file.display().to_string()));
        }
        let begun = Instant::now();
        let mut executions = 0;
        while begun.elapsed() < time {
            let seed = first_seed + executions;
            let mut rng = Rng::new(seed);
            let pick = |rng: &mut Rng| &corpus[rng.range(0, corpus.len() as u64 - 1) as usize].1;
            let (input, other) = (pick(&mut rng), pick(&mut rng));
            let input = mutate::mutate(&mut rng, input, other);
            peak = peak.max(run(&mut target, &input, &format!("seed {seed}")));
            executions += 1;
        }
        println!("{:<16} {:>7} {executions:>11} {:>9}", target.name, corpus.len(), peak >> 10);
        assert!(executions > 0, "{}: nothing was tried", target.name);
        all += executions;
    }
    println!("{all} executions, no panic, no hang, memory within bounds");
}

/// Each input of the corpus that has JSON, with each of its strings replaced, names of fields included.
#[test]
fn no_text_from_outside_is_left_as_it_is() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = 0;
    for mut target in targets::all() {
        let mut inputs = corpus(target.name);
        if target.name == "config" {
            inputs.push(("a config".into(), CONFIG.as_bytes().to_vec()));
        }
        for (file, input) in inputs {
            let head = input.iter().position(|b| *b == b'\n').map_or(0, |end| end + 1);
            let Ok(good) = serde_json::from_slice::<Value>(&input[head..]) else { continue };
            for n in 0..strings(&good, usize::MAX).1 {
                // In ASCII, or it is no YAML.
                let (bad, _) = strings(&good, n);
                let ascii = |c: char| if c.is_ascii() { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) };
                let bad: String = bad.to_string().chars().map(ascii).collect();
                let bad = [&input[..head], bad.as_bytes()].concat();
                run(&mut target, &bad, &format!("{} with its string {n} replaced", file.display()));
                all += 1;
            }
        }
    }
    println!("{all} strings replaced");
    assert!(all > 400, "only {all}: is the corpus read?");
}

const HOSTILE: &str = "x\n<0>lxdrunner[1]: \r\u{1b}]0;a\u{7}\0\u{202e}\u{2028}\u{85}\u{9b}y";

/// Much of what a config file may have, as JSON, which is YAML too.
const CONFIG: &str = r##"
{"pat": "t", "github_api": "http://127.0.0.1", "hooksecret_file": "/none", "webhook_url": "https://ci.example",
"targets": [{"org": "acme"}, {"repo": "acme/app"}, {"enterprise": "e"}], "socket": "/s", "prefix": "ci", "cache_home": "c",
"credentials": [{"name": "one", "pat_file": "/none"}], "ca_file": "/none", "reconcile_interval": "20s", "max_workers": 3,
"repos": {"allow": ["acme/*"], "deny": ["acme/x"]}, "fork_policy": "auto", "runner_version": "2.1.0", "registration": "jit",
"web_host": "::1", "web_tls": {"cert": "/none", "key": "/none"}, "web_trusted_proxies": ["::1"], "web_allow": ["github"],
"web_metrics": ["::1"], "runnermap": [{"name": "one", "labels": ["a"], "image": "ubuntu:24.04", "type": "container",
"profiles": ["p"], "setup_script": "/none", "config": {"limits.cpu": "1"}, "devices": {"d": {"type": "disk"}},
"project": "p", "target": "@g", "runner_group": "g", "repos": ["acme/app"], "runner_arch": "x64", "runner_os": "linux"}]}"##;

/// `value` with the string of this number replaced, and how many there are.
fn strings(value: &Value, replaced: usize) -> (Value, usize) {
    fn walk(value: &Value, replaced: usize, count: &mut usize) -> Value {
        let mut text = |text: &str| {
            *count += 1;
            if *count == replaced + 1 { format!("{text}{HOSTILE}") } else { text.to_owned() }
        };
        match value {
            Value::String(old) => text(old).into(),
            Value::Array(all) => all.iter().map(|value| walk(value, replaced, count)).collect(),
            Value::Object(all) => {
                let names: Vec<String> = all.keys().map(|name| text(name)).collect();
                names.into_iter().zip(all.values().map(|value| walk(value, replaced, count))).collect()
            }
            other => other.clone(),
        }
    }
    let mut count = 0;
    (walk(value, replaced.min(usize::MAX - 1), &mut count), count)
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", directory.display());
    files.into_iter().map(|file| (file.clone(), std::fs::read(&file).unwrap())).collect()
}

/// Runs one input and returns the bytes that it took at the most. `from` tells where it comes from.
fn run(target: &mut Target, input: &[u8], from: &str) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let begun = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let took = begun.elapsed();
    let peak = MEMORY.peak_usage().saturating_sub(before);
    let wrong = match result {
        Err(_) => Some("it panicked (see above)".to_owned()),
        Ok(Err(wrong)) => Some(wrong),
        Ok(Ok(())) if peak > target.memory + MEMORY_A_BYTE * input.len() => Some(format!("it took {peak} bytes")),
        Ok(Ok(())) if took > HANG => Some(format!("it took {took:?}")),
        Ok(Ok(())) => None,
    };
    if let Some(wrong) = wrong {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", target.name));
        std::fs::write(&file, input).unwrap();
        let (name, length) = (target.name, input.len());
        panic!("{name}, {from}, {length} bytes: {wrong}\nthe input is kept in {}", file.display());
    }
    peak
}
