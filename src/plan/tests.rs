//! What is decided: counting, caps, fairness, safe removal.

mod room;
mod troubles;

use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::identity::Maker;
use crate::model::{InstanceStatus, Job, JobStatus, Phase, RunnerId};
use crate::world::testkit::*;
use crate::world::{Doubt, Event, GitHubSeen, InstanceSeen, Judged, Note, Outcome, RemoveReason};

const NONE: [(String, RemoveReason); 0] = [];

#[test]
fn supply_is_counted_against_demand() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.queued(2);
    assert_eq!(stage.dispatch().len(), 2);
    assert_eq!(stage.launches(), Vec::<String>::new(), "both are on their way");
    stage.queued(3);
    assert_eq!(stage.launches(), ["lxdrunner-3-1"]);
}

#[test]
fn an_instance_that_was_listed_while_it_was_made_is_no_less_a_supply() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    let launch = stage.dispatch().remove(0);
    // LXD is listed between the creation and the start: the instance is there, and stopped.
    let made = InstanceSeen {
        phase: Phase::Provisioning,
        status: InstanceStatus::Stopped,
        maker: Maker::Us,
        runner_id: None,
        ..seen("lxdrunner-1-1", 1)
    };
    stage.lxd(vec![made]);
    assert_eq!((stage.launches(), stage.removals()), (vec![], vec![]));
    stage.outcome(launch, Outcome::Launched { runner: Some(RunnerId(1)) });
    assert_eq!(stage.reason(1), Some(Reason::Covered));
    assert_eq!((stage.launches(), stage.removals()), (vec![], vec![]));
}

#[test]
fn a_surplus_runner_serves_the_next_job() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.launch_all();
    stage.told(1, JobStatus::Completed, None);
    stage.queued(2);
    assert_eq!(stage.reason(2), Some(Reason::Covered));
    // The oldest is covered, whoever the runner was launched for.
    stage.queued(3);
    assert_eq!(stage.launches(), ["lxdrunner-3-1"]);
}

#[test]
fn caps_hold_for_the_class_and_the_host() {
    let mut stage = Stage::new(config());
    for id in 1..=3 {
        stage.fold(Event::Hint(crate::model::Hint::Job(job(id, "acme/app", &["gpu"]))));
    }
    assert_eq!(stage.launches(), ["lxdrunner-1-1", "lxdrunner-2-1"]);
    assert_eq!(stage.reason(3), Some(Reason::ClassFull { class: "gpu".to_owned(), max: 2 }));
    for id in 4..=6 {
        stage.queued(id);
    }
    assert_eq!(stage.launches().len(), 4);
    assert_eq!(stage.reason(6), Some(Reason::HostFull { max: 4 }));
    // The others' running instances count too, whatever they do.
    let running: Vec<InstanceSeen> = (90..94).map(|n| seen(&format!("lxdrunner-{n}-1"), n)).collect();
    stage.lxd(running);
    assert_eq!(stage.launches(), Vec::<String>::new());
}

#[test]
fn scopes_share_fairly_and_within_one_the_oldest_goes_first() {
    let mut stage = Stage::new(Config { max_workers: 3, ..config() });
    for id in 1..=5 {
        stage.queued(id);
    }
    stage.pass(1);
    stage.fold(Event::Hint(crate::model::Hint::Job(job(9, "alice/tool", &["linux"]))));
    assert_eq!(stage.launches(), ["lxdrunner-1-1", "lxdrunner-9-1", "lxdrunner-2-1"]);
}

#[test]
fn nothing_is_launched_on_an_unknown() {
    let mut world = World::new(std::sync::Arc::new(config()), 1, "");
    let hint = crate::model::Hint::Job(job(1, "acme/app", &["linux"]));
    world.fold(Event::Hint(hint), Timestamp(1));
    let plan = plan(&world, Timestamp(1));
    assert_eq!(plan.deferred, [(JobId(1), Reason::LxdUnknown)]);
    assert!(plan.look_at_lxd && plan.look_at_github, "the first thing is to look");
    assert!(matches!(plan.actions[..], [Action::FetchPackage { .. }]), "{:?}", plan.actions);
}

