//! An alert on troubles comes when something is wrong, and goes when it is right again.

use super::*;
use crate::config::Class;
use crate::model::RunnerArch;
use crate::plan::testkit::{kept, kinds, settle, stage, with};
use crate::world::{Launch, LaunchSource, Subject};

fn small(subject: fn(String) -> Subject) -> Subject {
    subject("small".to_owned())
}

/// Of the actions, the one of this kind.
#[track_caller]
fn of(actions: Vec<Action>, kind: fn(&Action) -> bool) -> Action {
    let found = actions.iter().find(|action| kind(action)).cloned();
    found.unwrap_or_else(|| panic!("no such action: {actions:?}"))
}

fn is_bake(action: &Action) -> bool {
    matches!(action, Action::Bake { .. })
}

fn is_standby(action: &Action) -> bool {
    matches!(action, Action::PrepareStandby { .. })
}

fn is_launch(action: &Action) -> bool {
    matches!(action, Action::Launch(_))
}

fn not_made(blame: Subject, made: bool) -> Outcome {
    Outcome::NotMade { blame, reason: "no".to_owned(), made }
}

fn not_launched(blame: Subject) -> Outcome {
    Outcome::LaunchFailed { blame, reason: "no".to_owned(), made: false, runner: None }
}

#[test]
fn a_standby_that_works_ends_the_trouble_of_those_that_did_not() {
    let mut stage = stage(with(1, 0));
    let bake = of(stage.dispatch(), is_bake);
    stage.outcome(bake, Outcome::Baked);
    for failures in 1..=3 {
        let prepare = of(stage.dispatch(), is_standby);
        stage.outcome(prepare, not_made(small(Subject::Standby), false));
        assert_eq!(stage.troubles().len(), usize::from(failures == 3), "a hiccup is none");
        stage.now = stage.paused_until();
    }
    assert_eq!(stage.troubles(), ["standbys of class \"small\""]);
    let prepare = of(stage.dispatch(), is_standby);
    let notes = stage.outcome(prepare, Outcome::Prepared { etag: None });
    assert!(notes.contains(&Note::Recovered { what: small(Subject::Standby) }), "{notes:?}");
    assert_eq!(stage.troubles(), Vec::<String>::new());
}

#[test]
fn a_bake_that_lxd_interrupts_is_no_failure_of_standbys() {
    let mut stage = stage(with(0, 0));
    let bake = of(stage.dispatch(), is_bake);
    stage.outcome(bake, not_made(Subject::Host, false));
    assert_eq!(stage.world.failures.iter().map(|(what, _)| what).collect::<Vec<_>>(), [&Subject::Host]);
    stage.now = stage.paused_until();
    let bake = of(stage.dispatch(), is_bake);
    stage.outcome(bake, Outcome::Baked);
    assert_eq!(stage.world.failures.iter().count(), 0);
}

#[test]
fn a_template_that_somebody_else_baked_ends_the_failures_to_bake_it() {
    let mut stage = stage(with(0, 0));
    let bake = of(stage.dispatch(), is_bake);
    let Action::Bake { name, recipe, .. } = bake.clone() else { unreachable!() };
    stage.outcome(bake, not_made(small(Subject::Bake), false));
    assert_eq!(stage.troubles(), ["template of class \"small\""]);
    let of_another = InstanceSeen {
        class: "gpu".to_owned(),
        maker: Maker::Unknown,
        ..kept(&stage, "lxdrunner-template-gpu-1", Phase::Template, Some(recipe.clone()))
    };
    stage.pass(5).lxd(vec![of_another]);
    assert_eq!(stage.troubles(), ["template of class \"small\""], "another class's of the same recipe");
    // `lxdrunner bake`, by hand.
    let made = InstanceSeen { maker: Maker::Unknown, ..kept(&stage, &name, Phase::Template, Some(recipe)) };
    stage.pass(5).lxd(vec![made]);
    assert_eq!(stage.troubles(), Vec::<String>::new());
}

