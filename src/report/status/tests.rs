//! A day's moments, as people are told of them.

use super::*;
use crate::config::ForkPolicy;
use crate::plan::testkit::{settle, stage, with};
use crate::world::testkit::*;
use crate::world::{GitHubSeen, InstanceSeen, Launch, Note, Outcome, Subject};

#[track_caller]
fn check(stage: &Stage, lines: &[&str]) {
    let text = status(&stage.world, stage.now).to_string();
    let squeezed: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in lines {
        assert!(squeezed.iter().any(|told| told == line), "no line {line:?} in:\n{text}");
    }
}

#[test]
fn what_waits_runs_and_is_kept_ready_is_counted_by_class() {
    let mut stage = Stage::new(config());
    let head = "CLASS QUEUED RUNNING STARTING IDLE BUSY LEAVING STANDBY PLACES TEMPLATE";
    check(&stage, &["looked at LXD 0 s ago, at GitHub 0 s ago", head, "small 0 0 0 0 0 0 0 0 of 10 none"]);
    stage.queued(1);
    stage.pass(5);
    check(
        &stage,
        &["jobs: 1 queued, 0 running", "instances: 0 of 4 (max_workers)", "small 1 0 0 0 0 0 0 0 of 10 none"],
    );
    // From the moment that a worker has it.
    let launch = stage.dispatch().remove(0);
    check(&stage, &["small 1 0 1 0 0 0 0 1 of 10 none", "gpu 0 0 0 0 0 0 0 0 of 2 none"]);
    stage.outcome(launch, Outcome::Launched { runner: None });
    check(&stage, &["small 1 0 1 0 0 0 0 1 of 10 none"]);
    stage.runners(acme(), vec![runner(1, "lxdrunner-1-1", true, false)]);
    check(&stage, &["small 1 0 0 1 0 0 0 1 of 10 none"]);
    stage.told(1, JobStatus::InProgress, Some("lxdrunner-1-1"));
    check(
        &stage,
        &["jobs: 0 queued, 1 running", "instances: 1 of 4 (max_workers)", "small 0 1 0 0 1 0 0 1 of 10 none"],
    );
    stage.told(1, JobStatus::Completed, Some("lxdrunner-1-1"));
    check(&stage, &["small 0 0 0 0 0 1 0 0 of 10 none"]);
    // Labels that no class has.
    let hosted = job(9, "acme/app", &["windows"]);
    stage.fold(crate::world::Event::Hint(crate::model::Hint::Job(hosted)));
    check(&stage, &["jobs: 0 queued, 0 running; 1 queued that are not served here"]);
}

#[test]
fn what_is_kept_ready_and_what_is_there_of_no_class_is_told() {
    let mut stage = stage(with(2, 0));
    settle(&mut stage);
    check(&stage, &["small 0 0 0 0 0 0 2 2 of 10 ready"]);
    stage.config().classes.remove(0);
    stage.world.templates = stage.world.templates.iter().skip(1).cloned().collect();
    check(&stage, &["small 0 0 0 0 0 0 2 not in the config any more none"]);
}

#[test]
fn each_job_that_waits_is_told_with_its_reason_and_what_does_not_work_with_its_own() {
    let mut stage = Stage::new(Config { max_workers: 1, ..config() });
    for id in 1..=30 {
        stage.queued(id);
        stage.pass(1);
    }
    stage.launch_all();
    check(
        &stage,
        &[
            "JOB REPO CLASS WAITS BECAUSE",
            "2 acme/app small 29 s all 1 instances are in use (max_workers)",
            "21 acme/app small 10 s all 1 instances are in use (max_workers)",
            "and 9 more",
        ],
    );
    let launch = Action::Launch(Launch {
        job: Some(JobId(2)),
        class: ClassId(0),
        scope: acme(),
        name: "lxdrunner-2-1".to_owned(),
        from: crate::world::LaunchSource::Image,
    });
    let (blame, reason) = (Subject::Class("small".to_owned()), format!("no image\n{}", "page ".repeat(100)));
    stage.outcome(launch, Outcome::LaunchFailed { blame, reason, made: false, runner: None });
    stage.snapshot(stage.world.seq(), None, None);
    let until = stage.now.after(Duration::from_secs(2)).to_rfc3339();
    check(
        &stage,
        &[
            &format!("paused: after 1 failure: launches of class \"small\" failed, next try at {until}: no image"),
            "trouble: lxd: LXD is down",
        ],
    );
    assert_eq!(status(&stage.world, stage.now).to_string().matches("LXD is down").count(), 1);
}

