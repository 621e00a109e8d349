//! Every request of a job's life goes wrong once, in every way: the built daemon against both stand-ins, which then
//! behave again. The job must run to its end, once, and nothing may be left. Printed as a matrix:
//! `cargo test --test sweep -- --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod support;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use standin::github::{Event, Fault as GitHubFault, Mischief, State};
use standin::lxd::Fault as LxdFault;
use support::*;

/// Cells that are tried at once: most of their time is waiting.
const AT_ONCE: usize = 16;

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Lxd,
    GitHub,
}

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    /// Nothing is done, and a failure of the server is the answer.
    Fails,
    /// Nothing is done, and the connection is closed.
    Closes,
    /// It is done, and the answer is lost.
    LosesAnswer,
    /// It is done, and the answer is cut in the middle.
    CutsAnswer,
    /// Nothing is done or answered, until well past the deadline.
    Stalls,
    /// We are killed before it is done, and started again.
    KilledBefore,
    /// We are killed when it is done, before the answer, and started again.
    KilledAfter,
}

const WRONGS: [Wrong; 7] = [
    Wrong::Fails,
    Wrong::Closes,
    Wrong::LosesAnswer,
    Wrong::CutsAnswer,
    Wrong::Stalls,
    Wrong::KilledBefore,
    Wrong::KilledAfter,
];

/// The `n`-th request of one side, counted from the moment that the job is queued, and what happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    side: Side,
    n: usize,
    wrong: Wrong,
}

fn rig() -> Rig {
    // Short, since what is stuck or forgotten is found by its end.
    let rig = Rig::new(Plan::with("provision_timeout: 15"));
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    rig
}

/// Requests so far, runners' own aside.
fn count(rig: &Rig, side: Side) -> usize {
    match side {
        Side::Lxd => rig.standin().faults().calls().len(),
        Side::GitHub => rest(rig).len(),
    }
}

fn rest(rig: &Rig) -> Vec<(String, String)> {
    let requests = rig.github.requests();
    let ours = requests.iter().filter(|request| !request.is_of_a_runner());
    ours.map(|request| (request.method.clone(), request.path.clone())).collect()
}

/// The request as it is shown: without what differs from run to run.
fn shown(rig: &Rig, side: Side, n: usize) -> String {
    let (method, path) = match side {
        Side::Lxd => rig.standin().faults().calls().get(n).map(|call| (call.method.clone(), call.path.clone())),
        Side::GitHub => rest(rig).get(n).cloned(),
    }
    .unwrap_or_default();
    let plain = |part: &str| {
        let id = part.len() > 30 || part.bytes().all(|b| b.is_ascii_digit()) && !part.is_empty();
        if id || part.starts_with(&rig.prefix) { "*".to_owned() } else { part.to_owned() }
    };
    let path: Vec<String> = path.split('/').map(plain).collect();
    format!("{method} {}", path.join("/"))
}

fn arm(rig: &Rig, cell: Cell) {
    match cell.side {
        Side::Lxd => {
            let error = r#"{"type":"error","error":"database is locked","error_code":500,"metadata":null}"#;
            let fault = match cell.wrong {
                Wrong::Fails => LxdFault::Status(500, error.to_owned()),
                Wrong::Closes => LxdFault::Close,
                Wrong::LosesAnswer => LxdFault::CutAfter(0),
                Wrong::CutsAnswer => LxdFault::CutAfter(40),
                Wrong::Stalls | Wrong::KilledBefore => LxdFault::Stall,
                Wrong::KilledAfter => LxdFault::StallAfter,
            };
            rig.standin().faults().add("", "", cell.n, 1, fault);
        }
        Side::GitHub => {
            let fault = match cell.wrong {
                Wrong::Fails => GitHubFault::status("", 502, "Server Error"),
                Wrong::Closes => GitHubFault::on_rest(Mischief::Close),
                Wrong::LosesAnswer => GitHubFault::on_rest(Mischief::ActThenLose),
                Wrong::CutsAnswer => GitHubFault::on_rest(Mischief::CutAfter(10)),
                Wrong::Stalls | Wrong::KilledBefore => GitHubFault::on_rest(Mischief::Stall),
                Wrong::KilledAfter => GitHubFault::on_rest(Mischief::ActThenStall),
            };
            rig.github.inject(fault.after(cell.n));
        }
    }
}

