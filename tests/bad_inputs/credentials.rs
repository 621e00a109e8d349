//! A GitHub App that is not what the config says, and a GitHub that is not what it was.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use lxdrunner::config::AppKey;
use lxdrunner::model::{JobId, Timestamp};
use standin::github::wire::{Reply, Response, Server};
use standin::github::{Fault, GitHubStandin, Mischief};

use super::support::*;
use super::{check_parts, check_queued, check_runs, reason, row, table};

const APP: u64 = 4711;

fn key(file: &str) -> std::path::PathBuf {
    std::path::absolute(format!("tests/fixtures/keys/{file}")).unwrap()
}

/// The organisation is served by an App with the key in `file`, beside the usual token.
fn with_app(file: &str) -> Plan {
    let app = format!("{{app_id: {APP}, private_key_file: {}}}", key(file).display());
    Plan {
        targets: "[{org: acme, credential: app}]".to_owned(),
        ..Plan::with(&format!("credentials: [{{name: app, github_app: {app}}}]"))
    }
}

/// GitHub's side of it.
fn register(before: &Before<'_>) {
    let key = AppKey::from_pem(&std::fs::read(key("app.pem")).unwrap()).unwrap();
    before.github.with(|state| {
        state.add_app(APP, key.pair().unwrap().public().as_ref());
        state.install_app(APP, "org:acme");
    });
}

/// Something keeps all of the organisation from us: told once with these parts, the job waits, and runs after the mend.
#[track_caller]
fn stranded(plan: Plan, prepare: impl FnOnce(&Before<'_>), parts: &[&str], mend: impl FnOnce(&Rig)) -> String {
    let rig = Rig::prepared(plan, prepare);
    let job: JobId = rig.queue();
    let told = rig.daemon.wait(&["ERROR", "what=\"github runners of org:acme\""]);
    check_parts(&told, parts);
    check_queued(&rig, job);
    assert_eq!(rig.daemon.count(&["ERROR", "what=\"github runners of org:acme\""]), 1, "told once");
    mend(&rig);
    check_runs(&rig, job);
    rig.daemon.wait(&["what=\"github runners of org:acme\"", "works again"]);
    reason(&rig, &told)
}

#[test]
fn apps() {
    let rows = vec![
        row("the key of another App", || {
            let parts = ["could not be decoded", "not of one GitHub App"];
            stranded(with_app("other-app.pem"), register, &parts, |rig| {
                // The App is given this key, too.
                let other = AppKey::from_pem(&std::fs::read(key("other-app.pem")).unwrap()).unwrap();
                rig.github.with(|state| state.apps[0].key = other.pair().unwrap().public().as_ref().to_vec());
            })
        }),
        row("an App that is not installed", || {
            let prepare = |before: &Before<'_>| {
                register(before);
                before.github.with(|state| state.installations.clear());
            };
            stranded(with_app("app.pem"), prepare, &["not installed there", "Install App"], |rig| {
                rig.github.with(|state| drop(state.install_app(APP, "org:acme").to_string()));
            })
        }),
        row("an installation without the permission", || {
            let prepare = |before: &Before<'_>| {
                register(before);
                before.github.with(|state| state.installations[0].runners = false);
            };
            let parts = ["403: Resource not accessible by integration", "Self-hosted runners"];
            stranded(with_app("app.pem"), prepare, &parts, |rig| {
                rig.github.with(|state| state.installations[0].runners = true);
            })
        }),
        row("an installation that is made anew in the middle", || {
            let rig = Rig::prepared(with_app("app.pem"), register);
            let first = rig.queue();
            check_runs(&rig, first);
            rig.github.with(|state| {
                state.installations.clear();
                state.app_tokens.clear();
                state.install_app(APP, "org:acme");
            });
            let second = rig.queue();
            check_runs(&rig, second);
            "found again; the job runs".to_owned()
        }),
        row("an App's token that ends early", || {
            let rig = Rig::prepared(with_app("app.pem"), register);
            let first = rig.queue();
            check_runs(&rig, first);
            rig.github.with(|state| state.app_tokens.clear());
            let second = rig.queue();
            check_runs(&rig, second);
            assert_eq!(rig.complaints(), Vec::<String>::new());
            "renewed without a word; the job runs".to_owned()
        }),
        row("a clock that is three years behind", || {
            let prepare = |before: &Before<'_>| {
                register(before);
                before.github.with(|state| state.clock_ahead = 3 * 365 * 86_400_000);
            };
            let rig = Rig::prepared(with_app("app.pem"), prepare);
            let job = rig.queue();
            check_runs(&rig, job);
            let told = rig.daemon.wait(&["WARN", "this machine's clock is", "behind GitHub's"]);
            assert!(rig.health().1.contains("clock="), "{}", rig.health().1);
            told.split_once("msg=").unwrap().1.to_owned()
        }),
    ];
    table("GitHub App", rows);
}

