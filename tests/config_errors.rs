//! Config files that are wrong: what is said, on which line, with which fix.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::{Path, PathBuf};

use lxdrunner::config::{Config, ConfigErrors};

/// A good file, of which each test spoils something.
const GOOD: &str = "\
pat: a-token-for-the-tests
hooksecret: a-secret-for-the-tests
socket: /lxd.socket
runnermap:
  - name: one
    labels: [self-hosted]
    image: dev
    runner_arch: x64
";

/// A directory of this test's own, gone with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("lxdrunner-config-errors-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn load(&self, text: impl AsRef<[u8]>) -> Result<(), ConfigErrors> {
        let path = self.0.join("config.yml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path).map(drop)
    }

    /// All complaints, each without the file's name.
    #[track_caller]
    fn complaints(&self, text: impl AsRef<[u8]>) -> Vec<String> {
        let errors = self.load(text).expect_err("it loaded").to_string();
        let name = format!("{}:", self.0.join("config.yml").display());
        errors.lines().map(|line| line.strip_prefix(&name).unwrap_or(line).to_owned()).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The one complaint about `text` starts with `start` (`LINE: KEY: what`) and has `fix` in it.
#[track_caller]
fn check_text(text: impl AsRef<[u8]>, start: &str, fix: &str) {
    let name = format!("{:?}", std::thread::current().id());
    let found = Directory::new(&name).complaints(&text);
    let [one] = found.as_slice() else { panic!("{found:#?}") };
    assert!(one.starts_with(start) && one.contains(fix), "{}\n→ {one}", String::from_utf8_lossy(text.as_ref()));
    assert!(one.contains(" — "), "no fix: {one}");
}

/// Like [`check_text`], with `from` in the good file replaced.
#[track_caller]
fn check(from: &str, to: &str, start: &str, fix: &str) {
    assert!(GOOD.contains(from), "{from}");
    check_text(GOOD.replacen(from, to, 1), start, fix);
}

/// With one more line at the top, which is then line 1.
#[track_caller]
fn check_top(line: &str, start: &str, fix: &str) {
    check_text(format!("{line}\n{GOOD}"), start, fix);
}

/// With one more line in the class, which is line 9.
#[track_caller]
fn check_class(line: &str, start: &str, fix: &str) {
    check_text(format!("{GOOD}    {line}\n"), start, fix);
}

#[test]
fn the_good_file_is_good() {
    Directory::new("good").load(GOOD).unwrap();
}

#[test]
fn everything_is_said_at_once_in_the_files_order() {
    let text = "\
pat: ''
max_worker: 3
web_port: 70000
runnermap:
  - name: one
    labels: [self-hosted]
    image: nowhere:dev
    type: vm
  - name: ONE
    labels: [Linux]
    image: dev
    runner_os: win
";
    let found = Directory::new("all").complaints(text);
    let starts: Vec<String> = found.iter().map(|c| c.split(": ").take(2).collect::<Vec<_>>().join(": ")).collect();
    let expected = [
        "1: pat",
        "1: hooksecret",
        "2: max_worker",
        "3: web_port",
        "7: runnermap[0].image",
        "8: runnermap[0].type",
        "12: runnermap[1].runner_os",
    ];
    assert_eq!(starts, expected, "{found:#?}");
}

#[test]
fn files_that_are_not_what_they_should_be() {
    check_text("", " is empty", "config.yml.example");
    check_text("# nothing\n---\n\n", " is empty", "config.yml.example");
    check_text("- a\n- b\n", "1: is a list", "mapping");
    check_text("just words\n", "1: is text", "mapping");
    check_text(GOOD.replacen("    image", "\timage", 1), "7: a tab", "spaces");
    check_text(format!("{GOOD}web_host: [\n"), "", "not YAML");
    check_text(format!("{GOOD}---\n{GOOD}"), " holds more than one", "---");
    check_text([GOOD.as_bytes(), b"prefix: \xff\n"].concat(), "9: is not UTF-8", "UTF-8");
    check_text(vec![b' '; 1024 * 1024 + 1], " cannot read the config file: it is larger than 1 MiB", "config file");
    check_text(format!("{GOOD}x-deep: {}{}\n", "[".repeat(500), "]".repeat(500)), "9: ", "nested too deeply");
    check_text(format!("{GOOD}x-a: !odd b\n"), "9: is not YAML", "tags");
    // A value that does not fit its tag is not quoted: it may be a secret.
    check_text("pat: !!int hunter2\n", "1: a value does not fit its YAML tag", "");
    check_text("pat: !!bool abc 'hunter2'\n", "1: a value does not fit its YAML tag", "");
}

#[test]
fn files_that_cannot_be_read() {
    #[track_caller]
    fn check(path: &Path, fix: &str) {
        let error = Config::load(path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: cannot read", path.display())) && error.contains(fix), "{error}");
    }
    check(Path::new("/nowhere/config.yml"), "config.yml.example");
    check(&std::env::temp_dir(), "-c DIRECTORY/config.yml");
}

#[test]
fn keys() {
    check_top("max_worker: 3", "1: max_worker: unknown key", "did you mean \"max_workers\"?");
    check_top("zzz: 3", "1: zzz: unknown key", "known here: pat,");
    check_top("5: 3", "1: 5: unknown key", "known here");
    check_top("prefix: a\nprefix: b", "2: prefix: the key is given twice", "keep one");
    check_class("lables: [x]", "9: runnermap[0].lables: unknown key", "did you mean \"labels\"?");
    check_class("image: other", "9: runnermap[0].image: the key is given twice", "keep one");
    check_class(
        "devices: {a: {type: nic, type: disk}}",
        "9: runnermap[0].devices.a.type: the key is given twice",
        "keep one",
    );
    check_top(
        "remotes: {own: {address: x, addr: 'https://own.example'}}",
        "1: remotes.own.address: unknown key",
        "addr",
    );
    check_top("targets: [{organisation: acme}]", "1: targets[0].organisation: unknown key", "org");
}

#[test]
fn secrets() {
    let pat = "pat: a-token-for-the-tests";
    check(&format!("{pat}\n"), "", "1: pat: is missing", "https://github.com/settings/tokens");
    check("hooksecret: a-secret-for-the-tests\n", "", "1: hooksecret: is missing", "hooksecret_file");
    check(pat, "pat:", "1: pat: is empty", "pat_file");
    check(pat, "pat: ''", "1: pat: is empty", "pat_file");
    check(pat, "pat: ghp_…", "1: pat: is an example's text", "pat_file");
    check(pat, "pat: 'a b'", "1: pat: contains characters", "pat_file");
    check(pat, "pat: ' a'", "1: pat: has a line break", "alone");
    check(pat, "pat: 123456", "1: pat: is a number", "quote");
    check(pat, "pat: [a]", "1: pat: is a list", "as text");
    check(pat, &format!("{pat}\npat_file: /x"), "2: pat_file: given beside pat", "keep one");
    check("a-secret-for-the-tests", "changeme", "2: hooksecret: is an example's text", "hooksecret_file");
    check(pat, "pat_file: /nowhere/pat", "1: pat_file: cannot read /nowhere/pat", "make the file");
    check(pat, "pat_file: /run/credentials/none.service/pat", "1: pat_file: cannot read", "while the service runs");
    let left_out = std::env::temp_dir().join(format!("lxdrunner-left-out-{}", std::process::id()));
    std::fs::write(&left_out, "missing").unwrap();
    check(pat, &format!("pat_file: {}", left_out.display()), "1: pat_file: systemd credential", "LoadCredential=");
    let app = format!("github_app: {{app_id: 1, private_key_file: {}}}", left_out.display());
    check(pat, &app, "1: github_app.private_key_file: systemd credential", "LoadCredential=");
    std::fs::remove_file(&left_out).unwrap();
    check(pat, "pat_file: /", "1: pat_file: cannot read /", "readable");
    check(pat, "pat_file: /dev/null", "1: pat_file: /dev/null is empty", "pat_file");
    check_top("github_app: {app_id: 1, private_key_file: x}", "2: pat: given beside github_app", "credentials");
    check(pat, "github_app: {app_id: 1}", "1: github_app.private_key_file: is missing", ".pem");
    let key = std::path::absolute("tests/fixtures/keys/app.pem").unwrap();
    let wrong = format!("github_app: {{app_id: x, private_key_file: {}}}", key.display());
    check(pat, &wrong, "1: github_app.app_id: is text", "whole number");
}

#[test]
fn the_key_of_a_github_app() {
    #[track_caller]
    fn check_key(file: &str, what: &str, fix: &str) {
        let keys = std::path::absolute("tests/fixtures/keys").unwrap();
        let text = format!("github_app: {{app_id: 1, private_key_file: {}}}", keys.join(file).display());
        check("pat: a-token-for-the-tests", &text, &format!("1: github_app.private_key_file: {what}"), fix);
    }
    check_key("none.pem", "cannot read", "make the file");
    check_key("../original-new.yml", "", "is not a key in PEM — name the .pem file that GitHub gave you");
    check_key("public.pem", "", "is a public key, not the private one — name the .pem file");
    check_key("cert.pem", "", "is a certificate, not a key — name the .pem file");
    check_key("ec.pem", "", "is an elliptic curve key; GitHub Apps have RSA keys — name the .pem file");
    check_key("ec.pkcs8.pem", "", "is not a usable RSA key");
    check_key("/dev/null", "", "is not a key in PEM");
}

#[test]
fn several_credentials() {
    let pat = "pat: a-token-for-the-tests";
    let two = "credentials: [{name: a, pat: tok-a}, {name: b, pat: tok-b}]";
    check(pat, "credentials: []", "1: credentials: is empty", "- {name: work");
    check(pat, "credentials: {a: 1}", "1: credentials: is a mapping", "list");
    check(pat, "credentials: [{pat: tok-a}]", "1: credentials[0].name: is missing", "credential: NAME");
    check(pat, "credentials: [{name: a}]", "1: credentials[0].pat: is missing", "pat_file");
    check(pat, "credentials: [{name: a, pat: x, key: y}]", "1: credentials[0].key: unknown key", "known here");
    let twice = "credentials: [{name: a, pat: tok-a}, {name: a, pat: tok-b}]";
    check(pat, twice, "1: credentials[1].name: \"a\" is the name of another", "its own");
    let unknown = format!("{two}\ntargets: [{{org: acme, credential: c}}]");
    check(pat, &unknown, "2: targets[0].credential: there is no credential \"c\"", "a, b");
    check_top("targets: [{credential: default}]", "1: targets[0]: is not one target", "org: NAME");
    check_top("ca_file: /nowhere.pem", "1: ca_file: cannot read /nowhere.pem", "authority");
    let key = std::path::absolute("tests/fixtures/keys/app.pem").unwrap();
    check_top(&format!("ca_file: {}", key.display()), "1: ca_file: ", "holds no certificate");
}

#[test]
fn github() {
    check_top("github_api: ghe.example", "1: github_api: is not the address", "https://HOST/api/v3");
    check_top("github_api: ftp://ghe.example", "1: github_api: is not the address", "https://HOST/api/v3");
    check_top("github_api: https://ghe.example/?x", "1: github_api: is not the address", "https://HOST/api/v3");
    check_top("github_api: https://u:hunter2@ghe.example/api/v3", "1: github_api: has a user name", "pat_file");
    check_top("webhook_url: farm.example", "1: webhook_url: is not an address", "https://HOST");
    check_top("webhook_url: https://farm.example/?x=1", "1: webhook_url: is not an address", "https://HOST");
    check_top("webhook_url: https://u:p@farm.example", "1: webhook_url: has a user", "hooksecret");
    check_top("placeholders: 7", "1: placeholders: is a number", "true or false");
    check_top("api_budget: 100%", "1: api_budget: is out of range", "1% to 90%");
    check_top("api_budget: 0", "1: api_budget: is out of range", "1% to 90%");
    check_top("github_api: https://github.com", "1: github_api: is GitHub's web site", "https://api.github.com");
    check_top("targets: acme", "1: targets: is text", "{org: NAME}");
    check_top("targets: [acme]", "1: targets[0]: is text", "{org: NAME}");
    check_top("targets: [{}]", "1: targets[0]: is not one target", "{org: NAME}");
    check_top("targets: [{org: a, repo: a/b}]", "1: targets[0]: is not one target", "{org: NAME}");
    check_top("targets: [{org: a/b}]", "1: targets[0].org: \"a/b\" is not", "address on GitHub");
    check_top("targets: [{repo: a}]", "1: targets[0].repo: \"a\" is not", "OWNER/NAME");
    check_top("targets:\n- org: a\n- org: A", "3: targets[1]: org:a is there already", "remove");
    check_top("allow_public_repos: yes please", "1: allow_public_repos: is text", "true or false");
    check_top("repos: acme", "1: repos: is text", "acme/*");
    check_top("repos: []", "1: repos: is empty", "leave it out");
    check_top("repos: [acme]", "1: repos[0]: \"acme\" is not a pattern", "acme/*");
    check_top("repos: ['!acme/x']", "1: repos[0]: \"!acme/x\" is not a pattern", "deny");
    check_top("repos: ['acme/[ab]']", "1: repos[0]: \"acme/[ab]\" is not a pattern", "any letters");
    check_top("repos: {allow: [7]}", "1: repos.allow[0]: is a number", "pattern");
    check_top("repos: {deny: ['*/*']}", "1: repos.deny: refuses every", "more exact");
    check_top("repos: {forbid: [acme/x]}", "1: repos.forbid: unknown key", "allow, deny");
    check_top("fork_policy: some", "1: fork_policy: \"some\" is not a policy", "members");
    check_top(
        "polling: true\nwebhook_url: https://ci.example/hooks/lxdrunner",
        "2: webhook_url: contradicts",
        "leave it out",
    );
    check_top("polling: often", "1: polling: is text", "true or false");
    check("hooksecret: a-secret-for-the-tests", "polling: false", "1: hooksecret: is missing", "hooksecret_file");
    check_top("registration: magic", "1: registration: \"magic\"", "jit or token");
    check_top("runner_version: 2.330", "1: runner_version: is a number", "quote");
    check_top("runner_version: two", "1: runner_version: \"two\" is not a version", "2.330.0");
}

#[test]
fn numbers_and_times() {
    check_top("max_workers: 0", "1: max_workers: 0 does not fit", "1 to 10000");
    check_top("max_workers: -1", "1: max_workers: -1 does not fit", "1 to 10000");
    check_top("max_workers: many", "1: max_workers: is text", "whole number");
    check_top("max_workers: 1.5", "1: max_workers: is a number", "whole number");
    check_top("web_port: 65536", "1: web_port: 65536 does not fit", "65535");
    check_top("web_port: 99999999999999999999999999999999999999999999", "1: web_port: is a number", "65535");
    check_top("web_host: localhost", "1: web_host: \"localhost\" is not", "127.0.0.1");
    check_top("reconcile_interval: 0", "1: reconcile_interval: 0s does not fit", "1s to");
    check_top("provision_timeout: soon", "1: provision_timeout: is not a duration", "10m");
    check_top("idle_timeout: -5", "1: idle_timeout: is not a duration", "10m");
    check_top("max_lifetime: 31d", "1: max_lifetime: 2678400s does not fit", "2592000s");
    check_top("failures_kept: 1001", "1: failures_kept: 1001 does not fit", "0 to 1000");
    check_top("failures_kept: -1", "1: failures_kept: -1 does not fit", "0 to 1000");
    check_top("failures_kept: none", "1: failures_kept: is text", "whole number");
    check_top("failure_kept: 3", "1: failure_kept: unknown key", "failures_kept");
    check_top("max_lifetime: true", "1: max_lifetime: is true or false", "10m");
}

#[test]
fn lxd() {
    check("/lxd.socket", "lxd.socket", "3: socket: \"lxd.socket\" is not an absolute path", "auto");
    check_top("prefix: Runner", "1: prefix: \"Runner\" cannot start", "a-z");
    check_top("prefix: 7up", "1: prefix: \"7up\" cannot start", "a letter");
    check_top("prefix: a-", "1: prefix: \"a-\" cannot start", "a letter");
    check_top("prefix: abcdefghijklmnopqrstu", "1: prefix: \"abcdefghijklmnopqrstu\" cannot", "20 characters at most");
    // `remotes.main` is the Python daemon's: there web_tls must be written.
    let main = |line: &str, start: &str, fix: &str| check_top(&format!("web_tls: true\nremotes: {line}"), start, fix);
    main("{main: {addr: 'https://x:8443'}}", "2: remotes.main.addr: a remote LXD needs", "without a value");
    main("{main: {addr: /other}}", "2: remotes.main.addr: contradicts socket", "keep one");
    main("{main: {protocol: http}}", "2: remotes.main.protocol: \"http\"", "lxd");
    check_top("remotes: {own: {}}", "1: remotes.own.addr: is missing", "https://");
    check_top("remotes: {own: {addr: 'http://x'}}", "1: remotes.own.addr: is not the address", "https://");
    check_top(
        "remotes: {own: {addr: 'https://x', protocol: ftp}}",
        "1: remotes.own.protocol: \"ftp\"",
        "simplestreams",
    );
    check_top("remotes: [own]", "1: remotes: is a list", "mapping");
    check_top("web_tls: {cert: /nowhere/c, key: /dev/null}", "1: web_tls.cert: there is no file", "right file");
    check_top("web_tls: maybe", "1: web_tls: is text", "true, false");
    check_top("web_tls: {cert: /dev/null}", "1: web_tls.key: is missing", "PEM file");
    check_top("web_trusted_proxies: [proxy]", "1: web_trusted_proxies[0]: \"proxy\" is not an address", "192.0.2.0/24");
    check_top("web_trusted_proxies: [0.0.0.0/0]", "1: web_trusted_proxies[0]: trusts everybody", "only the proxies");
    check_top(
        "web_metrics: ['::/0']",
        "1: web_metrics[0]: shows the metrics to everybody",
        "only the hosts that collect",
    );
    check_top("web_metrics: 127.0.0.1", "1: web_metrics: ", "list of addresses and ranges");
    check_top("web_allow: []", "1: web_allow: lets nobody in", "[github]");
    check_top(
        "web_allow: [github, 192.0.2.0/33]",
        "1: web_allow[1]: \"192.0.2.0/33\" is not",
        "write github, or an address",
    );
    check_top("cache_home: ''", "1: cache_home: is empty", "directory");
}

#[test]
fn classes() {
    check_text(
        "pat: a-token\nhooksecret: a-secret-for-the-tests\nsocket: /s\n",
        "1: runnermap: is missing",
        "- {name:",
    );
    check_text(
        "pat: a-token\nhooksecret: a-secret-for-the-tests\nsocket: /s\nrunnermap: []\n",
        "4: runnermap: has no",
        "- {name:",
    );
    check("name: one", "runner_os: linux", "5: runnermap[0].name: is missing", "name");
    check("labels: [self-hosted]", "runner_os: linux", "5: runnermap[0].labels: is missing", "[self-hosted]");
    check("image: dev", "runner_os: linux", "5: runnermap[0].image: is missing", "REMOTE:ALIAS");
    check("name: one", "name: ' one'", "5: runnermap[0].name: \" one\" is not a name", "spaces");
    check("image: dev", "image: nowhere:dev", "7: runnermap[0].image: unknown remote \"nowhere\"", "images, ubuntu");
    check("image: dev", "image: 'ubuntu:'", "7: runnermap[0].image: \"ubuntu:\" is not", "ALIAS");
    check("image: dev", "image: 22.04", "7: runnermap[0].image: is a number", "quotes");
    check("x64", "amd64", "8: runnermap[0].runner_arch: \"amd64\"", "write x64");
    check("[self-hosted]", "self-hosted", "6: runnermap[0].labels: is text", "[self-hosted");
    check("[self-hosted]", "[a, '']", "6: runnermap[0].labels[1]: \"\" is not a label", "1 to 100");
    check("[self-hosted]", "['a,b']", "6: runnermap[0].labels[0]: \"a,b\" is not a label", "commas");
    check("[self-hosted]", "\n    - ok\n    - ' x'", "8: runnermap[0].labels[1]: \" x\" is not a label", "spaces");
    check_class("type: vm", "9: runnermap[0].type: \"vm\"", "virtual-machine");
    check_class("runner_os: osx", "9: runnermap[0].runner_os: osx runners", "linux");
    check_class("profiles: default", "9: runnermap[0].profiles: is text", "[default]");
    check_class("profiles: [a, a]", "9: runnermap[0].profiles[1]: \"a\" is in the list twice", "remove");
    check_class("profiles: [a/b]", "9: runnermap[0].profiles[0]: \"a/b\" is not a name", "slashes");
    check_class("project: 'a b'", "9: runnermap[0].project: \"a b\" is not a name", "spaces");
    check_class("target: 'a&b'", "9: runnermap[0].target: \"a&b\" is not a name", "");
    check_class("max_workers: 0", "9: runnermap[0].max_workers: 0 does not fit", "1 to");
    check_class("template: 1", "9: runnermap[0].template: is a number", "true or false");
    check_class("template: false\n    standby: 1", "10: runnermap[0].standby: needs a template", "leave template out");
    check_class("standby: -1", "9: runnermap[0].standby: -1 does not fit", "0 to");
    check_class(
        "config: {user.lxdrunner.owner: x}",
        "9: runnermap[0].config.user.lxdrunner.owner: is reserved",
        "another name",
    );
    check_class("config: {limits.memory: 1.5}", "9: runnermap[0].config.limits.memory: is a number", "quotes");
    check_class("devices: {root: {path: /}}", "9: runnermap[0].devices.root: has no type", "type: disk");
    check_class("devices: [root]", "9: runnermap[0].devices: is a list", "mapping");
    check_class("wait_for: docker.service", "9: runnermap[0].wait_for: is text", "[docker.service]");
    check_class("wait_for: [docker]", "9: runnermap[0].wait_for[0]: \"docker\" is not the name", "docker.service");
    check_class("wait_for: [--now.service]", "9: runnermap[0].wait_for[0]: \"--now.service\" is not the name", "whole");
    check_class("packages: git", "9: runnermap[0].packages: is text", "[git");
    check_class("packages: [-y]", "9: runnermap[0].packages[0]: \"-y\" is not the name", "package manager");
    check_class("docker: yes please", "9: runnermap[0].docker: is text", "true or false");
    let forbids = "docker: true\n    config: {security.nesting: false}";
    check_class(forbids, "9: runnermap[0].docker: needs security.nesting", "take security.nesting out");
    check_class("hooks: x.sh", "9: runnermap[0].hooks: is text", "mapping");
    check_class("hooks: {started: x}", "9: runnermap[0].hooks.started: unknown key", "job_started");
    check_class("hooks: {job_started: /nowhere/x}", "9: runnermap[0].hooks.job_started: cannot read", "readable file");
    check_class(
        "setup_script: {after: /nowhere/x}",
        "9: runnermap[0].setup_script.after: cannot read",
        "readable file",
    );
    let script = std::path::absolute("provision/setup-runner.sh").unwrap();
    let script = script.display();
    let both = format!("setup_script: {{instead: {script}, after: {script}}}");
    check_class(&both, "9: runnermap[0].setup_script.instead: leaves nothing", "before and after");
    let unused = format!("setup_script: {script}\n    packages: [git]");
    check_class(&unused, "10: runnermap[0].packages: is done by the built-in set-up", "{after: FILE}");
    check_class("env: [A=b]", "9: runnermap[0].env: is a list", "mapping");
    check_class("env: {A-B: x}", "9: runnermap[0].env.A-B: is not the name of a variable", "letters");
    check_class("env: {1A: x}", "9: runnermap[0].env.1A: is not the name", "no digit first");
    check_class("env: {A: \"x\\ny\"}", "9: runnermap[0].env.A: cannot be the value", "one line");
    check_class("env: {A: 1.5}", "9: runnermap[0].env.A: is a number", "quotes");
    for name in ["HOME", "LXDRUNNER_NAME", "ACTIONS_RUNNER_INPUT_TOKEN", "secret"] {
        check_class(&format!("env: {{{name}: x}}"), &format!("9: runnermap[0].env.{name}: is set by"), "another name");
    }
    check_text(format!("env: {{A B: x}}\n{GOOD}"), "1: env.A B: is not the name", "letters");
    check_class("repos: [acme]", "9: runnermap[0].repos[0]: \"acme\" is not", "acme/*");
    check_class("setup_script: /nowhere/x.sh", "9: runnermap[0].setup_script: cannot read /nowhere/x.sh", "built-in");
    check_class("setup_script: /dev/null", "9: runnermap[0].setup_script: /dev/null does not start", "#!");
    let two = |second: &str| format!("{GOOD}  - {second}\n");
    check_text(two("{name: ONE, labels: [x], image: dev}"), "9: runnermap[1].name: \"one\" is the name", "of its own");
    let twins = "{name: two, labels: [Linux, x64], image: dev, runner_arch: x64}";
    check_text(
        two(twins),
        "9: runnermap[1].labels: classes \"one\" and \"two\" have the same labels",
        "tell the two apart",
    );
}

#[test]
fn a_file_that_is_wrong_all_over_is_told_of_in_part() {
    let mut text = GOOD.to_owned();
    (0..150).for_each(|n| text.push_str(&format!("no_such_key_{n}: 1\n")));
    let errors = Directory::new("all-over").load(&text).unwrap_err();
    assert_eq!(errors.count(), 150);
    let told = errors.to_string();
    assert_eq!(told.lines().count(), 101);
    assert!(told.ends_with("\n… and 50 more"), "{told}");
}