#[test]
fn the_package_is_fetched_once_ahead_and_again_after_a_day() {
    let mut stage = Stage::new(config());
    let fetches =
        |stage: &Stage| stage.plan().actions.iter().filter(|a| matches!(a, Action::FetchPackage { .. })).count();
    assert_eq!(fetches(&stage), 0);
    stage.pass(24 * 3600);
    assert_eq!(fetches(&stage), 1);
    let fetch = stage.dispatch().remove(0);
    assert_eq!(fetches(&stage), 0, "under way");
    stage.outcome(fetch, Outcome::PackageFailed { reason: "checksum".to_owned(), cached: None });
    assert_eq!(fetches(&stage), 0, "paused");
    stage.queued(1);
    assert_eq!(stage.launches(), ["lxdrunner-1-1"], "yesterday's serves meanwhile");
    stage.pass(2);
    assert_eq!(fetches(&stage), 1);
}

#[test]
fn after_a_failure_one_launch_tries_before_the_others_follow() {
    let mut stage = Stage::new(config());
    for id in 1..=3 {
        stage.queued(id);
    }
    let launches = stage.dispatch();
    assert_eq!(launches.len(), 3);
    for launch in launches {
        let blame = Subject::Class("small".to_owned());
        stage.outcome(launch, Outcome::LaunchFailed { blame, reason: "profile".to_owned(), made: false, runner: None });
    }
    stage.pass(2);
    assert_eq!(stage.launches().len(), 1);
    let launch = stage.dispatch().remove(0);
    stage.outcome(launch, Outcome::Launched { runner: Some(RunnerId(1)) });
    assert_eq!(stage.launches().len(), 2);
}

#[test]
fn a_launch_that_failed_halfway_is_cleared_away() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    let launch = stage.dispatch().remove(0);
    let blame = Subject::Class("small".to_owned());
    stage.outcome(launch, Outcome::LaunchFailed { blame, reason: "set-up".to_owned(), made: true, runner: None });
    assert_eq!(stage.removals(), [("lxdrunner-1-1".to_owned(), RemoveReason::Abandoned)]);
    let removal = stage.dispatch().remove(0);
    assert_eq!(stage.removals(), NONE, "under way");
    stage.outcome(removal, Outcome::Removed);
    stage.pass(2);
    assert_eq!(stage.launches(), ["lxdrunner-1-1"]);
}

#[test]
fn what_a_dead_process_left_half_made_goes_and_what_a_living_one_makes_stays() {
    #[track_caller]
    fn check(maker: Maker, age: u64, runners: Option<Vec<crate::model::Runner>>, removed: bool) {
        let mut stage = Stage::new(config());
        let created_at = Some(stage.now);
        stage.pass(age);
        let half =
            InstanceSeen { phase: Phase::Provisioning, maker, created_at, runner_id: None, ..seen("lxdrunner-1-1", 1) };
        stage.lxd(vec![half]);
        let listing = runners.ok_or("503".to_owned());
        stage.github(GitHubSeen { runners: vec![(acme(), listing)], ..GitHubSeen::default() });
        let expected = removed.then(|| ("lxdrunner-1-1".to_owned(), RemoveReason::Abandoned));
        assert_eq!(stage.removals(), expected.into_iter().collect::<Vec<_>>(), "{maker:?} {age}");
    }
    let online = |busy| Some(vec![runner(7, "lxdrunner-1-1", true, busy)]);
    check(Maker::Dead, 1, Some(vec![]), true);
    check(Maker::Dead, 1, None, false);
    check(Maker::Dead, 1, online(false), false);
    check(Maker::Dead, 1, online(true), false);
    check(Maker::Unknown, 1, Some(vec![]), false);
    check(Maker::Unknown, 599, Some(vec![]), false);
    check(Maker::Unknown, 601, Some(vec![]), true);
    check(Maker::Unknown, 601, None, false);
}