#[test]
fn launches_from_a_template_end_the_trouble_of_launches_from_the_image() {
    let (mut stage, mut bakes) = (stage(with(0, 0)), Vec::new());
    stage.queued(1);
    for _ in 0..3 {
        let actions = stage.dispatch();
        bakes.extend(actions.iter().find(|action| is_bake(action)).cloned());
        stage.outcome(of(actions, is_launch), not_launched(small(Subject::Class)));
        stage.now = stage.paused_until();
    }
    assert_eq!(stage.troubles(), ["launches of class \"small\""]);
    stage.told(1, JobStatus::Completed, None);
    stage.outcome(bakes.remove(0), Outcome::Baked);
    assert_eq!(stage.troubles(), Vec::<String>::new(), "a bake shows that the image and the set-up work");
    stage.world.failures.failed(small(Subject::Class), "no", stage.now);
    stage.queued(2);
    let launch = of(stage.dispatch(), is_launch);
    assert!(matches!(launch, Action::Launch(Launch { from: LaunchSource::Template(_), .. })));
    stage.outcome(launch, Outcome::Launched { runner: Some(RunnerId(2)) });
    assert!(!stage.world.failures.is_shaky(&small(Subject::Class)));
}

#[test]
fn what_was_known_of_a_target_goes_with_it() {
    let mut stage = Stage::new(Config { targets: vec![], ..config() });
    let b: Scope = "org:b".parse().unwrap();
    let runners = vec![(b.clone(), Err("404".to_owned()))];
    stage.github(GitHubSeen { targets: Some(Ok(vec![acme(), b])), runners, ..GitHubSeen::default() });
    assert_eq!(stage.troubles(), ["github runners of org:b"]);
    let runners = vec![(acme(), Ok(vec![]))];
    stage.pass(60).github(GitHubSeen { targets: Some(Ok(vec![acme()])), runners, ..GitHubSeen::default() });
    assert_eq!(stage.troubles(), Vec::<String>::new());
    assert!(stage.world.interest().scopes.is_empty());
}

#[test]
fn a_runner_package_that_is_not_there_is_trouble_until_it_is() {
    let mut stage = Stage::new(config());
    stage.world.packages.clear();
    stage.queued(1);
    let fetch = of(stage.dispatch(), |a| matches!(a, Action::FetchPackage { .. }));
    stage.outcome(fetch.clone(), Outcome::PackageFailed { reason: "403".to_owned(), cached: None });
    assert_eq!(stage.troubles(), ["runner package linux-x64"]);
    stage.outcome(fetch, Outcome::PackageReady { version: "2.331.0".to_owned(), life: Default::default() });
    assert_eq!(stage.troubles(), Vec::<String>::new());
}

#[test]
fn a_lookup_that_failed_is_tried_again_soon_and_the_package_in_the_cache_serves() {
    let mut stage = Stage::new(config());
    stage.world.packages.clear();
    stage.queued(1);
    let fetch = of(stage.dispatch(), |a| matches!(a, Action::FetchPackage { .. }));
    let cached = Some("2.330.0".to_owned());
    stage.outcome(fetch, Outcome::PackageFailed { reason: "502".to_owned(), cached });
    assert_eq!(stage.launches(), ["lxdrunner-1-1"]);
    stage.now = stage.paused_until();
    of(stage.dispatch(), |a| matches!(a, Action::FetchPackage { .. }));
}

#[test]
fn a_bake_without_a_package_waits_until_it_is_fetched() {
    let mut stage = stage(with(0, 0));
    let bake = of(stage.dispatch(), is_bake);
    stage.outcome(bake, not_made(Subject::Package(RunnerArch::X64), true));
    let (mut bakes, mut fetches) = (0, 0);
    for _ in 0..60 {
        stage.pass(60);
        for action in stage.dispatch() {
            bakes += usize::from(is_bake(&action));
            match action {
                Action::FetchPackage { .. } => {
                    fetches += 1;
                    stage.outcome(action, Outcome::PackageFailed { reason: "502".to_owned(), cached: None });
                }
                Action::Remove { .. } => drop(stage.outcome(action, Outcome::Removed)),
                _ => {}
            }
        }
    }
    assert!(bakes == 0 && fetches > 50, "{bakes} bakes, {fetches} fetches");
    let fetch = of(stage.pass(60).dispatch(), |a| matches!(a, Action::FetchPackage { .. }));
    stage.outcome(fetch, Outcome::PackageReady { version: "2.330.0".to_owned(), life: Default::default() });
    of(stage.dispatch(), is_bake);
}

