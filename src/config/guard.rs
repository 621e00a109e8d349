//! Which repositories' jobs may run here: `repos` and `fork_policy`.

use super::read::{Item, Section};
use crate::model::{RepoName, Scope};

/// A pattern for repositories, `OWNER/NAME`: `*` is any number of letters, `?` is one, neither is the slash. Compared
/// without regard to case, as GitHub does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    /// As it was written.
    text: String,
    owner: Vec<char>,
    name: Vec<char>,
}

impl Glob {
    /// `None` where `text` is not a pattern.
    fn parse(text: &str) -> Option<Glob> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*' | '?');
        let letters =
            |part: &str| (!part.is_empty() && part.chars().all(plain)).then(|| part.to_lowercase().chars().collect());
        let (owner, name) = text.split_once('/')?;
        Some(Glob { text: text.to_owned(), owner: letters(owner)?, name: letters(name)? })
    }

    /// True where the repository is meant.
    pub fn matches(&self, repo: &RepoName) -> bool {
        fits(&self.owner, &repo.owner) && fits(&self.name, &repo.name)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn is_everything(&self) -> bool {
        self.owner == ['*'] && self.name == ['*']
    }
}

/// True where the whole of `text` fits. Remembers only the last `*`, so that no pattern makes it slow.
fn fits(pattern: &[char], text: &str) -> bool {
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(letter) = text.get(seen) {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || wanted == letter => {
                at += 1;
                seen += 1;
            }
            _ => match &mut star {
                // The last `*` takes one letter more.
                Some((place, taken)) => {
                    *taken += 1;
                    (at, seen) = (*place + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|c| *c == '*'))
}

/// Which repositories are served: those that match an `allow` pattern (all, where there is none) and no `deny` pattern.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RepoRules {
    /// Empty: all.
    pub allow: Vec<Glob>,
    /// Goes before `allow`.
    pub deny: Vec<Glob>,
}

impl RepoRules {
    /// `Err` is the `deny` pattern that refuses the repository, or `None` where no `allow` pattern means it.
    pub fn judge(&self, repo: &RepoName) -> Result<(), Option<&Glob>> {
        if let Some(glob) = self.deny.iter().find(|glob| glob.matches(repo)) {
            return Err(Some(glob));
        }
        match self.allow.is_empty() || self.allow.iter().any(|glob| glob.matches(repo)) {
            true => Ok(()),
            false => Err(None),
        }
    }

    /// Warns of patterns whose owner is not among the targets.
    pub(super) fn check_owners(&self, item: &Item<'_>, targets: &[Scope]) {
        let owned = |glob: &Glob| {
            targets.iter().any(|target| match target {
                Scope::Org(org) => fits(&glob.owner, org),
                Scope::Repo(repo) => glob.matches(repo),
                Scope::Enterprise(_) => true,
            })
        };
        for glob in self.allow.iter().chain(&self.deny).filter(|glob| !targets.is_empty() && !owned(glob)) {
            item.warn(format!("{:?} matches no repository of the targets", glob.text));
        }
    }
}

/// Whether jobs whose commits come from a fork run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkPolicy {
    /// They run like all others.
    Allow,
    /// They run where the pull request and its last push are by an owner, member or collaborator.
    Members,
    /// They are refused.
    Deny,
}

impl ForkPolicy {
    /// The policy for a repository: the one of the config, else `members` for public repositories and `allow` for private
    /// ones. Forks of a private repository belong to people with access to it, and GitHub runs their workflows only where
    /// that is switched on.
    pub fn holds(written: Option<ForkPolicy>, public: bool) -> ForkPolicy {
        written.unwrap_or(if public { ForkPolicy::Members } else { ForkPolicy::Allow })
    }
}

/// Rules for tests: patterns between commas; a pattern with a `!` before it denies.
#[cfg(test)]
pub(crate) fn testkit_rules(text: &str) -> RepoRules {
    let (deny, allow): (Vec<&str>, Vec<&str>) = text.split(',').partition(|t| t.starts_with('!'));
    let globs = |texts: Vec<&str>| texts.iter().filter_map(|t| Glob::parse(t.trim_start_matches('!'))).collect();
    RepoRules { allow: globs(allow), deny: globs(deny) }
}

const WANTED: &str = "a list of patterns such as acme/*, or {allow: [acme/*], deny: [acme/secret-*]}";

/// `repos:` at the top or in a class.
pub(super) fn repos(holder: &Section<'_>) -> RepoRules {
    holder.or("repos", RepoRules::default(), rules)
}

