//! Config files that are good: the original's forms, the example, defaults, and every key.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lxdrunner::config::{
    Class, Config, CredentialKind, ForkPolicy, ImageRef, Inside, Registration, RepoRules, WebAllow, WebTls,
};
use lxdrunner::model::{InstanceType, Labels, Product, RunnerArch, Scope};

/// A directory of this test's own, gone with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("lxdrunner-config-load-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn load(path: &Path) -> (Config, Vec<String>) {
    let (config, warnings) = Config::load(path).unwrap_or_else(|errors| panic!("{errors}"));
    (config, warnings.iter().map(ToString::to_string).collect())
}

fn labels(list: &str) -> Labels {
    list.split(',').collect()
}

fn pat(config: &Config) -> &str {
    match &config.github.credentials[0].kind {
        CredentialKind::Token(token) => token.expose(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_originals_old_form_loads_unchanged() {
    let path = Path::new("tests/fixtures/original-old.yml");
    let (config, warnings) = load(path);
    assert_eq!(pat(&config), "fake_pat_of_the_old_form");
    assert_eq!(config.socket, Path::new("/var/snap/lxd/common/lxd/unix.socket"));
    assert_eq!(config.cache_home, Path::new("tests/fixtures/pkgcache"));
    assert_eq!((config.prefix.as_str(), config.max_workers, config.web_port), ("lxdrunner", 10, 5000));
    let classes: Vec<_> = config.classes.iter().map(|c| (c.name.as_str(), c.labels.clone(), c.kind)).collect();
    let expected = [
        ("Ubuntu Container Runner", labels("self-hosted,linux,x64"), InstanceType::Container),
        ("Debian 10 Container Runner", labels("self-hosted,linux,x64,debian"), InstanceType::Container),
        ("Ubuntu Virtual Machine Runner", labels("self-hosted,linux,x64,vm"), InstanceType::VirtualMachine),
    ];
    assert_eq!(classes, expected);
    assert_eq!(config.classes[1].image, ImageRef::Local("debian/10/cloud".to_owned()));
    for (line, key) in [(4, "pkgdir"), (5, "setupscript"), (38, "activecfg"), (39, "rundelay")] {
        let start = format!("tests/fixtures/original-old.yml:{line}: {key}: ");
        assert!(warnings.iter().any(|w| w.starts_with(&start)), "{start} is not in {warnings:#?}");
    }
}

#[test]
fn the_originals_new_form_loads_unchanged() {
    let (config, _) = load(Path::new("tests/fixtures/original-new.yml"));
    let image = |remote: &str, server: &str, alias: &str| ImageRef::Remote {
        remote: remote.to_owned(),
        server: server.to_owned(),
        protocol: "simplestreams".to_owned(),
        alias: alias.to_owned(),
    };
    let images: Vec<_> = config.classes.iter().map(|c| c.image.clone()).collect();
    let expected = [
        image("ubuntu", "https://cloud-images.ubuntu.com/releases", "focal"),
        image("ubuntu", "https://cloud-images.ubuntu.com/releases", "focal"),
        image("images", "https://images.linuxcontainers.org", "debian/11/cloud"),
    ];
    assert_eq!(images, expected);
    assert_eq!(config.classes[0].labels, labels("self-hosted,linux,x64"));
    assert_eq!(config.classes[0].profiles, ["default"]);
}

#[test]
fn the_example_names_the_same_rights_as_the_readme() {
    let plain = |file: &str| {
        let text = std::fs::read_to_string(file).unwrap().replace('*', "").replace("\n#", "\n");
        text.split_whitespace().collect::<Vec<_>>().join(" ").replace('`', "")
    };
    for file in ["README.md", "config.yml.example"] {
        let text = plain(file);
        for right in [
            "scopes repo, workflow, and for organisations admin:org and admin:org_hook",
            "Administration and Webhooks (read and write) and Actions (read) of the repositories",
            "Self-hosted runners and Webhooks (read and write), and Members (read) if pull requests of private members",
        ] {
            assert!(text.contains(right), "{file}: {right}");
        }
    }
}

#[test]
fn the_example_loads_and_so_does_all_that_it_has_commented_out() {
    let directory = Directory::new("example");
    let example = std::fs::read_to_string("config.yml.example").unwrap();
    let (config, warnings) = load(&directory.write("plain.yml", &example));
    assert_eq!(config.classes.len(), 2);
    // The secrets look like examples, which they are; and there may be no LXD.
    let expected = |w: &String| [" pat: ", " hooksecret: ", " socket: "].iter().any(|key| w.contains(key));
    assert!(warnings.iter().all(expected), "{warnings:#?}");

    // A key that is commented out has no single space behind its #, as words have. Left out is what says the same in
    // another way, or names a file.
    let other = [
        "pat_file:",
        "hooksecret_file:",
        "github_app:",
        "credentials:",
        "  - {name: work",
        "ca_file:",
        "webhook_url:",
        "targets: []",
        "setup_script:",
        "packages:",
        "hooks:",
    ];
    let uncomment = |line: &str| {
        let indent = &line[..line.len() - line.trim_start().len()];
        let rest = line.trim_start().strip_prefix('#').unwrap_or_default();
        let words = rest.is_empty() || (rest.starts_with(' ') && !rest.starts_with("  "));
        if words || other.iter().any(|o| rest.starts_with(o)) || rest.trim_start().starts_with("- {name: ") {
            line.to_owned()
        } else {
            format!("{indent}{rest}")
        }
    };
    let all: String = example.lines().map(|line| uncomment(line) + "\n").collect();
    let (config, _) = load(&directory.write("all.yml", &all));
    assert_eq!((config.targets.len(), config.repos.deny.len()), (3, 1), "{all}");
    // What is shown as the default is the default.
    let (plain, _) = load(&directory.write("plain.yml", &example));
    assert_eq!(
        format!("{:?}", Config { targets: vec![], repos: RepoRules::default(), classes: vec![], ..config.clone() }),
        format!("{:?}", Config { targets: vec![], repos: RepoRules::default(), classes: vec![], ..plain.clone() })
    );
    let (first, shown) = (&plain.classes[0], &config.classes[0]);
    assert_eq!(shown.config["limits.cpu"], "4");
    assert_eq!(shown.devices["scratch"]["path"], "/scratch");
    assert_eq!(shown.inside.env["CCACHE_DIR"], "/scratch/ccache");
    let mut shown = shown.clone();
    shown.inside = first.inside.clone();
    shown.config.clear();
    shown.devices.clear();
    shown.arch = first.arch;
    shown.labels = first.labels.clone();
    assert_eq!(&shown, first);
}

#[test]
fn apps_and_several_credentials_load() {
    let directory = Directory::new("credentials");
    let keys = std::path::absolute("tests/fixtures/keys").unwrap();
    let write = |pat: &str| {
        let text = LEAST.replacen("pat: a-token-for-the-tests", pat, 1);
        load(&directory.write("config.yml", &text.replace("KEYS", &keys.display().to_string())))
    };
    let (config, _) = write("github_app: {app_id: 7, private_key_file: KEYS/app.pem}\nca_file: KEYS/cert.pem");
    assert_eq!(config.github.credentials.len(), 1);
    assert!(matches!(config.github.credentials[0].kind, CredentialKind::App { id: 7, .. }));
    assert_eq!(config.github.authorities.len(), 1);
    let (config, _) = write(
        "pat: a-token-for-the-tests\ncredentials:\n  - {name: work, github_app: {app_id: 8, private_key_file: KEYS/app.pkcs8.pem}}\n\
         targets: [{org: acme, credential: work}, {repo: alice/tool}, {org: x, credential: default}]",
    );
    let names: Vec<&str> = config.github.credentials.iter().map(|one| one.name.as_str()).collect();
    assert_eq!((names.as_slice(), config.targets.len()), (["default", "work"].as_slice(), 3));
    let assigned: Vec<_> = config.github.assigned.iter().map(|(scope, place)| (scope.to_string(), *place)).collect();
    assert_eq!(assigned, [("org:acme".to_owned(), 1), ("org:x".to_owned(), 0)]);
}

const LEAST: &str = "\
pat: a-token-for-the-tests
hooksecret: a-secret-for-the-tests
socket: /lxd.socket
runnermap:
  - {name: one, labels: [self-hosted], image: dev, runner_arch: x64}
";

#[test]
fn defaults() {
    let directory = Directory::new("defaults");
    let (config, warnings) = load(&directory.write("config.yml", LEAST));
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.github.api, "https://api.github.com");
    assert!(config.targets.is_empty() && !config.allow_public_repos);
    assert_eq!((config.prefix.as_str(), config.max_workers), ("lxdrunner", 10));
    assert_eq!(config.reconcile_interval, Duration::from_secs(60));
    assert_eq!(config.provision_timeout, Duration::from_secs(300));
    assert_eq!(config.idle_timeout, Duration::from_secs(600));
    assert_eq!(config.max_lifetime, Duration::from_secs(86_400));
    assert_eq!(config.failures_kept, 20);
    assert_eq!((config.registration, config.runner_version.clone()), (Registration::Jit, None));
    assert_eq!(config.listen(), "0.0.0.0:5000".parse().unwrap());
    assert_eq!(config.cache_home, Path::new("/var/cache/lxdrunner"));
    let class = &config.classes[0];
    assert_eq!((class.kind, class.arch, class.max_workers), (InstanceType::Container, RunnerArch::X64, 10));
    assert_eq!(
        (class.project.as_str(), class.target.as_str(), class.runner_group.as_str()),
        ("default", "", "Default")
    );
    assert_eq!((class.profiles.as_slice(), class.inside.instead.as_deref()), (&["default".to_owned()][..], None));
}

#[test]
fn every_key_is_taken() {
    let directory = Directory::new("every");
    directory.write("pat", "a-token-of-a-file\n");
    directory.write("secret", "a-secret-of-a-file\r\n");
    directory.write("setup.sh", "#!/bin/sh\necho mine\n");
    let text = "\
x-common: &common {profiles: [a, b], max_workers: 3}
pat_file: pat
hooksecret_file: secret
github_api: https://ghe.example/api/v3/
targets: [{org: ACME}, {repo: Alice/Tool}, {enterprise: big}]
allow_public_repos: true
repos: {allow: [acme/*, alice/tool], deny: [acme/secret-*]}
fork_policy: deny
socket: /run/lxd.socket
remotes:
  own: {addr: https://own.example/, protocol: lxd}
  ubuntu: {addr: https://mirror.example}
prefix: ci-7
max_workers: 20
reconcile_interval: 30s
provision_timeout: 10m
idle_timeout: 90
max_lifetime: 2d
failures_kept: 0
registration: token
runner_version: v2.330.0
web_host: '::1'
web_port: 8080
web_tls: {cert: cert.pem, key: key.pem}
web_trusted_proxies: [127.0.0.1, '2001:db8::/32']
web_allow: [github, 192.0.2.0/24]
web_metrics: [198.51.100.7, 10.0.0.0/8]
ready_max_age: 30m
cache_home: cache
env: {A: top, C: top, D: top}
runnermap:
  - <<: *common
    name: big
    labels: [GPU, 24]
    image: own:debian
    type: virtual-machine
    runner_os: linux
    runner_arch: arm64
    setup_script: setup.sh
    config: {limits.cpu: 4, security.nesting: true, user.mine: x, environment.A: config, environment.B: config}
    env: {B: class, C: 1}
    devices: {gpu: {type: gpu, id: 0}}
    project: ci
    target: '@gpu'
    runner_group: Heavy
    repos: [acme/gpu-*]
    standby: 2
    idle: 1
  - {name: local, labels: [x], image: 'local:fp', runner_arch: arm, template: false, packages: [git], wait_for: [a@b.service], docker: true,
     setup_script: {before: setup.sh, after: setup.sh}, hooks: {job_started: setup.sh}}
  - {name: mirrored, labels: [y], image: 'ubuntu:24.04'}
  - {name: public, labels: [z], image: 'images:debian/12'}
";
    let (cert, key) = (directory.write("cert.pem", ""), directory.write("key.pem", ""));
    let (config, warnings) = load(&directory.write("config.yml", text));
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.web_tls, WebTls::Files { cert, key });
    assert_eq!(config.web_trusted_proxies, ["127.0.0.1", "2001:db8::/32"].map(|text| text.parse().unwrap()));
    assert_eq!(config.web_metrics, ["198.51.100.7", "10.0.0.0/8"].map(|text| text.parse().unwrap()));
    let networks = vec!["192.0.2.0/24".parse().unwrap()];
    assert_eq!(config.web_allow, Some(WebAllow { github: true, networks }));
    assert_eq!((pat(&config), config.hooksecret.expose()), ("a-token-of-a-file", "a-secret-of-a-file"));
    assert_eq!(config.github.api, "https://ghe.example/api/v3");
    let targets: Vec<String> = config.targets.iter().map(Scope::to_string).collect();
    assert_eq!(targets, ["org:acme", "repo:Alice/Tool", "enterprise:big"]);
    assert_eq!(config.socket, Path::new("/run/lxd.socket"));
    let origin = |class: &Class| class.image.origin(Product::Lxd).map(|o| (o.server, o.protocol, o.alias));
    let parts = |server: &str, protocol: &str, alias: &str| Some((server.into(), protocol.into(), alias.into()));
    assert_eq!(origin(&config.classes[0]), parts("https://own.example", "lxd", "debian"));
    assert_eq!(origin(&config.classes[2]), parts("https://mirror.example", "simplestreams", "24.04"));
    assert_eq!(origin(&config.classes[3]), parts("https://images.lxd.canonical.com", "simplestreams", "debian/12"));
    assert_eq!((config.prefix.as_str(), config.max_workers), ("ci-7", 20));
    let lengths = [config.reconcile_interval, config.provision_timeout, config.idle_timeout, config.max_lifetime];
    assert_eq!(lengths.map(|l| l.as_secs()), [30, 600, 90, 172_800]);
    assert_eq!((config.ready_max_age.as_secs(), config.failures_kept), (1800, 0));
    assert_eq!((config.registration, config.runner_version.as_deref()), (Registration::Token, Some("2.330.0")));
    assert_eq!((config.web_host, config.web_port), ("::1".parse::<IpAddr>().unwrap(), 8080));
    assert_eq!(config.cache_home, directory.0.join("cache"));
    let served = |rules: &RepoRules, repo: &str| rules.judge(&repo.parse().unwrap()).is_ok();
    let all = ["acme/app", "acme/secret-1", "alice/other", "acme/gpu-1"];
    assert_eq!(all.map(|repo| served(&config.repos, repo)), [true, false, false, true]);
    assert_eq!(all.map(|repo| served(&config.classes[0].repos, repo)), [false, false, false, true]);
    assert_eq!(config.fork_policy, Some(ForkPolicy::Deny));
    let class = &config.classes[0];
    assert_eq!((class.profiles.len(), class.max_workers), (2, 3));
    assert_eq!(class.labels, labels("self-hosted,linux,arm64,gpu,24"));
    assert_eq!(class.inside.instead.as_deref(), Some("#!/bin/sh\necho mine\n"));
    let instance: Vec<_> = class.config.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        instance,
        [
            ("environment.A", "config"),
            ("environment.B", "config"),
            ("limits.cpu", "4"),
            ("security.nesting", "true"),
            ("user.mine", "x")
        ]
    );
    let env = |at: usize| config.classes[at].inside.env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
    assert_eq!(env(0), ["A=config", "B=class", "C=1", "D=top"]);
    assert_eq!(env(1), ["A=top", "C=top", "D=top"]);
    assert_eq!(class.devices["gpu"]["id"], "0");
    assert_eq!((class.project.as_str(), class.target.as_str(), class.runner_group.as_str()), ("ci", "@gpu", "Heavy"));
    assert_eq!((class.template, class.standby, class.idle), (true, 2, 1));
    let other = &config.classes[1];
    assert_eq!(other.wait_for, ["a@b.service"]);
    let Inside { packages, docker, instead, before, after, job_started, job_completed, .. } = &other.inside;
    assert_eq!((packages.as_slice(), *docker, instead, job_completed), (&["git".to_owned()][..], true, &None, &None));
    assert_eq!([before, after, job_started].map(|text| text.as_deref()), [Some("#!/bin/sh\necho mine\n"); 3]);
    let nesting = |class: &Class| class.config.get("security.nesting").cloned();
    assert_eq!(nesting(other).as_deref(), Some("true"));
    assert_eq!((other.template, other.standby, other.idle), (false, 0, 0));
    assert_eq!(config.classes[1].image, ImageRef::Local("fp".to_owned()));
}

#[test]
fn who_only_polls_needs_no_secret_and_no_port() {
    let directory = Directory::new("polling");
    let text = LEAST.replacen("hooksecret: a-secret-for-the-tests\n", "polling: true\n", 1);
    let (config, warnings) = load(&directory.write("config.yml", &text));
    assert_eq!(warnings, Vec::<String>::new());
    assert!(config.polling && !config.listens && config.hooksecret.is_empty());
    assert_eq!((config.reconcile_interval.as_secs(), config.github.api_budget), (20, 50));
    let more = format!("{text}web_port: 8080\nreconcile_interval: 5\napi_budget: 30%\n");
    let (config, _) = load(&directory.write("config.yml", &more));
    assert!(config.listens);
    assert_eq!((config.reconcile_interval.as_secs(), config.github.api_budget), (5, 30));
    let (config, _) = load(&directory.write("config.yml", LEAST));
    assert!(!config.polling && config.listens);
    assert_eq!((config.reconcile_interval.as_secs(), config.github.api_budget), (60, 20));
}

#[test]
fn secrets_are_not_printed() {
    let directory = Directory::new("secrets");
    let (config, _) = load(&directory.write("config.yml", LEAST));
    let shown = format!("{config:?}");
    assert!(!shown.contains("a-token") && !shown.contains("a-secret"), "{shown}");
}

#[test]
fn what_is_worth_a_word_is_a_warning() {
    let directory = Directory::new("warnings");
    #[track_caller]
    fn check(directory: &Directory, from: &str, to: &str, line: usize, part: &str) {
        assert!(LEAST.contains(from));
        let path = directory.write("config.yml", &LEAST.replacen(from, to, 1));
        let (_, warnings) = load(&path);
        let start = format!("{}:{line}: ", path.display());
        let found = warnings.iter().any(|w| w.starts_with(&start) && w.contains(part));
        assert!(found && warnings.len() == 1, "{to}: {warnings:#?}");
    }
    let top = |to: &str, part: &str| check(&directory, "pat:", &format!("{to}\npat:"), to.split('\n').count(), part);
    top("web_allow: [10.1.2.3/8]", "10.1.2.3/8 is read as 10.0.0.0/8");
    top("github_api: http://ghe.example/api/v3", "not encrypted");
    top("github_api: https://ghe.example", "/api/v3");
    top("web_port: 0", "free port");
    let key = directory.write("open.pem", &std::fs::read_to_string("tests/fixtures/keys/app.pem").unwrap());
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let app = format!("credentials: [{{name: a, github_app: {{app_id: 1, private_key_file: {}}}}}]", key.display());
    top(&app, "everybody on this machine can read");
    top("targets: [{org: acme}]\nrepos: [acme2/*]", "matches no repository");
    let class =
        |to: &str, part: &str| check(&directory, "runner_arch: x64", &format!("runner_arch: x64, {to}"), 5, part);
    class("standby: 11", "11 are never reached: max_workers is 10");
    class("max_workers: 1, idle: 2", "2 are never reached: max_workers is 1");
    class("config: {security.privileged: true}", "take it over");
    check(&directory, "[self-hosted]", "[arm64]", 5, "will get this linux x64 class");
    check(&directory, "a-secret-for-the-tests", "short", 2, "openssl rand");
    check(&directory, "a-token-for-the-tests", "fake_token", 1, "example");
}

#[test]
fn secrets_that_everybody_can_read_are_told() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new("modes");
    let path = directory.write("config.yml", &LEAST.replacen("pat: a-token-for-the-tests", "pat_file: pat", 1));
    let pat = directory.write("pat", "a-token-of-a-file\n");
    assert_eq!(load(&path).1, Vec::<String>::new());
    for file in [&path, &pat] {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let key = directory.write("tls.key", "x");
    let tls = format!("web_tls: {{cert: {0}, key: {0}}}\nrunnermap:", key.display());
    let path = directory.write("config.yml", &std::fs::read_to_string(&path).unwrap().replacen("runnermap:", &tls, 1));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = load(&path).1;
    let told = |file: &Path| warnings.iter().any(|w| w.contains(&format!("chmod 600 {}", file.display())));
    assert!(told(&path) && told(&pat) && told(&key) && warnings.len() == 3, "{warnings:#?}");
}
