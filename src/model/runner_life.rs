//! How long GitHub accepts a version of the runner.

use std::time::Duration;

use super::Timestamp;

/// When GitHub stops accepting a version of the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunnerEnd {
    /// `None`: no end is announced.
    pub at: Option<Timestamp>,
}

/// The state of a version of the runner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunnerLife {
    /// `None`: GitHub does not say.
    pub end: Option<RunnerEnd>,
    /// A newer version that GitHub offers.
    pub newer: Option<String>,
}

/// Warn this long before a version expires.
const END_IS_NEAR: Duration = Duration::from_secs(14 * 24 * 3600);

impl RunnerLife {
    /// What is wrong with `version`, or soon will be, with the fix; the flag is true where GitHub refuses it already.
    pub fn trouble(&self, version: &str, now: Timestamp) -> Option<(String, bool)> {
        let fix = match &self.newer {
            Some(newer) => format!("set runner_version to {newer}, or to latest"),
            None => "GitHub offers no newer one yet; it is looked for every day".to_owned(),
        };
        match (self.end.map(|end| end.at), &self.newer) {
            (Some(Some(at)), _) if at <= now => {
                Some((format!("GitHub refuses runner {version} since {}; {fix}", at.to_rfc3339()), true))
            }
            (Some(Some(at)), _) if at.since(now) < END_IS_NEAR => {
                let days = at.since(now).as_secs() / 86_400;
                Some((
                    format!("GitHub refuses runner {version} from {} on, in {days} days; {fix}", at.to_rfc3339()),
                    false,
                ))
            }
            (None, Some(newer)) => Some((
                format!(
                    "runner {newer} is out, and GitHub gives jobs to {version} for 30 days after that at the most; set \
                     runner_version to {newer}, or to latest"
                ),
                false,
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_versions_end_is_told_before_it_comes() {
        let now = Timestamp(1_800_000_000_000);
        let day = 86_400_000;
        #[track_caller]
        fn check(end: Option<Option<Timestamp>>, newer: Option<&str>, now: Timestamp, said: Option<(&str, bool)>) {
            let life = RunnerLife { end: end.map(|at| RunnerEnd { at }), newer: newer.map(str::to_owned) };
            let found = life.trouble("2.330.0", now);
            assert_eq!(found.as_ref().map(|(_, refused)| *refused), said.map(|(_, refused)| refused), "{found:?}");
            let (Some((text, _)), Some((part, _))) = (found, said) else { return };
            assert!(text.contains(part), "{text}");
        }
        let at = |days: u64| Some(Some(Timestamp(now.0 + days * day + 1)));
        check(None, None, now, None);
        check(Some(None), Some("2.331.0"), now, None);
        check(at(14), Some("2.331.0"), now, None);
        check(at(13), Some("2.331.0"), now, Some(("in 13 days; set runner_version to 2.331.0, or to latest", false)));
        check(at(0), None, now, Some(("in 0 days; GitHub offers no newer one yet", false)));
        check(Some(Some(now)), Some("2.331.0"), now, Some(("GitHub refuses runner 2.330.0 since 2027-", true)));
        check(None, Some("2.331.0"), now, Some(("for 30 days after that at the most", false)));
    }
}
