use std::collections::BTreeSet;
use std::time::Duration;

use super::Doubt;
use crate::config::Config;
use crate::model::{InstanceStatus, Job, JobId, JobStatus};
use crate::plan::Reason;
use crate::world::testkit::*;
use crate::world::{Action, Event, Hold, InstanceSeen, Note, Outcome, Queue, RemoveReason};

#[test]
fn a_job_that_is_listed_no_more_is_over_unless_it_is_news() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.pass(10).jobs(vec![]);
    assert_eq!(stage.launches(), ["lxdrunner-1-1"], "the listing may lag behind the delivery");
    // After that GitHub is asked before anything is concluded.
    stage.pass(30).jobs(vec![]);
    assert_eq!(stage.launches(), Vec::<String>::new());
    assert_eq!(stage.reason(1), Some(Reason::Asked(Doubt::Unlisted)));
    stage.answer(Some(job(1, "acme/app", &["linux"])));
    assert_eq!(stage.launches(), ["lxdrunner-1-1"], "it waits, whatever the listing says");
    stage.pass(31).jobs(vec![]);
    stage.answer(None);
    assert!(stage.launches().is_empty() && stage.world.is_over(JobId(1)));
}

#[test]
fn a_queue_is_judged_by_when_it_was_asked_for() {
    // Asked just after the delivery, and folded when the look's other queues had answered, too.
    let mut stage = Stage::new(config());
    stage.queued(1);
    let (begun, asked_at) = (stage.world.seq(), stage.now.after(Duration::from_secs(1)));
    stage.pass(60).queue(begun, asked_at, vec![]);
    assert_eq!(stage.launches(), ["lxdrunner-1-1"]);
    // Of runs that were not asked nothing is said.
    let repo = "acme/app".parse().unwrap();
    let (begun, asked_at, unasked) = (stage.world.seq(), stage.now, BTreeSet::from([1001]));
    stage.fold(Event::Queue(Box::new(Queue { repo, begun, asked_at, jobs: Ok(vec![]), unasked })));
    assert_eq!(stage.launches(), ["lxdrunner-1-1"]);
    // What it lists was heard of then, not when it is folded.
    let (begun, asked_at) = (stage.world.seq(), stage.now);
    stage.pass(60).queue(begun, asked_at, vec![job(2, "acme/app", &["linux"])]);
    stage.queue(stage.world.seq(), asked_at.after(Duration::from_secs(31)), vec![]);
    assert_eq!(stage.reason(2), Some(Reason::Asked(Doubt::Unlisted)));
}

#[test]
fn a_job_whose_runner_ended_is_asked_for_before_it_is_launched_for_again() {
    // How the end of the runner is seen first.
    #[track_caller]
    fn check(ends: fn(&mut Stage)) {
        let mut stage = Stage::new(config());
        stage.queued(1);
        stage.launch_all();
        ends(&mut stage);
        let instance = "lxdrunner-1-1".to_owned();
        assert_eq!(stage.reason(1), Some(Reason::Asked(Doubt::RunnerEnded { instance })));
        assert_eq!(stage.pass(3600).launches(), Vec::<String>::new());
        let runner = (Some("lxdrunner-1-1".to_owned()), JobStatus::Completed);
        let done = Job { runner_name: runner.0, status: runner.1, ..job(1, "acme/app", &["self-hosted"]) };
        let question = stage.dispatch().into_iter().find(|a| matches!(a, Action::LookUpJob { .. })).unwrap();
        let notes = stage.outcome(question, Outcome::JobFound(Some(Box::new(done))));
        assert!(notes.iter().any(|n| matches!(n, Note::JobTaken { ours: true, .. })), "{notes:?}");
        assert!(notes.iter().any(|n| matches!(n, Note::JobOver { ours: true, .. })), "{notes:?}");
        assert_eq!(stage.launches(), Vec::<String>::new());
    }
    check(|stage| drop(stage.lxd(vec![])));
    check(|stage| drop(stage.lxd(vec![InstanceSeen { status: InstanceStatus::Stopped, ..seen("lxdrunner-1-1", 1) }])));
    check(|stage| {
        stage.runners(acme(), vec![runner(1, "lxdrunner-1-1", true, false)]);
        stage.runners(acme(), vec![]);
    });
}

#[test]
fn a_question_that_gets_no_answer_keeps_a_job_waiting_for_a_minute_only() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.launch_all();
    stage.lxd(vec![]);
    let (mut told, mut waited) = (0, 0);
    while stage.launches().is_empty() {
        for action in stage.dispatch() {
            if let Action::LookUpJob { .. } = &action {
                told += stage.outcome(action, Outcome::LookFailed { reason: "403".to_owned() }).len();
            }
        }
        stage.pass(1);
        waited += 1;
    }
    assert_eq!(told, 1);
    assert!((30..=70).contains(&waited), "{waited}");
}

