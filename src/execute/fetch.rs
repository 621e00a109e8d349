//! Fetches runner packages, and images of image servers.

use std::time::Instant;

use log::info;

use super::Executor;
use crate::config::{Class, Origin};
use crate::lxd::{ErrorKind, Patience, Progress, RemoteImage};
use crate::model::{RunnerArch, Scope};
use crate::runner::package::life_of;
use crate::world::{Outcome, Subject};

impl Executor {
    /// Has LXD or Incus fetch an image server's image.
    pub(super) fn fetch_image(&self, class: &Class) -> Outcome {
        let product = self.lxd.product();
        let Some(origin) = class.image.origin(product) else {
            return Outcome::Clash { reason: "its image is this server's own".to_owned() };
        };
        let Origin { server, protocol, alias } = &origin;
        let image = RemoteImage { server, protocol, alias, kind: class.kind };
        let begun = Instant::now();
        let seen = |progress: &Progress| {
            let (status, seconds) = (&progress.status, begun.elapsed().as_secs());
            info!(
                "class={:?} image={alias} status={status:?} msg=\"fetching the image\" seconds={seconds}",
                class.name
            );
        };
        let (quiet, longest) = (self.config.provision_timeout, self.config.longest_making());
        match self.lxd.fetch_image(&class.project, &image, &Patience { quiet, until: begun + longest, seen: &seen }) {
            Ok(fingerprint) => {
                info!("class={:?} image={alias} fingerprint={fingerprint} msg=\"image fetched\"", class.name);
                Outcome::ImageFetched { fingerprint }
            }
            Err(error) => {
                let fix = match error.kind {
                    ErrorKind::Stalled => {
                        format!("see whether this host reaches {server}; on a slow line raise provision_timeout")
                    }
                    ErrorKind::Timeout if begun.elapsed() >= longest => {
                        format!(
                            "the fetch of an image may take {} s; {product} goes on, and the next try waits for it",
                            longest.as_secs()
                        )
                    }
                    _ => origin
                        .of_other_product(product)
                        .unwrap_or_else(|| format!("see whether the server has it: {}", origin.list_command(product))),
                };
                let reason = format!("{error}; {fix}");
                Outcome::NotMade { blame: Subject::Bake(class.name.clone()), reason, made: false }
            }
        }
    }

    /// Fetches the newest, or the pinned, package into the cache.
    pub(super) fn fetch_package(&self, arch: RunnerArch, scope: &Scope) -> Outcome {
        let wanted = self.config.runner_version.as_deref();
        match self.packages.ensure(&self.github, scope, arch, wanted) {
            Ok(package) => {
                let life = life_of(&self.github, scope, arch, &package.version);
                Outcome::PackageReady { version: package.version, life }
            }
            Err(error) => {
                let cached = self.packages.cached(arch, wanted).map(|package| package.version);
                let reason = match &cached {
                    Some(version) => format!("{error}; version {version} is in the cache and is used meanwhile"),
                    None => error.to_string(),
                };
                Outcome::PackageFailed { reason, cached }
            }
        }
    }
}
