//! What is kept ready: when it is made, what uses it, and when it goes.

mod as_images;

use crate::config::{Class, Config};
use crate::identity::Maker;
use crate::model::{InstanceStatus, InstanceType, JobStatus, Phase, Recipe, RunnerId};
use crate::plan::testkit::*;
use crate::world::testkit::*;
use crate::world::{
    Action, Event, InstanceSeen, Launch, LaunchSource, Note, Outcome, RemoveReason, Subject, Template, TemplateKind,
};

#[test]
fn a_template_is_baked_first_and_standbys_are_copied_from_it() {
    let mut stage = stage(with(2, 0));
    assert_eq!(kinds(&settle(&mut stage)), ["bake", "standby", "standby"]);
    assert_eq!((phase(&stage, Phase::Template).len(), phase(&stage, Phase::Standby).len()), (1, 2));
    stage.queued(1);
    let done = settle(&mut stage);
    assert_eq!(kinds(&done), ["standby", "standby"], "claimed, and another is prepared");
    let Action::Launch(Launch { name, from, .. }) = &done[0] else { panic!("{done:?}") };
    assert!(name.starts_with("lxdrunner-standby-"), "{name}");
    assert_eq!(*from, LaunchSource::Standby { etag: Some("e1".to_owned()) });
}

#[test]
fn jobs_do_not_wait_for_a_bake_and_a_bake_waits_for_jobs() {
    let mut stage = stage(with(0, 0));
    stage.queued(1);
    // Both go at once: there is room.
    assert_eq!(kinds(&stage.dispatch()), ["image", "bake"]);
    let mut stage = Stage::new(Config { max_workers: 1, ..with(0, 0) });
    images(&mut stage, "f1");
    stage.queued(1);
    stage.queued(2);
    assert_eq!(kinds(&stage.dispatch()), ["image"], "no place is left for it");
}

#[test]
fn two_virtual_machines_are_not_unpacked_of_one_image_at_a_time() {
    let of_vms = |mut config: Config| {
        config.classes[0].kind = InstanceType::VirtualMachine;
        config
    };
    let mut stage = stage(of_vms(with(0, 0)));
    stage.queued(1);
    let launch = stage.dispatch();
    assert_eq!(kinds(&launch), ["image"]);
    assert_eq!(kinds(&stage.dispatch()), [] as [&str; 0]);
    stage.outcome(launch[0].clone(), Outcome::Launched { runner: Some(RunnerId(900)) });
    assert_eq!(kinds(&stage.dispatch()), ["bake"]);
}

#[test]
fn a_bake_does_not_take_the_one_place_that_a_job_needs() {
    let mut stage = Stage::new(Config { max_workers: 1, ..with(1, 0) });
    images(&mut stage, "f1");
    let bake = stage.dispatch();
    assert_eq!(kinds(&bake), ["bake"]);
    stage.queued(1);
    assert_eq!(kinds(&stage.dispatch()), ["image"], "while it is asked for");
    let Action::Bake { name, recipe, .. } = &bake[0] else { panic!("{bake:?}") };
    let listed = kept(&stage, name, Phase::Baking, Some(recipe.clone()));
    stage.lxd(vec![listed]);
    stage.queued(2);
    assert_eq!(stage.reason(2), Some(crate::plan::Reason::HostFull { max: 1 }), "one job at a time, as ever");
    let mut stage = Stage::new(Config { max_workers: 1, ..with(1, 0) });
    images(&mut stage, "f1");
    let listed = kept(&stage, name, Phase::Baking, Some(recipe.clone()));
    stage.lxd(vec![listed]);
    stage.queued(1);
    assert_eq!(kinds(&stage.dispatch()), ["image"], "once it is seen");
}