#[test]
fn runners_that_do_not_come_online_again_and_again_are_trouble_with_a_hint() {
    let mut stage = Stage::new(config());
    for (n, troubles) in [(1, 0), (2, 1)] {
        stage.queued(n);
        let names = stage.launch_all();
        stage.told(n, JobStatus::Completed, None);
        for pass in [0, 301] {
            stage.pass(pass).runners(acme(), vec![runner(n, &names[0], false, false)]);
        }
        let removal = of(stage.dispatch(), |a| matches!(a, Action::Remove { .. }));
        stage.outcome(removal, Outcome::Removed);
        assert_eq!(stage.troubles().len(), troubles);
        stage.pass(600);
    }
    let (what, entry) = stage.world.troubles().next().unwrap();
    assert_eq!(*what, small(Subject::Online));
    assert!(entry.reason.contains("Docker or ufw"), "{}", entry.reason);
    stage.queued(3);
    let names = stage.launch_all();
    stage.runners(acme(), vec![runner(3, &names[0], true, false)]);
    assert_eq!(stage.troubles(), Vec::<String>::new());
}

#[test]
fn an_idle_runner_that_github_gives_nothing_is_replaced_once_and_then_trouble() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    stage.launch_all();
    let idle = |stage: &mut Stage, name: &str| drop(stage.runners(acme(), vec![runner(1, name, true, false)]));
    idle(&mut stage, "lxdrunner-1-1");
    stage.pass(600);
    idle(&mut stage, "lxdrunner-1-1");
    assert_eq!(stage.removals(), NONE);
    stage.pass(1);
    idle(&mut stage, "lxdrunner-1-1");
    assert_eq!(
        (stage.troubles(), stage.removals()),
        (vec![], vec![("lxdrunner-1-1".into(), RemoveReason::Unassigned)])
    );
    // It goes, GitHub says that the job is queued still, and the next one is launched.
    let mut name = String::new();
    for _ in 0..4 {
        for action in stage.dispatch() {
            let outcome = match &action {
                Action::Remove { .. } => Outcome::Removed,
                Action::LookUpJob { .. } => Outcome::JobFound(Some(Box::new(job(1, "acme/app", &["self-hosted"])))),
                Action::Launch(Launch { name: launched, .. }) => {
                    name.clone_from(launched);
                    Outcome::Launched { runner: Some(RunnerId(1)) }
                }
                _ => continue,
            };
            stage.outcome(action, outcome);
        }
        stage.pass(20);
    }
    for _ in 0..3 {
        idle(&mut stage, &name);
        stage.pass(601);
    }
    assert_eq!(stage.removals(), NONE, "once");
    assert_eq!(stage.troubles(), ["jobs of org:acme for idle runners of class \"small\""]);
    let entry = stage.world.troubles().next().unwrap().1;
    assert!(entry.reason.contains("runner group \"Default\"") && entry.reason.contains("labels"), "{}", entry.reason);
    stage.told(1, JobStatus::InProgress, Some(&name));
    stage.runners(acme(), vec![runner(1, &name, true, true)]);
    assert_eq!(stage.troubles(), Vec::<String>::new());
}

#[test]
fn while_github_is_away_it_is_named_and_one_instance_is_made_in_vain() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    let mut made = 0;
    let away = || GitHubSeen { runners: vec![(acme(), Err("no connection".to_owned()))], ..GitHubSeen::default() };
    let mut looks = 0;
    for _ in 0..35 {
        let plan = stage.plan();
        if plan.look_at_github {
            looks += 1;
            stage.world.look_begun(true);
            stage.github(away());
        }
        for action in stage.dispatch() {
            if is_launch(&action) {
                made += 1;
                stage.outcome(action, not_launched(Subject::Scope(acme())));
            }
        }
        stage.pass(1);
    }
    assert_eq!(made, 1);
    assert!((3..8).contains(&looks), "{looks} looks");
    assert_eq!(stage.troubles(), ["github runners of org:acme"]);
    // It answers again: the job goes on at once.
    stage.runners(acme(), vec![]);
    assert_eq!(stage.launches().len(), 1);
    assert_eq!(stage.troubles(), Vec::<String>::new());
}

#[test]
fn where_github_answers_but_registers_nothing_the_pauses_grow() {
    let mut stage = Stage::new(config());
    stage.queued(1);
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let launch = of(stage.dispatch(), is_launch);
        let failed = stage.now;
        stage.outcome(launch, not_launched(Subject::Scope(acme())));
        stage.pass(1).runners(acme(), vec![]);
        while stage.launches().is_empty() {
            stage.pass(1);
        }
        pauses.push(stage.now.since(failed).as_secs());
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60]);
}