#[test]
fn a_half_made_instance_whose_name_had_a_job_elsewhere_goes_once_that_runner_is_gone() {
    let mut stage = Stage::new(config());
    stage.told(7, JobStatus::InProgress, Some("lxdrunner-1-1"));
    let left = InstanceSeen { phase: Phase::Provisioning, runner_id: None, ..seen("lxdrunner-1-1", 1) };
    stage.lxd(vec![left]);
    stage.runners(acme(), vec![]);
    assert_eq!(stage.removals(), NONE, "a listing may lag");
    stage.pass(61).runners(acme(), vec![]);
    assert_eq!(stage.removals(), [("lxdrunner-1-1".to_owned(), RemoveReason::Abandoned)]);
}

#[test]
fn started_instances_go_when_they_have_no_reason_left() {
    // Pairs of "seconds pass" and "what GitHub then says of the runner"; then whether the instance goes, and why.
    type Look = Option<(bool, bool)>;
    #[track_caller]
    fn check(story: &[(u64, Look)], expected: Option<RemoveReason>) {
        let mut stage = Stage::new(config());
        stage.lxd(vec![seen("lxdrunner-1-1", 1)]);
        for (seconds, look) in story {
            stage.pass(*seconds);
            let runners = look.map(|(online, busy)| runner(1, "lxdrunner-1-1", online, busy)).into_iter().collect();
            stage.runners(acme(), runners);
        }
        assert_eq!(stage.removals().pop().map(|(_, reason)| reason), expected, "{story:?}");
    }
    let (offline, idle, busy, absent) = (Some((false, false)), Some((true, false)), Some((true, true)), None);
    check(&[(0, idle)], None);
    check(&[(0, busy), (80_000, busy)], None);
    check(&[(0, offline), (299, offline)], None);
    check(&[(0, offline), (301, offline)], Some(RemoveReason::NeverOnline));
    check(&[(0, idle), (600, idle)], None);
    check(&[(0, idle), (601, idle)], Some(RemoveReason::Idle));
    // A runner is seen anew after an interruption.
    check(&[(0, idle), (500, offline), (101, idle)], None);
    check(&[(0, busy), (60, absent), (60, absent)], None);
    check(&[(0, busy), (60, absent), (61, absent)], Some(RemoveReason::Finished));
    check(&[(0, busy), (86_401, busy)], Some(RemoveReason::TooOld));
}

#[test]
fn only_the_surplus_ages_out_the_longest_idle_first() {
    let mut stage = Stage::new(config());
    stage.lxd(vec![seen("lxdrunner-1-1", 1), seen("lxdrunner-2-1", 2)]);
    stage.runners(acme(), vec![runner(2, "lxdrunner-2-1", true, false)]);
    stage.pass(10);
    let both = || vec![runner(1, "lxdrunner-1-1", true, false), runner(2, "lxdrunner-2-1", true, false)];
    stage.runners(acme(), both());
    stage.pass(700).queued(9);
    assert_eq!(stage.removals(), [("lxdrunner-2-1".to_owned(), RemoveReason::Idle)]);
    assert_eq!(stage.reason(9), Some(Reason::Covered));
}

#[test]
fn a_stopped_instance_gets_a_moment_to_vanish_by_itself() {
    let mut stage = Stage::new(config());
    let stopped = || vec![InstanceSeen { status: InstanceStatus::Stopped, ..seen("lxdrunner-1-1", 1) }];
    stage.lxd(stopped());
    assert_eq!(stage.removals(), NONE);
    stage.pass(5).lxd(stopped());
    assert_eq!(stage.removals(), [("lxdrunner-1-1".to_owned(), RemoveReason::Finished)]);
}

