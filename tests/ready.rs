//! What is kept ready for jobs, through the built daemon and the stand-ins: templates, standbys, idle runners.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use lxdrunner::model::keys;
use standin::farm::{self, IMAGE, Setup};
use standin::lxd::{Call, Download, Fault, ImageEntry};
use support::*;

fn plan(class: &str, config: &str) -> Plan {
    let classes = format!(
        "  - {{name: small, labels: [self-hosted], image: IMAGE, type: container, runner_os: linux, runner_arch: x64{class}}}\n"
    );
    Plan { classes, ..Plan::with(config) }
}

/// Names of instances with that part.
fn named(rig: &Rig, part: &str) -> Vec<String> {
    rig.instances().into_iter().filter(|name| name.contains(part)).collect()
}

#[test]
fn a_copy_that_does_not_reach_github_is_blamed_on_the_network() {
    let rig = Rig::new(plan("", ""));
    rig.daemon.wait(&["msg=\"template ready\""]);
    rig.insides.set_unreached("cannot connect to github.example:443; try BRIDGE");
    let job = rig.queue();
    rig.daemon.wait(&["launch failed", "network of class", "cannot connect to github.example:443; try "]);
    rig.insides.set_unreached("");
    assert_eq!(rig.wait_done(job), "success");
    // The template was not made anew.
    assert_eq!(rig.daemon.count(&["msg=\"template ready\""]), 1);
}

#[test]
fn a_job_starts_from_the_template_once_there_is_one() {
    let rig = Rig::new(plan("", ""));
    rig.daemon.wait(&["msg=\"template ready\""]);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    rig.daemon.wait(&[&format!("job={job}"), "from=template", "msg=\"instance made\""]);
    rig.wait_instances(|names| names.len() == 1 && names[0].contains("-template-small-"));
    rig.daemon.wait(&[&format!("job={job}"), "msg=\"instance gone\"", "ran_a_job=true"]);
    assert_eq!(rig.complaints(), Vec::<String>::new());
    let (_, health) = rig.health();
    assert!(health.contains("instances=0 standby=0 idle=0 templates=1"), "{health}");
}

#[test]
fn a_job_claims_a_standby_and_the_next_one_is_prepared() {
    let mut rig = Rig::new(plan(", standby: 1", ""));
    rig.daemon.wait(&["msg=\"standby ready\""]);
    assert!(rig.health().1.contains("standby=1"), "{}", rig.health().1);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    let line = rig.daemon.wait(&[&format!("job={job}"), "from=standby", "msg=\"instance made\""]);
    assert!(line.contains("-standby-"), "the standby keeps its name: {line}");
    rig.daemon.wait_count(&["msg=\"standby ready\""], 2);
    // Another process does not know its ETag, and claims it all the same.
    rig.restart();
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    rig.daemon.wait(&[&format!("job={job}"), "from=standby"]);
    assert_eq!(rig.complaints(), Vec::<String>::new());
}

#[test]
fn a_virtual_machine_that_is_a_standby_is_never_written_to_while_it_is_frozen() {
    let classes = "  - {name: vm, labels: [self-hosted], image: standin-vm, type: virtual-machine, runner_os: linux, runner_arch: x64, standby: 1}\n";
    let mut rig = Rig::new(Plan { classes: classes.to_owned(), ..Plan::default() });
    for round in 1..=2 {
        rig.daemon.wait_count(&["msg=\"standby ready\""], round);
        let job = rig.queue();
        assert_eq!(rig.wait_done(job), "success");
        rig.daemon.wait(&[&format!("job={job}"), "from=standby", "msg=\"instance made\""]);
    }
    rig.daemon.wait_count(&["msg=\"standby ready\""], 3);
    let written_to = |rig: &Rig| rig.daemon.count(&["lxd call=\"set keys", "status=500"]);
    assert_eq!(written_to(&rig), 0);
    // Its ETag is not known to another process, and it is thawed and claimed all the same.
    rig.restart();
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    rig.daemon.wait(&[&format!("job={job}"), "from=standby"]);
    assert_eq!(written_to(&rig), 0);
    assert_eq!(rig.complaints(), Vec::<String>::new());
}

