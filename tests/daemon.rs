//! The built daemon against both stand-ins: the main job, and everything that may go wrong on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::time::Duration;

use lxdrunner::model::{ConfigMap, JobId, keys};
use standin::farm::Setup;
use standin::github::simulate::Progress;
use standin::github::{Event, Fault, JobSpec, Stage};
use standin::lxd::ImageEntry;
use support::*;

#[test]
fn a_queued_job_gets_an_instance_and_everything_is_gone_afterwards() {
    let rig = Rig::new(Plan::default());
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    rig.wait_nothing_left();
    rig.daemon.wait(&[&format!("job={job}"), "msg=\"instance gone\"", "ran_a_job=true"]);
    let accepted = rig.github.timeline().into_iter().any(|moment| {
        matches!(moment.event, Event::HookAnswered { job: j, action, status: Some(202) } if j == job && action == "queued")
    });
    assert!(accepted);
    // A job's life is told in at most five lines, and none of them is a complaint.
    let about = format!("job={job} ");
    let log = rig.daemon.log();
    let told: Vec<&String> = log.iter().filter(|line| line.contains(&about) && line.contains("INFO")).collect();
    assert!(told.len() <= 5, "{told:#?}");
    assert_eq!(rig.complaints(), Vec::<String>::new());
}

/// The image that README's first config names, on a server that can fetch it only where it has images for the product.
#[test]
fn an_ubuntu_image_starts_jobs_on_lxd_and_on_incus() {
    for (product, alias) in [("lxd", "24.04"), ("incus", "ubuntu/24.04/cloud")] {
        let classes = Plan::default().classes.replace("IMAGE", "'ubuntu:24.04'");
        let rig = Rig::prepared(Plan { classes, ..Plan::default() }, |before| {
            let lxd = before.lxd.unwrap();
            lxd.set_product(product);
            lxd.add_image(ImageEntry::container(alias));
        });
        assert_eq!(rig.wait_done(rig.queue()), "success", "{product}");
    }
}

/// What the failed launch says of an image server that has images for the other product only.
#[test]
fn a_server_with_images_for_the_other_product_is_named_with_the_fix() {
    let classes = Plan::default().classes.replace("IMAGE", "'images:debian/12/cloud'");
    let remotes = "remotes: {images: {addr: 'https://images.linuxcontainers.org'}}";
    let rig = Rig::new(Plan { classes, ..Plan::with(remotes) });
    rig.queue();
    rig.daemon.wait(&["has images for Incus only, not for LXD", "write addr: https://images.lxd.canonical.com"]);
}

#[test]
fn secrets_are_in_no_log_and_in_no_instance_config() {
    let rig = Rig::new(Plan::default());
    rig.insides.hold_jobs(true);
    let job = rig.queue();
    rig.daemon.wait(&["msg=\"job runs\""]);
    let names = rig.wait_instances(|names| names.len() == 1);
    let config: ConfigMap = rig.standin().instance("default", &names[0]).unwrap().config();
    let everything = format!("{}\n{config:?}", rig.daemon.log().join("\n"));
    let token = rig.github.token();
    for secret in [token.expose(), HOOK_SECRET, "encoded_jit", "LnJ1bm5lci"] {
        assert!(!everything.contains(secret), "{secret} was seen");
    }
    let command = std::fs::read(format!("/proc/{}/cmdline", rig.daemon.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&command).contains(token.expose()));
    rig.insides.runner(&names[0]).unwrap().let_finish();
    rig.wait_done(job);
}

#[test]
fn a_job_whose_webhook_was_lost_is_found() {
    let rig = Rig::new(Plan::default());
    rig.github.hook_by_itself(false);
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    rig.wait_nothing_left();
}

#[test]
fn a_repeated_webhook_launches_nothing_more() {
    let rig = Rig::new(Plan::default());
    rig.insides.hold_jobs(true);
    let job = rig.queue();
    rig.daemon.wait(&["msg=\"runner started\""]);
    let name = rig.wait_instances(|names| names.len() == 1).remove(0);
    for _ in 0..3 {
        assert_eq!(rig.github.deliver(job, "queued").status, Some(202));
    }
    rig.insides.runner(&name).unwrap().let_finish();
    rig.wait_done(job);
    rig.github.deliver(job, "queued");
    rig.wait_nothing_left();
    let launched = rig.github.timeline().iter().filter(|m| matches!(m.event, Event::Registered { .. })).count();
    assert_eq!(launched, 1);
}

