//! Late news of a job, where the name of its runner is given again. With a registration token nothing but a listing tells
//! which runner is the instance's.

use crate::model::{Job, JobId, JobStatus, RunnerId};
use crate::plan::Reason;
use crate::world::testkit::*;
use crate::world::{Action, Event, Hint, Outcome, RemoveReason, RunnerState};

const NAME: &str = "lxdrunner-1-1";

/// News of job 9, which an earlier runner of the name had.
fn news(stage: &mut Stage, status: JobStatus) {
    let (runner_name, runner_id) = (Some(NAME.to_owned()), Some(RunnerId(50)));
    let job = Job { status, runner_name, runner_id, ..job(9, "acme/app", &["self-hosted"]) };
    stage.fold(Event::Hint(Hint::Job(job)));
}

/// A new instance of the name, launched with a token.
fn launched() -> Stage {
    launched_with(None)
}

/// The same with a registration whose id is known.
fn launched_with(runner: Option<RunnerId>) -> Stage {
    let mut stage = Stage::new(config());
    stage.queued(1);
    let launch = stage.dispatch().into_iter().find(|action| matches!(action, Action::Launch(_))).unwrap();
    stage.outcome(launch, Outcome::Launched { runner });
    stage
}

#[test]
fn a_late_listing_of_an_earlier_runner_of_the_name_says_nothing_of_one_whose_id_is_noted() {
    let mut stage = launched_with(Some(RunnerId(61)));
    stage.runners(acme(), vec![runner(50, NAME, true, true)]);
    news(&mut stage, JobStatus::Completed);
    let instance = &stage.world.instances[NAME];
    assert_eq!((instance.seen.runner_id, instance.runner), (Some(RunnerId(61)), RunnerState::Awaited));
    stage.runners(acme(), vec![runner(61, NAME, true, false)]);
    assert_eq!(stage.world.instances[NAME].runner, RunnerState::Idle(stage.now));
}

#[test]
fn what_is_told_late_of_an_earlier_runner_of_a_name_ends_with_the_listing_that_has_the_new_one() {
    for told in [&[JobStatus::InProgress][..], &[JobStatus::Completed], &[JobStatus::InProgress, JobStatus::Completed]]
    {
        let mut stage = launched();
        told.iter().for_each(|status| news(&mut stage, *status));
        assert_ne!(stage.world.instances[NAME].runner, RunnerState::Awaited, "the id tells nothing yet");
        assert_eq!(stage.pass(61).removals(), [], "{told:?}: its own runner may come yet");
        stage.runners(acme(), vec![runner(61, NAME, true, false)]);
        assert_eq!(stage.world.instances[NAME].runner, RunnerState::Idle(stage.now), "{told:?}");
        assert_eq!(stage.reason(1), Some(Reason::Covered), "{told:?}");
        stage.pass(61);
        assert_eq!(stage.removals(), [], "{told:?}");
    }
}

#[test]
fn an_instance_that_hangs_after_its_job_goes_where_its_runner_was_listed_and_where_it_never_was() {
    for (listed, after) in [(true, 61), (false, 301)] {
        let mut stage = launched();
        news(&mut stage, JobStatus::InProgress);
        if listed {
            stage.runners(acme(), vec![runner(50, NAME, true, true)]);
        }
        news(&mut stage, JobStatus::Completed);
        stage.pass(after - 1).runners(acme(), vec![]);
        assert_eq!(stage.removals(), [], "listed: {listed}");
        stage.pass(1);
        assert_eq!(stage.removals(), [(NAME.to_owned(), RemoveReason::Finished)], "listed: {listed}");
    }
}

#[test]
fn a_name_that_a_job_in_progress_is_said_to_run_on_is_not_given_again() {
    let mut stage = Stage::new(config());
    news(&mut stage, JobStatus::InProgress);
    stage.queued(1);
    assert_eq!(stage.launches(), ["lxdrunner-1-2"]);
    news(&mut stage, JobStatus::Completed);
    assert!(stage.world.is_over(JobId(9)));
    assert_eq!(stage.launches(), [NAME]);
}