#[test]
fn a_busy_answer_keeps_an_instance_and_failures_make_the_pauses_grow() {
    let mut stage = Stage::new(config());
    stage.lxd(vec![seen("lxdrunner-1-1", 1)]);
    stage.runners(acme(), vec![runner(1, "lxdrunner-1-1", true, false)]);
    stage.pass(601);
    let removal = stage.dispatch().remove(0);
    stage.outcome(removal, Outcome::Kept { why: "422".to_owned() });
    stage.pass(61).runners(acme(), vec![runner(1, "lxdrunner-1-1", true, false)]);
    stage.pass(700).queued(2);
    assert_eq!(stage.removals(), NONE, "it is known to be busy, whatever GitHub lists");
    assert_eq!(stage.launches(), ["lxdrunner-2-1"], "and no supply");
    let mut stage = Stage::new(config());
    stage.lxd(vec![seen("lxdrunner-1-1", 1)]);
    stage.runners(acme(), vec![runner(1, "lxdrunner-1-1", true, false)]);
    stage.pass(601);
    let (mut pauses, mut told) = (Vec::new(), Vec::new());
    for failure in 1..=18 {
        // Whatever the reason, it is tried again, for ever.
        let removal = stage.dispatch().remove(0);
        let notes = stage.outcome(removal, Outcome::RemoveFailed { reason: format!("busy {failure}") });
        told.extend(notes.iter().any(|n| matches!(n, Note::RemoveFailed { news: true, .. })).then_some(failure));
        assert_eq!(
            stage.world.stuck().count(),
            usize::from(failure >= 5),
            "half a minute is no more than LXD may take"
        );
        let until = stage.paused_until();
        pauses.push(until.since(stage.now).as_secs());
        stage.now = until;
    }
    assert_eq!(pauses[..9], [2, 4, 8, 16, 32, 64, 128, 256, 512]);
    assert!(pauses[9..].iter().all(|pause| *pause == 600));
    assert_eq!(told, [1, 5, 15], "at once, when it is more than a hiccup, and an hour later");
    // It is found busy after all: nothing is to be removed.
    let removal = stage.dispatch().remove(0);
    stage.outcome(removal.clone(), Outcome::Kept { why: "422".to_owned() });
    assert_eq!(stage.world.stuck().count(), 0);
    for _ in 0..5 {
        stage.outcome(removal.clone(), Outcome::RemoveFailed { reason: "no".to_owned() });
        stage.now = stage.paused_until();
    }
    let notes = stage.outcome(removal, Outcome::Removed);
    assert!(matches!(notes[0], Note::GoneAtLast { failures: 5, .. }), "{notes:?}");
}

#[test]
fn offline_registrations_go_when_they_are_ours_and_nobodys_any_more() {
    #[track_caller]
    fn check(name: &str, offline: u64, with_instance: bool, gone: bool) {
        let mut stage = Stage::new(config());
        if with_instance {
            stage.lxd(vec![InstanceSeen { created_at: Some(stage.now), ..seen("lxdrunner-1-1", 1) }]);
        }
        stage.runners(acme(), vec![runner(1, name, false, false)]);
        stage.pass(offline).runners(acme(), vec![runner(1, name, false, false)]);
        assert_eq!(!stage.deregistrations().is_empty(), gone, "{name} {offline} {with_instance}");
    }
    check("lxdrunner-1-1", 301, false, true);
    check("lxdrunner-1-1", 299, false, false);
    check("lxdrunner-1-1", 301, true, false);
    check("lxdrunner-placeholder", 301, false, false);
    check("placeholder", 301, false, false);
    // One look in between that saw it online begins the count anew.
    let mut stage = Stage::new(config());
    for (pass, online) in [(0, false), (200, true), (101, false), (100, false)] {
        stage.pass(pass).runners(acme(), vec![runner(1, "lxdrunner-1-1", online, false)]);
    }
    assert_eq!(stage.deregistrations(), Vec::<String>::new());
}

#[test]
fn nothing_is_removed_while_lxd_is_unknown() {
    let mut stage = Stage::new(config());
    stage.lxd(vec![seen("lxdrunner-1-1", 1)]);
    stage.runners(acme(), vec![runner(1, "lxdrunner-1-1", true, false), runner(5, "lxdrunner-5-1", false, false)]);
    stage.pass(700);
    stage.runners(acme(), vec![runner(1, "lxdrunner-1-1", true, false), runner(5, "lxdrunner-5-1", false, false)]);
    assert_eq!((stage.removals().len(), stage.deregistrations().len()), (1, 1));
    stage.snapshot(stage.world.seq(), None, None);
    assert_eq!((stage.removals().len(), stage.deregistrations().len()), (0, 0));
}

