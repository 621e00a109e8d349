//! Images: which one a class names, and from which server it comes.

use std::collections::BTreeMap;
use std::fmt;

use super::read::Item;
use crate::model::Product;

/// An image server that the file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// `https://…`, without a closing slash.
    pub addr: String,
    /// `simplestreams` or `lxd`.
    pub protocol: String,
}

/// Names of image servers that need not be written down. Where they lead to depends on the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicRemote {
    /// `images`: many distributions, built for the product.
    Images,
    /// `ubuntu`: Ubuntu's own images.
    Ubuntu,
}

/// An image, as written `[remote:]alias-or-fingerprint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageRef {
    /// Alias or fingerprint on the server itself.
    Local(String),
    /// On an image server of `remotes`.
    Remote {
        /// The remote's name in the config.
        remote: String,
        /// Its address.
        server: String,
        /// `simplestreams` or `lxd`.
        protocol: String,
        /// Alias or fingerprint there.
        alias: String,
    },
    /// On a public image server that the file does not name.
    Public {
        /// Which.
        remote: PublicRemote,
        /// As written.
        alias: String,
    },
}

/// Where the server is to fetch an image from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The image server's address.
    pub server: String,
    /// `simplestreams` or `lxd`.
    pub protocol: String,
    /// Alias or fingerprint there.
    pub alias: String,
}

/// For Incus, LXD's images being built for LXD alone.
const INCUS_IMAGES: &str = "https://images.linuxcontainers.org";
const LXD_IMAGES: &str = "https://images.lxd.canonical.com";
/// As `lxc` has it, closing slash included.
const UBUNTU: &str = "https://cloud-images.ubuntu.com/releases/";

impl PublicRemote {
    /// By the name that a config file uses.
    pub fn named(name: &str) -> Option<PublicRemote> {
        match name {
            "images" => Some(PublicRemote::Images),
            "ubuntu" => Some(PublicRemote::Ubuntu),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            PublicRemote::Images => "images",
            PublicRemote::Ubuntu => "ubuntu",
        }
    }

    /// Ubuntu's own server has nothing for Incus; there `ubuntu:24.04` is the image of the same release, with cloud-init
    /// as Ubuntu's has it, of the server that has images for Incus.
    fn origin(self, product: Product, alias: &str) -> (&'static str, String) {
        match (self, product) {
            (PublicRemote::Images, Product::Lxd) => (LXD_IMAGES, alias.to_owned()),
            (PublicRemote::Images, Product::Incus) => (INCUS_IMAGES, alias.to_owned()),
            (PublicRemote::Ubuntu, Product::Lxd) => (UBUNTU, alias.to_owned()),
            (PublicRemote::Ubuntu, Product::Incus) => match alias.split_once('/') {
                Some((release, arch)) => (INCUS_IMAGES, format!("ubuntu/{release}/cloud/{arch}")),
                None => (INCUS_IMAGES, format!("ubuntu/{alias}/cloud")),
            },
        }
    }
}

impl ImageRef {
    /// Where `product` fetches it from; `None` where it is on the server already.
    pub fn origin(&self, product: Product) -> Option<Origin> {
        match self {
            ImageRef::Local(_) => None,
            ImageRef::Remote { server, protocol, alias, .. } => {
                Some(Origin { server: server.clone(), protocol: protocol.clone(), alias: alias.clone() })
            }
            ImageRef::Public { remote, alias } => {
                let (server, alias) = remote.origin(product, alias);
                Some(Origin { server: server.to_owned(), protocol: "simplestreams".to_owned(), alias })
            }
        }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageRef::Local(name) => f.write_str(name),
            ImageRef::Remote { remote, alias, .. } => write!(f, "{remote}:{alias}"),
            ImageRef::Public { remote, alias } => write!(f, "{}:{alias}", remote.name()),
        }
    }
}

impl Origin {
    /// The command that lists the server's images, for hints. The client knows the public servers by names of its own; any
    /// other server must be added first.
    pub fn list_command(&self, product: Product) -> String {
        let client = product.client();
        let name = match (self.server.trim_end_matches('/'), product) {
            (INCUS_IMAGES, Product::Incus) | (LXD_IMAGES, Product::Lxd) => "images",
            (server, Product::Lxd) if server == UBUNTU.trim_end_matches('/') => "ubuntu",
            (server, _) => {
                let protocol = &self.protocol;
                return format!(
                    "{client} remote add NAME {server} --protocol={protocol} && {client} image list NAME: {}",
                    self.alias
                );
            }
        };
        format!("{client} image list {name}: {}", self.alias)
    }

