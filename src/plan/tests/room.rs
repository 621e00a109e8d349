//! How launches and removals share places and workers.

use super::*;
use crate::config::Class;
use crate::model::{Hint, InstanceStatus, Runner};
use crate::plan::testkit::{settle, stage};
use crate::plan::{REMOVALS_AT_ONCE, workers};
use crate::world::Subject;

fn queue(stage: &mut Stage, id: u64, repo: &str, labels: &[&str]) {
    stage.fold(Event::Hint(Hint::Job(job(id, repo, labels))));
}

fn scopes(names: &[&str]) -> Vec<Scope> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn refused(scope: &Scope) -> Outcome {
    let (blame, reason) = (Subject::Scope(scope.clone()), "502".to_owned());
    Outcome::LaunchFailed { blame, reason, made: false, runner: None }
}

fn launches_of(actions: Vec<Action>) -> Vec<Action> {
    actions.into_iter().filter(|action| matches!(action, Action::Launch(_))).collect()
}

#[test]
fn launches_for_one_scope_do_not_count_as_the_try_of_another() {
    let targets = scopes(&["org:a", "org:b"]);
    let classes = vec![Class { template: false, ..class("small", &[], 100) }];
    let mut stage = Stage::new(Config { classes, targets: targets.clone(), max_workers: 100, ..config() });
    queue(&mut stage, 1, "b/app", &["self-hosted"]);
    let launch = launches_of(stage.dispatch()).remove(0);
    stage.outcome(launch, refused(&targets[1]));
    stage.pass(1).runners(targets[1].clone(), vec![]);
    // A launch of the same class is under way for another scope, and stays so.
    queue(&mut stage, 2, "a/app", &["self-hosted"]);
    assert_eq!(launches_of(stage.dispatch()).len(), 1);
    stage.now = stage.paused_until();
    assert_eq!(stage.launches().len(), 1);
}

#[test]
fn after_a_scope_failed_one_launch_of_all_its_classes_goes_ahead() {
    let classes: Vec<Class> = (0..6).map(|n| class(&format!("c{n}"), &[&format!("l{n}")], 5)).collect();
    let mut stage = Stage::new(Config { classes, max_workers: 20, ..config() });
    for n in 0..6u64 {
        queue(&mut stage, n + 1, "acme/app", &[&format!("l{n}")]);
    }
    for launch in launches_of(stage.dispatch()) {
        stage.outcome(launch, refused(&acme()));
    }
    stage.pass(1).runners(acme(), vec![]);
    stage.now = stage.paused_until();
    assert_eq!(stage.launches().len(), 1);
    let launch = launches_of(stage.dispatch()).remove(0);
    assert_eq!(stage.launches().len(), 0);
    stage.outcome(launch, Outcome::Launched { runner: Some(RunnerId(1)) });
    assert_eq!(stage.launches().len(), 5, "it works again");
}

#[test]
fn one_job_of_a_full_class_takes_the_place_of_one_idle_runner() {
    let targets = scopes(&["org:a", "org:b", "org:c", "org:d"]);
    let small = Class { idle: 1, template: false, ..class("small", &[], 4) };
    let mut stage = Stage::new(Config { classes: vec![small], targets: targets.clone(), max_workers: 20, ..config() });
    settle(&mut stage);
    for _ in 0..2 {
        for scope in &targets {
            let of_scope = stage.world.instances().filter(|i| i.seen.scope.as_ref() == Some(scope));
            let online: Vec<Runner> =
                of_scope.map(|i| runner(i.seen.runner_id.unwrap().0, &i.seen.name, true, false)).collect();
            stage.runners(scope.clone(), online);
        }
        stage.pass(60);
    }
    queue(&mut stage, 1, "a/app", &["self-hosted"]);
    queue(&mut stage, 2, "a/app", &["self-hosted"]);
    assert_eq!(stage.reason(1), Some(Reason::Covered));
    let mut removed = 0;
    for _ in 0..5 {
        removed += stage.dispatch().iter().filter(|a| matches!(a, Action::Remove { .. })).count();
        stage.fold(Event::InstanceEnded);
    }
    assert_eq!(removed, 1);
}

#[test]
fn making_room_leaves_workers_for_launches() {
    let a = Class { standby: 12, ..class("small", &[], 12) };
    let b = Class { template: false, ..class("gpu", &["gpu"], 12) };
    let mut stage = stage(Config { classes: vec![a, b], max_workers: 12, ..config() });
    settle(&mut stage);
    assert_eq!(stage.world.ready().0, 12);
    for id in 1..=12 {
        queue(&mut stage, id, "acme/app", &["gpu"]);
    }
    let removals = stage.dispatch().iter().filter(|a| matches!(a, Action::Remove { .. })).count();
    assert!(removals == REMOVALS_AT_ONCE && removals < workers(12), "{removals}");
    assert_eq!(stage.removals(), NONE);
}