/// Whoever takes the right away from one credential, or removes one organisation, must not stop all others.
#[test]
fn an_organisation_that_refuses_everything_takes_no_place_for_long() {
    let config = "reconcile_interval: 2\nmax_workers: 2\n".to_owned();
    let rig = Rig::new(Plan { config, targets: "[{org: acme}, {repo: alice/tool}]".to_owned(), ..Plan::default() });
    rig.github.add_repo(&"alice/tool".parse().unwrap(), false);
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    rig.github.inject(Fault::status("/orgs/acme/actions/runners", 404, "Not Found").times(100_000));
    rig.queue();
    rig.queue();
    // More tries than places.
    rig.daemon.wait_count(&["msg=\"launch failed"], 3);
    let other = rig.github.queue(&"alice/tool".parse().unwrap(), JobSpec::new(&["self-hosted"]));
    assert_eq!(rig.wait_done(other), "success");
    rig.wait_instances(|names| names.is_empty());
}

#[test]
fn jobs_go_to_their_classes_and_those_of_nobody_are_left_alone() {
    let classes = "  - {name: small, labels: [self-hosted], image: IMAGE, type: container, runner_os: linux, runner_arch: x64, template: false}\n  \
                   - {name: gpu, labels: [gpu], image: IMAGE, type: container, runner_os: linux, runner_arch: x64, template: false}\n";
    let rig = Rig::new(Plan { classes: classes.to_owned(), ..Plan::default() });
    let hosted = rig.github.queue(&repo(), JobSpec::new(&["ubuntu-latest"]));
    let gpu = rig.github.queue(&repo(), JobSpec::new(&["self-hosted", "GPU"]));
    let plain = rig.github.queue(&repo(), JobSpec::new(&["self-hosted", "linux"]));
    let unknown = rig.github.queue(&repo(), JobSpec::new(&["self-hosted", "arm64"]));
    rig.wait_done(gpu);
    rig.wait_done(plain);
    rig.daemon.wait(&[&format!("job={gpu}"), "class=\"gpu\""]);
    rig.daemon.wait(&[&format!("job={plain}"), "class=\"small\""]);
    rig.daemon.wait(&[&format!("job={unknown}"), "WARN", "not launched", "arm64"]);
    rig.daemon.wait(&[&format!("job={hosted}"), "DEBUG", "not launched"]);
    rig.wait_nothing_left();
}

#[test]
fn a_virtual_machine_is_waited_for_until_its_agent_answers() {
    let classes = "  - {name: vm, labels: [vm], image: standin-vm, type: virtual-machine, runner_os: linux, runner_arch: x64, template: false}\n";
    let rig = Rig::new(Plan { classes: classes.to_owned(), ..Plan::default() });
    let job = rig.github.queue(&repo(), JobSpec::new(&["vm"]));
    assert_eq!(rig.wait_done(job), "success");
    rig.wait_nothing_left();
    let calls = rig.standin().faults().calls();
    let first = |part: &str| calls.iter().position(|call| call.path.contains(part)).unwrap();
    let looked = calls.iter().filter(|call| call.method == "GET" && call.path.ends_with("/state")).count();
    assert!(looked >= 3, "once without an agent, twice with: {looked}");
    assert!(first("/state") < first("/files"), "nothing is pushed before the agent is there");
}