fn wait_for_request(rig: &Rig, side: Side, n: usize) -> bool {
    match side {
        Side::Lxd => rig.standin().faults().wait_until(PATIENCE, |calls| calls.len() > n),
        Side::GitHub => {
            let seen = |state: &State| state.requests.iter().filter(|request| !request.is_of_a_runner()).count();
            rig.github.wait_for(PATIENCE, |state| (seen(state) > n).then_some(())).is_some()
        }
    }
}

/// Lives one job with one thing going wrong. Returns the request that it went wrong with.
fn live(cell: Cell) -> String {
    let mut rig = rig();
    let before = count(&rig, cell.side);
    arm(&rig, cell);
    let job = rig.queue();
    assert!(wait_for_request(&rig, cell.side, before + cell.n), "the request was never made");
    let request = shown(&rig, cell.side, before + cell.n);
    if matches!(cell.wrong, Wrong::KilledBefore | Wrong::KilledAfter) {
        rig.restart();
        rig.standin().faults().clear();
        rig.github.clear_faults();
    }
    assert_eq!(rig.wait_done(job), "success");
    rig.wait_nothing_left();
    let timeline = rig.github.timeline();
    let started = timeline.iter().filter(|m| matches!(m.event, Event::JobStarted { job: j, .. } if j == job)).count();
    assert_eq!(started, 1, "the job ran more than once");
    let unfinished = std::fs::read_dir(rig.scratch.0.join("cache")).unwrap().flatten();
    let unfinished: Vec<_> =
        unfinished.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().ends_with(".part")).collect();
    assert!(unfinished.is_empty(), "left in the cache: {unfinished:?}");
    request
}

/// How many requests each side sees from the moment that a job is queued until nothing of it is left.
fn requests_of_a_life() -> BTreeMap<Side, usize> {
    let rig = rig();
    let sides = [Side::Lxd, Side::GitHub];
    let before = sides.map(|side| count(&rig, side));
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    rig.wait_instances(|names| names.is_empty());
    sides.iter().zip(before).map(|(side, before)| (*side, count(&rig, *side) - before)).collect()
}

#[test]
fn whatever_goes_wrong_with_one_request_nothing_is_lost_and_nothing_is_left() {
    let lives = requests_of_a_life();
    // One more than a life has: the look after it.
    let of_side = |(side, requests): (&Side, &usize)| {
        let side = *side;
        (0..=*requests).flat_map(move |n| WRONGS.map(|wrong| Cell { side, n, wrong })).collect::<Vec<_>>()
    };
    let mut cells: Vec<Cell> = lives.iter().flat_map(of_side).collect();
    // The long ones first.
    cells.sort_by_key(|cell| cell.wrong != Wrong::Stalls);
    let next = AtomicUsize::new(0);
    let results: Mutex<BTreeMap<Cell, Result<String, String>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let lived = catch_unwind(AssertUnwindSafe(|| live(*cell)));
                    let text = |panic: Box<dyn std::any::Any + Send>| match panic.downcast::<String>() {
                        Ok(text) => *text,
                        Err(_) => "it panicked (see above)".to_owned(),
                    };
                    results.lock().unwrap().insert(*cell, lived.map_err(text));
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    print(&results);
    let failed: Vec<_> = results.iter().filter(|(_, result)| result.is_err()).collect();
    assert!(failed.is_empty(), "{} of {} cells failed: {failed:#?}", failed.len(), results.len());
    println!("{} cells, all green", results.len());
}

fn print(results: &BTreeMap<Cell, Result<String, String>>) {
    println!("{:<62} {}", "request", WRONGS.map(|wrong| format!("{wrong:?}")).join("  "));
    let rows: std::collections::BTreeSet<(Side, usize)> = results.keys().map(|cell| (cell.side, cell.n)).collect();
    for (side, n) in rows {
        let of_row = WRONGS.map(|wrong| &results[&Cell { side, n, wrong }]);
        // What was the n-th in one run may be its neighbour in another: looks come by the clock.
        let name = of_row.iter().find_map(|result| result.as_ref().ok()).cloned().unwrap_or_default();
        let marks = of_row.iter().zip(WRONGS).map(|(result, wrong)| {
            let mark = if result.is_ok() { "ok" } else { "LOST" };
            format!("{mark:<width$}", width = format!("{wrong:?}").len())
        });
        println!("{:<62} {}", format!("{side:?} {n:>2} {name}"), marks.collect::<Vec<_>>().join("  "));
    }
}
