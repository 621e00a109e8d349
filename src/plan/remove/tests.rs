//! What another daemon with our prefix is at, or keeps ready by other settings, is left to that one.

use crate::config::Config;
use crate::identity::Maker;
use crate::model::{Hint, InstanceStatus, Phase, Recipe, Runner};
use crate::plan::testkit::{images, kept, kinds, settle, stage, with};
use crate::world::testkit::*;
use crate::world::{Event, InstanceSeen, Note, RemoveReason};

fn others_recipe() -> Option<Recipe> {
    Some(Recipe { shape: "another".to_owned(), content: "x".to_owned() })
}

/// The stage with a template and a standby of ours, and what is listed of them.
fn at_work() -> (Stage, Vec<InstanceSeen>) {
    let mut stage = stage(with(1, 0));
    settle(&mut stage);
    let listed = stage.world.instances.values().map(|i| InstanceSeen { created_at: Some(stage.now), ..i.seen.clone() });
    let listed: Vec<InstanceSeen> = listed.collect();
    stage.pass(1).lxd(listed.clone());
    (stage, listed)
}

#[test]
fn what_another_daemon_keeps_ready_by_other_settings_stays_unless_it_was_there_before_us_and_is_nobodys() {
    // Who made it, whether it was there when we first looked, and what of it goes.
    #[track_caller]
    fn check(phase: Phase, class: &str, maker: Maker, before_us: bool, goes: bool) {
        let template = |stage: &Stage| {
            let class = class.to_owned();
            InstanceSeen { maker, class, ..kept(stage, "lxdrunner-template-0123abcd", phase, others_recipe()) }
        };
        let (stage, _) = at_work();
        let there = template(&stage);
        let (mut stage, mut listed) = at_work();
        if before_us {
            stage.world = crate::world::World::new(std::sync::Arc::clone(&stage.world.config), 2, "scripts");
            stage.lxd(vec![there.clone()]);
            images(&mut stage, "f1");
        } else {
            listed.push(there.clone());
            stage.pass(1).lxd(listed);
        }
        let gone: Vec<String> = stage.removals().into_iter().map(|(name, _)| name).collect();
        let expected = if goes { vec![there.name] } else { vec![] };
        assert_eq!(gone, expected, "{phase:?} of {class} by {maker:?}, there before us: {before_us}");
    }
    for class in ["small", "of no config"] {
        for before_us in [false, true] {
            check(Phase::Template, class, Maker::Other, before_us, false);
            check(Phase::Standby, class, Maker::Other, before_us, false);
            check(Phase::Template, class, Maker::Unknown, before_us, before_us);
            check(Phase::Standby, class, Maker::Unknown, before_us, before_us);
            // `lxdrunner bake` has ended, and the daemon is started with the new config next.
            check(Phase::Template, class, Maker::Dead, before_us, before_us);
            check(Phase::Standby, class, Maker::Dead, before_us, true);
        }
    }
}

#[test]
fn two_daemons_that_want_other_runner_versions_or_other_numbers_do_not_take_each_others_away() {
    let (mut stage, mut listed) = at_work();
    let template = listed.iter().find(|i| i.phase == Phase::Template).unwrap().clone();
    let newer = Recipe { content: "newer".to_owned(), ..template.recipe.clone().unwrap() };
    let other =
        |name: &str, phase| InstanceSeen { maker: Maker::Other, ..kept(&stage, name, phase, Some(newer.clone())) };
    listed.push(other("lxdrunner-template-0123abcd", Phase::Template));
    listed.push(other("lxdrunner-standby-0123abcd", Phase::Standby));
    listed.push(other("lxdrunner-standby-1123abcd", Phase::Standby));
    let notes = stage.pass(1).lxd(listed);
    assert_eq!(kinds(&stage.plan().actions), ["remove"], "one standby is enough for us, and only our own may go");
    assert!(!stage.removals()[0].0.ends_with("123abcd"), "{:?}", stage.removals());
    assert!(!notes.iter().any(|note| matches!(note, Note::OtherConfig { .. })), "they are of use: {notes:?}");
}

#[test]
fn that_another_daemon_has_other_settings_is_told_once_and_when_it_is_over() {
    let (mut stage, listed) = at_work();
    let name = "lxdrunner-standby-0123abcd";
    let theirs = InstanceSeen { maker: Maker::Other, ..kept(&stage, name, Phase::Standby, others_recipe()) };
    let with_theirs: Vec<InstanceSeen> = listed.iter().cloned().chain([theirs.clone()]).collect();
    let told = Note::OtherConfig { class: "small".to_owned(), instance: name.to_owned() };
    assert_eq!(stage.pass(1).lxd(with_theirs.clone()), [told]);
    assert_eq!(stage.pass(1).lxd(with_theirs.clone()), []);
    assert_eq!(stage.world.troubles().collect::<Vec<_>>().len(), 1);
    assert_eq!(stage.pass(3600).lxd(with_theirs).len(), 1, "for whoever reads only the end of the log");
    let over = stage.pass(1).lxd(listed.clone());
    assert!(over.iter().any(|note| matches!(note, Note::OneConfigAgain { .. })), "{over:?}");
    assert_eq!(stage.world.troubles().count(), 0);
    // What `lxdrunner bake` makes for the next config is nobody's trouble.
    for (phase, maker) in [(Phase::Baking, Maker::Other), (Phase::Template, Maker::Dead)] {
        let bake = InstanceSeen { phase, maker, ..theirs.clone() };
        assert_eq!(stage.pass(1).lxd(listed.iter().cloned().chain([bake]).collect()), [], "{phase:?}");
    }
}

