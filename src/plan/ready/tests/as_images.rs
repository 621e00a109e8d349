//! Where LXD is a cluster, templates are images: the same rules hold for them.

use super::*;

/// The stage as a cluster, where templates are images.
fn cluster(config: Config) -> Stage {
    let mut stage = Stage::new(config);
    images_of(&mut stage, "f1", TemplateKind::Image);
    stage
}

#[test]
fn where_templates_are_images_jobs_and_standbys_are_made_of_them() {
    let mut stage = cluster(with(1, 0));
    let done = settle(&mut stage);
    assert_eq!(kinds(&done), ["bake", "standby"]);
    let Action::Bake { recipe, name, .. } = &done[0] else { panic!("{done:?}") };
    let image = Template::Image(format!("{:0>64}", recipe.content));
    assert!(matches!(&done[1], Action::PrepareStandby { template, .. } if *template == image), "{done:?}");
    let known = &stage.world.instances[image.id()];
    assert_eq!((known.label(), known.seen.phase), (name.as_str(), Phase::Template));
    stage.queued(1);
    stage.queued(2);
    let actions = stage.plan().actions;
    assert_eq!(kinds(&actions)[..2], ["standby", "template"]);
    assert!(
        matches!(&actions[1], Action::Launch(Launch { from: LaunchSource::Template(template), .. }) if *template == image)
    );
}

#[test]
fn the_instance_that_an_image_was_published_from_is_forgotten_with_it() {
    let mut stage = cluster(with(0, 0));
    let bake = stage.dispatch().remove(0);
    let half = InstanceSeen { maker: Maker::Us, ..kept(&stage, bake.instance().unwrap(), Phase::Baking, None) };
    stage.lxd(vec![half.clone()]);
    let begun = stage.world.seq();
    stage.outcome(bake, Outcome::Published { image: "f".repeat(64), left: false });
    // A listing that was begun before knows neither that the one is gone nor that the other is there.
    stage.snapshot(begun, Some(vec![half.clone()]), None);
    assert_eq!(stage.world.instances.keys().collect::<Vec<_>>(), [&"f".repeat(64)]);
    assert_eq!(stage.plan().actions, []);
    // It comes back, and then it was not gone.
    let image = stage.world.instances[&"f".repeat(64)].seen.clone();
    stage.lxd(vec![half, image]);
    assert_eq!(kinds(&stage.plan().actions), ["remove"]);
    // What could not be dropped has its place until it is gone.
    let mut stage = cluster(with(0, 0));
    let bake = stage.dispatch().remove(0);
    let name = bake.instance().unwrap().to_owned();
    stage.outcome(bake, Outcome::Published { image: "f".repeat(64), left: true });
    assert_eq!(stage.removals(), [(name, RemoveReason::Abandoned)]);
}

#[test]
fn an_image_that_was_replaced_goes_once_nothing_is_made_of_it() {
    let mut stage = cluster(with(0, 0));
    settle(&mut stage);
    let old = phase(&stage, Phase::Template).remove(0);
    stage.queued(1);
    let launch = stage.dispatch().remove(0);
    images_of(&mut stage, "f2", TemplateKind::Image);
    let bake = stage.dispatch().remove(0);
    let name = bake.instance().unwrap().to_owned();
    assert_eq!(stage.plan().actions, [], "it serves until its successor is there");
    stage.outcome(bake, Outcome::Published { image: "a".repeat(64), left: false });
    assert_eq!(stage.plan().actions, []);
    stage.outcome(launch, Outcome::Launched { runner: Some(RunnerId(1)) });
    let alias = stage.world.instances[&old].label().to_owned();
    assert_ne!(alias, name);
    let (project, reason) = ("default".to_owned(), RemoveReason::Superseded);
    let remove = Action::RemoveImage { fingerprint: old, project, alias, reason };
    assert_eq!(stage.dispatch(), std::slice::from_ref(&remove));
    stage.outcome(remove.clone(), Outcome::RemoveFailed { reason: "busy".to_owned() });
    assert_eq!(stage.plan().actions, [], "it is tried again after a pause");
    stage.pass(2);
    assert_eq!(stage.dispatch(), std::slice::from_ref(&remove));
    stage.outcome(remove, Outcome::Removed);
    assert_eq!(phase(&stage, Phase::Template), ["a".repeat(64)]);
}

#[test]
fn an_image_of_no_class_goes_and_a_lone_listing_that_failed_takes_none_away() {
    let mut stage = cluster(with(0, 0));
    settle(&mut stage);
    stage.snapshot(stage.world.seq(), None, None);
    assert_eq!(phase(&stage, Phase::Template).len(), 1);
    let listed: Vec<InstanceSeen> = stage.world.instances.values().map(|i| i.seen.clone()).collect();
    let small = || with(0, 0).classes.remove(0);
    for classes in [vec![Class { template: false, ..small() }], vec![class("another", &[], 4)]] {
        let mut stage = cluster(Config { classes, ..with(0, 0) });
        stage.lxd(listed.clone());
        assert!(kinds(&stage.plan().actions).contains(&"remove image"), "{:?}", stage.plan().actions);
    }
}

#[test]
fn an_image_that_does_not_work_is_removed_before_another_is_baked() {
    let mut stage = cluster(with(0, 0));
    settle(&mut stage);
    for job in 1..=3 {
        stage.queued(job);
        let launch = stage.dispatch().into_iter().find(|a| kinds(std::slice::from_ref(a)) == ["template"]).unwrap();
        let (blame, reason) = (Subject::Template("small".to_owned()), "it does not unpack".to_owned());
        stage.outcome(launch, Outcome::LaunchFailed { blame, reason, made: false, runner: None });
        stage.told(job, JobStatus::Completed, None);
        if job == 1 {
            // The next one starts from the class's own image, and works.
            stage.queued(11);
            stage.launch_all();
        }
        stage.now = stage.paused_until();
    }
    assert_eq!(kinds(&settle(&mut stage)), ["remove image", "bake"]);
}

#[test]
fn a_server_that_became_a_cluster_uses_what_it_has_until_the_image_is_there() {
    let mut stage = stage(with(0, 0));
    settle(&mut stage);
    images_of(&mut stage, "f1", TemplateKind::Image);
    stage.queued(1);
    assert_eq!(kinds(&stage.plan().actions), ["template", "bake"]);
    stage.told(1, JobStatus::Completed, None);
    assert_eq!(kinds(&settle(&mut stage)), ["bake", "remove"]);
    assert_eq!(phase(&stage, Phase::Template)[0].len(), 64);
}
