//! The keys at the top of the file.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use super::node::{Node, Path};
use super::read::{Item, Section};
use super::report::Report;
use super::{
    Config, ConfigErrors, PREFIX_MAX, Registration, Remote, Warning, WebTls, class, find_socket, github, guard,
    original, secret, socket_candidates, web,
};
use crate::http1::is_loopback;
use crate::model::Secret;

const KEYS: &[&str] = &[
    "pat",
    "pat_file",
    "github_app",
    "credentials",
    "ca_file",
    "hooksecret",
    "hooksecret_file",
    "github_api",
    "api_budget",
    "targets",
    "webhook_url",
    "placeholders",
    "allow_public_repos",
    "repos",
    "fork_policy",
    "socket",
    "remotes",
    "prefix",
    "max_workers",
    "polling",
    "reconcile_interval",
    "provision_timeout",
    "idle_timeout",
    "ready_max_age",
    "max_lifetime",
    "failures_kept",
    "registration",
    "runner_version",
    "web_host",
    "web_port",
    "web_tls",
    "web_trusted_proxies",
    "web_allow",
    "web_metrics",
    "cache_home",
    "env",
    "runnermap",
    // The Python daemon's name of cache_home.
    "pkgdir",
];

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// Makes a [`Config`] of the tree. `file` is named in messages, and what the file names is looked for beside it.
pub(super) fn config(file: &FilePath, text: &str, tree: &Node) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    let report = Report::new(file);
    let config = read(file, tree, &report);
    let warnings = report.close(file, text)?;
    match config {
        Some(config) => Ok((config, warnings)),
        // Every `None` above has made its complaint, so this is never seen.
        None => Err(ConfigErrors::one(file, None, "cannot be used", "compare it with config.yml.example")),
    }
}

fn read(file: &FilePath, tree: &Node, report: &Report) -> Option<Config> {
    let translated = original::translate(tree, report);
    let tree = translated.as_ref().unwrap_or(tree);
    let top = Section::new(&Item { node: tree, path: Path::default(), report }, KEYS)?;

    let (github, targets) = github::read(&top).unzip();
    let polling = top.or("polling", false, Item::flag);
    let hooksecret = match secret::read(&secret::HOOKSECRET, &top, !polling) {
        // Polling needs no hooksecret; a given one must be valid.
        None if polling && !["hooksecret", "hooksecret_file"].iter().any(|key| top.find(key).is_some()) => {
            Some(Secret::default())
        }
        read => read,
    };
    for key in ["webhook_url", "web_metrics"] {
        if let Some(item) = top.get(key).filter(|_| polling && top.get("web_port").is_none()) {
            item.error("contradicts polling: nothing is listened for", "leave it out, or write web_port");
        }
    }
    readable_by_all(file, &top);

    let (remotes, main) = remotes(&top);
    let max_workers = top.or("max_workers", 10, |item| item.number(1, 10_000)) as usize;
    let classes = class::classes(&top, &remotes, max_workers);
    let repos = guard::repos(&top);
    if let (Some(item), Some(targets)) = (top.get("repos"), &targets) {
        repos.check_owners(&item, targets);
    }
    let socket = socket(&top, main);
    let cache_home = cache_home(&top);
    let length = |key: &str, default: u64, most: Duration| {
        top.or(key, Duration::from_secs(default), |item| item.duration(SECOND, most))
    };
    Some(Config {
        webhook_url: top.or("webhook_url", None, |item| github::webhook_url(item).map(Some)),
        placeholders: top.or("placeholders", false, Item::flag),
        allow_public_repos: top.or("allow_public_repos", false, Item::flag),
        repos,
        fork_policy: top.or("fork_policy", None, guard::fork_policy),
        prefix: top.or("prefix", "lxdrunner".to_owned(), prefix),
        max_workers,
        polling,
        listens: !polling || top.get("web_port").is_some(),
        reconcile_interval: length("reconcile_interval", if polling { 20 } else { 60 }, DAY),
        provision_timeout: length("provision_timeout", 300, DAY),
        idle_timeout: length("idle_timeout", 600, MONTH),
        ready_max_age: length("ready_max_age", 3000, MONTH),
        max_lifetime: length("max_lifetime", DAY.as_secs(), MONTH),
        failures_kept: top.or("failures_kept", 20, |item| item.number(0, 1000)) as usize,
        registration: top.or("registration", Registration::Jit, registration),
        runner_version: top.or("runner_version", None, runner_version),
        web_host: top.or("web_host", IpAddr::from([0, 0, 0, 0]), web_host),
        web_port: top.or("web_port", 5000, web_port),
        web_tls: top.or("web_tls", WebTls::Off, web::tls),
        web_trusted_proxies: web::trusted_proxies(&top),
        web_allow: top.or("web_allow", None, web::allow),
        web_metrics: web::metrics(&top),
        // Last, so that all errors are reported before one of these is found missing.
        github: github?,
        targets: targets?,
        hooksecret: hooksecret?,
        socket: socket?,
        cache_home: cache_home?,
        classes: classes?,
    })
}

