//! The names of packages. They come from the network and become paths, so only GitHub's pattern is accepted.

use std::cmp::Ordering;

use crate::model::RunnerArch;

/// `2.330.0`: numbers with dots between, compared as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version(String);

impl Version {
    pub fn parse(text: &str) -> Option<Version> {
        let number = |part: &str| (1..=9).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        let parts = text.split('.').count();
        ((2..=4).contains(&parts) && text.split('.').all(number)).then(|| Version(text.to_owned()))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        self.0.split('.').map(|part| part.parse().unwrap_or(0))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        // The text decides between 1.02 and 1.2, so that equal means the same everywhere.
        self.numbers().cmp(other.numbers()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A package's name: `actions-runner-linux-x64-2.330.0.tar.gz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub arch: RunnerArch,
    pub version: Version,
}

impl Name {
    /// `None` if it is not a package of this architecture.
    pub fn parse(file: &str, arch: RunnerArch) -> Option<Name> {
        let rest = file.strip_prefix("actions-runner-linux-")?.strip_prefix(arch.as_str())?;
        let version = Version::parse(rest.strip_prefix('-')?.strip_suffix(".tar.gz")?)?;
        Some(Name { arch, version })
    }

    pub fn file(&self) -> String {
        format!("actions-runner-linux-{}-{}.tar.gz", self.arch, self.version.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_whole_or_not_at_all() {
        let check = |file: &str, version: Option<&str>| {
            let name = Name::parse(file, RunnerArch::Arm);
            assert_eq!(name.as_ref().map(|name| name.version.text()), version, "{file}");
            assert!(name.is_none_or(|name| name.file() == file));
        };
        check("actions-runner-linux-arm-2.330.0.tar.gz", Some("2.330.0"));
        check("actions-runner-linux-arm64-2.330.0.tar.gz", None);
        check("actions-runner-linux-arm-.tar.gz", None);
        check("actions-runner-linux-arm-2.330.0.tar.gz.part", None);
        check("actions-runner-linux-arm-../../2.0.tar.gz", None);
        check("../actions-runner-linux-arm-2.330.0.tar.gz", None);
        check("actions-runner-linux-arm-2..0.tar.gz", None);
        check("actions-runner-linux-arm-2.330.0\0.tar.gz", None);
        check("actions-runner-linux-arm-2.99999999999999999999.0.tar.gz", None);
        check("", None);
    }

    #[test]
    fn versions_are_numbers() {
        let version = |text: &str| Version::parse(text).unwrap();
        assert!(version("2.10.0") > version("2.9.9"));
        assert!(version("2.9.0") > version("2.9"));
        for text in ["", "2", "v2.1", "2.1-beta", "2.1.", "latest", "1.2.3.4.5", "-1.0"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
