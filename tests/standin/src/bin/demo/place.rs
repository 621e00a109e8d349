//! Where the demo takes place: which LXD, which image, and at which address runners reach the GitHub stand-in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Trouble;
use super::args::Options;
use lxdrunner::config::{find_socket, socket_candidates};
use lxdrunner::lxd::Lxd;
use lxdrunner::model::RunnerArch;
use standin::farm;
use standin::lxd::LxdStandin;

/// The image that `provision/try.sh` makes.
const OWN_IMAGE: &str = "lxdrunner-base";

/// The place.
pub struct Place {
    /// LXD's socket, or its stand-in's.
    pub socket: PathBuf,
    pub lxd: Arc<Lxd>,
    /// The image's alias.
    pub image: String,
    /// Where the GitHub stand-in listens.
    pub bind: SocketAddr,
    /// One line for the user.
    pub description: String,
    /// Ends with the place.
    _standin: Option<LxdStandin>,
}

/// This machine's architecture in GitHub's words.
pub fn host_arch() -> RunnerArch {
    match std::env::consts::ARCH {
        "aarch64" => RunnerArch::Arm64,
        "arm" => RunnerArch::Arm,
        _ => RunnerArch::X64,
    }
}

impl Place {
    /// The real LXD where one answers, unless it is not wanted; else the stand-in.
    pub fn find(options: &Options, directory: &Path) -> Result<Place, Trouble> {
        if options.standin {
            return Place::standin(
                directory,
                "The LXD of this demo is a stand-in, as asked for: no container is started.",
            );
        }
        if let Some(socket) = &options.socket {
            return Place::real(socket, options.image.as_deref());
        }
        let candidates = socket_candidates();
        let why = match find_socket(&candidates).map(|socket| (socket, Lxd::new(socket).server())) {
            Some((socket, Ok(server))) if server.trusted => return Place::real(socket, options.image.as_deref()),
            Some((socket, Ok(_))) => format!("LXD at {} does not trust this user", socket.display()),
            Some((_, Err(error))) => format!("LXD does not answer ({error})"),
            None => {
                let looked: Vec<String> = candidates.iter().map(|p| p.display().to_string()).collect();
                format!("No LXD is found (looked for {})", looked.join(", "))
            }
        };
        Place::standin(directory, &format!("{why}: the LXD of this demo is a stand-in, no container is started."))
    }

    fn standin(directory: &Path, description: &str) -> Result<Place, Trouble> {
        let lxd = directory.join("lxd");
        std::fs::create_dir(&lxd)
            .map_err(|error| super::failed("cannot make a directory for the LXD stand-in")(&error))?;
        let standin = farm::lxd(&lxd).map_err(|error| super::failed("cannot start the LXD stand-in")(&error))?;
        Ok(Place {
            socket: standin.socket().to_owned(),
            lxd: Arc::new(Lxd::new(standin.socket())),
            image: farm::IMAGE.to_owned(),
            bind: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            description: description.to_owned(),
            _standin: Some(standin),
        })
    }

    fn real(socket: &Path, image: Option<&str>) -> Result<Place, Trouble> {
        let lxd = Lxd::new(socket);
        let asked = |error: lxdrunner::lxd::Error| Trouble::Failed(error.to_string());
        let server = lxd.server().map_err(asked)?;
        if !server.trusted {
            return Err(Trouble::Failed(format!(
                "{} does not trust this user; run as root or in the group {}",
                socket.display(),
                server.product.group()
            )));
        }
        let client = server.product.client();
        let image = match image {
            Some(alias) if lxd.image_alias("default", alias).map_err(asked)?.is_some() => alias.to_owned(),
            Some(alias) => {
                let mend = format!("there is no image {alias:?} here; copy one: {client} image copy images:debian/12 local: --alias {alias}");
                return Err(Trouble::Usage(mend));
            }
            None => any_image(&lxd).map_err(asked)?.ok_or_else(|| {
                Trouble::Usage(format!("there is no image of a container with an alias here; run provision/try.sh, or: {client} image copy images:debian/12 local: --alias debian-12"))
            })?,
        };
        let address = bridge_address(&lxd).map_err(asked)?.ok_or_else(|| {
            Trouble::Usage(format!("the profile `default` has no nic on a managed bridge with an IPv4 address, so that containers could reach the GitHub stand-in on this host; see {client} profile show default"))
        })?;
        let description = format!(
            "Real containers: {} {} at {}, image {image}. Only GitHub is a stand-in.",
            server.product,
            server.version,
            socket.display()
        );
        Ok(Place {
            socket: socket.to_owned(),
            lxd: Arc::new(lxd),
            image,
            bind: SocketAddr::new(address, 0),
            description,
            _standin: None,
        })
    }
}

/// Our own image where it is there, else any of a container.
fn any_image(lxd: &Lxd) -> Result<Option<String>, lxdrunner::lxd::Error> {
    let images = lxd.images("default")?;
    let containers = images.iter().filter(|image| image.kind != "virtual-machine");
    let mut aliases: Vec<String> = containers.flat_map(|image| image.aliases()).map(str::to_owned).collect();
    aliases.sort_by_key(|alias| alias != OWN_IMAGE);
    Ok(aliases.into_iter().next())
}

/// The host's own address on the bridge that containers of the profile `default` are on.
fn bridge_address(lxd: &Lxd) -> Result<Option<IpAddr>, lxdrunner::lxd::Error> {
    let Some(profile) = lxd.profile("default", "default")? else { return Ok(None) };
    for device in profile.devices.values() {
        let Some(network) = device.get("network").or_else(|| device.get("parent")) else { continue };
        let address = lxd.network("default", network)?.and_then(|n| n.config.get("ipv4.address").cloned());
        let host = address.as_deref().and_then(|a| a.split('/').next()?.parse().ok());
        if host.is_some() {
            return Ok(host);
        }
    }
    Ok(None)
}