#[test]
fn looks_come_in_their_time_and_never_two_of_a_kind() {
    let mut stage = Stage::new(config());
    let plan = stage.plan();
    assert!(!plan.look_at_lxd && !plan.look_at_github);
    assert_eq!(plan.wake_at, Some(stage.now.after(Duration::from_secs(10))));
    stage.pass(10);
    assert!(stage.plan().look_at_lxd);
    stage.world.look_begun(false);
    assert!(!stage.plan().look_at_lxd);
    stage.pass(50);
    assert!(stage.plan().look_at_github);
    stage.world.look_begun(true);
    stage.fold(Event::HintsLost);
    assert!(!stage.pass(100).plan().look_at_github, "one is under way");
    stage.runners(acme(), vec![]);
    assert!(stage.pass(5).plan().look_at_github, "what was asked for meanwhile is looked at afterwards");
}

#[test]
fn a_job_of_a_late_listing_keeps_its_place_in_the_line() {
    let mut stage = Stage::new(Config { max_workers: 1, ..config() });
    stage.queued(2);
    let created_at = Some(Timestamp(stage.now.0 - 60_000));
    stage.jobs(vec![Job { created_at, ..job(1, "acme/app", &["linux"]) }]);
    assert_eq!(stage.launches(), ["lxdrunner-1-1"]);
}

#[test]
fn nothing_idle_is_removed_while_github_is_unknown() {
    let mut stage = Stage::new(config());
    stage.lxd(vec![seen("lxdrunner-1-1", 1)]);
    stage.runners(acme(), vec![runner(1, "lxdrunner-1-1", true, false)]);
    stage.pass(700);
    assert_eq!(stage.removals().len(), 1);
    stage.github(GitHubSeen { runners: vec![(acme(), Err("502".to_owned()))], ..GitHubSeen::default() });
    assert_eq!(stage.removals(), NONE);
    stage.runners(acme(), vec![runner(1, "lxdrunner-1-1", true, false)]);
    assert_eq!(stage.removals().len(), 1);
    stage.github(GitHubSeen { targets: Some(Err("502".to_owned())), ..GitHubSeen::default() });
    assert_eq!(stage.removals(), NONE, "what was not asked is unknown too");
}

#[test]
fn an_idle_runner_that_flickers_is_given_time_to_come_back() {
    let mut stage = Stage::new(config());
    stage.lxd(vec![seen("lxdrunner-1-1", 1)]);
    stage.runners(acme(), vec![runner(1, "lxdrunner-1-1", true, false)]);
    stage.pass(400).runners(acme(), vec![runner(1, "lxdrunner-1-1", false, false)]);
    assert_eq!(stage.removals(), NONE);
    stage.pass(301).runners(acme(), vec![runner(1, "lxdrunner-1-1", false, false)]);
    assert_eq!(stage.removals(), [("lxdrunner-1-1".to_owned(), RemoveReason::NeverOnline)]);
}

#[test]
fn a_runner_that_came_up_is_not_abandoned_because_its_key_was_not_written() {
    // The key's write failed, and the answer "launched" came: the listing still says provisioning.
    let half =
        || InstanceSeen { phase: Phase::Provisioning, maker: Maker::Us, runner_id: None, ..seen("lxdrunner-1-1", 1) };
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.launch_all();
    stage.lxd(vec![half()]);
    assert_eq!((stage.removals(), stage.reason(1)), (NONE.to_vec(), Some(Reason::Covered)));
    // The process died before it wrote the key: the runner is online, and as good as any other.
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.lxd(vec![InstanceSeen { maker: Maker::Dead, ..half() }]);
    stage.runners(acme(), vec![runner(1, "lxdrunner-1-1", true, false)]);
    assert_eq!((stage.removals(), stage.reason(1)), (NONE.to_vec(), Some(Reason::Covered)));
    stage.told(1, JobStatus::Completed, None);
    stage.pass(601);
    assert_eq!(stage.removals(), [("lxdrunner-1-1".to_owned(), RemoveReason::Idle)]);
}