#[test]
fn a_job_comes_from_the_newest_that_fits_the_class() {
    // What is there besides the class: pairs of phase and recipe; what the job then comes from.
    #[track_caller]
    fn check(there: &[(Phase, &str, &str)], expected: &str) {
        let mut stage = stage(with(0, 0));
        let wanted = wanted(&stage);
        let listed = there.iter().enumerate().map(|(n, (phase, shape, content))| {
            let shape = if *shape == "same" { wanted.shape.clone() } else { (*shape).to_owned() };
            let content = if *content == "same" { wanted.content.clone() } else { (*content).to_owned() };
            kept(&stage, &format!("lxdrunner-x-{n}"), *phase, Some(Recipe { shape, content }))
        });
        let listed = listed.collect();
        stage.lxd(listed);
        stage.queued(1);
        let actions = stage.plan().actions;
        let from = actions.iter().find_map(|action| match action {
            Action::Launch(Launch { name, from: LaunchSource::Standby { .. }, .. }) => Some(name.clone()),
            Action::Launch(Launch { from: LaunchSource::Template(template), .. }) => Some(template.id().to_owned()),
            Action::Launch(Launch { from: LaunchSource::Image, .. }) => Some("image".to_owned()),
            _ => None,
        });
        assert_eq!(from.as_deref(), Some(expected), "{there:?}");
    }
    use Phase::{Baking, Preparing, Standby, Template};
    check(&[], "image");
    check(&[(Template, "same", "same")], "lxdrunner-x-0");
    check(&[(Template, "same", "old image")], "lxdrunner-x-0");
    check(&[(Template, "same", "old image"), (Template, "same", "same")], "lxdrunner-x-1");
    check(&[(Template, "old class", "x")], "image");
    check(&[(Baking, "same", "same"), (Preparing, "same", "same")], "image");
    check(&[(Template, "same", "same"), (Standby, "same", "same")], "lxdrunner-x-1");
    check(&[(Template, "same", "same"), (Standby, "same", "old image")], "lxdrunner-x-1");
    check(&[(Template, "same", "same"), (Standby, "old class", "x")], "lxdrunner-x-0");
}

#[test]
fn the_old_template_serves_until_the_new_one_is_there_and_standbys_are_replaced_one_by_one() {
    let mut stage = stage(with(2, 0));
    settle(&mut stage);
    let (old, standbys) = (phase(&stage, Phase::Template), phase(&stage, Phase::Standby));
    images(&mut stage, "f2");
    assert_eq!(kinds(&stage.plan().actions), ["bake"]);
    let bake = stage.dispatch().remove(0);
    stage.queued(1);
    assert_eq!(kinds(&stage.plan().actions)[0], "standby", "what there is serves meanwhile");
    stage.told(1, JobStatus::Completed, None);
    stage.outcome(bake, Outcome::Baked);
    let gone: Vec<(String, RemoveReason)> = stage.removals();
    assert_eq!(gone.len(), 2, "the old template, and one standby: {gone:?}");
    assert!(gone.iter().all(|(_, reason)| *reason == RemoveReason::Superseded));
    settle(&mut stage);
    assert!(phase(&stage, Phase::Template) != old && phase(&stage, Phase::Template).len() == 1);
    let new = phase(&stage, Phase::Standby);
    assert!(new.len() == 2 && !new.iter().any(|name| standbys.contains(name)), "{new:?} {standbys:?}");
}

#[test]
fn an_image_that_moves_while_it_is_baked_leaves_what_serves_until_its_successor_is_there() {
    let mut stage = stage(with(1, 0));
    let bake = stage.dispatch().remove(0);
    images(&mut stage, "f2");
    assert_eq!(kinds(&stage.plan().actions), [] as [&str; 0], "one at a time");
    stage.outcome(bake.clone(), Outcome::Baked);
    stage.queued(1);
    assert_eq!(kinds(&stage.plan().actions), ["template", "standby", "bake"], "what there is serves meanwhile");
    settle(&mut stage);
    let left = phase(&stage, Phase::Template);
    assert!(left.len() == 1 && left[0] != bake.instance().unwrap(), "{left:?}");
    let of_new = |i: &&crate::world::Instance| i.seen.phase == Phase::Standby && i.seen.recipe == Some(wanted(&stage));
    assert_eq!(stage.world.instances().filter(of_new).count(), 1);
}

