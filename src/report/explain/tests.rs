//! Each way a job can stand: the one line, and the details that matter to it.

use super::*;
use crate::config::Config;
use crate::world::testkit::*;
use crate::world::{GitHubSeen, Outcome};

#[track_caller]
fn check(stage: &Stage, id: u64, told: Option<&Job>, summary: &str, details: &[(&str, &str)]) {
    let found = explain(&stage.world, stage.now, JobId(id), told);
    assert!(found.summary.contains(summary), "{found}");
    for (about, part) in details {
        let fits = |(a, text): &(&str, String)| a == about && text.contains(part);
        assert!(found.details.iter().any(fits), "no {about}: {part} in:\n{found}");
    }
}

#[test]
fn a_job_that_is_served() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.pass(5);
    let details = [
        ("job", "\"job 1\" of acme/app, run 1001, queued 5 s ago"),
        ("runs-on", "self-hosted"),
        ("class", "\"small\" takes it: has all its labels and 2 more"),
        ("class", "\"gpu\" could take it, and has 3 labels more"),
        ("scope", "org:acme"),
        ("repo", "private"),
        ("forks", "fork_policy allow: where its commits come from does not matter"),
        ("line", "number 1 of 1 that wait for class \"small\" in org:acme"),
        ("group", "\"Default\" of org:acme"),
        ("caps", "0 of 4 instances; 0 of 10 of class \"small\"; 0 of 8"),
        ("from", "the image"),
        ("package", "2.330.0"),
        ("next", "GitHub gives its runner the job"),
        ("look", "at 1970-01-12T13:47:40Z, in 55 s"),
    ];
    check(&stage, 1, None, "job 1 is next: instance lxdrunner-1-1 is made for it now", &details);
    let launch = stage.dispatch().remove(0);
    let making = [("instance", "lxdrunner-1-1: is being made from the image, for job 1"), ("caps", "1 of 4 instances")];
    check(&stage, 1, None, "is being served: instance lxdrunner-1-1 is being made", &making);
    stage.outcome(launch, Outcome::Launched { runner: None });
    let covered =
        [("instance", "started and not online yet"), ("next", "not online within 5 min of its last progress")];
    check(&stage, 1, None, "waits for a runner that is on its way", &covered);
    stage.runners(acme(), vec![runner(1, "lxdrunner-1-1", true, false)]);
    check(&stage, 1, None, "or for GitHub to give it to an idle one", &[("instance", "idle since 0 s")]);
    stage.pass(61);
    check(&stage, 1, None, "runner lxdrunner-1-1 fits and has been idle for long; see whether its runner group", &[]);
    let told = |status| Job { status, runner_name: Some("lxdrunner-1-1".to_owned()), ..job(1, "acme/app", &[]) };
    // GitHub was asked and told more than any delivery has.
    let runs = "job 1 runs on lxdrunner-1-1, an instance of ours";
    check(&stage, 1, Some(&told(JobStatus::InProgress)), runs, &[]);
    stage.told(1, JobStatus::InProgress, Some("lxdrunner-1-1"));
    check(&stage, 1, None, runs, &[]);
    check(&stage, 1, Some(&told(JobStatus::Queued)), runs, &[]);
    check(&stage, 1, Some(&told(JobStatus::Completed)), "job 1 is over; lxdrunner-1-1 ran it", &[]);
    stage.told(1, JobStatus::Completed, Some("lxdrunner-1-1"));
    check(&stage, 1, None, "job 1 is over", &[]);
}

#[test]
fn a_job_that_waits() {
    let full = || Stage::new(Config { max_workers: 1, ..config() });
    let mut stage = full();
    stage.lxd(vec![seen("lxdrunner-9-1", 9)]);
    stage.told(9, JobStatus::InProgress, Some("lxdrunner-9-1"));
    stage.queued(1);
    stage.pass(180).queued(2);
    let details = [("line", "number 2 of 2"), ("next", "the oldest, lxdrunner-9-1, was made 3 min ago")];
    check(&stage, 2, None, "job 2 waits: all 1 instances are in use (max_workers)", &details);

    let mut stage = Stage::new(config());
    stage.queued(1);
    let launch = stage.dispatch().remove(0);
    let (blame, reason) = (Subject::Scope(acme()), "GitHub forbids it (403)".to_owned());
    stage.outcome(launch, Outcome::LaunchFailed { blame, reason, made: false, runner: None });
    let details =
        [("paused", "registration of runners with org:acme failed once, tried again at"), ("next", "in 60 s")];
    check(&stage, 1, None, "job 1 waits: registration of runners with org:acme failed, next try at", &details);

    let mut stage = Stage::new(config());
    stage.queued(1);
    let failed = GitHubSeen { runners: vec![(acme(), Err("502".to_owned()))], ..GitHubSeen::default() };
    stage.github(failed);
    check(&stage, 1, None, "job 1 is next", &[("trouble", "github runners of org:acme: 502")]);
    stage.snapshot(stage.world.seq(), None, None);
    let details = [("lxd", "LXD is down"), ("next", "as soon as LXD answers")];
    check(&stage, 1, None, "job 1 waits: LXD does not answer", &details);
}

