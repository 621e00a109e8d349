//! A runner whose version GitHub does not take any more: told days before, and replaced when it happens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use lxdrunner::model::Timestamp;
use standin::github::Fault;
use standin::package;
use support::*;

const NEWER: &str = "2.331.0";

/// GitHub offers a newer version, and refuses the one that is here.
fn refuse(rig: &Rig) {
    let folder = rig.scratch.0.join("newer");
    std::fs::create_dir(&folder).unwrap();
    let built = package::build(&folder, "x64", NEWER).unwrap();
    rig.github.offer(&built.path, "x64", Some(built.sha256)).unwrap();
    rig.github.with(|state| state.refused_version = Some(package::VERSION.to_owned()));
}

/// Its registration is of no use, and goes as every dead one does: after provision_timeout.
#[test]
fn a_refused_version_is_replaced_at_once_and_the_job_runs() {
    let rig = Rig::new(Plan::with("provision_timeout: 3"));
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    refuse(&rig);
    let job = rig.queue();
    rig.daemon.wait(&[&format!("job={job}"), "msg=\"instance gone\"", "ran_a_job=unknown"]);
    rig.daemon.wait(&["package=linux-x64", &format!("version={NEWER}"), "msg=ready"]);
    // A simulated runner does not tell its version, so it is refused until this.
    rig.github.with(|state| state.refused_version = None);
    assert_eq!(rig.wait_done(job), "success");
    rig.wait_nothing_left();
}

#[test]
fn exit_code_7_of_a_real_listener_leads_to_the_newer_package_on_a_real_lxd() {
    let Some(rig) = Rig::real(Plan::with("provision_timeout: 20")) else { return };
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    refuse(&rig);
    let job = rig.queue();
    rig.daemon.wait(&["package=linux-x64", &format!("version={NEWER}"), "msg=ready"]);
    assert_eq!(rig.wait_done(job), "success");
    rig.wait_nothing_left();
}

#[test]
fn where_the_newest_cannot_be_looked_up_the_one_in_the_cache_serves_and_that_is_told() {
    let mut rig = Rig::new(Plan::default());
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    rig.github.inject(Fault::status("/orgs/acme/actions/runners/downloads", 502, "Bad Gateway").times(usize::MAX));
    rig.restart();
    let told = ["ERROR", "runner package linux-x64", "502", "version 2.330.0 is in the cache and is used meanwhile"];
    rig.daemon.wait(&told);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    assert!(rig.health().1.contains("trouble=\"runner package linux-x64"), "{}", rig.health().1);
    rig.github.clear_faults();
    rig.daemon.wait(&["runner package linux-x64", "works again"]);
}

#[test]
fn an_end_that_is_near_is_told_for_a_pinned_version_and_one_that_is_past_is_an_error() {
    for (from_now, level, part) in
        [(3 * 86_400, "WARN", "in 2 days"), (0, "ERROR", "GitHub refuses runner 2.330.0 since")]
    {
        let rig = Rig::prepared(Plan::with(&format!("runner_version: {}", package::VERSION)), |before| {
            let at = Timestamp::now().after(Duration::from_secs(from_now));
            let ends = BTreeMap::from([(package::VERSION.to_owned(), at)]);
            before.github.with(|state| state.runner_ends = Some(ends));
        });
        let line = rig.daemon.wait(&[level, "version comes to its end"]);
        assert!(line.contains(part), "{line}");
    }
}