#[test]
fn what_is_kept_ready_waits_for_a_host_that_fails() {
    let mut stage = stage(with(1, 1));
    settle(&mut stage);
    stage.world.failures.failed(Subject::Host, "no", stage.now);
    let none = stage.world.instances.clone();
    stage.lxd(none.values().map(|i| i.seen.clone()).filter(|i| i.phase == Phase::Template).collect());
    stage.world.failures.worked(&small(Subject::Idle));
    assert_eq!(stage.plan().actions, []);
    stage.now = stage.paused_until();
    assert_eq!(kinds(&stage.plan().actions), ["idle", "standby"]);
}

#[test]
fn idle_runners_that_end_together_are_one_failure() {
    let classes = vec![Class { idle: 3, template: false, ..class("small", &[], 9) }];
    let mut stage = Stage::new(Config { classes, targets: vec![acme()], ..config() });
    settle(&mut stage);
    let mut left: Vec<InstanceSeen> = stage.world.instances().map(|i| i.seen.clone()).collect();
    assert_eq!(left.len(), 3);
    let mut until = None;
    for _ in 0..2 {
        left.pop();
        stage.lxd(left.clone());
        let entry = stage.world.failures.get(&small(Subject::Idle)).unwrap();
        assert_eq!((entry.failures, *until.get_or_insert(entry.until)), (1, entry.until), "the pause is not moved");
        stage.pass(1);
    }
}

#[test]
fn what_is_found_to_be_another_one_is_tried_again_with_growing_pauses() {
    let mut stage = Stage::new(config());
    stage.lxd(vec![InstanceSeen { scope: None, ..seen("lxdrunner-1-1", 1) }]);
    stage.pass(301);
    let mut tries = 0;
    for _ in 0..300 {
        stage.pass(1);
        for action in stage.dispatch().into_iter().filter(|a| matches!(a, Action::Remove { .. })) {
            tries += 1;
            stage.outcome(action, Outcome::Changed { why: "its scope cannot be read".to_owned() });
        }
    }
    assert!((5..10).contains(&tries), "{tries}");
    assert_eq!(stage.world.stuck().count(), 1);
}

#[test]
fn a_network_that_only_copies_lack_is_the_fault_of_the_template() {
    let mut stage = stage(with(0, 0));
    settle(&mut stage);
    stage.queued(1);
    let launch = of(stage.dispatch(), is_launch);
    assert!(matches!(launch, Action::Launch(Launch { from: LaunchSource::Template(_), .. })));
    stage.outcome(launch, not_launched(small(Subject::Network)));
    assert!(matches!(stage.reason(1), Some(Reason::Paused { .. })));
    stage.now = stage.paused_until();
    let launch = of(stage.dispatch(), is_launch);
    assert!(
        matches!(launch, Action::Launch(Launch { from: LaunchSource::Image, .. })),
        "the image tells which of the two it is"
    );
    stage.outcome(launch, Outcome::Launched { runner: Some(RunnerId(1)) });
    let failing: Vec<_> = stage.world.failures.iter().map(|(what, _)| what.clone()).collect();
    assert_eq!(failing, [small(Subject::Template)]);
}

#[test]
fn a_full_pool_costs_no_template() {
    let mut stage = stage(with(0, 0));
    settle(&mut stage);
    stage.queued(1);
    for _ in 0..9 {
        let launch = of(stage.dispatch(), is_launch);
        assert!(
            matches!(launch, Action::Launch(Launch { from: LaunchSource::Template(_), .. })),
            "the image needs even more room"
        );
        stage.outcome(launch, not_launched(small(Subject::Storage)));
        assert_eq!(stage.troubles(), ["storage pool of class \"small\""]);
        stage.now = stage.paused_until();
    }
    assert_eq!(stage.removals(), NONE);
    let launch = of(stage.dispatch(), is_launch);
    stage.outcome(launch, Outcome::Launched { runner: Some(RunnerId(1)) });
    assert_eq!(stage.troubles(), Vec::<String>::new());
}

#[test]
fn what_nothing_needs_any_more_is_no_trouble_for_ever() {
    let mut stage = Stage::new(config());
    for _ in 0..3 {
        stage.world.failures.failed(small(Subject::Class), "no such profile", stage.now);
        stage.now = stage.paused_until();
    }
    stage.lxd(vec![]);
    assert_eq!(stage.troubles(), ["launches of class \"small\""]);
    stage.pass(3600).lxd(vec![]);
    assert_eq!(stage.troubles(), Vec::<String>::new());
}