fn readable_by_all(file: &FilePath, top: &Section<'_>) {
    let inline = ["pat", "credentials", "hooksecret"].into_iter().find(|key| has_inline(top, key));
    if let Some(key) = inline {
        top.at(key).warn_of_readers(file, "this secret");
    }
}

/// True where the config file itself holds a secret.
fn has_inline(top: &Section<'_>, key: &str) -> bool {
    let Some(item) = top.get(key) else { return false };
    match item.node {
        Node::List(items) => {
            items.iter().any(|one| matches!(one, Node::Map(keys) if keys.iter().any(|(k, _)| k == "pat")))
        }
        _ => true,
    }
}

/// The image servers, and the local daemon's socket where `main` names it.
fn remotes<'a>(top: &Section<'a>) -> (BTreeMap<String, Remote>, Option<SocketPath<'a>>) {
    let mut remotes = BTreeMap::new();
    let mut main = None;
    let Some(section) = top.get("remotes").and_then(|item| Section::free(&item)) else {
        return (remotes, main);
    };
    for (name, item) in section.entries() {
        let Some(one) = Section::new(&item, &["addr", "protocol"]) else { continue };
        if name == "local" && one.get("addr").is_some_and(|i| matches!(i.node, Node::Text(t) if t.starts_with("http")))
        {
            let what = "local means the server that lxdrunner runs on";
            item.error(what, "give this remote another name, here and in image");
        } else if matches!(name, "main" | "local") {
            main = local_remote(&one).or(main);
        } else if name.is_empty() || name.contains([':', '/', ' ']) {
            item.error("is not a remote's name", "write a name without colons, slashes and spaces");
        } else if let Some(remote) = image_server(&one) {
            remotes.insert(name.to_owned(), remote);
        }
    }
    (remotes, main)
}

/// A socket and where it was written.
type SocketPath<'a> = (PathBuf, Item<'a>);

fn local_remote<'a>(one: &Section<'a>) -> Option<SocketPath<'a>> {
    if let Some(protocol) = one.get("protocol") {
        let name = protocol.text("lxd")?;
        if !matches!(name, "lxd" | "incus") {
            protocol.error(format!("{name:?} is not the protocol of an LXD server"), "write lxd");
        }
    }
    let addr = one.get("addr")?;
    let text = addr.text("nothing (the local socket is found), or the path of a unix socket")?;
    if text.starts_with("https:") || text.starts_with("http:") {
        let fix = "run lxdrunner on that server itself, and write addr: without a value";
        return addr.refuse("a remote LXD needs `servers`, which lxdrunner does not have yet", fix);
    }
    let path = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")).unwrap_or(text);
    absolute(&addr, path).map(|p| (p, addr))
}

fn image_server(one: &Section<'_>) -> Option<Remote> {
    let addr = one.require("addr", "write the image server's address, https://…").and_then(|item| {
        let text = item.text("an https:// address")?;
        let plain = text.chars().all(|c| c.is_ascii_graphic()) && !text.contains(['@', '?', '#']);
        let uri = text.parse::<ureq::http::Uri>().ok();
        let served = |uri: &ureq::http::Uri| match (uri.scheme_str(), uri.host()) {
            (Some("https"), Some(_)) => true,
            (Some("http"), Some(host)) => is_loopback(host),
            _ => false,
        };
        if !plain || !uri.as_ref().is_some_and(served) {
            let fix = match text.strip_prefix("http://") {
                Some(rest) => {
                    format!("write addr: https://{rest} (without TLS only a mirror on this machine is taken)")
                }
                None => "write addr: https://HOST/PATH".to_owned(),
            };
            return item.refuse("is not the address of an image server", fix);
        }
        Some(text.trim_end_matches('/').to_owned())
    });
    let protocol = match one.get("protocol") {
        None => Some("simplestreams".to_owned()),
        Some(item) => item.text("simplestreams or lxd").and_then(|text| match text {
            "simplestreams" | "lxd" => Some(text.to_owned()),
            other => item.refuse(format!("{other:?} is not a protocol"), "write simplestreams or lxd"),
        }),
    };
    Some(Remote { addr: addr?, protocol: protocol? })
}

fn absolute(item: &Item<'_>, text: &str) -> Option<PathBuf> {
    if text.starts_with('/') && !text.contains('\0') {
        return Some(PathBuf::from(text));
    }
    item.refuse(format!("{text:?} is not an absolute path"), "write auto, or a path that starts with /")
}

fn socket(top: &Section<'_>, main: Option<SocketPath<'_>>) -> Option<PathBuf> {
    let item = top.get("socket");
    let written = match &item {
        Some(item) => match item.text("auto, or the path of LXD's unix socket")? {
            "auto" => None,
            path => Some(absolute(item, path)?),
        },
        None => None,
    };
    match (written, main) {
        (Some(path), Some((other, item))) if path != other => {
            item.refuse(format!("contradicts socket, which is {}", path.display()), "keep one of them")
        }
        (Some(path), _) | (None, Some((path, _))) => Some(path),
        (None, None) => {
            let candidates = socket_candidates();
            if let Some(found) = find_socket(&candidates) {
                return Some(found.to_owned());
            }
            let all: Vec<String> = candidates.iter().map(|p| p.display().to_string()).collect();
            top.at("socket").warn(format!("no LXD or Incus is found, looked for {}: is it installed?", all.join(", ")));
            candidates.into_iter().next()
        }
    }
}