    /// The fault and the fix where the server is a public one that has images for the other product only.
    pub fn of_other_product(&self, product: Product) -> Option<String> {
        let host = self.server.split("://").nth(1)?.split('/').next()?;
        let (theirs, fix) = match (host, product) {
            ("images.linuxcontainers.org", Product::Lxd) => {
                (Product::Incus, format!("write addr: {LXD_IMAGES}, or leave this remote out: images is built in"))
            }
            ("images.lxd.canonical.com", Product::Incus) => {
                (Product::Lxd, format!("write addr: {INCUS_IMAGES}, or leave this remote out: images is built in"))
            }
            ("cloud-images.ubuntu.com", Product::Incus) => (
                Product::Lxd,
                "leave this remote out: ubuntu is built in, and for Incus it leads to a server that has them"
                    .to_owned(),
            ),
            _ => return None,
        };
        Some(format!("{} has images for {theirs} only, not for {product} — {fix}", self.server))
    }
}

/// A class's `image`.
pub(super) fn image(item: &Item<'_>, remotes: &BTreeMap<String, Remote>) -> Option<ImageRef> {
    let text = item.scalar()?;
    let (remote, alias) = match text.split_once(':') {
        None => (None, text.as_str()),
        Some(("main" | "local", alias)) => (None, alias),
        Some((remote, alias)) => (Some(remote), alias),
    };
    if alias.is_empty() || alias.contains(|c: char| c.is_whitespace() || c.is_control()) || alias.len() > 255 {
        return item.refuse(format!("{text:?} is not an image"), "write [REMOTE:]ALIAS or [REMOTE:]FINGERPRINT");
    }
    let alias = alias.to_owned();
    let Some(name) = remote else { return Some(ImageRef::Local(alias)) };
    if let Some(Remote { addr, protocol }) = remotes.get(name) {
        let (server, protocol) = (addr.clone(), protocol.clone());
        return Some(ImageRef::Remote { remote: name.to_owned(), server, protocol, alias });
    }
    if let Some(remote) = PublicRemote::named(name) {
        return Some(ImageRef::Public { remote, alias });
    }
    let known: Vec<&str> = ["images", "ubuntu"].into_iter().chain(remotes.keys().map(String::as_str)).collect();
    let fix = format!("known are {}; add others under remotes", known.join(", "));
    item.refuse(format!("unknown remote {name:?}"), fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(remote: &str, alias: &str, product: Product, server: &str, there: &str) {
        let image = ImageRef::Public { remote: PublicRemote::named(remote).unwrap(), alias: alias.to_owned() };
        let origin = image.origin(product).unwrap();
        assert_eq!((origin.server.as_str(), origin.alias.as_str()), (server, there));
        assert_eq!(origin.of_other_product(product), None);
    }

    #[test]
    fn each_product_has_public_image_servers_of_its_own() {
        let ubuntu = "https://cloud-images.ubuntu.com/releases/";
        check("ubuntu", "24.04", Product::Lxd, ubuntu, "24.04");
        check("ubuntu", "24.04/arm64", Product::Lxd, ubuntu, "24.04/arm64");
        check("images", "debian/12/cloud", Product::Lxd, "https://images.lxd.canonical.com", "debian/12/cloud");
        let incus = "https://images.linuxcontainers.org";
        check("ubuntu", "24.04", Product::Incus, incus, "ubuntu/24.04/cloud");
        check("ubuntu", "noble/arm64", Product::Incus, incus, "ubuntu/noble/cloud/arm64");
        check("images", "debian/12/cloud", Product::Incus, incus, "debian/12/cloud");
    }

    #[test]
    fn a_public_server_of_the_other_product_is_known() {
        let origin = |server: &str| Origin { server: server.to_owned(), protocol: String::new(), alias: String::new() };
        let check = |server: &str, product: Product, fix: Option<&str>| {
            let told = origin(server).of_other_product(product);
            assert_eq!(told.is_some(), fix.is_some(), "{told:?}");
            assert!(fix.is_none_or(|fix| told.unwrap().contains(fix)), "{server}");
        };
        check(INCUS_IMAGES, Product::Lxd, Some("addr: https://images.lxd.canonical.com"));
        check(LXD_IMAGES, Product::Incus, Some("addr: https://images.linuxcontainers.org"));
        check("https://cloud-images.ubuntu.com/daily", Product::Incus, Some("leave this remote out"));
        check("https://cloud-images.ubuntu.com/daily", Product::Lxd, None);
        check("https://mirror.example/images.linuxcontainers.org", Product::Lxd, None);
    }

    #[test]
    fn the_client_is_told_where_to_look() {
        let command = |server: &str, product: Product| {
            let (server, protocol, alias) = (server.to_owned(), "simplestreams".to_owned(), "x".to_owned());
            Origin { server, protocol, alias }.list_command(product)
        };
        assert_eq!(command("https://cloud-images.ubuntu.com/releases", Product::Lxd), "lxc image list ubuntu: x");
        assert_eq!(command(INCUS_IMAGES, Product::Incus), "incus image list images: x");
        let other = command("https://mirror.example", Product::Incus);
        assert!(other.starts_with("incus remote add NAME https://mirror.example --protocol=simplestreams"), "{other}");
    }
}
