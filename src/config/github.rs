//! GitHub: its address, the credentials, and the targets.

use std::collections::BTreeMap;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::credentials::{self, Credential};
use super::file;
use super::node::Node;
use super::read::{Item, Section};
use crate::http1::is_loopback;
use crate::model::{RepoName, Scope, is_github_name};

/// The address of GitHub and the credentials.
#[derive(Clone, Debug)]
pub struct GitHubConfig {
    /// Without a closing slash.
    pub api: String,
    /// The share of the hourly limit that listings may use, in percent.
    pub api_budget: u8,
    /// At least one; the first serves whatever no other was named for.
    pub credentials: Vec<Credential>,
    /// Which of them a target named, by its place.
    pub assigned: BTreeMap<Scope, usize>,
    /// Certificates of authorities that are believed beside the public ones, in DER.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// The GitHub part of the file, and the targets.
pub(super) fn read(top: &Section<'_>) -> Option<(GitHubConfig, Vec<Scope>)> {
    let credentials = credentials::read(top);
    let names: Vec<&str> = credentials.iter().flatten().map(|one| one.name.as_str()).collect();
    let targets = targets(top, credentials.is_some().then_some(&names));
    let api = top.or("github_api", "https://api.github.com".to_owned(), github_api);
    let polls = top.get("polling").is_some_and(|item| *item.node == Node::Bool(true));
    let share = if polls { POLLING_SHARE } else { USUAL_SHARE };
    let api_budget = top.or("api_budget", share, api_budget);
    let authorities = top.or("ca_file", Vec::new(), ca_file);
    let (targets, assigned) = targets?;
    Some((GitHubConfig { api, api_budget, credentials: credentials?, assigned, authorities }, targets))
}

/// The certificates of a PEM file.
fn ca_file(item: &Item<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let path = item.file("the name of a PEM file with certificates")?;
    let shown = path.display();
    let text = match file::read(&path, file::LONGEST_BUNDLE) {
        Ok(text) => text,
        Err(error) => {
            let fix = "name the PEM file with the certificates of your organisation's authority";
            return item.refuse(format!("cannot read {shown}: {error}"), fix);
        }
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Some(certificates),
        _ => {
            let fix = "it must be PEM, with -----BEGIN CERTIFICATE-----";
            item.refuse(format!("{shown} holds no certificate"), fix)
        }
    }
}

/// The listings' share of GitHub's hourly limit, in percent.
const USUAL_SHARE: u8 = 20;
/// The same with `polling`, where jobs are found by listings only.
const POLLING_SHARE: u8 = 50;

fn github_api(item: &Item<'_>) -> Option<String> {
    let text = item.text("https://api.github.com, or https://HOST/api/v3")?;
    let fix = "write https://api.github.com, or https://HOST/api/v3 for a GitHub Enterprise Server";
    let uri = text.parse::<ureq::http::Uri>().ok();
    let parts = uri.as_ref().and_then(|u| Some((u.scheme_str()?, u.host()?, u.path(), u.query())));
    let Some((scheme @ ("http" | "https"), host, path, None)) = parts else {
        return item.refuse("is not the address of an API", fix);
    };
    if uri.as_ref().and_then(|u| u.authority()).is_some_and(|a| a.as_str().contains('@')) {
        return item.refuse("has a user name or password in it", "the token goes into pat or pat_file");
    }
    let local = is_loopback(host);
    if scheme == "http" && !local {
        item.warn("is not encrypted: the token can be read on the way; use https");
    }
    if matches!(host, "github.com" | "www.github.com") {
        return item.refuse("is GitHub's web site, not its API", "write https://api.github.com");
    }
    if path == "/" && !host.starts_with("api.") && !local {
        let place = uri.as_ref().and_then(|uri| uri.authority()).map_or(host, |authority| authority.as_str());
        item.warn(format!("a GitHub Enterprise Server's API is at {scheme}://{place}/api/v3"));
    }
    Some(text.trim_end_matches('/').to_owned())
}

/// Percent, with or without the sign.
fn api_budget(item: &Item<'_>) -> Option<u8> {
    let number = match item.node {
        Node::Int(number) => u8::try_from(*number).ok(),
        Node::Text(text) => text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok()),
        _ => None,
    };
    let percent = number.filter(|percent| (1..=90).contains(percent));
    if percent.is_none() {
        let fix = "write 1% to 90%: the rest of GitHub's hourly limit is for calls that jobs wait for";
        item.error("is out of range", fix);
    }
    percent
}

