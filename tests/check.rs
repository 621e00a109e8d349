//! `lxdrunner check` against the stand-ins: what is there is ok, what is not gets a line with the fix.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "support/image_server.rs"]
mod image_server;

use std::path::PathBuf;

use lxdrunner::cli::check::{Findings, ask};
use lxdrunner::config::Config;
use standin::farm;
use standin::github::{Fault, GitHubStandin};
use standin::lxd::{ImageEntry, LxdStandin};

use image_server::ImageServer;

struct World {
    lxd: LxdStandin,
    github: GitHubStandin,
    // The last to go: the stand-in's end needs its socket.
    directory: Directory,
}

struct Directory(PathBuf);

impl World {
    fn new(name: &str) -> World {
        let directory = std::env::temp_dir().join(format!("lxdrunner-check-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let lxd = farm::lxd(&directory).unwrap();
        let github = GitHubStandin::start("127.0.0.1:0".parse().unwrap()).unwrap();
        github.add_org("acme");
        github.add_repo(&"acme/tool".parse().unwrap(), true);
        let package = directory.join("actions-runner-linux-x64-2.999.0.tar.gz");
        std::fs::write(&package, b"not looked into").unwrap();
        github.offer(&package, "x64", Some("00".repeat(32))).unwrap();
        World { lxd, github, directory: Directory(directory) }
    }

    fn cache(&self) -> PathBuf {
        self.directory.0.join("cache")
    }

    /// What is found with `top` and `class` put into the config, and whether anything failed.
    fn check(&self, top: &str, class: &str) -> (Vec<String>, bool) {
        let cache = if top.contains("cache_home") {
            String::new()
        } else {
            format!("cache_home: {}\n", self.cache().display())
        };
        let text = format!(
            "{top}\n{cache}pat: {}\nhooksecret: a-secret-for-the-tests\ngithub_api: {}\nsocket: {}\nweb_host: 127.0.0.1\n\
             web_port: 0\nrunnermap:\n  - {{name: one, {class}}}\n",
            self.github.token().expose(),
            self.github.api(),
            self.lxd.socket().display(),
        );
        let path = self.directory.0.join("config.yml");
        std::fs::write(&path, text).unwrap();
        let (config, _) = Config::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
        look(&config)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn look(config: &Config) -> (Vec<String>, bool) {
    let mut out = Vec::new();
    let mut findings = Findings::new(&mut out);
    ask(config, &mut findings);
    let failed = findings.failed();
    let lines: Vec<String> = String::from_utf8(out).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(failed, lines.iter().any(|l| l.starts_with("FAIL ")), "{lines:#?}");
    assert!(lines.iter().all(|l| ["ok   ", "warn ", "FAIL "].iter().any(|mark| l.starts_with(mark))), "{lines:#?}");
    (lines, failed)
}

const CLASS: &str = "labels: [self-hosted], image: standin, runner_arch: x64";
const TARGET: &str = "targets: [{org: acme}]";

#[track_caller]
fn has(lines: &[String], start: &str, part: &str) {
    assert!(lines.iter().any(|l| l.starts_with(start) && l.contains(part)), "{start} … {part}: {lines:#?}");
}

/// The kernel's limits are those of the machine that the tests run on.
fn of_this_machine(line: &str) -> bool {
    line.starts_with("warn fs.inotify") || line.starts_with("warn kernel.keys")
}

#[test]
fn a_token_that_ends_soon_is_told() {
    let world = World::new("token");
    let check = |days: u64, after: bool, start: &str, part: &str| {
        let by = std::time::Duration::from_secs(days * 24 * 3600 + 3600);
        let now = lxdrunner::model::Timestamp::now();
        let at = if after { now.after(by) } else { lxdrunner::model::Timestamp(now.0 - by.as_millis() as u64) };
        let told = at.to_rfc3339().replace('T', " ").replace('Z', " UTC");
        world.github.with(|state| state.token_ends = Some(told));
        let (lines, _) = world.check(TARGET, CLASS);
        match part {
            "" => assert!(!lines.iter().any(|line| line.contains("token of")), "{lines:#?}"),
            part => has(&lines, start, part),
        }
    };
    check(5, true, "warn ", "the token of credential default expires in 5 days, at 20");
    check(0, true, "warn ", "expires within a day");
    check(1, false, "FAIL ", "expired at 20");
    check(8, true, "", "");
}

#[test]
fn where_all_is_well_every_line_is_ok() {
    let world = World::new("well");
    let (lines, failed) = world.check(TARGET, CLASS);
    assert!(!failed && lines.iter().all(|l| l.starts_with("ok   ") || of_this_machine(l)), "{lines:#?}");
    has(&lines, "ok   LXD 5.0.2 at ", "");
    has(&lines, "ok   class \"one\": image standin", "container");
    has(&lines, "ok   class \"one\": profiles default", "");
    has(&lines, "ok   class \"one\": storage pool ", "");
    has(&lines, "ok   class \"one\": network ", "");
    has(&lines, "ok   GitHub at ", "the credential is ");
    has(&lines, "ok   target org:acme: ", "registered");
    has(&lines, "ok   runner package for x64: ", "actions-runner-linux-x64-2.999.0.tar.gz");
    has(&lines, "ok   web_tls: webhooks come in plain", "reverse proxy");
    has(&lines, "ok   webhooks: 127.0.0.1:0 is free", "");
}

#[test]
fn where_webhooks_come_in_is_looked_at() {
    let world = World::new("web");
    let with = |top: &str| world.check(&format!("{TARGET}\n{top}"), CLASS);
    let (lines, failed) = with("web_tls: true\nweb_allow: [github]");
    assert!(!failed, "{lines:#?}");
    has(&lines, "ok   web_tls: a self-signed certificate, made at each start", "SSL verification");
    has(&lines, "ok   web_allow: GitHub sends its webhooks from 3 ranges of addresses", "");

    let (lines, failed) = with("web_tls: {cert: /dev/null, key: /dev/null}");
    assert!(failed);
    has(&lines, "FAIL web_tls: cannot serve TLS with /dev/null", "no certificate in it");
    world.github.inject(Fault::status("/meta", 500, "no"));
    let (lines, failed) = with("web_allow: [github]");
    assert!(failed);
    has(&lines, "FAIL web_allow: could not ask where webhooks come from", "500");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    with("");
    let (mut config, _) = Config::load(&world.directory.0.join("config.yml")).unwrap();
    config.web_port = taken.local_addr().unwrap().port();
    has(&look(&config).0, "ok   webhooks: 127.0.0.1:", "is listened on");
    config.web_host = "192.0.2.1".parse().unwrap();
    let (lines, failed) = look(&config);
    assert!(failed);
    has(&lines, "FAIL webhooks: cannot listen for webhooks on 192.0.2.1:", "change web_host");
}

#[test]
fn a_cache_that_cannot_be_written_to_is_told() {
    let world = World::new("cache");
    has(&world.check(TARGET, CLASS).0, "ok   cache_home: ", "is made at the first start");
    std::fs::create_dir(world.cache()).unwrap();
    has(&world.check(TARGET, CLASS).0, "ok   cache_home: ", "can be written to");
    assert_eq!(std::fs::read_dir(world.cache()).unwrap().count(), 0, "what was written is removed");
    let file = format!("{TARGET}\ncache_home: {}", world.directory.0.join("config.yml").display());
    has(&world.check(&file, CLASS).0, "FAIL cache_home: cannot write to ", "name a directory");
    // Nothing can be made there, not even by root.
    has(&world.check(&format!("{TARGET}\ncache_home: /proc"), CLASS).0, "FAIL cache_home: ", "name a directory");
}

#[test]
fn whether_jobs_can_use_docker_is_told() {
    let world = World::new("docker");
    let check = |more: &str, told: &str| {
        let (lines, failed) = world.check(TARGET, &format!("{CLASS}{more}"));
        assert!(!failed);
        has(&lines, &format!("ok   class \"one\": {told}"), "");
    };
    check("", "no Docker: jobs with `container:` or `services:` fail (security.nesting is off)");
    check(", docker: true", "docker: installed while its template is baked");
    check(", config: {security.nesting: true}", "Docker only where the image has it");
}

#[test]
fn what_templates_and_standbys_cost_is_told() {
    let world = World::new("copies");
    let (lines, failed) = world.check(TARGET, &format!("{CLASS}, standby: 2"));
    assert!(!failed);
    has(&lines, "ok   class \"one\": 2 standbys hold their memory", "max_workers");
    let (lines, _) = world.check(TARGET, &format!("{CLASS}, template: false"));
    has(&lines, "ok   class \"one\": no template", "from the image");
    world.lxd.add_pool("plain", "dir");
    let plain = format!("{CLASS}, devices: {{root: {{type: disk, path: /, pool: plain}}}}");
    let (lines, failed) = world.check(TARGET, &plain);
    assert!(!failed);
    has(&lines, "warn class \"one\": storage pool plain is on plain directories: each job copies", "btrfs or zfs");
    world.lxd.set_clustered(true);
    let (lines, failed) = world.check(TARGET, &plain);
    assert!(!failed);
    has(&lines, "ok   class \"one\": LXD is a cluster, so the template is an image", "target: MEMBER");
    has(&lines, "warn class \"one\": storage pool plain is on plain directories: each job unpacks", "btrfs or zfs");
    let (lines, _) = world.check(TARGET, &format!("{CLASS}, target: standin"));
    assert!(!lines.iter().any(|line| line.contains("template")), "{lines:#?}");
}

#[test]
fn targets_that_are_not_named_are_found() {
    let world = World::new("found");
    let (lines, failed) = world.check("", CLASS);
    assert!(!failed, "{lines:#?}");
    has(&lines, "ok   targets: 1", "");
    has(&lines, "ok   target org:acme", "");
}

#[test]
fn what_lxd_lacks_is_told_each_with_its_fix() {
    let world = World::new("lacks");
    #[track_caller]
    fn check(world: &World, class: &str, start: &str, fix: &str) {
        let (lines, failed) = world.check(TARGET, &format!("labels: [self-hosted], runner_arch: x64, {class}"));
        assert!(failed);
        has(&lines, &format!("FAIL class \"one\": {start}"), fix);
        // GitHub is asked all the same.
        has(&lines, "ok   target org:acme", "");
    }
    check(&world, "image: nothing", "LXD has no image \"nothing\"", "lxc image list");
    check(
        &world,
        "image: standin, profiles: [default, none]",
        "LXD has no profile \"none\"",
        "lxc profile create none",
    );
    check(&world, "image: standin, project: none", "LXD has no project \"none\"", "lxc project create none");
    check(&world, "image: standin, target: there", "target \"there\", but LXD is not a cluster", "leave target out");
    check(&world, "image: standin, type: virtual-machine", "image standin", "type is virtual-machine");
    check(&world, "image: standin, profiles: []", "neither the profiles nor the class have a root disk", "root disk");
    check(
        &world,
        "image: standin, profiles: []",
        "neither the profiles nor the class have a network",
        "attach-profile",
    );
    world.lxd.set_virtual_machines(false);
    let virtual_machine = "image: standin-vm, type: virtual-machine";
    check(&world, virtual_machine, "LXD here runs no virtual machines", "driver: lxc | qemu");
    world.lxd.set_virtual_machines(true);
    let (lines, failed) = world.check(TARGET, &format!("labels: [self-hosted], runner_arch: x64, {virtual_machine}"));
    assert!(!failed, "{lines:?}");
    let pool = "image: standin, devices: {root: {type: disk, path: /, pool: none}}";
    check(&world, pool, "LXD has no storage pool \"none\"", "lxc storage list");
    let network = "image: standin, devices: {eth0: {type: nic, network: none}}";
    check(&world, network, "LXD has no network \"none\"", "lxc network list");
}

#[test]
fn an_image_server_is_asked_for_the_product_the_type_and_the_processor() {
    let world = World::new("servers");
    let images = ImageServer::start(&[
        ("24.04,noble,lts", "amd64", &["lxd.tar.xz", "squashfs", "disk1.img"]),
        ("debian/12/cloud", "amd64", &["incus.tar.xz", "lxd.tar.xz", "squashfs"]),
    ]);
    let remotes = format!("{TARGET}\nremotes: {{own: {{addr: '{}'}}}}", images.address());
    let check = |class: &str, mark: &str, part: &str, fix: &str| {
        let (lines, _) = world.check(&remotes, &format!("labels: [x], runner_arch: x64, {class}"));
        let start = format!("{mark} class \"one\": image own:");
        assert!(lines.iter().any(|l| l.starts_with(&start) && l.contains(part) && l.contains(fix)), "{lines:#?}");
    };
    let vm = "type: virtual-machine";
    check("image: own:24.04", "ok  ", "has 24.04 for LXD, container, x64", "");
    // The index and one list, and what is about clouds is not asked for.
    assert_eq!(images.asked(), 2);
    check(&format!("image: own:24.04, {vm}"), "ok  ", "has 24.04 for LXD, virtual-machine", "");
    check("image: own:24.4", "FAIL", "has no \"24.4\"", "lxc image list NAME: 24.4");
    check(&format!("image: own:debian/12/cloud, {vm}"), "FAIL", "not as a virtual-machine", "change type");
    let (lines, _) = world.check(&remotes, "labels: [x], runner_arch: arm64, image: own:24.04");
    has(&lines, "FAIL class \"one\": image own:24.04: ", "for [\"amd64\"] only — change runner_arch, which is arm64");

    world.lxd.set_product("incus");
    check("image: own:24.04", "FAIL", "but not in a form for Incus", "name another server");
    check("image: own:debian/12/cloud", "ok  ", "for Incus, container", "");
    check("image: own:24.4", "FAIL", "has no \"24.4\"", "incus image list NAME: 24.4");
}

#[test]
fn an_image_server_that_cannot_be_asked_is_told() {
    let world = World::new("offline");
    let nobody = {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        taken.local_addr().unwrap()
    };
    let check = |protocol: &str, image: &str, part: &str| {
        let remotes = format!("{TARGET}\nremotes: {{own: {{addr: 'http://{nobody}', protocol: {protocol}}}}}");
        let (lines, failed) = world.check(&remotes, &format!("labels: [x], runner_arch: x64, image: 'own:{image}'"));
        assert!(!failed, "{lines:#?}");
        has(&lines, &format!("warn class \"one\": image own:{image}: http://{nobody} "), part);
    };
    check("simplestreams", "24.04", "could not be asked whether it has 24.04: GET ");
    check("simplestreams", "24.04", "lxc image list NAME: 24.04");
    check("lxd", "24.04", "was not asked for it");
    check("simplestreams", "0123456789abcdef", "was not asked for it");
    // What is known of the public servers needs no answer of theirs.
    let remotes = format!("{TARGET}\nremotes: {{images: {{addr: 'https://images.linuxcontainers.org'}}}}");
    let (lines, failed) = world.check(&remotes, "labels: [x], image: 'images:debian/12/cloud'");
    assert!(failed);
    has(
        &lines,
        "FAIL class \"one\": image images:debian/12/cloud: ",
        "images for Incus only, not for LXD — write addr",
    );
}

#[test]
fn hints_name_the_client_of_the_product() {
    let world = World::new("incus");
    world.lxd.set_product("incus");
    let check = |class: &str, start: &str, fix: &str| {
        let (lines, _) = world.check(TARGET, &format!("labels: [x], runner_arch: x64, {class}"));
        has(&lines, &format!("FAIL class \"one\": {start}"), fix);
        assert!(!lines.iter().any(|l| l.contains("lxc ") || l.contains("LXD")), "{lines:#?}");
    };
    check("image: nothing", "Incus has no image", "incus image list");
    check("image: standin, profiles: [none]", "Incus has no profile", "incus profile create none");
    check("image: standin, project: none", "Incus has no project", "incus project create none");
    check("image: standin, target: there", "target \"there\", but Incus is not a cluster", "leave target out");
    check("image: standin, profiles: []", "neither the profiles nor the class have a root", "incus profile device add");
    check("image: standin, profiles: []", "neither the profiles nor the class have a network", "incus network attach");
}

#[test]
fn what_an_image_requires_of_its_instances_is_told() {
    let world = World::new("requires");
    let properties = [("requirements.nesting".to_owned(), "true".to_owned())].into();
    world.lxd.add_image(ImageEntry { properties, ..ImageEntry::container("needy") });
    let class = "labels: [x], runner_arch: x64, image: needy";
    let (lines, failed) = world.check(TARGET, class);
    assert!(failed);
    has(&lines, "FAIL class \"one\": image needy starts only with security.nesting=true", "in the class");
    let (lines, failed) = world.check(TARGET, &format!("{class}, config: {{security.nesting: true}}"));
    assert!(!failed, "{lines:#?}");
}

#[test]
fn a_socket_that_does_not_answer_is_told_and_github_is_asked_all_the_same() {
    let world = World::new("socket");
    let path = world.directory.0.join("config.yml");
    world.check(TARGET, CLASS);
    let (mut config, _) = Config::load(&path).unwrap();
    config.socket = world.directory.0.join("nobody");
    let (lines, failed) = look(&config);
    assert!(failed);
    has(&lines, "FAIL LXD at ", "nobody");
    has(&lines, "ok   target org:acme", "");
}

#[test]
fn what_github_refuses_is_told_with_its_fix() {
    let world = World::new("refused");
    let (lines, failed) = world.check("targets: [{org: acme}, {org: other}, {repo: acme/tool}]", CLASS);
    assert!(failed);
    has(&lines, "ok   target org:acme", "");
    has(&lines, "FAIL target org:other", "404");
    has(&lines, "warn target repo:acme/tool", "allow_public_repos");

    let (lines, failed) = world.check(TARGET, &format!("{CLASS}, runner_group: Heavy"));
    assert!(failed);
    has(&lines, "FAIL target org:acme: ", "\"Heavy\"");
    world.github.with(|state| {
        state.groups.push((9, "Heavy".to_owned()));
        let rules = standin::github::state::GroupRules { selected: Some(Vec::new()), private_only: true };
        state.group_rules.insert(9, rules);
    });
    let (lines, _) =
        world.check(&format!("{TARGET}\nallow_public_repos: true"), &format!("{CLASS}, runner_group: Heavy"));
    has(&lines, "warn target org:acme: runner group \"Heavy\" serves selected", "does not serve public repositories");

    let (lines, failed) = world.check(TARGET, "labels: [self-hosted], image: standin, runner_arch: arm64");
    assert!(failed);
    has(&lines, "FAIL GitHub offers no runner package for linux arm64", "runner_arch");

    world.github.inject(Fault::status("/user", 401, "Bad credentials"));
    let (lines, failed) = world.check(TARGET, CLASS);
    assert!(failed && !lines.iter().any(|l| l.contains("target ")), "{lines:#?}");
    has(&lines, "FAIL GitHub at ", "renew pat");
    assert!(!lines.iter().any(|l| l.contains(world.github.token().expose())));
}

#[test]
fn a_runner_version_that_comes_to_its_end_is_named() {
    let world = World::new("version");
    let check = |top: &str, mark: &str, part: &str| {
        let (lines, _) = world.check(&format!("{top}\ntargets: [{{org: acme}}]"), "labels: [x], image: standin");
        let found = lines.iter().any(|line| line.starts_with(mark) && line.contains(part));
        assert!(found, "{lines:#?}");
    };
    check("runner_version: 2.330.0", "warn", "runner 2.999.0 is out");
    let at = |days: u64| lxdrunner::model::Timestamp::now().after(std::time::Duration::from_secs(days * 86_400 + 60));
    let ends = [("2.330.0", at(5)), ("2.999.0", lxdrunner::model::Timestamp(1_700_000_000_000))];
    let ends = ends.map(|(version, at)| (version.to_owned(), at)).into();
    world.github.with(|state| state.runner_ends = Some(ends));
    check("runner_version: 2.330.0", "warn", "in 5 days; set runner_version to 2.999.0, or to latest");
    check("", "FAIL", "GitHub refuses runner 2.999.0 since 2023-11-14");
}