#[test]
fn what_the_config_has_no_use_for_goes() {
    // How the class is by now, and what goes of a template and two standbys.
    #[track_caller]
    fn check(classes: Vec<Class>, expected: usize) {
        let mut before = stage(with(2, 0));
        settle(&mut before);
        let listed: Vec<InstanceSeen> = before.world.instances.values().map(|i| i.seen.clone()).collect();
        let mut stage = stage(Config { classes, ..with(2, 0) });
        stage.lxd(listed);
        images(&mut stage, "f1");
        assert_eq!(stage.removals().len(), expected, "{:?}", stage.removals());
    }
    let small = || with(2, 0).classes.remove(0);
    check(vec![small()], 0);
    check(vec![Class { standby: 1, ..small() }], 1);
    check(vec![Class { standby: 0, ..small() }], 2);
    check(vec![Class { template: false, standby: 0, ..small() }], 3);
    check(vec![Class { profiles: vec!["other".to_owned()], ..small() }], 3);
    check(vec![class("another", &[], 4)], 3);
}

#[test]
fn a_template_that_is_copied_stays_until_the_copy_is_made() {
    let mut stage = stage(with(0, 0));
    settle(&mut stage);
    stage.queued(1);
    let launch = stage.dispatch().remove(0);
    images(&mut stage, "f2");
    let bake = stage.dispatch().remove(0);
    stage.outcome(bake, Outcome::Baked);
    assert_eq!(stage.removals(), []);
    stage.outcome(launch, Outcome::Launched { runner: Some(RunnerId(1)) });
    assert_eq!(stage.removals().len(), 1);
}

#[test]
fn what_waits_for_too_long_is_replaced() {
    let mut stage = stage(with(2, 0));
    settle(&mut stage);
    stage.pass(3601);
    images(&mut stage, "f1");
    assert_eq!(stage.removals().len(), 1, "one at a time");
    assert_eq!(stage.removals()[0].1, RemoveReason::Stale);
    // An idle runner as well, and the one that is kept is not taken for surplus before.
    let mut stage = stage_with_idle();
    stage.pass(3599);
    assert_eq!(stage.removals(), []);
    stage.pass(2);
    assert_eq!(stage.removals().len(), 2, "one for each target");
    assert!(stage.removals().iter().all(|(_, reason)| *reason == RemoveReason::Stale));
}

/// One idle runner is online in acme and one in alice/tool.
fn stage_with_idle() -> Stage {
    let mut stage = stage(with(0, 1));
    let done = settle(&mut stage);
    assert_eq!(kinds(&done).iter().filter(|kind| **kind == "idle").count(), 2, "one for each target: {done:?}");
    for scope in stage.world.config.targets.clone() {
        let of = |i: &&crate::world::Instance| i.seen.scope.as_ref() == Some(&scope);
        let found = stage.world.instances().find(of).unwrap();
        let (id, name) = (found.seen.runner_id.unwrap().0, found.seen.name.clone());
        stage.runners(scope, vec![runner(id, &name, true, false)]);
    }
    stage
}

#[test]
fn an_idle_runner_covers_a_job_and_the_next_is_launched() {
    let mut stage = stage_with_idle();
    assert_eq!(stage.plan().actions, []);
    stage.queued(1);
    assert_eq!(stage.reason(1), Some(crate::plan::Reason::Covered));
    assert_eq!(kinds(&stage.plan().actions), ["idle"]);
}

