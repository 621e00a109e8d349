//! Finds the config file and the socket of LXD.

use std::env;
use std::path::{Path, PathBuf};

use super::node::NotYaml;
use super::report::ConfigErrors;
use super::{Config, Warning, file, node, top};

/// No config file is nearly as long; a longer one is some other file.
const LONGEST_FILE: u64 = 1024 * 1024;

const SERVICE_FILE: &str = "/etc/lxdrunner/config.yml";

impl Config {
    /// Reads and checks a config file. `Err` holds everything that is wrong with it.
    pub fn load(path: &Path) -> Result<(Config, Vec<Warning>), ConfigErrors> {
        let text = read_text(path)?;
        let tree = node::parse(&text).map_err(|error| not_yaml(path, &text, error))?;
        top::config(path, &text, &tree)
    }

    /// The config file: `explicit` where it is given, else `$LXDRCFG`, which the Python daemon reads, else the first that
    /// exists of `./config.yml`, `$XDG_CONFIG_HOME/lxdrunner/config.yml` (`~/.config` where that is not set) and
    /// `/etc/lxdrunner/config.yml`.
    pub fn find(explicit: Option<PathBuf>) -> Result<PathBuf, String> {
        let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        match (explicit, set("LXDRCFG")) {
            (Some(path), Some(other)) if path != other => {
                let (path, other) = (path.display(), other.display());
                return Err(format!("-c names {path} and LXDRCFG in the environment {other} — unset LXDRCFG"));
            }
            (Some(path), _) | (None, Some(path)) => return Ok(path),
            (None, None) => {}
        }
        first_file(&config_candidates(set("XDG_CONFIG_HOME"), set("HOME")))
    }
}

fn config_candidates(xdg: Option<PathBuf>, home: Option<PathBuf>) -> Vec<PathBuf> {
    let personal = xdg.filter(|p| p.is_absolute()).or_else(|| home.map(|h| h.join(".config")));
    let mut candidates = vec![PathBuf::from("config.yml")];
    candidates.extend(personal.map(|p| p.join("lxdrunner/config.yml")));
    candidates.push(PathBuf::from(SERVICE_FILE));
    candidates
}

/// A file that exists but cannot be read is taken too: loading it then reports why, and no other file is used.
fn first_file(candidates: &[PathBuf]) -> Result<PathBuf, String> {
    let found = candidates.iter().find(|p| p.symlink_metadata().is_ok());
    found.cloned().ok_or_else(|| {
        let all: Vec<String> = candidates.iter().map(|p| p.display().to_string()).collect();
        format!(
            "no config file: looked for {} — copy config.yml.example to one of these, or use -c FILE",
            all.join(", ")
        )
    })
}

/// Says that `found` is read and not the file of the service, where that is there.
pub fn passed_over(found: &Path) -> Option<String> {
    instead_of(found, Path::new(SERVICE_FILE))
}

fn instead_of(found: &Path, other: &Path) -> Option<String> {
    let is_other = other.exists() && found.canonicalize().ok() != other.canonicalize().ok();
    is_other.then(|| format!("the config file is {}, found before {1} (-c {1})", found.display(), other.display()))
}

fn read_text(path: &Path) -> Result<String, ConfigErrors> {
    let complain = |line, what: &str, fix: &str| ConfigErrors::one(path, line, what, fix);
    let bytes = file::read(path, LONGEST_FILE).map_err(|error| {
        use std::io::ErrorKind;
        let fix = match error.kind() {
            ErrorKind::NotFound => "copy config.yml.example there, or use -c FILE",
            ErrorKind::PermissionDenied => super::secret::cannot_open(),
            ErrorKind::FileTooLarge => "is this the config file?",
            ErrorKind::IsADirectory => "name the file in it: -c DIRECTORY/config.yml",
            _ => "see whether the file is readable",
        };
        complain(None, &format!("cannot read the config file: {error}"), fix)
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = 1 + before.filter(|b| **b == b'\n').count();
        complain(Some(line), "is not UTF-8 here", "save the file as UTF-8")
    })?;
    let empty = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#') || line.trim() == "---";
    if text.lines().all(empty) {
        return Err(complain(None, "is empty", "copy config.yml.example and edit it"));
    }
    Ok(text)
}

fn not_yaml(path: &Path, text: &str, error: NotYaml) -> ConfigErrors {
    let line = match &error {
        NotYaml::Malformed(error) => error.location().map(|at| at.line()),
        NotYaml::Misfit(line) => *line,
        NotYaml::Documents => None,
    };
    let tabbed = |n: usize| {
        let indent = |l: &str| l.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t');
        text.lines().nth(n.wrapping_sub(1)).is_some_and(indent)
    };
    let tab = line.and_then(|n| [n, n + 1].into_iter().find(|n| tabbed(*n)));
    if let Some(tab) = tab {
        return ConfigErrors::one(path, Some(tab), "a tab in the indentation", "YAML wants spaces there, not tabs");
    }
    let check = "check the indentation, colons and quotes around here";
    match error {
        NotYaml::Documents => {
            ConfigErrors::one(path, None, "holds more than one YAML document", "remove the `---` between them")
        }
        NotYaml::Malformed(error) => ConfigErrors::one(path, line, &format!("is not YAML: {error}"), check),
        NotYaml::Misfit(_) => {
            let what = "a value does not fit its YAML tag, a key is not plain text, or it is nested too deeply";
            ConfigErrors::one(path, line, what, check)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_files_are_looked_for_in_order() {
        let check = |xdg: Option<&str>, home: Option<&str>, second: Option<&str>| {
            let mut wanted = vec![PathBuf::from("config.yml")];
            wanted.extend(second.map(PathBuf::from));
            wanted.push(PathBuf::from("/etc/lxdrunner/config.yml"));
            assert_eq!(config_candidates(xdg.map(PathBuf::from), home.map(PathBuf::from)), wanted);
        };
        check(Some("/x"), Some("/h"), Some("/x/lxdrunner/config.yml"));
        check(None, Some("/h"), Some("/h/.config/lxdrunner/config.yml"));
        // The XDG base directory specification says to ignore a relative one.
        check(Some("x"), Some("/h"), Some("/h/.config/lxdrunner/config.yml"));
        check(None, None, None);
    }

    #[test]
    fn a_file_that_is_passed_over_is_known_for_another_one() {
        let here = Path::new("Cargo.toml");
        let whole = here.canonicalize().unwrap();
        let words = "the config file is Cargo.toml, found before README.md (-c README.md)";
        assert_eq!(instead_of(here, Path::new("README.md")).as_deref(), Some(words));
        assert_eq!(instead_of(here, &whole), None);
        assert_eq!(instead_of(here, Path::new("/nowhere/config.yml")), None);
    }

    #[test]
    fn where_there_is_none_all_places_are_named() {
        let error = first_file(&["/nowhere/a.yml".into(), "/nowhere/b.yml".into()]).unwrap_err();
        assert!(error.contains("/nowhere/a.yml, /nowhere/b.yml") && error.contains("-c FILE"), "{error}");
    }
}