#[test]
fn packages_are_fetched_one_after_the_other() {
    let other = |name: &str, arch| Class { arch, ..class(name, &[name], 1) };
    let classes = vec![class("a", &[], 1), other("b", RunnerArch::Arm64), other("c", RunnerArch::Arm)];
    let mut stage = Stage::new(Config { classes, ..config() });
    let mut fetched = Vec::new();
    for _ in 0..2 {
        let actions = stage.dispatch();
        let [fetch @ Action::FetchPackage { arch, .. }] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(stage.plan().actions, [], "the other one comes after it");
        fetched.push(*arch);
        // One that fails does not keep the other back.
        stage.outcome(fetch.clone(), Outcome::PackageFailed { reason: "404".to_owned(), cached: None });
    }
    fetched.sort();
    assert_eq!(fetched, [RunnerArch::Arm, RunnerArch::Arm64]);
}

#[test]
fn those_that_are_done_go_before_those_that_are_idle() {
    let mut stage = Stage::new(Config { max_workers: 100, ..config() });
    stage.lxd((1..=6).map(|n| seen(&format!("lxdrunner-{n}-1"), n)).collect());
    let online = |numbers: std::ops::RangeInclusive<u64>, busy: bool| {
        let one = |n: u64| runner(n, &format!("lxdrunner-{n}-1"), true, n > 3 && busy);
        numbers.map(one).collect::<Vec<_>>()
    };
    stage.runners(acme(), online(1..=6, true));
    stage.pass(540).runners(acme(), online(1..=3, false));
    stage.pass(61).runners(acme(), online(1..=3, false));
    let finished: Vec<_> = (4..=6).map(|n| (format!("lxdrunner-{n}-1"), RemoveReason::Finished)).collect();
    assert_eq!(stage.removals(), finished);
}

#[test]
fn a_standby_that_another_daemon_claims_late_is_a_supply_from_its_claim_on() {
    let mut stage = Stage::new(config());
    let claimed = InstanceSeen {
        phase: Phase::Standby,
        scope: None,
        job: None,
        runner_id: None,
        maker: Maker::Other,
        ..seen("lxdrunner-standby-0123abcd", 1)
    };
    stage.pass(1).lxd(vec![claimed.clone()]);
    stage.pass(3000);
    stage.lxd(vec![InstanceSeen { phase: Phase::Provisioning, scope: Some(acme()), ..claimed }]);
    stage.queued(1);
    assert_eq!(stage.reason(1), Some(Reason::Covered));
}

#[test]
fn what_another_machine_claims_late_is_given_its_time_from_its_claim_on() {
    let mut stage = Stage::new(config());
    let standby = InstanceSeen {
        phase: Phase::Standby,
        scope: None,
        job: None,
        runner_id: None,
        maker: Maker::Unknown,
        ..seen("lxdrunner-standby-0123abcd", 1)
    };
    let claimed = InstanceSeen { phase: Phase::Provisioning, scope: Some(acme()), ..standby.clone() };
    stage.pass(1).lxd(vec![standby]);
    let timeout = stage.world.config().provision_timeout.as_secs();
    stage.pass(10 * timeout).lxd(vec![claimed.clone()]);
    stage.runners(acme(), vec![]);
    assert_eq!(stage.removals(), NONE);
    stage.pass(2 * timeout + 1).lxd(vec![claimed]);
    stage.runners(acme(), vec![]);
    assert_eq!(stage.removals(), [("lxdrunner-standby-0123abcd".to_owned(), RemoveReason::Abandoned)]);
}

#[test]
fn what_was_listed_before_its_start_and_took_a_job_is_not_taken_for_stopped() {
    let mut stage = Stage::new(config());
    let being_made = InstanceSeen {
        phase: Phase::Provisioning,
        status: InstanceStatus::Stopped,
        runner_id: None,
        maker: Maker::Other,
        ..seen("lxdrunner-1-1", 1)
    };
    stage.pass(1).lxd(vec![being_made]);
    stage.pass(9).queued(2);
    stage.told(2, JobStatus::InProgress, Some("lxdrunner-1-1"));
    assert_eq!(stage.removals(), NONE);
}