#[test]
fn launches_that_fail_again_and_again_are_trouble() {
    let mut stage = Stage::new(config());
    let mut fail = |subject: Subject, failures: u32| {
        for _ in 0..failures {
            stage.world.failures.failed(subject.clone(), "no such profile", stage.now);
            stage.now = stage.paused_until();
        }
        stage.troubles()
    };
    let class = Subject::Class("small".to_owned());
    assert!(fail(class.clone(), 2).is_empty(), "a hiccup");
    assert_eq!(fail(class, 1), ["launches of class \"small\""]);
    assert_eq!(fail(Subject::Template("small".to_owned()), 9).len(), 1, "jobs start from the image");
    assert_eq!(fail(Subject::Idle("small".to_owned()), 3)[1], "idle runners of class \"small\"");
}

#[test]
fn the_ages_of_looks_count_answers_and_not_tries() {
    let mut stage = Stage::new(config());
    stage.jobs(vec![]);
    stage.pass(60);
    let repo = "acme/app".parse().unwrap();
    let failed = crate::world::Queue {
        repo,
        begun: stage.world.seq(),
        asked_at: stage.now,
        jobs: Err("502".to_owned()),
        unasked: Default::default(),
    };
    stage.fold(crate::world::Event::Queue(Box::new(failed)));
    let runners = vec![(acme(), Err("502".to_owned()))];
    stage.snapshot(stage.world.seq(), None, Some(GitHubSeen { runners, ..GitHubSeen::default() }));
    stage.snapshot(stage.world.seq(), None, None);
    check(&stage, &["looked at LXD 60 s ago, at GitHub 60 s ago"]);
}

#[test]
fn what_is_stopped_and_cannot_be_deleted_is_told_with_what_may_help() {
    let mut stage = Stage::new(config());
    stage.runners(acme(), vec![]);
    stage.lxd(vec![InstanceSeen { status: crate::model::InstanceStatus::Stopped, ..seen("lxdrunner-1-1", 1) }]);
    stage.pass(60);
    let hint = "rmdir /var/lib/lxd/storage-pools/POOL/containers/lxdrunner-1-1`";
    for failure in 1..=5 {
        let removal = stage.dispatch().remove(0);
        let notes = stage.outcome(removal, Outcome::RemoveFailed { reason: "Invalid argument".to_owned() });
        let told = notes.iter().find_map(|note| match note {
            Note::RemoveFailed { reason, .. } => Some(reason.contains(hint)),
            _ => None,
        });
        assert_eq!(told, Some(failure == 5), "{notes:?}");
        stage.now = stage.paused_until();
    }
    let told: Vec<(String, String)> = stuck(&stage.world).collect();
    assert!(told[0].1.contains("5 tries: Invalid argument; ") && told[0].1.contains(hint), "{told:?}");
}

#[test]
fn a_question_of_fork_origin_that_fails_is_the_reason_and_trouble() {
    let mut stage = Stage::new(Config { fork_policy: Some(ForkPolicy::Members), ..config() });
    stage.queued(1);
    let ask = |stage: &mut Stage| stage.dispatch().into_iter().find(|a| matches!(a, Action::LookUpRun { .. })).unwrap();
    for _ in 0..2 {
        let ask = ask(&mut stage);
        stage.outcome(ask, Outcome::LookFailed { reason: "403 not accessible by integration".to_owned() });
        stage.now = stage.paused_until();
    }
    assert!(matches!(stage.reason(1), Some(Reason::Paused { reason, .. }) if reason.starts_with("403")));
    assert_eq!(stage.troubles(), ["question where the commits of runs in acme/app come from"]);
    let told = status(&stage.world, stage.now);
    assert_eq!((told.others, told.waiting.len()), (0, 1), "it is not said to be left for others");
    let told = crate::report::explain::explain(&stage.world, stage.now, JobId(1), None).to_string();
    assert!(told.contains("403 not accessible by integration"), "{told}");
    let ask = ask(&mut stage);
    stage.outcome(ask, Outcome::RunFound(Some(crate::model::RunOrigin::Own)));
    assert_eq!((stage.troubles().len(), stage.launches().len()), (0, 1));
}