#[test]
fn a_registration_that_is_left_of_a_failed_launch_is_asked_about_and_its_name_not_used_again() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    let launch = stage.dispatch().remove(0);
    let blame = Subject::Class("small".to_owned());
    let runner = Some(RunnerId(7));
    stage.outcome(launch, Outcome::LaunchFailed { blame, reason: "no answer".to_owned(), made: true, runner });
    let plan = stage.plan();
    assert!(
        matches!(plan.actions[..], [Action::Remove { judged: Judged { runner: Some(RunnerId(7)), .. }, .. }]),
        "{:?}",
        plan.actions
    );
    stage.dispatch().into_iter().for_each(|removal| drop(stage.outcome(removal, Outcome::Removed)));
    stage.pass(2);
    assert_eq!(stage.launches(), ["lxdrunner-1-2"]);
}

#[test]
fn the_runner_of_another_host_is_not_taken_for_the_one_that_we_are_making() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    let launch = stage.dispatch().remove(0);
    let half =
        InstanceSeen { phase: Phase::Provisioning, maker: Maker::Us, runner_id: None, ..seen("lxdrunner-1-1", 1) };
    stage.lxd(vec![half]);
    stage.runners(acme(), vec![runner(99, "lxdrunner-1-1", true, true)]);
    let blame = Subject::Host;
    stage.outcome(launch, Outcome::LaunchFailed { blame, reason: "409".to_owned(), made: true, runner: None });
    let plan = stage.plan();
    assert!(
        matches!(plan.actions[..], [Action::Remove { judged: Judged { runner: None, .. }, .. }]),
        "{:?}",
        plan.actions
    );
}

#[test]
fn what_turns_out_to_be_another_instance_is_looked_at_again_and_judged_by_what_it_is() {
    let mut stage = Stage::new(config());
    let half = |made, maker| InstanceSeen {
        phase: Phase::Provisioning,
        runner_id: None,
        maker,
        created_at: Some(Timestamp(made)),
        ..seen("lxdrunner-1-1", 1)
    };
    stage.lxd(vec![half(1, Maker::Dead)]);
    let removal = stage.dispatch().remove(0);
    let Action::Remove { judged, .. } = &removal else { panic!("{removal:?}") };
    assert_eq!((judged.made_at, judged.maker), (Some(Timestamp(1)), Maker::Dead));
    stage.outcome(removal, Outcome::Changed { why: "another".to_owned() });
    stage.pass(1);
    assert!(stage.plan().look_at_lxd);
    assert_eq!(stage.removals(), NONE, "not before it was looked at");
    // It is the same after all.
    stage.lxd(vec![half(1, Maker::Dead)]);
    stage.pass(2);
    assert_eq!(stage.dispatch().len(), 1);
    stage.lxd(vec![half(2, Maker::Unknown)]);
    stage.pass(60);
    assert_eq!(stage.removals(), NONE, "somebody makes it");
}

#[test]
fn a_package_that_vanished_is_fetched_again_and_nothing_spins_meanwhile() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    let launch = stage.dispatch().remove(0);
    let (blame, reason) = (Subject::Package(RunnerArch::X64), "not in the cache".to_owned());
    stage.outcome(launch, Outcome::LaunchFailed { blame, reason, made: false, runner: None });
    stage.pass(2);
    assert_eq!(stage.launches(), Vec::<String>::new());
    assert!(matches!(stage.dispatch()[..], [Action::FetchPackage { .. }]));
    stage.pass(1).lxd(vec![]);
    let plan = stage.plan();
    assert_eq!(plan.deferred, [(JobId(1), Reason::NoPackage(RunnerArch::X64))]);
    assert!(plan.wake_at.is_some_and(|at| at > stage.now), "the download takes a while");
}

#[test]
fn a_target_that_refuses_does_not_keep_the_package_from_the_others() {
    let mut stage = Stage::new(config());
    stage.pass(24 * 3600);
    let mut asked = Vec::new();
    for _ in 0..2 {
        let Action::FetchPackage { scope, arch } = stage.dispatch().remove(0) else { panic!() };
        asked.push(scope.to_string());
        stage.outcome(
            Action::FetchPackage { scope, arch },
            Outcome::PackageFailed { reason: "404".to_owned(), cached: None },
        );
        stage.pass(10);
    }
    assert_eq!(asked, ["org:acme", "repo:alice/tool"]);
}