#[test]
fn what_another_machines_daemon_makes_stays_while_progress_is_noted_on_it() {
    // The seconds of each look, and what is noted then.
    #[track_caller]
    fn check(looks: &[(u64, u64)], removed: bool) {
        for phase in [Phase::Provisioning, Phase::Baking, Phase::Preparing] {
            let mut stage = Stage::new(config());
            let half = InstanceSeen { phase, maker: Maker::Unknown, runner_id: None, ..seen("lxdrunner-1-1", 1) };
            for (pass, progress) in looks {
                stage.pass(*pass).lxd(vec![InstanceSeen { progress: *progress, ..half.clone() }]);
                stage.runners(acme(), Vec::new());
            }
            let expected = removed.then(|| ("lxdrunner-1-1".to_owned(), RemoveReason::Abandoned));
            assert_eq!(stage.removals(), expected.into_iter().collect::<Vec<_>>(), "{phase:?} {looks:?}");
        }
    }
    check(&[(0, 0), (600, 0)], false);
    check(&[(0, 0), (601, 0)], true);
    check(&[(0, 0), (500, 490), (500, 990), (600, 990)], false);
    check(&[(0, 0), (500, 490), (500, 990), (601, 990)], true);
    // Nobody knows how old the note is that is there already.
    check(&[(7200, 7100), (600, 7100)], false);
}

#[test]
fn what_another_living_daemon_runs_goes_by_that_ones_rules() {
    // How its runner is, how long it is there, and what we do with it by who made it.
    #[track_caller]
    fn check(instance: InstanceSeen, runners: &[Runner], age: u64, of_the_dead: Option<RemoveReason>) {
        for maker in [Maker::Dead, Maker::Other] {
            let mut stage = Stage::new(config());
            let listed = InstanceSeen { maker, created_at: Some(stage.now), ..instance.clone() };
            for pass in [0, age] {
                stage.pass(pass).lxd(vec![listed.clone()]);
                stage.runners(acme(), runners.to_vec());
            }
            let expected = of_the_dead.filter(|why| maker == Maker::Dead || *why == RemoveReason::Finished);
            let expected: Vec<(String, RemoveReason)> =
                expected.map(|why| ("lxdrunner-1-1".to_owned(), why)).into_iter().collect();
            assert_eq!(stage.removals(), expected, "{maker:?} after {age} s");
        }
    }
    let started = || seen("lxdrunner-1-1", 1);
    let half = || InstanceSeen { phase: Phase::Provisioning, runner_id: None, ..started() };
    let offline = [runner(1, "lxdrunner-1-1", false, false)];
    let idle = [runner(1, "lxdrunner-1-1", true, false)];
    let busy = [runner(1, "lxdrunner-1-1", true, true)];
    check(half(), &[], 1, Some(RemoveReason::Abandoned));
    check(half(), &[], 3600, Some(RemoveReason::Abandoned));
    check(started(), &offline, 301, Some(RemoveReason::NeverOnline));
    check(started(), &idle, 601, Some(RemoveReason::Idle));
    check(started(), &busy, 601, None);
    check(started(), &busy, 24 * 3600 + 1, Some(RemoveReason::TooOld));
    check(InstanceSeen { status: InstanceStatus::Stopped, ..started() }, &[], 6, Some(RemoveReason::Finished));
}

#[test]
fn another_living_daemons_runners_go_by_its_own_timeouts_and_make_no_room() {
    // Another process of this machine, or one elsewhere that made it since this process first looked.
    for maker in [Maker::Other, Maker::Unknown] {
        let mut stage = Stage::new(Config { max_workers: 1, ..config() });
        stage.pass(1).lxd(vec![InstanceSeen { job: None, maker, ..seen("lxdrunner-idle-0123abcd", 5) }]);
        let listed = |busy: bool| vec![runner(5, "lxdrunner-idle-0123abcd", true, busy)];
        stage.runners(acme(), listed(false));
        stage.pass(601).runners(acme(), listed(false));
        stage.fold(Event::Hint(Hint::Job(job(1, "acme/app", &["gpu"]))));
        assert_eq!(stage.removals(), [], "{maker:?}: idle for longer than our idle_timeout, in the way of a job");
        stage.runners(acme(), listed(true));
        stage.pass(24 * 3600 + 1);
        assert_eq!(stage.removals(), [], "{maker:?}: older than our max_lifetime");
        stage.runners(acme(), vec![]);
        stage.pass(61);
        assert_eq!(stage.removals().len(), 1, "{maker:?}: what is finished anyone may remove");
    }
}