#[test]
fn what_only_waits_makes_room_for_a_job_of_another_kind() {
    let gpu = |id: u64| Event::Hint(crate::model::Hint::Job(job(id, "acme/app", &["gpu"])));
    let mut stage = Stage::new(Config { max_workers: 2, ..with(2, 0) });
    images(&mut stage, "f1");
    settle(&mut stage);
    assert_eq!(phase(&stage, Phase::Standby).len(), 2);
    stage.fold(gpu(1));
    let removal = stage.removals();
    assert_eq!(removal.iter().map(|(_, why)| *why).collect::<Vec<_>>(), [RemoveReason::MakesRoom]);
    stage.dispatch();
    assert_eq!(stage.plan().actions, [], "one job, one standby, and no new one takes the place");
    // One of its own kind is claimed instead, full as the host is.
    let mut stage = Stage::new(Config { max_workers: 2, ..with(2, 0) });
    images(&mut stage, "f1");
    settle(&mut stage);
    stage.queued(1);
    assert_eq!(kinds(&stage.plan().actions), ["standby"]);
    // An idle runner goes too, once it is settled.
    let mut stage = stage_with_idle();
    stage.config().max_workers = 2;
    stage.fold(gpu(1));
    assert_eq!(stage.removals(), []);
    stage.pass(31);
    assert_eq!(stage.removals()[0].1, RemoveReason::MakesRoom);
}

#[test]
fn a_claim_that_was_lost_is_no_failure_and_the_job_goes_on_at_once() {
    let mut stage = stage(with(1, 0));
    settle(&mut stage);
    stage.queued(1);
    let claim = stage.dispatch().remove(0);
    assert_eq!(kinds(std::slice::from_ref(&claim)), ["standby"]);
    stage.outcome(claim.clone(), Outcome::StandbyLost { reason: "412".to_owned() });
    let next = stage.plan().actions;
    assert_eq!(kinds(&next)[0], "template", "{next:?}");
    assert!(stage.world.failures.iter().count() == 0);
    let lost = claim.instance().unwrap().to_owned();
    assert_eq!(stage.removals(), [], "it is somebody else's");
    assert_eq!(stage.world.instances[&lost].seen.phase, Phase::Provisioning);
}

#[test]
fn a_claim_that_failed_costs_the_standby_and_the_next_job_goes_without_for_a_while() {
    let mut stage = stage(with(1, 0));
    settle(&mut stage);
    stage.queued(1);
    let claim = stage.dispatch().remove(0);
    let name = claim.instance().unwrap().to_owned();
    let blame = Subject::Standby("small".to_owned());
    stage.outcome(claim, Outcome::LaunchFailed { blame, reason: "no thaw".to_owned(), made: true, runner: None });
    assert_eq!(stage.removals(), [(name, RemoveReason::Abandoned)]);
    assert_eq!(kinds(&stage.plan().actions)[0], "template");
}

#[test]
fn a_template_that_does_not_work_gives_way_to_the_image_and_is_baked_anew() {
    let mut stage = stage(with(0, 0));
    settle(&mut stage);
    let template = phase(&stage, Phase::Template).remove(0);
    stage.queued(1);
    for n in 1..=3 {
        let launch = stage.dispatch().into_iter().find(|a| kinds(std::slice::from_ref(a)) == ["template"]).unwrap();
        let (blame, reason) = (Subject::Template("small".to_owned()), "exec format error".to_owned());
        stage.outcome(launch, Outcome::LaunchFailed { blame, reason, made: false, runner: None });
        assert_eq!(kinds(&stage.plan().actions)[0], "image", "after failure {n}");
        if n < 3 {
            stage.now = stage.paused_until();
        }
    }
    assert_eq!(stage.removals(), [], "whether the image works is not known");
    let launch = stage.dispatch().into_iter().find(|a| kinds(std::slice::from_ref(a)) == ["image"]).unwrap();
    let (blame, reason) = (Subject::Class("small".to_owned()), "no space left on device".to_owned());
    stage.outcome(launch, Outcome::LaunchFailed { blame, reason, made: false, runner: None });
    stage.now = stage.world.failures.get(&Subject::Class("small".to_owned())).unwrap().until;
    assert_eq!(stage.removals(), [], "the image does not work either");
    stage.launch_all();
    assert_eq!(stage.removals(), [(template, RemoveReason::Broken)]);
    settle(&mut stage);
    assert!(stage.world.failures.iter().count() == 0, "a new one has no past");
    stage.queued(2);
    assert_eq!(kinds(&stage.plan().actions), ["template"]);
}

