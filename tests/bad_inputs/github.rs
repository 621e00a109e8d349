//! A GitHub that answers badly, or not at all.

use standin::github::{Fault, Mischief};

use super::support::*;
use super::{Row, check_launch_fails, check_parts, check_queued, check_runs, reason, row, table};

const JIT: &str = "/orgs/acme/actions/runners/generate-jitconfig";
const TOKEN: &str = "/orgs/acme/actions/runners/registration-token";
/// Takes the whole deadline of a call.
const SILENCE: &str = "nothing";
const QUEUE: &str = "/repos/acme/app/actions/runs";

/// What GitHub does, and what must be told of it.
pub struct Bad {
    answer: &'static str,
    fault: fn(&str) -> Fault,
    parts: &'static [&'static str],
}

const BAD: &[Bad] = &[
    Bad {
        answer: "401",
        fault: |path| Fault::status(path, 401, "Bad credentials"),
        parts: &["401: Bad credentials", "renew pat"],
    },
    Bad { answer: "404", fault: |path| Fault::status(path, 404, "Not Found"), parts: &["404: Not Found", "rights"] },
    Bad {
        answer: "500",
        fault: |path| Fault::status(path, 500, "Server Error"),
        parts: &["500: Server Error", "tried again"],
    },
    Bad { answer: "HTML", fault: |path| Fault::html(path, 200), parts: &["not what GitHub sends", "github_api"] },
    Bad {
        answer: "hangs up",
        fault: |path| Fault::on(path, Mischief::Close),
        parts: &["no connection (http://127.0.0.1:", "github_api"],
    },
    Bad {
        answer: SILENCE,
        fault: |path| Fault::on(path, Mischief::Stall),
        parts: &["no answer in time (http://127.0.0.1:", "30 s"],
    },
];

fn bad_at(rig: &Rig, bad: &Bad, path: &str) {
    rig.github.inject((bad.fault)(path).times(usize::MAX));
}

#[test]
fn when_a_runner_is_registered() {
    registering(answers());
}

#[test]
fn when_the_queue_is_listed() {
    listing(answers());
}

fn answers() -> impl Iterator<Item = &'static Bad> {
    BAD.iter().filter(|bad| bad.answer != SILENCE)
}

pub fn silence() -> impl Iterator<Item = &'static Bad> {
    BAD.iter().filter(|bad| bad.answer == SILENCE)
}

pub fn registering(bad: impl Iterator<Item = &'static Bad>) {
    let check = |bad: &'static Bad| -> Row {
        row(bad.answer, || {
            let rig = Rig::new(Plan::default());
            bad_at(&rig, bad, JIT);
            // Asked where there is no JIT config.
            bad_at(&rig, bad, TOKEN);
            let parts = [bad.parts, &["org:acme", "what=\"registration of runners with org:acme\""]].concat();
            check_launch_fails(&rig, &parts, |rig| rig.github.clear_faults())
        })
    };
    table("GitHub at the registration", bad.map(check).collect());
}

pub fn listing(bad: impl Iterator<Item = &'static Bad>) {
    let check = |bad: &'static Bad| -> Row {
        row(bad.answer, || {
            let rig = Rig::prepared(Plan::default(), |before| bad.arm(before));
            // Only a look finds this job.
            rig.github.hook_by_itself(false);
            let job = rig.queue();
            let told = rig.daemon.wait(&["ERROR", "what=\"github jobs of acme/app\""]);
            check_parts(&told, bad.parts);
            assert_eq!(rig.complaints(), [told.as_str()], "told once");
            check_queued(&rig, job);
            assert_eq!(rig.health().0, 200, "LXD is well");
            rig.github.clear_faults();
            check_runs(&rig, job);
            rig.daemon.wait(&["what=\"github jobs of acme/app\"", "works again"]);
            reason(&rig, &told)
        })
    };
    table("GitHub at the queue's listing", bad.map(check).collect());
}

impl Bad {
    fn arm(&self, before: &Before<'_>) {
        before.github.inject((self.fault)(QUEUE).times(usize::MAX));
    }
}

#[test]
fn at_everything() {
    let check = |bad: &'static Bad| -> Row {
        row(bad.answer, || {
            let rig = Rig::prepared(Plan::default(), |before| {
                before.github.inject((bad.fault)("/").times(usize::MAX));
            });
            let job = rig.queue();
            let told = rig.daemon.wait(&["ERROR", "what=\"github runners of org:acme\""]);
            check_parts(&told, bad.parts);
            let package = rig.daemon.wait(&["ERROR", "what=\"runner package linux-x64\""]);
            check_parts(&package, bad.parts);
            check_queued(&rig, job);
            assert_eq!(rig.instances(), Vec::<String>::new());
            rig.github.clear_faults();
            check_runs(&rig, job);
            let mut complaints = rig.complaints();
            complaints.retain(|line| line.contains("ERROR"));
            assert_eq!(complaints.len(), 2, "each told once: {complaints:#?}");
            reason(&rig, &told)
        })
    };
    table("GitHub at everything", answers().map(check).collect());
}

/// What was made for it can be removed at once: LXD refuses to remove what is about to start.
#[test]
fn a_registration_that_fails_leaves_nothing_on_a_real_lxd() {
    let Some(rig) = Rig::real(Plan::default()) else { return };
    rig.github.inject(Fault::status(JIT, 500, "Server Error").times(usize::MAX));
    check_launch_fails(&rig, &["500: Server Error"], |rig| rig.github.clear_faults());
}