fn is_prefix(text: &str) -> bool {
    let plain = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    plain && text.starts_with(|c: char| c.is_ascii_lowercase()) && !text.ends_with('-') && text.len() <= PREFIX_MAX
}

fn prefix(item: &Item<'_>) -> Option<String> {
    let text = item.text("a short name")?;
    if !is_prefix(text) {
        let rule = format!("a letter, then letters (a-z), digits or '-', {PREFIX_MAX} characters at most");
        let close: String = text.to_lowercase().replace(['_', '.', ' '], "-").trim_matches('-').to_owned();
        let fix = if is_prefix(&close) { format!("write prefix: {close} ({rule})") } else { format!("write {rule}") };
        return item.refuse(format!("{text:?} cannot start the name of an instance"), fix);
    }
    Some(text.to_owned())
}

fn registration(item: &Item<'_>) -> Option<Registration> {
    match item.text("jit or token")? {
        "jit" => Some(Registration::Jit),
        "token" => Some(Registration::Token),
        other => item.refuse(format!("{other:?} is not a way to register"), "write jit or token"),
    }
}

/// The outer `None` is an error, the inner one is `latest`.
fn runner_version(item: &Item<'_>) -> Option<Option<String>> {
    let text = item.text("latest, or a version such as \"2.330.0\"")?;
    if text == "latest" {
        return Some(None);
    }
    let version = text.strip_prefix('v').unwrap_or(text);
    let number = |part: &str| !part.is_empty() && part.len() < 8 && part.bytes().all(|b| b.is_ascii_digit());
    if version.split('.').count() == 3 && version.split('.').all(number) {
        return Some(Some(version.to_owned()));
    }
    item.refuse(format!("{text:?} is not a version"), "write latest, or a version such as 2.330.0")
}

fn web_host(item: &Item<'_>) -> Option<IpAddr> {
    let text = item.text("an IP address of this machine")?;
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok();
    if address.is_none() {
        let fix = "write 0.0.0.0 for all addresses, 127.0.0.1 for this machine only, or one of its addresses";
        item.error(format!("{text:?} is not an IP address"), fix);
    }
    address
}

fn web_port(item: &Item<'_>) -> Option<u16> {
    let port = item.number(0, 65_535)?;
    if port == 0 {
        item.warn("a free port is used at each start; the log names it");
    }
    u16::try_from(port).ok()
}

fn cache_home(top: &Section<'_>) -> Option<PathBuf> {
    let Some(item) = top.get("cache_home").or_else(|| top.get("pkgdir")) else {
        return Some(PathBuf::from("/var/cache/lxdrunner"));
    };
    let text = item.text("the path of a directory")?;
    if text.is_empty() {
        return item.refuse("is empty", "write the path of a directory");
    }
    Some(item.report.beside(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../config.yml.example");
    const README: &str = include_str!("../../README.md");

    /// `# key: type, default …. A sentence.`
    #[track_caller]
    fn check_example(key: &str, indent: &str) {
        let start = format!("{indent}# {key}: ");
        let at = EXAMPLE.find(&format!("\n{start}"));
        let at =
            at.unwrap_or_else(|| panic!("config.yml.example has no line {start}TYPE, default VALUE. What it does."));
        let comment = EXAMPLE[at..].trim_start().lines().map_while(|line| line.trim_start().strip_prefix("# "));
        let comment = comment.collect::<Vec<_>>().join(" ");
        let (types, text) = comment.split_once(". ").unwrap_or_default();
        assert!(types.contains(", default ") || types.contains(", required"), "config.yml.example: {comment}");
        assert!(!text.is_empty(), "config.yml.example does not say what {key} does: {comment}");
    }

    #[test]
    fn every_key_is_in_the_example_and_in_the_readme() {
        let reference = README.split_once("\n## Config reference\n").unwrap().1.split_once("\n## ").unwrap().0;
        let (top, classes) = reference.split_once("| key of a class |").unwrap();
        #[track_caller]
        fn check_readme(table: &str, key: &str) {
            let cells = table.lines().filter_map(|line| line.split('|').nth(1));
            let named = format!("`{key}`");
            let found = cells.flat_map(|cell| cell.split(", ")).any(|one| one.trim() == named);
            assert!(found, "README's config reference has no row for {key}");
        }
        for key in KEYS.iter().filter(|key| **key != "pkgdir") {
            check_example(key, "");
            check_readme(top, key);
        }
        for key in class::KEYS {
            check_example(key, "    ");
            check_readme(classes, key);
        }
    }
}