#[test]
fn a_bake_that_fails_is_told_once_and_tried_with_growing_pauses() {
    let mut stage = stage(with(0, 0));
    let mut pauses = Vec::new();
    for n in 0..3 {
        let bake = stage.dispatch().remove(0);
        let (blame, reason) = (Subject::Bake("small".to_owned()), "no mirror".to_owned());
        let notes = stage.outcome(bake, Outcome::NotMade { blame, reason, made: true });
        assert_eq!(notes.iter().any(|note| matches!(note, Note::Trouble { .. })), n == 0, "{notes:?}");
        assert_eq!(stage.world.troubles().count(), 1);
        let half = stage.dispatch();
        assert_eq!(kinds(&half), ["remove"], "what is half-baked goes at once");
        half.into_iter().for_each(|action| drop(stage.outcome(action, Outcome::Removed)));
        let until = stage.paused_until();
        pauses.push(until.since(stage.now).as_secs());
        stage.now = until;
    }
    assert_eq!(pauses, [32, 64, 128]);
    let bake = stage.dispatch().remove(0);
    stage.outcome(bake, Outcome::Baked);
    assert_eq!(stage.world.troubles().count(), 0);
}

#[test]
fn somebody_elses_bake_and_half_baked_leftovers() {
    // The maker of a half-baked template of the wanted name, and whether it goes, and whether one is baked meanwhile.
    #[track_caller]
    fn check(maker: Maker, age: u64, goes: bool) {
        let mut stage = stage(with(0, 0));
        let bake = stage.plan().actions.remove(0);
        let half = InstanceSeen { maker, ..kept(&stage, bake.instance().unwrap(), Phase::Baking, None) };
        stage.lxd(vec![half]);
        stage.pass(age);
        let expected: &[&str] = if goes { &["remove"] } else { &[] };
        assert_eq!(kinds(&stage.plan().actions), expected, "{maker:?} {age}");
    }
    check(Maker::Unknown, 10, false);
    check(Maker::Unknown, 601, true);
    check(Maker::Dead, 1, true);
    check(Maker::Us, 1, true);
}

#[test]
fn what_was_listed_finished_is_not_thrown_away_for_an_answer_that_was_lost() {
    let mut stage = stage(with(1, 0));
    let bake = stage.dispatch().remove(0);
    stage.outcome(bake, Outcome::Baked);
    let prepare = stage.dispatch().remove(0);
    let name = prepare.instance().unwrap().to_owned();
    let template = stage.world.instances.values().next().unwrap().seen.clone();
    let (claimed, maker) = (kept(&stage, &name, Phase::Started, None), Maker::Unknown);
    let claimed = InstanceSeen { scope: Some(acme()), job: Some(crate::model::JobId(1)), maker, ..claimed };
    stage.lxd(vec![template, InstanceSeen { status: InstanceStatus::Running, ..claimed }]);
    let (blame, reason) = (Subject::Standby("small".to_owned()), "no answer".to_owned());
    stage.outcome(prepare, Outcome::NotMade { blame, reason, made: true });
    assert_eq!(stage.world.instances[&name].seen.phase, Phase::Started);
    assert_eq!(stage.removals(), []);
}

#[test]
fn a_standby_that_does_not_wait_frozen_is_not_claimed_and_goes() {
    let mut stage = stage(with(1, 0));
    settle(&mut stage);
    let mut listed: Vec<InstanceSeen> = stage.world.instances.values().map(|i| i.seen.clone()).collect();
    listed.iter_mut().filter(|i| i.phase == Phase::Standby).for_each(|i| i.status = InstanceStatus::Running);
    stage.lxd(listed);
    stage.queued(1);
    assert!(kinds(&stage.plan().actions).contains(&"template"));
    assert_eq!(stage.removals()[0].1, RemoveReason::Broken);
}