#[test]
fn a_template_is_baked_of_the_image_that_fits_its_type_where_an_image_server_has_both() {
    let classes = "  - {name: vm, labels: [self-hosted], image: \"servers:both\", type: virtual-machine, runner_os: linux, runner_arch: x64}\n";
    let remotes = "remotes: {servers: {addr: https://images.invalid, protocol: simplestreams}}";
    let plan = Plan { classes: classes.to_owned(), ..Plan::with(remotes) };
    let rig = Rig::prepared(plan, |before| {
        let standin = before.lxd.unwrap();
        standin.serve_image(ImageEntry::container("both"));
        standin.serve_image(ImageEntry::virtual_machine("both"));
    });
    rig.daemon.wait(&["class=\"vm\"", "msg=\"image fetched\""]);
    rig.daemon.wait(&["class=\"vm\"", "msg=\"template ready\""]);
    assert_eq!(rig.complaints(), Vec::<String>::new());
}

#[test]
fn a_standbys_files_are_kept_ready_for_the_push() {
    let rig = Rig::new(plan(", standby: 1", ""));
    rig.daemon.wait(&["msg=\"standby ready\""]);
    let standby = named(&rig, "-standby-").remove(0);
    let asked = || {
        let path = format!("/1.0/instances/{standby}/files");
        let calls = rig.standin().faults().calls();
        calls.iter().filter(|call| call.method == "GET" && call.path == path).count()
    };
    assert!(asked() >= 1, "when it was prepared");
    let deadline = Instant::now() + PATIENCE;
    while asked() < 3 {
        assert!(Instant::now() < deadline, "its files were opened {} times", asked());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_is_kept_ready_is_started_by_the_call_that_creates_it_where_lxd_can() {
    for can in [false, true] {
        let rig = Rig::prepared(plan(", standby: 1", ""), |before| before.lxd.unwrap().set_starts_at_creation(can));
        rig.daemon.wait(&["msg=\"standby ready\""]);
        let starts = || {
            let calls = rig.standin().faults().calls();
            calls.iter().filter(|call| call.method == "PUT" && call.path.ends_with("/state")).count()
        };
        // A template is stopped, a standby frozen.
        assert_eq!(starts(), if can { 2 } else { 4 });
        let job = rig.queue();
        assert_eq!(rig.wait_done(job), "success");
        assert_eq!(rig.complaints(), Vec::<String>::new());
    }
}

#[test]
fn an_idle_runner_takes_the_job_and_another_takes_its_place() {
    let rig = Rig::new(plan(", idle: 1", ""));
    let online = |name: &str, rig: &Rig| rig.github.with(|s| s.runners.values().any(|r| r.name == name && r.online()));
    let first = rig.wait_instances(|names| names.iter().any(|n| n.contains("-idle-") && online(n, &rig)));
    let first = first.into_iter().find(|name| name.contains("-idle-")).unwrap();
    // Deliveries overtake each other, but not one that is sent only after the other was heard.
    rig.insides.hold_jobs(true);
    let job = rig.queue();
    rig.daemon.wait(&[&format!("job={job}"), &format!("instance={first}"), "msg=\"job runs\""]);
    rig.insides.hold_jobs(false);
    rig.insides.runner(&first).unwrap().let_finish();
    assert_eq!(rig.wait_done(job), "success");
    rig.wait_instances(|names| names.iter().any(|n| n.contains("-idle-") && *n != first));
}

#[test]
fn what_an_image_lacks_is_told_once_it_is_baked() {
    let rig = Rig::prepared(plan("", ""), |before| {
        before.insides.set_sealing("lxdrunner-seal: 3.1 WARNING: the image lacks git\nlxdrunner-seal: 3.2 sealed\n");
    });
    rig.daemon.wait(&["WARN", "class=\"small\" template=", "msg=\"the image lacks git\""]);
    rig.daemon.wait(&["msg=\"template ready\""]);
}

#[test]
fn a_bake_that_fails_is_told_and_jobs_start_from_the_image() {
    let failing = |before: &Before<'_>| before.insides.set_baking(Setup::Fails(7, "no mirror\n".to_owned()));
    let rig = Rig::prepared(plan("", ""), failing);
    rig.daemon.wait(&["ERROR", "template of class", "setup-runner.sh ended with code 7"]);
    rig.daemon.wait(&["no mirror"]);
    rig.daemon.wait(&["-template-", "reason=\"its making failed\" msg=removed"]);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    rig.daemon.wait(&[&format!("job={job}"), "from=image"]);
    rig.wait_instances(|names| names.is_empty());
    assert!(rig.health().1.contains("trouble=\"template of class"), "{}", rig.health().1);
}

#[test]
fn a_bake_that_hangs_is_given_up_and_told() {
    let hanging = |before: &Before<'_>| before.insides.set_baking(Setup::Hangs("waiting for Godot\n".to_owned()));
    let rig = Rig::prepared(plan("", "provision_timeout: 3"), hanging);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    rig.daemon.wait(&["ERROR", "template of class", "printed nothing for 3 s (provision_timeout)"]);
    rig.daemon.wait(&["Godot"]);
    rig.wait_instances(|names| names.is_empty());
}

#[test]
fn what_takes_longer_than_provision_timeout_and_makes_progress_is_waited_for() {
    let slow = |before: &Before<'_>| {
        before.insides.set_baking(Setup::Slow(4));
        before.insides.set_setup(Setup::Slow(4));
    };
    let rig = Rig::prepared(plan("", "provision_timeout: 3"), slow);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    rig.daemon.wait(&[&format!("job={job}"), "from=image"]);
    rig.daemon.wait(&["-template-", "step=\"setup-runner.sh\" status=\"unpacking\" msg=\"still under way\""]);
    rig.daemon.wait(&["msg=\"template ready\""]);
    // One is the end of the set-up, and one makes it a template.
    let noted =
        |calls: &[Call]| calls.iter().filter(|call| call.method == "PATCH" && call.path.contains("-template-")).count();
    assert!(noted(&rig.standin().faults().calls()) > 3, "other daemons see that it goes on");
    assert_eq!(rig.complaints(), Vec::<String>::new());
}

#[test]
fn an_image_that_is_downloaded_slowly_is_waited_for_and_one_that_is_not_downloaded_is_told() {
    let classes = "  - {name: far, labels: [self-hosted], image: \"servers:big\", type: container, runner_os: linux, runner_arch: x64}\n";
    let remotes = "remotes: {servers: {addr: https://images.invalid, protocol: simplestreams}}\nprovision_timeout: 2";
    let check = |downloads: Download, told: &[&str]| {
        let plan = Plan { classes: classes.to_owned(), ..Plan::with(remotes) };
        let rig = Rig::prepared(plan, |before| {
            let standin = before.lxd.unwrap();
            standin.serve_image(ImageEntry::container("big"));
            standin.set_downloads(downloads);
        });
        rig.daemon.wait(told);
        rig
    };
    let rig = check(Download::Slow(4), &["class=\"far\"", "msg=\"template ready\""]);
    rig.daemon.wait(&["INFO", "class=\"far\" image=big status=\"rootfs: 97% (1.49MB/s)\" msg=\"fetching the image\""]);
    assert_eq!(rig.complaints(), Vec::<String>::new());
    let told = "no progress for 2 s, its status stays \\\"rootfs: 43% (1.49MB/s)\\\"; see whether this host reaches";
    check(Download::Stalls, &["ERROR", "template of class", "fetch image big from https://images.invalid", told]);
}

#[test]
fn a_pool_without_room_for_a_template_is_told() {
    let full = |before: &Before<'_>| before.lxd.unwrap().set_pool_full(true);
    let rig = Rig::prepared(plan("", ""), full);
    rig.daemon.wait(&["ERROR", "storage pool of class", "no space left"]);
    rig.standin().set_pool_full(false);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    rig.daemon.wait(&[&format!("job={job}"), "from=image"]);
    rig.daemon.wait(&["storage pool of class", "works again"]);
    rig.daemon.wait(&["msg=\"template ready\""]);
    assert!(!rig.health().1.contains("trouble"), "{}", rig.health().1);
}

#[test]
fn an_image_that_goes_away_while_it_is_baked_keeps_no_job_from_its_successor() {
    // Between the moment at which LXD tells which image it is, and the one at which it makes an instance of it.
    let slow = Fault::Delay(Duration::from_millis(500));
    let rig = Rig::prepared(plan("", ""), |before| {
        before.lxd.unwrap().faults().add("POST", "/1.0/instances", 0, 1, slow);
    });
    assert!(rig.standin().faults().wait_until(PATIENCE, |calls| calls.iter().any(|call| call.method == "POST")));
    rig.standin().remove_image(farm::IMAGE);
    rig.standin().add_image(ImageEntry { fingerprint: "f00d".repeat(16), ..ImageEntry::container(farm::IMAGE) });
    rig.daemon.wait(&["ERROR", "template of class", "create the instance"]);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    rig.daemon.wait(&[&format!("job={job}"), "from=image"]);
    rig.wait_instances(|names| names.is_empty());
}

#[test]
fn what_a_changed_class_has_no_use_for_goes() {
    let mut rig = Rig::new(plan(", standby: 2", ""));
    rig.daemon.wait_count(&["msg=\"standby ready\""], 2);
    let (old, template) = (named(&rig, "-standby-"), named(&rig, "-template-"));
    rig.daemon.kill();
    let path = rig.scratch.0.join("config.yml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("standby: 2", "standby: 1, config: {limits.processes: 500}")).unwrap();
    rig.restart();
    rig.daemon.wait(&["msg=\"standby ready\""]);
    rig.wait_instances(|names| !names.iter().any(|name| old.contains(name) || template.contains(name)));
    assert_eq!((named(&rig, "-standby-").len(), named(&rig, "-template-").len()), (1, 1));
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
}

#[test]
fn a_half_baked_template_of_a_dead_daemon_goes() {
    let hanging = |before: &Before<'_>| before.insides.set_baking(Setup::Hangs(String::new()));
    let mut rig = Rig::prepared(plan("", ""), hanging);
    rig.daemon.wait(&["msg=\"baking a template\""]);
    rig.insides.set_baking(Setup::Works);
    rig.restart();
    rig.daemon.wait(&["-template-", "abandoned", "msg=removed"]);
    rig.daemon.wait(&["msg=\"template ready\""]);
}

/// Images of ours in the stand-in: name and fingerprint.
fn template_images(rig: &Rig) -> Vec<(String, String)> {
    let ours = |image: &ImageEntry| image.properties.get(keys::OWNER) == Some(&rig.prefix) && !image.alias.is_empty();
    rig.standin().images().into_iter().filter(ours).map(|image| (image.alias, image.fingerprint)).collect()
}

fn in_a_cluster(before: &Before<'_>) {
    before.lxd.unwrap().set_clustered(true);
}

#[test]
fn in_a_cluster_the_template_is_an_image_and_the_old_one_goes() {
    let mut rig = Rig::prepared(plan(", standby: 1", ""), in_a_cluster);
    rig.daemon.wait(&["msg=\"template ready\"", "image="]);
    rig.daemon.wait(&["msg=\"standby ready\""]);
    let [(name, old)] = &template_images(&rig)[..] else { panic!("{:?}", template_images(&rig)) };
    assert!(name.contains("-template-small-"), "{name}");
    rig.wait_instances(|names| names.len() == 1 && names[0].contains("-standby-"));
    assert!(rig.health().1.contains("instances=1 standby=1 idle=0 templates=1"), "{}", rig.health().1);
    let from = |rig: &Rig, from: &str| {
        let job = rig.queue();
        assert_eq!(rig.wait_done(job), "success");
        rig.daemon.wait(&[&format!("job={job}"), from, "msg=\"instance made\""]);
        rig.daemon.wait(&[&format!("job={job}"), "msg=\"instance gone\"", "ran_a_job=true"]);
    };
    from(&rig, "from=standby");
    assert_eq!(rig.complaints(), Vec::<String>::new());
    rig.daemon.kill();

    // The class's image moves, and there are images that look like ours.
    let path = rig.scratch.0.join("config.yml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(", standby: 1", "")).unwrap();
    let published = rig.standin().images().into_iter().find(|image| image.fingerprint == *old).unwrap();
    let (mut nameless, mut of_another, mut moved) = (published.clone(), published, ImageEntry::container(IMAGE));
    (nameless.alias, nameless.fingerprint) = (String::new(), "1".repeat(64));
    (of_another.alias, of_another.fingerprint) = (name.replace(&rig.prefix, "other"), "2".repeat(64));
    of_another.properties.insert(keys::OWNER.to_owned(), "other".to_owned());
    moved.fingerprint = "3".repeat(64);
    rig.standin().remove_image(IMAGE);
    [moved, nameless, of_another].into_iter().for_each(|image| rig.standin().add_image(image));
    rig.restart();
    rig.daemon.wait(&[&format!("image={old}"), "reason=\"replaced by another", "msg=removed"]);
    let [(_, new)] = &template_images(&rig)[..] else { panic!("{:?}", template_images(&rig)) };
    assert_ne!(new, old);
    rig.wait_instances(|names| names.is_empty());
    from(&rig, "from=template");
    let left: Vec<String> = rig.standin().images().into_iter().map(|image| image.fingerprint[..1].to_owned()).collect();
    assert!(left.contains(&"1".to_owned()) && left.contains(&"2".to_owned()), "{left:?}");
    // It is found again, and `bake` finds it, too.
    rig.restart();
    let (text, code) = bake(&rig, &[]);
    assert!(code == 0 && text.contains("is up to date"), "{text}");
    from(&rig, "from=template");
    assert_eq!(rig.daemon.count(&["msg=\"baking a template\""]), 0);
    assert_eq!(rig.complaints(), Vec::<String>::new());
}

#[test]
fn a_template_that_cannot_be_published_is_told_and_baked_again() {
    let fails = |before: &Before<'_>| {
        in_a_cluster(before);
        // The second time it is tried without packing.
        let refusal = r#"{"type": "error", "error": "no space left", "error_code": 500}"#.to_owned();
        before.lxd.unwrap().faults().add("POST", "/1.0/images", 0, 2, Fault::Status(500, refusal));
    };
    let rig = Rig::prepared(plan("", ""), fails);
    rig.daemon.wait(&["ERROR", "template of class", "no space left (HTTP 500)"]);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    rig.daemon.wait(&[&format!("job={job}"), "from=image"]);
    rig.wait_instances(|names| names.is_empty());
    let (text, code) = bake(&rig, &[]);
    assert!(code == 0 && text.contains("is ready, baked in"), "{text}");
    assert_eq!(template_images(&rig).len(), 1);
    rig.wait_instances(|names| names.is_empty());
}

#[test]
fn an_image_whose_publishing_was_not_heard_the_end_of_is_used_and_not_baked_again() {
    for killed in [false, true] {
        let fault = if killed { Fault::StallAfter } else { Fault::CutAfter(0) };
        let mut rig = Rig::prepared(plan("", ""), |before| {
            in_a_cluster(before);
            before.lxd.unwrap().faults().next("POST", "/1.0/images", fault);
        });
        if killed {
            let published = || template_images(&rig).len() == 1;
            assert!(rig.standin().faults().wait_until(PATIENCE, |_| published()), "{:?}", template_images(&rig));
            rig.restart();
            rig.daemon.wait(&["-template-", "abandoned", "msg=removed"]);
        }
        // It hears of the image from LXD's answer to a look, or from that to its question about the name.
        rig.wait_healthy("templates=1");
        rig.wait_instances(|names| names.is_empty());
        let job = rig.queue();
        assert_eq!(rig.wait_done(job), "success");
        rig.daemon.wait(&[&format!("job={job}"), "from=template"]);
        assert_eq!(rig.daemon.count(&["msg=\"baking a template\""]), usize::from(!killed));
        assert_eq!(template_images(&rig).len(), 1);
    }
}

/// What `lxdrunner bake` says, and its exit code.
fn bake(rig: &Rig, class: &[&str]) -> (String, i32) {
    let config = rig.scratch.0.join("config.yml");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lxdrunner"));
    let output = command.arg("bake").args(class).arg("-c").arg(config).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (text, output.status.code().unwrap())
}

#[test]
fn bake_makes_what_the_daemon_then_uses() {
    let mut rig = Rig::new(plan("", ""));
    rig.daemon.wait(&["msg=\"template ready\""]);
    let name = named(&rig, "-template-").remove(0);
    let (text, code) = bake(&rig, &[]);
    assert!(code == 0 && text.contains(&format!("template {name} is up to date")), "{text}");
    rig.daemon.kill();
    rig.lxd.delete("default", &name).and_then(|operation| rig.lxd.wait(&operation, PATIENCE)).unwrap();
    let (text, code) = bake(&rig, &["SMALL"]);
    assert!(code == 0 && text.contains(&format!("template {name} is ready, baked in")), "{text}");
    rig.restart();
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    rig.daemon.wait(&[&format!("job={job}"), "from=template"]);
    assert_eq!(rig.daemon.count(&["msg=\"baking a template\""]), 0);
    let (text, code) = bake(&rig, &["big"]);
    assert!(code == 2 && text.contains("it has small"), "{text}");
}

#[test]
fn bake_says_why_it_failed_and_leaves_nothing() {
    let mut rig = Rig::new(plan("", ""));
    rig.daemon.wait(&["msg=\"template ready\""]);
    rig.daemon.kill();
    let name = named(&rig, "-template-").remove(0);
    rig.lxd.delete("default", &name).and_then(|operation| rig.lxd.wait(&operation, PATIENCE)).unwrap();
    rig.insides.set_baking(Setup::Fails(3, "no mirror\n".to_owned()));
    let (text, code) = bake(&rig, &[]);
    assert!(code == 1 && text.contains("ended with code 3") && text.contains("no mirror"), "{text}");
    assert_eq!(rig.instances(), Vec::<String>::new());
}

#[test]
fn a_copy_that_somebody_makes_of_a_template_is_not_taken_for_ours() {
    let mut rig = Rig::new(plan("", ""));
    rig.daemon.wait(&["msg=\"template ready\""]);
    let template = named(&rig, "-template-").remove(0);
    // As `lxc copy` does: all keys are taken over, ours included.
    let copies = ["mine".to_owned(), format!("{}-mine", rig.prefix), format!("{template}-mine")];
    for name in &copies {
        let copy = lxdrunner::lxd::NewInstance {
            name: name.clone(),
            kind: lxdrunner::model::InstanceType::Container,
            source: lxdrunner::lxd::Source::Copy(template.clone()),
            profiles: vec!["default".to_owned()],
            config: Default::default(),
            devices: Default::default(),
            ephemeral: false,
        };
        rig.lxd.wait(&rig.lxd.create("default", "", &copy).unwrap(), PATIENCE).unwrap();
        let config = rig.standin().instance("default", name).unwrap().config();
        assert_eq!(config["user.lxdrunner.phase"], "template");
    }
    // Neither the process that baked it nor one that finds them all there touches the copies, or counts them.
    for _ in 0..2 {
        let job = rig.queue();
        assert_eq!(rig.wait_done(job), "success");
        rig.daemon.wait(&[&format!("job={job}"), "msg=\"instance gone\""]);
        rig.daemon.wait_count(&["call=\"list the instances", "status=200"], 5);
        assert!(rig.health().1.contains("instances=0 standby=0 idle=0 templates=1"), "{}", rig.health().1);
        rig.restart();
    }
    let there = rig.standin().instance_names("default");
    assert!(copies.iter().all(|name| there.contains(name)) && there.contains(&template), "{there:?}");
}

/// A second daemon with the same prefix and this in its config instead of that.
fn beside(rig: &Rig, this: &str, instead: &str) -> Daemon {
    let text = std::fs::read_to_string(rig.scratch.0.join("config.yml")).unwrap();
    let cache = rig.scratch.0.join("cache").display().to_string();
    let other = rig.scratch.0.join("other");
    std::fs::create_dir(&other).unwrap();
    assert!(text.contains(instead), "{text}");
    let text = text.replace(instead, this).replace(&cache, &other.join("cache").display().to_string());
    let path = other.join("config.yml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    Daemon::start(&path)
}

#[test]
fn two_daemons_with_one_prefix_and_two_configs_leave_each_others_templates_and_standbys_alone() {
    let rig = Rig::new(plan(", standby: 2", ""));
    rig.daemon.wait_count(&["msg=\"standby ready\""], 2);
    let other = beside(&rig, "standby: 1, config: {limits.processes: 500}", "standby: 2");
    other.wait(&["msg=\"standby ready\""]);
    for daemon in [&rig.daemon, &other] {
        // Told once, and how to mend it.
        daemon.wait(&["ERROR", "class=\"small\"", "another lxdrunner", "prefix of its own"]);
        let seen = daemon.count(&["call=\"list the instances", "status=200"]);
        daemon.wait_count(&["call=\"list the instances", "status=200"], seen + 5);
        assert_eq!(daemon.count(&["another lxdrunner"]), 1);
        assert_eq!(daemon.count(&["msg=\"baking a template\""]), 1, "{}", daemon.log().join("\n"));
    }
    assert_eq!((named(&rig, "-standby-").len(), named(&rig, "-template-").len()), (3, 2));
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
}

#[test]
fn a_standby_that_cannot_be_thawed_is_not_taken_for_an_lxd_that_does_not_answer() {
    let rig = Rig::new(plan(", standby: 1", ""));
    rig.daemon.wait(&["msg=\"standby ready\""]);
    let standby = named(&rig, "-standby-").remove(0);
    rig.standin().faults().add("PUT", &format!("/1.0/instances/{standby}/state"), 0, 1, Fault::Close);
    let job = rig.queue();
    rig.daemon.wait(&["ERROR", &format!("job={job}"), "standbys of class", "launch failed"]);
    assert_eq!(rig.wait_done(job), "success");
    rig.daemon.wait(&[&format!("job={job}"), "from=template", "msg=\"instance made\""]);
    rig.wait_instances(|names| !names.contains(&standby));
}