#[test]
fn a_token_that_ends_soon() {
    let ends = Timestamp::now().after(Duration::from_secs(5 * 24 * 3600 + 3600)).to_rfc3339();
    let rig = Rig::prepared(Plan::default(), |before| {
        before.github.with(|state| state.token_ends = Some(ends.replace('T', " ").replace('Z', " UTC")));
    });
    let told = ["the token of credential default expires in 5 days, at", ends.as_str()];
    rig.daemon.wait(&[&[" WARN "][..], &told].concat());
    check_parts(&rig.health().1, &told);
    let config = rig.scratch.0.join("config.yml");
    let status = Command::new(env!("CARGO_BIN_EXE_lxdrunner")).args(["status", "-c"]).arg(config).output().unwrap();
    check_parts(&String::from_utf8(status.stdout).unwrap(), &[&["trouble: token: "][..], &told].concat());
    let job = rig.queue();
    check_runs(&rig, job);
    assert_eq!(rig.daemon.count(&told[..1]), 1, "told once");
}

#[test]
fn what_changed_at_github() {
    let rows = vec![
        row("an organisation that vanished", || {
            let vanish = |before: &Before<'_>| {
                before.github.inject(Fault::status("/orgs/acme", 404, "Not Found").times(usize::MAX));
            };
            stranded(Plan::default(), vanish, &["404: Not Found", "absent or hidden"], |rig| rig.github.clear_faults())
        }),
        row("a page that repeats for ever", || {
            let repeat = |before: &Before<'_>| {
                let next = "</repos/acme/app/actions/runs?page=2>; rel=\"next\"".to_owned();
                let answer = Mischief::Answer {
                    status: 200,
                    headers: vec![("Link".to_owned(), next)],
                    body: "{\"total_count\":0,\"workflow_runs\":[]}".to_owned(),
                };
                before.github.inject(Fault::on("/repos/acme/app/actions/runs", answer).times(usize::MAX));
            };
            let rig = Rig::prepared(Plan::default(), repeat);
            rig.github.hook_by_itself(false);
            let job = rig.queue();
            let told = rig.daemon.wait(&["ERROR", "what=\"github jobs of acme/app\""]);
            check_parts(&told, &["the link to the next page leads back"]);
            check_queued(&rig, job);
            rig.github.clear_faults();
            check_runs(&rig, job);
            reason(&rig, &told)
        }),
        row("a JIT answer that is lost on the way back", || {
            let rig = Rig::new(Plan::with("provision_timeout: 3"));
            let jit = "/orgs/acme/actions/runners/generate-jitconfig";
            rig.github.inject(Fault::on(jit, Mischief::ActThenLose));
            let job = rig.queue();
            rig.daemon.wait(&["ERROR", "launch failed", "no connection"]);
            check_runs(&rig, job);
            let made = rig.github.timeline();
            let made = made.iter().filter(|m| matches!(m.event, standin::github::Event::Registered { .. }));
            format!("{} registrations were made, none is left; the job runs", made.count())
        }),
    ];
    table("GitHub changed", rows);
}

/// What the command says, with this config on top of the least there is.
fn command(arguments: &[&str], github_api: &str, environment: &[(&str, String)]) -> (Option<i32>, String) {
    let scratch = Scratch::new();
    let path = scratch.0.join("config.yml");
    let text = format!(
        "pat: standin-token\nhooksecret: {HOOK_SECRET}\ngithub_api: {github_api}\nsocket: /nowhere\n\
         targets: [{{org: acme}}]\nrunnermap: [{{name: one, labels: [x], image: i, runner_arch: x64}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lxdrunner"));
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let output = command.args(arguments).arg("-c").arg(&path).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// A server that answers this status to everything.
fn always(status: u16) -> Server {
    Server::start((Ipv4Addr::LOCALHOST, 0).into(), move |_| Reply::Answer(Response::empty(status))).unwrap()
}

#[test]
fn commands() {
    let line = |text: &str, part: &str| text.lines().find(|line| line.contains(part)).unwrap_or_default().to_owned();
    let rows = vec![
        row("a proxy that answers 407", move || {
            let proxy = always(407);
            let address = format!("http://user:hunter2@{}", proxy.address());
            let (code, text) = command(&["check"], "http://ghe.test/api/v3", &[("HTTPS_PROXY", address)]);
            assert_eq!(code, Some(1));
            check_parts(&text, &["407", "HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"]);
            assert!(!text.contains("hunter2"), "{text}");
            line(&text, "407").replace(&proxy.address().to_string(), "PROXY")
        }),
        row("a webhook whose secret differs from ours", move || {
            let github = GitHubStandin::start((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
            github.add_org("acme");
            // As we answer a delivery that another secret signed.
            let receiver = always(401);
            let url = format!("http://{}", receiver.address());
            let install = ["hooks", "install", "--url", &url];
            assert_eq!(command(&install, &github.api(), &[]).0, Some(1));
            let (code, text) = command(&["hooks", "status", "--url", &url], &github.api(), &[]);
            assert_eq!(code, Some(1));
            check_parts(&text, &["the secret of the webhook is not hooksecret", "lxdrunner hooks install"]);
            assert!(!text.contains(HOOK_SECRET), "{text}");
            line(&text, "secret of the webhook")
        }),
    ];
    table("command", rows);
}
