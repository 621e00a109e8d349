//! Webhooks that are kept right, deliveries that are asked for again, and placeholders: over the wire, and through the binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use lxdrunner::config::Config;
use lxdrunner::github::GitHub;
use lxdrunner::model::{JobId, RepoName, Scope};
use lxdrunner::upkeep::choose::is_placeholder;
use lxdrunner::upkeep::{Upkeep, hooks};
use standin::github::wire::{Reply, Response, Server};
use standin::github::{Fault, GitHubStandin, JobSpec, Mischief};
use support::{Daemon, Scratch};

const WAIT: Duration = Duration::from_secs(20);

struct World {
    standin: GitHubStandin,
    /// Where hooks lead; it answers with this status, or closes the door where that is 0.
    receiver: Server,
    status: Arc<AtomicU16>,
    scratch: Scratch,
}

fn world() -> World {
    let standin = GitHubStandin::start((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    standin.add_org("acme");
    let repo: RepoName = "alice/tool".parse().unwrap();
    standin.add_repo(&repo, false);
    let status = Arc::new(AtomicU16::new(202));
    let answers = Arc::clone(&status);
    let receiver = Server::start((Ipv4Addr::LOCALHOST, 0).into(), move |_| match answers.load(Ordering::SeqCst) {
        0 => Reply::Close,
        status => Reply::Answer(Response::empty(status)),
    });
    World { standin, receiver: receiver.unwrap(), status, scratch: Scratch::new() }
}

impl World {
    fn url(&self) -> String {
        format!("http://{}/hooks/lxdrunner", self.receiver.address())
    }

    fn config(&self, more: &str) -> Config {
        Config::load(&self.config_file(more)).unwrap().0
    }

    fn config_file(&self, more: &str) -> std::path::PathBuf {
        let text = format!(
            "pat: {}\nhooksecret: the-secret-of-the-hooks\ngithub_api: {}\nsocket: /nowhere\n\
             targets: [{{org: acme}}, {{repo: alice/tool}}]\n{more}\nrunnermap:\n  \
             - {{name: small, labels: [self-hosted], image: i, runner_arch: x64}}\n  \
             - {{name: gpu, labels: [gpu], image: i, runner_arch: x64}}\n",
            self.standin.token().expose(),
            self.standin.api()
        );
        let path = self.scratch.0.join("config.yml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    fn upkeep(&self, more: &str) -> Upkeep {
        let config = Arc::new(self.config(more));
        let github = Arc::new(GitHub::of_config(&config.github));
        Upkeep::new(config, github)
    }

    /// Runs the binary, and returns its exit code and all that it said.
    fn run(&self, more: &str, arguments: &[&str]) -> (i32, String) {
        let path = self.config_file(more);
        let mut command = Command::new(env!("CARGO_BIN_EXE_lxdrunner"));
        let output = command.args(arguments).arg("-c").arg(&path).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    /// The hooks of all scopes: address, events, kind, and whether certificates are not looked at.
    fn hooks(&self) -> Vec<(String, Vec<String>, String, String)> {
        self.standin.with(|state| {
            let hooks = state.hooks.iter();
            hooks.map(|h| (h.url.clone(), h.events.clone(), h.content_type.clone(), h.insecure_ssl.clone())).collect()
        })
    }

    /// Attempts of deliveries of jobs: oldest first, with their status.
    fn attempts(&self) -> Vec<(bool, Option<u16>)> {
        self.standin.with(|state| {
            let all = state.hooks.iter().flat_map(|hook| hook.deliveries.iter().rev());
            all.filter(|one| one.sent.event != "ping").map(|one| (one.sent.redelivery, one.sent.status)).collect()
        })
    }

    #[track_caller]
    fn wait_attempts(&self, count: usize) {
        let count_of = |state: &standin::github::State| {
            let all = state.hooks.iter().flat_map(|hook| &hook.deliveries);
            (all.filter(|one| one.sent.event != "ping").count() >= count).then_some(())
        };
        assert!(self.standin.wait_for(WAIT, count_of).is_some(), "{:?}", self.attempts());
    }

    fn queue(&self) -> JobId {
        self.standin.queue(&"acme/app".parse().unwrap(), JobSpec::new(&["self-hosted"]))
    }
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} is not in:\n{text}"));
}

#[test]
fn hooks_are_installed_shown_and_removed_by_the_command() {
    let world = world();
    let url = world.url();
    let more = format!("webhook_url: {url}");
    assert_eq!(world.run("", &["hooks", "install"]).0, 78);
    has(&world.run("", &["hooks", "install"]).1, &["webhook_url", "--url"]);
    let (code, text) = world.run(&more, &["hooks", "status"]);
    assert_eq!(code, 1);
    has(&text, &["FAIL org:acme: no webhook leads to", "lxdrunner hooks install"]);
    let (code, text) = world.run(&more, &["hooks", "install"]);
    assert_eq!(code, 0, "{text}");
    has(&text, &["ok   org:acme: webhook", "made; GitHub reaches", "ok   repo:alice/tool: webhook"]);
    let right = (url.clone(), vec!["workflow_job".to_owned()], "json".to_owned(), "0".to_owned());
    assert_eq!(world.hooks(), [right.clone(), right.clone()]);
    // What somebody changed is put right, and nothing is doubled.
    world.standin.with(|state| {
        state.hooks[0].events = vec!["push".to_owned()];
        state.hooks[0].content_type = "form".to_owned();
        state.hooks[0].active = false;
        state.hooks[0].url = url.replace("http://", "https://");
    });
    let (code, text) = world.run(&more, &["hooks", "status"]);
    assert_eq!(code, 1);
    has(&text, &["its address is https://", "not json", "does not send workflow_job", "switched off"]);
    assert_eq!(world.run("", &["hooks", "install", "--url", &url]).0, 0);
    assert_eq!(world.hooks(), [right.clone(), right]);
    let (code, text) = world.run(&more, &["hooks", "status"]);
    has(&text, &["ok   org:acme: webhook", "the last delivery arrived"]);
    assert_eq!(code, 0);
    let secrets = world.standin.with(|state| state.hooks.iter().map(|hook| hook.secret.clone()).collect::<Vec<_>>());
    assert_eq!(secrets, ["the-secret-of-the-hooks"; 2]);
    assert!(!text.contains("the-secret-of-the-hooks"));
    // Another host's is left alone, and told.
    world.standin.with(|state| state.hooks[1].url = "https://other.example/hooks/lxdrunner".to_owned());
    let (code, text) = world.run(&more, &["hooks", "remove"]);
    assert_eq!(code, 0);
    has(&text, &["org:acme: 1 removed", "repo:alice/tool: there was no webhook"]);
    has(
        &world.run(&more, &["hooks", "status"]).1,
        &["warn repo:alice/tool: another webhook leads to https://other.example"],
    );
    assert_eq!(world.hooks().len(), 1);
}

#[test]
fn where_github_cannot_reach_us_it_is_said_why() {
    let world = world();
    let more = format!("webhook_url: {}", world.url());
    let check = |status: u16, part: &str| {
        world.status.store(status, Ordering::SeqCst);
        let (code, text) = world.run(&more, &["hooks", "install"]);
        assert_eq!(code, 1, "{text}");
        has(&text, &["FAIL org:acme: webhook", part]);
    };
    check(0, "failed to connect to host; does its name lead here");
    check(401, "the secret of the webhook is not hooksecret");
    check(404, "Invalid HTTP Response: 404; something else listens there");
    check(502, "a proxy is there, but not lxdrunner behind it");
    has(&world.run(&more, &["hooks", "status"]).1, &["FAIL org:acme: GitHub cannot reach http://"]);
}

#[test]
fn who_may_not_administer_hooks_is_told_what_is_missing() {
    let world = world();
    world.standin.inject(Fault::status("/orgs/acme/hooks", 404, "Not Found").times(usize::MAX));
    let (code, text) = world.run(&format!("webhook_url: {}", world.url()), &["hooks", "install"]);
    assert_eq!(code, 1);
    has(&text, &["FAIL org:acme", "404", "admin:org_hook", "ok   repo:alice/tool"]);
    let github = GitHub::new(&world.standin.api(), world.standin.token());
    let big: Scope = "enterprise:big".parse().unwrap();
    has(&github.hooks(&big).unwrap_err().to_string(), &["no webhooks of enterprises", "by hand"]);
}

#[test]
fn a_self_signed_certificate_is_the_one_reason_not_to_look_at_it() {
    let world = world();
    let check = |tls: &str, url: &str, insecure: bool| {
        let config = world.config(&format!("web_tls: {tls}\n"));
        assert_eq!(hooks::wanted(&config, url).insecure, insecure, "{tls} {url}");
    };
    check("true", "https://farm.example/hooks/lxdrunner", true);
    check("false", "https://farm.example/hooks/lxdrunner", false);
    check("true", "http://farm.example/hooks/lxdrunner", false);
}

#[test]
fn what_did_not_arrive_is_asked_for_again_once_also_over_a_restart() {
    let world = world();
    let more = format!("webhook_url: {}", world.url());
    let mut upkeep = world.upkeep(&more);
    upkeep.round();
    assert_eq!(world.hooks().len(), 2);
    world.queue();
    world.wait_attempts(1);
    world.status.store(503, Ordering::SeqCst);
    world.queue();
    world.wait_attempts(2);
    // A restart forgets everything.
    let mut upkeep = world.upkeep(&more);
    upkeep.round();
    world.wait_attempts(3);
    assert_eq!(world.attempts(), [(false, Some(202)), (false, Some(503)), (true, Some(503))]);
    for _ in 0..2 {
        upkeep.round();
        let mut again = world.upkeep(&more);
        again.round();
    }
    assert_eq!(world.attempts().len(), 3, "asked for once");
    world.queue();
    world.wait_attempts(4);
    world.status.store(202, Ordering::SeqCst);
    upkeep.round();
    world.wait_attempts(5);
    upkeep.round();
    assert_eq!(world.attempts()[3..], [(false, Some(503)), (true, Some(202))]);
}

#[test]
fn a_hook_with_another_secret_is_recognised_and_set_right() {
    let world = world();
    let more = format!("webhook_url: {}", world.url());
    let mut upkeep = world.upkeep(&more);
    upkeep.round();
    world.standin.with(|state| state.hooks[0].secret = "somebody's".to_owned());
    world.status.store(401, Ordering::SeqCst);
    world.queue();
    world.wait_attempts(1);
    world.status.store(202, Ordering::SeqCst);
    upkeep.round();
    upkeep.round();
    let secret = world.standin.with(|state| state.hooks[0].secret.clone());
    assert_eq!(secret, "the-secret-of-the-hooks");
    // One that was removed is made anew.
    world.standin.with(|state| state.hooks.clear());
    upkeep.round();
    let mut upkeep = world.upkeep(&more);
    upkeep.round();
    assert_eq!(world.hooks().len(), 2);
}

#[test]
fn placeholders_are_kept_and_removed() {
    let world = world();
    let mut upkeep = world.upkeep("placeholders: true");
    let names = || {
        world.standin.with(|state| {
            let runners = state.runners.values();
            runners.map(|runner| format!("{} {}", runner.scope, runner.name)).collect::<Vec<_>>()
        })
    };
    upkeep.round();
    assert_eq!(names().len(), 4, "one for each class and scope");
    assert!(names().iter().all(|name| is_placeholder(name.split(' ').nth(1).unwrap())), "{:?}", names());
    let first = names();
    world.upkeep("placeholders: true").round();
    assert_eq!(names(), first, "another daemon with the same labels has the same");
    // Half a day later, by GitHub's clock, they are renewed; GitHub would drop them after a day.
    world.standin.with(|state| state.clock_ahead = 12 * 3600 * 1000);
    let mut later = world.upkeep("placeholders: true");
    later.round();
    assert_eq!(names().len(), 8, "the new ones are there before the old ones go");
    world.upkeep("placeholders: true").round();
    let second = names();
    assert!(second.len() == 4 && second.iter().all(|name| !first.contains(name)), "{second:?}");
    let stranger = GitHub::new(&world.standin.api(), world.standin.token());
    stranger.generate_jit_config(&"org:acme".parse().unwrap(), "placeholder-of-mine", 1, &["x".to_owned()]).unwrap();
    let (code, text) = world.run("", &["placeholders", "remove"]);
    assert_eq!(code, 0, "{text}");
    has(&text, &["ok   org:acme: 2 removed", "ok   repo:alice/tool: 2 removed"]);
    assert_eq!(names(), ["org:acme placeholder-of-mine"]);
}

#[test]
fn the_daemon_itself_makes_its_hook_and_asks_for_what_came_while_it_was_away() {
    let world = world();
    // A port that is free now, and most likely still in a moment.
    let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let path = world.config_file(&format!(
        "web_host: 127.0.0.1\nweb_port: {port}\nweb_tls: false\nwebhook_url: http://127.0.0.1:{port}"
    ));
    let mut daemon = Daemon::start(&path);
    daemon.wait(&["scope=org:acme", "done=Made", "webhook is right"]);
    daemon.wait(&["scope=org:acme", "GitHub reaches us"]);
    world.queue();
    daemon.wait(&["delivery_accepted", "workflow_job"]);
    world.wait_attempts(1);
    daemon.kill();
    world.queue();
    world.wait_attempts(2);
    let daemon = Daemon::start(&path);
    daemon.wait(&["scope=org:acme", "done=SetRight"]);
    daemon.wait(&["did not arrive, asked for again", "failed to connect"]);
    daemon.wait(&["delivery_accepted", "workflow_job"]);
    world.wait_attempts(3);
    assert_eq!(world.attempts(), [(false, Some(202)), (false, None), (true, Some(202))]);
    daemon.wait(&["scope=repo:alice/tool", "webhook is right"]);
    assert_eq!(world.hooks().len(), 2, "one for each target");
    let log = daemon.log().join("\n");
    assert!(!log.contains("the-secret-of-the-hooks") && !log.contains(world.standin.token().expose()), "{log}");
}

#[test]
fn a_delivery_that_is_still_under_way_is_waited_for() {
    let world = world();
    let github = GitHub::new(&world.standin.api(), world.standin.token());
    let scope: Scope = "org:acme".parse().unwrap();
    let wanted = hooks::wanted(&world.config(""), &world.url());
    let (hook, _) = hooks::install(&github, &scope, &wanted).unwrap();
    // As GitHub lists it while it has no answer yet.
    let body = r#"[{"id": 9007199254740991, "guid": "x", "event": "ping", "status": "", "status_code": 0, "redelivery": false}]"#;
    let answer = Mischief::Answer { status: 200, headers: Vec::new(), body: body.to_owned() };
    world.standin.inject(Fault::on(&format!("/orgs/acme/hooks/{hook}/deliveries"), answer).after(1).times(2));
    assert_eq!(hooks::ping(&github, &scope, hook, &world.url()).unwrap(), Ok(()));
}