#[test]
fn a_runner_that_ends_without_a_job_makes_the_next_one_wait_longer() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    let mut pauses = Vec::new();
    for _ in 0..4 {
        assert_eq!(stage.launch_all().len(), 1);
        stage.lxd(vec![]);
        stage.answer(Some(job(1, "acme/app", &["self-hosted"])));
        let Some(Reason::HeldBack { until, hold: Hold::RunnersEnded, .. }) = stage.reason(1) else {
            panic!("{:?}", stage.reason(1))
        };
        pauses.push(until.since(stage.now).as_secs());
        stage.now = until;
    }
    assert_eq!(pauses, [2, 4, 8, 16]);
}

#[test]
fn a_job_whose_runner_went_without_a_word_is_asked_about() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.launch_all();
    // It ran, and every delivery that said so was lost.
    stage.lxd(vec![]);
    let is_question = |a: &Action| matches!(a, Action::LookUpJob { .. });
    let question = stage.dispatch().into_iter().find(is_question).unwrap();
    assert!(matches!(question, Action::LookUpJob { job: JobId(1), .. }), "{question:?}");
    let done = Job { status: JobStatus::Completed, ..job(1, "acme/app", &["self-hosted"]) };
    stage.outcome(question, Outcome::JobFound(Some(Box::new(done))));
    stage.pass(3600);
    assert_eq!(stage.launches(), Vec::<String>::new());
}

#[test]
fn a_late_waiting_takes_no_job_out_of_the_queue() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.told(1, JobStatus::Waiting, None);
    assert_eq!(stage.launches(), ["lxdrunner-1-1"]);
    let is_look = |a: &Action| matches!(a, Action::LookAtRepo { .. });
    let look = stage.plan().actions.into_iter().find(is_look).unwrap();
    stage.world.dispatched(&look);
    let waiting = Job { status: JobStatus::Waiting, ..job(1, "acme/app", &["self-hosted"]) };
    stage.outcome(look, Outcome::JobsFound(vec![waiting]));
    assert_eq!(stage.launches(), ["lxdrunner-1-1"], "the list may be older than the delivery");
    let waiting = Job { status: JobStatus::Waiting, ..job(1, "acme/app", &["self-hosted"]) };
    stage.pass(1).jobs(vec![waiting.clone()]);
    assert_eq!(stage.launches(), ["lxdrunner-1-1"], "so may the one of a look");
    stage.pass(30).jobs(vec![waiting]);
    assert_eq!(stage.launches(), Vec::<String>::new(), "GitHub's list is the truth");
}

#[test]
fn github_is_believed_over_what_we_heard_once_its_listings_cannot_lag_any_more() {
    let mut stage = Stage::new(config());
    stage.told(1, JobStatus::Completed, None);
    let open = vec![job(1, "acme/app", &["linux"])];
    stage.pass(10).jobs(open.clone());
    assert_eq!(stage.launches(), Vec::<String>::new(), "the listing may be older than the delivery");
    stage.pass(30).jobs(open);
    assert_eq!(stage.launches(), ["lxdrunner-1-1"]);
}

#[test]
fn a_job_that_waits_beside_an_idle_runner_for_minutes_is_asked_for() {
    // The queues of an enterprise are never listed.
    let scope: crate::model::Scope = "enterprise:big".parse().unwrap();
    let mut stage = Stage::new(Config { targets: vec![scope.clone()], ..config() });
    stage.queued(1);
    stage.launch_all();
    let idle = || vec![runner(1, "lxdrunner-1-1", true, false)];
    let questions =
        |stage: &Stage| stage.plan().actions.into_iter().filter(|a| matches!(a, Action::LookUpJob { .. })).count();
    stage.runners(scope.clone(), idle());
    for (passed, expected) in [(100, 0), (100, 1)] {
        stage.pass(passed).runners(scope.clone(), idle());
        assert_eq!(questions(&stage), expected);
    }
    stage.answer(Some(job(1, "acme/app", &["self-hosted"])));
    assert_eq!((questions(&stage), stage.reason(1)), (0, Some(Reason::Covered)), "it waits, as GitHub says");
    stage.pass(181);
    assert_eq!(questions(&stage), 1);
    // The delivery of its end was lost.
    stage.answer(Some(Job { status: JobStatus::Completed, ..job(1, "acme/app", &["self-hosted"]) }));
    stage.pass(600).runners(scope, idle());
    assert_eq!(stage.removals(), [("lxdrunner-1-1".to_owned(), RemoveReason::Idle)]);
}
