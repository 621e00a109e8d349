//! Repeated listings of repositories, which cost nothing while nothing changes.

use super::Listing;
use super::address::repo_path;
use super::api::GitHub;
use super::budget::Purpose;
use super::error::Error;
use super::json::RepoWire;
use super::pages::MAX_PAGES;
use super::types::Repo;
use super::wire::Call;
use crate::http1::path_segment;
use crate::model::RepoName;

impl GitHub {
    /// Updates `seen`, a listing of this organisation's repositories; true if anything changed.
    ///
    /// # Errors
    /// As for every call.
    pub fn org_repos_if_changed(&self, org: &str, seen: &mut Listing<Repo>) -> Result<bool, Error> {
        let path = format!("orgs/{}/repos?per_page=100", path_segment(org));
        self.http.pages_if_changed(Call::get(&tried(org), Purpose::List), &path, seen, of_page, MAX_PAGES)
    }

    /// The same for the hundred that were pushed to last: one request, whatever the organisation's size.
    ///
    /// # Errors
    /// As for every call.
    pub fn org_repos_pushed(&self, org: &str, seen: &mut Listing<Repo>) -> Result<bool, Error> {
        let path = format!("orgs/{}/repos?sort=pushed&direction=desc&per_page=100", path_segment(org));
        self.http.pages_if_changed(Call::get(&tried(org), Purpose::List), &path, seen, of_page, 1)
    }

    /// The same for one repository.
    ///
    /// # Errors
    /// As for every call.
    pub fn repo_if_changed(&self, name: &RepoName, seen: &mut Listing<Repo>) -> Result<bool, Error> {
        let of_one = |repo: RepoWire| repo.into_repo().into_iter().collect();
        self.http.pages_if_changed(
            Call::get(&format!("look at repo:{name}"), Purpose::List),
            &repo_path(name),
            seen,
            of_one,
            1,
        )
    }
}

fn tried(org: &str) -> String {
    format!("list the repositories of org:{org}")
}

fn of_page(page: Vec<RepoWire>) -> Vec<Repo> {
    page.into_iter().filter_map(RepoWire::into_repo).collect()
}