/// Where our own server takes deliveries.
const HOOK_PATH: &str = "/hooks/lxdrunner";

/// The address that webhooks get, with our path where it has none.
pub(super) fn webhook_url(item: &Item<'_>) -> Option<String> {
    let text = item.text("the address under which GitHub finds this host")?;
    match hook_address(text) {
        Ok(url) => {
            if url.starts_with("http:") {
                item.warn("is not encrypted: deliveries can be read on the way (they are signed)");
            }
            Some(url)
        }
        Err((what, fix)) => item.refuse(what, fix),
    }
}

/// A hook's whole address: `https://HOST[:PORT]`, with our path where it has none.
///
/// # Errors
/// The fault and the fix.
pub fn hook_address(text: &str) -> Result<String, (&'static str, &'static str)> {
    let fix = "write https://HOST or https://HOST:PORT/hooks/lxdrunner, as GitHub finds it";
    let uri = text.parse::<ureq::http::Uri>().ok();
    let parts = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.authority()?, uri.path(), uri.query())));
    let Some(("http" | "https", authority, path, None)) = parts else {
        return Err(("is not an address", fix));
    };
    if authority.as_str().contains('@') {
        return Err(("has a user or a password in it", "deliveries are signed with hooksecret; leave it out"));
    }
    match path {
        "" | "/" => Ok(format!("{}{HOOK_PATH}", text.trim_end_matches('/'))),
        _ => Ok(text.to_owned()),
    }
}

/// The targets, and which credential each of them names.
type Targets = (Vec<Scope>, BTreeMap<Scope, usize>);

fn targets(top: &Section<'_>, credentials: Option<&Vec<&str>>) -> Option<Targets> {
    let Some(item) = top.get("targets") else { return Some(Targets::default()) };
    let wanted = "a list of {org: NAME}, {repo: OWNER/NAME} or {enterprise: SLUG}";
    let list = item.list(wanted)?;
    let (mut targets, mut assigned) = Targets::default();
    let mut whole = true;
    for item in list {
        match target(&item, credentials) {
            Some((scope, _)) if targets.contains(&scope) => {
                item.error(format!("{scope} is there already"), "remove one of them");
            }
            Some((scope, credential)) => {
                assigned.extend(credential.map(|place| (scope.clone(), place)));
                targets.push(scope);
            }
            None => whole = false,
        }
    }
    whole.then_some((targets, assigned))
}

/// A scope, and the place of the credential that it names.
fn target(item: &Item<'_>, credentials: Option<&Vec<&str>>) -> Option<(Scope, Option<usize>)> {
    let fix = "write {org: NAME}, {repo: OWNER/NAME} or {enterprise: SLUG}";
    if !matches!(item.node, Node::Map(_)) {
        return item.refuse(format!("is {}", item.node.kind()), fix);
    }
    let one = Section::new(item, &["org", "repo", "enterprise", "credential"])?;
    let credential = one.or("credential", None, |item| credential(item, credentials).map(Some));
    let given: Vec<(&str, Item<'_>)> =
        one.entries().filter(|(key, _)| !key.starts_with("x-") && *key != "credential").collect();
    let [(key, value)] = given.as_slice() else {
        return item.refuse("is not one target", fix);
    };
    let name = value.scalar()?;
    let named = || is_github_name(&name).then(|| name.to_lowercase());
    let as_there = "write its name as in its address on GitHub";
    let (scope, what, fix) = match *key {
        "repo" => (name.parse::<RepoName>().ok().map(Scope::Repo), "a repository", "write OWNER/NAME"),
        "org" => (named().map(Scope::Org), "an organisation", as_there),
        "enterprise" => (named().map(Scope::Enterprise), "an enterprise", as_there),
        // Complained about already.
        _ => return None,
    };
    if scope.is_none() {
        value.error(format!("{name:?} is not the name of {what} on GitHub"), fix);
    }
    Some((scope?, credential))
}

fn credential(item: &Item<'_>, known: Option<&Vec<&str>>) -> Option<usize> {
    let name = item.scalar()?;
    // Where the credentials themselves are wrong, that is told already.
    let known = known?;
    let place = known.iter().position(|one| *one == name);
    if place.is_none() {
        let fix = format!("write one of {}, or add it to credentials", known.join(", "));
        item.error(format!("there is no credential {name:?}"), fix);
    }
    place
}