#[test]
fn an_instance_that_cannot_be_removed_is_not_told_as_one_that_is_prepared() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    let launch = stage.dispatch().remove(0);
    let (blame, reason) = (crate::world::Subject::Scope(acme()), "401".to_owned());
    stage.outcome(launch, Outcome::LaunchFailed { blame, reason, made: true, runner: None });
    let removal = stage.dispatch().remove(0);
    assert!(matches!(removal, Action::Remove { .. }), "{removal:?}");
    stage.outcome(removal, Outcome::RemoveFailed { reason: "401".to_owned() });
    check(&stage, 1, None, "", &[("instance", "lxdrunner-1-1: it is to go, and could not be removed yet")]);
    let status = crate::report::status::status(&stage.world, stage.now);
    assert_eq!(status.classes[0].instances.get(&crate::report::status::State::Leaving), Some(&1));
}

#[test]
fn what_a_script_printed_is_told_once_and_below_its_detail() {
    let all = Explanation {
        summary: "job 1 waits: setup_script ended with code 7; the end of its output:\nE: no mirror".to_owned(),
        details: vec![
            ("paused", "setup_script ended with code 7; the end of its output:\nE: no mirror\n".to_owned()),
            ("next", "x".to_owned()),
        ],
    };
    let lines = [
        "job 1 waits: setup_script ended with code 7; the end of its output: …",
        "  paused:   setup_script ended with code 7; the end of its output:",
        "            E: no mirror",
        "  next:     x",
    ];
    assert_eq!(all.to_string(), lines.join("\n"));
}

#[test]
fn a_job_that_is_not_ours() {
    let mut stage = Stage::new(config());
    let mut hear = |job: Job| drop(stage.fold(Event::Hint(Hint::Job(job))));
    hear(job(1, "acme/app", &["ubuntu-latest"]));
    hear(job(2, "other/app", &["linux"]));
    hear(Job { public: Some(true), ..job(3, "acme/app", &["linux"]) });
    hear(Job { public: None, ..job(4, "acme/app", &["linux"]) });
    let lacks = [("class", "\"small\" lacks ubuntu-latest"), ("class", "\"gpu\" lacks ubuntu-latest")];
    check(&stage, 1, None, "job 1 is not served here: no class of runnermap has all its labels", &lacks);
    check(&stage, 1, None, "", &[("next", "it is left for other runners")]);
    check(&stage, 2, None, "not served here: its repository is not among", &[("scope", "none: other/app")]);
    check(&stage, 3, None, "its repository is public", &[("repo", "refused without allow_public_repos")]);
    check(&stage, 4, None, "job 4 waits: whether its repository is public", &[("next", "when GitHub has told")]);
}

#[test]
fn a_job_that_names_a_runner_group_and_no_label() {
    let mut stage = Stage::new(config());
    let hear = |id: u64, stage: &mut Stage| drop(stage.fold(Event::Hint(Hint::Job(job(id, "acme/app", &[])))));
    hear(1, &mut stage);
    let none = [("runs-on", "a runner group, and no label"), ("class", "\"small\" has no runner_group of its own")];
    check(&stage, 1, None, "job 1 is not served here: its runs-on names only a runner group", &none);
    stage.config().classes[1].runner_group = "builders".to_owned();
    hear(2, &mut stage);
    let one = [
        ("class", "\"small\" has no runner_group of its own"),
        ("class", "\"gpu\" takes it: has the only runner_group of its own, \"builders\""),
    ];
    check(&stage, 2, None, "job 2 is next: instance lxdrunner-2-1", &one);
    stage.config().classes[0].runner_group = "testers".to_owned();
    hear(3, &mut stage);
    let two = [("class", "could be meant: its runner_group is \"testers\""), ("class", "is \"builders\"")];
    check(&stage, 3, None, "and 2 classes have a runner_group of their own; give the job a label", &two);
}

