//! How a job is named on the command line: the address of its page or of its API, `OWNER/REPO#ID`, or its id alone.

use crate::model::{JobId, RepoName};

/// The job that was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `None` where only an id was given.
    pub repo: Option<RepoName>,
    pub job: JobId,
    /// The host of an address.
    pub host: Option<String>,
}

const FORMS: &str = "write the address of the job's page (https://github.com/OWNER/REPO/actions/runs/RUN/job/ID), \
                     OWNER/REPO#ID, or its id";

impl Reference {
    /// Reads any of the forms. `Err` is the fault and the fix.
    pub fn parse(text: &str) -> Result<Reference, String> {
        let text = text.trim();
        let odd = || format!("{:?} names no job: {FORMS}", text.chars().take(200).collect::<String>());
        if let Some(id) = number(text) {
            return Ok(Reference { repo: None, job: JobId(id), host: None });
        }
        if let Some((repo, id)) = text.split_once('#').filter(|(repo, _)| !repo.contains("://")) {
            let (repo, id) = (repo.parse().map_err(|_| odd())?, number(id).ok_or_else(odd)?);
            return Ok(Reference { repo: Some(repo), job: JobId(id), host: None });
        }
        let address = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(odd)?;
        let address = address.split(['?', '#']).next().unwrap_or_default();
        let mut parts: Vec<&str> = address.split('/').filter(|part| !part.is_empty()).collect();
        if parts.is_empty() {
            return Err(odd());
        }
        let host = parts.remove(0).to_lowercase();
        let parts = parts.strip_prefix(["api", "v3"].as_slice()).unwrap_or(&parts);
        let parts = parts.strip_prefix(["repos"].as_slice()).unwrap_or(parts);
        let (owner, name, id) = match parts {
            [owner, name, "actions", "runs", _, "job" | "jobs", id, ..] => (owner, name, id),
            [owner, name, "actions", "runs", _, "attempts", _, "job" | "jobs", id, ..] => (owner, name, id),
            [owner, name, "actions", "jobs", id, ..] => (owner, name, id),
            // A job's check run has its id.
            [owner, name, "runs" | "check-runs", id, ..] => (owner, name, id),
            [_, _, "actions", "runs", _, ..] => {
                return Err(format!("{text} is a run, not a job: open one of its jobs, and take that page's address"));
            }
            _ => return Err(odd()),
        };
        let repo = format!("{owner}/{name}").parse().map_err(|_| odd())?;
        let job = JobId(number(id).ok_or_else(odd)?);
        Ok(Reference { repo: Some(repo), job, host: Some(host) })
    }

    /// Whether the address is one of the GitHub that `base` is the API of, `web` its pages' address.
    ///
    /// # Errors
    /// It is another one's.
    pub fn check_host(&self, base: &str, web: &str) -> Result<(), String> {
        let Some(host) = &self.host else { return Ok(()) };
        let host_of = |address: &str| {
            let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
            rest.split('/').next().unwrap_or_default().to_lowercase()
        };
        let own = [host_of(base), host_of(web)];
        match own.contains(host) || own.iter().any(|own| *host == format!("www.{own}")) {
            true => Ok(()),
            false => Err(format!("that job is at {host}, and github_api in the config is {base}: another GitHub")),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        #[track_caller]
        fn check(text: &str, repo: Option<&str>, id: u64) {
            let found = Reference::parse(text).unwrap();
            assert_eq!((found.repo, found.job), (repo.map(|r| r.parse().unwrap()), JobId(id)), "{text}");
        }
        let app = Some("acme/Tool.js");
        check("61234567890", None, 61_234_567_890);
        check(" 7 ", None, 7);
        check("acme/Tool.js#7", app, 7);
        check("https://github.com/acme/Tool.js/actions/runs/5/job/7", app, 7);
        check("https://github.com/acme/Tool.js/actions/runs/5/job/7?pr=12#step:3:1", app, 7);
        check("https://github.com/acme/Tool.js/actions/runs/5/jobs/7/", app, 7);
        check("https://github.com/acme/Tool.js/actions/runs/5/attempts/2/job/7", app, 7);
        check("https://github.com/acme/Tool.js/runs/7?check_suite_focus=true", app, 7);
        check("https://api.github.com/repos/acme/Tool.js/actions/jobs/7", app, 7);
        check("https://api.github.com/repos/acme/Tool.js/actions/jobs/7/logs", app, 7);
        check("https://api.github.com/repos/acme/Tool.js/check-runs/7", app, 7);
        check("https://ghe.example/api/v3/repos/acme/Tool.js/actions/jobs/7", app, 7);
        check("http://127.0.0.1:8080/acme/Tool.js/actions/runs/5/job/7", app, 7);
    }

    #[test]
    fn what_names_no_job_is_told_with_the_form() {
        #[track_caller]
        fn check(text: &str, part: &str) {
            let error = Reference::parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        for text in
            ["", "0", "-7", "+7", "7x", "99999999999999999999", "acme/app", "acme/app#", "a/b/c#7", "https://", "#7"]
        {
            check(text, "OWNER/REPO#ID");
        }
        check("https://github.com/acme/app", "OWNER/REPO#ID");
        check("https://github.com/acme/app/actions/runs/5/job/x", "OWNER/REPO#ID");
        check("https://github.com/../app/actions/runs/5/job/7", "OWNER/REPO#ID");
        check("https://github.com/acme/app/actions/runs/5", "is a run, not a job");
        check("https://github.com/acme/app/actions/runs/5/workflow", "is a run, not a job");
        check("ftp://github.com/acme/app/actions/runs/5/job/7", "OWNER/REPO#ID");
    }

    #[test]
    fn an_address_must_be_of_the_same_github() {
        #[track_caller]
        fn check(host: &str, base: &str, web: &str, same: bool) {
            let reference = Reference::parse(&format!("https://{host}/a/b/actions/runs/5/job/7")).unwrap();
            assert_eq!(reference.check_host(base, web).is_ok(), same, "{host} {base}");
        }
        let (base, web) = ("https://api.github.com", "https://github.com/a/b");
        check("github.com", base, web, true);
        check("GitHub.com", base, web, true);
        check("www.github.com", base, web, true);
        check("api.github.com", base, web, true);
        check("ghe.example", base, web, false);
        check("github.com.evil.example", base, web, false);
        check("ghe.example", "https://ghe.example/api/v3", "https://ghe.example/a/b", true);
        check("127.0.0.1:80", "http://127.0.0.1:80", "http://127.0.0.1:80/a/b", true);
        assert_eq!(Reference::parse("7").unwrap().check_host(base, web), Ok(()));
    }
}