#[test]
fn a_virtual_machine_whose_agent_never_answers_is_told_with_what_to_look_at() {
    let classes = "  - {name: vm, labels: [vm], image: standin-vm, type: virtual-machine, runner_os: linux, runner_arch: x64, template: false}\n";
    let plan = Plan { classes: classes.to_owned(), ..Plan::with("provision_timeout: 10") };
    let rig = Rig::prepared(plan, |before| before.lxd.unwrap().set_agent_polls(u32::MAX));
    let job = rig.github.queue(&repo(), JobSpec::new(&["vm"]));
    rig.daemon.wait(&["INFO", "msg=\"waiting for the virtual machine's agent\" seconds="]);
    let told = rig.daemon.wait(&["ERROR", &format!("job={job}"), "agent did not answer within 10 s"]);
    for part in ["provision_timeout", "lxc console", "security.secureboot", "lxd-agent"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let said = rig.daemon.count(&["waiting for the virtual machine's agent"]);
    assert_eq!(said, 1, "the next time is half a minute later");
}

#[test]
fn a_burst_beyond_the_cap_is_served_in_turn() {
    let rig = Rig::new(Plan::with("max_workers: 3"));
    let jobs: Vec<_> = (0..12).map(|_| rig.queue()).collect();
    for job in jobs {
        assert_eq!(rig.wait_done(job), "success");
    }
    rig.wait_nothing_left();
}

#[test]
fn a_cancelled_job_leaves_no_idle_instance_behind() {
    let rig = Rig::new(Plan::with("idle_timeout: 1"));
    rig.insides.set_setup(Setup::Works);
    let job = rig.queue();
    // Cancelled while the instance comes up: the runner finds nothing to do.
    rig.daemon.wait(&["msg=\"instance made\""]);
    rig.github.cancel(job);
    rig.wait_nothing_left();
}

#[test]
fn a_kill_in_the_middle_of_provisioning_is_mended_by_the_next_start() {
    let mut rig = Rig::new(Plan::default());
    rig.insides.set_setup(Setup::Hangs("unpacking\n".to_owned()));
    let job = rig.queue();
    rig.daemon.wait(&["msg=\"instance made\""]);
    rig.wait_instances(|names| names.len() == 1);
    rig.insides.set_setup(Setup::Works);
    rig.restart();
    rig.daemon.wait(&["reason=\"abandoned while it was provisioned\""]);
    assert_eq!(rig.wait_done(job), "success");
    rig.wait_instances(|names| names.is_empty());
}

#[test]
fn after_a_power_cut_what_was_half_made_is_cleared_away_at_once() {
    let mut rig = Rig::new(Plan::default());
    rig.insides.set_setup(Setup::Hangs("unpacking\n".to_owned()));
    let job = rig.queue();
    rig.daemon.wait(&["msg=\"instance made\""]);
    let name = rig.wait_instances(|names| names.len() == 1).remove(0);
    rig.daemon.kill();
    // The same process, but of another boot of this machine.
    let identity = lxdrunner::identity::process_identity();
    let mut parts: Vec<&str> = identity.split('.').collect();
    parts[1] = "00000000";
    let config = [(keys::DAEMON.to_owned(), parts.join("."))].into();
    rig.lxd.patch_config("default", &name, &config, None).unwrap();
    rig.standin().lose_power();
    assert!(!rig.standin().instance("default", &name).unwrap().is_running(), "LXD started it again");
    rig.insides.set_setup(Setup::Works);
    rig.restart();
    rig.daemon.wait(&[&format!("instance={name} "), "reason=\"abandoned while it was provisioned\""]);
    assert_eq!(rig.wait_done(job), "success");
    rig.wait_instances(|names| names.is_empty());
}

#[test]
fn after_a_power_cut_the_instance_of_a_job_is_not_started_again_and_goes() {
    let mut rig = Rig::new(Plan::default());
    rig.insides.hold_jobs(true);
    let job = rig.queue();
    rig.daemon.wait(&["msg=\"runner started\""]);
    let running = rig.github.wait_for(PATIENCE, |state| (state.jobs[&job].stage == Stage::InProgress).then_some(()));
    assert!(running.is_some());
    rig.daemon.kill();
    rig.standin().lose_power();
    rig.restart();
    rig.daemon.wait(&["msg=removed"]);
    rig.wait_instances(|names| names.is_empty());
}

#[test]
fn a_kill_while_jobs_run_goes_unnoticed_by_them() {
    let mut rig = Rig::new(Plan::default());
    rig.insides.hold_jobs(true);
    let job = rig.queue();
    rig.github.wait_event(PATIENCE, 0, |e| matches!(e, Event::JobStarted { .. })).unwrap();
    let name = rig.wait_instances(|names| names.len() == 1).remove(0);
    rig.restart();
    rig.daemon.wait(&["call=", "instances"]);
    let second = rig.queue();
    rig.github.wait_event(PATIENCE, 0, |e| matches!(e, Event::JobStarted { job, .. } if *job == second)).unwrap();
    assert!(rig.instances().contains(&name), "the first job's instance is still there");
    for name in rig.instances() {
        rig.insides.runner(&name).unwrap().let_finish();
    }
    assert_eq!(rig.wait_done(job), "success");
    assert_eq!(rig.wait_done(second), "success");
    rig.wait_nothing_left();
}

/// Upstream runners are known to hang: the process lives, without a worker and without a job.
#[test]
fn a_runner_that_hangs_after_its_job_or_without_its_registration_goes_all_the_same() {
    let classes = Plan::default().classes.replace("template: false", "template: false, idle: 1");
    let rig = Rig::new(Plan { classes, ..Plan::default() });
    rig.insides.hang_runners(true);
    rig.insides.hold_jobs(true);
    let job = rig.queue();
    let started = |e: &Event| matches!(e, Event::JobStarted { .. });
    let Event::JobStarted { name: worked, .. } = rig.github.wait_event(PATIENCE, 0, started).unwrap().1.event else {
        unreachable!()
    };
    rig.daemon.wait(&["msg=\"job runs\""]);
    // Of the job's end no delivery tells.
    rig.github.hook_by_itself(false);
    rig.insides.runner(&worked).unwrap().let_finish();
    assert_eq!(rig.wait_done(job), "success");
    let idle = rig.github.wait_for(PATIENCE, |state| state.runners.values().find(|r| r.online()).cloned()).unwrap();
    rig.daemon.wait(&[&format!("instance={} ", idle.name), "msg=\"runner started\""]);
    rig.github.with(|state| state.runners.remove(&idle.id));
    for name in [&worked, &idle.name] {
        rig.daemon.wait(&[&format!("instance={name} "), "reason=\"finished\"", "msg=removed"]);
        assert!(matches!(rig.insides.runner(name).unwrap().progress(), Progress::Killed), "{name} did not hang");
    }
}

/// Nothing inside shows the job yet, and GitHub's listing does not call the runner busy: only its refusal (422) does.
#[test]
fn a_runner_that_acquired_a_job_and_has_no_worker_yet_is_not_removed_as_idle() {
    let rig = Rig::new(Plan::with("idle_timeout: 1"));
    rig.github.with(|state| state.busy_is_late = true);
    rig.insides.hold_workers(true);
    let job = rig.queue();
    let acquired = |e: &Event| matches!(e, Event::JobAcquired { .. });
    let Event::JobAcquired { name, .. } = rig.github.wait_event(PATIENCE, 0, acquired).unwrap().1.event else {
        unreachable!()
    };
    // A second runner that finds nothing to do: one of the two is too many, and the first is idle for longer.
    let other = rig.queue();
    rig.daemon.wait(&[&format!("job={other} "), "msg=\"instance made\""]);
    rig.github.cancel(other);
    rig.daemon.wait(&[&format!("instance={name} "), "msg=\"kept\"", "GitHub says that it runs a job"]);
    rig.insides.runner(&name).unwrap().let_work();
    assert_eq!(rig.wait_done(job), "success");
    rig.wait_nothing_left();
}

#[test]
fn what_is_not_ours_is_never_touched() {
    let rig = Rig::new(Plan::with("provision_timeout: 2\nidle_timeout: 1"));
    let foreign = lxdrunner::lxd::NewInstance {
        name: format!("{}-77-1", rig.prefix),
        kind: lxdrunner::model::InstanceType::Container,
        source: lxdrunner::lxd::Source::Alias(standin::farm::IMAGE.to_owned()),
        profiles: vec!["default".to_owned()],
        config: ConfigMap::from([("user.lxdrunner.owner".to_owned(), "somebody-else".to_owned())]),
        devices: Default::default(),
        ephemeral: false,
    };
    let made = rig.lxd.create("default", "", &foreign).unwrap();
    rig.lxd.wait(&made, PATIENCE).unwrap();
    let acme = lxdrunner::model::Scope::Org("acme".to_owned());
    let client = lxdrunner::github::GitHub::new(&rig.github.api(), rig.github.token());
    let placeholder = client.generate_jit_config(&acme, "always-offline", 1, &["self-hosted".to_owned()]).unwrap();
    let job = rig.queue();
    rig.wait_done(job);
    rig.wait_nothing_left();
    // Longer than anything of ours would have lived.
    rig.daemon.wait_count(&["github_call", "actions/runs?status=queued"], 4);
    assert_eq!(rig.standin().instance_names("default"), [foreign.name]);
    assert!(rig.github.with(|state| state.runners.contains_key(&placeholder.runner)));
}

#[test]
fn lxd_away_is_told_by_healthz_and_its_return_is_noticed() {
    let rig = Rig::new(Plan::default());
    let deadline = std::time::Instant::now() + PATIENCE;
    while rig.health().0 != 200 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    let socket = rig.standin().socket().to_owned();
    let away = socket.with_extension("away");
    std::fs::rename(&socket, &away).unwrap();
    rig.standin().close_connections();
    rig.daemon.wait(&["ERROR", "what=\"lxd\""]);
    let (status, text) = rig.health();
    assert_eq!(status, 503, "{text}");
    std::fs::rename(&away, &socket).unwrap();
    rig.daemon.wait(&["what=\"lxd\"", "works again"]);
    assert_eq!(rig.health().0, 200);
}

#[test]
fn a_rate_limit_is_waited_for_without_a_request_and_without_an_instance() {
    let rig = Rig::new(Plan::default());
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    rig.github.inject(Fault::retry_after("/orgs/acme/actions/runners/generate-jitconfig", 4));
    let job = rig.queue();
    rig.daemon.wait(&["ERROR", "launch failed", "rate limit"]);
    assert_eq!(rig.wait_done(job), "success");
    // Nothing was asked of GitHub and no instance was made before it could answer.
    let registrations = rig.github.requests().iter().filter(|r| r.path.ends_with("/generate-jitconfig")).count();
    assert_eq!((registrations, rig.daemon.count(&["instance made"])), (2, 2));
    rig.wait_nothing_left();
}

#[test]
fn an_instance_that_ends_is_noticed_by_itself_and_after_a_cut_of_the_stream_too() {
    let rig = Rig::new(Plan::with("max_workers: 1"));
    let streams = |rig: &Rig| rig.standin().faults().calls().iter().filter(|c| c.path == "/1.0/events").count();
    for round in 1..=2 {
        // One place: the second job starts when the end of the first instance is known.
        let jobs = [rig.queue(), rig.queue()];
        for job in jobs {
            assert_eq!(rig.wait_done(job), "success");
        }
        rig.wait_nothing_left();
        rig.daemon.wait_count(&["lxd_event=instance-deleted"], 2 * round);
        assert_eq!(streams(&rig), round);
        rig.standin().close_connections();
        rig.daemon.wait_count(&["not listening to LXD"], round);
        rig.standin()
            .faults()
            .wait_until(PATIENCE, |calls| calls.iter().filter(|call| call.path == "/1.0/events").count() > round);
    }
}

#[test]
fn check_runs_alone_are_enough_to_serve_several_classes_once() {
    let classes = "  - {name: small, labels: [self-hosted], image: IMAGE, type: container, runner_os: linux, runner_arch: x64, template: false}\n  \
                   - {name: gpu, labels: [gpu], image: IMAGE, type: container, runner_os: linux, runner_arch: x64, template: false}\n";
    let config = "reconcile_interval: 3600\n".to_owned();
    let rig = Rig::new(Plan { classes: classes.to_owned(), config, ..Plan::default() });
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    rig.github.hook_by_itself(false);
    let told = |job: JobId, status: &str| {
        let check_run = serde_json::json!({"id": job.0, "status": status, "app": {"slug": "github-actions"}});
        let repository = serde_json::json!({"full_name": repo().to_string(), "private": true});
        let payload = serde_json::json!({"action": "created", "check_run": check_run, "repository": repository});
        assert_eq!(rig.github.deliver_event("check_run", &payload).status, Some(202));
    };
    let queue = |labels: &[&str]| rig.github.queue(&repo(), JobSpec::new(labels));
    let (plain, gpu, hosted) = (queue(&["self-hosted"]), queue(&["gpu"]), queue(&["ubuntu-latest"]));
    for job in [plain, gpu, hosted] {
        told(job, "queued");
        // A hook of either kind may be there, and a check run is told again when it begins.
        assert_eq!(rig.github.deliver(job, "queued").status, Some(202));
        told(job, "in_progress");
    }
    rig.daemon.wait(&[&format!("job={plain}"), "class=\"small\"", "instance made"]);
    rig.daemon.wait(&[&format!("job={gpu}"), "class=\"gpu\"", "instance made"]);
    rig.wait_done(plain);
    rig.wait_done(gpu);
    [plain, gpu].into_iter().for_each(|job| told(job, "completed"));
    rig.daemon.wait(&[&format!("job={hosted}"), "DEBUG", "not launched"]);
    // What runs on GitHub's own machines is known by its labels alone.
    let alone = queue(&["ubuntu-24.04"]);
    told(alone, "queued");
    rig.daemon.wait(&[&format!("job={alone}"), "DEBUG", "not launched", "ubuntu-24.04"]);
    let last = queue(&["self-hosted", "linux"]);
    told(last, "queued");
    rig.wait_done(last);
    rig.wait_nothing_left();
    let registered = rig.github.timeline().iter().filter(|m| matches!(m.event, Event::Registered { .. })).count();
    assert_eq!(registered, 3);
    // One question for each job that only a check run told of, and none for its repository.
    let asked = |end: &str| rig.github.requests().iter().filter(|r| r.path.ends_with(end)).count();
    assert_eq!((asked(&format!("/jobs/{alone}")), asked("/acme/app")), (1, 0));
    // Of the last one no end was delivered: once its instance is gone GitHub is asked again.
    assert!(matches!(asked(&format!("/jobs/{last}")), 1 | 2));
}

#[test]
fn a_group_that_was_made_anew_is_found_again() {
    let classes = "  - {name: small, labels: [self-hosted], image: IMAGE, runner_arch: x64, runner_group: Heavy, template: false}\n";
    let plan = Plan { classes: classes.to_owned(), ..Plan::default() };
    let group = |state: &mut standin::github::State, id| {
        state.groups.retain(|(_, name)| name != "Heavy");
        state.groups.push((id, "Heavy".to_owned()));
    };
    let rig = Rig::prepared(plan, |before| before.github.with(|state| group(state, 7)));
    let first = rig.queue();
    assert_eq!(rig.wait_done(first), "success");
    rig.github.with(|state| group(state, 8));
    let second = rig.queue();
    assert_eq!(rig.wait_done(second), "success");
    rig.wait_nothing_left();
    assert_eq!(rig.complaints(), Vec::<String>::new());
}

#[test]
fn a_job_from_a_template_costs_seven_calls_of_lxd_at_most() {
    let classes = "  - {name: small, labels: [self-hosted], image: IMAGE, template: true}\n".to_owned();
    let rig = Rig::new(Plan { classes, ..Plan::default() });
    rig.daemon.wait(&["msg=\"template ready\""]);
    let before = rig.standin().faults().calls().len();
    let job = rig.queue();
    assert_eq!(rig.wait_done(job), "success");
    let name = rig.github.with(|state| state.jobs[&job].runner_name.clone()).unwrap();
    rig.daemon.wait(&[&format!("instance={name}"), "msg=\"instance gone\""]);
    let calls = rig.standin().faults().calls().split_off(before);
    // Listings are for all jobs together.
    let own = |call: &&standin::lxd::Call| {
        let made = call.method == "POST" && call.path == "/1.0/instances";
        made || call.path.contains(&name) || call.path.starts_with("/1.0/operations/")
    };
    let own: Vec<_> = calls.iter().filter(own).collect();
    assert!(own.len() <= 7, "{own:#?}");
}
