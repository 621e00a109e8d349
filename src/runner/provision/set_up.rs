//! Sets an instance up: the package, the scripts, and what the class asks for.

use std::fs::File;
use std::time::Instant;

use log::debug;

use super::{DIRECTORY, ENVIRONMENT_SCRIPT, Failure, Provision, SETUP_LOG, SETUP_SCRIPT, START_SCRIPT};
use crate::config::Inside;
use crate::model::ConfigMap;
use crate::runner::package::Package;

const START: &str = "start-runner.sh";
const SETUP: &str = "setup-runner.sh";

/// A script of the set-up.
struct Script<'a> {
    /// Its name in messages.
    what: &'static str,
    /// Its file in the instance.
    file: &'static str,
    text: &'a str,
}

impl Provision<'_> {
    /// Pushes the package and the scripts, and sets the runner up; `baking` tells the scripts that copies follow.
    ///
    /// # Errors
    /// LXD's errors; a failed script's message.
    pub fn prepare(&self, package: &Package, baking: bool) -> Result<(), Failure> {
        self.lxd.make_directory(&self.class.project, self.name, DIRECTORY, 0o755)?;
        self.push_package(package)?;
        self.push(START, START_SCRIPT)?;
        self.push("environment.sh", ENVIRONMENT_SCRIPT)?;
        let inside = &self.class.inside;
        for (file, text) in files(inside) {
            self.push(file, &text)?;
        }
        let begun = Instant::now();
        // The built-in set-up waits for boot and network by itself; a script that runs before it must find both.
        if !inside.authorities.is_empty() {
            self.run(START, START, Some("trust"), baking)?;
        } else if inside.before.is_some() {
            self.run(START, START, Some("await"), baking)?;
        }
        if let Some(text) = &inside.before {
            self.run_script(&Script { what: "setup_script.before", file: "setup-before.sh", text }, baking)?;
        }
        self.run_script(
            &match inside.instead.as_deref() {
                Some(text) => Script { what: "setup_script", file: SETUP, text },
                None => Script { what: SETUP, file: SETUP, text: SETUP_SCRIPT },
            },
            baking,
        )?;
        if let Some(text) = &inside.after {
            self.run_script(&Script { what: "setup_script.after", file: "setup-after.sh", text }, baking)?;
        }
        debug!("instance={} step=setup took={:?}", self.name, begun.elapsed());
        Ok(())
    }

    fn push_package(&self, package: &Package) -> Result<(), Failure> {
        let path = &package.path;
        let file = |source| Failure::File { path: path.display().to_string(), source };
        let mut content = File::open(path).map_err(file)?;
        let length = content.metadata().map_err(file)?.len();
        let begun = Instant::now();
        let left = self.left("push the runner package")?;
        let target = format!("{DIRECTORY}/package.tar.gz");
        self.lxd.push_file(&self.class.project, self.name, &target, 0o644, &mut content, length, left)?;
        debug!("instance={} step=push bytes={length} took={:?}", self.name, begun.elapsed());
        Ok(())
    }

    fn run_script(&self, script: &Script<'_>, baking: bool) -> Result<(), Failure> {
        self.push(script.file, script.text)?;
        self.run(script.what, script.file, None, baking)
    }

    fn run(&self, what: &'static str, file: &str, argument: Option<&str>, baking: bool) -> Result<(), Failure> {
        let program = format!("{DIRECTORY}/{file}");
        let command: Vec<&str> = [program.as_str()].into_iter().chain(argument).collect();
        let running = self.begin_script(&command, self.environment(what, baking)?)?;
        self.end_script(what, &running, SETUP_LOG).map(drop)
    }

    /// The environment of the set-up scripts.
    fn environment(&self, what: &'static str, baking: bool) -> Result<ConfigMap, Failure> {
        let inside = &self.class.inside;
        let mut environment = inside.env.clone();
        let mut tell = |name: &str, value: String| drop(environment.insert(format!("LXDRUNNER_{name}"), value));
        tell("SETUP_TIMEOUT", self.waiting_time(what)?);
        tell("GITHUB", self.github.clone());
        tell("NAME", self.name.to_owned());
        tell("CLASS", self.class.name.clone());
        for (name, asked) in [("BAKING", baking), ("DOCKER", inside.docker)] {
            if asked {
                tell(name, "1".to_owned());
            }
        }
        if !inside.packages.is_empty() {
            tell("PACKAGES", inside.packages.join(" "));
        }
        Ok(environment)
    }
}

/// The files that `start-runner.sh` looks for beside itself, if the class asks for them.
fn files(inside: &Inside) -> Vec<(&'static str, String)> {
    let lines = inside.env.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let hook = |text: &Option<String>| text.clone().unwrap_or_default();
    let files = [
        ("environment", lines),
        ("authorities.pem", inside.authorities.concat()),
        ("job-started.sh", hook(&inside.job_started)),
        ("job-completed.sh", hook(&inside.job_completed)),
    ];
    files.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}