#[test]
fn a_flood_of_questions_keeps_no_launch_waiting() {
    let mut stage = Stage::new(config());
    for id in 100..200 {
        let (repo, job) = ("acme/app".parse().unwrap(), JobId(id));
        stage.fold(Event::Hint(crate::model::Hint::CheckRun { repo, public: None, job, completed: false }));
    }
    stage.queued(1);
    let actions = stage.dispatch();
    assert!(matches!(actions[0], Action::Launch(_)), "{actions:?}");
    assert_eq!(actions.len(), 1 + ERRANDS_AT_ONCE);
    assert_eq!(stage.dispatch(), []);
}

#[test]
fn a_half_made_instance_does_not_take_the_registration_of_another_host_along() {
    let mut stage = Stage::new(config());
    let half =
        || InstanceSeen { phase: Phase::Provisioning, maker: Maker::Dead, runner_id: None, ..seen("lxdrunner-1-1", 1) };
    stage.lxd(vec![half()]);
    // Another host brings up its own instance of this name; its runner is not online yet.
    stage.runners(acme(), vec![runner(5, "lxdrunner-1-1", false, false)]);
    let removal = stage.plan().actions.into_iter().find(|a| matches!(a, Action::Remove { .. }));
    assert!(matches!(removal, Some(Action::Remove { judged: Judged { runner: None, .. }, .. })), "{removal:?}");
}

#[test]
fn what_is_heard_late_of_a_name_does_not_free_the_place_of_what_was_left_half_made() {
    #[track_caller]
    fn check(phase: Phase, runner_id: Option<RunnerId>, launched: &[&str]) {
        let mut stage = Stage::new(Config { max_workers: 1, ..config() });
        stage.lxd(vec![InstanceSeen { phase, runner_id, ..seen("lxdrunner-1-1", 1) }]);
        stage.told(1, JobStatus::InProgress, Some("lxdrunner-1-1"));
        stage.told(1, JobStatus::Completed, Some("lxdrunner-1-1"));
        stage.queued(2);
        assert_eq!(stage.launches(), launched);
    }
    check(Phase::Provisioning, None, &[]);
    check(Phase::Provisioning, Some(RunnerId(1)), &["lxdrunner-2-1"]);
    check(Phase::Started, None, &["lxdrunner-2-1"]);
}

#[test]
fn a_half_made_instance_that_noted_its_runner_has_no_other_of_that_name() {
    let mut stage = Stage::new(config());
    let noted = Some(RunnerId(4));
    let half = InstanceSeen { phase: Phase::Provisioning, runner_id: noted, ..seen("lxdrunner-1-1", 1) };
    stage.lxd(vec![half]);
    stage.runners(acme(), vec![runner(5, "lxdrunner-1-1", true, false)]);
    let removal = stage.plan().actions.into_iter().find(|a| matches!(a, Action::Remove { .. }));
    assert!(matches!(removal, Some(Action::Remove { judged, .. }) if judged.runner == noted));
}

#[test]
fn a_runner_that_is_busy_before_its_job_is_told_has_one_of_those_that_wait() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.launch_all();
    // GitHub gave it the job: the runner is listed as busy, and the job still as queued.
    let busy = || vec![runner(1, "lxdrunner-1-1", true, true)];
    stage.runners(acme(), busy());
    stage.jobs(vec![job(1, "acme/app", &["linux"])]);
    let instance = "lxdrunner-1-1".to_owned();
    assert_eq!(stage.reason(1), Some(Reason::Asked(Doubt::RunnerBusy { instance })));
    stage.answer(Some(job(1, "acme/app", &["linux"])));
    assert_eq!(stage.reason(1), Some(Reason::Covered), "it may have the job all the same, for a moment");
    stage.told(1, JobStatus::InProgress, Some("lxdrunner-1-1"));
    stage.queued(2);
    assert_eq!(stage.launches(), ["lxdrunner-2-1"], "once it is told, the runner is no supply");

    // A job that we never hear of holds nobody up for long.
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.launch_all();
    stage.runners(acme(), busy());
    stage.answer(Some(job(1, "acme/app", &["linux"])));
    stage.pass(10);
    assert_eq!(stage.launches(), ["lxdrunner-1-2"]);
}