fn rules(item: &Item<'_>) -> Option<RepoRules> {
    if matches!(item.node, super::node::Node::List(_)) {
        return Some(RepoRules { allow: globs(item)?, deny: Vec::new() });
    }
    if !matches!(item.node, super::node::Node::Map(_)) {
        return item.refuse(format!("is {}", item.node.kind()), format!("write {WANTED}"));
    }
    let section = Section::new(item, &["allow", "deny"])?;
    let part = |key: &str| section.or(key, Vec::new(), globs);
    let rules = RepoRules { allow: part("allow"), deny: part("deny") };
    if rules.deny.iter().any(Glob::is_everything) {
        return item.at("deny").refuse("refuses every repository: no job would ever be served", "be more exact");
    }
    Some(rules)
}

fn globs(item: &Item<'_>) -> Option<Vec<Glob>> {
    let globs = item.each(WANTED, |item| {
        let text = item.text("a pattern such as acme/*")?;
        let found = Glob::parse(text);
        if found.is_none() {
            let fix = match text.strip_prefix('!') {
                Some(_) => "patterns that refuse go into deny: repos: {allow: […], deny: […]}".to_owned(),
                None if !text.contains('/') => format!("write OWNER/NAME; all of an owner's are {text}/*"),
                None => "write OWNER/NAME, where * stands for any letters and ? for one".to_owned(),
            };
            item.error(format!("{text:?} is not a pattern for repositories"), fix);
        }
        found
    })?;
    if globs.is_empty() {
        return item.refuse("is empty", format!("write {WANTED}, or leave it out"));
    }
    Some(globs)
}

const POLICIES: &str = "auto, allow, members or deny";

/// `fork_policy:`. The outer `None` is an error, the inner one is `auto`.
pub(super) fn fork_policy(item: &Item<'_>) -> Option<Option<ForkPolicy>> {
    match item.text(POLICIES)? {
        "auto" => Some(None),
        "allow" => Some(Some(ForkPolicy::Allow)),
        "members" => Some(Some(ForkPolicy::Members)),
        "deny" => Some(Some(ForkPolicy::Deny)),
        other => item.refuse(format!("{other:?} is not a policy"), format!("write {POLICIES}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_whole_names_whatever_the_case() {
        let check = |pattern: &str, repo: &str, means: bool| {
            let glob = Glob::parse(pattern).unwrap();
            assert_eq!(glob.matches(&repo.parse().unwrap()), means, "{pattern} {repo}");
        };
        check("acme/app", "Acme/App", true);
        check("ACME/*", "acme/app", true);
        check("acme/*", "acme2/app", false);
        check("*/app", "acme/app", true);
        check("acme/app", "acme/app2", false);
        check("acme/app-*", "acme/app-", true);
        check("acme/*-*-x", "acme/a-b-c-x", true);
        check("acme/*-*-x", "acme/a-x", false);
        check("acme/a?p", "acme/app", true);
        check("acme/a?p", "acme/ap", false);
        check("acme/**", "acme/app", true);
        check("a*e/*.js", "acme/tool.js", true);
        let slow = format!("acme/{}b", "a*".repeat(40));
        check(&slow, &format!("acme/{}", "a".repeat(90)), false);
    }

    #[test]
    fn what_is_no_pattern() {
        for text in ["", "acme", "/", "acme/", "/app", "a/b/c", "!acme/*", "acme/[ab]", "acme/{a,b}", "acme/a b", "é/x"]
        {
            assert_eq!(Glob::parse(text), None, "{text}");
        }
    }

    #[test]
    fn deny_goes_before_allow() {
        let globs = |texts: &[&str]| texts.iter().map(|t| Glob::parse(t).unwrap()).collect::<Vec<_>>();
        let rules = RepoRules { allow: globs(&["acme/*"]), deny: globs(&["acme/secret-*"]) };
        let check = |rules: &RepoRules, repo: &str, expected: Result<(), Option<&str>>| {
            let repo = repo.parse().unwrap();
            assert_eq!(rules.judge(&repo).map_err(|glob| glob.map(Glob::as_str)), expected, "{repo}");
        };
        check(&rules, "acme/app", Ok(()));
        check(&rules, "acme/Secret-1", Err(Some("acme/secret-*")));
        check(&rules, "other/app", Err(None));
        check(&RepoRules::default(), "other/app", Ok(()));
        check(&RepoRules { allow: vec![], ..rules }, "other/app", Ok(()));
    }
}