#[test]
fn an_idle_runner_that_ends_at_once_does_not_make_a_storm() {
    let mut stage = stage_with_idle();
    let name = phase(&stage, Phase::Started).remove(0);
    let left: Vec<InstanceSeen> =
        stage.world.instances.values().map(|i| i.seen.clone()).filter(|i| i.name != name).collect();
    stage.lxd(left);
    assert_eq!(stage.plan().actions, []);
    assert!(stage.world.failures.is_shaky(&Subject::Idle("small".to_owned())));
    stage.pass(2);
    assert_eq!(kinds(&stage.plan().actions), ["idle"]);
}

#[test]
fn a_slot_is_free_the_moment_the_runner_is_done_but_not_without_end() {
    let mut stage = Stage::new(Config { max_workers: 1, ..config() });
    for id in 1..=3 {
        stage.queued(id);
        assert_eq!(stage.launch_all(), [format!("lxdrunner-{id}-1")], "its predecessor's deletion goes on behind");
        let name = format!("lxdrunner-{id}-1");
        stage.told(id, JobStatus::InProgress, Some(&name));
        stage.told(id, JobStatus::Completed, Some(&name));
    }
    stage.queued(4);
    assert_eq!(stage.launches(), Vec::<String>::new(), "LXD deletes nothing: the disk is not to be filled");
    assert_eq!(stage.reason(4), Some(crate::plan::Reason::HostFull { max: 1 }));
}

#[test]
fn removals_leave_workers_for_launches() {
    let mut stage = Stage::new(config());
    let stopped = |n: u64| InstanceSeen { status: InstanceStatus::Stopped, ..seen(&format!("lxdrunner-{n}-1"), n) };
    stage.lxd((1..=9).map(stopped).collect());
    stage.pass(6);
    assert_eq!(stage.removals().len(), crate::plan::REMOVALS_AT_ONCE);
    stage.dispatch();
    assert_eq!(stage.removals(), []);
}

#[test]
fn a_standby_that_another_daemon_claimed_has_its_time_from_then_on() {
    let name = "lxdrunner-standby-0123abcd";
    #[track_caller]
    fn check(mut stage: Stage, claimed: InstanceSeen) {
        let mut look = |seconds, expected: usize| {
            stage.pass(seconds).lxd(vec![claimed.clone()]);
            stage.runners(acme(), vec![]);
            let gone = stage.removals().into_iter().filter(|(_, reason)| *reason == RemoveReason::Abandoned).count();
            assert_eq!(gone, expected, "after {seconds} s");
        };
        look(0, 0);
        look(600, 0);
        look(1, 1);
    }
    let claimed = |standby: &InstanceSeen| InstanceSeen {
        phase: Phase::Provisioning,
        status: InstanceStatus::Running,
        scope: Some(acme()),
        ..standby.clone()
    };
    // It was known before, or is seen for the first time; or we were about to claim it ourselves.
    let mut stage1 = stage(with(1, 0));
    let standby = kept(&stage1, name, Phase::Standby, None);
    stage1.lxd(vec![standby.clone()]);
    stage1.pass(3000);
    check(stage1, claimed(&standby));
    let mut stage2 = stage(with(1, 0));
    stage2.pass(3000);
    check(stage2, claimed(&standby));
    let mut stage3 = stage(with(1, 0));
    stage3.lxd(vec![standby.clone()]);
    stage3.pass(3000).queued(1);
    let launches = stage3.dispatch().into_iter().filter(|a| matches!(a, Action::Launch(_)));
    launches.for_each(|launch| drop(stage3.outcome(launch, Outcome::StandbyLost { reason: "late".to_owned() })));
    check(stage3, claimed(&standby));
}
