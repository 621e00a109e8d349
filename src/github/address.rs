//! Addresses at GitHub: origins, and the paths of scopes and repositories.

use ureq::http::Uri;

use crate::http1::{self, path_segment};
use crate::model::{RepoName, Scope};

/// `scheme://host[:port]`, lower case, of an http or https address without user or password.
pub(super) fn origin_of(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"))?;
    let authority = uri.authority()?.as_str().to_lowercase();
    if authority.contains('@') {
        return None;
    }
    let default = if scheme == "https" { ":443" } else { ":80" };
    Some(format!("{scheme}://{}", authority.strip_suffix(default).unwrap_or(&authority)))
}

/// True for an address of this machine, for which no proxy from the environment is used.
pub(super) fn is_loopback(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(http1::is_loopback))
}

pub(super) fn scope_path(scope: &Scope) -> String {
    match scope {
        Scope::Org(org) => format!("orgs/{}", path_segment(org)),
        Scope::Repo(repo) => repo_path(repo),
        Scope::Enterprise(slug) => format!("enterprises/{}", path_segment(slug)),
    }
}

pub(super) fn repo_path(repo: &RepoName) -> String {
    format!("repos/{}/{}", path_segment(&repo.owner), path_segment(&repo.name))
}