#[test]
fn a_job_that_is_not_listed_any_more_is_not_called_over() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.pass(31).jobs(vec![]);
    let asked = [("next", "GitHub's answer decides: where the job still waits, an instance is launched")];
    check(&stage, 1, None, "job 1 waits: GitHub does not list it among the open jobs any more", &asked);
    // A delivery that comes again does not answer the question.
    stage.queued(1);
    check(&stage, 1, None, "and no delivery told of its end; GitHub is asked what became of it", &asked);
}

#[test]
fn a_job_that_nobody_told_of() {
    let mut stage = Stage::new(config());
    check(&stage, 1, None, "nothing was heard of it", &[]);
    let told = job(1, "acme/app", &["linux"]);
    let details = [("heard", "no delivery told of it yet"), ("class", "takes it")];
    check(&stage, 1, Some(&told), "job 1 is next", &details);
    assert_eq!(stage.world.jobs().count(), 0, "asking changes nothing");
    let of = |status, runner: Option<&str>| Job { status, runner_name: runner.map(str::to_owned), ..told.clone() };
    check(
        &stage,
        1,
        Some(&of(JobStatus::Waiting, None)),
        "an approval, or its concurrency group",
        &[("job", "acme/app")],
    );
    check(&stage, 1, Some(&of(JobStatus::Completed, None)), "is over; no runner ever had it", &[]);
    check(&stage, 1, Some(&of(JobStatus::Completed, Some("x"))), "is over; x ran it", &[]);
    check(&stage, 1, Some(&of(JobStatus::InProgress, Some("x"))), "runs on x, a runner of others", &[]);
    stage.told(1, JobStatus::Completed, None);
    check(&stage, 1, Some(&told), "is over, as GitHub told before", &[]);
}

#[test]
fn the_details_of_the_guard() {
    let policy = Some(ForkPolicy::Members);
    let repos = crate::config::testkit_rules("acme/*,!acme/secret-*");
    let mut stage = Stage::new(Config { fork_policy: policy, repos, ..config() });
    stage.queued(1);
    stage.fold(Event::Hint(Hint::Job(job(2, "acme/secret-1", &["linux"]))));
    let waits =
        [("forks", "fork_policy members: where its commits come from is not known yet"), ("repo", "let in by repos")];
    check(&stage, 1, None, "job 1 waits: where its commits come from is being asked", &waits);
    check(&stage, 2, None, "repos denies acme/secret-*", &[("repo", "kept out by repos: deny acme/secret-*")]);
    let question = stage.dispatch().into_iter().find(|a| matches!(a, Action::LookUpRun { .. })).unwrap();
    let fork = RunOrigin::Fork { from: "bob/app".to_owned(), trust: Err("bob is a stranger".to_owned()) };
    stage.outcome(question, Outcome::RunFound(Some(fork)));
    check(
        &stage,
        1,
        None,
        "not served here: its commits come from bob/app",
        &[("forks", "bob/app: bob is a stranger")],
    );
}

#[test]
fn lengths_of_time_are_short() {
    let check = |seconds: u64, text: &str| assert_eq!(length(Duration::from_secs(seconds)), text);
    check(0, "0 s");
    check(119, "119 s");
    check(120, "2 min");
    check(7199, "119 min");
    check(7200, "2 h");
    let text = Explanation { summary: "one".to_owned(), details: vec![("job", "x".to_owned())] }.to_string();
    assert_eq!(text, "one\n  job:      x");
}

#[test]
fn what_makes_room_is_a_runner_of_the_class_that_is_full_and_launches_of_other_classes_are_not_told() {
    use crate::plan::testkit::{settle, stage, with};
    use crate::world::InstanceSeen;

    let mut stage = stage(Config { max_workers: 3, ..with(0, 0) });
    settle(&mut stage);
    let template = stage.world.instances().next().unwrap().seen.clone();
    let busy = InstanceSeen { class: "gpu".to_owned(), ..seen("lxdrunner-90-1", 90) };
    stage.pass(3600).lxd(vec![template, busy]);
    stage.runners(acme(), vec![runner(90, "lxdrunner-90-1", true, true)]);
    stage.pass(60);
    stage.queued(5);
    stage.queued(6);
    stage.dispatch();
    stage.fold(Event::Hint(Hint::Job(job(1, "acme/app", &["gpu"]))));
    check(&stage, 1, None, "job 1 waits", &[("next", "; the oldest, lxdrunner-90-1, was made")]);
    let told = explain(&stage.world, stage.now, JobId(1), None).to_string();
    assert!(!told.contains("lxdrunner-5-1"), "{told}");
}
